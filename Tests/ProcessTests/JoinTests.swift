import Foundation
import Synchronization
import Testing

/// What a primary does with a server that wants to join and is not let in.
enum JoinRefusal: CaseIterable {
    /// It says so to the hello.
    case atHello
    /// It sends a state that cannot be used.
    case byState
    /// It closes the connection.
    case byClosing
}

/// A primary that lets nobody in, and counts who asks.
private final class StrictPrimary: Sendable {
    private let refusal: JoinRefusal
    private let joins = Mutex(0)

    // On another host, so that nobody looks for its process.
    private static let member = "0.1.aaaa.1.1@127.0.0.1:1"
    private static let view = "1 \(member) - aaaa 0.0"

    init(_ refusal: JoinRefusal) { self.refusal = refusal }

    var count: Int { joins.withLock { $0 } }

    /// What is sent for these commands; nil: the connection is closed.
    func answer(_ request: String) -> String? {
        let words = FakeServer.words(request)
        if words.starts(with: ["PEER", "hello"]), words.count > 2 {
            guard refusal != .atHello else {
                joins.withLock { $0 += 1 }
                return "-PEER not you\r\n"
            }
            let service = String(repeating: "5", count: 32)
            return FakeServer.command([
                "PEER", "hello", words[2], service, "member", Self.member, Self.view, "sticky",
                "-", "-",
            ])
        }
        guard let place = words.firstIndex(of: "join"), place + 1 < words.count else { return "" }
        joins.withLock { $0 += 1 }
        guard refusal == .byState else { return nil }
        // The second of two pieces comes first.
        return FakeServer.command([
            "PEER", "state", words[place + 1], "5", "1", "2", Self.view, "x",
        ])
    }
}

