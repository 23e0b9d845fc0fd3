import Journal
import Linux
import Simulator
import Storage
import Synchronization
import Testing
import Wire

private let noSpace: Int32 = 28
private let inputOutput: Int32 = 5

private struct Opened: ~Copyable {
    var store: Store
    let recovered: Recovered?
}

/// Opens `/d`, begun or resumed.
private func open(_ disk: SimulatedDisk, options: Store.Options = Script.options()) throws -> Opened
{
    var store = try Store(folder: "/d", service: nil, id: nil, disk: disk, options: options)
    if store.identity == nil {
        try store.create(Sample.identity)
        return Opened(store: store, recovered: nil)
    }
    let found = try store.resume(isPeerReachable: false)
    return Opened(store: store, recovered: found.recovered)
}

private func entry(_ op: UInt64, size: Int = 30) -> Record {
    .entry(Sample.entry(1, OpNumber(op), count: 1, size: size, fill: UInt8(op & 0xff)))
}

private func refusal(_ body: () throws -> Void) -> StoreError? {
    do {
        try body()
        return nil
    } catch {
        return error as? StoreError
    }
}

@Suite struct StoreTests {
    @Test func oneWriteAndOneSyncForEachTurn() throws {
        let disk = SimulatedDisk()
        var options = Script.options()
        options.segmentBytes = 1 << 20
        var store = try open(disk, options: options).store
        let before = disk.state.withLock { $0.counts }
        for turn in 0..<10 {
            for op in 1...5 { try store.append([entry(UInt64(turn * 5 + op))]) }
            let isPending = store.isPending
            #expect(isPending)
            try store.sync()
            let isPendingStill = store.isPending
            #expect(!isPendingStill)
            // Nothing is new: nothing is done.
            try store.sync()
        }
        let after = disk.state.withLock { $0.counts }
        #expect(after[.write, default: 0] - before[.write, default: 0] == 10)
        #expect(after[.sync, default: 0] - before[.sync, default: 0] == 10)
        let counts = store.counts
        #expect(counts.syncs == 10 && counts.writes == 10 && counts.records == 50)
    }

    @Test func neverSyncsMeansNone() throws {
        let disk = SimulatedDisk()
        var options = Script.options(.never)
        options.segmentBytes = 1 << 20
        var store = try open(disk, options: options).store
        let before = disk.state.withLock { $0.counts[.sync] }
        for op in 1...20 {
            try store.append([entry(UInt64(op))])
            try store.sync()
        }
        #expect(disk.state.withLock { $0.counts[.sync] } == before)
        let counts = store.counts
        #expect(counts.syncs == 0 && counts.writes == 20)
    }

