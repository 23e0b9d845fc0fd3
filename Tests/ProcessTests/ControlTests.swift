import Foundation
import Testing

extension ProcessSuite {
    /// `pollctl` where not all goes well: what it says, and what it leaves behind.
    @Suite(.serialized) struct Controls {
        private typealias Outcome = (status: Int32, output: String, error: String)

        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        /// Runs `pollctl` to its end, through a shell: `line` is what stands behind its path.
        private func run(_ cluster: Cluster, _ line: String) throws -> Outcome {
            let name = "run-\(UInt32.random(in: 0 ... .max))"
            let program = Cluster.binaries.appending(path: "pollctl").path
            try cluster.start(name, "/bin/sh", ["-c", "exec \(program) \(line)"])
            let status = try cluster.waitForExit(name)
            return (status, cluster.said(name, "out"), cluster.said(name, "err"))
        }

        /// A primary without a backup; `answers` to other commands than INFO, by their verb.
        private func server(
            _ info: String = "", _ answers: [String: String] = [:]
        ) throws -> FakeServer {
            try FakeServer { _, request in
                let words = FakeServer.words(request)
                if words.first == "INFO" {
                    let text = "mode:primary\r\nview:1\r\nstate:solo\r\n\(info)"
                    return "$\(text.utf8.count)\r\n\(text)\r\n"
                }
                return answers.first { words.contains($0.key) }?.value ?? "+OK\r\n"
            }
        }

        /// As if there were a full disk behind it.
        @Test func lostOutputIsAFailure() throws {
            try with { cluster in
                let results = "*1\r\n*3\r\n:1\r\n:2\r\n:3\r\n"
                let server = try server("", ["VOTE.RESULTS": results, "VOTE.OPEN": ":17\r\n"])
                defer { server.stop() }
                let servers = "--servers 127.0.0.1:\(server.port)"
                for command in ["status", "status --json", "results", "--help", "link cut"] {
                    let shown = try run(cluster, "\(command) \(servers)")
                    #expect(shown.status == 0 && !shown.output.isEmpty, "\(command) \(shown)")
                    let lost = try run(cluster, "\(command) \(servers) >/dev/full")
                    #expect(lost.status == 74, "\(command) \(lost)")
                    #expect(lost.error.contains("write standard output: No space"), "\(lost)")
                }
                let opened = try run(cluster, "open tea? \(servers) >/dev/full")
                #expect(opened.status == 74, "\(opened)")
                #expect(opened.error.contains("vote 17 is open"), "\(opened)")
            }
        }

        /// The reader closes the pipe, says so, and only then the other begins.
        @Test func aReaderThatIsGoneIsAFailure() throws {
            try with { cluster in
                let server = try server("", ["VOTE.OPEN": ":17\r\n"])
                defer { server.stop() }
                let program = Cluster.binaries.appending(path: "pollctl").path
                let open = "\(program) open tea? --servers 127.0.0.1:\(server.port)"
                let writer = "until [ -e gone ]; do sleep 0.01; done; \(open); echo status $? >&2"
                try cluster.start(
                    "pipe", "/bin/sh", ["-c", "{ \(writer); } | { exec <&-; : >gone; }"])
                let said: String = try cluster.eventually("its end") {
                    let text = cluster.said("pipe", "err")
                    return text.contains("status") ? text : nil
                }
                #expect(said.contains("vote 17 is open, but: write standard output: Broken pipe"))
                #expect(said.hasSuffix("status 74\n"), "\(said)")
            }
        }

        /// What a call was answered it is answered for good: there is nothing to wait for.
        @Test func fullPollsAreNamedAtOnce() throws {
            try with { cluster in
                let words = "FULL 10000 votes are open; close some first"
                let server = try FakeServer { _, _ in "-\(words)\r\n" }
                defer { server.stop() }
                let line = "open tea? --timeout 10m --servers 127.0.0.1:\(server.port)"
                let refused = try run(cluster, line)
                #expect(refused.status == 69, "\(refused)")
                #expect(refused.error == "pollctl: 127.0.0.1:\(server.port): \(words)\n")
            }
        }

        /// A primary that waits for others has no room for requests at some time. That passes.
        @Test func aServerWithoutRoomIsAskedAgain() throws {
            try with { cluster in
                let busy = "-BUSY too many requests are waiting here\r\n"
                let server = try FakeServer { number, request in
                    number > 2 && FakeServer.words(request).first == "CALL" ? ":17\r\n" : busy
                }
                defer { server.stop() }
                let servers = "--servers 127.0.0.1:\(server.port)"
                let opened = try run(cluster, "open tea? \(servers)")
                #expect(opened.status == 0 && opened.output == "17\n", "\(opened)")
                let refused = try run(cluster, "results --timeout 300ms \(servers)")
                #expect(refused.status == 69, "\(refused)")
                #expect(refused.error.contains("in the time there was"), "\(refused)")
                #expect(refused.error.contains("BUSY too many requests"), "\(refused)")
            }
        }

        /// Programs that watch a service read `--json`, and nothing counts while it waits.
        @Test(arguments: [true, false]) func aStallShows(isStalled: Bool) throws {
            try with { cluster in
                let server = try server("stalled:\(isStalled ? 1 : 0)\r\n")
                defer { server.stop() }
                let shown = try run(cluster, "status --json --servers 127.0.0.1:\(server.port)")
                let status = try #require(
                    try JSONSerialization.jsonObject(with: Data(shown.output.utf8))
                        as? [String: Any])
                #expect(status["stalled"] as? Bool == isStalled)
                let servers = try #require(status["servers"] as? [[String: Any]])
                #expect(servers.map { $0["stalled"] as? Bool } == [isStalled])
            }
        }

        /// On two machines two servers may well have the same process number.
        @Test func serversAreToldApartByTheirAddresses() throws {
            try with { cluster in
                // Nobody's number, and nobody's addresses: there is nobody to be waited for.
                let primary = try server(
                    "pid:0\r\naddress:127.0.0.1:1\r\n"
                        + "backup_pid:0\r\nbackup_address:127.0.0.1:2\r\n")
                defer { primary.stop() }
                let stopped = try run(cluster, "stop --servers 127.0.0.1:\(primary.port)")
                #expect(stopped.status == 0, "\(stopped)")
                let words = "stopped 127.0.0.1:1 and 127.0.0.1:2 in "
                #expect(stopped.output.hasPrefix(words), "\(stopped)")
            }
        }

        @Test(arguments: [
            ("results", "*1\r\n*3\r\n:-1\r\n:2\r\n:3\r\n"),
            ("results", "*1\r\n*3\r\n:1\r\n:-2\r\n:3\r\n"), ("open tea?", ":-1\r\n"),
        ])
        func nonsenseIsNamed(command: String, answer: String) throws {
            try with { cluster in
                let server = try server("", ["VOTE.RESULTS": answer, "VOTE.OPEN": answer])
                defer { server.stop() }
                let seen = try run(cluster, "\(command) --servers 127.0.0.1:\(server.port)")
                #expect(seen.status == 70, "\(seen)")
                #expect(seen.error.contains("an answer that makes no sense"), "\(seen)")
            }
        }
    }
}
