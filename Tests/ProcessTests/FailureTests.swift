import Foundation
import Testing

/// What uses real processes, one after the other, but for `Disks`, which has a row of its own beside
/// this one. Two at a time are what two cores are enough for: they wait more than they compute.
@Suite(.serialized) struct ProcessSuite {}

private let autoVotes = ["--voters", "5", "--votes", "1000000", "--interval", "10ms"]

extension ProcessSuite {
    @Suite(.serialized) struct Failures {
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

        /// It is told that the log cannot be written, as on a full disk, and votes on.
        @Test func aLogThatMayNotGrow() throws {
            try with { cluster in
                try cluster.primary(Cluster.quick + ["--no-restart", "--votes", "0"])
                _ = try cluster.eventually("the primary") { cluster.leader }
                let program = Cluster.binaries.appending(path: "pollclient").path
                let line = "ulimit -f 0; exec \(program) --servers \(cluster.servers) --name ann"
                try cluster.start(
                    "ann", "/bin/sh", ["-c", "(\(line) --log ann.log) 2>&1 >/dev/null | cat >&2"])
                let desk = try RawClient(cluster.ports[0])
                _ = try cluster.eventually("ann") {
                    (try? cluster.info(cluster.ports[0], seconds: 1)["voters"]) == "1" ? true : nil
                }
                for id in 1...2 {
                    #expect(try desk.ask("VOTE.OPEN x") == .number(id))
                    _ = try cluster.eventually("the result of vote \(id)") {
                        if case .list = try desk.ask("VOTE.RESULT \(id)") { true } else { nil }
                    }
                }
                _ = try cluster.eventually("a word about the log") {
                    cluster.said("ann", "err").contains("File too large; results are kept")
                        ? true : nil
                }
            }
        }

        /// Runs a scenario on a cluster that is ended whatever happens.
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private func startClients(_ cluster: Cluster, votes: Int = 0) throws {
            for name in Cluster.names { try cluster.client(name, votes: votes) }
        }

        /// `isWatched`: meanwhile all servers are asked whether they lead.
        private func waitForVotes(_ cluster: Cluster, _ count: Int, isWatched: Bool = false)
            throws
        {
            _ = try cluster.eventually("\(count) results in every log") {
                if isWatched { _ = cluster.leader }
                return Cluster.names.allSatisfy { cluster.lines($0).count >= count } ? true : nil
            }
        }

        /// Waits until all go on, ends them in an orderly way and compares what they have. Up to
        /// there each vote must have the ballots of all.
        private func endClients(_ cluster: Cluster) throws {
            let count = (Cluster.names.map { cluster.lines($0).count }.max() ?? 0) + 5
            try waitForVotes(cluster, count, isWatched: true)
            for name in Cluster.names { cluster.processes[name]?.terminate() }
            for name in Cluster.names { #expect(try cluster.waitForExit(name) == 0) }
            cluster.checkLogs(atLeast: count, ballots: Cluster.names.count)
        }

        @Test(arguments: ["backup first", "primary first", "primary alone"])
        func startOrder(order: String) throws {
            try with { (cluster) throws in
                let votes = ["--voters", "5", "--votes", "10"]
                switch order {
                case "backup first":
                    try cluster.backup()
                    usleep(300_000)
                    try cluster.primary(Cluster.quick + votes)
                case "primary first":
                    try cluster.primary(Cluster.quick + votes)
                    usleep(300_000)
                    try cluster.backup()
                default: try cluster.primary(Cluster.quick + votes)
                }
                try startClients(cluster, votes: 10)
                try cluster.waitForPair()
                for name in Cluster.names { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogsEqual(count: 10)
            }
        }

        /// POLLSRV_TEST_SEED=8841 gives another course of the kills.
        @Test func twentyKills() throws {
            let named = ProcessInfo.processInfo.environment["POLLSRV_TEST_SEED"]
            let seed = named.flatMap { UInt64($0) } ?? 0x1234_5678_9abc
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + autoVotes)
                try cluster.backup()
                try startClients(cluster)
                var generator = Seeded(state: max(1, seed))
                for round in 1...20 {
                    let leader = try cluster.waitForPair(witnesses: 3)
                    usleep(UInt32.random(in: 0...150_000, using: &generator))
                    let victim = Bool.random(using: &generator) ? "primary_pid" : "backup_pid"
                    guard let pid = leader[victim].flatMap({ Int32($0) }) else {
                        throw Trouble("seed \(seed), round \(round): no \(victim)")
                    }
                    #expect(kill(pid, SIGKILL) == 0)
                    let what = "seed \(seed), round \(round): the \(victim) to be replaced"
                    _ = try cluster.eventually(what) { () -> Bool? in
                        guard let now = cluster.leader, now["state"] == "pair",
                            now["primary_pid"] != "\(pid)", now["backup_pid"] != "\(pid)"
                        else { return nil }
                        return true
                    }
                }
                try endClients(cluster)
            }
        }

