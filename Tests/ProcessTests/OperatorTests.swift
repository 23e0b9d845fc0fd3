import Foundation
import Testing

/// What `pollctl status --json` prints, with README.md's types: of others it is not decoded.
private struct Status: Decodable {
    struct Seat: Decodable, Equatable {
        let id: String
        let address: String
        let pid: Int32
    }

    struct Votes: Decodable, Equatable {
        let open: [Int]
        let closed: Int
    }

    /// What a server says of itself, or its `error`.
    struct Server: Decodable {
        let address: String
        let mode: String?
        let pid: Int32?
        let error: String?
    }

    let view: Int
    let state: String
    let stalled: Bool
    let primary: Seat
    let backup: Seat?
    let members: [String]
    let op: Int
    let commit: Int
    let clients: Int
    let witnesses: Int
    let votes: Votes
    let service: String
    let link: String
    let path: String?
    let restart: String
    let heartbeatMs: Int
    let misses: Int
    let durability: String
    let note: String
    let servers: [Server]

    /// Those that may be null are there all the same.
    static let keys = [
        "view", "state", "stalled", "primary", "backup", "members", "op", "commit", "clients",
        "witnesses", "votes", "service", "link", "path", "restart", "heartbeat_ms", "misses",
        "durability", "note", "servers",
    ]

    static func decoded(_ text: String) throws -> Status {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Status.self, from: Data(text.utf8))
    }

    static func object(_ text: String) throws -> [String: Any] {
        try #require(
            try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any], "\(text)")
    }
}

extension ProcessSuite {
    /// What README.md says that an operator can do, at servers that are well.
    @Suite(.serialized) struct Operators {
        /// One that stands still for a moment is not taken for dead: views stay as they are.
        private static let flags = ["--heartbeat", "100ms", "--misses", "30", "--no-restart"]

        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private func withPair(
            _ flags: [String] = [], plan: [String] = [], _ body: (Cluster) throws -> Void
        ) throws {
            try with { cluster in
                try cluster.primary(Self.flags + flags + plan)
                try cluster.backup(Self.flags + flags)
                try cluster.waitForPair()
                try body(cluster)
            }
        }

        /// Runs it to its end, by default with the addresses of both servers.
        private func pollctl(_ cluster: Cluster, _ words: [String], at servers: String? = nil)
            throws -> Outcome
        {
            try cluster.run("pollctl", words + ["--servers", servers ?? cluster.servers])
        }

        private func status(_ cluster: Cluster) throws -> Status {
            let seen = try pollctl(cluster, ["status", "--json"])
            try #require(seen.status == 0, "\(seen)")
            return try Status.decoded(seen.output)
        }

        /// What is to be said of server `index`: an id is the process number where none is given.
        private func seat(_ cluster: Cluster, _ index: Int) throws -> Status.Seat {
            let process = try #require(cluster.processes[index == 0 ? "primary" : "backup"])
            let pid = process.processIdentifier
            return Status.Seat(id: "\(pid)", address: "127.0.0.1:\(cluster.ports[index])", pid: pid)
        }

        private func waitForPath(_ cluster: Cluster, _ path: String) throws {
            _ = try cluster.eventually("both to say path:\(path)") { () -> Bool? in
                let infos = try cluster.ports.map { try cluster.info($0, seconds: 1) }
                return infos.allSatisfy { $0["path"] == path } ? true : nil
            }
        }

        private func waitForResults(_ cluster: Cluster, _ names: [String], more: Int) throws {
            let count = (names.map { cluster.lines($0).count }.max() ?? 0) + more
            _ = try cluster.eventually("\(count) results in every log") {
                names.allSatisfy { cluster.lines($0).count >= count } ? true : nil
            }
        }

        // MARK: Votes

