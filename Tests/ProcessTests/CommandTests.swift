import Foundation
import Testing

private let hasRedisCLI = ["/usr/bin/redis-cli", "/usr/local/bin/redis-cli"].contains {
    FileManager.default.isExecutableFile(atPath: $0)
}

extension ProcessSuite {
    @Suite(.serialized) struct Commands {
        private func withPair(_ body: (Cluster, RawClient, RawClient) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary()
            try cluster.backup()
            try cluster.waitForPair()
            try body(cluster, RawClient(cluster.ports[0]), RawClient(cluster.ports[1]))
        }

        /// Their numbers would go to a socket, and messages into that.
        @Test func closedDescriptorsAreOpenedFirst() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let port = cluster.ports[0]
            let program = Cluster.binaries.appending(path: "pollsrv").path
            let flags = "--primary --listen 127.0.0.1:\(port) --peer 127.0.0.1:1 --no-restart"
            let server = try cluster.start(
                "primary", "/bin/sh", ["-c", "exec \(program) \(flags) <&- >&- 2>&-"])
            let pid = server.processIdentifier
            _ = try cluster.eventually("an answer") {
                (try? RawClient(port).ask("PING")) == .text("PONG") ? true : nil
            }
            for number in 0...2 {
                let target = try FileManager.default.destinationOfSymbolicLink(
                    atPath: "/proc/\(pid)/fd/\(number)")
                #expect(target == "/dev/null")
            }
        }