        @Test func pausedPrimary() throws {
            try with { (cluster) throws in
                let primary = try cluster.primary(Cluster.quick + autoVotes)
                try cluster.backup()
                try startClients(cluster)
                let before = try cluster.waitForPair(witnesses: 3)
                try waitForVotes(cluster, 5)
                let late = try RawClient(cluster.ports[0], seconds: 20)
                #expect(try late.ask("PING") == .text("PONG"))
                kill(primary.processIdentifier, SIGSTOP)
                let after = try cluster.eventually("the backup to take over") {
                    () -> [String: String]? in
                    guard let info = try? cluster.info(cluster.ports[1], seconds: 1),
                        info["mode"] == "primary"
                    else { return nil }
                    return info
                }
                let count = cluster.lines("ann").count
                try waitForVotes(cluster, count + 5)
                // These reach it before it can know that it is out: neither a read nor a write may
                // be answered as by a primary.
                try late.send(Array("VOTE.RESULTS 1\r\nVOTE.OPEN late ROLL open\r\n".utf8))
                kill(primary.processIdentifier, SIGCONT)
                do {
                    for _ in 0..<2 {
                        let reply = try late.receive()
                        #expect(["REDIRECT", "TRYAGAIN"].contains(reply.code), "\(reply)")
                    }
                } catch {
                    // It may end without an answer, but not be silent.
                    #expect("\(error)" == "closed", "\(cluster.words)")
                }
                // It must learn that it is out: as a backup, or by ending because its place is
                // taken.
                _ = try cluster.eventually("the old primary to step down") {
                    if !primary.isRunning { return true }
                    guard let info = try? cluster.info(cluster.ports[0], seconds: 1) else {
                        return nil
                    }
                    return info["mode"] != "primary" ? true : nil
                }
                #expect(Int(after["view"] ?? "") ?? 0 > Int(before["view"] ?? "") ?? 0)
                let leader = try cluster.waitForPair()
                let list = try RawClient(cluster.port(of: leader)).ask("VOTE.LIST COUNT 10000")
                #expect(!"\(list)".contains("late"), "a vote that no view has agreed on")
                try endClients(cluster)
            }
        }

