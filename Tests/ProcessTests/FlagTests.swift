import Foundation
import Testing

extension ProcessSuite {
    /// What the programs' flags do, as docs/flags.md and `--help` have it.
    @Suite(.serialized) struct Flags {
        /// One that stands still for a moment is not taken for dead.
        private static let flags = ["--heartbeat", "100ms", "--misses", "30", "--no-restart"]
        private static let common: Set<String> = ["--help", "--version", "--quiet", "--verbose"]

        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private func file(_ cluster: Cluster, _ name: String, _ text: String) throws -> String {
            let url = cluster.folder.appending(path: name)
            try Data(text.utf8).write(to: url)
            return url.path
        }

        // MARK: What is said of them

        /// The flags that a text speaks of.
        private func named(_ text: String) -> Set<String> {
            let words = text.split { !$0.isLetter && $0 != "-" }.map(String.init)
            return Set(words.filter { $0.hasPrefix("--") && $0.contains(where: \.isLetter) })
        }

        /// The flags of `--help`, a line for each; before some stands a letter, as in `-h, --help`.
        private func listed(_ help: String) -> Set<String> {
            let lines = help.split(separator: "\n").filter { $0.hasPrefix("  -") }
            let words = lines.flatMap { $0.split(separator: " ").prefix(2).map(String.init) }
            return Set(words.filter { $0.hasPrefix("--") })
        }

        private func help(_ program: String) throws -> String {
            var text = ""
            try with { cluster in
                for flag in ["--help", "-h"] {
                    let seen = try cluster.run(program, [flag])
                    #expect(seen.status == 0 && seen.error.isEmpty, "\(seen)")
                    #expect(text.isEmpty || seen.output == text)
                    text = seen.output
                }
            }
            return text
        }

