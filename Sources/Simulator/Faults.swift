import Replication
import Wire

/// What ends a fault.
enum Mend {
    case release(from: Int, to: Int)
    case unbar(Int, Int)
    case resume(Process)
    case makeRoom(slot: Int)
}

// What goes wrong, and how it is mended.
extension Simulation {
    func later(_ mend: Mend, after time: Int) {
        mends.append(mend)
        queue.push(.mend(mends.count - 1), at: now + time)
    }

    func mend(_ index: Int) {
        switch mends[index] {
        case .release(let from, let to):
            network.hold(from, to, -1)
            flushHeld()
        case .unbar(let a, let b): network.bar(a, b, -1)
        case .resume(let process): queue.push(.resume(process), at: now)
        case .makeRoom(let slot): makeRoom(slot)
        }
    }

    var primary: ReplicaProcess? {
        guard let view = history.newest else { return nil }
        return replicas.first { $0.me.instance == view.primary.instance && $0.isUp }
    }

    private var others: [ReplicaProcess] {
        let leading = primary?.number
        return replicas.filter { $0.isUp && $0.number != leading }
    }

    private var liveVoters: [ClientProcess] {
        voters.dropLast().map { clients[$0] }.filter { $0.isUp && !$0.isPaused }
    }

    /// Voters and guests.
    private var liveClients: [ClientProcess] {
        liveVoters + clients.filter { isGuest($0) && $0.isUp && !$0.isPaused }
    }

    private func draw() -> Fault {
        let total = mix.weights.reduce(0) { $0 + $1.weight }
        var rest = random.int(0...total - 1)
        for item in mix.weights {
            if rest < item.weight { return item.fault }
            rest -= item.weight
        }
        return mix.weights[0].fault
    }

    /// What `Mix.ambush` says, at the sight of its message.
    func ambush(_ process: ReplicaProcess, _ envelope: Envelope) {
        guard let ambush = mix.ambush, ambushes > 0, !isHealed, now > 20_000 else { return }
        let isSeen =
            switch ambush.message {
            case .seek: if case .seek = envelope.message { true } else { false }
            case .propose: if case .propose = envelope.message { true } else { false }
            case .grant: if case .grant = envelope.message { true } else { false }
            case .accepted: if case .accepted = envelope.message { true } else { false }
            case .view: if case .view = envelope.message { true } else { false }
            case .state: if case .state = envelope.message { true } else { false }
            case .prepare: if case .prepare = envelope.message { true } else { false }
            case .confirm: if case .confirm = envelope.message { true } else { false }
            case .learnOK: if case .learnOK = envelope.message { true } else { false }
            }
        guard isSeen, random.chance(ambush.chance) else { return }
        coverage.note(.ambush)
        ambushes -= 1
        let reach = ambush.fault.isOfDisks && random.chance(500) ? 0 : 2 * mix.delayMax
        var target: ReplicaProcess?
        if ambush.fault.isOfDisks {
            let other = replicas.first { $0.me.instance == envelope.to && $0.isUp }
            target = random.chance(300) ? other : process
            // What the other makes of the message it keeps to itself for a while.
            if let other, ambush.fault == .bounce, random.chance(500) { silence(other) }
        }
        queue.push(
            .fault(ambush.fault, of: target?.number), at: now + random.int(0...reach))
    }

    /// Everything reaches this replica, and nothing gets out.
    private func silence(_ process: ReplicaProcess) {
        coverage.note(.linkHeldOneWay)
        tell { "nothing from replica \(process.number) gets out" }
        let time = random.int(50_000...400_000)
        for site in 0..<Self.slots + Self.operatorName + 1 where site != process.slot {
            hold(process.slot, site, time)
        }
    }

