import Foundation
import Testing

extension ProcessSuite {
    /// More than one service about: one that has ended, or one beside it.
    @Suite(.serialized) struct OtherServices {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private static let flags = ["--heartbeat", "100ms", "--no-restart"]

        /// A client that says HELLO and offers a witness before the server begins a service, which it does
        /// 3 s after its start. The machine may take as long for itself, but not each time.
        private func earlyClient(_ cluster: Cluster, peer: UInt16) throws -> RawClient {
            let port = cluster.ports[0]
            for round in 1...3 {
                let server = try cluster.start(
                    "primary\(round)", "pollsrv",
                    [
                        "--primary", "--listen", "127.0.0.1:\(port)", "--peer",
                        "127.0.0.1:\(peer)", "--data", "data\(round)",
                    ] + Self.flags)
                let client = try cluster.eventually("the server") { try? RawClient(port) }
                _ = try client.ask("HELLO 3")
                let reply = try client.ask("WITNESS OFFER 1")
                if reply.code == "NOSERVICE" { return client }
                #expect(reply == .text("OK"))
                kill(server.processIdentifier, SIGKILL)
                server.waitUntilExit()
            }
            throw Trouble("a service had begun each time\n\(cluster.words)")
        }

        /// A client that was an elector of another service is there before the server knows of any.
        @Test func aViewOfAnotherServiceIsNotBelieved() throws {
            try with { cluster in
                let silent = try FakeServer { _, _ in "" }
                defer { silent.stop() }
                let port = cluster.ports[0]
                let client = try earlyClient(cluster, peer: silent.port)
                let view = "6 0.1.b1.1.1@127.0.0.1:1 - a1 0.0"
                #expect(try client.ask("WITNESS view \"\(view)\"").code == "ERR")
                _ = try cluster.eventually("a vote") { () -> Bool? in
                    let desk = try RawClient(port)
                    return try desk.ask("VOTE.OPEN x ROLL open") == .number(1) ? true : nil
                }
                #expect(try cluster.info(port)["view"] == "1")
                // It hears that there is one now, and may offer itself.
                var push = try client.receive()
                while push != .text("OK"), case .push = push {
                    try client.send(Array("WITNESS OFFER 1\r\n".utf8))
                    push = try client.receive()
                }
                #expect(push == .text("OK"))
            }
        }

