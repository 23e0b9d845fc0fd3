import Foundation
import Testing

private let hooks = Cluster.quick + ["--test-hooks"]
/// A process that stands still for half a second is not taken for dead: the view must stay the same.
private let patient = hooks + ["--misses", "30"]

/// The direct link between the servers is cut while clients are connected to both.
extension ProcessSuite {
    @Suite(.serialized) struct Relays {
        /// A pair that votes by itself, all `count` clients among its witnesses. Votes wait for every
        /// ballot: one that is lost holds them up for ever. With a `deadline` they do not, for a
        /// client that a test stops; how many ballots come before it is then the machine's affair.
        private func with(
            clients count: Int, deadline: String = "0s", flags: [String] = [],
            _ body: (Cluster, [String]) throws -> Void
        ) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let names = Array(Cluster.names.prefix(count))
            let votes = [
                "--voters", "\(count)", "--votes", "1000000", "--interval", "10ms",
                "--vote-deadline", deadline,
            ]
            try cluster.primary(patient + votes + flags)
            try cluster.backup(patient + flags)
            for name in names { try cluster.client(name) }
            try cluster.waitForPair(witnesses: min(3, count - 1 + count % 2))
            try waitForVotes(cluster, names, more: 5)
            try body(cluster, names)
        }

        private func link(_ cluster: Cluster, _ action: String) throws {
            for port in cluster.ports {
                #expect(try RawClient(port).ask("LINK \(action)") == .text("OK"))
            }
        }

        private func waitForVotes(_ cluster: Cluster, _ names: [String], more count: Int) throws {
            let wanted = (names.map { cluster.lines($0).count }.max() ?? 0) + count
            _ = try cluster.eventually("\(wanted) results in every log") {
                names.allSatisfy { cluster.lines($0).count >= wanted } ? true : nil
            }
        }

        /// What both servers say once both use this kind of path.
        @discardableResult
        private func waitForPath(_ cluster: Cluster, _ path: String) throws -> [[String: String]] {
            try cluster.eventually("both to say path:\(path)") {
                let infos = cluster.ports.compactMap { try? cluster.info($0, seconds: 1) }
                return infos.count == 2 && infos.allSatisfy { $0["path"] == path } ? infos : nil
            }
        }

        /// Ends the clients in an orderly way and compares all they have, and the servers' state.
        private func finish(_ cluster: Cluster, _ names: [String], ballots: Int? = nil) throws {
            try waitForVotes(cluster, names, more: 5)
            // Without clients there is no path over a cut.
            for port in cluster.ports { _ = try? RawClient(port).ask("LINK HEAL") }
            let count = names.map { cluster.lines($0).count }.min() ?? 0
            for name in names { cluster.processes[name]?.terminate() }
            for name in names { #expect(try cluster.waitForExit(name) == 0) }
            cluster.checkLogs(names, atLeast: count, ballots: ballots)
            _ = try cluster.eventually("all replicas to hold the same state") { () -> Bool? in
                guard let leader = cluster.leader, leader["state"] == "pair",
                    let backup = try? cluster.info(
                        cluster.port(of: leader, "backup_address"), seconds: 1)
                else { return nil }
                return leader["digest"] == backup["digest"] ? true : nil
            }
        }

        @Test(arguments: [1, 2, 3]) func cutCostsNothing(clients: Int) throws {
            try with(clients: clients) { (cluster, names) throws in
                let before = try waitForPath(cluster, "direct").map { $0["view"] }
                for round in 1...3 {
                    try link(cluster, "CUT")
                    let cut = try waitForPath(cluster, "relay")
                    #expect(cut.allSatisfy { names.contains($0["path_via"] ?? "") })
                    try waitForVotes(cluster, names, more: 20)
                    try link(cluster, "HEAL")
                    let healed = try waitForPath(cluster, "direct")
                    try waitForVotes(cluster, names, more: 5)
                    #expect(healed.map { $0["view"] } == before, "round \(round)\n\(cluster.words)")
                }
                try finish(cluster, names, ballots: clients)
            }
        }

        /// Longer than it takes to be given up for failed.
        @Test func longCut() throws {
            try with(clients: 3) { (cluster, names) throws in
                let before = try waitForPath(cluster, "direct").map { $0["view"] }
                try link(cluster, "CUT")
                usleep(4_000_000)
                let after = try waitForPath(cluster, "relay")
                #expect(after.map { $0["view"] } == before, "\(cluster.words)")
                #expect(after[0]["state"] == "pair")
                try finish(cluster, names, ballots: 3)
            }
        }

        /// Nothing tells either end that the connections are dead, but the silence on them.
        @Test func silentCut() throws {
            try with(clients: 3, flags: ["--misses", "50"]) { (cluster, names) throws in
                let before = try waitForPath(cluster, "direct").map { $0["view"] }
                for _ in 0..<2 {
                    let began = ContinuousClock.now
                    try link(cluster, "CUT SILENT")
                    try waitForPath(cluster, "relay")
                    // Half of the time after which a replica counts as failed.
                    #expect(ContinuousClock.now - began > .milliseconds(1_500))
                    try waitForVotes(cluster, names, more: 20)
                    try link(cluster, "HEAL")
                    try waitForPath(cluster, "direct")
                    // And the heartbeats are back, too, or it would be given up again.
                    usleep(3_500_000)
                    let healed = try waitForPath(cluster, "direct")
                    #expect(healed.map { $0["view"] } == before, "\(cluster.words)")
                    let said = cluster.said("backup", "err").split(separator: "\n")
                    #expect(said.count { $0.contains("relays what") } <= 2, "\(cluster.words)")
                }
                try finish(cluster, names, ballots: 3)
            }
        }

        /// Without clients both wait for the link.
        @Test func cutWithoutClients() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(hooks)
            try cluster.backup(hooks)
            let before = try cluster.waitForPair()
            let client = try RawClient(cluster.ports[0])
            try link(cluster, "CUT")
            try client.send(Array("VOTE.OPEN x ROLL open\r\n".utf8))
            try waitForPath(cluster, "none")
            usleep(1_000_000)
            for port in cluster.ports {
                let now = try cluster.info(port)
                #expect(now["state"] == "pair" && now["commit"] == before["commit"])
            }
            try link(cluster, "HEAL")
            // The view may have been changed by then; the vote is open, or it is said to try again.
            let reply = try client.receive()
            #expect(reply == .number(1) || reply.code == "TRYAGAIN", "\(reply)")
            let after = try cluster.waitForPair()
            #expect([before["pid"], before["backup_pid"]].contains(after["pid"]))
            #expect([before["pid"], before["backup_pid"]].contains(after["backup_pid"]))
        }

