import Journal
import Simulator
import Storage
import Synchronization
import Testing
import Wire

/// States that a store is given at joins, beside its own checkpoints.
@Suite struct ReceivedStateTests {
    /// A primary that has just come back from its disk gives a joiner its checkpoint's state, which
    /// may be older than what the joiner has had from another.
    @Test func aStateOlderThanTheOneBefore() throws {
        let disk = SimulatedDisk()
        func receive(_ store: inout Store, _ op: UInt64, _ more: [Record] = []) throws {
            let at = OpNumber(op)
            try store.receive(
                op: at, view: ViewNumber(1), hash: .beginning, snapshot: Model.snapshot(at))
            try store.append(
                [.restored(LogEnd(view: ViewNumber(1), op: at), hash: .beginning)] + more)
            try store.sync()
        }
        do {
            var store = try open(disk).store
            try receive(&store, 5, [entry(6)])
            try receive(&store, 3, [entry(4)])
        }
        disk.state.withLock { $0.kill() }
        do {
            var opened = try open(disk)
            #expect(opened.recovered?.op == OpNumber(3) && opened.recovered?.last == OpNumber(4))
            // The newer one is gone: from here on it would be in the way.
            #expect(!disk.state.withLock { $0.names }.contains("/d/checkpoint-5"))
            try opened.store.append([entry(5), entry(6)])
            try opened.store.sync()
        }
        disk.state.withLock { $0.kill() }
        let recovered = try open(disk).recovered
        #expect(recovered?.op == OpNumber(3) && recovered?.last == OpNumber(6))
    }

