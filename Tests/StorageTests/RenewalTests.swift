import Journal
import Linux
import Simulator
import Storage
import Synchronization
import Testing
import Wire

/// A journal with rot in it is put aside, and the power goes meanwhile.
@Suite struct RenewalTests {
    private static func options() -> Store.Options {
        var options = Script.options()
        options.segmentBytes = 150
        return options
    }

    /// Segments 1, 2, …, each with one op, and a byte changed in one of them, if it is there.
    private static func rotten(_ files: SimulatedDisk, in segment: Int, checkpoints: Bool) throws {
        do {
            var store = try Store(
                folder: "/d", service: nil, disk: files, options: options())
            try store.create(Sample.identity)
            for op in 1...8 {
                let entry = Sample.entry(1, OpNumber(UInt64(op)), count: 1, size: 9, fill: 1)
                try store.append([.entry(entry)])
                try store.sync()
                guard checkpoints, op == 3 || op == 5 else { continue }
                let at = OpNumber(UInt64(op))
                #expect(
                    try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
                        Model.snapshot(at)
                    })
                #expect(store.takeCheckpointOutcome() == .done(op: at, removal: nil))
            }
        }
        files.state.withLock {
            $0.kill()
            $0.spoil("/d/segment-\(segment)") { $0[50] ^= 1 }
        }
    }

    /// What is left is never taken for a whole journal: its first part goes first, which is missed.
    @Test(arguments: [1, 2, 3, 4, 6], [false, true])
    func theRestIsNeverUsed(segment: Int, checkpoints: Bool) throws {
        var generator = Generator(seed: segment)
        var (ends, blanks) = (0, 0)
        for budget in Array(0...80) + Array(stride(from: 90, through: 900, by: 30)) {
            for _ in 0..<6 {
                let files = SimulatedDisk()
                try Self.rotten(files, in: segment, checkpoints: checkpoints)
                var fresh = Sample.identity
                fresh.instance = Instance(77)
                do {
                    var store = try Store(
                        folder: "/d", service: nil, disk: files, options: Self.options())
                    let found = try store.resume(isPeerReachable: true).verdict
                    // With checkpoints of ops 3 and 5 the segments before 5 are not needed, or gone.
                    guard case .ask(_, keepsInstance: false) = found else {
                        #expect(found == .useAll && checkpoints && segment < 5)
                        return
                    }
                    files.state.withLock { $0.budget = budget }
                    do throws(SystemError) {
                        _ = try store.renew(fresh)
                        ends += 1
                    } catch {
                        #expect(files.state.withLock { $0.isOff })
                    }
                }
                files.state.withLock { $0.losePower(&generator) }
                var store = try Store(
                    folder: "/d", service: nil, disk: files, options: Self.options())
                let identity = store.identity
                if identity == nil { blanks += 1 }
                if identity == Sample.identity {
                    let found = try store.resume(isPeerReachable: true)
                    guard case .ask(_, keepsInstance: false) = found.verdict else {
                        Issue.record("budget \(budget): \(found.verdict)")
                        return
                    }
                } else if identity != nil {
                    #expect(identity == fresh)
                    let former = store.former
                    #expect(former == [Sample.identity.instance])
                }
            }
        }
        #expect(ends > 0 && blanks > 0)
    }

    /// Of others' files and folders some cannot be moved: `lost+found`, what is mounted there.
    @Test func whatIsNotTheJournalsStays() throws {
        let files = SimulatedDisk()
        try Self.rotten(files, in: 1, checkpoints: false)
        let others = ["lost+found", "notes", "notes.new", "checkpoint", "segments"]
        for name in others + ["checkpoint-9", "checkpoint-10.new"] {
            let path = "/d/\(name)"
            files.close(try files.create(path))
        }
        var fresh = Sample.identity
        fresh.instance = Instance(77)
        var store = try Store(
            folder: "/d", service: nil, disk: files, options: Self.options())
        _ = try store.resume(isPeerReachable: true)
        #expect(try store.renew(fresh) == "/d/aside-1")
        let names = files.state.withLock { $0.names }
        for name in others {
            #expect(names.contains("/d/\(name)") && !names.contains("/d/aside-1/\(name)"))
        }
        for name in ["segment-1", "checkpoint-9", "identity"] {
            #expect(names.contains("/d/aside-1/\(name)"), "\(name)")
        }
        #expect(!names.contains("/d/checkpoint-9"))
        // Of no use to anybody, and it may be what takes the room that the new journal needs.
        #expect(!names.contains { $0.hasSuffix("checkpoint-10.new") })
    }

    /// A disk that has no room for the new journal: the old one is where it was.
    @Test func withoutRoomNothingIsMoved() throws {
        let files = SimulatedDisk()
        try Self.rotten(files, in: 1, checkpoints: false)
        let before = files.state.withLock { $0.names }
        var fresh = Sample.identity
        fresh.instance = Instance(77)
        do {
            var store = try Store(
                folder: "/d", service: nil, disk: files, options: Self.options())
            _ = try store.resume(isPeerReachable: true)
            files.state.withLock { $0.isFull = true }
            let code = SystemError.noSpace
            #expect(throws: SystemError("allocate", "/d/room.new", code: code)) {
                _ = try store.renew(fresh)
            }
        }
        #expect(files.state.withLock { $0.names } == before)
    }

    /// Killed when the last file was aside and no more; then the folder is found blank, somebody
    /// begins in it, and the power goes before anything new is there.
    @Test func aFolderFoundBlankStaysBlank() throws {
        var generator = Generator(seed: 1)
        var blanks = 0
        for budget in 0...80 {
            let files = SimulatedDisk()
            try Self.rotten(files, in: 1, checkpoints: false)
            var fresh = Sample.identity
            fresh.instance = Instance(77)
            do {
                var store = try Store(
                    folder: "/d", service: nil, disk: files, options: Self.options())
                _ = try store.resume(isPeerReachable: true)
                files.state.withLock { $0.budget = budget }
                _ = try? store.renew(fresh)
            }
            files.state.withLock { $0.kill() }
            for _ in 0..<8 {
                func look() throws -> Identity? {
                    try Store(
                        folder: "/d", service: nil, disk: files, options: Self.options()
                    ).identity
                }
                let isBlank = try look() == nil
                files.state.withLock { $0.losePower(&generator) }
                if isBlank {
                    blanks += 1
                    #expect(try look() == nil, "budget \(budget)")
                }
            }
        }
        #expect(blanks > 0)
    }
}
