import Foundation
import Testing

extension ProcessSuite {
    /// What servers with `--data` say of their disk, and what the tools make of it.
    @Suite(.serialized) struct DiskFigures {
        private func pair(_ cluster: Cluster, _ flags: [String]) throws {
            for mode in ["primary", "backup"] {
                let folder = cluster.folder.appending(path: "data-\(mode)").path
                let all =
                    Cluster.quick + ["--misses", "30", "--no-restart", "--data", folder] + flags
                _ =
                    mode == "primary"
                    ? try cluster.primary(all + ["--voters", "5", "--votes", "100000"])
                    : try cluster.backup(all)
            }
        }

        private func numbers(_ cluster: Cluster) throws -> [[String: Int]] {
            try cluster.ports.map { try cluster.info($0).compactMapValues { Int($0) } }
        }

        /// However much a turn brings, it is made durable at once.
        @Test func noTurnSyncsTwice() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try pair(cluster, [])
            for name in Cluster.names { try cluster.client(name) }
            try cluster.waitForPair(witnesses: 3)
            let before = try numbers(cluster)
            let seen = cluster.lines("ann").count
            _ = try cluster.eventually("200 more results", within: 60) {
                cluster.lines("ann").count >= seen + 200 ? true : nil
            }
            let after = try numbers(cluster)
            for (old, new) in zip(before, after) {
                func rise(_ key: String) throws -> Int {
                    try #require(new[key]) - #require(old[key])
                }
                #expect(try rise("journal_syncs") > 20)
                #expect(new["journal_syncs_of_a_turn_max"] == 1)
                #expect(try rise("journal_syncs") <= rise("loop_turns"))
                #expect(try rise("journal_writes") == rise("journal_syncs"))
                #expect(try rise("journal_bytes") > 200 * 5 * 4)
            }
            let status = try cluster.start(
                "status", "pollctl", ["--servers", cluster.servers, "status", "--json"])
            status.waitUntilExit()
            let said = cluster.said("status", "out")
            #expect(said.contains("\"durability\":\"disk\""), "\(said)")
            #expect(said.contains("\"sync_mode\":\"always\""), "\(said)")
        }

        @Test func whatTheKernelIsLeftToWriteIsSaid() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try pair(cluster, ["--sync", "never"])
            try cluster.waitForPair()
            let info = try cluster.info(cluster.ports[0])
            #expect(info["sync_mode"] == "never" && info["journal_syncs"] == "0")
            #expect(Int(info["journal_writes"] ?? "") ?? 0 > 0)
            let status = try cluster.start(
                "status", "pollctl", ["--servers", cluster.servers, "status"])
            status.waitUntilExit()
            #expect(cluster.said("status", "out").contains("--sync never"))
        }

        @Test func aBenchTakesNobodysFolder() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let taken = cluster.folder.appending(path: "backup")
            try FileManager.default.createDirectory(at: taken, withIntermediateDirectories: true)
            try Data("mine".utf8).write(to: taken.appending(path: "notes"))
            let bench = try cluster.start(
                "bench", "pollctl", ["bench", "--data", cluster.folder.path, "--secs", "1"])
            bench.waitUntilExit()
            #expect(bench.terminationStatus == 74)
            #expect(cluster.said("bench", "err").contains("\(taken.path) is there and not empty"))
            #expect(FileManager.default.fileExists(atPath: taken.appending(path: "notes").path))
        }
    }
}