        /// Only one end is cut off: it takes no connections from the other.
        @Test(arguments: [0, 1]) func halfCut(end: Int) throws {
            try with(clients: 2) { (cluster, names) throws in
                let before = try waitForPath(cluster, "direct").map { $0["view"] }
                #expect(try RawClient(cluster.ports[end]).ask("LINK CUT") == .text("OK"))
                try waitForPath(cluster, "relay")
                try waitForVotes(cluster, names, more: 50)
                let after = try waitForPath(cluster, "relay")
                #expect(after.map { $0["view"] } == before, "\(cluster.words)")
                try link(cluster, "HEAL")
                try waitForPath(cluster, "direct")
                try finish(cluster, names, ballots: 2)
            }
        }

        /// A broken connection is seen at once; silence takes 500 ms, whatever the flags. The machine may
        /// take as long for itself, but not each time.
        @Test(arguments: [SIGKILL, SIGSTOP]) func relayingClientFails(signal: Int32) throws {
            var times: [Duration] = []
            for _ in 1...3 {
                times += try failRelays(signal)
                if signal == SIGSTOP || times.contains(where: { $0 < .milliseconds(450) }) {
                    return
                }
            }
            Issue.record("\(times)")
        }

        /// How long it took until another client relayed, each time.
        private func failRelays(_ signal: Int32) throws -> [Duration] {
            var times: [Duration] = []
            try with(clients: 5, deadline: "150ms") { (cluster, names) throws in
                try link(cluster, "CUT")
                var names = names
                // Two of five are to be left.
                for _ in 0..<(signal == SIGKILL ? 3 : 2) {
                    let infos = try waitForPath(cluster, "relay")
                    let relay = infos[0]["path_via"] ?? ""
                    let members = infos.map { $0["backup_pid"] }
                    let pid = try #require(cluster.processes[relay]).processIdentifier
                    #expect(kill(pid, signal) == 0)
                    let began = ContinuousClock.now
                    let others = names.filter { $0 != relay }
                    _ = try cluster.eventually("another client to relay") {
                        let infos = cluster.ports.compactMap {
                            try? cluster.info($0, seconds: 1)
                        }
                        let through = infos.filter {
                            $0["path"] == "relay" && others.contains($0["path_via"] ?? "")
                        }
                        return through.count == 2 ? true : nil
                    }
                    times.append(ContinuousClock.now - began)
                    try waitForVotes(cluster, others, more: 10)
                    if signal == SIGSTOP { kill(pid, SIGCONT) } else { names = others }
                    try waitForVotes(cluster, names, more: 5)
                    // The witnesses may have changed, and so the view; the members must not have.
                    let after = try waitForPath(cluster, "relay")
                    #expect(after.map { $0["backup_pid"] } == members, "\(cluster.words)")
                }
                try link(cluster, "HEAL")
                try waitForPath(cluster, "direct")
                try finish(cluster, names)
            }
            return times
        }