        @Test func ballots() throws {
            try withPair { (cluster, primary, backup) throws in
                #expect(try primary.ask("vote.join ann") == .text("OK"))
                let other = try RawClient(cluster.ports[0])
                #expect(try other.ask("VOTE.JOIN ann").code == "NAMEINUSE")
                #expect(try other.ask("VOTE.JOIN bob") == .text("OK"))
                #expect(try primary.ask("VOTE.OPEN \"Is it so?\"") == .number(1))
                #expect(try primary.ask("VOTE.CAST 2 ann yes").code == "NOSUCHVOTE")
                #expect(try primary.ask("VOTE.CAST 1 eve yes").code == "NOTONROLL")
                #expect(try primary.ask("VOTE.CAST 1 ann maybe").code == "ERR")
                #expect(try primary.ask("VOTE.RESULT 1") == .null)
                #expect(try primary.ask("VOTE.CAST 1 ann yes") == .text("OK"))
                #expect(try primary.ask("VOTE.CAST 1 ann YES") == .text("OK"))
                #expect(try primary.ask("VOTE.CAST 1 ann no").code == "ALREADYVOTED")
                #expect(try other.ask("VOTE.CAST 1 bob no") == .text("OK"))
                let result = RawClient.Reply.list([.number(1), .number(1), .number(1)])
                #expect(try primary.ask("VOTE.RESULT 1") == result)
                #expect(try primary.ask("VOTE.RESULTS 1 COUNT 5") == .list([result]))
                #expect(try primary.ask("VOTE.CAST 1 ann yes") == .text("OK"))
                #expect(try primary.ask("VOTE.CAST 1 ann no").code == "ALREADYVOTED")
                #expect(try primary.ask("VOTE.CAST 1 eve no").code == "CLOSED")
                #expect(
                    try backup.ask("VOTE.OPEN x")
                        == .error("REDIRECT 127.0.0.1:\(cluster.ports[0])"))
                #expect(try backup.ask("VOTE.CAST 1 ann yes") == .text("HELD"))
                let view = try backup.ask("VIEW")
                let same = try primary.ask("VIEW")
                #expect(view == same)
            }
        }

        /// A vote waits for nobody who is gone; who is there stays on the roll.
        @Test func votersWhoStayAwayAreTakenOff() throws {
            try withPair { (cluster, primary, _) throws in
                var leaving: RawClient? = try RawClient(cluster.ports[0])
                #expect(try leaving?.ask("VOTE.JOIN bob") == .text("OK"))
                #expect(try primary.ask("VOTE.JOIN ann") == .text("OK"))
                leaving = nil
                #expect(try primary.ask("VOTE.OPEN first") == .number(1))
                #expect(try primary.ask("VOTE.CAST 1 ann yes") == .text("OK"))
                #expect(try primary.ask("VOTE.RESULT 1") == .null)
                let result = RawClient.Reply.list([.number(1), .number(1), .number(0)])
                _ = try cluster.eventually("the vote to close without bob", within: 60) {
                    try primary.ask("VOTE.RESULT 1") == result ? true : nil
                }
                #expect(try primary.ask("VOTE.OPEN second") == .number(2))
                #expect(try primary.ask("VOTE.CAST 2 bob yes").code == "NOTONROLL")
                #expect(try primary.ask("VOTE.RESULT 2") == .null)
                #expect(try primary.ask("VOTE.CAST 2 ann yes") == .text("OK"))
            }
        }

        @Test func callsAreExecutedOnce() throws {
            try withPair { (_, primary, _) throws in
                #expect(try primary.ask("CALL 77 2 VOTE.OPEN x").code == "NOSESSION")
                #expect(try primary.ask("CALL 77 1 VOTE.OPEN x ROLL open") == .number(1))
                #expect(try primary.ask("CALL 77 1 VOTE.OPEN x ROLL open") == .number(1))
                #expect(try primary.ask("CALL 77 3 VOTE.OPEN x") == .error("SEQUENCE expected 2"))
                #expect(try primary.ask("CALL 77 2 VOTE.OPEN y ROLL open") == .number(2))
                #expect(try primary.ask("CALL 77 3 NONSENSE").code == "ERR")
                let words = [
                    "ann", "bob", "98765432109876543210", "0c2d8a4e-6b1f-4c07-9c55-3f1e2d4b5a69",
                    String(repeating: "x", count: 64),
                ]
                for (index, name) in words.enumerated() {
                    #expect(try primary.ask("CALL \(name) 2 VOTE.OPEN z").code == "NOSESSION")
                    for _ in 0..<2 {
                        #expect(
                            try primary.ask("CALL \(name) 1 VOTE.OPEN z ROLL open")
                                == .number(3 + index))
                    }
                }
                let long = String(repeating: "x", count: 65)
                #expect(try primary.ask("CALL \(long) 1 VOTE.OPEN z").code == "ERR")
            }
        }

        @Test func pushes() throws {
            try withPair { (_, primary, _) throws in
                guard case .list(let hello) = try primary.ask("HELLO 3 SETNAME test") else {
                    throw Trouble("HELLO")
                }
                #expect(hello.contains(.text("pollsrv")))
                #expect(try primary.ask("VOTE.JOIN ann FROM 1") == .text("OK"))
                #expect(try primary.ask("VOTE.OPEN x") == .number(1))
                guard case .push(let asked) = try primary.receive() else { throw Trouble("vote") }
                #expect(Array(asked.prefix(3)) == [.text("vote"), .number(1), .text("x")])
                try primary.send(Array("VOTE.CAST 1 ann yes\r\n".utf8))
                var seen: [RawClient.Reply] = [try primary.receive(), try primary.receive()]
                seen.removeAll { $0 == .text("OK") }
                guard case .push(let result) = seen.first else { throw Trouble("\(seen)") }
                #expect(
                    Array(result.prefix(4)) == [
                        .text("result"), .number(1), .number(1), .number(0),
                    ])
            }
        }

        @Test(arguments: [
            ("oversized bulk", "*1\r\n$99999999\r\n"), ("not a bulk", "*1\r\n:5\r\n"),
            ("negative bulk", "*1\r\n$-1\r\n"), ("bulk of 64 KiB", "*1\r\n$65536\r\n"),
            ("99 arguments", "*99\r\n"), ("33 arguments", "*33\r\n"), ("no number", "*x\r\n"),
            ("bulk too long for its length", "*1\r\n$3\r\nabcde\r\n"),
            ("open quotes", "PING \"\r\n"),
            ("endless line", String(repeating: "x", count: 70_000)),
        ])
        func malformedInputEndsOneConnectionOnly(what: String, input: String) throws {
            try withPair { (cluster, good, _) throws in
                let bad = try RawClient(cluster.ports[0])
                #expect(try bad.ask("PING") == .text("PONG"))
                // The other one is in the middle of a command.
                try good.send(Array("*2\r\n$4\r\nECHO\r\n$5\r\nhe".utf8))
                try bad.send(Array(input.utf8))
                guard case .error(let text) = try bad.receive() else { throw Trouble("no error") }
                #expect(text.hasPrefix("ERR protocol error: "), "\(what)")
                #expect(bad.isClosed(), "\(what)")
                #expect(try good.ask("llo") == .text("hello"))
                #expect(try good.ask("PING") == .text("PONG"))
            }
        }

        @Test func clientThatNeverReadsIsDropped() throws {
            try withPair { (cluster, good, _) throws in
                let deaf = try RawClient(cluster.ports[0])
                let word = String(repeating: "x", count: 60_000)
                let echo = Array("*2\r\n$4\r\nECHO\r\n$60000\r\n\(word)\r\n".utf8)
                var isDropped = false
                // 60 MB of replies: far more than its buffer and the system's may hold.
                for _ in 0..<1_000 where !isDropped {
                    do {
                        try deaf.send(echo)
                    } catch {
                        isDropped = true
                    }
                }
                #expect(isDropped)
                #expect(try good.ask("PING") == .text("PONG"))
                _ = try cluster.eventually("a word about it") {
                    cluster.said("primary", "err").contains("dropped") ? true : nil
                }
                let size = try cluster.info(cluster.ports[0])["rss_kib"].flatMap { Int($0) } ?? 0
                #expect(size < 64 << 10, "\(size) KiB")
            }
        }

        @Test func wrongCommandsAreNamed() throws {
            try withPair { (_, client, _) throws in
                #expect(try client.ask("NONSENSE") == .error("ERR unknown command 'NONSENSE'"))
                #expect(try client.ask("VOTE.CAST 1").code == "ERR")
                #expect(try client.ask("VOTE.JOIN a b c").code == "ERR")
                #expect(try client.ask("LINK CUT").code == "NOHOOKS")
                #expect(try client.ask("WITNESS grant 1").code == "ERR")
                #expect(try client.ask("PEER hello 99").code == "PEER")
                #expect(client.isClosed())
            }
        }

        @Test(.enabled(if: hasRedisCLI, "redis-cli is not installed"))
        func stockClient() throws {
            try withPair { (cluster, _, _) throws in
                // One session, as at its prompt.
                let lines = [
                    "VOTE.JOIN ann", "VOTE.OPEN \"a question\"", "VOTE.CAST 1 ann yes",
                    "VOTE.RESULT 1", "VOTE.CAST 1 ann no", "PING",
                ]
                try cluster.start(
                    "redis", "/usr/bin/env", ["redis-cli", "-p", "\(cluster.ports[0])"],
                    input: lines.map { $0 + "\n" }.joined())
                #expect(try cluster.waitForExit("redis") == 0)
                let said = cluster.said("redis", "out").split(separator: "\n").map(String.init)
                #expect(Array(said.prefix(6)) == ["OK", "1", "OK", "1", "1", "0"])
                #expect(said.dropFirst(6).first?.hasPrefix("ALREADYVOTED") == true)
                #expect(said.last == "PONG")
                try cluster.start(
                    "redis3", "/usr/bin/env",
                    ["redis-cli", "-3", "-p", "\(cluster.ports[0])", "HELLO", "3"])
                #expect(try cluster.waitForExit("redis3") == 0)
                #expect(cluster.said("redis3", "out").contains("pollsrv"))
            }
        }

        @Test func programsSayWhatIsWrong() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            func ends(_ program: String, _ arguments: [String], _ code: Int32, _ words: String)
                throws
            {
                let name = "wrong-\(UInt32.random(in: 0 ... .max))"
                try cluster.start(name, program, arguments)
                #expect(try cluster.waitForExit(name) == code, "\(program) \(arguments)")
                let text = cluster.said(name, "err")
                #expect(text.contains(words), "\(program) \(arguments) says: \(text)")
            }
            try cluster.primary(Cluster.quick + ["--no-restart"])
            _ = try cluster.eventually("the primary") { cluster.leader }
            let port = cluster.ports[0]
            let own = "127.0.0.1:\(port)"
            try ends("pollsrv", ["--primary", "--listen", own], 74, own)
            try ends("pollsrv", ["--primary", "--heartbaet", "1s"], 64, "--heartbeat")
            try ends("pollsrv", ["--backup", "--misses", "0"], 64, "--misses")
            try ends("pollsrv", ["--primary", "--questions", "/none"], 74, "/none")
            let questions = cluster.folder.appending(path: "many").path
            let line = String(repeating: "q", count: 4_000) + "\n"
            try Data(String(repeating: line, count: 300).utf8).write(
                to: URL(filePath: questions))
            try ends("pollsrv", ["--primary", "--questions", questions], 64, "1200000 bytes")
            try ends("pollsrv", [], 64, "--primary")
            try ends("pollclient", ["--vote", "perhaps"], 64, "yes, no, random, ask")
            try ends("pollclient", ["--log", "/none/x.log"], 74, "/none/x.log")
            for program in ["pollclient", "reserveclient", "pollctl"] {
                let path = Cluster.binaries.appending(path: program).path
                let line = "exec \(path) --help >/dev/full"
                try ends("/bin/sh", ["-c", line], 74, "write standard output: No space")
            }
            try ends("pollctl", ["statsu"], 64, "status")
            try ends("pollctl", ["promote"], 64, "--force")
            try ends(
                "pollctl", ["bench", "--data", "--servers", "127.0.0.1:1"], 64,
                "--data starts pairs of its own")
            try ends(
                "pollctl", ["--servers", "127.0.0.1:1", "--timeout", "200ms", "status"], 69,
                "127.0.0.1:1")
        }
    }
}
