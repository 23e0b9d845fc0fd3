import Foundation
import Testing

/// Faults of the simulator's kinds on real processes, by a seeded schedule.
///
/// `CHAOS_FAULTS=200 swift test --filter Chaos` is the long form; `CHAOS_SEED=N` repeats a schedule.
extension ProcessSuite {
    @Suite(.serialized) struct Chaos {
        @Test func nothingIsLost() throws {
            let environment = ProcessInfo.processInfo.environment
            let seed = environment["CHAOS_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...1 << 40)
            let count = environment["CHAOS_FAULTS"].flatMap { Int($0) } ?? 40
            print("CHAOS_SEED=\(seed) CHAOS_FAULTS=\(count)")
            var storm = try Storm(seed: seed)
            defer { storm.end() }
            do {
                try storm.run(faults: count)
            } catch {
                Issue.record("CHAOS_SEED=\(seed), after \(storm.story): \(error)")
            }
        }
    }
}

/// Two servers, each behind a proxy, three voters, and what happens to them.
private struct Storm {
    enum Fault: CaseIterable {
        case delayLink, delayAll, stallLink, stallClients, cutLinkOneWay, cutClientsOneWay
        case resetLink, resetAll, refuseLink
        case killPrimary, killBackup, pausePrimary, pauseBackup, endPrimary, endBackup
        case switchover, killClient, pauseClient
    }

    let cluster: Cluster
    let proxies: [Proxy]
    let names = Array(Cluster.names.prefix(3))
    var random: Seeded
    var story: [String] = []
    /// The server's process of each slot, and of each voter.
    var servers: [Process] = []
    var memory: [Int32: Int] = [:]
    var descriptors: [Int32: Int] = [:]

    private static let flags = [
        "--heartbeat", "50ms", "--misses", "6", "--no-restart", "--test-hooks",
    ]

    init(seed: UInt64) throws {
        random = Seeded(state: seed | 1)
        let cluster = try Cluster()
        self.cluster = cluster
        proxies = try cluster.ports.map { try Proxy(before: $0, seed: seed ^ UInt64($0)) }
        servers = [try startServer(0, "--primary"), try startServer(1, "--backup")]
        for name in names { try startClient(name) }
        do {
            try waitUntilWhole("the start")
        } catch {
            end()
            throw error
        }
    }

    func end() {
        for proxy in proxies { proxy.stop() }
        cluster.end()
    }

    // MARK: Processes

    private func startServer(_ slot: Int, _ mode: String) throws -> Process {
        let votes = [
            "--voters", "3", "--votes", "1000000000", "--interval", "5ms", "--vote-deadline",
            "300ms",
        ]
        return try cluster.start(
            "server\(slot)", "pollsrv",
            [
                mode, "--listen", "127.0.0.1:\(cluster.ports[slot])",
                "--advertise", "127.0.0.1:\(proxies[slot].port)",
                "--peer", "127.0.0.1:\(proxies[1 - slot].port)",
            ] + Self.flags + votes)
    }

    private func startClient(_ name: String) throws {
        let addresses = proxies.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        try cluster.start(
            name, "pollclient",
            [
                "--servers", addresses, "--name", name, "--log", cluster.log(name),
                "--vote", "random", "--seed", "7",
            ])
    }

    private func restart(_ slot: Int) throws -> Process {
        _ = try cluster.waitForExit("server\(slot)")
        return try startServer(slot, "--backup")
    }

    /// The slot of the primary, or of the other.
    private func slot(leads: Bool) throws -> Int {
        try cluster.eventually("a primary") {
            for slot in 0...1 {
                guard let info = try? cluster.info(cluster.ports[slot], seconds: 1) else {
                    continue
                }
                if info["mode"] == "primary", info["state"] == "pair" {
                    return leads ? slot : 1 - slot
                }
            }
            return nil
        }
    }

    // MARK: The storm

