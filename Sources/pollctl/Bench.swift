import Arguments
import Client
import Linux
import Wire

/// What is to be measured.
struct Load {
    var voters: Int
    /// 0: as many as the time allows.
    var votes: UInt64
    var pipeline: Int
    var isSingle: Bool
    /// For so long votes are opened at most; nil: until there are `votes`.
    var seconds: UInt64?
    var isTalking: Bool
    /// Votes are opened before they are needed.
    var opensAhead = false
}

/// `pollctl bench`: a pair of its own (or a given one), voters on real sockets, figures.
struct Bench {
    let load: Load
    let servers: [Address]?
    let isJSON: Bool

    func run() throws(Failure) {
        try withVoters { (generator, report, _) throws(Failure) in
            try generator.run()
            try show(generator, report)
        }
    }

    /// Memory and processor time while joined clients do nothing.
    func runIdle(seconds: UInt64) throws(Failure) {
        try withVoters { (_, report, interrupts) throws(Failure) in
            try Self.sleep(seconds: 1, interrupts)
            let pids = [report.pid] + (report.backup.map { [$0.pid] } ?? [])
            let before = try Self.ticks(pids)
            try Self.sleep(seconds: seconds, interrupts)
            let after = try Self.ticks(pids)
            let percent = zip(before, after).map { before, after in
                // A tick is 10 ms.
                (Double(after) - Double(before)) / Double(seconds)
            }
            let memory = pids.map { Double(Processes.residentKilobytes($0)) / 1_024 }
            if isJSON {
                try Output.print(
                    JSON.object([
                        ("clients", .integer(load.voters)),
                        ("rss_mib", .array(memory.map { .number($0, digits: 1) })),
                        ("cpu_percent", .array(percent.map { .number($0, digits: 2) })),
                    ]).text)
                return
            }
            try Output.print("\(load.voters) idle clients, over \(seconds) s:")
            for (index, role) in ["primary", "backup"].prefix(pids.count).enumerated() {
                let resident = Text.fixed(memory[index], 1)
                let share = Text.fixed(percent[index], 2)
                try Output.print("  \(role): \(resident) MiB resident, \(share) % of a core")
            }
        }
    }

    private static func ticks(_ pids: [Int32]) throws(Failure) -> [UInt64] {
        var list: [UInt64] = []
        for pid in pids {
            guard let ticks = ProcessTree.processorTicks(pid) else {
                throw Failure("the server with pid \(pid) is not on this machine, or has ended")
            }
            list.append(ticks)
        }
        return list
    }

    private static func sleep(seconds: UInt64, _ interrupts: Interrupts) throws(Failure) {
        let deadline = Deadline(milliseconds: seconds * 1_000)
        while !deadline.hasPassed {
            let milliseconds = min(100, deadline.remainingMilliseconds)
            Clock.sleep(nanoseconds: milliseconds * 1_000_000)
            try interrupts.check()
        }
    }

    /// Those of given servers leave them again, however it ends: somebody else's votes would wait for them
    /// for ever.
    private func withVoters(_ body: (Generator, ServerReport, Interrupts) throws(Failure) -> Void)
        throws(Failure)
    {
        guard let servers else {
            try Household.measure(purpose: "bench") { (household) throws(Failure) in
                let report = try LocalPair(household).startBoth(["--quiet"])
                let generator = try Generator(load, report, household.interrupts)
                try generator.join()
                try body(generator, report, household.interrupts)
            }
            return
        }
        let overview = Overview(servers: servers, milliseconds: 2_000)
        guard let primary = overview.primary else { throw Failure(overview.complaint) }
        let interrupts = try Interrupts("the voters have left the service")
        let generator = try Generator(load, primary, interrupts)
        defer { generator.leave() }
        try generator.join()
        try body(generator, primary, interrupts)
    }

