import Arguments
import Client
import Linux
import Storage
import Wire

/// `pollctl bench --data DIR`: the same load on a pair with journals in DIR and on one in memory, in
/// turns, as what else goes on in the machine changes from minute to minute.
struct DataBench {
    let load: Load
    let folder: String
    /// `always` or `never`.
    let sync: String
    let isJSON: Bool

    private static let rounds = 3

    /// What one replica has done in a run.
    private struct Work {
        let turns: Int
        let syncs: Int
        /// The most of any turn, since the replica began.
        let syncsOfATurnMax: Int
        let writes: Int
        let bytes: Int
        let syncMicroseconds: Int

        init(_ before: ServerReport, _ after: ServerReport) {
            func rise(_ key: String) -> Int { after.number(key) - before.number(key) }
            turns = rise("loop_turns")
            syncs = rise("journal_syncs")
            syncsOfATurnMax = after.number("journal_syncs_of_a_turn_max")
            writes = rise("journal_writes")
            bytes = rise("journal_bytes")
            syncMicroseconds = rise("journal_sync_us")
        }

        var syncsPerTurn: Double { Double(syncs) / Double(max(1, turns)) }
        var microsecondsPerSync: Double { Double(syncMicroseconds) / Double(max(1, syncs)) }
    }

    private struct Run {
        let generator: Generator
        /// The primary's, the backup's.
        let work: [Work]
        let memory: [Double]
    }

    func run() throws(Failure) {
        let path = try DataPair.blank(folder)
        try Household.measure(purpose: "bench") { (household) throws(Failure) in
            try run(household, path)
        }
    }

    private func run(_ household: Household, _ path: String) throws(Failure) {
        let probe = try probe(path)
        try household.checkInterrupt()
        var (memory, data): ([Run], [Run]) = ([], [])
        for round in 1...Self.rounds {
            memory.append(try measure(household, nil))
            data.append(try measure(household, path))
            guard load.isTalking else { continue }
            let rates = [memory, data].map {
                Text.grouped(UInt64($0[round - 1].generator.ballotsPerSecond))
            }
            Terminal.message(
                "round \(round): \(rates[0]) ballots/s in memory, \(rates[1]) with journals")
        }
        func byRate(_ runs: [Run]) -> [Run] {
            runs.sorted { $0.generator.ballotsPerSecond < $1.generator.ballotsPerSecond }
        }
        try show(byRate(memory), byRate(data), probe)
    }

    /// Median microseconds of a write of 4 KiB and an fdatasync in a file that was reserved before.
    private func probe(_ path: String) throws(Failure) -> Double {
        do throws(SystemError) {
            try Files.makeFolder(path)
            let disk = LinuxDisk()
            let file = try disk.create("\(path)/bench-probe")
            defer {
                disk.close(file)
                do { try disk.remove(file.path) } catch {}
            }
            try disk.allocate(file, bytes: 4 << 20)
            try disk.sync(file)
            let piece = [UInt8](repeating: 1, count: 4 << 10)
            var times: [Double] = []
            let whole = Stopwatch()
            while times.count < 1_000, whole.seconds < 1 {
                let offset = times.count * piece.count
                _ = try disk.write(file, piece, from: 0, at: offset)
                let watch = Stopwatch()
                try disk.sync(file)
                times.append(watch.milliseconds * 1_000)
            }
            times.sort()
            return times[times.count / 2]
        } catch { throw Failure(error) }
    }

    /// `path` nil: in memory.
    private func measure(_ household: Household, _ path: String?) throws(Failure) -> Run {
        let pair = try DataPair(household, path, sync: sync)
        defer { pair.end() }
        let generator = try Generator(load, pair.primary, household.interrupts)
        try generator.join()
        let before = try pair.reports()
        try generator.run()
        let after = try pair.reports()
        guard before.map(\.pid) == after.map(\.pid) else {
            throw Failure("the primary has changed meanwhile; see \(pair.messages)")
        }
        return Run(
            generator: generator, work: zip(before, after).map { Work($0, $1) },
            memory: after.map { Double(Processes.residentKilobytes($0.pid)) / 1_024 })
    }

    // MARK: What it came to

    private func show(_ memory: [Run], _ data: [Run], _ probe: Double) throws(Failure) {
        let rates = [memory, data].map { $0.map(\.generator.ballotsPerSecond) }
        let middle = Self.rounds / 2
        let run = data[middle]
        let ratio = rates[1][middle] / rates[0][middle]
        guard isJSON else {
            let mode = load.isSingle ? "to the primary alone" : "to both servers"
            try Output.print(
                "\(load.voters) voters, \(load.pipeline) in flight each, \(mode); medians of "
                    + "\(Self.rounds) runs each")
            for (name, rates) in [("in memory", rates[0]), ("with journals", rates[1])] {
                let words = rates.map { Text.grouped(UInt64($0)) }
                try Output.print(
                    "  \(name): \(words[middle]) ballots/s (\(words[0]) to "
                        + "\(words[words.count - 1]))")
            }
            try Output.print("  ratio: \(Text.fixed(ratio * 100, 0)) %, --sync \(sync)")
            try Output.print("  ballot to OK:   \(run.generator.ballotTimes.text)")
            try Output.print("  vote to result: \(run.generator.resultTimes.text)")
            try Output.print(
                "  fdatasync of 4 KiB in \(folder): median \(Text.fixed(probe / 1_000, 3)) ms, "
                    + "with nothing else going on")
            for (role, work) in zip(DataPair.roles, run.work) {
                let time =
                    work.syncs > 0
                    ? ", \(Text.fixed(work.microsecondsPerSync / 1_000, 3)) ms each with the write"
                    : ""
                try Output.print(
                    "  \(role): \(work.turns) turns, \(work.syncs) syncs "
                        + "(\(Text.fixed(work.syncsPerTurn, 2)) a turn, at most "
                        + "\(work.syncsOfATurnMax))\(time), \(work.writes) writes, "
                        + "\(Text.grouped(UInt64(work.bytes))) bytes")
            }
            return
        }
        func numbers(_ rates: [Double]) -> JSON { .array(rates.map { .integer(Int($0)) }) }
        let replicas = zip(DataPair.roles, run.work).map { role, work in
            JSON.object([
                ("role", .string(role)), ("turns", .integer(work.turns)),
                ("syncs", .integer(work.syncs)),
                ("syncs_per_turn", .number(work.syncsPerTurn, digits: 3)),
                ("syncs_of_a_turn_max", .integer(work.syncsOfATurnMax)),
                (
                    "sync_us",
                    work.syncs > 0 ? .number(work.microsecondsPerSync, digits: 1) : .null
                ),
                ("writes", .integer(work.writes)), ("bytes", .integer(work.bytes)),
            ])
        }
        let resident = zip(DataPair.roles, run.memory).map { ($0, JSON.number($1, digits: 1)) }
        try Output.print(
            run.generator.figures([
                ("rss_mib", .object(resident)),
                ("sync", .string(sync)),
                ("ratio", .number(ratio, digits: 3)),
                ("memory_ballots_per_s", .integer(Int(rates[0][middle]))),
                ("memory_runs", numbers(rates[0])), ("data_runs", numbers(rates[1])),
                ("fdatasync_us", .number(probe, digits: 1)),
                ("replicas", .array(replicas)),
            ]).text)
    }
}
