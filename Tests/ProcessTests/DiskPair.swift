import Foundation
import Testing

/// Two servers with a folder each, which may be killed and started again in either mode, clients
/// that vote all along, and a ledger of what was acknowledged.
final class DiskPair {
    let cluster: Cluster
    let ledger: Ledger
    let names: [String]
    /// Added to the flags of each start.
    var flags: [String] = []
    /// A command that runs each server, if not by itself.
    var prefix: [String] = []
    /// What each server's environment has beside our own.
    var environments: [[String: String]] = [[:], [:]]
    private(set) var servers: [Process?] = [nil, nil]

    static let votes = ["--voters", "3", "--votes", "1000000000", "--interval", "20ms"]

    /// `clients`: how many vote, and may be witnesses. The journal's files are small, so that it goes
    /// from one to the next, and makes checkpoints, in what a test writes; to look through the usual
    /// 64 MiB takes servers built for debugging seconds at each start.
    init(clients: Int = 3, flags: [String] = []) throws {
        cluster = try Cluster()
        names = Array(Cluster.names.prefix(clients))
        self.flags = ["--segment", "1"] + flags
        let rooms = (0..<Ledger.roomCount).map(Ledger.room).joined(separator: "\n")
        try Data(rooms.utf8).write(to: cluster.folder.appending(path: "rooms"))
        ledger = Ledger(cluster.ports)
    }

    /// Starts both, the clients and the ledger, and waits until they are a pair.
    func begin(ledger isLedgerKept: Bool = true) throws {
        try start(0, "primary")
        try start(1, "backup")
        for name in names { try cluster.client(name, votes: 0, ["--vote", "no"]) }
        try waitForPair()
        if isLedgerKept { ledger.begin() }
    }

    func end() {
        ledger.end()
        cluster.end()
    }

    func folder(_ index: Int) -> String { cluster.folder.appending(path: "data\(index)").path }
    func name(_ index: Int) -> String { "server\(index)" }

    // MARK: Servers

    @discardableResult
    func start(_ index: Int, _ mode: String) throws -> Process {
        let (own, peer) = (cluster.ports[index], cluster.ports[1 - index])
        let command = prefix + [Cluster.binaries.appending(path: "pollsrv").path]
        let process = try cluster.start(
            name(index), prefix.isEmpty ? "pollsrv" : "/usr/bin/env",
            (prefix.isEmpty ? [] : command) + [
                "--\(mode)", "--listen", "127.0.0.1:\(own)", "--peer", "127.0.0.1:\(peer)",
                "--data", folder(index), "--heartbeat", "100ms", "--no-restart", "--rooms",
                cluster.folder.appending(path: "rooms").path,
            ] + (names.isEmpty ? [] : Self.votes) + flags,
            environment: environments[index])
        servers[index] = process
        return process
    }

    /// `atOnce`: none sees another's end.
    func kill(_ indices: [Int], atOnce: Bool = false) throws {
        for index in indices where atOnce {
            Foundation.kill(try #require(servers[index]).processIdentifier, SIGSTOP)
        }
        for index in indices {
            Foundation.kill(try #require(servers[index]).processIdentifier, SIGKILL)
        }
        for index in indices { servers[index]?.waitUntilExit() }
    }

    /// Ends a server as an operator would, or both at once.
    func terminate(_ indices: [Int]) throws {
        for index in indices { servers[index]?.terminate() }
        for index in indices {
            let code = try cluster.waitForExit(name(index))
            #expect(code == 0, "server \(index)\n\(cluster.words)")
        }
    }

    func waitForPair(within seconds: Double = 60) throws {
        _ = try cluster.eventually("a pair", within: seconds) { () -> Bool? in
            let infos = cluster.ports.compactMap { try? cluster.info($0, seconds: 1) }
            let leaders = infos.filter { $0["mode"] == "primary" }
            return infos.count == 2 && infos.allSatisfy { $0["state"] == "pair" }
                && leaders.count == 1 && infos[0]["view"] == infos[1]["view"] ? true : nil
        }
    }

    /// The place of the server that leads.
    func leader() throws -> Int {
        try cluster.eventually("a leader", within: 60) {
            (0...1).first {
                (try? cluster.info(cluster.ports[$0], seconds: 1))?["mode"] == "primary"
            }
        }
    }

    /// Waits until these have synced nothing over two waits in a row: the journal of an idle server
    /// ends with a mark, its last sync.
    func waitForIdleJournals(_ indices: [Int]) throws {
        var seen: [[String?]] = []
        _ = try cluster.eventually("the end of all syncs") { () -> Bool? in
            usleep(100_000)
            seen.append(try indices.map { try cluster.info(cluster.ports[$0])["journal_syncs"] })
            let last = seen.suffix(3)
            return last.count == 3 && last.allSatisfy { $0 == last.first } ? true : nil
        }
    }

    // MARK: Judging

    /// Some more results in every log.
    func waitForResults(_ count: Int = 3) throws {
        let wanted = (names.map { cluster.lines($0).count }.max() ?? 0) + count
        _ = try cluster.eventually("\(wanted) results in every log", within: 60) {
            names.allSatisfy { cluster.lines($0).count >= wanted } ? true : nil
        }
    }

    /// Votes go on, the logs are whole, and all that was acknowledged is there.
    func check() throws {
        try waitForResults()
        cluster.checkLogs(names)
        try ledger.check { try self.leaderPort() }
    }

    /// The same, said by each of the two as primary.
    func checkBoth() throws {
        try waitForPair()
        try check()
        let first = try leader()
        // Asked again, as a change of witnesses that is under way may take its place.
        var asked: ContinuousClock.Instant?
        _ = try cluster.eventually("the other to lead", within: 60) { () -> Bool? in
            let other = try? cluster.info(cluster.ports[1 - first], seconds: 1)
            if other?["mode"] == "primary" { return true }
            if asked.map({ ContinuousClock.now - $0 > .seconds(2) }) ?? true {
                asked = .now
                _ = try? RawClient(cluster.ports[first]).ask("REPLICA SWITCHOVER")
            }
            return nil
        }
        try check()
    }

    private func leaderPort() throws -> UInt16 { cluster.ports[try leader()] }
}