        private func document(_ path: String) throws -> String {
            let folder = URL(filePath: #filePath).deletingLastPathComponent()
                .deletingLastPathComponent().deletingLastPathComponent()
            return try String(contentsOf: folder.appending(path: path), encoding: .utf8)
        }

        @Test(arguments: ["pollsrv", "pollclient", "reserveclient", "pollctl", "pollsim"])
        func versionAndHelp(program: String) throws {
            try with { cluster in
                let seen = try cluster.run(program, ["--version"])
                #expect(seen.status == 0 && seen.error.isEmpty, "\(seen)")
                let words = seen.output.split(whereSeparator: \.isWhitespace).map(String.init)
                try #require(words.count == 2, "\(seen)")
                #expect(words[0] == program)
                #expect(words[1].split(separator: ".").compactMap { Int($0) }.count == 3, "\(seen)")
            }
            let text = try help(program)
            #expect(text.contains("\nusage: \(program) "), "\(text)")
            #expect(text.contains("\nexample: \(program) "), "\(text)")
            #expect(listed(text).isSuperset(of: Self.common), "\(text)")
        }

        /// docs/flags.md names each flag in a paragraph that begins with the program's name.
        @Test(arguments: ["pollsrv` – ", "pollclient`: ", "reserveclient`: "])
        func documentNamesTheFlags(start: String) throws {
            let program = String(start.prefix { $0.isLetter })
            let parts = try document("docs/flags.md").components(separatedBy: "\n`\(start)")
            try #require(parts.count == 2)
            let ends = ["\n`pollclient`: ", "\n`reserveclient`: ", "\nA client log has "]
            let paragraph = ends.reduce(parts[1]) { text, end in
                text.components(separatedBy: end)[0]
            }
            let shown = listed(try help(program)).subtracting(Self.common).sorted()
            let told = named(paragraph).subtracting(Self.common).sorted()
            #expect(told.count >= 3)
            #expect(told == shown)
        }

        /// Each would wait for itself, or take a flag for the value of another.
        @Test(arguments: [
            ("--primary --listen 127.0.0.1:7001 --peer 127.0.0.1:7001", "--peer says where"),
            ("--listen 127.0.0.1:7003 --join 127.0.0.1:7003", "--join says where"),
            ("--backup --data --test-hooks", "--data needs a value"),
            ("--PRIMARY", "did you mean --primary?"),
        ])
        func mistakesAreNamed(flags: String, words: String) throws {
            try with { cluster in
                let arguments = flags.split(separator: " ").map(String.init)
                let outcome = try cluster.run("pollsrv", arguments)
                #expect(outcome.status == 64)
                #expect(outcome.error.contains(words), "\(outcome.error)")
            }
        }

        /// `--help` ends the line of a flag with its default.
        @Test func defaultsAreListed() throws {
            let lines = try help("pollsrv").split(separator: "\n")
            let defaults = [
                ("--heartbeat", "1s"), ("--misses", "5"), ("--restart-delay", "30s"),
                ("--voters", "1"), ("--interval", "0s"), ("--priority", "0"),
                ("--election", "sticky"), ("--sync", "always"), ("--segment", "64"),
                ("--log-format", "text"),
            ]
            for (flag, value) in defaults {
                let line = try #require(lines.first { $0.hasPrefix("  \(flag) ") }, "\(flag)")
                #expect(line.hasSuffix("(default: \(value))"), "\(line)")
            }
        }

        @Test func readmeNamesTheOperatorsCommands() throws {
            let head = "| `pollctl "
            let readme = try document("README.md")
            let rows = readme.split(separator: "\n").filter { $0.hasPrefix(head) }
            try #require(rows.count > 10)
            let text = try help("pollctl")
            let flags = listed(text)
            for row in rows {
                let command = row.dropFirst(head.count).prefix { $0.isLetter }
                #expect(text.contains("\n  \(command) "), "\(row)")
                // That one is the servers'.
                let unknown = named(String(row)).subtracting(flags).subtracting(["--test-hooks"])
                #expect(unknown.isEmpty, "\(row)")
            }
        }

        // MARK: What they do

        /// As many votes as there are questions; the last line has no end.
        @Test func questionsAreAskedInTheirOrder() throws {
            try with { cluster in
                let questions = ["Tea?", "Is it so, \"really\"?", "Tee oder Kaffee, übrigens?"]
                let text = "\(questions[0])\r\n\(questions[1])\n\(questions[2])"
                let path = try file(cluster, "questions", text)
                try cluster.primary(Self.flags + ["--questions", path])
                try cluster.client("ann", votes: 3, ["--vote", "yes"])
                #expect(try cluster.waitForExit("ann") == 0, "\(cluster.words)")
                #expect(cluster.lines("ann") == ["1 1 0", "2 1 0", "3 1 0"])
                let votes = questions.enumerated().map { index, question in
                    RawClient.Reply.list([
                        .number(index + 1), .text(question), .text("closed"), .number(1),
                    ])
                }
                let list = try RawClient(cluster.ports[0]).ask("VOTE.LIST FROM 1")
                #expect(list == .list(votes))
            }
        }

        /// Of the server that begins the service, for as long as that lives.
        @Test func whatCanBeReservedComesFromFiles() throws {
            try with { cluster in
                let rooms = try file(cluster, "rooms", "Aula\nKeller\n")
                let slots = try file(cluster, "slots", "8-9\r\n9-10\r\n")
                let days = try file(cluster, "days", "Samstag\nSonntag")
                let others = try file(cluster, "others", "Dach\n")
                try cluster.primary(
                    Self.flags + ["--rooms", rooms, "--timeslots", slots, "--days", days])
                try cluster.backup(Self.flags + ["--rooms", others])
                try cluster.waitForPair()
                let first = try RawClient(cluster.ports[0])
                try expectLists(first)
                let wish = "ROOM.RESERVE Keller 9-10 Sonntag"
                #expect(try first.ask(wish) == .text("Reservation confirmed"))
                #expect(
                    try first.ask("ROOM.RESERVE SA318 9-10 Sonntag")
                        == .text("SA318 not a valid room"))
                cluster.processes["primary"]?.terminate()
                #expect(try cluster.waitForExit("primary") == 0, "\(cluster.words)")
                let second = try cluster.eventually("the other to lead") { () -> RawClient? in
                    let client = try RawClient(cluster.ports[1])
                    return try client.ask("ROOM.ROOMS").code.isEmpty ? client : nil
                }
                try expectLists(second)
                #expect(try second.ask("ROOM.CHECK Keller") == .text("Keller 9-10 Sonntag"))
            }
        }

        private func expectLists(_ client: RawClient) throws {
            #expect(try client.ask("ROOM.ROOMS") == .text("Aula\nKeller"))
            #expect(try client.ask("ROOM.TIMESLOTS") == .text("8-9\n9-10"))
            #expect(try client.ask("ROOM.DAYS") == .text("Samstag\nSonntag"))
        }

        /// The replacement's, too, which writes where the server does that starts it.
        @Test func everyMessageIsJSON() throws {
            try with { cluster in
                let flags = Cluster.quick + ["--misses", "30", "--log-format", "json"]
                try cluster.primary(flags)
                let backup = try cluster.backup(flags)
                try cluster.client("ann")
                let before = try cluster.waitForPair(witnesses: 1)
                kill(backup.processIdentifier, SIGKILL)
                _ = try cluster.eventually("a replacement") { () -> Bool? in
                    guard let leader = cluster.leader, leader["state"] == "pair" else { return nil }
                    return leader["backup_pid"] != before["backup_pid"] ? true : nil
                }
                let stopped = try cluster.run("pollctl", ["stop", "--servers", cluster.servers])
                #expect(stopped.status == 0, "\(stopped)")
                var speakers: Set<String> = []
                for name in ["primary", "backup"] {
                    let lines = cluster.said(name, "err").split(separator: "\n")
                    #expect(lines.count > 1, "\(name) says next to nothing")
                    for line in lines {
                        let value = try? JSONSerialization.jsonObject(with: Data(line.utf8))
                        let object = value as? [String: Any]
                        #expect(object?["message"] is String, "\(name): \(line)")
                        if name == "primary", let speaker = object?["address"] as? String {
                            speakers.insert(speaker)
                        }
                    }
                }
                #expect(speakers.count > 1, "\(speakers)")
            }
        }