    @Test func shortWritesAreContinued() throws {
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            disk.state.withLock { $0.writeMax = 7 }
            for op in 1...20 {
                try store.append([entry(UInt64(op))])
                try store.sync()
            }
            let counts = store.counts
            #expect(counts.writes > 100)
        }
        var generator = Generator(seed: 1)
        disk.state.withLock { $0.losePower(&generator) }
        let recovered = try open(disk).recovered
        #expect(recovered?.last == OpNumber(20))
    }

    /// The first failure is the last thing that the store does.
    @Test(arguments: [
        (SimulatedDisk.Call.write, noSpace), (.write, inputOutput), (.sync, inputOutput),
    ]) func afterAFailureNothingMoreIsDone(call: SimulatedDisk.Call, code: Int32) throws {
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            try store.append([entry(1)])
            try store.sync()
            disk.state.withLock { $0.faults[call] = (($0.counts[call] ?? 0) + 1, code) }
            try store.append([entry(2)])
            let error = SystemError("\(call)", "/d/segment-1", code: code)
            #expect(throws: error) { try store.sync() }
            let failure = store.failure
            #expect(failure == error)
            let before = disk.state.withLock { $0.counts }
            #expect(throws: error) { try store.sync() }
            #expect(throws: error) { try store.append([entry(3)]) }
            #expect(throws: error) {
                _ = try store.checkpoint(op: OpNumber(1), view: ViewNumber(1), hash: .beginning) {
                    []
                }
            }
            #expect(disk.state.withLock { $0.counts } == before)
        }
        disk.state.withLock { $0.kill() }
        let recovered = try open(disk).recovered
        // What was answered for is there; what was not may be.
        #expect([1, 2].contains(recovered?.last.rawValue))
    }

    /// A sync fails, the kernel shows the pages as if they were on the disk, the process starts
    /// again and answers for what it reads; then the power goes.
    @Test func whatAFailedSyncLeftInMemoryIsWrittenAgain() throws {
        for seed in 0..<50 {
            let disk = SimulatedDisk()
            do {
                var store = try open(disk).store
                try store.append([entry(1)])
                try store.sync()
                disk.state.withLock {
                    $0.faults[.sync] = (($0.counts[.sync] ?? 0) + 1, inputOutput)
                }
                try store.append([entry(2), entry(3)])
                #expect(throws: SystemError.self) { try store.sync() }
            }
            disk.state.withLock { $0.kill() }
            do {
                let recovered = try open(disk).recovered
                #expect(recovered?.last == OpNumber(3))
            }
            var generator = Generator(seed: seed)
            disk.state.withLock { $0.losePower(&generator) }
            let recovered = try open(disk).recovered
            #expect(recovered?.last == OpNumber(3), "seed \(seed)")
        }
    }

    @Test func aFullDiskAtANewSegmentNamesTheCall() throws {
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            for op in 1...20 {
                disk.state.withLock { $0.faults[.allocate] = (2, noSpace) }
                do {
                    try store.append([entry(UInt64(op))])
                    try store.sync()
                } catch {
                    #expect(error.code == noSpace && error.call == "allocate")
                    #expect(error.subject.hasPrefix("/d/segment-2"))
                    break
                }
            }
            let failure = store.failure
            #expect(failure?.isNoSpace == true)
        }
        disk.state.withLock { $0.kill() }
        let opened = try open(disk)
        let recovered = opened.recovered
        #expect(recovered?.last.rawValue ?? 0 > 3)
        let failure = opened.store.failure
        #expect(failure == nil)
        #expect(!disk.state.withLock { $0.names }.contains { $0.hasSuffix(".new") })
    }

    @Test func aFailedCheckpointLeavesTheJournalInUse() throws {
        for call in [SimulatedDisk.Call.create, .write, .sync] {
            let disk = SimulatedDisk()
            var store = try open(disk).store
            for op in 1...5 { try store.append([entry(UInt64(op))]) }
            try store.sync()
            disk.state.withLock { $0.faults[call] = (($0.counts[call] ?? 0) + 1, noSpace) }
            let op = OpNumber(4)
            #expect(
                try store.checkpoint(op: op, view: ViewNumber(1), hash: .beginning) {
                    Model.snapshot(op)
                })
            guard case .failed(let error)? = store.takeCheckpointOutcome() else {
                Issue.record("not failed")
                continue
            }
            #expect(error.code == noSpace)
            let failure = store.failure
            #expect(failure == nil)
            // The next one works.
            #expect(
                try store.checkpoint(op: op, view: ViewNumber(1), hash: .beginning) {
                    Model.snapshot(op)
                })
            #expect(store.takeCheckpointOutcome() == .done(op: op, removal: nil))
            #expect(disk.state.withLock { $0.names }.contains("/d/checkpoint-4"))
        }
    }

    @Test func twoCheckpointsAndTheirSegmentsAreKept() throws {
        let disk = SimulatedDisk()
        var store = try open(disk).store
        for op in 1...60 {
            try store.append([entry(UInt64(op))])
            try store.sync()
            if op % 10 == 0 {
                let at = OpNumber(UInt64(op))
                #expect(
                    try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
                        Model.snapshot(at)
                    })
                #expect(store.takeCheckpointOutcome() == .done(op: at, removal: nil))
            }
        }
        let names = disk.state.withLock { $0.names }
        #expect(
            names.filter { $0.contains("checkpoint") } == ["/d/checkpoint-50", "/d/checkpoint-60"])
        #expect(!names.contains("/d/segment-1"))
        // One that fails takes nothing away.
        try store.append([entry(61)])
        try store.sync()
        let present = disk.state.withLock { $0.names }
        disk.state.withLock { $0.faults[.create] = (($0.counts[.create] ?? 0) + 1, noSpace) }
        #expect(
            try store.checkpoint(op: OpNumber(61), view: ViewNumber(1), hash: .beginning) { [1] })
        guard case .failed? = store.takeCheckpointOutcome() else {
            Issue.record("not failed")
            return
        }
        #expect(disk.state.withLock { $0.names } == present)
        // The newest rots: the older one and its segments still give everything.
        _ = consume store
        disk.state.withLock {
            $0.kill()
            $0.spoil("/d/checkpoint-60") { $0[130] ^= 4 }
        }
        let recovered = try open(disk).recovered
        #expect(recovered?.op == OpNumber(50))
        #expect(recovered?.last == OpNumber(61))
    }

    @Test func rotIsRefusedAloneAndGoesAsideWithAPeer() throws {
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            for op in 1...4 {
                try store.append([entry(UInt64(op))])
                try store.sync()
            }
        }
        disk.state.withLock {
            $0.kill()
            $0.spoil("/d/segment-1") { $0[SegmentHeader.byteCount + 78] ^= 1 }
        }
        let before = disk.state.withLock { $0.names }
        let refusal = refusal { _ = try open(disk) }
        guard case .refused(let path, let reason)? = refusal else {
            Issue.record("taken: \(String(describing: refusal))")
            return
        }
        #expect(path == "/d/segment-1")
        #expect(reason.hasPrefix("offset 177, op 2: rot"), "\(reason)")
        #expect(disk.state.withLock { $0.names } == before)

        var store = try Store(
            folder: "/d", service: nil, id: nil, disk: disk, options: Script.options())
        let found = try store.resume(isPeerReachable: true)
        guard case .ask(let place, keepsInstance: false) = found.verdict else {
            Issue.record("\(found.verdict)")
            return
        }
        #expect(place.op == OpNumber(2) && found.recovered?.last == OpNumber(1))
        var other = Sample.identity
        other.instance = Instance(77)
        #expect(try store.renew(other) == "/d/aside-1")
        #expect(store.former == [Sample.identity.instance])
        try store.receive(
            op: OpNumber(9), view: ViewNumber(1), hash: .beginning,
            snapshot: Model.snapshot(OpNumber(9)))
        try store.append([
            .restored(LogEnd(view: ViewNumber(1), op: OpNumber(9)), hash: .beginning), entry(10),
        ])
        try store.sync()
        _ = consume store
        disk.state.withLock { $0.kill() }
        let opened = try open(disk)
        let (identity, recovered) = (opened.store.identity, opened.recovered)
        #expect(opened.store.former == [Sample.identity.instance])
        #expect(identity == other)
        #expect(recovered?.op == OpNumber(9) && recovered?.last == OpNumber(10))
        let names = disk.state.withLock { $0.names }
        #expect(names.contains("/d/aside-1/segment-1") && names.contains("/d/aside-1/identity"))
    }

    /// Behind a mark the last write cannot pass for one that never ended.
    @Test(arguments: [true, false]) func rotInTheLastWrite(isMarked: Bool) throws {
        let disk = SimulatedDisk()
        var end = 0
        do {
            var store = try open(disk).store
            try store.append([entry(1)])
            try store.sync()
            try store.append([entry(2)])
            try store.sync()
            end = store.counts.bytes
            let canMark = store.canMark
            #expect(canMark)
            if isMarked { try store.mark() }
            let canMarkStill = store.canMark
            #expect(canMarkStill == !isMarked)
        }
        disk.state.withLock {
            $0.kill()
            $0.spoil("/d/segment-1") { $0[SegmentHeader.byteCount + end - 3] ^= 1 }
        }
        if isMarked {
            let refusal = refusal { _ = try open(disk) }
            guard case .refused(_, let reason)? = refusal else {
                Issue.record("taken: \(String(describing: refusal))")
                return
            }
            #expect(reason.contains("op 2: rot"), "\(reason)")
        } else {
            var store = try Store(
                folder: "/d", service: nil, id: nil, disk: disk, options: Script.options())
            guard case .cut(let place) = try store.resume(isPeerReachable: false).verdict else {
                Issue.record("not cut")
                return
            }
            #expect(place.op == OpNumber(2))
        }
    }

    @Test func aMarkIsNoRecord() throws {
        let disk = SimulatedDisk()
        do {
            var store = try open(disk).store
            for op in 1...3 {
                try store.append([entry(UInt64(op))])
                try store.sync()
                try store.mark()
            }
        }
        disk.state.withLock { $0.kill() }
        do {
            let recovered = try open(disk).recovered
            #expect(recovered?.last == OpNumber(3) && recovered?.entries.count == 3)
        }
        // It goes on behind them.
        do {
            var store = try open(disk).store
            try store.append([entry(4)])
            try store.sync()
        }
        #expect(try open(disk).recovered?.last == OpNumber(4))
    }

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

    @Test func foreignFoldersAreRefused() throws {
        let disk = SimulatedDisk()
        do {
            _ = try open(disk)
        }
        func look(_ service: ServiceID?, _ id: ReplicaID?) -> StoreError? {
            refusal {
                _ = try Store(
                    folder: "/d", service: service, id: id, disk: disk, options: Script.options())
            }
        }
        #expect(look(Sample.identity.service, Sample.identity.id) == nil)
        let other = ServiceID(high: 9, low: 9)
        #expect(look(other, nil)?.description.contains("not of \(other)") == true)
        #expect(look(nil, ReplicaID(id: 5))?.description.contains("not 5") == true)
        disk.state.withLock { $0.spoil("/d/identity") { $0[16] = UInt8(ascii: "4") } }
        #expect(
            look(nil, nil)?.description
                == "/d/identity: format 4, of another version of pollsrv: this one reads 3; put the right file "
                + "back, or start in an empty folder and join")
        disk.state.withLock { $0.take("/d/identity") }
        // A first segment without a record is what an interrupted beginning leaves.
        #expect(look(nil, nil) == nil)
        disk.state.withLock { $0.spoil("/d/segment-1") { $0[200] = 1 } }
        #expect(look(nil, nil)?.description.hasPrefix("/d/identity: missing") == true)
    }

    @Test func twoStoresOnOneFolder() throws {
        let disk = SimulatedDisk()
        do {
            let first = try open(disk).store
            #expect(
                refusal { _ = try open(disk) }
                    == .refused(
                        path: "/d", reason: "in use by another process, which holds its lock"))
            _ = first.counts
        }
        #expect(refusal { _ = try open(disk) } == nil)
    }
}