    func strike(_ given: Fault?, _ target: Int?) {
        guard !isHealed else { return }
        if lastFaultAt >= 0, now - lastFaultAt < 20_000 { coverage.note(.severalAtOnce) }
        lastFaultAt = now
        let fault = given ?? draw()
        let time = random.int(5_000...(random.element([30_000, 150_000, 600_000]) ?? 30_000))
        switch fault {
        case .killPrimary: if let primary { kill(primary) }
        case .killBackup: if let process = random.element(others) { kill(process) }
        case .loseMachine:
            let candidates = replicas.filter { $0.isUp && !mix.isOneHost }
            guard let process = random.element(candidates),
                mayLose(process, withoutPower: true)
            else { return }
            coverage.note(.machineLost)
            tell { "the machine of replica \(process.number) is gone" }
            end(process, .power, withMachine: true)
        case .pausePrimary: if let primary { pause(primary, time) }
        case .pauseBackup: if let process = random.element(others) { pause(process, time) }
        case .pauseClient:
            guard let client = random.element(liveClients) else { return }
            coverage.note(.clientPaused)
            tell { "client \(client.number) stops for \(time / 1_000) ms" }
            client.isPaused = true
            later(.resume(.client(client.number)), after: time)
        case .resetLink: cutLink(time)
        case .holdLink: holdLink(time, bothWays: true)
        case .holdLinkOneWay: holdLink(time, bothWays: false)
        case .flapLink: flap()
        case .resetClientLink, .holdClientLink, .holdClientLinkOneWay: strikeClientLink(fault, time)
        case .killClient:
            guard let client = random.element(liveVoters), mayLose(client) else { return }
            coverage.note(client.witness.isElector ? .witnessKilled : .clientKilled)
            tell { "client \(client.number) is killed" }
            end(client)
            nextClientStart[client.name] = now + random.int(0...mix.restartMax)
        case .clientLeaves:
            guard let client = random.element(liveVoters), client.leavesAt == nil, mayLose(client)
            else { return }
            coverage.note(.clientLeft)
            tell { "client \(client.number) leaves" }
            leave(client)
            nextClientStart[client.name] = now + random.int(100_000...400_000)
        case .replicaLeaves:
            let candidates = replicas.filter { $0.isUp && !$0.isPaused && $0.leavesAt == nil }
            guard let process = random.element(candidates), mayLose(process) else { return }
            coverage.note(process.face.isPrimary ? .primaryLeaves : .replicaLeaves)
            tell { "replica \(process.number) is told to end" }
            process.leavesAt = now + 500_000
            leave(process)
        case .switchover:
            guard let primary, !primary.isPaused else { return }
            let isTaken =
                primary.face.acceptsRequests && primary.replica.view?.backups.isEmpty == false
            if isTaken { coverage.note(.switchover) }
            tell { "replica \(primary.number) is to hand over" }
            step(primary, .handOver)
        case .startIntruder:
            guard let slot = freeSlot() else { return }
            coverage.note(.intruderStarted)
            _ = start(at: slot, target: primary?.slot ?? 0)
        case .cutPower: cutPower()
        case .bounce: bounce(target)
        case .failDisk, .slowDisk, .fillDisk, .shortenWrites: breakDisk(fault, time)
        case .rot: rot()
        case .loseEnd: loseEnd()
        case .resetAllClients:
            coverage.note(.clientLinkReset)
            for id in connections.indices {
                if case .client = connections[id].ends[0] { reset(id) }
            }
        case .isolateReplica:
            let victim = random.chance(500) ? primary : random.element(replicas.filter(\.isUp))
            guard let process = victim else { return }
            coverage.note(.linkHeld)
            // From the operator it may not be cut off, and answer as if nothing were; or from a guest,
            // who has long enough to renew its lease.
            let spared =
                random.element([nil, Self.operatorName, Self.guestNames.lowerBound]) ?? nil
            let length = spared == Self.guestNames.lowerBound ? random.int(200_000...800_000) : time
            tell { "replica \(process.number) is alone for \(length / 1_000) ms" }
            for site in 0...Self.slots + Self.operatorName
            where site != process.slot && site - Self.slots != spared {
                hold(process.slot, site, length)
                hold(site, process.slot, length)
            }
        }
    }

    private func mayLose(_ client: ClientProcess) -> Bool {
        !isAnyShort && (electorsLeft(without: [client.instance]) || random.chance(50))
    }

    func isAlive(_ instance: Instance) -> Bool {
        replicas.contains { $0.me.instance == instance && $0.isUp }
            || clients.contains { $0.instance == instance && $0.isUp }
    }

    private func kill(_ process: ReplicaProcess) {
        guard mayLose(process) else { return }
        let isPrimary = process.face.isPrimary
        coverage.note(
            isPrimary
                ? .primaryKilled : process.face.isMember ? .backupKilled : .learnerKilled)
        tell { "replica \(process.number) is killed" }
        end(process, .kill)
    }

    private func pause(_ process: ReplicaProcess, _ time: Int) {
        guard !process.isPaused else { return }
        coverage.note(process.face.isPrimary ? .primaryPaused : .replicaPaused)
        tell { "replica \(process.number) stops for \(time / 1_000) ms" }
        process.isPaused = true
        later(.resume(.replica(process.number)), after: time)
    }

    // MARK: Links between replicas

    private func twoSlots() -> (Int, Int)? {
        guard let primary, let other = random.element(others) else { return nil }
        guard mix.shape != .pair, random.chance(300), let third = random.element(others),
            third.slot != other.slot
        else { return (primary.slot, other.slot) }
        return (third.slot, other.slot)
    }

