import Foundation
import Testing

extension ProcessSuite {
    /// `pollctl backup` of a service that goes on, and `pollsrv --restore` of what it wrote.
    @Suite(.serialized) struct Backups {
        private typealias Outcome = (status: Int32, output: String, error: String)

        /// Runs a program to its end.
        private func run(
            _ cluster: Cluster, _ name: String, _ program: String, _ arguments: [String]
        ) throws -> Outcome {
            try cluster.start(name, program, arguments)
            let status = try cluster.waitForExit(name, within: 60)
            return (status, cluster.said(name, "out"), cluster.said(name, "err"))
        }

        private func kill(_ cluster: Cluster, _ name: String) throws {
            let process = try #require(cluster.processes[name])
            Foundation.kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }

        /// The flags of server `index` of the cluster.
        private func flags(_ cluster: Cluster, _ index: Int, _ more: [String]) -> [String] {
            let (own, peer) = (cluster.ports[index], cluster.ports[1 - index])
            return [
                index == 0 ? "--primary" : "--backup", "--listen", "127.0.0.1:\(own)", "--peer",
                "127.0.0.1:\(peer)", "--no-restart",
            ] + Cluster.quick + more
        }

        /// Asks the primary until it answers.
        private func ask(_ cluster: Cluster, _ line: String) throws -> RawClient.Reply {
            try cluster.eventually("an answer to \(line)", within: 60) {
                guard let leader = cluster.leader else { return nil }
                let reply = try? RawClient(cluster.port(of: leader)).ask(line)
                return reply?.code == "TRYAGAIN" ? nil : reply
            }
        }

        private static let confirmed = RawClient.Reply.text("Reservation confirmed")
        private static let call = "CALL 7 1 ROOM.RESERVE SA318 8:30-9:30 Monday"

        /// Everything that anybody was told before the command is in the copy: results of a running
        /// series of votes, a reservation, and the answer to a call, which stays executed once. So
        /// it is when both have been killed and started again from their disks.
        @Test func copiedUnderLoadAndRestored() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let plan = ["--voters", "2", "--votes", "100000", "--interval", "2ms"]
            try cluster.start("primary", "pollsrv", flags(cluster, 0, plan))
            try cluster.start("backup", "pollsrv", flags(cluster, 1, []))
            try cluster.waitForPair()
            for name in ["ann", "bob"] { try cluster.client(name) }
            #expect(try ask(cluster, Self.call) == Self.confirmed)
            _ = try cluster.eventually("twenty results", within: 60) {
                cluster.lines("ann").count >= 20 ? true : nil
            }
            let told = cluster.lines("ann")
            // The backup's address alone: it says who the primary is.
            let backup = "127.0.0.1:\(cluster.ports[1])"
            let made = try run(
                cluster, "copying", "pollctl", ["backup", "copy", "--servers", backup, "--json"])
            #expect(made.status == 0, "\(made)\n\(cluster.words)")
            #expect(made.output.contains("\"op\":"))
            let after = cluster.lines("ann").count
            _ = try cluster.eventually("results after the copy", within: 60) {
                cluster.lines("ann").count > after + 5 ? true : nil
            }
            #expect(try ask(cluster, "ROOM.RESERVE ME4494 8:30-9:30 Monday") == Self.confirmed)
            let old = try #require(cluster.leader?["service"])
            for name in ["ann", "bob", "primary", "backup"] { try kill(cluster, name) }
            let journal = try run(cluster, "checking", "pollctl", ["journal", "copy"])
            #expect(journal.status == 0, "\(journal)")

            let folders = ["--data", "data-0"]
            try cluster.start(
                "new-0", "pollsrv", flags(cluster, 0, folders + ["--restore", "copy"]))
            try cluster.start("new-1", "pollsrv", flags(cluster, 1, ["--data", "data-1"]))
            let leader = try cluster.waitForPair()
            #expect(leader["service"] != nil && leader["service"] != old, "a service of its own")
            let restored = try results(cluster)
            #expect(restored.count >= told.count)
            #expect(Array(restored.prefix(told.count)) == told)
            #expect(
                try ask(cluster, "CALL 8 1 ROOM.DELETE ME4494 8:30-9:30 Monday")
                    == .text("Reservation did not exist"))
            try expectTheSame(cluster, restored)

