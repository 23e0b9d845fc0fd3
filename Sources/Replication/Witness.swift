package import Wire

/// A client that takes part in choosing views. It holds no data of the service: two servers
/// suffice because their clients, who are connected to both, decide which of them goes on.
package struct Witness: Equatable, Sendable {
    package let instance: Instance
    /// For how many ticks without a beat the primary still counts as alive.
    package var hearingTicksMax: Int
    /// The newest view this witness knows.
    package private(set) var view: View?
    /// For the view after `view`.
    private var acceptor = Acceptor()
    /// Only tests set it.
    package var breakage: Breakage? { didSet { acceptor.breakage = breakage } }
    private var ticksSinceBeat = 0
    /// What the primary of `view` has said is committed. A replica that has been dead may have lost it.
    package private(set) var committed = LogEnd.beginning
    /// Replicas with a standing connection, ascending.
    private var replicas: [Neighbor] = []

    private struct Neighbor: Equatable, Sendable {
        var instance: Instance
        /// Of the views that it has spoken of or was told of here, the newest.
        var view = ViewNumber(0)
        /// How long it has not been known to know this witness's view.
        var ticksBehind = 0
    }

    package enum Event: Equatable, Sendable {
        case message(Message, from: Instance)
        case connected(Instance)
        case disconnected(Instance)
        case tick
    }

    package init(instance: Instance, hearingTicksMax: Int) {
        self.instance = instance
        self.hearingTicksMax = hearingTicksMax
    }

    package var isElector: Bool { view?.electorate.contains(instance) ?? false }

    package mutating func step(_ event: Event, into outbox: inout Outbox) {
        switch event {
        case .message(let message, let from): onMessage(message, from: from, into: &outbox)
        case .connected(let replica):
            guard !isConnected(replica) else { return }
            replicas.append(Neighbor(instance: replica))
            replicas.sort { $0.instance < $1.instance }
            // It may have been cut off while views changed.
            if isElector { tell(replicas.firstIndex { $0.instance == replica }, into: &outbox) }
        case .disconnected(let replica):
            guard isConnected(replica) else { return }
            replicas.removeAll { $0.instance == replica }
            for other in replicas {
                let end = RelayFrame(from: replica, to: other.instance, path: 0, .close)
                outbox.send.append(Envelope(to: other.instance, .relay(end)))
            }
        case .tick:
            ticksSinceBeat = min(ticksSinceBeat + 1, hearingTicksMax + 1)
            tellMembers(into: &outbox)
        }
    }

    private func isConnected(_ replica: Instance) -> Bool {
        replicas.contains { $0.instance == replica }
    }

    /// Tells a replica of the view.
    private mutating func tell(_ index: Int?, into outbox: inout Outbox) {
        guard let index, let view else { return }
        replicas[index].view = view.number
        replicas[index].ticksBehind = 0
        outbox.send.append(Envelope(to: replicas[index].instance, .view(view)))
    }

    /// A member of the view may have missed it, and whoever decided it be gone, electors too: then the
    /// clients are all that know. It is told after a while, in which it will mostly have spoken of it
    /// itself, as there may be thousands of clients.
    private mutating func tellMembers(into outbox: inout Outbox) {
        guard let view else { return }
        for index in replicas.indices
        where replicas[index].view < view.number && view.contains(replicas[index].instance) {
            replicas[index].ticksBehind += 1
            if replicas[index].ticksBehind > tellingTicks { tell(index, into: &outbox) }
        }
    }

    /// A quarter of the time after which a silent primary counts as dead.
    private var tellingTicks: Int { hearingTicksMax / 4 }

    /// In how many ticks a member will be told of the view, unless it speaks of it; nil: none.
    package var ticksToTell: Int? {
        guard let view else { return nil }
        let behind = replicas.filter { $0.view < view.number && view.contains($0.instance) }
        return behind.map { max(1, tellingTicks + 1 - $0.ticksBehind) }.min()
    }

    /// Whether the view's primary counts as alive here. Only for liveness: it keeps a backup that
    /// is merely cut off from unseating a healthy primary.
    private var isHearingPrimary: Bool {
        guard let view else { return false }
        return isConnected(view.primary.instance) && ticksSinceBeat <= hearingTicksMax
    }

    private mutating func onMessage(_ message: Message, from: Instance, into outbox: inout Outbox) {
        switch message {
        case .view(let news): onView(news, from: from, into: &outbox)
        case .beat(let number, let committed):
            guard let view, view.number == number, view.primary.instance == from else { return }
            ticksSinceBeat = 0
            self.committed = self.committed.orLater(committed)
            if committed.op < self.committed.op {
                // It has been dead, and may have lost what it had.
                let beat = Message.beat(view: number, committed: self.committed)
                outbox.send.append(Envelope(to: from, beat))
            }
        case .seek(let number, let attempt, let isViewOver):
            guard isAsked(number, by: from, into: &outbox), let view else { return }
            let isPrimary = from == view.primary.instance
            guard isPrimary || isViewOver || !isHearingPrimary else { return }
            if let outbid = acceptor.grant(attempt) {
                outbox.send.append(Envelope(to: from, .outbid(number: number, attempt: outbid)))
            } else {
                let answer = Message.grant(
                    number: number, attempt: attempt, committed: committed, end: .beginning,
                    accepted: acceptor.accepted)
                outbox.sendAfterSync.append(Envelope(to: from, answer))
            }
        case .propose(let attempt, let proposal):
            guard isAsked(proposal.number, by: from, into: &outbox) else { return }
            if let outbid = acceptor.accept(attempt, proposal) {
                let answer = Message.outbid(number: proposal.number, attempt: outbid)
                outbox.send.append(Envelope(to: from, answer))
            } else {
                let answer = Message.accepted(number: proposal.number, attempt: attempt)
                outbox.sendAfterSync.append(Envelope(to: from, answer))
            }
        case .relay(let frame): relay(frame, from: from, into: &outbox)
        case .prepare, .commit, .confirm, .prepareOK, .confirmOK, .attach, .witnesses, .fork,
            .grant,
            .outbid, .accepted, .join, .state, .learnOK, .joinRefused, .election,
            .electionOK, .leave, .stop:
            return
        }
    }

    /// Passes on what one replica has for another; if there is no way, says so.
    private func relay(_ frame: RelayFrame, from: Instance, into outbox: inout Outbox) {
        guard frame.from == from else { return }
        if isConnected(frame.to) {
            outbox.send.append(Envelope(to: frame.to, .relay(frame)))
        } else if frame.body != .close, frame.body != .beat {
            let end = RelayFrame(from: frame.to, to: from, path: frame.path, .close)
            outbox.send.append(Envelope(to: from, .relay(end)))
        }
    }

    private mutating func onView(_ news: View, from: Instance, into outbox: inout Outbox) {
        if let index = replicas.firstIndex(where: { $0.instance == from }) {
            replicas[index].view = max(replicas[index].view, news.number)
        }
        guard news.number > (view?.number ?? ViewNumber(0)) else { return }
        let wasElector = isElector
        view = news
        acceptor = Acceptor()
        acceptor.breakage = breakage
        ticksSinceBeat = 0
        committed = news.base
        for index in replicas.indices { replicas[index].ticksBehind = 0 }
        // A replica that was cut off from the others learns from its witnesses that it is out.
        guard wasElector || isElector else { return }
        for index in replicas.indices where replicas[index].instance != from {
            tell(index, into: &outbox)
        }
    }

    /// Whether this witness has a say in the choice of view `number`; who asks for a view that is
    /// decided already is told the newest one.
    private func isAsked(_ number: ViewNumber, by from: Instance, into outbox: inout Outbox) -> Bool
    {
        guard let view else { return false }
        guard number > view.number || breakage == .electsThePast else {
            outbox.send.append(Envelope(to: from, .view(view)))
            return false
        }
        return number == view.number.next && isElector || breakage == .electsThePast
    }
}
