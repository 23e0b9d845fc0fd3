import Foundation
import Journal
import Linux
import Storage
import Testing
import Wire

/// The same on the machine's own disk.
@Suite struct LinuxDiskTests {
    private func folder() -> String {
        FileManager.default.temporaryDirectory.appending(path: "store-\(UUID())").path()
    }

    @Test func aJournalComesBack() throws {
        let folder = folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var options = Store.Options()
        options.segmentBytes = 4_096
        for round in 0..<3 {
            var store = try Store(folder: folder, service: nil, options: options)
            if round == 0 {
                try store.create(Sample.identity)
            } else {
                let found = try store.resume(isPeerReachable: false)
                #expect(found.verdict == .useAll)
                #expect(found.recovered?.last == OpNumber(UInt64(round * 50)))
                #expect(found.recovered?.op == OpNumber(UInt64(round * 50 - 10)))
                #expect(
                    found.recovered?.snapshot == Model.snapshot(OpNumber(UInt64(round * 50 - 10))))
            }
            for turn in 0..<50 {
                let op = OpNumber(UInt64(round * 50 + turn + 1))
                try store.append([.entry(Sample.entry(1, op, count: 1, size: 200, fill: 1))])
                try store.sync()
            }
            // On a thread of its own, for once.
            let at = OpNumber(UInt64(round * 50 + 40))
            #expect(
                try store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
                    Model.snapshot(at)
                })
            #expect(
                try !store.checkpoint(op: at, view: ViewNumber(1), hash: .beginning) {
                    Model.snapshot(at)
                })
            store.waitForCheckpoint()
            #expect(store.takeCheckpointOutcome() == .done(op: at, removal: nil))
            #expect(store.takeCheckpointOutcome() == nil)
        }
        let names = try Files.list(folder)
        #expect(names.filter { $0.hasPrefix("checkpoint") } == ["checkpoint-140", "checkpoint-90"])
        #expect(!names.contains("segment-1"))
    }

    @Test func aSecondProcessOrStoreIsRefused() throws {
        let folder = folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let store = try Store(folder: folder, service: nil)
        #expect(throws: StoreError.self) { _ = try Store(folder: folder, service: nil) }
        _ = store.counts
    }

    @Test func refusalsNameThePathAndTheCall() throws {
        let folder = folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func complaint(_ path: String) -> String {
            do {
                _ = try Store(folder: path, service: nil)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(complaint(folder + "/no/parent") == "", "made, with those above it")
        #expect(complaint("/dev/null/x") == "opendir /dev/null/x: Not a directory")
        #expect(complaint("/dev/null") == "opendir /dev/null: Not a directory")
        #expect(complaint("/proc/journal") == "mkdir /proc/journal: No such file or directory")
    }
}
