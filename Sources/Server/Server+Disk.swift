import Journal
import Linux
import Replication
import Services
package import Storage
package import Wire

/// What the loop's helpers share with it.
final class Helpers: Sendable {
    /// One for checkpoints, which take long; one for segments, for which requests wait.
    let checkpoints: Worker
    let segments: Worker
    let waker: LoopWaker

    static func start() throws(StoreError) -> Helpers {
        do throws(SystemError) {
            return try Helpers()
        } catch {
            throw .system(error)
        }
    }

    private init() throws(SystemError) {
        checkpoints = try Worker()
        segments = try Worker()
        waker = try LoopWaker()
    }

    /// As `options`, with what takes long done beside the loop.
    func serve(_ options: Store.Options) -> Store.Options {
        var options = options
        let (checkpoints, segments) = (checkpoints, segments)
        options.runBeside = { (work: @escaping @Sendable () -> Void) throws(SystemError) in
            checkpoints.run(work)
        }
        options.beginBeside = { segments.run($0) }
        options.onBegun = { [self] in waker.wake() }
        return options
    }
}

/// A replica's journal, opened, and what the replica was when it wrote it.
package final class Durable {
    var store: Store
    let helpers: Helpers
    /// Whether something was found; else the folder was blank, or could not be used and was set aside.
    let isRecovered: Bool
    /// What was found, until it is taken: the state and the log, which the replica has from then on.
    private var recovered: Journal.Recovered?
    /// Whose the folder is; nil: nobody's yet.
    let identity: Identity?
    /// What was to be remembered before the folder was anybody's: a view that others have told of.
    /// Until then nothing would be broken by forgetting it, as the next start is a new instance.
    var unclaimed: [Record] = []
    /// What waits for a sync, in the order of the steps that asked for it.
    private(set) var outputs: [Output] = []
    /// Those before this place are done.
    private var outputsDone = 0
    /// Of the journal, that have ended.
    var syncs = 0
    /// The most that any turn has made, as the store counts them, and its count before the turn.
    private(set) var syncsOfATurnMax = 0
    private var syncsBefore = 0
    /// The number of the turn in which the last one began.
    var syncedTurn: UInt64?
    /// How long they have taken, with their writes.
    var syncNanoseconds: UInt64 = 0
    /// As it was after the newest step of which everything is durable: reads wait for that, too.
    var confirmedProbe: UInt64 = 0
    /// The newest view of which everything is durable.
    var shownView: View?
    /// When the checkpoint that is being written was begun, and how long the last one took.
    var checkpointStart: UInt64 = 0
    var checkpointNanoseconds: UInt64 = 0
    /// Bytes that this process had written to the journal at the last checkpoint; below zero: what
    /// was found behind it. Otherwise one that is killed again and again would never make one.
    var bytesAtCheckpoint = 0
    /// Of the journal, at the last tick.
    var recordsAtTick = 0
    /// For how many ticks the journal has waited for a file that is being made.
    var ticksWaited = 0
    /// The disk has not answered for so long that this replica ends.
    var isHung = false
    static let ticksWaitedMin = 3_000

    /// With so much behind the last checkpoint another is made.
    var bytesPerCheckpoint: Int { store.options.segmentBytes / 2 }

    private init(
        _ store: consuming Store, _ helpers: Helpers, _ identity: Identity?,
        _ recovered: Journal.Recovered?
    ) {
        self.store = store
        self.helpers = helpers
        self.identity = identity
        self.recovered = recovered
        isRecovered = recovered != nil
    }

    /// What was found, once: a second copy would stay in memory as long as the process.
    func takeRecovered() -> Journal.Recovered? {
        defer { recovered = nil }
        return recovered
    }

    /// Opens `folder`; `service`, `id`: what it must be of, if it is not blank. `peerView` is asked only when
    /// the journal alone does not suffice: for the newest view of the service that another replica is in,
    /// nil if none answers. What people should know is told to `say`.
    package static func open(
        folder: String, service: ServiceID?, id: Store.WantedID, options: Store.Options,
        peerView: (ServiceID) -> ViewNumber?, say: (String) -> Void
    ) throws(StoreError) -> Durable {
        let helpers = try Helpers.start()
        var store = try Store(
            folder: folder, service: service, id: id, options: helpers.serve(options))
        guard let identity = store.identity else { return Durable(store, helpers, nil, nil) }
        let rotten = (store.survey?.checkpoints ?? []).compactMap { report in
            report.flaw.map {
                "\(folder)/\(report.name) is rotten (offset \($0.offset): \($0.reason))"
            }
        }
        let bytesFound = store.survey?.segments.reduce(0) { $0 + $1.end } ?? 0
        let resumption: Store.Resumption
        do throws(StoreError) {
            resumption = try store.resume(isPeerReachable: false)
        } catch {
            guard case .refused = error, let theirs = peerView(identity.service) else {
                // One of them may be why the journal does not suffice.
                for words in rotten { say(words) }
                throw error
            }
            // A replica that has stayed behind has not got what is lost here.
            let newest = store.survey?.newestView ?? ViewNumber(0)
            guard theirs >= newest else {
                say(
                    "another replica answers, but is in view \(theirs) only, before view \(newest) "
                        + "of this journal: what is lost here may be missing there, too")
                throw error
            }
            resumption = try store.resume(isPeerReachable: true)
        }
        switch resumption.verdict {
        case .useAll: break
        case .cut(let place), .ask(let place, keepsInstance: true):
            say("\(folder)/\(place); cut there")
        case .ask(let place, keepsInstance: false):
            let fresh = Identity(
                service: identity.service, id: identity.id,
                instance: Instance(max(1, Entropy.next())))
            do throws(SystemError) {
                let aside = try store.renew(fresh)
                say(
                    "\(folder)/\(place); it is in \(aside) now, and everything comes from the other "
                        + "replica")
            } catch {
                throw .system(error)
            }
            return Durable(store, helpers, fresh, nil)
        case .refuse: preconditionFailure("refused and gone on")
        }
        for words in rotten { say("\(words); the journal makes up for it") }
        let durable = Durable(store, helpers, identity, resumption.recovered)
        durable.bytesAtCheckpoint = -bytesFound
        return durable
    }

    /// Whether something waits for a sync: then all that follows waits, too.
    var isBehind: Bool { store.isPending || outputsDone < outputs.count }

    /// Whether the next turn's sync would bring it on: else a new segment is awaited.
    var mayGoOn: Bool { isBehind && !store.mustWait }

    func noteTurn() {
        syncsOfATurnMax = max(syncsOfATurnMax, store.counts.syncs - syncsBefore)
        syncsBefore = store.counts.syncs
    }

    func keep(_ output: Output) { outputs.append(output) }

    /// The next that need not wait any more.
    func takeOutput() -> Output? {
        guard outputsDone < outputs.count, outputs[outputsDone].need <= syncs else { return nil }
        let output = outputs[outputsDone]
        outputsDone += 1
        // All at once: one by one the rest would be moved each time.
        if outputsDone == outputs.count { dropOutputs() }
        return output
    }

    func dropOutputs() {
        outputs.removeAll(keepingCapacity: true)
        outputsDone = 0
    }

    /// Opens `folder` for a new service: it must be blank, and is left alone if it is not.
    package static func openBlank(folder: String, options: Store.Options) throws(StoreError)
        -> Durable
    {
        let helpers = try Helpers.start()
        let store = try Store(
            folder: folder, service: nil, options: helpers.serve(options))
        if let identity = store.identity {
            guard store.survey?.standing.view != nil else {
                throw .refused(
                    path: folder,
                    reason:
                        "left behind by a start that did not get to its end; it has nothing that "
                        + "anybody was answered for: remove it, and try again")
            }
            throw .refused(
                path: folder,
                reason: "not blank, it has the journal of \(identity); --restore needs an empty "
                    + "folder (without --restore this server goes on from the journal)")
        }
        return Durable(store, helpers, nil, nil)
    }

    /// What the core goes on from; `executor`: as in the checkpoint.
    static func replicaState(_ recovered: Journal.Recovered, _ executor: Executor<ServiceSet>)
        -> Replication.Recovered?
    {
        guard recovered.view != nil else { return nil }
        do throws(DecodeError) {
            return try Replication.Recovered(
                op: recovered.op, hash: executor.hash, view: executor.view,
                committed: recovered.committed, reign: recovered.reign,
                hasState: recovered.hasState, records: recovered.records)
        } catch {
            preconditionFailure("the journal contradicts itself: \(error.text)")
        }
    }
}