        @Test func aVoteForAnybody() throws {
            try withPair { cluster in
                let desk = try RawClient(cluster.ports[0])
                let opened = try pollctl(cluster, ["open", "Is it tea?", "--roll", "open"])
                #expect(opened == Outcome(0, "1\n"))
                let list = RawClient.Reply.list([
                    .list([.number(1), .text("Is it tea?"), .text("open"), .number(0)])
                ])
                #expect(try desk.ask("VOTE.LIST") == list)
                #expect(try desk.ask("VOTE.CAST 1 carl yes") == .text("OK"))
                // It does not close by itself.
                #expect(try pollctl(cluster, ["results"]) == Outcome(0))
                #expect(try pollctl(cluster, ["close", "1"]).status == 0)
                #expect(try desk.ask("VOTE.CAST 1 dora no").code == "CLOSED")
                #expect(try pollctl(cluster, ["results"]) == Outcome(0, "1 1 0\n"))
                #expect(try pollctl(cluster, ["close", "1"]).status == 0)
                let unknown = try pollctl(cluster, ["close", "9"])
                #expect(unknown.status == 69 && unknown.error.contains("NOSUCHVOTE"), "\(unknown)")
            }
        }

        /// Where nothing else is said. One live server is enough to ask, if it leads or not.
        @Test func aVoteForThoseWhoHaveJoined() throws {
            try withPair { cluster in
                let ann = try RawClient(cluster.ports[0])
                let stranger = try RawClient(cluster.ports[0])
                #expect(try ann.ask("VOTE.JOIN ann") == .text("OK"))
                let backup = "127.0.0.1:\(cluster.ports[1])"
                #expect(try pollctl(cluster, ["open", "Tea?"], at: backup) == Outcome(0, "1\n"))
                #expect(try stranger.ask("VOTE.CAST 1 carl yes").code == "NOTONROLL")
                #expect(try pollctl(cluster, ["results"], at: backup) == Outcome(0))
                #expect(try ann.ask("VOTE.CAST 1 ann no") == .text("OK"))
                #expect(try pollctl(cluster, ["results"], at: backup) == Outcome(0, "1 0 1\n"))
            }
        }

        /// Nobody who is on the roll votes.
        @Test func theDeadlineClosesAVote() throws {
            try withPair { cluster in
                let ann = try RawClient(cluster.ports[0])
                #expect(try ann.ask("VOTE.JOIN ann") == .text("OK"))
                for id in 1...2 {
                    let opened = try pollctl(cluster, ["open", "Late?", "--deadline", "300ms"])
                    #expect(opened == Outcome(0, "\(id)\n"))
                    _ = try cluster.eventually("the deadline of vote \(id)") {
                        try ann.ask("VOTE.RESULT \(id)") == .null ? nil : true
                    }
                }
                #expect(try pollctl(cluster, ["results"]) == Outcome(0, "1 0 0\n2 0 0\n"))
                #expect(try pollctl(cluster, ["results", "2"]) == Outcome(0, "2 0 0\n"))
                #expect(try pollctl(cluster, ["results", "3"]) == Outcome(0))
            }
        }

        // MARK: Switchover

