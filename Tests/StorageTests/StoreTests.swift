import Journal
import Linux
import Simulator
import Storage
import Synchronization
import Testing
import Wire

private let noSpace: Int32 = 28
private let inputOutput: Int32 = 5

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

    /// Whatever names a loss of power brings back: a start would be refused.
    @Test func noCheckpointIsLeftWithoutItsSegment() throws {
        var counts: Set<Int> = []
        for seed in 1...60 {
            let disk = SimulatedDisk()
            var store = try open(disk).store
            for op in 1...40 {
                try store.append([entry(UInt64(op))])
                try store.sync()
                guard op % 10 == 0 else { continue }
                let at = OpNumber(UInt64(op))
                let isBegun = try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
                    Model.snapshot(at)
                }
                let outcome = store.takeCheckpointOutcome()
                #expect(isBegun && outcome == .done(op: at, removal: nil))
            }
            disk.state.withLock { $0.isOff = true }
            _ = consume store
            var generator = Generator(seed: seed)
            disk.state.withLock { $0.losePower(&generator) }
            let names = disk.state.withLock { $0.names }
            for name in names where name.contains("/checkpoint-") {
                let bytes = try disk.read(name)
                let segment = try Checkpoint(bytes).header.segment
                #expect(names.contains("/d/segment-\(segment)"), "seed \(seed): \(names)")
            }
            let segments = names.filter { $0.contains("/segment-") }
            counts.insert(segments.count)
        }
        #expect(counts.count > 1, "no name has come back")
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
            folder: "/d", service: nil, disk: disk, options: Script.options())
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
                folder: "/d", service: nil, disk: disk, options: Script.options())
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

    @Test func foreignFoldersAreRefused() throws {
        let disk = SimulatedDisk()
        do {
            _ = try open(disk)
        }
        func look(_ service: ServiceID?, priority: UInt64? = nil, id: UInt64? = nil) -> StoreError?
        {
            refusal {
                _ = try Store(
                    folder: "/d", service: service, id: .init(priority: priority, id: id),
                    disk: disk, options: Script.options())
            }
        }
        let own = Sample.identity.id
        #expect(look(Sample.identity.service, priority: own.priority, id: own.id) == nil)
        // What is not given is as it was: an id is made up where none is given at first.
        #expect(look(nil, priority: own.priority) == nil)
        #expect(look(nil, id: own.id) == nil)
        let other = ServiceID(high: 9, low: 9)
        #expect(look(other)?.description.contains("not of \(other)") == true)
        #expect(look(nil, id: 5)?.description.contains("not 5") == true)
        #expect(look(nil, priority: 7)?.description.contains("priority 7") == true)
        disk.state.withLock { $0.spoil("/d/identity") { $0[16] = UInt8(ascii: "5") } }
        #expect(
            look(nil)?.description
                == "/d/identity: format 5, of another version of pollsrv: this one reads 4; put the right file "
                + "back, or start in an empty folder and join")
        disk.state.withLock { $0.take("/d/identity") }
        // A first segment without a record is what an interrupted beginning leaves.
        #expect(look(nil) == nil)
        disk.state.withLock { $0.spoil("/d/segment-1") { $0[200] = 1 } }
        #expect(look(nil)?.description.hasPrefix("/d/identity: missing") == true)
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