    /// A checkpoint that was made later proves that the journal went on to its op: what ends before that is
    /// not torn, and the log was not set back by the state that it began with.
    @Test(arguments: [false, true]) func rotBehindTheStateOfAJoin(isSetBack: Bool) throws {
        let disk = SimulatedDisk()
        var options = Script.options(.never)
        options.segmentBytes = 4_000
        func record(_ op: UInt64) -> Entry {
            Sample.entry(1, OpNumber(op), count: 1, size: 30, fill: UInt8(op))
        }
        func restore(_ store: inout Store, _ op: UInt64) throws {
            let (at, hash) = (OpNumber(op), record(op).hash)
            try store.receive(
                op: at, view: ViewNumber(1), hash: hash, snapshot: Model.snapshot(at))
            try store.append([.restored(LogEnd(view: ViewNumber(1), op: at), hash: hash)])
            try store.sync()
        }
        var end = 0
        do {
            var store = try open(disk, options: options).store
            try restore(&store, 10)
            for op in 11...20 as ClosedRange<UInt64> {
                try store.append([.entry(record(op))])
                try store.sync()
                if op == 15 { end = store.counts.bytes }
            }
            #expect(
                try store.checkpoint(
                    op: OpNumber(20), view: ViewNumber(1), hash: record(20).hash,
                    snapshot: { Model.snapshot(OpNumber(20)) }))
            #expect(store.takeCheckpointOutcome() == .done(op: OpNumber(20), removal: nil))
            if isSetBack { try restore(&store, 12) }
        }
        disk.state.withLock {
            $0.kill()
            if !isSetBack {
                // Somewhere in the entry of op 16.
                $0.spoil("/d/segment-1") { $0[SegmentHeader.byteCount + end + 40] ^= 1 }
            }
        }
        var store = try Store(folder: "/d", service: nil, disk: disk, options: options)
        if isSetBack {
            let found = try store.resume(isPeerReachable: false)
            #expect(found.recovered?.op == OpNumber(12))
            return
        }
        do throws(StoreError) {
            let found = try store.resume(isPeerReachable: false)
            Issue.record("\(found)")
        } catch {
            #expect("\(error)".contains("ends with op 15, its checkpoint with 20"), "\(error)")
        }
        #expect(disk.state.withLock { $0.names }.contains("/d/checkpoint-20"))
    }

    /// Somebody else was promoted by force while this one went on alone: the state that it is given is
    /// older than its checkpoint, and what follows is another log, which passes the checkpoint's op.
    @Test(arguments: [8, 10, 13]) func aStateOfAnotherLog(end: UInt64) throws {
        func record(_ op: UInt64, _ view: UInt64) -> Entry {
            Sample.entry(view, OpNumber(op), count: 1, size: 30, fill: UInt8(op))
        }
        func append(_ ops: ClosedRange<UInt64>, _ view: UInt64, _ store: inout Store) throws {
            for op in ops {
                try store.append([.entry(record(op, view))])
                try store.sync()
            }
        }
        func checkpoint(_ op: UInt64, _ view: UInt64, _ store: inout Store) throws -> Bool {
            let at = OpNumber(op)
            let isBegun = try store.checkpoint(
                op: at, view: ViewNumber(view), hash: record(op, view).hash,
                snapshot: { [UInt8(op), UInt8(view)] })
            _ = store.takeCheckpointOutcome()
            return isBegun
        }
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            try append(1...12, 1, &store)
            #expect(try checkpoint(5, 1, &store))
            #expect(try checkpoint(10, 1, &store))
            let (at, hash) = (OpNumber(7), record(7, 1).hash)
            try store.receive(op: at, view: ViewNumber(1), hash: hash, snapshot: [7, 1])
            try store.append([.restored(LogEnd(view: ViewNumber(1), op: at), hash: hash)])
            try append(8...end, 2, &store)
        }
        disk.state.withLock { $0.kill() }
        do {
            var opened = try open(disk)
            #expect(opened.recovered?.snapshot == [7, 1])
            #expect(opened.recovered?.last == OpNumber(end))
            #expect(opened.recovered?.entries.map(\.view.rawValue) == (8...end).map { _ in 2 })
            #expect(!disk.state.withLock { $0.names }.contains("/d/checkpoint-10"))
            #expect(try checkpoint(8, 2, &opened.store))
        }
        disk.state.withLock { $0.kill() }
        #expect(try open(disk).recovered?.snapshot == [8, 2])
        let names = disk.state.withLock { $0.names }.filter { $0.hasPrefix("/d/checkpoint-") }
        #expect(names.sorted() == ["/d/checkpoint-7", "/d/checkpoint-8"])
    }

    /// The running store takes no checkpoint of the log that it has left for one of its own.
    @Test func checkpointsOfAnotherLogGo() throws {
        let disk = SimulatedDisk()
        func entry(_ op: UInt64, _ view: UInt64) -> Entry {
            Sample.entry(view, OpNumber(op), count: 1, size: 30, fill: UInt8(op))
        }
        do {
            var store = try open(disk).store
            for op in 1...9 as ClosedRange<UInt64> { try store.append([.entry(entry(op, 1))]) }
            try store.sync()
            for op in [6, 9] as [UInt64] {
                #expect(
                    try store.checkpoint(
                        op: OpNumber(op), view: ViewNumber(1), hash: entry(op, 1).hash,
                        snapshot: { [1, 1] }))
                _ = store.takeCheckpointOutcome()
            }
            // Of the very op of a checkpoint, and another log's.
            let hash = LogHash(77)
            try store.receive(
                op: OpNumber(6), view: ViewNumber(1), hash: hash, snapshot: [6, 2])
            try store.append([
                .restored(LogEnd(view: ViewNumber(1), op: OpNumber(6)), hash: hash),
                .entry(entry(7, 2)),
            ])
            try store.sync()
            #expect(store.checkpointOp == OpNumber(6))
            #expect(
                try store.checkpoint(
                    op: OpNumber(7), view: ViewNumber(2), hash: entry(7, 2).hash,
                    snapshot: { [7, 2] }))
            _ = store.takeCheckpointOutcome()
        }
        let names = disk.state.withLock { $0.names }.filter { $0.hasPrefix("/d/checkpoint-") }
        #expect(names.sorted() == ["/d/checkpoint-6", "/d/checkpoint-7"])
        disk.state.withLock {
            $0.kill()
            $0.spoil("/d/checkpoint-7") { $0[125] ^= 1 }
        }
        #expect(try open(disk).recovered?.snapshot == [6, 2])
    }

    /// One after the other comes and is put to use, and the joins come to nothing: what stays is no
    /// more than what a start may need.
    @Test(arguments: [Store.Durability.always, .never], [true, false])
    func statesOfJoinsThatFail(durability: Store.Durability, isReopened: Bool) throws {
        let disk = SimulatedDisk()
        let options = Script.options(durability)
        func checkpoints() -> Int {
            disk.state.withLock { $0.names }.count { $0.hasPrefix("/d/checkpoint-") }
        }
        func take(_ op: OpNumber, _ store: inout Store) throws {
            try store.receive(
                op: op, view: ViewNumber(1), hash: .beginning, snapshot: Model.snapshot(op))
            try store.append([.restored(LogEnd(view: ViewNumber(1), op: op), hash: .beginning)])
            try store.sync()
        }
        let ops = (1...10).map { OpNumber($0 * 10) }
        for some in isReopened ? ops.map({ [$0] }) : [ops] {
            do {
                var store = try open(disk, options: options).store
                for op in some {
                    try take(op, &store)
                    #expect(checkpoints() <= 3, "after \(op)")
                }
            }
            disk.state.withLock { $0.kill() }
            let recovered = try open(disk, options: options).recovered
            let op = try #require(some.last)
            #expect(recovered?.op == op && recovered?.snapshot == Model.snapshot(op))
        }
    }

    /// The power goes at any call while states come, older ones than before among them: a start finds
    /// the last that was put to use.
    @Test(arguments: [Store.Durability.always, .never])
    func thePowerGoesWhileStatesCome(durability: Store.Durability) throws {
        let ops = [5, 9, 12, 3, 7, 10, 4, 12, 14, 15].map { OpNumber($0) }
        let options = Script.options(durability)
        var generator = Generator(seed: 3)
        var ends = 0
        for budget in Array(0..<120) + Array(stride(from: 120, to: 6_000, by: 17)) {
            let disk = SimulatedDisk()
            var done = 0
            do {
                var store = try open(disk, options: options).store
                disk.state.withLock { $0.budget = budget }
                do {
                    for op in ops {
                        try store.receive(
                            op: op, view: ViewNumber(1), hash: .beginning,
                            snapshot: Model.snapshot(op))
                        try store.append([
                            .restored(LogEnd(view: ViewNumber(1), op: op), hash: .beginning),
                            entry(op.next.rawValue),
                        ])
                        try store.sync()
                        done += 1
                    }
                    ends += 1
                } catch {
                    #expect(disk.state.withLock { $0.isOff })
                }
            }
            disk.state.withLock { $0.losePower(&generator) }
            let recovered = try open(disk, options: options).recovered
            let op = try #require(recovered?.op)
            let state = op == OpNumber(0) ? nil : Model.snapshot(op)
            #expect(recovered?.snapshot == state, "budget \(budget)")
            // Which one `--sync never` comes back to is not promised.
            let from = durability == .always ? done : 0
            let possible = [OpNumber(0)] + ops
            #expect(possible[from...min(done + 1, ops.count)].contains(op), "budget \(budget)")
        }
        #expect(ends > 10)
    }
}
