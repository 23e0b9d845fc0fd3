import Linux
import Replication
import Services
import Wire

/// How a replica finds the service, or finds that there is none.
struct Joining {
    /// Started as primary, and not yet known whether a service is running.
    var isDeciding = false
    var decideBy: UInt64 = 0
    /// A backup waits so long before it asks to join.
    var startAt: UInt64 = 0
    /// Where to ask next.
    var target: Address?
    var dialed: Address?
    var dialStarted: UInt64?
    var nextDial: UInt64 = 0
    var delay: UInt64 = Self.delayMin
    var joinCount = 0
    /// Calls to other members, to try their addresses in turn.
    var callCount = 0
    var lastReason = ""

    static let delayMin: UInt64 = 20_000_000
    static let delayMax: UInt64 = 1_000_000_000
    static let dialTimeMax: UInt64 = 2_000_000_000
    static let decideTimeMax: UInt64 = 3_000_000_000

    mutating func backOff(_ now: UInt64) {
        nextDial = max(nextDial, now + delay)
        delay = min(delay * 2, Self.delayMax)
    }

    mutating func retrySoon(_ now: UInt64) { nextDial = now + Self.delayMin }

    mutating func onEntered() {
        isDeciding = false
        delay = Self.delayMin
        lastReason = ""
    }

    mutating func rejoin(at address: Address, now: UInt64) {
        target = address
        delay = Self.delayMin
        nextDial = now
    }

    func note(_ status: Replica.Status) -> String {
        switch status {
        case .idle: isDeciding ? "finding out whether a service is running" : lastReason
        case .learning: "fetching the state"
        case .normal: ""
        case .choosing: "choosing the next view"
        }
    }
}

extension Server {
    func beginJoining() {
        joining.target = settings.peer
        joining.nextDial = now
        joining.startAt = now + settings.joinAfterMilliseconds * 1_000_000
        joining.isDeciding = settings.startsAsPrimary
        joining.decideBy = now + Joining.decideTimeMax
        if settings.joinAfterMilliseconds > 0 {
            log.info("a fresh backup: joining in \(settings.joinAfterMilliseconds) ms")
            joining.nextDial = joining.startAt
        }
    }

    func tickJoining() {
        guard stopping == nil else { return }
        if let started = joining.dialStarted, now > started + Joining.dialTimeMax {
            for case let connection? in connections {
                if case .dialing = connection.kind, connection.isOpen { close(connection) }
            }
            joining.dialStarted = nil
        }
        if joining.isDeciding, now > joining.decideBy {
            createService("\(settings.peer) does not answer")
            return
        }
        if replica.isMember {
            tickMemberLinks()
            return
        }
        guard replica.status == .idle, joining.dialStarted == nil, now >= joining.nextDial,
            let target = joining.target
        else { return }
        if target == me.address {
            joining.target = settings.peer == me.address ? nil : settings.peer
            joining.backOff(now)
            return
        }
        if let view = replica.view, view.primary.address == target,
            cutInstances.contains(view.primary.instance)
        {
            joining.backOff(now)
            return
        }
        // A link that stands already would be found silent: say hello anew.
        if let view = replica.view, view.primary.address == target,
            let link = links[view.primary.instance]
        {
            close(link)
        }
        joining.dialed = target
        joining.backOff(now)
        dial(target, kind: .dialing(target))
        alternateTarget()
    }

    /// The known primary and the other server of the command line in turn: either may know more.
    private func alternateTarget() {
        guard let view = replica.view, view.primary.address != me.address else { return }
        joining.target =
            joining.target == view.primary.address && settings.peer != me.address
            ? settings.peer : view.primary.address
    }

    /// A backup keeps a direct connection to its primary, also while clients relay. Who may be
    /// alone calls the others, and the server of its command line: they may have gone on without
    /// it and have no reason to look for it.
    private func tickMemberLinks() {
        guard joining.dialStarted == nil, now >= joining.nextDial, let view = replica.view else {
            return
        }
        let failed = view.members.filter {
            $0.instance != me.instance && replica.hasFailed($0.instance)
        }
        let called = isPrimary ? failed : [view.primary]
        var addresses = called.filter {
            links[$0.instance] == nil && !cutInstances.contains($0.instance)
        }.map(\.address)
        if !failed.isEmpty, cutInstances.isEmpty, settings.peer != me.address,
            !addresses.contains(settings.peer)
        {
            addresses.append(settings.peer)
        }
        // A replica that is connected already may live where one that has gone was.
        addresses.removeAll { address in
            view.members.contains { links[$0.instance] != nil && $0.address == address }
        }
        guard !addresses.isEmpty else { return }
        let address = addresses[joining.callCount % addresses.count]
        joining.callCount += 1
        joining.dialed = address
        joining.backOff(now)
        dial(address, kind: .dialing(address))
    }

    func createService(_ reason: String) {
        guard joining.isDeciding, service == nil else { return }
        joining.isDeciding = false
        let id = ServiceID(high: Entropy.next(), low: Entropy.next())
        service = id
        log.info("beginning a new service \(id): \(reason)")
        restart.nextSpawn = now + Restart.graceNanoseconds
        step(.create)
        if let catalogue = settings.catalogue {
            batch.append(Request(command: RoomCommand.catalogue(catalogue).encode()))
        }
        if let plan = settings.plan {
            batch.append(Request(command: PollCommand.plan(plan).encode()))
        }
    }

    func onJoinFailed(_ reason: String, isPlaceTaken: Bool) {
        if isPlaceTaken {
            log.error("cannot join: \(reason); exiting")
            exitCode = 69
            return
        }
        joining.lastReason = reason
        log.info("joining did not succeed (\(reason)); trying again")
        joining.backOff(now)
    }
}
