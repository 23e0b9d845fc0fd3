package import Wire

/// How the messages between this replica and the others travel: over the direct connection, or
/// through a client that is connected to both ends while that is down.
///
/// The shell makes and loses connections and carries frames; this value decides which path is in
/// use and tells the replica of links that stand or break, so that the protocol knows of one link
/// to each other replica whatever that runs over. On a path messages keep their order and none is
/// missing; when a path gives way to another, the link breaks and comes up again, and what was on
/// its way is sent anew from the last ack.
package struct Paths: Equatable, Sendable {
    package enum Route: Equatable, Sendable {
        case direct
        case relay(via: Instance, path: UInt64)
    }

    package enum Event: Equatable, Sendable {
        /// A direct connection has exchanged hellos. It takes the place of an older path.
        case directUp(Instance)
        case directDown(Instance)
        /// A heartbeat has come on a direct connection.
        case heardDirectly(Instance)
        /// A new direct connection was refused.
        case refused(Instance)
        case exited(Instance, Life?)
        case witnessUp(Instance)
        case witnessDown(Instance)
        case frame(RelayFrame, via: Instance)
        case tick
        /// The view's other members, and those of them to which this replica makes connections.
        case members([Instance], keepsLinksTo: [Instance])
    }

    package enum Effect: Equatable, Sendable {
        /// Give this to the replica.
        case step(Replica.Event)
        case send(RelayFrame, via: Instance)
        /// Nothing comes through it any more; `directDown` is not waited for.
        case closeDirect(Instance)
    }

    package let me: Instance
    package let timing: Timing
    /// Ascending by instance.
    private var peers: [Peer] = []
    /// Clients that are connected here, ascending.
    private var witnesses: [Instance] = []
    /// The view's other members, and those to which this replica makes connections.
    private var members: [Instance] = []
    private var kept: [Instance] = []
    /// Processes proved dead; the newest few. What clients still bring of them is of no account, and
    /// would not show whether it comes from a newer process of the same instance: that has to make
    /// a direct connection first.
    private var ended: [Instance] = []
    private var ticksToBeat = 0
    private var ticksToPathBeat = 0
    /// For the numbers of the paths that this replica opens.
    private var opened: UInt64

    private struct Peer: Equatable, Sendable {
        var instance: Instance
        var isMember = false
        /// This replica, not the other, makes the connections between the two.
        var isKept = false
        var route: Route?
        var opening: Opening?
        /// The path that the other opened last; an older one's frames come too late.
        var pathSeen: UInt64 = 0
        /// Since a sign of life came on the direct connection, or that came up.
        var ticksSinceDirect = 0
        /// Since one came through any client.
        var ticksSinceRelay = Int.max / 2
        /// Since the route in use came up.
        var ticksSinceUp = 0
        /// Since anything came on the relay path in use.
        var ticksSincePath = 0
        /// A direct connection was refused, which the replica has not been told: through a client
        /// the other may prove to be alive.
        var isRefused = false
        /// Clients that have failed to reach the other since the refusal.
        var denials = 0
        /// How often all clients were asked in vain since there was a path.
        var rounds = 0
        var ticksToRetry = 0
    }

    private struct Opening: Equatable, Sendable {
        var via: Instance
        var path: UInt64
        var ticks = 0
    }

    /// How long a client may take to pass on an `open` and its answer; longer in each round in which none
    /// did, as they may be far away.
    private static let openTicksMax = 10
    private static let roundsMax = 4
    /// Through so many clients beats go.
    private static let beatPathsMax = 3
    /// After so many clients in vain a refusal is believed: a service may have thousands.
    private static let denialsMax = 3
    private static let endedMax = 16
    /// A relay path has beats of its own, and more of them: clients stop as they please, and what
    /// waits for an ack waits for nothing else meanwhile.
    private var pathBeatTicks: Int { max(1, min(timing.beatTicks, timing.retryTicks)) }
    private var pathSilentTicksMax: Int {
        max(3 * pathBeatTicks, min(5 * timing.retryTicks, timing.suspectTicks / 2))
    }

    /// `life`: 0, or of an instance that is kept on a disk a number below 2^28 that is higher at
    /// each start. Others have seen numbers of the paths of its lives before, and take none below.
    package init(me: Instance, timing: Timing, life: UInt64 = 0) {
        precondition(life < 1 << 28, "life \(life)")
        opened = life << 32
        self.me = me
        self.timing = timing
    }

    /// The path to another replica; nil while there is none.
    package func route(to instance: Instance) -> Route? { peer(instance)?.route }

    /// Whether any path goes through a client.
    package var hasRelay: Bool {
        peers.contains { peer in
            if case .relay = peer.route { true } else { false }
        }
    }

    /// The frame that carries `message` on a relay path.
    package func frame(_ message: Message, to instance: Instance, path: UInt64) -> RelayFrame {
        RelayFrame(from: me, to: instance, path: path, .data(message.fields))
    }

    package mutating func step(_ event: Event, into effects: inout [Effect]) {
        switch event {
        case .directUp(let instance): onDirectUp(instance, into: &effects)
        case .directDown(let instance):
            guard let index = index(of: instance), peers[index].route == .direct else { return }
            loseRoute(index, into: &effects)
        case .heardDirectly(let instance):
            if let index = index(of: instance) { peers[index].ticksSinceDirect = 0 }
            effects.append(.step(.heard(instance)))
        case .refused(let instance): onRefused(instance, into: &effects)
        case .exited(let instance, let life):
            if let index = index(of: instance) {
                let hadRoute = peers[index].route != nil
                peers.remove(at: index)
                if hadRoute { effects.append(.step(.linkDown(instance))) }
            }
            if !ended.contains(instance) { ended.append(instance) }
            if ended.count > Self.endedMax { ended.removeFirst() }
            effects.append(.step(.exited(instance, life)))
        case .witnessUp(let witness):
            // A newer connection of the same client: what was on its way on the older is lost.
            loseWitness(witness, into: &effects)
            let place = witnesses.firstIndex { $0 > witness } ?? witnesses.count
            witnesses.insert(witness, at: place)
            for index in peers.indices { open(index, after: nil, into: &effects) }
        case .witnessDown(let witness): loseWitness(witness, into: &effects)
        case .frame(let frame, let via): onFrame(frame, via: via, into: &effects)
        case .tick: onTick(into: &effects)
        case .members(let members, let kept): onMembers(members, kept, into: &effects)
        }
    }

    // MARK: Peers

    private func index(of instance: Instance) -> Int? {
        peers.firstIndex { $0.instance == instance }
    }

    private func peer(_ instance: Instance) -> Peer? {
        peers.first { $0.instance == instance }
    }

    private mutating func known(_ instance: Instance) -> Int {
        if let index = index(of: instance) { return index }
        let place = peers.firstIndex { $0.instance > instance } ?? peers.count
        // It may be a member that has been proved dead, and is back from its disk.
        let peer = Peer(
            instance: instance, isMember: members.contains(instance),
            isKept: kept.contains(instance))
        peers.insert(peer, at: place)
        return place
    }

    private mutating func onMembers(
        _ members: [Instance], _ kept: [Instance], into effects: inout [Effect]
    ) {
        (self.members, self.kept) = (members, kept)
        for instance in members where instance != me { _ = known(instance) }
        for index in peers.indices {
            peers[index].isMember = members.contains(peers[index].instance)
            peers[index].isKept = kept.contains(peers[index].instance)
            if !peers[index].isMember {
                abandonOpening(index, into: &effects)
                endRelay(index, into: &effects)
            }
            open(index, after: nil, into: &effects)
        }
        peers.removeAll { !$0.isMember && $0.route == nil }
    }

    // MARK: Paths come and go

    private mutating func onDirectUp(_ instance: Instance, into effects: inout [Effect]) {
        ended.removeAll { $0 == instance }
        let index = known(instance)
        abandonOpening(index, into: &effects)
        endRelay(index, into: &effects)
        if peers[index].route != nil { effects.append(.step(.linkDown(instance))) }
        peers[index].route = .direct
        peers[index].isRefused = false
        peers[index].rounds = 0
        peers[index].ticksSinceDirect = 0
        peers[index].ticksSinceUp = 0
        effects.append(.step(.linkUp(instance)))
    }

    /// Tells the other end of the relay path in use, if one is, that it has ended.
    private mutating func endRelay(_ index: Int, into effects: inout [Effect]) {
        guard case .relay(let via, let path) = peers[index].route else { return }
        peers[index].route = nil
        let instance = peers[index].instance
        let end = RelayFrame(from: me, to: instance, path: path, .close)
        effects.append(.send(end, via: via))
        effects.append(.step(.linkDown(instance)))
    }

    private mutating func loseRoute(_ index: Int, into effects: inout [Effect]) {
        guard let lost = peers[index].route else { return }
        peers[index].route = nil
        let instance = peers[index].instance
        effects.append(.step(.linkDown(instance)))
        var last: Instance?
        if case .relay(let via, _) = lost { last = via }
        peers[index].ticksToRetry = 0
        open(index, after: last, into: &effects)
        settleRefusal(index, into: &effects)
        if !peers[index].isMember { peers.remove(at: index) }
    }

    private mutating func loseWitness(_ witness: Instance, into effects: inout [Effect]) {
        witnesses.removeAll { $0 == witness }
        for instance in peers.map(\.instance) {
            guard let index = index(of: instance) else { continue }
            if case .relay(witness, _) = peers[index].route {
                loseRoute(index, into: &effects)
            } else if peers[index].opening?.via == witness {
                failOpening(index, into: &effects)
            }
        }
    }

    // MARK: Opening a path

    /// Asks through the next client behind `last`, if a path is wanted and none is being opened.
    private mutating func open(_ index: Int, after last: Instance?, into effects: inout [Effect]) {
        guard peers[index].isKept || peers[index].isRefused, peers[index].isMember,
            peers[index].route == nil, peers[index].opening == nil,
            peers[index].ticksToRetry == 0, !witnesses.isEmpty,
            !ended.contains(peers[index].instance)
        else { return }
        let via = last.flatMap { last in witnesses.first { $0 > last } } ?? witnesses[0]
        opened += 1
        let instance = peers[index].instance
        // Both ends may open paths; the lowest bit parts their numbers.
        let path = opened << 1 | (me < instance ? 0 : 1)
        peers[index].opening = Opening(via: via, path: path)
        effects.append(
            .send(RelayFrame(from: me, to: instance, path: path, .open), via: via))
    }

    /// The client does not reach the other. After the last client a pause follows.
    private mutating func failOpening(_ index: Int, into effects: inout [Effect]) {
        guard let failed = peers[index].opening else { return }
        peers[index].opening = nil
        peers[index].denials = min(peers[index].denials + 1, Self.denialsMax)
        if witnesses.contains(where: { $0 > failed.via }) {
            open(index, after: failed.via, into: &effects)
        } else {
            peers[index].ticksToRetry = timing.retryTicks
            peers[index].rounds = min(peers[index].rounds + 1, Self.roundsMax)
        }
        settleRefusal(index, into: &effects)
    }

    private mutating func abandonOpening(_ index: Int, into effects: inout [Effect]) {
        guard let opening = peers[index].opening else { return }
        peers[index].opening = nil
        let end = RelayFrame(from: me, to: peers[index].instance, path: opening.path, .close)
        effects.append(.send(end, via: opening.via))
    }

    // MARK: Frames

    private mutating func onFrame(
        _ frame: RelayFrame, via: Instance, into effects: inout [Effect]
    ) {
        guard frame.to == me, frame.from != me, witnesses.contains(via) else { return }
        guard let index = index(of: frame.from), peers[index].isMember,
            !ended.contains(frame.from)
        else {
            answerClosed(frame, via: via, into: &effects)
            return
        }
        let isInUse = peers[index].route == .relay(via: via, path: frame.path)
        switch frame.body {
        case .open: onOpen(frame, index, via: via, into: &effects)
        case .accept:
            guard peers[index].opening?.path == frame.path, peers[index].opening?.via == via else {
                answerClosed(frame, via: via, into: &effects)
                return
            }
            peers[index].opening = nil
            takeRelay(frame, index, via: via, into: &effects)
        case .data(let fields):
            guard isInUse else {
                answerClosed(frame, via: via, into: &effects)
                return
            }
            peers[index].ticksSincePath = 0
            do throws(DecodeError) {
                effects.append(.step(.relayed(try Message(fields: fields), from: frame.from)))
            } catch {
                answerClosed(frame, via: via, into: &effects)
                loseRoute(index, into: &effects)
            }
        case .beat:
            peers[index].ticksSinceRelay = 0
            if isInUse {
                peers[index].ticksSincePath = 0
            } else if frame.path != 0 {
                answerClosed(frame, via: via, into: &effects)
            }
            effects.append(.step(.heard(frame.from)))
        case .close:
            if isInUse {
                loseRoute(index, into: &effects)
            } else if frame.path == 0, case .relay(via, _) = peers[index].route {
                loseRoute(index, into: &effects)
            } else if let opening = peers[index].opening, opening.via == via,
                opening.path == frame.path || frame.path == 0
            {
                failOpening(index, into: &effects)
            }
        }
    }

    private mutating func onOpen(
        _ frame: RelayFrame, _ index: Int, via: Instance, into effects: inout [Effect]
    ) {
        guard frame.path > peers[index].pathSeen else { return }
        peers[index].pathSeen = frame.path
        // Sent before the other knew of the direct connection, most likely. If that has ended
        // there already, it asks again.
        if peers[index].route == .direct, peers[index].ticksSinceUp < timing.retryTicks {
            answerClosed(frame, via: via, into: &effects)
            return
        }
        // Both have asked: the path of the lower one is taken.
        if peers[index].opening != nil {
            guard frame.from < me else {
                answerClosed(frame, via: via, into: &effects)
                return
            }
            abandonOpening(index, into: &effects)
        }
        // The other has lost the path that may still seem to stand here.
        if peers[index].route != nil {
            if peers[index].route == .direct { effects.append(.closeDirect(frame.from)) }
            effects.append(.step(.linkDown(frame.from)))
            peers[index].route = nil
        }
        let accept = RelayFrame(from: me, to: frame.from, path: frame.path, .accept)
        effects.append(.send(accept, via: via))
        takeRelay(frame, index, via: via, into: &effects)
    }

    private mutating func takeRelay(
        _ frame: RelayFrame, _ index: Int, via: Instance, into effects: inout [Effect]
    ) {
        peers[index].route = .relay(via: via, path: frame.path)
        peers[index].rounds = 0
        peers[index].ticksSinceUp = 0
        peers[index].ticksSincePath = 0
        peers[index].ticksSinceRelay = 0
        peers[index].isRefused = false
        effects.append(.step(.linkUp(frame.from)))
        effects.append(.step(.heard(frame.from)))
    }

    private func answerClosed(
        _ frame: RelayFrame, via: Instance, into effects: inout [Effect]
    ) {
        guard frame.body != .close, frame.body != .beat || frame.path != 0 else { return }
        let end = RelayFrame(from: me, to: frame.from, path: frame.path, .close)
        effects.append(.send(end, via: via))
    }

    // MARK: Signs of life

    /// A refusal may be a firewall's. Before the replica counts the other as failed, the clients
    /// are asked: a dead one's connections to them are gone, too.
    private mutating func onRefused(_ instance: Instance, into effects: inout [Effect]) {
        guard let index = index(of: instance), peers[index].isMember else {
            effects.append(.step(.refused(instance)))
            return
        }
        if !peers[index].isRefused { peers[index].denials = 0 }
        peers[index].isRefused = true
        open(index, after: nil, into: &effects)
        settleRefusal(index, into: &effects)
    }

    private mutating func settleRefusal(_ index: Int, into effects: inout [Effect]) {
        guard peers[index].isRefused, peers[index].route == nil,
            peers[index].opening == nil || peers[index].denials >= Self.denialsMax
        else { return }
        peers[index].isRefused = false
        effects.append(.step(.refused(peers[index].instance)))
    }

    private mutating func onTick(into effects: inout [Effect]) {
        ticksToBeat -= 1
        let isBeatDue = ticksToBeat <= 0
        if isBeatDue { ticksToBeat = timing.beatTicks }
        ticksToPathBeat -= 1
        let isPathBeatDue = ticksToPathBeat <= 0
        if isPathBeatDue { ticksToPathBeat = pathBeatTicks }
        for instance in peers.map(\.instance) {
            guard let index = index(of: instance), peers[index].isMember else { continue }
            count(index)
            if isBeatDue { beat(index, into: &effects) }
            if isPathBeatDue, case .relay(let via, let path) = peers[index].route {
                let beat = RelayFrame(from: me, to: instance, path: path, .beat)
                effects.append(.send(beat, via: via))
            }
            if var opening = peers[index].opening {
                opening.ticks += 1
                peers[index].opening = opening
                if opening.ticks >= Self.openTicksMax << peers[index].rounds {
                    abandonOpening(index, into: &effects)
                    peers[index].opening = opening
                    failOpening(index, into: &effects)
                }
            } else {
                open(index, after: nil, into: &effects)
            }
            closeIfSilent(index, into: &effects)
        }
    }

    private mutating func count(_ index: Int) {
        func next(_ ticks: Int) -> Int { min(ticks + 1, Int.max / 2) }
        peers[index].ticksSinceDirect = next(peers[index].ticksSinceDirect)
        peers[index].ticksSinceRelay = next(peers[index].ticksSinceRelay)
        peers[index].ticksSinceUp = next(peers[index].ticksSinceUp)
        peers[index].ticksSincePath = next(peers[index].ticksSincePath)
        peers[index].ticksToRetry = max(0, peers[index].ticksToRetry - 1)
    }

    private func beat(_ index: Int, into effects: inout [Effect]) {
        for witness in witnesses.prefix(Self.beatPathsMax) {
            let beat = RelayFrame(from: me, to: peers[index].instance, path: 0, .beat)
            effects.append(.send(beat, via: witness))
        }
    }

    /// Gives up a path that stands but brings nothing: a direct connection while clients bring
    /// beats, so it is cut; a relay path whose client has stopped, or that has ended at the other
    /// end alone.
    private mutating func closeIfSilent(_ index: Int, into effects: inout [Effect]) {
        switch peers[index].route {
        case nil: return
        case .direct:
            let silentMax = max(2 * timing.beatTicks, timing.suspectTicks / 2)
            guard peers[index].ticksSinceDirect > silentMax,
                peers[index].ticksSinceRelay <= 2 * timing.beatTicks
            else { return }
            effects.append(.closeDirect(peers[index].instance))
        case .relay(let via, let path):
            guard peers[index].ticksSincePath > pathSilentTicksMax else { return }
            let end = RelayFrame(from: me, to: peers[index].instance, path: path, .close)
            effects.append(.send(end, via: via))
        }
        loseRoute(index, into: &effects)
    }
}