        /// The clients of a service that was ended are still there when its servers begin another.
        @Test func clientsOfAnEndedServiceDisturbNobody() throws {
            try with { cluster in
                let names = Array(Cluster.names.prefix(3))
                try cluster.primary(
                    Self.flags + ["--voters", "3", "--votes", "1000000", "--interval", "20ms"])
                try cluster.backup(Self.flags)
                for name in names { try cluster.client(name) }
                let leader = try cluster.waitForPair(witnesses: 3)
                _ = try cluster.eventually("results") {
                    names.allSatisfy { cluster.lines($0).count > 5 } ? true : nil
                }
                let port = cluster.port(of: leader)
                #expect(try RawClient(port).ask("REPLICA STOP") == .text("OK"))
                for name in ["primary", "backup"] { #expect(try cluster.waitForExit(name) == 0) }
                try cluster.backup(Self.flags)
                _ = try cluster.eventually("the clients at the new backup") { () -> Bool? in
                    let info = try? cluster.info(cluster.ports[1])
                    return Int(info?["connections"] ?? "") ?? 0 > names.count ? true : nil
                }
                usleep(300_000)
                try cluster.primary(Self.flags)
                let pair = try cluster.waitForPair()
                for name in names {
                    _ = try cluster.eventually("\(name)'s word") {
                        let said = cluster.said(name, "err")
                        return said.contains("serves another service") ? true : nil
                    }
                }
                sleep(2)
                let later = try cluster.waitForPair()
                for key in ["service", "view", "pid", "backup_pid"] {
                    #expect(later[key] == pair[key], "\(key)\n\(cluster.words)")
                }
                #expect(later["witnesses"] == "0")
            }
        }

        /// 1. Another service's primary finds a backup that is in none yet.
        /// 2. That joins this service; the other goes on to the view that this one is in.
        /// 3. The other is stopped.
        @Test func aBackupHasNoTiesToAServiceThatItIsNotIn() throws {
            try with { cluster in
                let ports = try cluster.freePorts(2)
                func start(_ name: String, _ mode: String, _ port: UInt16, _ peer: UInt16) throws {
                    let addresses = [
                        "--listen", "127.0.0.1:\(port)", "--peer", "127.0.0.1:\(peer)",
                    ]
                    try cluster.start(name, "pollsrv", ["--\(mode)"] + addresses + Self.flags)
                }
                try cluster.backup(Self.flags)
                _ = try cluster.eventually("it to listen") { try? RawClient(cluster.ports[1]) }
                try start("other", "primary", ports[0], cluster.ports[1])
                _ = try cluster.eventually("the other service") {
                    (try? RawClient(ports[0]).ask("VOTE.OPEN x ROLL open")) == .number(1)
                        ? true : nil
                }
                // Nobody is at the peer's address: this service begins at once.
                try start("primary", "primary", cluster.ports[0], 1)
                let pair = try cluster.waitForPair()
                try start("others", "backup", ports[1], ports[0])
                _ = try cluster.eventually("another pair") {
                    (try? cluster.info(ports[0]))?["state"] == "pair" ? true : nil
                }
                usleep(300_000)
                #expect(try RawClient(ports[0]).ask("REPLICA STOP") == .text("OK"))
                for name in ["other", "others"] { #expect(try cluster.waitForExit(name) == 0) }
                usleep(300_000)
                #expect(
                    try RawClient(cluster.ports[0]).ask("VOTE.OPEN x ROLL open") == .number(1))
                for port in cluster.ports {
                    let now = try cluster.info(port)
                    #expect(now["view"] == pair["view"], "\(cluster.words)")
                    #expect(now["state"] == "pair" && now["stalled"] != "1", "\(cluster.words)")
                }
            }
        }

        /// Names are looked up beside the loop; one that nobody has is said, and holds up nothing.
        @Test func peersByName() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let (own, other) = (cluster.ports[0], cluster.ports[1])
            let flags = ["--heartbeat", "100ms", "--misses", "30", "--no-restart"]
            try cluster.start(
                "primary", "pollsrv",
                ["--primary", "--listen", "127.0.0.1:\(own)", "--peer", "localhost:\(other)"]
                    + flags)
            _ = try cluster.eventually("a service") { cluster.leader }
            #expect(cluster.said("primary", "err").contains("nobody listens at localhost:"))
            let names = "no.such.name.invalid:1,localhost:\(own)"
            try cluster.start(
                "backup", "pollsrv", ["--join", names, "--listen", "127.0.0.1:\(other)"] + flags)
            try cluster.waitForPair()
            let words = "no.such.name.invalid: no such name"
            // Where name servers do not answer, it takes a minute until they are given up.
            _ = try cluster.eventually("the other name to be told", within: 120) {
                cluster.said("backup", "err").contains(words) ? true : nil
            }
        }

        /// A service ends while a backup in memory is about to join it, and another begins in its place.
        @Test func whatHasNothingIsNotBoundToAServiceThatHasEnded() throws {
            try with { cluster in
                let member = "0.1.aaaa.1.1@127.0.0.1:1"
                let view = "7 \(member) - aaaa 0.0"
                let first = try FakeServer { _, request in
                    let words = FakeServer.words(request)
                    guard words.starts(with: ["PEER", "hello"]), words.count > 2 else {
                        return words.contains("join") ? nil : ""
                    }
                    let service = String(repeating: "5", count: 32)
                    return FakeServer.command([
                        "PEER", "hello", words[2], service, "member", member, view, "sticky", "-",
                        "-",
                    ]) + FakeServer.command(["PEER", "view", view])
                }
                let ports = cluster.ports.map { "127.0.0.1:\($0)" }
                try cluster.start(
                    "backup", "pollsrv",
                    ["--listen", ports[1], "--join", "127.0.0.1:\(first.port),\(ports[0])"]
                        + Self.flags)
                _ = try cluster.eventually("a join that fails") {
                    cluster.said("backup", "err").contains("joining did not succeed") ? true : nil
                }
                first.stop()
                try cluster.start(
                    "primary", "pollsrv",
                    ["--primary", "--listen", ports[0], "--peer", "127.0.0.1:1"] + Self.flags)
                _ = try cluster.eventually("a pair", within: 10) {
                    let info = try? cluster.info(cluster.ports[1])
                    return info?["state"] == "pair" && info?["view"] == "2" ? true : nil
                }
            }
        }
    }
}
