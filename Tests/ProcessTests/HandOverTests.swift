import Foundation
import Testing

extension ProcessSuite {
    /// The primary's part goes to the backup at somebody's wish, and not as somebody has failed.
    @Suite(.serialized) struct HandOvers {
        /// Runs a scenario on a cluster that is ended whatever happens.
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        @Test func switchoverUnderLoad() throws {
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + Cluster.autoVotes)
                try cluster.backup()
                try cluster.startClients()
                for _ in 0..<6 {
                    let leader = try cluster.waitForPair(witnesses: 3)
                    let port = cluster.port(of: leader)
                    #expect(try RawClient(port).ask("REPLICA SWITCHOVER") == .text("OK"))
                    _ = try cluster.eventually("the other to lead") {
                        cluster.leader?["pid"] == leader["backup_pid"] ? true : nil
                    }
                }
                try cluster.endClients()
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
                try cluster.primary(Cluster.quick + Cluster.autoVotes)
                try cluster.backup()
                try cluster.startClients()
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
                try cluster.endClients()
            }
        }

        @Test func terminatedPrimaryHandsOver() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--misses", "30"]
                let primary = try cluster.primary(flags + Cluster.autoVotes)
                let backup = try cluster.backup(flags)
                try cluster.startClients()
                try cluster.waitForPair(witnesses: 3)
                try cluster.waitForVotes(5)
                primary.terminate()
                #expect(try cluster.waitForExit("primary") == 0)
                _ = try cluster.eventually("the backup to lead and be a pair again") {
                    let leader = cluster.leader
                    return leader?["pid"] == "\(backup.processIdentifier)"
                        && leader?["state"] == "pair" ? true : nil
                }
                try cluster.endClients()
            }
        }

        @Test func bothTerminatedEndTheService() throws {
            try with { (cluster) throws in
                let flags = Cluster.quick + ["--no-restart"]
                let primary = try cluster.primary(flags + Cluster.autoVotes)
                let backup = try cluster.backup(flags)
                try cluster.startClients()
                try cluster.waitForPair(witnesses: 3)
                try cluster.waitForVotes(5)
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
    }
}
