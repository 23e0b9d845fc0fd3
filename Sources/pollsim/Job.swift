import Arguments
import Linux
import Replication
import Simulator
import Synchronization

/// Which seeds are run, and how.
struct Job: Sendable {
    var shape: Shape?
    var election: Election?
    var disks = false
    var breakage: Breakage?
    var first: UInt64 = 0
    var count: UInt64 = 1
    /// Nil: until `count` is reached.
    var milliseconds: UInt64?
    var threads = 1
    var isQuiet = false
    /// Failures do not end the job.
    var isSurvey = false
    /// A line for each seed, so that two builds can be compared run by run.
    var printsDigests = false

    private static let tailLines = 30

    /// What to give `pollsim` besides the seed to get the same run.
    var flags: String {
        (shape.map { " --shape \($0.rawValue)" } ?? "")
            + (election.map { " --election \($0.rawValue)" } ?? "")
            + (disks ? " --disks" : "")
            + (breakage.map { " --breakage \($0.rawValue)" } ?? "")
    }

    private func options(_ seed: UInt64) -> Simulation.Options {
        var options = Simulation.Options(
            seed: seed, shape: shape, election: election, breakage: breakage)
        options.disks = disks
        return options
    }

    // MARK: One seed

    /// Runs one seed and tells its story as it goes; gives the exit code.
    func tell(_ seed: UInt64, isVerbose: Bool, isQuiet: Bool) -> Int32 {
        CrashNote.set(seed)
        var options = options(seed)
        options.isVerbose = isVerbose
        if !isQuiet { options.tell = { line in Terminal.print(line) } }
        let outcome = Simulation(options).run()
        Terminal.print(Self.summary(seed, outcome))
        guard let violation = outcome.violation else { return 0 }
        Terminal.message("seed \(seed) breaks '\(violation.rule)': \(violation.text)")
        return violation.kind.exitCode
    }

    private static func summary(_ seed: UInt64, _ outcome: Simulation.Outcome) -> String {
        "seed \(seed): \(outcome.ops) ops, \(outcome.events) events, \(outcome.time / 1_000) ms "
            + "simulated, digest \(String(outcome.digest, radix: 16))"
    }

    /// Runs a failed seed once more for its last events.
    private func explain(_ seed: UInt64, _ violation: Violation) {
        let lines = Mutex<[String]>([])
        var options = options(seed)
        options.isVerbose = true
        options.tell = { line in
            lines.withLock { lines in
                lines.append(line)
                if lines.count > 4 * Self.tailLines { lines.removeFirst(3 * Self.tailLines) }
            }
        }
        _ = Simulation(options).run()
        for line in lines.withLock({ $0.suffix(Self.tailLines) }) { Terminal.message(line) }
        Terminal.message("seed \(seed) breaks '\(violation.rule)': \(violation.text)")
        Terminal.message("repeat with: pollsim\(flags) --seed \(seed)")
    }

    // MARK: Many

    private struct Tally: Sendable {
        var next: UInt64
        var done: UInt64 = 0
        var events = 0
        var ops: UInt64 = 0
        var coverage = Coverage()
        /// The lowest seed that failed.
        var failure: (seed: UInt64, violation: Violation)?
        /// Of a survey: for each rule the lowest seed that breaks it, and how many do.
        var broken: [(rule: String, seed: UInt64, count: Int)] = []
        var working: Int

        mutating func note(_ seed: UInt64, _ violation: Violation) {
            guard let index = broken.firstIndex(where: { $0.rule == violation.rule }) else {
                broken.append((violation.rule, seed, 1))
                return
            }
            broken[index].seed = min(broken[index].seed, seed)
            broken[index].count += 1
        }
    }

    private final class Board: Sendable {
        let tally: Mutex<Tally>
        init(_ tally: Tally) { self.tally = Mutex(tally) }
    }

    /// Seeds are handed out in portions, so that threads meet seldom.
    private static let portion: UInt64 = 64

    func runMany() throws -> Int32 {
        let board = Board(Tally(next: first, working: threads))
        let start = Clock.monotonicNanoseconds()
        let end = milliseconds.map { start + $0 * 1_000_000 }
        let last = first + count
        for _ in 0..<threads {
            try Threads.detach {
                work(board, last: last, end: end)
                board.tally.withLock { $0.working -= 1 }
            }
        }
        var nextReport = start + 5_000_000_000
        while board.tally.withLock({ $0.working }) > 0 {
            Clock.sleep(nanoseconds: 20_000_000)
            let now = Clock.monotonicNanoseconds()
            guard now >= nextReport, !isQuiet else { continue }
            nextReport = now + 5_000_000_000
            let done = board.tally.withLock { $0.done }
            Terminal.message("\(done) seeds, \(rate(done, since: start)) a second")
        }
        let tally = board.tally.withLock { $0 }
        report(tally, since: start)
        for item in tally.broken.sorted(by: { $0.seed < $1.seed }) {
            Terminal.print(
                "broken: \(item.rule): first by seed \(item.seed), in all by \(item.count) seeds")
        }
        guard let failure = tally.failure else { return 0 }
        explain(failure.seed, failure.violation)
        Terminal.print(
            "broken by seed \(failure.seed), number \(failure.seed &- first &+ 1): "
                + failure.violation.rule)
        return failure.violation.kind.exitCode
    }

    private func work(_ board: Board, last: UInt64, end: UInt64?) {
        while true {
            let isOver = end.map { Clock.monotonicNanoseconds() >= $0 } ?? false
            let seeds: Range<UInt64>? = board.tally.withLock { tally in
                guard !isOver, tally.failure == nil, tally.next < last else { return nil }
                let from = tally.next
                tally.next = from + min(last - from, Self.portion)
                return from..<tally.next
            }
            guard let seeds else { return }
            var coverage = Coverage()
            var (events, ops) = (0, UInt64(0))
            for seed in seeds {
                CrashNote.set(seed)
                let outcome = Simulation(options(seed)).run()
                if printsDigests { Terminal.print(Self.summary(seed, outcome)) }
                coverage.add(outcome.coverage)
                events += outcome.events
                ops += outcome.ops
                guard let violation = outcome.violation else { continue }
                if isSurvey {
                    board.tally.withLock { $0.note(seed, violation) }
                    continue
                }
                board.tally.withLock { tally in
                    if let known = tally.failure, known.seed < seed { return }
                    tally.failure = (seed, violation)
                }
                break
            }
            board.tally.withLock { tally in
                tally.done += UInt64(seeds.count)
                tally.events += events
                tally.ops += ops
                tally.coverage.add(coverage)
            }
        }
    }

    private func rate(_ count: UInt64, since start: UInt64) -> UInt64 {
        let milliseconds = max(1, (Clock.monotonicNanoseconds() - start) / 1_000_000)
        return count * 1_000 / milliseconds
    }

    private func report(_ tally: Tally, since start: UInt64) {
        let seconds = (Clock.monotonicNanoseconds() - start) / 1_000_000_000
        Terminal.print(
            "\(tally.done) seeds from \(first) in \(seconds) s, \(rate(tally.done, since: start)) a "
                + "second; \(tally.ops) ops, \(tally.events) events")
        guard !isQuiet else { return }
        for item in Coverage.Item.allCases {
            let count = tally.coverage[item]
            Terminal.print("  \(item.name) \(count)\(count == 0 ? "   <- never" : "")")
        }
    }
}

extension Violation.Kind {
    var exitCode: Int32 {
        switch self {
        case .safety: PollSim.Code.safety
        case .liveness: PollSim.Code.liveness
        }
    }
}
