import Arguments
import Linux
import Replication
import Services
import Storage
import Wire

// Finding the service and the way into its view, and a member's connections to the others.
extension Server {
    func beginJoining() {
        // What it was alone in it has executed, and says so when it joins.
        if replica.view != nil {
            step(.resume)
            // It may come to lead with what it has executed.
            restartClocks()
        }
        joining.target = settings.peers.first ?? replica.view?.primary.address
        joining.nextDial = now
        joining.startAt = now + settings.joinAfterMilliseconds * 1_000_000
        joining.isDeciding = settings.startsAsPrimary && service == nil && !mayBeMissed
        if service != nil, replica.mayBePromoted {
            log.info(
                "the folder has op \(replica.op); others have gone on without it: waiting for them. If "
                    + "they are gone for good, pollctl promote --force goes on with that")
        } else if let service {
            log.info(
                "the folder is of service \(service), which it has not got yet: waiting for the "
                    + "other replica; to begin a new service instead, give --data another folder")
        }
        if let aside = durable?.store.aside, mayBeMissed, settings.startsAsPrimary {
            log.warning(
                "what was in the folder was put aside as \(aside), and nothing has come in its place: "
                    + "waiting for the other replica; to begin a new service instead, give --data "
                    + "another folder")
        }
        if joining.isDeciding, settings.peers.isEmpty {
            createService("there is nobody to look for")
        }
        if settings.joinAfterMilliseconds > 0 {
            log.info("a fresh backup: joining in \(settings.joinAfterMilliseconds) ms")
            joining.nextDial = joining.startAt
        }
    }

    /// The folder is blank because a start did not get to the end of beginning anew: the disk was full,
    /// or the process was ended. What it had of a service is with the other replica, which need not
    /// be up at this moment. A restoration is an operator's word that there is to be a new one.
    private var mayBeMissed: Bool {
        guard let durable, service == nil, joining.restoration == nil else { return false }
        return !durable.store.former.isEmpty
    }

    /// Goes on in the view that the journal names.
    func resumeService() {
        joining.target = settings.peers.first
        log.info(
            "going on from the journal: op \(replica.op), view \(replica.view?.number ?? ViewNumber(0))"
        )
        replacement.nextSpawn = now + Replacement.graceNanoseconds
        // Who is alone in its view has nobody to call, and would never learn of a copy.
        if replica.view?.backups.isEmpty == true {
            for peer in settings.peers where peer != me.address {
                dial(peer, kind: .calling(peer))
                joining.isProbing = true
            }
        }
        step(.resume)
        restartClocks()
        // Its first start may have ended before these were in the log.
        let isAlone = replica.view?.members.map(\.instance) == [me.instance]
        if isAlone, replica.op == executor.op, executor.end.view == ViewNumber(0) { proposeTerms() }
    }

    /// What the service is to begin with, as the flags say.
    private func proposeTerms() {
        if let catalogue = settings.catalogue {
            batch.append(Request(command: RoomCommand.catalogue(catalogue).encode()))
        }
        if let plan = settings.plan {
            batch.append(Request(command: PollCommand.plan(plan).encode()))
        }
    }

    private func endProbing() {
        guard joining.isProbing else { return }
        func isCall(_ kind: Connection.Kind) -> Bool {
            if case .calling = kind { true } else { false }
        }
        let isCalling =
            resolving.contains { isCall($0.kind) }
            || connections.contains { connection in
                connection.map { $0.isOpen && isCall($0.kind) } ?? false
            }
        if !isCalling || joining.hasProbed { joining.isProbing = false }
    }

