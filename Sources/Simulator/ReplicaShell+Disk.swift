import Replication
import Services
import Wire

// What a replica's server does with its disk: it writes and syncs, and lets out what waits for that.
extension Simulation {
    /// Where a message to another would go now.
    func token(_ process: ReplicaProcess, to instance: Instance) -> ReplicaProcess.Token? {
        switch process.paths.routeInPlace(to: instance) {
        case .direct: process.link(instance).map { .connection($0) }
        case .relay(let via, let path): .relay(via: via, path: path)
        case nil:
            process.witnesses.first { $0.instance == instance }.map { .connection($0.connection) }
        }
    }

    /// Carries out what must wait until all records are durable, or keeps it until then.
    func afterSync(_ process: ReplicaProcess, _ out: Outbox) {
        let isWaiting = process.disk.map { write(out, to: $0) || !process.outputs.isEmpty } ?? false
        guard isWaiting, let disk = process.disk else {
            process.confirmedProbe = process.face.confirmedProbe
            for envelope in out.sendAfterSync { post(process, envelope) }
            for entry in out.execute { execute(process, entry) }
            for effect in out.effects where process.isUp { carryOut(process, effect) }
            return
        }
        // A message is for the link that stands now: to the replicas, what was on its way is lost
        // when a link breaks.
        let envelopes = out.sendAfterSync.map { ($0, token(process, to: $0.to)) }
        process.outputs.append(
            .init(
                need: disk.count, confirmedProbe: process.face.confirmedProbe,
                envelopes: envelopes, execute: out.execute, effects: out.effects))
        sync(process, disk)
    }

    private func write(_ out: Outbox, to disk: Disk) -> Bool {
        for record in out.records {
            if case .restored(let op) = record {
                for case .restore(op, let snapshot) in out.effects {
                    disk.write(.restored(op, snapshot))
                }
            } else {
                disk.write(.record(record))
            }
        }
        return !out.records.isEmpty
    }

    private func sync(_ process: ReplicaProcess, _ disk: Disk) {
        guard disk.syncing == nil else { return }
        disk.syncing = disk.count
        let time =
            now < disk.slowUntil ? random.int(10_000...100_000) : random.int(20...mix.syncMax)
        queue.push(.synced(process.number, count: disk.count), at: now + time)
    }

    func onSynced(_ process: ReplicaProcess, _ count: Int) {
        guard let disk = process.disk, disk.syncing == count else { return }
        disk.syncing = nil
        if disk.isFailing {
            // A second sync would prove nothing.
            tell { "replica \(process.number): its disk fails" }
            coverage.note(.syncFailed)
            end(process, withMachine: false)
            return
        }
        disk.synced(count)
        while process.isUp, let first = process.outputs.first, first.need <= disk.durable {
            process.outputs.removeFirst()
            process.confirmedProbe = first.confirmedProbe
            for (envelope, token) in first.envelopes {
                if let token, self.token(process, to: envelope.to) == token {
                    post(process, envelope)
                } else {
                    observe(process, envelope)
                }
            }
            for entry in first.execute { execute(process, entry) }
            for effect in first.effects where process.isUp { carryOut(process, effect) }
        }
        guard process.isUp else { return }
        if disk.count > disk.durable || !process.outputs.isEmpty { sync(process, disk) }
        release(process)
    }

    /// Now and then the state is written down, and the log before it could go.
    func tickDisk(_ process: ReplicaProcess) {
        guard let disk = process.disk, process.outputs.isEmpty, disk.count == disk.durable,
            process.executor.op.rawValue > 0, random.chance(mix.checkpoints)
        else { return }
        coverage.note(.checkpointTaken)
        disk.write(.checkpoint(process.executor.op, process.executor.snapshot()))
        sync(process, disk)
    }

    /// The newest view of which nothing is left to be made durable.
    func shownView(_ process: ReplicaProcess) -> View? {
        if process.outputs.isEmpty { process.shown = process.replica.view }
        return process.shown
    }

    // MARK: Ends and starts

    /// What is not durable is lost, or a part of it; the rest waits to be started again.
    func crash(_ process: ReplicaProcess, _ disk: Disk) {
        process.outputs = []
        let unsafe = disk.count - disk.durable
        let kept = unsafe > 0 && random.chance(mix.torn) ? random.int(0...unsafe) : 0
        if kept > 0 { coverage.note(.tornWrite) }
        if disk.crash(keeping: kept) > 0 { coverage.note(.recordsLost) }
        restart(disk, after: random.int(0...mix.restartMax))
    }

