import Foundation
import Testing

extension ProcessSuite {
    /// A replica is killed or stands still while voters vote: nothing that they were told is lost.
    @Suite(.serialized) struct Failures {
        /// Runs a scenario on a cluster that is ended whatever happens.
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        /// POLLSRV_TEST_SEED=8841 gives another course of the kills.
        @Test func twentyKills() throws {
            let named = ProcessInfo.processInfo.environment["POLLSRV_TEST_SEED"]
            let seed = named.flatMap { UInt64($0) } ?? 0x1234_5678_9abc
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + Cluster.autoVotes)
                try cluster.backup()
                try cluster.startClients()
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
                try cluster.endClients()
            }
        }

        private static let canUnshare = Cluster.succeeds(["unshare", "--pid", "--fork", "true"])

        /// On another host a process that is killed may take connections a little longer than it keeps
        /// those that it has; here for half a second.
        @Test(.enabled(if: canUnshare, "it takes the right to make a process namespace"))
        func whoStillListensIsAskedAgain() throws {
            try with { cluster in
                let patience = ["--heartbeat", "1s", "--misses", "60", "--no-restart"]
                let way = try Proxy(before: cluster.ports[1], seed: 7)
                try cluster.primary(patience)
                let program = Cluster.binaries.appending(path: "pollsrv").path
                let backup = try cluster.start(
                    "backup", "/usr/bin/env",
                    [
                        "unshare", "--pid", "--fork", "--kill-child", program, "--backup",
                        "--listen",
                        "127.0.0.1:\(cluster.ports[1])", "--advertise", "127.0.0.1:\(way.port)",
                        "--peer",
                        "127.0.0.1:\(cluster.ports[0])",
                    ] + patience)
                try cluster.startClients()
                try cluster.waitForPair(witnesses: 3)
                kill(backup.processIdentifier, SIGKILL)
                usleep(500_000)
                #expect(try cluster.info(cluster.ports[0])["state"] == "pair")
                way.stop()
                _ = try cluster.eventually("the primary to go on alone") {
                    try cluster.info(cluster.ports[0])["state"] == "solo" ? true : nil
                }
                // Not because it has waited long enough.
                #expect(try cluster.info(cluster.ports[0])["misses"] == "60")
            }
        }

        /// On one host and without clients a backup alone cannot tell that its primary will not go on.
        @Test func aBackupThatWaitsSaysForWhat() throws {
            try with { cluster in
                let primary = try cluster.primary(Cluster.quick + ["--no-restart"])
                try cluster.backup(Cluster.quick + ["--no-restart"])
                try cluster.waitForPair()
                kill(primary.processIdentifier, SIGSTOP)
                defer { kill(primary.processIdentifier, SIGCONT) }
                let info = try cluster.eventually("a stall") { () -> [String: String]? in
                    let info = try cluster.info(cluster.ports[1])
                    return info["stalled"] == "1" ? info : nil
                }
                #expect(info["note"]?.contains("needs 2 of 2 electors") == true, "\(info)")
            }
        }

        @Test func pausedPrimary() throws {
            try with { (cluster) throws in
                let primary = try cluster.primary(Cluster.quick + Cluster.autoVotes)
                try cluster.backup()
                try cluster.startClients()
                let before = try cluster.waitForPair(witnesses: 3)
                try cluster.waitForVotes(5)
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
                try cluster.waitForVotes(count + 5)
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
                try cluster.endClients()
            }
        }

        @Test func pausedBackup() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--misses", "20"]
                try cluster.primary(flags + Cluster.autoVotes)
                let backup = try cluster.backup(flags)
                try cluster.startClients()
                let before = try cluster.waitForPair(witnesses: 3)
                kill(backup.processIdentifier, SIGSTOP)
                _ = try cluster.eventually("the primary to do without it") {
                    let now = try? cluster.info(cluster.ports[0], seconds: 1)
                    return now?["backup_pid"] == before["backup_pid"] ? nil : now
                }
                try cluster.waitForVotes(cluster.lines("ann").count + 5)
                kill(backup.processIdentifier, SIGCONT)
                _ = try cluster.eventually("the old backup to join again or to end") {
                    if !backup.isRunning { return true }
                    let info = try? cluster.info(cluster.ports[1], seconds: 1)
                    return info?["state"] == "pair" ? true : nil
                }
                let after = try cluster.waitForPair(witnesses: 3)
                #expect(after["primary_pid"] == before["primary_pid"])
                try cluster.endClients()
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
    }
}
