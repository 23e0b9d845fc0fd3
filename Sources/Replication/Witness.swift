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
    /// Replicas with a standing connection, ascending.
    private var replicas: [Instance] = []

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
            guard !replicas.contains(replica) else { return }
            replicas.append(replica)
            replicas.sort()
            // It may have been cut off while views changed.
            if let view, isElector { outbox.send.append(Envelope(to: replica, .view(view))) }
        case .disconnected(let replica):
            guard replicas.contains(replica) else { return }
            replicas.removeAll { $0 == replica }
            for other in replicas {
                let end = RelayFrame(from: replica, to: other, path: 0, .close)
                outbox.send.append(Envelope(to: other, .relay(end)))
            }
        case .tick:
            ticksSinceBeat = min(ticksSinceBeat + 1, hearingTicksMax + 1)
        }
    }

    /// Whether the view's primary counts as alive here. Only for liveness: it keeps a backup that
    /// is merely cut off from unseating a healthy primary.
    private var isHearingPrimary: Bool {
        guard let view else { return false }
        return replicas.contains(view.primary.instance) && ticksSinceBeat <= hearingTicksMax
    }

    private mutating func onMessage(_ message: Message, from: Instance, into outbox: inout Outbox) {
        switch message {
        case .view(let news): onView(news, from: from, into: &outbox)
        case .beat(let number):
            guard let view, view.number == number, view.primary.instance == from else { return }
            ticksSinceBeat = 0
        case .seek(let number, let attempt, let isViewOver):
            guard isAsked(number, by: from, into: &outbox), let view else { return }
            let isPrimary = from == view.primary.instance
            guard isPrimary || isViewOver || !isHearingPrimary else { return }
            if let outbid = acceptor.seek(attempt) {
                outbox.send.append(Envelope(to: from, .outbid(number: number, attempt: outbid)))
            } else {
                let answer = Message.grant(
                    number: number, attempt: attempt, accepted: acceptor.accepted)
                outbox.sendAfterSync.append(Envelope(to: from, answer))
            }
        case .propose(let attempt, let proposal):
            guard isAsked(proposal.number, by: from, into: &outbox) else { return }
            if let outbid = acceptor.propose(attempt, proposal) {
                let answer = Message.outbid(number: proposal.number, attempt: outbid)
                outbox.send.append(Envelope(to: from, answer))
            } else {
                let answer = Message.accepted(number: proposal.number, attempt: attempt)
                outbox.sendAfterSync.append(Envelope(to: from, answer))
            }
        case .relay(let frame): relay(frame, from: from, into: &outbox)
        case .prepare, .commit, .confirm, .prepareOK, .confirmOK, .attach, .witnesses, .grant,
            .outbid, .accepted, .join, .state, .learnOK, .joinRefused, .election,
            .electionOK, .leave, .stop:
            return
        }
    }

    /// Passes on what one replica has for another; if there is no way, says so.
    private func relay(_ frame: RelayFrame, from: Instance, into outbox: inout Outbox) {
        guard frame.from == from else { return }
        if replicas.contains(frame.to) {
            outbox.send.append(Envelope(to: frame.to, .relay(frame)))
        } else if frame.body != .close, frame.body != .beat {
            let end = RelayFrame(from: frame.to, to: from, path: frame.path, .close)
            outbox.send.append(Envelope(to: from, .relay(end)))
        }
    }

    private mutating func onView(_ news: View, from: Instance, into outbox: inout Outbox) {
        guard news.number > (view?.number ?? ViewNumber(0)) else { return }
        let wasElector = isElector
        view = news
        acceptor = Acceptor()
        acceptor.breakage = breakage
        ticksSinceBeat = 0
        // A replica that was cut off from the others learns from its witnesses that it is out.
        guard wasElector || isElector else { return }
        for replica in replicas where replica != from {
            outbox.send.append(Envelope(to: replica, .view(news)))
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