extension ProcessSuite {
    @Suite(.serialized) struct Joins {
        /// With the wrong address, or when nobody has begun a service.
        @Test func whoFindsNobodySaysSo() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let port = cluster.ports[1]
            let peer = "127.0.0.1:\(cluster.ports[0])"
            try cluster.start(
                "backup", "pollsrv", ["--backup", "--listen", "127.0.0.1:\(port)", "--peer", peer])
            _ = try cluster.eventually("a word") {
                cluster.said("backup", "err").contains("no service has been found") ? true : nil
            }
            let note = try cluster.info(port)["note"]
            #expect(
                note?.contains("waiting for a service; connect \(peer): ") == true, "\(note ?? "")")
            let status = try cluster.run("pollctl", ["status", "--servers", "127.0.0.1:\(port)"])
            #expect(status.status == 69 && status.error.contains("look for a service"), "\(status)")
            let programs = try cluster.run(
                "pollctl", ["status", "--json", "--servers", "127.0.0.1:\(port)"])
            let object = try JSONSerialization.jsonObject(with: Data(programs.output.utf8))
            let shown = try #require(object as? [String: Any], "\(programs)")
            #expect(programs.status == 69 && shown["primary"] is NSNull, "\(programs)")
            #expect((shown["servers"] as? [Any])?.count == 1, "\(programs)")
            try cluster.primary()
            try cluster.waitForPair()
            #expect(try cluster.info(port)["note"] == "")
        }

        /// It knows who leads: to end the service is for that one.
        @Test func aLearnerThatIsToldToStopNamesThePrimary() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let view = "1 0.1.aaaa.1.1@127.0.0.1:1 - aaaa 0.0"
            let hello = ["member", "0.1.aaaa.1.1@127.0.0.1:1", view, "sticky", "-", "-"]
            let primary = try FakeServer { _, request in
                let words = FakeServer.words(request)
                guard words.starts(with: ["PEER", "hello"]), words.count > 2 else { return "" }
                let service = String(repeating: "5", count: 32)
                return FakeServer.command(["PEER", "hello", words[2], service] + hello)
                    + FakeServer.command(["PEER", "view", view])
            }
            defer { primary.stop() }
            let port = cluster.ports[1]
            try cluster.start(
                "backup", "pollsrv",
                [
                    "--backup", "--listen", "127.0.0.1:\(port)", "--peer",
                    "127.0.0.1:\(primary.port)",
                ])
            _ = try cluster.eventually("it to wait for the state") {
                (try? cluster.info(port)["note"]) == "fetching the state" ? true : nil
            }
            #expect(try RawClient(port).ask("REPLICA STOP") == .error("REDIRECT 127.0.0.1:1"))
            #expect(cluster.processes["backup"]?.isRunning == true)
        }

        /// Where others are told to find it is the way from outside: on its own host a replacement takes
        /// the address at which it listens.
        @Test func aReplacementReachesItsPrimaryFromWithin() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let port = cluster.ports[0]
            try cluster.start(
                "primary", "pollsrv",
                [
                    "--primary", "--listen", "127.0.0.1:\(port)", "--advertise",
                    // Of this machine as well, but nobody listens there.
                    "127.9.9.9:\(port)", "--peer", "127.0.0.1:\(cluster.ports[1])",
                ] + Cluster.quick)
            _ = try cluster.eventually("a pair", within: 60) {
                try cluster.info(port, seconds: 1)["state"] == "pair" ? true : nil
            }
        }

        /// What others have said meanwhile has not been heard by one that was stopped: that it has waited
        /// long enough is no reason to begin a second service.
        @Test func whoWasStoppedWhileItLookedAroundBeginsNothing() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let flags = Cluster.quick + ["--no-restart"]
            // The first must not find that nobody listens there.
            let silent = try cluster.backup(flags)
            _ = try cluster.eventually("it to listen") { try? RawClient(cluster.ports[1]) }
            kill(silent.processIdentifier, SIGSTOP)
            let first = try cluster.primary(flags)
            _ = try cluster.eventually("it to look around") {
                try cluster.info(cluster.ports[0])["state"] == nil ? nil : true
            }
            kill(first.processIdentifier, SIGSTOP)
            kill(silent.processIdentifier, SIGKILL)
            silent.waitUntilExit()
            let addresses = cluster.ports.map { "127.0.0.1:\($0)" }
            try cluster.start(
                "other", "pollsrv",
                ["--primary", "--listen", addresses[1], "--peer", addresses[0]] + flags)
            let service = try cluster.eventually("the other to begin a service") {
                let info = try cluster.info(cluster.ports[1], seconds: 1)
                return info["mode"] == "primary" ? info["service"] : nil
            }
            kill(first.processIdentifier, SIGCONT)
            try cluster.waitForPair()
            #expect(try cluster.info(cluster.ports[0])["service"] == service)
        }

        /// Each costs the primary a state, or at least a connection: they may not come as fast as the
        /// server can.
        @Test func whoIsRefusedBacksOff() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let primaries = JoinRefusal.allCases.map(StrictPrimary.init)
            var servers: [FakeServer] = []
            defer { for server in servers { server.stop() } }
            let began = ContinuousClock.now
            for (refusal, primary) in zip(JoinRefusal.allCases, primaries) {
                let server = try FakeServer { _, request in primary.answer(request) }
                servers.append(server)
                try cluster.start(
                    "\(refusal)", "pollsrv",
                    [
                        "--backup", "--listen", "127.0.0.1:0", "--peer",
                        "127.0.0.1:\(server.port)",
                    ])
            }
            _ = try cluster.eventually("joins") {
                primaries.allSatisfy { $0.count > 0 } ? true : nil
            }
            sleep(3)
            _ = try cluster.eventually("four joins of each") {
                primaries.allSatisfy { $0.count >= 4 } ? true : nil
            }
            for (refusal, primary) in zip(JoinRefusal.allCases, primaries) {
                let count = primary.count
                let seconds = (ContinuousClock.now - began) / Duration.seconds(1)
                // After 20 or 40 ms, doubling to 1 s; without pauses it would be hundreds.
                #expect(
                    Double(count) <= 24 + 2 * seconds,
                    "\(count) joins in \(seconds) s, \(refusal)\n\(cluster.words)")
                #expect(cluster.processes["\(refusal)"]?.isRunning == true)
            }
        }

        @Test(arguments: ["backup first", "primary first", "primary alone"])
        func startOrder(order: String) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
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
            try cluster.startClients(votes: 10)
            try cluster.waitForPair()
            for name in Cluster.names { #expect(try cluster.waitForExit(name) == 0) }
            cluster.checkLogsEqual(count: 10)
        }
    }
}