            for name in ["new-0", "new-1"] { try kill(cluster, name) }
            try cluster.start("again-1", "pollsrv", flags(cluster, 1, ["--data", "data-1"]))
            try cluster.start("again-0", "pollsrv", flags(cluster, 0, folders))
            try cluster.waitForPair()
            try expectTheSame(cluster, restored)
            #expect(
                try ask(cluster, "CALL 8 1 ROOM.DELETE ME4494 8:30-9:30 Monday")
                    == .text("Reservation did not exist"))
        }

        private func expectTheSame(_ cluster: Cluster, _ expected: [String]) throws {
            #expect(try results(cluster).starts(with: expected))
            let check = try ask(cluster, "ROOM.CHECK SA318")
            #expect(check == .text("SA318 8:30-9:30 Monday"))
            #expect(try ask(cluster, Self.call) == Self.confirmed)
        }

        /// As lines of a client's log.
        private func results(_ cluster: Cluster) throws -> [String] {
            guard case .list(let items) = try ask(cluster, "VOTE.RESULTS 1 COUNT 10000") else {
                throw Trouble("VOTE.RESULTS")
            }
            return items.map { item in
                guard case .list(let fields) = item else { return "\(item)" }
                return fields.map(\.description).joined(separator: " ")
            }
        }

        /// A state of many pieces goes to a learner, and to a file, while ballots are cast; the
        /// learner has the same as the primary then, and so has a service made from the file.
        @Test func largeStates() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            // A digest of so much takes a test's build a while.
            let hooks = ["--test-hooks", "--heartbeat", "1s"]
            try cluster.start("primary", "pollsrv", flags(cluster, 0, hooks))
            let client = try cluster.eventually("the primary") {
                let client = try? RawClient(cluster.ports[0], seconds: 30)
                return try client?.ask("VOTE.OPEN first ROLL open") == .number(1) ? client : nil
            }
            let question = String(repeating: "q", count: 4_000)
            let count = 1_000
            for _ in 0..<count / 100 {
                let line = "VOTE.OPEN \(question) ROLL open\r\n"
                try client.send(Array(String(repeating: line, count: 100).utf8))
                for _ in 0..<100 { #expect(try client.receive().code == "") }
            }
            // One that is killed in the middle leaves nothing behind that is in the other's way.
            try cluster.start("doomed", "pollsrv", flags(cluster, 1, hooks))
            usleep(200_000)
            try kill(cluster, "doomed")
            func hasBackup() throws -> Bool {
                guard case .list(let view) = try client.ask("VIEW") else { throw Trouble("VIEW") }
                return view.last != .null && view.last != .text("")
            }
            // It may have joined in time.
            _ = try cluster.eventually("the primary alone", within: 60) {
                try hasBackup() ? nil : true
            }
            try cluster.start("backup", "pollsrv", flags(cluster, 1, hooks))
            try cluster.start(
                "copying", "pollctl",
                ["backup", "copy", "--servers", "127.0.0.1:\(cluster.ports[0])"])
            var cast = 0
            let deadline = ContinuousClock.now + .seconds(60)
            var isJoined = false
            while !isJoined {
                guard ContinuousClock.now < deadline else {
                    throw Trouble("no backup has joined\n\(cluster.words)")
                }
                cast += 1
                #expect(try client.ask("VOTE.CAST 1 voter\(cast) yes") == .text("OK"))
                isJoined = try hasBackup()
            }
            #expect(try cluster.waitForExit("copying") == 0, "\(cluster.words)")
            _ = try cluster.eventually("the same on both", within: 60) {
                let digests = try cluster.ports.map { try cluster.info($0, seconds: 30)["digest"] }
                return digests[0] != nil && digests[0] == digests[1] ? true : nil
            }
            let size = try #require(
                FileManager.default.contents(atPath: cluster.folder.path + "/copy")?.count)
            #expect(size > count * 4_000)

            for name in ["primary", "backup"] { try kill(cluster, name) }
            try cluster.start(
                "new", "pollsrv", flags(cluster, 0, ["--heartbeat", "1s", "--restore", "copy"]))
            let reply = try ask(cluster, "VOTE.LIST FROM \(count + 1) COUNT 5")
            #expect(
                reply
                    == .list([
                        .list([.number(count + 1), .text(question), .text("open"), .number(0)])
                    ]))
        }

        /// What a connection that fetches a copy is answered, by the letter of protocol.md.
        @Test func copyCommands() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.start("primary", "pollsrv", flags(cluster, 0, []))
            try cluster.start("backup", "pollsrv", flags(cluster, 1, []))
            try cluster.waitForPair()
            let (one, other) = try (RawClient(cluster.ports[0]), RawClient(cluster.ports[0]))
            #expect(try one.ask("COPY READ 0").code == "NOCOPY")
            #expect(try one.ask("COPY").code == "ERR")
            #expect(try one.ask("COPY READ x").code == "ERR")
            let leader = try #require(cluster.leader)
            guard case .list(let fields) = try one.ask("COPY BEGIN") else {
                throw Trouble("COPY BEGIN")
            }
            #expect(fields.first == .text(leader["service"] ?? ""))
            #expect(fields.count == 3)
            #expect(try other.ask("COPY BEGIN").code == "BUSY")
            #expect(try other.ask("COPY READ 0").code == "NOCOPY")
            let piece = try cluster.eventually("the copy") {
                let reply = try one.ask("COPY READ 0")
                return reply.code == "TRYAGAIN" ? nil : reply
            }
            #expect(piece.description.hasPrefix("PSRVCKPT"))
            #expect(try one.ask("COPY READ 100000000") == .text(""))
            #expect(try one.ask("COPY END") == .text("OK"))
            #expect(try one.ask("COPY READ 0").code == "NOCOPY")
            _ = try cluster.eventually("a copy after COPY END") {
                if case .list = try other.ask("COPY BEGIN") { true } else { nil }
            }
            #expect(try other.ask("RESET") == .text("RESET"))
            #expect(try other.ask("COPY READ 0").code == "NOCOPY")
            // A connection's copy goes with it.
            var leaving: RawClient? = try RawClient(cluster.ports[0])
            // The one that RESET gave up may still be in the making.
            _ = try cluster.eventually("a copy after RESET") {
                if case .list = try leaving?.ask("COPY BEGIN") { true } else { nil }
            }
            #expect(try one.ask("COPY BEGIN").code == "BUSY")
            leaving = nil
            _ = try cluster.eventually("a copy after that connection's") {
                if case .list = try one.ask("COPY BEGIN") { true } else { nil }
            }
            let redirection = RawClient.Reply.error("REDIRECT 127.0.0.1:\(cluster.ports[0])")
            #expect(try RawClient(cluster.ports[1]).ask("COPY BEGIN") == redirection)
            // The backup's sending on is not the reason.
            let seen = try run(
                cluster, "second", "pollctl",
                ["backup", "second", "--servers", cluster.servers, "--timeout", "500ms"])
            #expect(seen.status == 69 && !seen.error.contains("is pollsrv running"), "\(seen)")
            #expect(seen.error.contains("another copy is being made"), "\(seen)")
        }

        /// What nothing has happened in cannot be gone on with, and that is said.
        @Test func anEmptyServiceIsNotRestored() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.start("primary", "pollsrv", flags(cluster, 0, []))
            _ = try cluster.eventually("a primary") { cluster.leader }
            let copy = try run(
                cluster, "copy", "pollctl",
                ["backup", "empty", "--servers", "127.0.0.1:\(cluster.ports[0])"])
            #expect(copy.status == 0, "\(copy)")
            let new = try run(
                cluster, "new", "pollsrv",
                [
                    "--primary", "--restore", "empty", "--listen", "127.0.0.1:0", "--peer",
                    "127.0.0.1:1",
                ])
            #expect(new.status == 74 && new.error.contains("nothing has happened"), "\(new)")
        }

        /// A primary that cannot know whether it still leads copies nothing: another may have answered
        /// for more since.
        @Test func copyWaitsForTheView() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            for index in 0...1 {
                let name = index == 0 ? "primary" : "backup"
                try cluster.start(name, "pollsrv", flags(cluster, index, ["--test-hooks"]))
            }
            try cluster.waitForPair()
            let client = try RawClient(cluster.ports[0], seconds: 1)
            for port in cluster.ports {
                #expect(try RawClient(port).ask("LINK CUT SILENT") == .text("OK"))
            }
            try client.send(Array("COPY BEGIN\r\n".utf8))
            let early = try? client.receive()
            #expect(early == nil, "answered while cut off: \(String(describing: early))")
            for port in cluster.ports {
                #expect(try RawClient(port).ask("LINK HEAL") == .text("OK"))
            }
            let reply = try cluster.eventually("an answer") { try? client.receive() }
            if case .list(let fields) = reply {
                #expect(fields.count == 3)
            } else {
                #expect(["TRYAGAIN", "REDIRECT"].contains(reply.code), "\(reply)")
            }
        }

        /// Each with its exit code and the reason, and nothing is changed.
        @Test func refusals() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.start("primary", "pollsrv", flags(cluster, 0, ["--data", "used"]))
            #expect(try ask(cluster, Self.call) == Self.confirmed)
            let servers = ["--servers", cluster.servers]
            #expect(try run(cluster, "copy", "pollctl", ["backup", "copy"] + servers).status == 0)
            let path = cluster.folder.path + "/copy"
            let copy = try #require(FileManager.default.contents(atPath: path))

            let again = try run(cluster, "again", "pollctl", ["backup", "copy"] + servers)
            #expect(again.status == 74 && again.error.contains("--force"), "\(again)")
            let forced = ["backup", "copy", "--force"] + servers
            #expect(try run(cluster, "forced", "pollctl", forced).status == 0)
            // By force that file alone, and no other beside it.
            let beside = cluster.folder.path + "/copy.new"
            #expect(FileManager.default.createFile(atPath: beside, contents: Data("mine".utf8)))
            #expect(try run(cluster, "beside", "pollctl", forced).status == 0)
            #expect(FileManager.default.contents(atPath: beside) == Data("mine".utf8))
            let program = Cluster.binaries.appending(path: "pollctl").path
            let narrow = try run(
                cluster, "narrow", "/bin/sh",
                [
                    "-c",
                    "(ulimit -f 0; exec \(program) backup narrow-copy \"$@\") 2>&1 | cat", "sh",
                ] + servers)
            #expect(narrow.output.contains("File too large"), "\(narrow)")
            let names = try FileManager.default.contentsOfDirectory(atPath: cluster.folder.path)
            #expect(names.filter { $0.hasPrefix("narrow-copy") } == [])
            // Not even by force anything but a file: it would be gone, and the copy of no use to
            // whoever reads there.
            let pipe = cluster.folder.path + "/pipe"
            #expect(mkfifo(pipe, 0o600) == 0)
            try FileManager.default.createSymbolicLink(
                atPath: "\(pipe)-link", withDestinationPath: pipe)
            for name in ["pipe", "pipe-link"] {
                let special = try run(
                    cluster, name, "pollctl", ["backup", name, "--force"] + servers)
                #expect(special.status == 74, "\(special)")
                #expect(special.error.contains("\(name) is no plain file"), "\(special)")
            }
            var status = stat()
            #expect(lstat(pipe, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
            #expect(lstat("\(pipe)-link", &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
            let nowhere = try run(cluster, "nowhere", "pollctl", ["backup", "no/copy"] + servers)
            #expect(nowhere.status == 74 && nowhere.error.contains("no/copy"), "\(nowhere)")
            let nobody = try run(
                cluster, "nobody", "pollctl",
                ["backup", "x", "--servers", "127.0.0.1:1", "--timeout", "300ms"])
            #expect(nobody.status == 69, "\(nobody)")

            var rotten = copy
            rotten[rotten.count - 9] ^= 1
            try rotten.write(to: URL(filePath: cluster.folder.path + "/rotten"))
            try copy.dropLast().write(to: URL(filePath: cluster.folder.path + "/short"))
            try Data("a shopping list".utf8)
                .write(to: URL(filePath: cluster.folder.path + "/foreign"))
            for (name, word) in [
                ("rotten", "offset 120"), ("short", "offset"), ("foreign", "copy"),
            ] {
                let seen = try run(cluster, "see-\(name)", "pollctl", ["journal", name])
                #expect(seen.status == 74 && seen.error.contains(word), "\(seen)")
            }

            let cases: [(flags: [String], status: Int32, word: String)] = [
                (["--backup", "--restore", "copy"], 64, "--primary"),
                (["--join", "127.0.0.1:1", "--restore", "copy"], 64, "--primary"),
                (["--primary", "--restore", "copy", "--rooms", "list"], 64, "--rooms"),
                (["--primary", "--restore", "missing"], 74, "missing"),
                (["--primary", "--restore", "rotten"], 74, "offset 120"),
                (["--primary", "--restore", "short"], 74, "short"),
                (["--primary", "--restore", "foreign"], 74, "pollctl backup"),
                (["--primary", "--restore", "copy", "--data", "used"], 74, "in use"),
                (["--primary", "--restore", "copy", "--data", "fresh"], 69, "is running"),
            ]
            try Data("A\nB\n".utf8).write(to: URL(filePath: cluster.folder.path + "/list"))
            for (number, item) in cases.enumerated() {
                let addresses = [
                    "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:\(cluster.ports[0])",
                ]
                let own = item.flags.contains("--join") ? Array(addresses.prefix(2)) : addresses
                let seen = try run(cluster, "case-\(number)", "pollsrv", item.flags + own)
                #expect(seen.status == item.status, "\(item) \(seen)")
                #expect(seen.error.contains(item.word), "\(item) \(seen)")
            }
            // A folder that is not blank, when nobody uses it either; its journal stays as it is.
            try kill(cluster, "primary")
            let seen = try run(
                cluster, "not-blank", "pollsrv",
                flags(cluster, 0, ["--data", "used", "--restore", "copy"]))
            #expect(seen.status == 74 && seen.error.contains("not blank"), "\(seen)")
            try cluster.start("resumed", "pollsrv", flags(cluster, 0, ["--data", "used"]))
            let check = try ask(cluster, "ROOM.CHECK SA318")
            #expect(check == .text("SA318 8:30-9:30 Monday"))
            #expect(FileManager.default.contents(atPath: path)?.count == copy.count)
        }

        /// Ended by somebody, or by the disk, before the copy is durable: nothing is left of it.
        @Test(
            .enabled(if: FaultDisk.compiler != nil, "it takes a C compiler"),
            arguments: [
                ("sleep:5000", Int32(130), "nothing was written"),
                ("\(FaultDisk.inputOutput)", Int32(74), "fdatasync"),
            ])
        func noHalfACopy(fault: String, status: Int32, word: String) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.start("primary", "pollsrv", flags(cluster, 0, []))
            _ = try cluster.eventually("the primary") { cluster.leader }
            let folder = cluster.folder.path + "/copies"
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: false)
            let disk = try FaultDisk(folder: folder, home: cluster.folder)
            try disk.set(["fdatasync * 0 0 \(fault)"])
            try cluster.start(
                "copying", "pollctl", ["backup", folder + "/copy", "--servers", cluster.servers],
                environment: disk.environment)
            _ = try cluster.eventually("the sync") { disk.hits.isEmpty ? nil : true }
            #expect(disk.hits.first?.hasPrefix("fdatasync ") == true, "\(disk.hits)")
            cluster.processes["copying"]?.interrupt()
            #expect(try cluster.waitForExit("copying") == status, "\(cluster.words)")
            #expect(cluster.said("copying", "err").contains(word), "\(cluster.words)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
        }

        /// Whoever was in the old service takes the restored one for another: it goes on by itself
        /// only if its log says the same.
        @Test func clientsOfTheOldService() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let plan = ["--voters", "1", "--votes", "100000", "--interval", "5ms"]
            try cluster.start("primary", "pollsrv", flags(cluster, 0, plan))
            try cluster.client("ann")
            _ = try cluster.eventually("results", within: 60) {
                cluster.lines("ann").count >= 5 ? true : nil
            }
            let made = try run(
                cluster, "copying", "pollctl",
                ["backup", "copy", "--servers", "127.0.0.1:\(cluster.ports[0])"])
            #expect(made.status == 0, "\(made)")
            let early = cluster.lines("ann").prefix(5)
            let after = cluster.lines("ann").count
            _ = try cluster.eventually("results after the copy", within: 60) {
                cluster.lines("ann").count > after + 50 ? true : nil
            }
            try kill(cluster, "primary")
            // With nobody to vote the restored service stays behind ann's log.
            try cluster.start("new", "pollsrv", flags(cluster, 0, ["--restore", "copy"]))
            _ = try cluster.eventually("ann's word on the other service", within: 30) {
                cluster.said("ann", "err").contains("another service") ? true : nil
            }
            try kill(cluster, "ann")
            let lines = cluster.lines("ann")
            try cluster.client("ann")
            #expect(try cluster.waitForExit("ann") == 74, "\(cluster.words)")
            #expect(cluster.said("ann", "err").contains("use another --log"))
            #expect(cluster.lines("ann") == lines)
            // A log that is not ahead of the copy is one of the restored service, too.
            let text = early.joined(separator: "\n") + "\n"
            try Data(text.utf8).write(to: URL(filePath: cluster.log("bob")))
            try cluster.client("bob", votes: early.count + 1)
            #expect(try cluster.waitForExit("bob", within: 60) == 0, "\(cluster.words)")
            #expect(cluster.lines("bob").starts(with: early))
            // One that differs in the middle is not, though its last line is the same.
            var mixed = Array(early)
            mixed[2] = "3 8 8"
            try Data((mixed.joined(separator: "\n") + "\n").utf8)
                .write(to: URL(filePath: cluster.log("cem")))
            try cluster.client("cem", votes: 100)
            #expect(try cluster.waitForExit("cem") == 74, "\(cluster.words)")
            #expect(cluster.lines("cem") == mixed)
        }
    }
}
