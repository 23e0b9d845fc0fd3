import Arguments
import Linux
import Replication
import Simulator

/// The `pollsim` program: one seed with its story, or many over all cores.
enum PollSim {
    /// Beside those of sysexits.
    enum Code {
        static let safety: Int32 = 1
        static let liveness: Int32 = 2
        static let crash: Int32 = 3
    }

    private static let flags: [Flag] = [
        Flag(
            "--seed", value: "N",
            "run this seed alone and tell its story (-v: every message); a "
                + "number, 0x and hexadecimal digits, or the hash of a commit"),
        Flag("--seeds", value: "N", default: "100000", "run so many seeds, over all cores"),
        Flag("--minutes", value: "M", "run seeds for so many minutes (or 90s, 500ms)"),
        Flag("--from", value: "N", default: "drawn at random", "the first of the seeds"),
        Flag(
            "--shape", value: "pair|group3|group5", default: "as each seed draws",
            "how many replicas"),
        Flag(
            "--election", value: "sticky|bully", default: "as each seed draws, pairs sticky",
            "who leads a group"),
        Flag("--disks", "give replicas disks (default: every second seed draws some)"),
        Flag("--threads", value: "N", default: "one for each core", "how many seeds at a time"),
        Flag(
            "--digests",
            "print a line for each seed, with a digest of its run (in order with --threads 1)"),
        Flag(
            "--breakage", value: "NAME", hidden: true,
            "commit this deliberate mistake in every replica, witness and path"),
        Flag(
            "--survey", hidden: true,
            "go on after a failure; print for each rule the first seed that breaks it"),
    ]

    private static let syntax = CommandLineSyntax(
        program: "pollsim",
        summary: "the deterministic simulator: whole services with faults, from seeds",
        flags: flags,
        details: """
            Exit codes: 0 all seeds clean, 1 a safety rule broken, 2 no progress after healing, 3 a
            crash (a failed precondition), 64 wrong arguments. A failure prints its seed, the rule,
            the run's last 30 events and the command that repeats it.
            """,
        example: "pollsim --minutes 1")

    static func main() {
        Terminal.openStandardDescriptors()
        do {
            switch try syntax.parse(Array(CommandLine.arguments.dropFirst())) {
            case .show(let text): Terminal.print(text)
            case .run(let arguments): try run(arguments)
            }
        } catch let error as UsageError {
            Terminal.message("pollsim: \(error.text)")
            Terminal.exit(ExitCode.usage.rawValue)
        } catch {
            Terminal.message("pollsim: \(error)")
            Terminal.exit(ExitCode.software.rawValue)
        }
    }

    private static func run(_ arguments: ParsedArguments) throws {
        if let stray = arguments.operands.first {
            throw UsageError("unexpected argument '\(stray)' (one seed: --seed \(stray))")
        }
        var job = Job()
        if let name = arguments.string("--shape") {
            _ = try arguments.choice("--shape", default: "", of: Shape.allCases.map(\.rawValue))
            job.shape = Shape(rawValue: name)
        }
        if let name = arguments.string("--election") {
            _ = try arguments.choice(
                "--election", default: "", of: Election.allCases.map(\.rawValue))
            job.election = Election(rawValue: name)
        }
        job.disks = arguments.isSet("--disks")
        if let name = arguments.string("--breakage") {
            let all = Breakage.allCases.map(\.rawValue)
            _ = try arguments.choice("--breakage", default: "", of: all)
            job.breakage = Breakage(rawValue: name)
        }
        CrashNote.install(
            before: "pollsim: crashed (above: why) in seed ",
            after: "\nrepeat with: pollsim\(job.flags) --seed (that number)", exitCode: Code.crash)
        if let text = arguments.string("--seed") {
            let seed = try Self.seed(text, "--seed")
            Terminal.exit(
                job.tell(
                    seed, isVerbose: arguments.isSet("--verbose"),
                    isQuiet: arguments.isSet("--quiet")))
        }
        let from = try arguments.string("--from").map { try Self.seed($0, "--from") }
        // Short enough to be typed.
        job.first = from ?? Entropy.next() >> 24
        job.isQuiet = arguments.isSet("--quiet")
        job.printsDigests = arguments.isSet("--digests")
        job.isSurvey = arguments.isSet("--survey")
        if arguments.isSet("--minutes") {
            if UInt64(arguments.string("--minutes") ?? "") != nil {
                let minutes = try arguments.number("--minutes", default: 0, in: 1...100_000)
                job.milliseconds = minutes * 60_000
            } else {
                job.milliseconds = try arguments.milliseconds("--minutes", default: 0)
            }
            job.count = .max - job.first
        } else {
            job.count = try arguments.number("--seeds", default: 100_000, in: 1...1 << 40)
        }
        guard job.first <= .max - job.count else {
            throw UsageError("--from \(job.first): there are not so many seeds behind it")
        }
        job.threads = Int(
            try arguments.number(
                "--threads", default: UInt64(Processes.coreCount), in: 1...1_024))
        Terminal.exit(try job.runMany())
    }

    /// A number, hexadecimal digits behind 0x, or a commit's hash, of which 15 digits count.
    private static func seed(_ text: String, _ flag: String) throws(UsageError) -> UInt64 {
        if text.utf8.count == 40, let seed = UInt64(text.prefix(15), radix: 16) { return seed }
        if text.hasPrefix("0x"), let seed = UInt64(text.dropFirst(2), radix: 16) { return seed }
        if let seed = UInt64(text) { return seed }
        throw UsageError(
            "\(flag) '\(text)': a number, 0x and hexadecimal digits, or a commit's hash")
    }
}