    private func peerConnections(_ a: Int, _ b: Int) -> [Int] {
        connections.indices.filter { id in
            guard case .replica = connections[id].ends[0] else { return false }
            let sites = connections[id].sites
            return (sites[0], sites[1]) == (a, b) || (sites[0], sites[1]) == (b, a)
        }
    }

    private func cutLink(_ time: Int) {
        guard let (a, b) = twoSlots(), a != b else { return }
        coverage.note(.linkReset)
        tell { "the link between slots \(a) and \(b) is cut for \(time / 1_000) ms" }
        network.bar(a, b, 1)
        for id in peerConnections(a, b) { reset(id) }
        later(.unbar(a, b), after: time)
    }

    private func hold(_ from: Int, _ to: Int, _ time: Int) {
        network.hold(from, to, 1)
        later(.release(from: from, to: to), after: time)
    }

    private func holdLink(_ time: Int, bothWays: Bool) {
        guard let (a, b) = twoSlots(), a != b else { return }
        coverage.note(bothWays ? .linkHeld : .linkHeldOneWay)
        tell { "nothing from slot \(a) \(bothWays ? "or" : "to") \(b) for \(time / 1_000) ms" }
        let isForth = random.chance(500)
        if bothWays || isForth { hold(a, b, time) }
        if bothWays || !isForth { hold(b, a, time) }
    }

    private func flap() {
        guard let (a, b) = twoSlots(), a != b else { return }
        let ids = peerConnections(a, b)
        if !ids.isEmpty { coverage.note(.linkFlapped) }
        for id in ids { reset(id) }
    }

    // MARK: Clients' links

    private func strikeClientLink(_ fault: Fault, _ time: Int) {
        guard let client = random.element(liveClients), let link = random.element(client.links)
        else { return }
        let site = Self.site(ofClient: client.name)
        tell { "\(fault) of client \(client.number) to slot \(link.slot), \(time / 1_000) ms" }
        if fault == .resetClientLink {
            coverage.note(.clientLinkReset)
            reset(link.connection)
            guard random.chance(500) else { return }
            network.bar(site, link.slot, 1)
            later(.unbar(site, link.slot), after: time)
            return
        }
        coverage.note(fault == .holdClientLink ? .clientLinkHeld : .clientLinkHeldOneWay)
        let isForth = random.chance(500)
        if fault == .holdClientLink || isForth { hold(site, link.slot, time) }
        if fault == .holdClientLink || !isForth { hold(link.slot, site, time) }
    }

    // MARK: Keeping the numbers up

    private func freeSlot() -> Int? {
        let free = (0..<Self.slots).filter { slot in
            listening[slot] == nil && !lostMachines[slot]
                && !disks.contains { $0.slot == slot && $0.restartAt != nil }
        }
        return random.element(free)
    }

    /// Starts what is missing, as the primary does for a lost backup and people do for clients.
    func keep() {
        queue.push(.keep, at: now + 20_000)
        restartDisks()
        let count = replicas.count { $0.isUp }
        let areComing = disks.contains { $0.restartAt != nil && !$0.isRefused }
        if count < mix.shape.replicas, !areComing || random.chance(100) {
            if nextStart == 0 {
                nextStart = now + (isHealed ? 0 : random.int(0...mix.restartMax))
            } else if now >= nextStart, let slot = freeSlot() {
                nextStart = 0
                let process = start(at: slot, target: primary?.slot ?? 0)
                if !isHealed, random.chance(mix.startFailures) {
                    coverage.note(.startFailed)
                    tell { "it fails at once" }
                    end(process, .kill)
                }
            }
        }
        for name in 0..<mix.voters {
            let client = clients[voters[name]]
            guard !client.isUp, now >= nextClientStart[name] || isHealed else { continue }
            voters[name] = startClient(name, log: client.log, at: now).number
        }
    }

    // MARK: Healing

    func heal() {
        isHealed = true
        healedAt = now
        coverage.note(.healed)
        tell { "everything is mended" }
        network = Network(sites: Self.slots + Self.operatorName + 1)
        // Mends still to come find nothing to mend.
        for index in mends.indices {
            switch mends[index] {
            case .release, .unbar: mends[index] = .resume(.replica(0))
            case .resume, .makeRoom: break
            }
        }
        // Machines come back with nothing on them.
        for slot in lostMachines.indices where lostMachines[slot] { resetOrphans(of: slot) }
        lostMachines = [Bool](repeating: false, count: Self.slots)
        flushHeld()
        mendDisks()
        for process in replicas where process.isUp && process.isPaused {
            queue.push(.resume(.replica(process.number)), at: now)
        }
        for client in clients where client.isUp && client.isPaused {
            queue.push(.resume(.client(client.number)), at: now)
        }
    }
}