    func tickJoining() {
        joining.ticks += 1
        endProbing()
        guard stopping == nil else { return }
        if let started = joining.dialStarted, now > started + Joining.dialTimeMax {
            for case let connection? in connections {
                if case .dialing = connection.kind, connection.isOpen { close(connection) }
            }
            resolving.removeAll { if case .dialing = $0.kind { true } else { false } }
            joining.dialStarted = nil
        }
        if joining.hasDecided {
            let others = settings.peers.map(\.description).joined(separator: ", ")
            createService("\(others) does not answer")
            return
        }
        probe()
        if replica.isMember {
            tickMemberLinks()
            return
        }
        guard replica.status == .idle, joining.dialStarted == nil, now >= joining.nextDial,
            let target = joining.target
        else { return }
        if target == me.address {
            alternateTarget()
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
        joining.backOff(now)
        dial(target, kind: .dialing(target))
        alternateTarget()
    }

    /// The known primary, the servers of the command line and the members of the last view in
    /// turn: each may know more than the others.
    private func alternateTarget() {
        let members = replica.view?.members.map(\.address) ?? joining.lastKnown
        let known = members.prefix(1) + settings.peers + members.dropFirst()
        var targets: [Address] = []
        for address in known where address != me.address && !targets.contains(address) {
            targets.append(address)
        }
        let last = targets.firstIndex { $0 == joining.target }
        joining.target =
            targets.isEmpty ? nil : targets[last.map { ($0 + 1) % targets.count } ?? 0]
    }

    /// A backup keeps its direct connections, also while clients relay. Who may be alone calls the
    /// others, and the servers of its command line: they may have gone on without it and have no
    /// reason to look for it.
    private func tickMemberLinks() {
        for address in calls.overdue(now) {
            for case let connection? in connections
            where connection.kind == .calling(address) && connection.isOpen {
                close(connection)
            }
            resolving.removeAll { $0.kind == .calling(address) }
            calls.onFailed(address)
        }
        guard let view = replica.view else { return }
        let others = view.members.filter { $0.instance != me.instance }
        let isAlone =
            isPrimary
            ? others.contains { replica.hasFailed($0.instance) }
            : replica.hasFailed(view.primary.instance)
        let called = others.filter { member in
            guard links[member.instance] == nil, !cutInstances.contains(member.instance) else {
                return false
            }
            return isPrimary
                ? replica.hasFailed(member.instance) : isAlone || keepsLink(to: member)
        }
        var addresses = called.map(\.address)
        if isAlone, cutInstances.isEmpty {
            for peer in settings.peers where peer != me.address && !addresses.contains(peer) {
                addresses.append(peer)
            }
        }
        // A replica that is connected already may live where one that has gone was.
        addresses.removeAll { address in
            view.members.contains { links[$0.instance] != nil && $0.address == address }
        }
        addresses += rivalAddresses(view)
        for address in calls.due(addresses, now, jitter: Entropy.next()) {
            dial(address, kind: .calling(address))
        }
    }

    /// Where another may lead the service that this primary, alone in its view, has gone on without, or that
    /// has gone on without this one: people may have promoted it by force behind a cut. It is alone as
    /// well, so when the cut is over neither has a backup by which to meet the other. Once a second.
    private func rivalAddresses(_ view: View) -> [Address] {
        guard isPrimary, view.backups.isEmpty, now >= joining.nextSearch, cutInstances.isEmpty,
            !replica.isAdmitting, !joining.isProbing,
            // While it may be the newcomer of two on copies of a folder it is for the other to call.
            durable == nil || now > startedAt + Self.newcomerNanoseconds
        else { return [] }
        joining.nextSearch = now + Joining.delayMax
        var taken = [me.address]
        // The replacement that it has started there comes by itself, when its time has come.
        if replacement.child != nil, let address = replacement.childAddress {
            taken.append(address)
        }
        for case let connection? in connections {
            guard case .link(let instance) = connection.kind, links[instance] === connection,
                let peer = knownReplicas[instance]
            else { continue }
            taken.append(peer.member.address)
        }
        var addresses: [Address] = []
        for address in settings.peers + (replacement.partner.map { [$0.address] } ?? [])
        where !taken.contains(address) && !addresses.contains(address) {
            addresses.append(address)
        }
        return addresses
    }

    func createService(_ reason: String) {
        guard joining.isDeciding, service == nil else { return }
        joining.isDeciding = false
        let id = ServiceID(high: Entropy.next(), low: Entropy.next())
        service = id
        log.info("beginning a new service \(id): \(reason)")
        dropStrangers()
        replacement.nextSpawn = now + Replacement.graceNanoseconds
        if let restoration = joining.restoration {
            joining.restoration = nil
            claimFolder(id)
            if exitCode == nil { adopt(restoration) }
            guard exitCode == nil else { return }
        }
        joining.hasHadState = true
        step(.create(after: executor.end, hash: executor.hash))
        proposeTerms()
    }

    /// Begins anew as a replica that has never heard of a service. It was in no view, and never had a state
    /// for which one could name it: so nobody counts on anything that it has said.
    private func forgetService() {
        service = nil
        joining.lastKnown = replica.view?.members.map(\.address) ?? joining.lastKnown
        dropStrangers()
        // They know the service's views, and take what is said here for its words.
        for case let connection? in connections
        where connection.kind == .client && connection.version == .resp3 {
            close(connection)
        }
        held = HeldBallots()
        replica = Replica(
            me: me, timing: replica.timing, membersMax: settings.membersMax,
            election: settings.election, seed: Entropy.next())
    }

    /// Whether the place is still that of who was here before this process: the machine was off for so
    /// short a time that nobody has missed it yet.
    private var isOwnPlace: Bool {
        let mine = joining.seats.first { $0.address == me.address }
        guard let mine, mine.instance != me.instance else { return false }
        let milliseconds =
            settings.joinAfterMilliseconds + settings.heartbeatMilliseconds * settings.misses
            + 5_000
        return now < startedAt + milliseconds * 1_000_000
    }

    func onJoinFailed(_ reason: String, isPlaceTaken: Bool) {
        if isPlaceTaken, !isOwnPlace {
            log.error("cannot join: \(reason); exiting")
            end(.unavailable)
            return
        }
        // It is not bound to a service of which it has nothing, not even a folder.
        if !joining.hasHadState, durable == nil { forgetService() }
        joining.lastReason = reason
        log.infoOnce("joining did not succeed (\(reason)); trying again")
        joining.failures = min(joining.failures + 1, 6)
        joining.nextDial = now + min(Joining.delayMin << joining.failures, Joining.delayMax)
    }
}
