import Journal
import Linux
import Replication
import Storage
import Synchronization
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
        let isWaiting =
            process.disk.map { _ in keep(process, out) || !process.outputs.isEmpty } ?? false
        guard isWaiting, let drive = process.disk else {
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
                need: process.itemsGiven, confirmedProbe: process.face.confirmedProbe,
                envelopes: envelopes, execute: out.execute, effects: out.effects))
        sync(process, drive)
    }

    private func keep(_ process: ReplicaProcess, _ out: Outbox) -> Bool {
        guard !out.records.isEmpty else { return false }
        var item = Drive.Item(records: out.records)
        for case .restore(let op, let snapshot) in out.effects {
            for case .restored(let end, let hash) in out.records where end.op == op {
                item.state = (end, hash, snapshot)
            }
        }
        process.unwritten.append(item)
        process.itemsGiven += 1
        return true
    }

    /// The records that are there now are written and made durable, which takes its time; what
    /// comes meanwhile waits for the next write.
    private func sync(_ process: ReplicaProcess, _ drive: Drive) {
        guard process.syncing == nil else { return }
        process.syncing = process.itemsGiven
        let time =
            now < drive.slowUntil ? random.int(10_000...100_000) : random.int(20...mix.syncMax)
        queue.push(.synced(process.number, count: process.itemsGiven), at: now + time)
    }

    func onSynced(_ process: ReplicaProcess, _ count: Int) {
        guard let drive = process.disk, process.syncing == count else { return }
        process.syncing = nil
        let items = process.unwritten.prefix(count - process.itemsDurable)
        do throws(SystemError) {
            try write(items, of: process, drive)
        } catch {
            // A second try would prove nothing.
            tell { "replica \(process.number): \(error)" }
            coverage.note(error.isNoSpace ? .noSpace : .writeFailed)
            end(process, .kill)
            return
        }
        for item in items { drive.ledger.written(item.records) }
        process.unwritten.removeFirst(items.count)
        process.itemsDurable = count
        while process.isUp, let first = process.outputs.first, first.need <= process.itemsDurable {
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
        if !process.unwritten.isEmpty || !process.outputs.isEmpty { sync(process, drive) }
        release(process)
    }

    /// As the server does within a turn.
    private func write(
        _ items: ArraySlice<Drive.Item>, of process: ReplicaProcess, _ drive: Drive
    ) throws(SystemError) {
        guard let journal = process.journal else { return }
        if journal.store.identity == nil {
            try journal.store.create(
                Identity(service: Self.service, id: process.me.id, instance: process.me.instance))
        }
        for item in items {
            if let state = item.state {
                // Which waits for the checkpoint that is being written.
                drive.beside.run()
                try journal.store.receive(
                    op: state.end.op, view: state.end.view, hash: state.hash,
                    snapshot: state.snapshot)
            }
            try journal.store.append(item.records)
        }
        let segments = journal.store.counts.segmentsBegun
        try journal.store.sync()
        if segments > process.segmentsSeen { coverage.note(.segmentBegun) }
        process.segmentsSeen = segments
    }

    /// An idle replica vouches for its last write.
    private func mark(_ process: ReplicaProcess) {
        guard let journal = process.journal, process.outputs.isEmpty, process.unwritten.isEmpty,
            process.syncing == nil, journal.store.canMark, random.chance(200)
        else { return }
        coverage.note(.marked)
        do throws(SystemError) {
            try journal.store.mark()
        } catch {
            tell { "replica \(process.number): \(error)" }
            coverage.note(error.isNoSpace ? .noSpace : .writeFailed)
            end(process, .kill)
        }
    }

    // MARK: Checkpoints

    /// Now and then the state is written down, and the log before it could go.
    func tickDisk(_ process: ReplicaProcess) {
        mark(process)
        guard let journal = process.journal, process.outputs.isEmpty, process.unwritten.isEmpty,
            process.executor.op.rawValue > 0, journal.store.identity != nil,
            process.executor.view.rawValue > 0, random.chance(mix.checkpoints)
        else { return }
        let copy = process.executor
        do throws(SystemError) {
            let isBegun = try journal.store.checkpoint(
                op: copy.op, view: copy.view, hash: copy.hash,
                snapshot: { copy.snapshot() })
            guard isBegun else { return }
        } catch {
            preconditionFailure("a store that has failed and goes on: \(error)")
        }
        let time = random.int(50...20_000)
        queue.push(.checkpointWritten(process.number), at: now + time)
        guard random.chance(mix.torn / 20) else { return }
        // Else the end seldom falls into so short a time.
        let fault = random.chance(700) ? Fault.bounce : .cutPower
        queue.push(.fault(fault, of: process.number), at: now + random.int(0...time))
    }

    func onCheckpointWritten(_ process: ReplicaProcess) {
        guard let drive = process.disk, let journal = process.journal else { return }
        drive.beside.run()
        switch journal.store.takeCheckpointOutcome() {
        case .done(_, let removal):
            coverage.note(.checkpointTaken)
            if removal != nil { coverage.note(.removalFailed) }
        case .failed(let error):
            tell { "replica \(process.number): no checkpoint: \(error)" }
            coverage.note(.checkpointFailed)
        case .journalFailed(let error):
            tell { "replica \(process.number): \(error)" }
            coverage.note(.writeFailed)
            end(process, .kill)
        case nil: return
        }
    }

    /// The newest view of which nothing is left to be made durable.
    func shownView(_ process: ReplicaProcess) -> View? {
        if process.outputs.isEmpty { process.shown = process.replica.view }
        return process.shown
    }

    // MARK: Ends

    /// What was being done to the files is done in part, or not begun.
    func crash(_ process: ReplicaProcess, _ drive: Drive, _ ending: Ending) {
        process.outputs = []
        if let journal = process.journal, journal.store.failure == nil, random.chance(mix.torn) {
            cutShort(process, drive)
        }
        // The store waits for its checkpoint, which gets no further.
        drive.files.state.withLock { $0.isOff = true }
        drive.beside.run()
        process.journal = nil
        for item in process.unwritten { drive.ledger.unfinished(item.records) }
        process.unwritten = []
        process.syncing = nil
        switch ending {
        case .kill: drive.files.state.withLock { $0.kill() }
        case .power: losePower(drive)
        }
        restart(drive, after: random.int(0...mix.restartMax))
    }

    func losePower(_ drive: Drive) {
        drive.files.state.withLock { $0.losePower(&random) }
        if drive.options.durability == .never { drive.isForgetful = true }
    }

    /// The process ends, or the power goes, at some call or byte of a sync, and at some of the
    /// writing of a checkpoint, which goes on beside it: the two have no file in common.
    private func cutShort(_ process: ReplicaProcess, _ drive: Drive) {
        let count = process.unwritten.count
        guard count > 0 || drive.beside.isWaiting else { return }
        if drive.beside.isWaiting { coverage.note(.checkpointCutShort) }
        if count > 0 { coverage.note(.writeCutShort) }
        let isCheckpointFirst = random.chance(500)
        if isCheckpointFirst { withLittleTime(drive) { drive.beside.run() } }
        if count > 0 {
            let items = process.unwritten.prefix(random.int(1...count))
            withLittleTime(drive) {
                do throws(SystemError) {
                    try write(items, of: process, drive)
                } catch {
                    // Nobody is left to be told.
                }
            }
        }
        if !isCheckpointFirst { withLittleTime(drive) { drive.beside.run() } }
    }

    /// The disk does no more after so many bytes and calls of `body`.
    private func withLittleTime(_ drive: Drive, _ body: () -> Void) {
        let budget = random.int(0...(random.element([3, 60, 600, 6_000]) ?? 60))
        drive.files.state.withLock { ($0.isOff, $0.budget) = (false, budget) }
        body()
    }

    func restart(_ drive: Drive, after time: Int) {
        drive.restartAt = now + time
        queue.push(.restart(slot: drive.slot), at: now + time)
    }

    /// Whether this instance is there, or will be when its disk is started again.
    func comesBack(_ instance: Instance) -> Bool {
        isAlive(instance) || disks.contains { $0.instance == instance && waits($0) }
    }

    /// Whether its replica is going to be started as who it was.
    func waits(_ drive: Drive) -> Bool {
        drive.restartAt != nil && !drive.isRefused && drive.keepsAll(withoutPower: false)
    }
}
