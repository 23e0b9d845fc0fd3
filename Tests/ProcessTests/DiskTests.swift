import Foundation
import Testing

/// Servers with `--data`: killed, started again, with nothing lost. One after the other, beside those
/// of `ProcessSuite`.
@Suite(.serialized) struct Disks {
    private func server(_ cluster: Cluster, _ index: Int, round: Int) throws {
        let (own, peer) = (cluster.ports[index], cluster.ports[1 - index])
        let mode = index == 0 ? "primary" : "backup"
        let folder = cluster.folder.appending(path: "data-\(mode)").path
        var flags = [
            "--\(mode)", "--listen", "127.0.0.1:\(own)", "--peer", "127.0.0.1:\(peer)",
            "--data", folder, "--heartbeat", "100ms",
        ]
        if index == 0 { flags += ["--voters", "2", "--votes", "100000", "--interval", "5ms"] }
        try cluster.start("\(mode)-\(round)", "pollsrv", flags)
    }

    private func kill(_ cluster: Cluster, _ name: String) throws {
        let process = try #require(cluster.processes[name])
        Foundation.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Both at once, and started again in either order. What any client has logged stands.
    @Test func bothAreKilledAndComeBack() throws {
        let cluster = try Cluster()
        defer { cluster.end() }
        for index in 0...1 { try server(cluster, index, round: 0) }
        for name in ["ann", "bob"] { try cluster.client(name) }
        var seen = 0
        for round in 1...4 {
            _ = try cluster.eventually("results in round \(round)", within: 60) {
                cluster.lines("ann").count >= seen + 5 ? true : nil
            }
            for mode in ["primary", "backup"] { try kill(cluster, "\(mode)-\(round - 1)") }
            seen = cluster.lines("ann").count
            let order = round % 2 == 0 ? [0, 1] : [1, 0]
            for index in order { try server(cluster, index, round: round) }
        }
        _ = try cluster.eventually("results after the last round", within: 60) {
            cluster.lines("ann").count >= seen + 5 ? true : nil
        }
        let (ann, bob) = (cluster.lines("ann"), cluster.lines("bob"))
        let count = min(ann.count, bob.count)
        #expect(ann.prefix(count) == bob.prefix(count))
        for (index, line) in ann.enumerated() { #expect(line.hasPrefix("\(index + 1) ")) }
    }

    /// The same answers as before, and an exactly-once call stays one.
    @Test func everythingIsThereAfterARestart() throws {
        let cluster = try Cluster()
        defer { cluster.end() }
        let folder = cluster.folder.appending(path: "data").path
        let flags = [
            "--primary", "--listen", "127.0.0.1:\(cluster.ports[0])", "--peer", "127.0.0.1:1",
            "--data", folder,
        ]
        try cluster.start("first", "pollsrv", flags)
        let confirmed = RawClient.Reply.text("Reservation confirmed")
        let call = "CALL 7 1 ROOM.RESERVE SA318 8:30-9:30 Monday"
        _ = try cluster.eventually("a reservation", within: 30) {
            try? RawClient(cluster.ports[0]).ask(call) == confirmed ? true : nil
        }
        let other = try cluster.start("second", "pollsrv", flags)
        other.waitUntilExit()
        #expect(other.terminationStatus == 74)
        try kill(cluster, "first")
        try cluster.start("third", "pollsrv", flags)
        let check = RawClient.Reply.text("SA318 8:30-9:30 Monday")
        _ = try cluster.eventually("the reservation after the restart", within: 60) {
            try? RawClient(cluster.ports[0]).ask("ROOM.CHECK SA318") == check ? true : nil
        }
        #expect(try RawClient(cluster.ports[0]).ask(call) == confirmed)
        let again = "ROOM.RESERVE SA318 8:30-9:30 Monday"
        #expect(
            try RawClient(cluster.ports[0]).ask(again) == .text("Reservation already exists"))
    }
}