        /// Why a server does not come about, and what it finds in a journal, is said before there is one.
        @Test func theFirstMessagesAreJSON() throws {
            try with { cluster in
                try cluster.primary()
                _ = try cluster.eventually("the server") { try cluster.info(cluster.ports[0]) }
                let words = ["--listen", "127.0.0.1:\(cluster.ports[0])", "--log-format", "json"]
                let outcome = try cluster.run("pollsrv", ["--primary"] + words)
                #expect(outcome.status == 74)
                let value = try JSONSerialization.jsonObject(with: Data(outcome.error.utf8))
                let object = try #require(value as? [String: Any])
                #expect(object["level"] as? String == "error")
                #expect("\(object["message"] ?? "")".contains("another process listens"))
            }
        }

        /// In a group the one that ranks highest leads, and when it fails the next one.
        @Test func priorityRanksBeforeTheID() throws {
            try with { cluster in
                let group = try ServerGroup(cluster, ids: [10, 20, 30])
                try group.start(30, isFirst: true)
                try group.waitFor(leader: 30, members: 1)
                try group.start(20, ["--priority", "1"])
                try group.waitFor(leader: 20, members: 2)
                try group.start(10, ["--priority", "2"])
                try group.waitFor(leader: 10, members: 3)
                group.kill(10)
                try group.waitFor(leader: 20, members: 2)
            }
        }

        @Test func whoNeverVotesIsAWitness() throws {
            try with { cluster in
                try cluster.primary(Self.flags)
                try cluster.backup(Self.flags)
                try cluster.start(
                    "watch", "pollclient",
                    ["--servers", cluster.servers, "--name", "watch", "--vote", "never"])
                let before = try cluster.waitForPair(witnesses: 1)
                #expect(before["clients"] == "1" && before["voters"] == "0")
                let ann = try RawClient(cluster.ports[0])
                #expect(try ann.ask("VOTE.JOIN ann") == .text("OK"))
                for vote in 1...3 {
                    // It waits for nobody else.
                    #expect(try ann.ask("VOTE.OPEN x") == .number(vote))
                    #expect(try ann.ask("VOTE.CAST \(vote) ann yes") == .text("OK"))
                    let result = RawClient.Reply.list([.number(vote), .number(1), .number(0)])
                    #expect(try ann.ask("VOTE.RESULT \(vote)") == result)
                }
                let after = try cluster.info(cluster.ports[0])
                #expect(after["clients"] == "2" && after["voters"] == "1")
                #expect(after["witnesses"] == "1")
                cluster.processes["watch"]?.terminate()
                #expect(try cluster.waitForExit("watch") == 0, "\(cluster.words)")
                #expect(cluster.said("watch", "out") == "")
                // As it is told no results it keeps no log.
                let logs = cluster.folder.appending(path: "logs").path
                #expect(!FileManager.default.fileExists(atPath: logs))
            }
        }

        /// They say only what went wrong, and nothing does. Bob shows what there would be to say.
        @Test func quietOnesSayNothing() throws {
            try with { cluster in
                try cluster.primary(Self.flags + ["--quiet", "--voters", "2", "--votes", "2"])
                try cluster.backup(Self.flags + ["-q"])
                try cluster.waitForPair()
                try cluster.client("ann", votes: 2, ["--vote", "yes", "-q"])
                try cluster.client("bob", votes: 2, ["--vote", "yes"])
                for name in ["ann", "bob"] {
                    #expect(try cluster.waitForExit(name) == 0, "\(cluster.words)")
                    #expect(cluster.lines(name) == ["1 2 0", "2 2 0"])
                }
                let results = [1, 2].map { "vote \($0): 2 yes, 0 no (100 % yes)\n" }.joined()
                #expect(cluster.said("bob", "out") == results)
                #expect(!cluster.said("bob", "err").isEmpty)
                let flags = ["--quiet", "--servers", cluster.servers]
                #expect(try cluster.run("pollctl", ["stop"] + flags) == Outcome(0))
                for name in ["primary", "backup"] { #expect(try cluster.waitForExit(name) == 0) }
                for name in ["ann", "primary", "backup"] {
                    #expect(cluster.said(name, "out") == "", "\(name)")
                    #expect(cluster.said(name, "err") == "", "\(name)")
                }
            }
        }
    }
}