        /// A cut and then a crash has no dead end.
        @Test(arguments: ["primary", "backup"]) func cutThenKill(victim: String) throws {
            try with(clients: 3) { (cluster, names) throws in
                try link(cluster, "CUT")
                let before = try waitForPath(cluster, "relay")[0]
                try waitForVotes(cluster, names, more: 5)
                let pid = try #require(cluster.processes[victim]).processIdentifier
                #expect(kill(pid, SIGKILL) == 0)
                let after = try cluster.eventually("a replacement for the \(victim)") {
                    () -> [String: String]? in
                    guard let leader = cluster.leader, leader["state"] == "pair",
                        leader["primary_pid"] != "\(pid)", leader["backup_pid"] != "\(pid)"
                    else { return nil }
                    return leader
                }
                let survivor = victim == "primary" ? "backup_pid" : "primary_pid"
                #expect(after["pid"] == before[survivor])
                try waitForVotes(cluster, names, more: 10)
                #expect(try cluster.waitForPair(witnesses: 3)["path"] == "direct")
                try finish(cluster, names, ballots: 3)
            }
        }

        @Test(arguments: ["primary", "backup"]) func cutThenTerminate(leaving: String) throws {
            try with(clients: 3) { (cluster, names) throws in
                try link(cluster, "CUT")
                let before = try waitForPath(cluster, "relay")[0]
                try #require(cluster.processes[leaving]).terminate()
                #expect(try cluster.waitForExit(leaving) == 0)
                // After five seconds it would end in any case, and say so.
                let said = cluster.said(leaving, "err")
                #expect(!said.contains("without having been let go"), "\(cluster.words)")
                let survivor = leaving == "primary" ? "backup_pid" : "primary_pid"
                _ = try cluster.eventually("the other to lead and be a pair again") {
                    let leader = cluster.leader
                    return leader?["pid"] == before[survivor] && leader?["state"] == "pair"
                        ? true : nil
                }
                try finish(cluster, names, ballots: 3)
            }
        }