        @Test func pausedBackup() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--misses", "20"]
                try cluster.primary(flags + autoVotes)
                let backup = try cluster.backup(flags)
                try startClients(cluster)
                let before = try cluster.waitForPair(witnesses: 3)
                kill(backup.processIdentifier, SIGSTOP)
                _ = try cluster.eventually("the primary to do without it") {
                    let now = try? cluster.info(cluster.ports[0], seconds: 1)
                    return now?["backup_pid"] == before["backup_pid"] ? nil : now
                }
                try waitForVotes(cluster, cluster.lines("ann").count + 5)
                kill(backup.processIdentifier, SIGCONT)
                _ = try cluster.eventually("the old backup to join again or to end") {
                    if !backup.isRunning { return true }
                    let info = try? cluster.info(cluster.ports[1], seconds: 1)
                    return info?["state"] == "pair" ? true : nil
                }
                let after = try cluster.waitForPair(witnesses: 3)
                #expect(after["primary_pid"] == before["primary_pid"])
                try endClients(cluster)
            }
        }

        @Test func switchoverUnderLoad() throws {
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + autoVotes)
                try cluster.backup()
                try startClients(cluster)
                for _ in 0..<6 {
                    let leader = try cluster.waitForPair(witnesses: 3)
                    let port = cluster.port(of: leader)
                    #expect(try RawClient(port).ask("REPLICA SWITCHOVER") == .text("OK"))
                    _ = try cluster.eventually("the other to lead") {
                        cluster.leader?["pid"] == leader["backup_pid"] ? true : nil
                    }
                }
                try endClients(cluster)
            }
        }

        /// A replacement that has become the backup, and hangs then, is replaced like any other.
        @Test func aReplacementThatHangs() throws {
            try with { (cluster) throws in
                try cluster.primary()
                for name in Cluster.names { try cluster.client(name) }
                let pair = try cluster.waitForPair(witnesses: 3)
                let pid = try #require(pair["backup_pid"].flatMap { Int32($0) })
                #expect(pair["restart"] == "none")
                kill(pid, SIGSTOP)
                defer { kill(pid, SIGKILL) }
                _ = try cluster.eventually("another backup") { () -> Bool? in
                    guard let leader = cluster.leader, leader["state"] == "pair" else { return nil }
                    return leader["backup_pid"] != pair["backup_pid"] ? true : nil
                }
            }
        }

        /// The backup hangs for longer than a hand-over waits for it, which is given up: the next one comes
        /// about without anybody asking again.
        @Test func switchoverToOneThatHangs() throws {
            try with { (cluster) throws in
                let flags = ["--heartbeat", "100ms", "--misses", "100", "--no-restart"]
                try cluster.primary(flags)
                let backup = try cluster.backup(flags)
                let pair = try cluster.waitForPair()
                let (port, pid) = (cluster.ports[0], backup.processIdentifier)
                kill(pid, SIGSTOP)
                defer { kill(pid, SIGCONT) }
                let client = try RawClient(port, seconds: 30)
                try client.send(Array("VOTE.OPEN x ROLL open\r\n".utf8))
                _ = try cluster.eventually("an op without an ack") {
                    let info = try cluster.info(port)
                    return info["op"] != info["commit"] ? true : nil
                }
                #expect(try RawClient(port).ask("REPLICA SWITCHOVER") == .text("OK"))
                // It waits for 500 ms.
                usleep(1_500_000)
                let info = try cluster.info(port)
                #expect(info["mode"] == "primary" && info["view"] == pair["view"])
                kill(pid, SIGCONT)
                _ = try cluster.eventually("the other to lead") {
                    cluster.leader?["pid"] == pair["backup_pid"] ? true : nil
                }
                let reply = try client.receive()
                #expect(reply == .number(1), "\(reply)")
            }
        }

        /// Either replica dies while the one hands over to the other.
        @Test func killInSwitchover() throws {
            var generator = Seeded(state: 77)
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + autoVotes)
                try cluster.backup()
                try startClients(cluster)
                for round in 1...8 {
                    let leader = try cluster.waitForPair(witnesses: 3)
                    let victim = round.isMultiple(of: 2) ? "primary_pid" : "backup_pid"
                    guard let pid = leader[victim].flatMap({ Int32($0) }) else {
                        throw Trouble("round \(round): no \(victim)")
                    }
                    let client = try RawClient(cluster.port(of: leader))
                    try client.send(Array("REPLICA SWITCHOVER\r\n".utf8))
                    usleep(UInt32.random(in: 0...3_000, using: &generator))
                    #expect(kill(pid, SIGKILL) == 0)
                    _ = try cluster.eventually("round \(round): the \(victim) to be replaced") {
                        () -> Bool? in
                        guard let now = cluster.leader, now["state"] == "pair",
                            now["primary_pid"] != "\(pid)", now["backup_pid"] != "\(pid)"
                        else { return nil }
                        return true
                    }
                }
                try endClients(cluster)
            }
        }

        @Test func terminatedPrimaryHandsOver() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--misses", "30"]
                let primary = try cluster.primary(flags + autoVotes)
                let backup = try cluster.backup(flags)
                try startClients(cluster)
                try cluster.waitForPair(witnesses: 3)
                try waitForVotes(cluster, 5)
                primary.terminate()
                #expect(try cluster.waitForExit("primary") == 0)
                _ = try cluster.eventually("the backup to lead and be a pair again") {
                    let leader = cluster.leader
                    return leader?["pid"] == "\(backup.processIdentifier)"
                        && leader?["state"] == "pair" ? true : nil
                }
                try endClients(cluster)
            }
        }

        @Test func bothTerminatedEndTheService() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--no-restart"]
                let primary = try cluster.primary(flags + autoVotes)
                let backup = try cluster.backup(flags)
                try startClients(cluster)
                try cluster.waitForPair(witnesses: 3)
                try waitForVotes(cluster, 5)
                primary.terminate()
                backup.terminate()
                #expect(try cluster.waitForExit("primary") == 0)
                #expect(try cluster.waitForExit("backup") == 0)
                // Neither hands over to the other for ever.
                let lines = (cluster.said("primary", "err") + cluster.said("backup", "err"))
                    .components(separatedBy: "\n")
                #expect(lines.count < 60, "\(cluster.words)")
            }
        }

        @Test func heldBallotIsCounted() throws {
            try with { (cluster) throws in
                let primary = try cluster.primary()
                try cluster.backup()
                try cluster.waitForPair()
                let first = try RawClient(cluster.ports[0])
                #expect(try first.ask("VOTE.OPEN question ROLL open") == .number(1))
                #expect(try first.ask("VOTE.CAST 1 ann yes") == .text("OK"))
                let second = try RawClient(cluster.ports[1])
                #expect(try second.ask("VOTE.CAST 1 bob no") == .text("HELD"))
                kill(primary.processIdentifier, SIGKILL)
                _ = try cluster.eventually("both ballots at the new primary") {
                    let list = try? second.ask("VOTE.LIST")
                    let wanted = RawClient.Reply.list([
                        .list([.number(1), .text("question"), .text("open"), .number(2)])
                    ])
                    return list == wanted ? true : nil
                }
                #expect(try second.ask("VOTE.CLOSE 1") == .text("OK"))
                #expect(
                    try second.ask("VOTE.RESULT 1") == .list([.number(1), .number(1), .number(1)]))
            }
        }

        @Test func callIsExecutedOnceOverAKill() throws {
            var generator = Seeded(state: 8_841)
            try with { (cluster) throws in
                try cluster.primary()
                try cluster.backup()
                for call in 1...8 {
                    let leader = try cluster.waitForPair()
                    let line = "CALL 77 \(call) VOTE.OPEN q\(call) ROLL open"
                    // Killed before, while or after it is executed: nobody reads the reply.
                    let client = try RawClient(cluster.port(of: leader))
                    try client.send(Array("\(line)\r\n".utf8))
                    usleep(UInt32.random(in: 0...400, using: &generator))
                    kill(try #require(leader["pid"].flatMap { Int32($0) }), SIGKILL)
                    let next = try cluster.eventually("another primary") {
                        let now = cluster.leader
                        return now?["pid"] == leader["pid"] ? nil : now
                    }
                    let other = try RawClient(cluster.port(of: next))
                    #expect(try other.ask(line) == .number(call))
                    #expect(try other.ask(line) == .number(call))
                    guard case .list(let votes) = try other.ask("VOTE.LIST") else {
                        throw Trouble("VOTE.LIST")
                    }
                    #expect(votes.count == call, "\(votes)\n\(cluster.words)")
                }
            }
        }

        @Test func tornLogIsMended() throws {
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + ["--voters", "2", "--votes", "8"])
                try cluster.backup()
                for name in ["ann", "bob"] { try cluster.client(name, votes: 8) }
                for name in ["ann", "bob"] { #expect(try cluster.waitForExit(name) == 0) }
                let url = URL(filePath: cluster.log("ann"))
                let whole = try Data(contentsOf: url)
                let torn = [
                    whole + Data("9 3".utf8), whole.dropLast(3), whole.dropLast(1),
                    whole.dropLast(whole.count / 2), Data("1 ".utf8), Data(),
                ]
                for data in torn {
                    try data.write(to: url)
                    try cluster.client("ann", votes: 8)
                    #expect(try cluster.waitForExit("ann") == 0)
                    cluster.checkLogsEqual(["ann", "bob"], count: 8)
                }
                // A log of another service is refused, and left as it is.
                let foreign = Data("1 7 7\n".utf8)
                try foreign.write(to: url)
                try cluster.client("ann", votes: 8)
                #expect(try cluster.waitForExit("ann") == 74)
                #expect(try Data(contentsOf: url) == foreign)
                try Data("2 7 7\n".utf8).write(to: url)
                try cluster.client("ann", votes: 8)
                #expect(try cluster.waitForExit("ann") == 74)
            }
        }
    }
}

/// xorshift64*, from a fixed seed.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_f491_4f6c_dd1d
    }
}
