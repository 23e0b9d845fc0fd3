import Foundation
import Testing

extension Disks {
    /// A server killed at each of the calls that it makes on its folder, before and behind it.
    @Suite(.serialized, .enabled(if: FaultDisk.compiler != nil, "it takes a C compiler"))
    struct Crashes {
        private static let kinds = ["kill", "killafter"]

        private func wasKilled(_ process: Process) -> Bool {
            !process.isRunning && process.terminationReason == .uncaughtSignal
                && process.terminationStatus == SIGKILL
        }

        /// While the folder is made, and while it is gone on with: the next start makes or keeps the
        /// service, and with it what was acknowledged.
        @Test(arguments: kinds, [true, false]) func atTheStart(kind: String, isFresh: Bool) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let folder = cluster.folder.appending(path: "data").path
            let disk = try FaultDisk(folder: folder, home: cluster.folder)
            func start(_ name: String) throws -> Process {
                try cluster.start(
                    name, "pollsrv",
                    [
                        "--primary", "--listen", "127.0.0.1:\(cluster.ports[0])", "--peer",
                        "127.0.0.1:1", "--data", folder, "--segment", "1", "--no-restart",
                    ], environment: disk.environment)
            }
            // Not `info`, as each fresh folder is another service with the same views.
            func isLeading() -> Bool {
                let text = try? RawClient(cluster.ports[0], seconds: 1).ask("INFO pollsrv")
                return text?.description.contains("\r\nmode:primary\r\n") == true
            }
            var calls = 0
            var votes = 0
            while true {
                try disk.set(["* * \(calls) 1 \(kind)"])
                let process = try start("struck\(calls)")
                let isStruck = try cluster.eventually("a kill or a primary") { () -> Bool? in
                    if !process.isRunning { return true }
                    return isLeading() ? false : nil
                }
                if !isStruck { break }
                #expect(wasKilled(process), "\(cluster.words)")
                try disk.heal()
                let next = try start("next\(calls)")
                _ = try cluster.eventually("a primary after call \(calls)") {
                    isLeading() ? true : nil
                }
                let list = try RawClient(cluster.ports[0]).ask("VOTE.LIST COUNT 1000")
                guard case .list(let items) = list else { throw Trouble("\(list)") }
                #expect(items.count == votes, "at call \(calls)\n\(cluster.words)")
                if !isFresh {
                    let client = try RawClient(cluster.ports[0])
                    guard case .number = try client.ask("VOTE.OPEN v ROLL open") else {
                        throw Trouble("no vote")
                    }
                    votes += 1
                }
                kill(next.processIdentifier, SIGKILL)
                next.waitUntilExit()
                if isFresh { try FileManager.default.removeItem(atPath: folder) }
                calls += 1
            }
            // mkdir, two files written, synced and renamed, and the folder's own syncs.
            #expect(calls >= (isFresh ? 15 : 8), "only \(calls) calls")
        }

        /// While a checkpoint is written and older files are removed, at both at once.
        @Test func duringACheckpoint() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            let disks = try (0...1).map {
                try FaultDisk(folder: pair.folder($0), home: pair.cluster.folder)
            }
            pair.environments = disks.map(\.environment)
            try pair.begin()
            let faults = [
                "open checkpoint- 0 1", "pwrite checkpoint- 0 1", "fdatasync checkpoint- 0 1",
                "rename checkpoint- 0 1", "unlink checkpoint- 0 1", "unlink segment- 0 1",
            ]
            for fault in faults {
                for kind in Self.kinds {
                    for disk in disks { try disk.set(["\(fault) \(kind)"]) }
                    try Filler.fill(pair) { disks.contains { !$0.hits.isEmpty } }
                    for disk in disks { try disk.heal() }
                    try pair.kill([0, 1])
                    for disk in disks { disk.forgetHits() }
                    for index in 0...1 { try pair.start(index, "backup") }
                    try pair.waitForPair()
                }
                try pair.check()
            }
            try pair.checkBoth()
        }
    }
}
