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
    private static let roles = ["primary", "backup"]

    /// What one replica has done in a run.
    private struct Work {
        let turns: Int
        let syncs: Int
        let writes: Int
        let bytes: Int
        let syncMicroseconds: Int

        init(_ before: ServerReport, _ after: ServerReport) {
            func rise(_ key: String) -> Int { after.number(key) - before.number(key) }
            turns = rise("loop_turns")
            syncs = rise("journal_syncs")
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
        let path = folder.hasSuffix("/") ? String(folder.dropLast()) : folder
        for role in Self.roles { try checkBlank("\(path)/\(role)") }
        let probe = try probe(path)
        let household = try Household(purpose: "bench")
        defer { household.endAll() }
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
        show(byRate(memory), byRate(data), probe)
    }

    private func checkBlank(_ path: String) throws(Failure) {
        guard Files.exists(path) else { return }
        let names: [String]
        do throws(SystemError) { names = try Files.list(path) } catch { throw Failure(error) }
        guard names.isEmpty else {
            throw Failure("\(path) is there and not empty; give another folder", .io)
        }
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

    /// `path` nil: in memory. The servers' folders are gone afterwards.
    private func measure(_ household: Household, _ path: String?) throws(Failure) -> Run {
        let pair = try LocalPair(household)
        defer {
            household.endAll()
            if let path { for role in Self.roles { remove("\(path)/\(role)") } }
        }
        var pids: [Int32] = []
        for role in Self.roles {
            var flags = ["--quiet", "--no-restart"]
            if let path { flags += ["--data", "\(path)/\(role)", "--sync", sync] }
            pids.append(try pair.start(role, flags))
        }
        let primary = try pair.waitForPair("the two servers to become a pair", pids)
        let generator = try Generator(load, primary)
        try generator.join()
        let before = try reports(pair)
        try generator.run()
        let after = try reports(pair)
        guard before.map(\.pid) == after.map(\.pid) else {
            throw Failure("the primary has changed meanwhile; see \(pair.messages)")
        }
        return Run(
            generator: generator, work: zip(before, after).map { Work($0, $1) },
            memory: after.map { Double(Processes.residentKilobytes($0.pid)) / 1_024 })
    }

    /// The primary's, then the backup's.
    private func reports(_ pair: LocalPair) throws(Failure) -> [ServerReport] {
        var list: [ServerReport] = []
        for address in pair.addresses {
            do throws(CommandFailure) {
                list.append(try ServerReport.of(address, milliseconds: 2_000))
            } catch {
                throw Failure("\(error)")
            }
        }
        return list.sorted { $0.isPrimary && !$1.isPrimary }
    }

    private func remove(_ path: String) {
        guard let names = try? Files.list(path) else { return }
        for name in names { try? Files.remove("\(path)/\(name)") }
        try? Files.removeFolder(path)
    }

    // MARK: What it came to

    private func show(_ memory: [Run], _ data: [Run], _ probe: Double) {
        let rates = [memory, data].map { $0.map(\.generator.ballotsPerSecond) }
        let middle = Self.rounds / 2
        let run = data[middle]
        let ratio = rates[1][middle] / rates[0][middle]
        guard isJSON else {
            let mode = load.isSingle ? "to the primary alone" : "to both servers"
            Terminal.print(
                "\(load.voters) voters, \(load.pipeline) in flight each, \(mode); medians of "
                    + "\(Self.rounds) runs each")
            for (name, rates) in [("in memory", rates[0]), ("with journals", rates[1])] {
                let words = rates.map { Text.grouped(UInt64($0)) }
                Terminal.print(
                    "  \(name): \(words[middle]) ballots/s (\(words[0]) to "
                        + "\(words[words.count - 1]))")
            }
            Terminal.print("  ratio: \(Text.fixed(ratio * 100, 0)) %, --sync \(sync)")
            Terminal.print("  ballot to OK:   \(run.generator.ballotTimes.text)")
            Terminal.print("  vote to result: \(run.generator.resultTimes.text)")
            Terminal.print(
                "  fdatasync of 4 KiB in \(folder): median \(Text.fixed(probe / 1_000, 3)) ms, "
                    + "with nothing else going on")
            for (role, work) in zip(Self.roles, run.work) {
                Terminal.print(
                    "  \(role): \(work.turns) turns, \(work.syncs) syncs "
                        + "(\(Text.fixed(work.syncsPerTurn, 2)) a turn), "
                        + "\(Text.fixed(work.microsecondsPerSync / 1_000, 3)) ms each with the "
                        + "write, \(work.writes) writes, \(Text.grouped(UInt64(work.bytes))) bytes")
            }
            return
        }
        func numbers(_ rates: [Double]) -> JSON { .array(rates.map { .integer(Int($0)) }) }
        let replicas = zip(Self.roles, run.work).map { role, work in
            JSON.object([
                ("role", .string(role)), ("turns", .integer(work.turns)),
                ("syncs", .integer(work.syncs)),
                ("syncs_per_turn", .number(work.syncsPerTurn, digits: 3)),
                ("sync_us", .number(work.microsecondsPerSync, digits: 1)),
                ("writes", .integer(work.writes)), ("bytes", .integer(work.bytes)),
            ])
        }
        let resident = zip(Self.roles, run.memory).map { ($0, JSON.number($1, digits: 1)) }
        Terminal.print(
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
