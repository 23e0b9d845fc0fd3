import Foundation
import Testing

extension ProcessSuite {
    /// Standard input of the clients that does not end as it should.
    @Suite(.serialized) struct Inputs {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        /// Waits until a client asks for a line of it, and ends the client.
        private func terminate(_ cluster: Cluster, _ client: Process, at prompt: String) throws {
            _ = try cluster.eventually("a prompt") {
                cluster.said("client", "out").contains(prompt) ? true : nil
            }
            client.terminate()
            #expect(try cluster.waitForExit("client") == 0, "\(cluster.words)")
        }

        private func zeros() throws -> FileHandle {
            try #require(FileHandle(forReadingAtPath: "/dev/zero"))
        }

        /// No line end comes, and epoll does not take such a file.
        @Test func endlessCommandsAreInterrupted() throws {
            try with { cluster in
                let client = try cluster.start(
                    "client", "reserveclient", ["--servers", cluster.servers], from: zeros())
                try terminate(cluster, client, at: "Next command: ")
            }
        }

        @Test func endlessAnswersAreInterrupted() throws {
            try with { cluster in
                try cluster.primary(
                    Cluster.quick + ["--no-restart", "--voters", "1", "--votes", "1"])
                let client = try cluster.start(
                    "client", "pollclient",
                    [
                        "--servers", cluster.servers, "--name", "ann", "--vote", "ask", "--log",
                        cluster.log("ann"),
                    ], from: zeros())
                try terminate(cluster, client, at: "(yes/no)? ")
            }
        }

        /// Lines come faster than they are answered: what nobody can take yet is not read.
        @Test func inputDoesNotPileUp() throws {
            try with { cluster in
                var ends: [Int32] = [-1, -1]
                let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
                #expect(socketpair(AF_UNIX, type, 0, &ends) == 0)
                // Those before `days` take many turns; nobody answers that one.
                let before = String(repeating: "x\n", count: 1_280)
                let after = String(repeating: "x\n", count: 15_000)
                let text = Array("\(before)days\n\(after)".utf8)
                #expect(write(ends[1], text, text.count) == text.count)
                let input = FileHandle(fileDescriptor: ends[0], closeOnDealloc: true)
                try cluster.start(
                    "client", "reserveclient", ["--servers", cluster.servers], from: input)
                _ = try cluster.eventually("a command that waits") {
                    cluster.said("client", "err").contains("no server can answer") ? true : nil
                }
                close(ends[1])
                let left = try input.readToEnd()?.count ?? 0
                // Two reads of 4,096 bytes.
                #expect(left >= text.count - 8_192, "\(left) of \(text.count)")
            }
        }

        @Test func aFolderIsNoInput() throws {
            try with { cluster in
                let program = Cluster.binaries.appending(path: "reserveclient").path
                let line = "exec \(program) --servers \(cluster.servers) <."
                try cluster.start("client", "/bin/sh", ["-c", line])
                #expect(try cluster.waitForExit("client") == 74)
                let words = "reserveclient: read standard input: Is a directory\n"
                #expect(cluster.said("client", "err") == words)
                #expect(cluster.said("client", "out") == "Next command: ")
            }
        }

        /// What was read of the last line may be another command than the one that was meant.
        @Test func halfALineIsNotCarriedOut() throws {
            try with { cluster in
                let server = try FakeServer { _, request in
                    request.contains("ROOM.DAYS") ? "$6\r\nMonday\r\n" : "$1\r\nA\r\n"
                }
                defer { server.stop() }
                var ends: [Int32] = [-1, -1]
                let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
                #expect(socketpair(AF_UNIX, type, 0, &ends) == 0)
                // Closed with this unread, our end makes the next read at the other fail.
                #expect(write(ends[0], "x", 1) == 1)
                try cluster.start(
                    "client", "reserveclient", ["--servers", "127.0.0.1:\(server.port)"],
                    from: FileHandle(fileDescriptor: ends[0], closeOnDealloc: true))
                #expect(write(ends[1], "days\nrooms", 10) == 10)
                let answered = "Next command: (From servers): Monday\nNext command: "
                _ = try cluster.eventually("an answer") {
                    cluster.said("client", "out") == answered ? true : nil
                }
                close(ends[1])
                #expect(try cluster.waitForExit("client") == 74)
                let words = "reserveclient: read standard input: Connection reset by peer\n"
                #expect(cluster.said("client", "err") == words)
                #expect(cluster.said("client", "out") == answered)
            }
        }

        /// Nobody answers its questions any more: no vote waits for it, and it goes on logging.
        @Test func aVoterWithoutInput() throws {
            try with { cluster in
                try cluster.primary(Cluster.quick + ["--no-restart", "--votes", "0"])
                try cluster.client("ann", ["--vote", "yes"])
                try cluster.client("bob", votes: 2, ["--vote", "ask"])
                _ = try cluster.eventually("both") {
                    (try? cluster.info(cluster.ports[0], seconds: 1)["voters"]) == "2" ? true : nil
                }
                for id in 1...2 {
                    #expect(try RawClient(cluster.ports[0]).ask("VOTE.OPEN x") == .number(id))
                    _ = try cluster.eventually("the result of vote \(id)") {
                        cluster.lines("ann").count == id ? true : nil
                    }
                }
                #expect(try cluster.waitForExit("bob") == 0)
                #expect(cluster.lines("bob") == ["1 1 0", "2 1 0"])
            }
        }
    }
}
