import Foundation
import Testing

extension ProcessSuite {
    /// Voters who join while a server that has come back from its disk waits for the other, and so has not
    /// executed all that it has.
    @Suite(.serialized) struct DiskJoins {
        private func flags(_ cluster: Cluster, _ name: String) -> [String] {
            // The other is missed only after a while: till then the first goes on in its view.
            Cluster.quick + ["--misses", "100", "--no-restart"]
                + ["--data", cluster.folder.appending(path: name).path]
        }

        /// With ann on the roll of what is executed at the first server, and taken off behind that.
        private func withRestarted(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(flags(cluster, "a"))
            _ = try cluster.eventually("it to lead") { cluster.leader }
            let ann = try RawClient(cluster.ports[0])
            #expect(try ann.ask("VOTE.JOIN ann") == .text("OK"))
            try cluster.backup(flags(cluster, "b"))
            _ = try cluster.waitForPair()
            #expect(try ann.ask("VOTE.LEAVE") == .text("OK"))
            // Neither is to learn of the other's end.
            let servers = ["primary", "backup"].compactMap { cluster.processes[$0] }
            for signal in [SIGSTOP, SIGKILL] {
                for server in servers { Foundation.kill(server.processIdentifier, signal) }
            }
            for server in servers { server.waitUntilExit() }
            try cluster.primary(flags(cluster, "a"))
            _ = try cluster.eventually("it to wait for the other") {
                try? cluster.info(cluster.ports[0], seconds: 1)["mode"] == "primary" ? true : nil
            }
            try body(cluster)
        }

        /// What is asked on another connection afterwards is answered when this has been read.
        private func send(_ line: String, _ client: RawClient, _ cluster: Cluster) throws {
            try client.send(Array("\(line)\r\n".utf8))
            let other = try RawClient(cluster.ports[0], seconds: 60)
            #expect(try other.ask("PING") == .text("PONG"))
        }

        /// `OK` means on the roll.
        @Test func whoWasTakenOffJoinsAgain() throws {
            try withRestarted { cluster in
                let ann = try RawClient(cluster.ports[0], seconds: 60)
                try send("VOTE.JOIN ann", ann, cluster)
                try cluster.backup(flags(cluster, "b"))
                let words = "-TRYAGAIN the voter has been taken off the roll meanwhile"
                #expect(try ann.receive().description == words)
                #expect(try ann.ask("VOTE.JOIN ann") == .text("OK"))
                #expect(try cluster.info(cluster.ports[0])["voters"] == "1")
            }
        }

        /// It is sent the end of the log alone, and may come to lead with the rest as its folder has it: it
        /// counts the time of votes that it has found there from its start.
        @Test func whoComesBackClosesWhatItFoundOpen() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let flags = Cluster.quick + ["--no-restart", "--data"]
            try cluster.primary(flags + ["a"])
            _ = try cluster.eventually("it to lead") { cluster.leader }
            let client = try RawClient(cluster.ports[0])
            #expect(try client.ask("VOTE.OPEN Late? DEADLINE 8000 ROLL open") == .number(1))
            // It begins with a state in which the vote is open, and never executes that it was opened.
            try cluster.backup(flags + ["b"])
            try cluster.waitForPair()
            let backup = try #require(cluster.processes["backup"])
            backup.terminate()
            #expect(try cluster.waitForExit("backup") == 0)
            // It has taken its leave, and not only run out of time.
            let words = cluster.said("backup", "err")
            #expect(!words.contains("without having been let go"), "\(words)")
            try cluster.backup(flags + ["b"])
            try cluster.waitForPair()
            // It knows that the primary is in their view, without which nothing follows from that one's end.
            #expect(try client.ask("VOTE.OPEN More? ROLL open") == .number(2))
            try kill(cluster, "primary")
            let heir = try cluster.eventually("another to lead") { () -> RawClient? in
                let info = try? cluster.info(cluster.ports[1], seconds: 1)
                return info?["mode"] == "primary" ? try RawClient(cluster.ports[1]) : nil
            }
            _ = try cluster.eventually("the deadline", within: 60) {
                try heir.ask("VOTE.RESULT 1") == .null ? nil : true
            }
        }

        private func kill(_ cluster: Cluster, _ name: String) throws {
            let process = try #require(cluster.processes[name])
            Foundation.kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }

        /// The second is told at once, and the first stays who it is.
        @Test func twoOfOneName() throws {
            try withRestarted { cluster in
                let clients = try [
                    RawClient(cluster.ports[0], seconds: 60),
                    RawClient(cluster.ports[0], seconds: 60),
                ]
                for client in clients { try send("VOTE.JOIN bob", client, cluster) }
                try cluster.backup(flags(cluster, "b"))
                let replies = try clients.map { try $0.receive().description }
                #expect(replies == ["OK", "-NAMEINUSE another connection has joined as bob"])
                #expect(try clients[1].ask("VOTE.JOIN cem") == .text("OK"))
                #expect(try cluster.info(cluster.ports[0])["voters"] == "2")
            }
        }
    }
}
