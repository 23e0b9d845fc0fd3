import Foundation
import Testing

extension ProcessSuite {
    /// `pollctl stop` where not everybody is one pair, or can be told.
    @Suite(.serialized) struct Stops {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private func stop(_ cluster: Cluster, _ ports: [UInt16]) throws -> Int32 {
            let servers = ports.map { "127.0.0.1:\($0)" }.joined(separator: ",")
            try cluster.start("stop", "pollctl", ["stop", "--timeout", "2s", "--servers", servers])
            return try cluster.waitForExit("stop", within: 60)
        }

        /// One that was stopped, say, while the other took over: it would go on.
        @Test func oneThatHangsIsNamed() throws {
            try with { cluster in
                // Nobody's number, and nobody's address: there is nobody to be waited for.
                let info = "mode:primary\r\nview:1\r\npid:0\r\naddress:127.0.0.1:1\r\n"
                let primary = try FakeServer { _, request in
                    request.contains("INFO")
                        ? "$\(info.utf8.count)\r\n\(info)\r\n" : "+OK\r\n"
                }
                defer { primary.stop() }
                let hung = try FakeServer { _, _ in
                    Thread.sleep(forTimeInterval: 10)
                    return nil
                }
                defer { hung.stop() }
                #expect(try stop(cluster, [primary.port, hung.port]) == 69)
                let said = cluster.said("stop", "err")
                #expect(said.hasPrefix("pollctl: stopped 127.0.0.1:1 in "), "\(said)")
                let untold = "not told:\n  127.0.0.1:\(hung.port) does not answer\n"
                #expect(said.hasSuffix(untold), "\(said)")
            }
        }

        /// The primary has no path to its backup, which it cannot tell.
        @Test func aBackupBehindACutLinkIsEndedToo() throws {
            try with { cluster in
                let flags = Cluster.quick + ["--no-restart", "--test-hooks"]
                try cluster.primary(flags)
                try cluster.backup(flags)
                try cluster.waitForPair()
                for port in cluster.ports {
                    #expect(try RawClient(port).ask("LINK CUT") == .text("OK"))
                }
                // On one host and without clients there is no majority without it.
                _ = try cluster.eventually("a stall") {
                    try cluster.info(cluster.ports[0], seconds: 1)["stalled"] == "1" ? true : nil
                }
                #expect(try stop(cluster, cluster.ports) == 0, "\(cluster.words)")
                for name in ["primary", "backup"] {
                    #expect(try cluster.waitForExit(name) == 0, "\(cluster.words)")
                }
            }
        }

        /// The other one hears of nobody else that it is to end.
        @Test func eachOfTwoServicesIsEnded() throws {
            try with { cluster in
                let names = ["one", "other"]
                for (name, port) in zip(names, cluster.ports) {
                    try cluster.start(
                        name, "pollsrv",
                        [
                            "--primary", "--listen", "127.0.0.1:\(port)", "--peer", "127.0.0.1:1",
                            "--no-restart",
                        ] + Cluster.quick)
                }
                for port in cluster.ports {
                    _ = try cluster.eventually("a primary") {
                        try? cluster.info(port, seconds: 1)["mode"] == "primary" ? true : nil
                    }
                }
                #expect(try stop(cluster, cluster.ports) == 0, "\(cluster.words)")
                for name in names { #expect(try cluster.waitForExit(name) == 0) }
            }
        }
    }
}
