import Arguments
import Journal
import Linux
import Storage
import Wire

/// `pollctl bench --disk DIR`: what a journal in this folder can do, without any server.
struct DiskBench {
    let folder: String
    /// How many are written and read back.
    let entries: Int
    /// For each of the measurements that end with syncs.
    let seconds: Double
    let isJSON: Bool

    private static let identity = Identity(
        service: ServiceID(high: 0, low: 1), id: ReplicaID(id: 1), instance: Instance(1))
    private static let bytesPerTurn = 64 << 10

    func run() throws(Failure) {
        let work = "\(folder)/bench-\(Entropy.next())"
        let interrupts = try Interrupts("what was written is removed")
        defer { remove(work) }
        do {
            try run(in: work, interrupts)
        } catch let failure as Failure {
            throw failure
        } catch let error as SystemError {
            throw Failure(error)
        } catch {
            throw Failure("\(error)", .io)
        }
    }

    private func run(in work: String, _ interrupts: Interrupts) throws {
        let single = try append(work + "-1", bytesPerTurn: 1, interrupts)
        let batched = try append(work + "-2", bytesPerTurn: Self.bytesPerTurn, interrupts)
        let path = work + "-3"
        let written = try fill(path, interrupts)
        let bytes = written.counts.bytes
        let writing = written.seconds
        let (recovery, checkpoint) = try recover(path)
        try interrupts.check()
        let rows: [(key: String, value: JSON, text: String)] = [
            ("single_per_s", .integer(Int(single.perSecond)), "appends a second, one a sync"),
            ("single_sync_us", .integer(Int(single.syncMicroseconds)), "microseconds a sync"),
            (
                "batched_per_s", .integer(Int(batched.perSecond)),
                "appends a second, 64 KiB a sync"
            ),
            ("batched_sync_us", .integer(Int(batched.syncMicroseconds)), "microseconds a sync"),
            ("entries", .integer(entries), "entries of one ballot each, written without syncs"),
            ("entries_bytes", .integer(bytes), "bytes of them"),
            ("write_s", .number(writing, digits: 2), "seconds to write them"),
            ("recovery_s", .number(recovery.seconds, digits: 2), "seconds to recover them"),
            (
                "recovery_cpu_s", .number(recovery.processorSeconds, digits: 2),
                "seconds of processor time for that"
            ),
            (
                "checkpoint_call_us", .integer(Int(checkpoint.call)),
                "microseconds that the caller spends on a checkpoint of 64 MiB"
            ),
            (
                "checkpoint_ms", .integer(Int(checkpoint.whole)),
                "milliseconds until it is on the disk"
            ),
        ]
        if isJSON {
            try Output.print(JSON.object(rows.map { ($0.key, $0.value) }).text)
        } else {
            let lines = rows.map { [$0.value.text, $0.text] }
            for line in Text.table(lines) { try Output.print(line) }
        }
    }

    private struct Rate {
        let perSecond: Double
        let syncMicroseconds: Double
    }

    /// Of `entry` in the journal, its header included.
    private static let recordBytes = 51

    /// As the journal of a pair that is voted on: one ballot of 6 bytes.
    private static func entry(_ op: UInt64) -> Record {
        var batch = Batch()
        batch.append(tag: 3, 1, op % 50_000, 1)
        return .entry(
            Entry(
                view: ViewNumber(1), first: OpNumber(op), time: 1_700_000_000_000 &+ op,
                batch: batch, after: .beginning))
    }

    private func append(_ path: String, bytesPerTurn: Int, _ interrupts: Interrupts) throws
        -> Rate
    {
        var store = try Store(folder: path, service: nil)
        try store.create(Self.identity)
        let clock = Stopwatch()
        var op: UInt64 = 0
        while clock.seconds < seconds {
            try interrupts.check()
            var bytes = 0
            while bytes < bytesPerTurn {
                op += 1
                try store.append([Self.entry(op)])
                bytes += Self.recordBytes
            }
            try store.sync()
        }
        let elapsed = clock.seconds
        return Rate(
            perSecond: Double(op) / elapsed,
            syncMicroseconds: elapsed * 1_000_000 / Double(max(1, store.counts.syncs)))
    }

    private func fill(_ path: String, _ interrupts: Interrupts) throws
        -> (counts: Store.Counts, seconds: Double)
    {
        var options = Store.Options()
        options.durability = .never
        var store = try Store(folder: path, service: nil, options: options)
        try store.create(Self.identity)
        let clock = Stopwatch()
        for op in 1...UInt64(entries) {
            try store.append([Self.entry(op)])
            guard op % 1_024 == 0 else { continue }
            try store.sync()
            try interrupts.check()
        }
        try store.sync()
        return (store.counts, clock.seconds)
    }

    private struct Recovery {
        let seconds: Double
        let processorSeconds: Double
    }

    private func recover(_ path: String) throws -> (Recovery, (call: Double, whole: Double)) {
        let before = ProcessTree.processorTicks(Processes.pid) ?? 0
        let clock = Stopwatch()
        var store = try Store(folder: path, service: nil)
        let last = try resume(&store)
        let ticks = (ProcessTree.processorTicks(Processes.pid) ?? 0) - before
        // The kernel's ticks are hundredths of a second.
        let recovery = Recovery(seconds: clock.seconds, processorSeconds: Double(ticks) / 100)
        guard last.rawValue == UInt64(entries) else {
            throw Failure("\(entries) entries were written, and \(last) came back", .software)
        }
        let snapshot = [UInt8](repeating: 5, count: 64 << 20)
        let whole = Stopwatch()
        _ = try store.checkpoint(
            op: last, view: ViewNumber(1), hash: .beginning, snapshot: { snapshot })
        let call = whole.milliseconds * 1_000
        store.waitForCheckpoint()
        guard case .done? = store.takeCheckpointOutcome() else {
            throw Failure("the checkpoint failed", .io)
        }
        return (recovery, (call, whole.milliseconds))
    }

    /// The log's end. What was recovered is freed here, which is the replica's time, too.
    private func resume(_ store: inout Store) throws -> OpNumber {
        try store.resume(isPeerReachable: false).recovered?.last ?? OpNumber(0)
    }

    private func remove(_ work: String) {
        for suffix in ["-1", "-2", "-3"] {
            let path = work + suffix
            guard let names = try? Files.list(path) else { continue }
            for name in names { try? Files.remove("\(path)/\(name)") }
            try? Files.removeFolder(path)
        }
    }
}
