import Foundation
import Testing

extension ProcessSuite {
    /// A server is promoted by force that is not the only one.
    @Suite(.serialized) struct ForcedViews {
        private static let flags = [
            "--heartbeat", "100ms", "--misses", "20", "--no-restart", "--test-hooks",
        ]

        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(Self.flags)
            try cluster.backup(Self.flags)
            try cluster.waitForPair()
            try body(cluster)
        }

        private func link(_ cluster: Cluster, _ action: String) throws {
            for port in cluster.ports {
                #expect(try RawClient(port).ask("LINK \(action)") == .text("OK"))
            }
        }

        private func promote(_ cluster: Cluster, _ index: Int) throws {
            _ = try cluster.eventually("a promotion") { () -> Bool? in
                let client = try? RawClient(cluster.ports[index])
                return (try? client?.ask("REPLICA PROMOTE FORCE")) == .text("OK") ? true : nil
            }
            _ = try cluster.eventually("it to lead") {
                let info = try? cluster.info(cluster.ports[index])
                return info?["mode"] == "primary" && info?["state"] == "solo" ? true : nil
            }
        }

        /// 1. The link is cut, and the backup hangs: the primary goes on alone, with the clients' votes.
        /// 2. The clients go, the backup wakes up, and people promote it.
        /// 3. The link is healed: each of the two is alone in its view and leads.
        @Test func twoPrimariesMeet() throws {
            try with { cluster in
                let names = Array(Cluster.names.prefix(3))
                for name in names { try cluster.client(name) }
                try cluster.waitForPair(witnesses: 3)
                let backup = try #require(cluster.processes["backup"]).processIdentifier
                try link(cluster, "CUT")
                kill(backup, SIGSTOP)
                _ = try cluster.eventually("the primary alone") {
                    (try? cluster.info(cluster.ports[0]))?["state"] == "solo" ? true : nil
                }
                for name in names {
                    let process = try #require(cluster.processes[name])
                    kill(process.processIdentifier, SIGKILL)
                    process.waitUntilExit()
                }
                kill(backup, SIGCONT)
                try promote(cluster, 1)
                // Behind the cut neither can know.
                sleep(2)
                for port in cluster.ports { #expect(try cluster.info(port)["mode"] == "primary") }
                try link(cluster, "HEAL")
                _ = try cluster.eventually("one of the two to step down", within: 60) {
                    let infos = cluster.ports.compactMap { try? cluster.info($0) }
                    return infos.count == 2 && infos[0]["mode"] == "backup"
                        && infos[1]["mode"] == "primary"
                        && infos.allSatisfy { $0["state"] == "pair" } ? true : nil
                }
            }
        }

        /// 1. Bob's ballot comes to the backup before the vote is opened, and the primary is cut off.
        /// 2. The primary is promoted by force. What number the vote would have had is another's now.
        ///
        /// `hasHistory`: the backup keeps its state, of which there is some; else it is sent one.
        @Test(arguments: [true, false]) func ballotsFromBeforeAForceAreNotCast(
            hasHistory: Bool
        ) throws {
            try with { cluster in
                let vote = hasHistory ? 2 : 1
                if hasHistory {
                    let first = try RawClient(cluster.ports[0])
                    #expect(try first.ask("VOTE.OPEN first ROLL open") == .number(1))
                }
                let second = try RawClient(cluster.ports[1])
                #expect(try second.ask("VOTE.CAST \(vote) bob yes") == .text("HELD"))
                try link(cluster, "CUT")
                try promote(cluster, 0)
                try link(cluster, "HEAL")
                try cluster.waitForPair()
                let first = try RawClient(cluster.ports[0])
                #expect(try first.ask("VOTE.OPEN another ROLL open") == .number(vote))
                #expect(try cluster.info(cluster.ports[1])["held"] == "0")
                #expect(try second.ask("VOTE.CAST \(vote) cem yes") == .text("HELD"))
                let primary = try #require(cluster.processes["primary"])
                kill(primary.processIdentifier, SIGKILL)
                let list = "VOTE.LIST FROM \(vote)"
                _ = try cluster.eventually("cem's ballot") {
                    try second.ask(list) == Self.votes(vote, 1) ? true : nil
                }
                usleep(100_000)
                #expect(try second.ask(list) == Self.votes(vote, 1))
            }
        }

        private static func votes(_ vote: Int, _ ballots: Int) -> RawClient.Reply {
            .list([.list([.number(vote), .text("another"), .text("open"), .number(ballots)])])
        }

        /// No one was promoted: what is held may be the only copy.
        @Test func heldBallotsOutlastAJoin() throws {
            try with { cluster in
                for name in Cluster.names.prefix(3) { try cluster.client(name) }
                try cluster.waitForPair(witnesses: 3)
                let port = cluster.ports[1]
                #expect(try RawClient(port).ask("VOTE.CAST 1 bob yes") == .text("HELD"))
                let backup = try #require(cluster.processes["backup"]).processIdentifier
                kill(backup, SIGSTOP)
                _ = try cluster.eventually("the primary alone") {
                    (try? cluster.info(cluster.ports[0]))?["state"] == "solo" ? true : nil
                }
                kill(backup, SIGCONT)
                try cluster.waitForPair()
                #expect(try cluster.info(port)["held"] == "1")
            }
        }
    }
}
