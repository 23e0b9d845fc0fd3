import Journal
import Linux
import Simulator
import Storage
import Synchronization
import Testing
import Wire

private struct RollOver: ~Copyable {
    var store: Store
    /// The last one appended, which waits for the second segment.
    var op: UInt64
}

/// A store whose segments are made when the test says so, appended to until it needs the second.
private func storeAtRollOver(_ disk: SimulatedDisk, _ beside: Beside) throws -> RollOver {
    var options = Script.options()
    options.beginBeside = { beside.take($0) }
    var store = try Store(folder: "/d", service: nil, disk: disk, options: options)
    try store.create(Sample.identity)
    var op: UInt64 = 0
    while !store.mustWait {
        op += 1
        try store.append([entry(op)])
        if !store.mustWait { try store.sync() }
        try #require(op < 100)
    }
    return RollOver(store: store, op: op)
}

@Suite struct SegmentBirthTests {
    @Test func theCallerDoesNothingOfIt() throws {
        let disk = SimulatedDisk()
        let beside = Beside()
        let start = try storeAtRollOver(disk, beside)
        var op = start.op
        var store = start.store
        let (calls, counts) = (disk.state.withLock { $0.counts }, store.counts)
        // More comes before it is there.
        op += 1
        try store.append([entry(op)])
        let isPending = store.isPending
        #expect(isPending)
        #expect(disk.state.withLock { $0.counts } == calls)
        beside.run()
        let mustWait = store.mustWait
        #expect(!mustWait)
        let made = disk.state.withLock { $0.counts }
        try store.sync()
        let after = disk.state.withLock { $0.counts }
        #expect(after[.sync, default: 0] - made[.sync, default: 0] == 1)
        #expect(after[.write, default: 0] - made[.write, default: 0] == 1)
        #expect(after[.syncFolder] == made[.syncFolder])
        let syncs = store.counts.syncs
        #expect(syncs == counts.syncs + 1)
        _ = consume store
        disk.state.withLock { $0.kill() }
        var again = try Store(
            folder: "/d", service: nil, disk: disk, options: Script.options())
        let found = try again.resume(isPeerReachable: false)
        #expect(found.recovered?.last == OpNumber(op))
    }

    /// A checkpoint names the segment that replay begins with; that has to be there.
    @Test func aCheckpointMeanwhileNamesTheSegmentBefore() throws {
        let disk = SimulatedDisk()
        let beside = Beside()
        let start = try storeAtRollOver(disk, beside)
        let op = start.op
        var store = start.store
        let at = OpNumber(op - 1)
        let isBegun = try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
            Model.snapshot(at)
        }
        let outcome = store.takeCheckpointOutcome()
        #expect(isBegun && outcome == .done(op: at, removal: nil))
        disk.state.withLock { $0.isOff = true }
        beside.run()
        #expect(throws: SystemError.self) { try store.sync() }
        _ = consume store
        var generator = Generator(seed: 3)
        disk.state.withLock { $0.losePower(&generator) }
        var again = try Store(
            folder: "/d", service: nil, disk: disk, options: Script.options())
        let found = try again.resume(isPeerReachable: false)
        #expect(found.verdict == .useAll)
        #expect(found.recovered?.op == at && found.recovered?.last == at)
    }

    /// Also where the next segment begins just behind it: of a log that was set back only the one in which
    /// its op stands tells whether the log was where the checkpoint is.
    @Test func aCheckpointNamesTheSegmentOfItsOp() throws {
        let disk = SimulatedDisk()
        let beside = Beside()
        let start = try storeAtRollOver(disk, beside)
        var store = start.store
        beside.run()
        try store.sync()
        let at = OpNumber(start.op - 1)
        let second = try disk.read("/d/segment-2")
        #expect(try SegmentHeader(second.span).firstOp == at.next)
        let isBegun = try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
            Model.snapshot(at)
        }
        let outcome = store.takeCheckpointOutcome()
        #expect(isBegun && outcome == .done(op: at, removal: nil))
        let bytes = try disk.read("/d/checkpoint-\(at)")
        #expect(try Checkpoint(bytes).header.segment == 1)
    }

    @Test func aFailureIsTheStoresLast() throws {
        let disk = SimulatedDisk()
        let beside = Beside()
        var store = try storeAtRollOver(disk, beside).store
        disk.state.withLock { $0.faults[.allocate] = (($0.counts[.allocate] ?? 0) + 1, 28) }
        beside.run()
        let error = SystemError("allocate", "/d/segment-2.new", code: 28)
        #expect(throws: error) { try store.sync() }
        let failure = store.failure
        #expect(failure == error)
    }
}