// The journal's place in a turn: what a step has to remember is appended, and once a turn all of it
// is written and synced.
extension Server {
    /// From here on the folder is of this service.
    func claimFolder(_ service: ServiceID) {
        guard let durable, durable.store.identity == nil else { return }
        do throws(SystemError) {
            try durable.store.create(
                Identity(service: service, id: me.id, instance: me.instance), durable.unclaimed)
            durable.unclaimed = []
        } catch {
            failDisk(error)
        }
    }

    func append(_ records: [Record], _ effects: [Replication.Effect]) {
        guard let durable, !records.isEmpty, exitCode == nil else { return }
        do throws(SystemError) {
            if durable.store.identity == nil {
                durable.unclaimed += records
                // A new service. Were its first view not there with the folder's identity, a process
                // that ended in between would wait for a service that nobody has.
                if let service { claimFolder(service) }
                return
            }
            for case .restore(let op, let snapshot) in effects {
                for case .restored(let end, let hash) in records where end.op == op {
                    try durable.store.receive(
                        op: op, view: end.view, hash: hash, snapshot: snapshot)
                }
            }
            try durable.store.append(records)
        } catch {
            failDisk(error)
        }
    }

    /// Writes and syncs what was appended, if anything was; false when that failed.
    func syncDisk(_ durable: Durable) -> Bool {
        guard durable.store.isPending else { return true }
        let start = Clock.monotonicNanoseconds()
        do throws(SystemError) {
            try durable.store.sync()
            durable.syncs += 1
            durable.syncNanoseconds += Clock.monotonicNanoseconds() - start
            return true
        } catch {
            failDisk(error)
            return false
        }
    }