    mutating func run(faults count: Int) throws {
        for number in 1...count {
            let fault = Fault.allCases[Int.random(in: 0..<Fault.allCases.count, using: &random)]
            let time = Int.random(in: 20...(fault == .pausePrimary ? 900 : 600), using: &random)
            story.append("\(number): \(fault) \(time) ms")
            if story.count > 12 { story.removeFirst() }
            try strike(fault, milliseconds: time)
            for proxy in proxies { proxy.set(Proxy.Weather(), Proxy.Scope.allCases) }
            try waitUntilWhole("fault \(number), \(fault)")
            try checkResources()
        }
        for name in names { cluster.processes[name]?.terminate() }
        for name in names { #expect(try cluster.waitForExit(name) == 0) }
        let shortest = names.map { cluster.lines($0).count }.min() ?? 0
        cluster.checkLogs(names, atLeast: shortest)
        print("\(count) faults, \(shortest) results in every log")
    }

    private mutating func strike(_ fault: Fault, milliseconds time: Int) throws {
        let pause = UInt32(time * 1_000)
        var weather = Proxy.Weather()
        let side = Int.random(in: 0...1, using: &random)
        switch fault {
        case .delayLink, .delayAll:
            weather.delayMax = Int.random(in: 5...60, using: &random)
            spoil(weather, fault == .delayLink ? [.link] : Proxy.Scope.allCases)
            usleep(pause)
        case .stallLink, .stallClients:
            (weather.holdsForth, weather.holdsBack) = (true, true)
            spoil(weather, fault == .stallLink ? [.link] : [.clients])
            usleep(pause)
        case .cutLinkOneWay, .cutClientsOneWay:
            (weather.holdsForth, weather.holdsBack) = (side == 0, side == 1)
            spoil(weather, fault == .cutLinkOneWay ? [.link] : [.clients])
            usleep(pause)
        case .resetLink: for proxy in proxies { proxy.reset([.link]) }
        case .resetAll: for proxy in proxies { proxy.reset(Proxy.Scope.allCases) }
        case .refuseLink:
            weather.refuses = true
            spoil(weather, [.link])
            usleep(pause)
        case .killPrimary, .killBackup:
            let slot = try slot(leads: fault == .killPrimary)
            kill(servers[slot].processIdentifier, SIGKILL)
            usleep(pause / 4)
            servers[slot] = try restart(slot)
        case .pausePrimary, .pauseBackup:
            let slot = try slot(leads: fault == .pausePrimary)
            kill(servers[slot].processIdentifier, SIGSTOP)
            usleep(pause)
            kill(servers[slot].processIdentifier, SIGCONT)
        case .endPrimary, .endBackup:
            let slot = try slot(leads: fault == .endPrimary)
            kill(servers[slot].processIdentifier, SIGTERM)
            servers[slot] = try restart(slot)
        case .switchover:
            let slot = try slot(leads: true)
            _ = try RawClient(cluster.ports[slot]).ask("REPLICA SWITCHOVER")
        case .killClient:
            let name = names[Int.random(in: 0..<names.count, using: &random)]
            guard let process = cluster.processes[name] else { return }
            kill(process.processIdentifier, SIGKILL)
            _ = try cluster.waitForExit(name)
            usleep(pause / 4)
            try startClient(name)
            // Of three electors one may die. The client that was killed is one until another takes its
            // place, and the next fault may be the primary's end.
            for proxy in proxies { proxy.set(Proxy.Weather(), Proxy.Scope.allCases) }
            try cluster.waitForPair(witnesses: names.count)
        case .pauseClient:
            let name = names[Int.random(in: 0..<names.count, using: &random)]
            guard let process = cluster.processes[name] else { return }
            kill(process.processIdentifier, SIGSTOP)
            usleep(pause)
            kill(process.processIdentifier, SIGCONT)
        }
    }

    private func spoil(_ weather: Proxy.Weather, _ scopes: [Proxy.Scope]) {
        for proxy in proxies { proxy.set(weather, scopes) }
    }

    // MARK: Afterwards

    /// The pair is a pair, and votes go on in every log.
    private func waitUntilWhole(_ what: String) throws {
        _ = try cluster.eventually("a whole pair after \(what)", within: 40) { () -> Bool? in
            let infos = cluster.ports.compactMap { try? cluster.info($0, seconds: 1) }
            guard infos.count == 2, infos.allSatisfy({ $0["state"] == "pair" }),
                infos.filter({ $0["mode"] == "primary" }).count == 1,
                infos[0]["view"] == infos[1]["view"]
            else { return nil }
            return true
        }
        let wanted = (names.map { cluster.lines($0).count }.max() ?? 0) + 3
        _ = try cluster.eventually("\(wanted) results in every log after \(what)", within: 40) {
            names.allSatisfy { cluster.lines($0).count >= wanted } ? true : nil
        }
        cluster.checkLogs(names)
    }

    /// Nothing grows with the faults: neither processes nor descriptors nor memory, beside what the log of
    /// votes itself takes.
    private mutating func checkResources() throws {
        let started = servers + names.compactMap { cluster.processes[$0] }
        let present = Set(cluster.inhabitants)
        #expect(present == Set(started.map(\.processIdentifier)), "\(cluster.words)")
        for server in servers {
            let pid = server.processIdentifier
            let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count
            let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
            let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS") } ?? ""
            let resident = line.split(separator: " ").compactMap { Int($0) }.first ?? 0
            #expect(
                open <= (descriptors[pid] ?? open) + 12, "\(open) descriptors\n\(cluster.words)")
            #expect(
                resident <= (memory[pid] ?? resident) + 24_000, "\(resident) KiB\n\(cluster.words)")
            if descriptors[pid] == nil { (descriptors[pid], memory[pid]) = (open, resident) }
        }
    }
}