        @Test func switchoverAndStopOverARelay() throws {
            try with(clients: 3) { (cluster, names) throws in
                try link(cluster, "CUT")
                for _ in 0..<4 {
                    let infos = try waitForPath(cluster, "relay")
                    let leader = try #require(infos.first { $0["mode"] == "primary" })
                    let port = cluster.port(of: leader)
                    #expect(try RawClient(port).ask("REPLICA SWITCHOVER") == .text("OK"))
                    _ = try cluster.eventually("the other to lead") {
                        cluster.leader?["pid"] == leader["backup_pid"] ? true : nil
                    }
                    try waitForVotes(cluster, names, more: 5)
                }
                let leader = try #require(cluster.leader)
                let backup = try RawClient(cluster.port(of: leader, "backup_address"))
                #expect(try backup.ask("REPLICA STOP").code == "REDIRECT")
                let primary = try RawClient(cluster.port(of: leader))
                #expect(try primary.ask("REPLICA STOP") == .text("OK"))
                for name in ["primary", "backup"] { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogs(names, atLeast: 20, ballots: 3)
            }
        }

        /// A batch of more than a megabyte: larger than a client's own commands may be, and than
        /// the sockets on the way take in at once.
        @Test func largeBatch() throws {
            try with(clients: 2, flags: ["--misses", "50"]) { (cluster, names) throws in
                try link(cluster, "CUT")
                let before = try waitForPath(cluster, "relay")
                let first = try RawClient(cluster.ports[0])
                guard case .number(let vote) = try first.ask("VOTE.OPEN many ROLL open") else {
                    throw Trouble("VOTE.OPEN")
                }
                let voters = [first] + (try (0..<3).map { _ in try RawClient(cluster.ports[0]) })
                let pid = try #require(cluster.processes["primary"]).processIdentifier
                // So that all of them are there when it looks.
                kill(pid, SIGSTOP)
                let padding = String(repeating: "x", count: 55)
                for (index, client) in voters.enumerated() {
                    let lines = (0..<4_000).map { "VOTE.CAST \(vote) \(padding)\(index)-\($0) yes" }
                    try client.send(Array((lines.joined(separator: "\r\n") + "\r\n").utf8))
                }
                kill(pid, SIGCONT)
                for client in voters {
                    for _ in 0..<4_000 { #expect(try client.receive() == .text("OK")) }
                }
                #expect(try first.ask("VOTE.CLOSE \(vote)") == .text("OK"))
                guard case .list(let result) = try first.ask("VOTE.RESULT \(vote)"),
                    result.count > 2, case .number(let yes) = result[1],
                    case .number(let no) = result[2]
                else { throw Trouble("VOTE.RESULT") }
                // The two that relay have voted, too.
                #expect(yes + no == 16_000 + 2)
                let after = try waitForPath(cluster, "relay")
                #expect(after.map { $0["view"] } == before.map { $0["view"] }, "\(cluster.words)")
                // Nobody was cut off for the size of it. A slow machine may take the other client.
                for name in names {
                    #expect(!cluster.said(name, "err").contains("lost"), "\(cluster.words)")
                }
                try finish(cluster, names)
            }
        }

        /// A witness that passes nothing on costs a moment at most, whether it reads or not.
        @Test func witnessThatDoesNotRelay() throws {
            try with(clients: 1) { (cluster, names) throws in
                var mute: [RawClient] = []
                for port in cluster.ports {
                    for instance in 1...2 {
                        let client = try RawClient(port)
                        _ = try client.ask("HELLO 3")
                        // Lower than that of any other client, so it is asked first.
                        #expect(try client.ask("WITNESS OFFER \(instance)") == .text("OK"))
                        mute.append(client)
                    }
                }
                usleep(300_000)
                let before = try waitForPath(cluster, "direct").map { $0["backup_pid"] }
                try link(cluster, "CUT")
                let cut = try waitForPath(cluster, "relay")
                #expect(cut.map { $0["path_via"] } == ["ann", "ann"])
                try waitForVotes(cluster, names, more: 10)
                #expect(try waitForPath(cluster, "relay").map { $0["backup_pid"] } == before)
                try link(cluster, "HEAL")
                try waitForPath(cluster, "direct")
                try finish(cluster, names, ballots: 1)
                #expect(mute.count == 4)
            }
        }

        /// The only client relays, and has more requests under way than one may have. The acks that
        /// these wait for come behind them on the same connection.
        @Test func relayWithManyRequestsOfItsOwn() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let flags = hooks + ["--misses", "50"]
            try cluster.primary(flags)
            try cluster.backup(flags)
            try cluster.waitForPair()
            let stranger = try StrangersRelay(cluster.ports, instance: "77")
            defer { stranger.hangUp() }
            let before = try cluster.waitForPair(witnesses: 1)
            let client = try RawClient(cluster.ports[0])
            #expect(try client.ask("VOTE.OPEN x ROLL open") == .number(1))
            try link(cluster, "CUT")
            #expect(
                try waitForPath(cluster, "relay").map { $0["path_via"] } == [
                    "stranger", "stranger",
                ])
            #expect(try client.ask("VOTE.CAST 1 first yes") == .text("OK"))
            let lines = (1...6_000).map { "VOTE.CAST 1 voter-\($0) yes\r\n" }
            stranger.send(Array(lines.joined().utf8), to: 0)
            let votes = try cluster.eventually("an answer to each ballot") {
                guard case .list(let votes) = try client.ask("VOTE.LIST"),
                    case .list(let vote)? = votes.first, vote.count > 3,
                    case .number(let count) = vote[3],
                    count - 1 + stranger.count("-", at: 0) == 6_000
                else { return Int?.none }
                return count
            }
            #expect(votes > 4_000)
            #expect(stranger.count("-", at: 0) > 0, "all were taken: there were not too many")
            let after = try waitForPath(cluster, "relay")
            #expect(
                after.map { $0["view"] } == [before["view"], before["view"]], "\(cluster.words)")
        }

        /// Cuts, heals and clients that stop for a moment, in a random order under load.
        /// POLLSRV_TEST_SEED=8841 gives another course.
        @Test func manyCuts() throws {
            let named = ProcessInfo.processInfo.environment["POLLSRV_TEST_SEED"]
            let seed = named.flatMap { UInt64($0) } ?? 0x5eed_cafe
            var generator = Seeded(state: max(1, seed))
            try with(clients: 5) { (cluster, names) throws in
                let before = try waitForPath(cluster, "direct").map { $0["backup_pid"] }
                for _ in 0..<60 {
                    let port = cluster.ports[Int.random(in: 0...1, using: &generator)]
                    let name = names[Int.random(in: 0..<names.count, using: &generator)]
                    let pid = try #require(cluster.processes[name]).processIdentifier
                    switch Int.random(in: 0..<10, using: &generator) {
                    case 0..<4: _ = try RawClient(port).ask("LINK CUT")
                    case 4..<8: _ = try RawClient(port).ask("LINK HEAL")
                    default:
                        kill(pid, SIGSTOP)
                        usleep(UInt32.random(in: 0...150_000, using: &generator))
                        kill(pid, SIGCONT)
                    }
                    usleep(UInt32.random(in: 0...60_000, using: &generator))
                }
                try link(cluster, "HEAL")
                let after = try waitForPath(cluster, "direct").map { $0["backup_pid"] }
                #expect(after == before, "seed \(seed)\n\(cluster.words)")
                try finish(cluster, names, ballots: 5)
            }
        }
    }
}