    /// For INFO.
    var diskLines: [(String, String)] {
        guard let durable else { return [("durability", "memory")] }
        let counts = durable.store.counts
        return [
            ("durability", "disk"), ("sync_mode", durable.store.options.durability.rawValue),
            ("journal_syncs", "\(counts.syncs)"),
            ("journal_syncs_of_a_turn_max", "\(durable.syncsOfATurnMax)"),
            ("journal_sync_us", "\(durable.syncNanoseconds / 1_000)"),
            ("journal_writes", "\(counts.writes)"), ("journal_bytes", "\(counts.bytes)"),
            ("journal_segments", "\(counts.segmentsBegun)"),
            ("checkpoints", "\(counts.checkpoints)"),
            ("checkpoint_running", durable.store.isWritingCheckpoint ? "1" : "0"),
            ("checkpoint_ms", "\(durable.checkpointNanoseconds / 1_000_000)"),
            ("checkpoint_op", "\(durable.store.checkpointOp)"),
        ]
    }

    var loopLines: [(String, String)] {
        let longest = loop.longestMicroseconds(at: Clock.monotonicNanoseconds())
        return [
            ("loop_turns", "\(loop.turns)"), ("loop_longest_turn_us", "\(longest.time)"),
            ("loop_longest_turn_cpu_us", "\(longest.processor)"),
            ("loop_turns_over_10ms", "\(loop.over10Milliseconds)"),
        ]
    }

    /// What it could not write it must not answer for: this replica ends, the others go on.
    func failDisk(_ error: SystemError) {
        guard exitCode == nil else { return }
        log.error("the journal cannot be written: \(error); this replica ends here")
        exitCode = 74
        outbox.removeAll()
        durable?.dropOutputs()
    }

    func tickDisk() {
        guard let durable, exitCode == nil else { return }
        switch durable.store.takeCheckpointOutcome() {
        case .done(let op, let removal):
            durable.checkpointNanoseconds =
                Clock.monotonicNanoseconds() - durable.checkpointStart
            log.detail("a checkpoint after op \(op) is on the disk")
            if let removal { log.warnOnce("old files of the journal stay: \(removal)") }
        case .failed(let error): log.warnOnce("no checkpoint could be made: \(error)")
        case .journalFailed(let error): failDisk(error)
        case nil: break
        }
        checkWait(durable)
        markDisk(durable)
    }

    /// A disk that hangs in the loop's own sync stops the heartbeats with it. While another thread
    /// makes the next file the loop goes on, and all others take for alive what answers nobody.
    private func checkWait(_ durable: Durable) {
        guard durable.store.mustWait, exitCode == nil else {
            durable.ticksWaited = 0
            return
        }
        durable.ticksWaited += 1
        let tick = Settings.tickMilliseconds
        let silence = Int(settings.heartbeatMilliseconds * settings.misses / tick)
        // With `--sync never` the segment before is synced first: a MiB a second is a disk that works.
        let slow = (durable.store.options.segmentBytes >> 20) * Int(1_000 / tick)
        guard durable.ticksWaited > max(Durable.ticksWaitedMin, 2 * silence, slow) else { return }
        durable.isHung = true
        failDisk(
            SystemError(
                "making the next segment in", durable.store.folder, code: SystemError.timedOut))
    }

    /// When nothing more came since the last tick.
    private func markDisk(_ durable: Durable) {
        let records = durable.store.counts.records
        defer { durable.recordsAtTick = records }
        guard records == durable.recordsAtTick, !durable.isBehind, durable.store.canMark,
            durable.syncedTurn != loop.turns
        else { return }
        durable.syncedTurn = loop.turns
        endMarked()
    }

    /// The last write is vouched for, also when nothing comes behind it any more.
    func endMarked() {
        guard let durable, !durable.isBehind else { return }
        do throws(SystemError) {
            try durable.store.mark()
        } catch {
            failDisk(error)
        }
    }

    /// Once enough has been written since the last one, of a state of which everything is durable.
    func checkpointIfDue(_ durable: Durable) {
        guard durable.store.counts.bytes - durable.bytesAtCheckpoint >= durable.bytesPerCheckpoint,
            !durable.isBehind, exitCode == nil, executor.view.rawValue > 0
        else { return }
        let copy = executor
        do throws(SystemError) {
            let isBegun = try durable.store.checkpoint(
                op: copy.op, view: copy.view, hash: copy.hash,
                snapshot: { copy.snapshot() })
            if isBegun {
                durable.bytesAtCheckpoint = durable.store.counts.bytes
                durable.checkpointStart = Clock.monotonicNanoseconds()
            }
        } catch {
            failDisk(error)
        }
    }
}
