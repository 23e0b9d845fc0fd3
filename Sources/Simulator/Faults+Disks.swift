import Linux
import Replication
import Storage
import Synchronization
import Wire

// What goes wrong with disks, and with what stands in memory alone.
extension Simulation {
    /// The power goes, for all or for some, and all at the same moment.
    func cutPower() {
        let all = random.chance(600)
        let victims = replicas.filter { $0.isUp && (all || random.chance(500)) }
        let lost = victims.filter { !isKept($0, withoutPower: true) }
        guard mayLose(Set(lost.map(\.me.instance)), ending: Set(victims.map(\.me.instance))) else {
            return
        }
        // Clients, too, are electors that forget.
        let areClientsCut = random.chance(lost.isEmpty ? 700 : 50)
        if !victims.isEmpty { coverage.note(.powerCut) }
        tell {
            "the power of \(victims.count) replicas is cut\(areClientsCut ? ", and clients'" : "")"
        }
        if mix.isPowerLostSilently, !victims.isEmpty { coverage.note(.powerCutSilently) }
        for process in victims {
            end(process, .power, withMachine: mix.isPowerLostSilently)
        }
        // Of a process that was killed the kernel had everything.
        for drive in disks where all && drive.restartAt != nil && drive.options.durability != .never
        {
            losePower(drive)
        }
        guard areClientsCut else { return }
        for client in clients where client.isUp && !isOperator(client) && !isGuest(client) {
            guard random.chance(800) else { continue }
            coverage.note(.clientKilled)
            end(client)
            nextClientStart[client.name] = now + random.int(0...mix.restartMax)
        }
    }

    /// A process ends and is started again at once.
    func bounce(_ target: Int?) {
        let candidates = replicas.filter { $0.isUp && $0.disk != nil }
        let given = target.map { replicas[$0] }.flatMap { $0.isUp && $0.disk != nil ? $0 : nil }
        guard let process = given ?? random.element(candidates), let drive = process.disk,
            mayLose(process)
        else { return }
        coverage.note(.replicaBounced)
        tell { "replica \(process.number) is killed and started again" }
        end(process, .kill)
        restart(drive, after: random.int(200...8_000))
    }

    func breakDisk(_ fault: Fault, _ time: Int) {
        guard !isAnyShort,
            let process = random.element(replicas.filter { $0.isUp && $0.disk != nil }),
            let drive = process.disk
        else { return }
        tell { "\(fault) of replica \(process.number) for \(time / 1_000) ms" }
        switch fault {
        case .fillDisk:
            coverage.note(.diskFull)
            drive.files.state.withLock { $0.isFull = true }
            later(.makeRoom(slot: drive.slot), after: time)
        case .shortenWrites:
            coverage.note(.shortWrites)
            let most = random.int(1...100)
            drive.files.state.withLock { $0.writeMax = most }
        case .slowDisk:
            coverage.note(.diskSlow)
            drive.slowUntil = now + time
        default:
            guard mayLose(process) else { return }
            coverage.note(.diskFails)
            let calls: [SimulatedDisk.Call] = [
                .sync, .sync, .sync, .write, .create, .allocate, .rename, .remove, .syncFolder,
            ]
            let call = random.element(calls) ?? .sync
            let isFull = call != .sync && random.chance(500)
            let code = isFull ? SystemError.noSpace : SystemError.inputOutput
            drive.files.state.withLock { $0.fail(call, code) }
        }
    }

    func makeRoom(_ slot: Int) {
        for drive in disks where drive.slot == slot {
            drive.files.state.withLock { $0.isFull = false }
        }
    }

    func mendDisks() {
        for drive in disks {
            drive.slowUntil = 0
            drive.files.state.withLock { state in
                (state.isFull, state.writeMax, state.faults) = (false, .max, [:])
            }
        }
    }

    // MARK: What may be lost

    /// Whether a replica is on its disk with all that it answers for.
    func isKept(_ process: ReplicaProcess, withoutPower: Bool) -> Bool {
        guard let drive = process.disk else { return false }
        return drive.keepsAll(withoutPower: withoutPower) && !isShort(drive)
    }

    /// To lose the last copy, or the electors' majority, is beyond what the service promises to
    /// survive.
    func mayLose(_ process: ReplicaProcess, withoutPower: Bool = false) -> Bool {
        (isKept(process, withoutPower: withoutPower) && !isAnyShort)
            || mayLose([process.me.instance])
    }

    /// Now and then it is tried all the same; the healing knows what cannot be healed. `ending`: who
    /// comes back, but will have proof of nothing.
    func mayLose(_ lost: Set<Instance>, ending: Set<Instance> = []) -> Bool {
        // Those who know what a journal has lost must live until that is noticed.
        guard !isAnyShort else { return false }
        guard let view = history.newest,
            view.members.contains(where: { lost.contains($0.instance) })
        else { return true }
        let isCopied = view.members.contains { member in
            !lost.contains(member.instance) && !isShort(member.instance)
                && (disks.contains { $0.instance == member.instance && waits($0) }
                    || ending.contains(member.instance)
                    || replicas.contains {
                        $0.me.instance == member.instance && $0.isUp && $0.face.isMember
                            && $0.replica.view?.number == view.number && $0.leavesAt == nil
                    })
        }
        return isCopied && electorsLeft(without: lost, ending: ending) || random.chance(20)
    }

    func electorsLeft(without lost: Set<Instance>, ending: Set<Instance> = []) -> Bool {
        guard let view = history.newest, view.electorate.contains(where: { lost.contains($0) })
        else { return true }
        let left = view.electorate.filter { !lost.contains($0) && comesBack($0) }
        let members = left.filter { view.contains($0) }.count
        return left.count >= view.majority || members == view.members.count
            || ending.isDisjoint(with: view.electorate.filter { !lost.contains($0) })
                && view.electorate.contains { lost.contains($0) && canProve($0, in: view) }
    }

    /// Whether the end of one of two electors is or would be proved to the other: on one host, if
    /// they have ever been connected, or by who it is now.
    func canProve(_ lost: Instance, in view: View) -> Bool {
        guard view.electorate.count == 2 else { return false }
        // The end of an older process than the view names proves nothing.
        let named = view.members.first { $0.instance == lost }?.pid ?? 0
        return view.electorate.contains { other in
            replicas.contains {
                $0.me.instance == other && other != lost && $0.isUp && !$0.replica.isProofVoid
                    && (mix.isOneHost && $0.watches(lost, from: named, in: replicas)
                        || $0.formers.contains(lost))
            }
        }
    }
}