        /// Each vote waits for every ballot, and has them all.
        @Test func switchoverLosesNoBallot() throws {
            let plan = ["--voters", "3", "--votes", "1000000", "--interval", "10ms"]
            try withPair(plan: plan) { cluster in
                let names = Array(Cluster.names.prefix(3))
                for name in names { try cluster.client(name) }
                for isQuiet in [false, true] {
                    let before = try cluster.waitForPair(witnesses: 3)
                    try waitForResults(cluster, names, more: 5)
                    let next = try #require(before["backup_address"])
                    let flags = isQuiet ? ["--quiet"] : []
                    let seen = try pollctl(cluster, ["switchover"] + flags)
                    #expect(seen.status == 0, "\(seen)")
                    let words = "\(next) is primary now (view "
                    #expect(isQuiet ? seen.output.isEmpty : seen.output.hasPrefix(words), "\(seen)")
                    let after = try cluster.waitForPair(witnesses: 3)
                    #expect(after["primary_address"] == next)
                    #expect(after["primary_pid"] == before["backup_pid"])
                    #expect(after["backup_pid"] == before["primary_pid"])
                }
                try waitForResults(cluster, names, more: 5)
                let count = names.map { cluster.lines($0).count }.min() ?? 0
                for name in names { cluster.processes[name]?.terminate() }
                for name in names { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogs(names, atLeast: count, ballots: names.count)
            }
        }

        @Test func oneAloneHasNobodyToHandOverTo() throws {
            try with { cluster in
                try cluster.primary(Self.flags)
                _ = try cluster.eventually("the primary") { cluster.leader }
                let refused = try pollctl(cluster, ["switchover"])
                #expect(refused.status == 69 && refused.output.isEmpty, "\(refused)")
                #expect(refused.error.contains("there is no backup to hand over to"), "\(refused)")
                let seen = try pollctl(cluster, ["status", "--json"])
                let object = try Status.object(seen.output)
                #expect(object["backup"] is NSNull, "\(seen)")
                #expect(object["path"] is NSNull, "\(seen)")
                let status = try Status.decoded(seen.output)
                let own = try seat(cluster, 0)
                #expect(status.state == "solo" && status.primary == own)
                let members = ["\(own.id)@\(own.address)"]
                #expect(status.members == members)
            }
        }

        // MARK: The link

        @Test func aCutLinkIsRelayedUntilItHeals() throws {
            try withPair(["--test-hooks"]) { cluster in
                try cluster.client("ann")
                _ = try cluster.eventually("a voter") {
                    cluster.leader?["voters"] == "1" ? true : nil
                }
                try cluster.waitForPair(witnesses: 1)
                try waitForPath(cluster, "direct")
                let before = try status(cluster)
                #expect(before.path == "direct" && before.link == "direct")

                let cut = try pollctl(cluster, ["link", "cut"])
                #expect(cut.status == 0, "\(cut)")
                for (port, mode) in zip(cluster.ports, ["primary", "backup"]) {
                    #expect(cut.output.contains("127.0.0.1:\(port) (\(mode)): link cut\n"))
                }
                try waitForPath(cluster, "relay")
                let table = try pollctl(cluster, ["status"]).output
                #expect(table.contains("relayed by client ann"), "\(table)")
                let relayed = try status(cluster)
                #expect(relayed.path == "relay" && relayed.link == "cut")
                #expect(relayed.view == before.view && relayed.state == "pair")
                #expect(try pollctl(cluster, ["open", "Still there?"]) == Outcome(0, "1\n"))
                _ = try cluster.eventually("its result") { cluster.lines("ann").first }

                let heal = try pollctl(cluster, ["link", "heal"])
                #expect(heal.status == 0, "\(heal)")
                try waitForPath(cluster, "direct")
                let healed = try status(cluster)
                #expect(healed.path == "direct" && healed.link == "direct")
                #expect(healed.view == before.view, "\(cluster.words)")
            }
        }

        @Test func onlyTestHooksCutLinks() throws {
            try withPair { cluster in
                try waitForPath(cluster, "direct")
                for action in ["cut", "heal"] {
                    let refused = try pollctl(cluster, ["link", action])
                    #expect(refused.status == 69 && refused.output.isEmpty, "\(refused)")
                    #expect(refused.error.contains("--test-hooks"), "\(refused)")
                }
                let wrong = try pollctl(cluster, ["link", "sever"])
                #expect(wrong.status == 64 && wrong.error.contains("link cut|heal"), "\(wrong)")
                let seen = try status(cluster)
                #expect(seen.path == "direct" && seen.link == "direct")
            }
        }

        // MARK: The end

        @Test func stopEndsThePair() throws {
            try with { cluster in
                // Unlike a kill, it makes no replacement start.
                let flags = Cluster.quick + ["--misses", "30"]
                try cluster.primary(flags)
                try cluster.backup(flags)
                try cluster.waitForPair()
                let places = cluster.ports.map { "127.0.0.1:\($0)" }.joined(separator: " and ")
                let seen = try pollctl(cluster, ["stop"])
                #expect(seen.status == 0, "\(seen)")
                #expect(seen.output.hasPrefix("stopped \(places) in "), "\(seen)")
                for name in ["primary", "backup"] {
                    #expect(try cluster.waitForExit(name) == 0, "\(cluster.words)")
                }
                #expect(cluster.inhabitants.isEmpty, "\(cluster.words)")
                let after = try pollctl(cluster, ["status", "--timeout", "500ms"])
                #expect(after.status == 69 && after.output.isEmpty, "\(after)")
            }
        }

        /// Any member may be named.
        @Test func aGroupKeepsItsLeaderAndIsStoppedAsAWhole() throws {
            try with { cluster in
                let ids = [10, 20, 30]
                let group = try ServerGroup(cluster, ids: ids)
                try group.start(30, isFirst: true)
                try group.start(10)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                let one = "127.0.0.1:\(group.port(10))"
                let refused = try pollctl(cluster, ["switchover"], at: one)
                #expect(refused.status == 69 && refused.output.isEmpty, "\(refused)")
                #expect(refused.error.contains("the highest id leads"), "\(refused)")
                try group.waitFor(leader: 30, members: 3)
                let seen = try pollctl(cluster, ["stop"], at: one)
                #expect(seen.status == 0 && seen.output.hasPrefix("stopped "), "\(seen)")
                for id in ids {
                    #expect(seen.output.contains("127.0.0.1:\(group.port(id)) "), "\(seen)")
                    #expect(try cluster.waitForExit("s\(id)") == 0, "\(cluster.words)")
                }
            }
        }

        // MARK: Status

        @Test func statusForPrograms() throws {
            try withPair { cluster in
                let desk = try RawClient(cluster.ports[0])
                #expect(try desk.ask("VOTE.JOIN ann") == .text("OK"))
                #expect(try desk.ask("VOTE.OPEN one") == .number(1))
                #expect(try desk.ask("VOTE.CAST 1 ann yes") == .text("OK"))
                #expect(try desk.ask("VOTE.OPEN two") == .number(2))
                try waitForPath(cluster, "direct")
                // Nobody listens at the third.
                let servers = cluster.servers + ",127.0.0.1:1"
                let seen = try pollctl(cluster, ["status", "--json"], at: servers)
                #expect(seen.status == 0 && seen.error.isEmpty, "\(seen)")
                let object = try Status.object(seen.output)
                let missing = Status.keys.filter { object[$0] == nil }
                #expect(missing == [])

                let status = try Status.decoded(seen.output)
                let seats = [try seat(cluster, 0), try seat(cluster, 1)]
                #expect(status.primary == seats[0])
                #expect(status.backup == seats[1])
                let members = seats.map { "\($0.id)@\($0.address)" }
                #expect(status.members == members)
                #expect(status.state == "pair" && !status.stalled && status.note.isEmpty)
                let info = try cluster.info(cluster.ports[0])
                #expect(info["view"] == "\(status.view)" && info["service"] == status.service)
                #expect(status.commit > 0 && status.commit <= status.op)
                #expect(status.clients == 1 && status.witnesses == 0)
                #expect(status.votes == Status.Votes(open: [2], closed: 1))
                #expect(status.link == "direct" && status.path == "direct")
                #expect(status.restart == "none" && status.durability == "memory")
                #expect(status.heartbeatMs == 100 && status.misses == 30)
                #expect(status.servers.map(\.address).joined(separator: ",") == servers)
                let modes: [String?] = ["primary", "backup", nil]
                #expect(status.servers.map(\.mode) == modes)
                let pids: [Int32?] = [seats[0].pid, seats[1].pid, nil]
                #expect(status.servers.map(\.pid) == pids)
                let errors = status.servers.map { $0.error ?? "" }
                #expect(errors.map(\.isEmpty) == [true, true, false], "\(errors)")
            }
        }

        @Test func statusForPeople() throws {
            try withPair { cluster in
                try waitForPath(cluster, "direct")
                let seen = try pollctl(cluster, ["status"])
                #expect(seen.status == 0 && seen.error.isEmpty, "\(seen)")
                let lines = seen.output.split(separator: "\n").map(String.init)
                for (index, mode) in ["primary", "backup"].enumerated() {
                    let server = try seat(cluster, index)
                    // Its part in the service, and what it says of itself.
                    for head in ["\(mode) ", "  \(server.address) "] {
                        let line = try #require(lines.first { $0.hasPrefix(head) }, "\(seen)")
                        for word in [mode, server.address, "pid \(server.pid)"] {
                            #expect(line.contains(word), "\(line)")
                        }
                    }
                }
                let path = try #require(lines.first { $0.hasPrefix("path ") }, "\(seen)")
                #expect(path.hasSuffix(" direct"), "\(path)")
            }
        }
    }
}