    private func restart(_ disk: Disk, after time: Int) {
        disk.restartAt = now + time
        queue.push(.restart(slot: disk.slot), at: now + time)
    }

    /// Whether this instance is there, or will be when its disk is started again.
    func comesBack(_ instance: Instance) -> Bool {
        isAlive(instance) || disks.contains { $0.instance == instance && $0.restartAt != nil }
    }

    func restart(_ disk: Disk) {
        guard listening[disk.slot] == nil else { return }
        disk.restartAt = nil
        disk.starts += 1
        resetOrphans(of: disk.slot)
        lostMachines[disk.slot] = false
        do {
            let (recovered, executor) = try disk.recover()
            coverage.note(.replicaRestarted)
            let process = start(
                at: disk.slot, target: Int(recovered.view?.primary.address.port ?? 0), on: disk,
                recovered)
            process.executor = executor
            process.openedAt = executor.service.polls.openVotes.map { ($0, now) }
            step(process, .resume)
            if !process.face.isMember { noteMembers(process) }
        } catch {
            fail(
                Violation(
                    .safety, rule: "a disk has what its replica has written",
                    "slot \(disk.slot): \(error.text)"))
        }
    }

    /// A machine that is back answers what comes on the connections of before with a reset.
    private func resetOrphans(of slot: Int) {
        for id in connections.indices where connections[id].isOrphan {
            for side in 0...1
            where connections[id].isOpen[side] && connections[id].sites[1 - side] == slot {
                queue.push(.closed(connection: id, side: side), at: now + random.int(0...100_000))
            }
        }
    }

    /// Disks whose replicas are wanted back: not those that were turned away, but in any case the
    /// newest view's members.
    func restartDisks() {
        for disk in disks {
            if let time = disk.restartAt, now >= time || isHealed { restart(disk) }
        }
    }

    // MARK: Faults

    /// The power goes, for all or for some, and all at the same moment.
    func cutPower() {
        let all = random.chance(600)
        let victims = replicas.filter { $0.isUp && (all || random.chance(500)) }
        let areClientsCut = random.chance(700)
        guard victims.allSatisfy({ $0.disk != nil }) || mayLoseMemory(victims) else { return }
        coverage.note(.powerCut)
        tell {
            "the power of \(victims.count) replicas is cut\(areClientsCut ? ", and clients'" : "")"
        }
        for process in victims { end(process, withMachine: false) }
        guard areClientsCut else { return }
        for client in clients where client.isUp && !isOperator(client) && !isGuest(client) {
            guard random.chance(800) else { continue }
            coverage.note(.clientKilled)
            end(client)
            nextClientStart[client.name] = now + random.int(0...mix.restartMax)
        }
    }

    /// Seldom, and only to see what is beyond repair.
    private func mayLoseMemory(_ victims: [ReplicaProcess]) -> Bool {
        guard let view = history.newest else { return true }
        let members = view.members.filter { member in
            victims.contains { $0.me.instance == member.instance && $0.disk == nil }
        }
        return members.isEmpty || random.chance(20)
    }

    /// A process ends and is started again at once.
    func bounce(_ target: Int?) {
        let candidates = replicas.filter { $0.isUp && $0.disk != nil }
        let given = target.map { replicas[$0] }.flatMap { $0.isUp && $0.disk != nil ? $0 : nil }
        guard let process = given ?? random.element(candidates), let disk = process.disk else {
            return
        }
        coverage.note(.replicaBounced)
        tell { "replica \(process.number) is killed and started again" }
        end(process, withMachine: false)
        restart(disk, after: random.int(200...8_000))
    }

    func breakDisk(_ fault: Fault, _ time: Int) {
        guard let process = random.element(replicas.filter { $0.isUp && $0.disk != nil }),
            let disk = process.disk
        else { return }
        tell { "\(fault) of replica \(process.number)" }
        if fault == .failDisk {
            disk.isFailing = true
        } else {
            coverage.note(.diskSlow)
            disk.slowUntil = now + time
        }
    }
}
