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
