import Foundation
import Testing

extension ProcessSuite {
    /// What `pollctl bench` leaves behind.
    @Suite(.serialized) struct Benches {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        /// Ended in the middle, or to the end: no process and no folder stays.
        @Test(arguments: [
            ("--voters 1 --secs 60", true), ("--idle 1 --secs 60", true),
            ("--voters 1 --votes 1", false),
        ])
        func benchLeavesNothing(flags: String, isInterrupted: Bool) throws {
            try with { cluster in
                let folder = cluster.folder.path
                func folders() throws -> [String] {
                    try FileManager.default.contentsOfDirectory(atPath: folder)
                        .filter { $0.hasPrefix("pollsrv-bench-") }
                }
                try cluster.start(
                    "bench", "pollctl", ["bench"] + flags.split(separator: " ").map(String.init),
                    environment: ["TMPDIR": folder])
                if isInterrupted {
                    _ = try cluster.eventually("a pair that is measured") {
                        try folders().isEmpty ? nil : true
                    }
                    usleep(1_500_000)
                    cluster.processes["bench"]?.interrupt()
                }
                let status = try cluster.waitForExit("bench", within: 60)
                #expect(status == (isInterrupted ? 130 : 0), "\(cluster.words)")
                #expect(try folders() == [])
                #expect(cluster.inhabitants.isEmpty, "left behind")
            }
        }

        /// Of so many votes and so many seconds, what comes first ends it.
        @Test func votesAndSecondsBothCount() throws {
            try with { cluster in
                try cluster.start(
                    "bench", "pollctl",
                    ["bench", "--voters", "1", "--votes", "1000000000", "--secs", "1"],
                    environment: ["TMPDIR": cluster.folder.path])
                #expect(try cluster.waitForExit("bench", within: 60) == 0, "\(cluster.words)")
            }
        }

        /// What is measured there is somebody's: nothing of ours may be waited for afterwards.
        @Test(arguments: [false, true]) func votersLeaveAGivenService(isInterrupted: Bool) throws {
            try with { cluster in
                _ = try cluster.primary(Cluster.quick + ["--no-restart"])
                _ = try cluster.eventually("the primary") { cluster.leader }
                func voters() -> String? {
                    try? cluster.info(cluster.ports[0], seconds: 1)["voters"]
                }
                let seconds = isInterrupted ? "60" : "2"
                try cluster.start(
                    "bench", "pollctl",
                    ["bench", "--voters", "3", "--secs", seconds, "--servers", cluster.servers])
                _ = try cluster.eventually("its voters") { voters() == "3" ? true : nil }
                if isInterrupted { cluster.processes["bench"]?.interrupt() }
                let status = try cluster.waitForExit("bench", within: 60)
                #expect(status == (isInterrupted ? 130 : 0), "\(cluster.words)")
                // It may have to wait for the processor, but what it says is true at once.
                let left = try cluster.eventually("an answer") { voters() }
                #expect(left == "0")
            }
        }

        @Test func aServerThatEndsMeanwhileIsNamed() throws {
            try with { cluster in
                let server = try cluster.primary(Cluster.quick + ["--no-restart"])
                _ = try cluster.eventually("the primary") { cluster.leader }
                try cluster.start(
                    "bench", "pollctl",
                    ["bench", "--idle", "1", "--secs", "6", "--servers", cluster.servers])
                _ = try cluster.eventually("its client") {
                    (try? cluster.info(cluster.ports[0], seconds: 1)["voters"]) == "1" ? true : nil
                }
                // It lets a second go by before it begins to count.
                usleep(1_500_000)
                kill(server.processIdentifier, SIGKILL)
                #expect(try cluster.waitForExit("bench", within: 20) == 69, "\(cluster.words)")
                let words = "the server with pid \(server.processIdentifier)"
                #expect(cluster.said("bench", "err").contains(words), "\(cluster.words)")
            }
        }

        @Test func diskBenchLeavesNothing() throws {
            try with { cluster in
                try cluster.start("bench", "pollctl", ["bench", "--disk", ".", "--secs", "60"])
                func folders() throws -> [String] {
                    try FileManager.default.contentsOfDirectory(atPath: cluster.folder.path)
                        .filter { $0.hasPrefix("bench-") }
                }
                _ = try cluster.eventually("its journal") { try folders().isEmpty ? nil : true }
                cluster.processes["bench"]?.interrupt()
                #expect(try cluster.waitForExit("bench", within: 10) == 130, "\(cluster.words)")
                #expect(try folders() == [])
            }
        }
    }
}