    private func show(_ generator: Generator, _ report: ServerReport) throws(Failure) {
        let rate = generator.ballotsPerSecond
        // A given server may be on another machine.
        func resident(_ pid: Int32?) -> Double? {
            guard let pid, ProcessTree.programName(pid) == "pollsrv" else { return nil }
            return Double(Processes.residentKilobytes(pid)) / 1_024
        }
        let memory = [resident(report.pid), resident(report.backup?.pid)]
        guard isJSON else {
            let mode = load.isSingle ? "to the primary alone" : "to both servers"
            try Output.print("\(load.voters) voters, \(load.pipeline) in flight each, \(mode)")
            try Output.print(
                "  \(Text.grouped(UInt64(rate))) ballots/s "
                    + "(\(generator.ballots) in \(Text.fixed(generator.seconds, 2)) s, "
                    + "\(generator.results) votes)")
            try Output.print("  ballot to OK:   \(generator.ballotTimes.text)")
            try Output.print("  vote to result: \(generator.resultTimes.text)")
            let words = memory.map { $0.map { "\(Text.fixed($0, 1)) MiB" } ?? "not known here" }
            try Output.print("  resident: primary \(words[0]), backup \(words[1])")
            return
        }
        let values = memory.map { $0.map { JSON.number($0, digits: 1) } ?? .null }
        let memoryJSON = JSON.object([("primary", values[0]), ("backup", values[1])])
        try Output.print(generator.figures([("rss_mib", memoryJSON)]).text)
    }
}

/// `pollctl bench --failover`: kills the primary in the middle of a vote, again and again.
struct FailoverBench {
    let rounds: Int
    let isJSON: Bool

    func run() throws(Failure) {
        try Household.measure(purpose: "failover", run)
    }

    private func run(_ household: Household) throws(Failure) {
        let pair = try LocalPair(household)
        _ = try pair.startBoth([
            "--heartbeat", "250ms", "--restart-delay", "0ms", "--voters", "5", "--votes",
            "1000000", "--interval", "100ms",
        ])
        let voters = try Voters(household, pair: pair, votes: 0)
        var times: [Double] = []
        for _ in 0..<rounds {
            _ = try pair.waitForPair("the pair to be whole")
            // Time for the new backup's witnesses: a kill before that is another measurement.
            try household.pause(milliseconds: 300)
            times.append(try kill(household, pair, voters))
            try voters.checkAlive()
        }
        times.sort()
        func part(_ share: Double) -> Double {
            times[min(times.count - 1, Int(Double(times.count) * share))]
        }
        if isJSON {
            try Output.print(
                JSON.object([
                    ("rounds", .integer(rounds)),
                    (
                        "failover_ms",
                        .object([
                            ("p50", .number(part(0.5), digits: 2)),
                            ("p90", .number(part(0.9), digits: 2)),
                            ("max", .number(times[times.count - 1], digits: 2)),
                        ])
                    ),
                ]).text)
            return
        }
        try Output.print(
            "\(rounds) kills of the primary in the middle of a vote, to the result in the last of "
                + "5 logs: median \(Text.fixed(part(0.5), 1)) ms, p90 "
                + "\(Text.fixed(part(0.9), 1)) ms, max \(Text.fixed(times[times.count - 1], 1)) ms")
    }

    /// One client is stopped, so that the vote stays open; it goes on at the moment of the kill.
    private func kill(_ household: Household, _ pair: LocalPair, _ voters: Voters) throws(Failure)
        -> Double
    {
        guard let victim = pair.primary() else { throw Failure("no primary") }
        Processes.signal(voters.last.pid, Signals.stop)
        var vote: Int?
        try household.wait(for: "a vote with 4 ballots in it", every: 1) { () throws(Failure) in
            guard let report = try? ServerReport.of(victim.askedAt, milliseconds: 300) else {
                return false
            }
            vote = report.votesOpen.first { VoteState.of($0, at: victim.askedAt)?.ballots == 4 }
            return vote != nil
        }
        let watch = Stopwatch()
        Processes.signal(victim.pid, Signals.kill)
        Processes.signal(voters.last.pid, Signals.resume)
        try household.wait(for: "the result after the kill", every: 1) {
            voters.lastVoteOfAll >= vote ?? 0
        }
        return watch.milliseconds
    }
}
