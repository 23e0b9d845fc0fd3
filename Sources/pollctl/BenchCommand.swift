import Arguments
import Linux
import Wire

/// `pollctl bench`: from its flags to one measurement.
struct BenchCommand {
    let arguments: ParsedArguments
    /// Those of `--servers`, or the usual two.
    let servers: [Address]

    /// Where the journals are without another word: on a disk, which /tmp often is not.
    static let ownFolder =
        "\(Terminal.environment("TMPDIR") ?? "/var/tmp")/pollsrv-bench-data-\(Processes.pid)"

    private var isJSON: Bool { arguments.isSet("--json") }

    func run() throws {
        let seconds = try arguments.number("--secs", default: 5, in: 1...3_600)
        switch try Measurement(arguments) {
        case .failover:
            let rounds = try arguments.number("--failover", default: 20, in: 1...1_000)
            try FailoverBench(rounds: Int(rounds), isJSON: isJSON).run()
        case .disk:
            let entries = try arguments.number(
                "--entries", default: 10_000_000, in: 1_000...1_000_000_000)
            try DiskBench(
                folder: arguments.string("--disk") ?? "", entries: Int(entries),
                seconds: Double(seconds), isJSON: isJSON
            ).run()
        case .state:
            // A few more cast ballots while it is measured.
            let voters = try arguments.number("--state", default: 1_000_000, in: 1...900_000)
            try StateBench(voters: Int(voters), isJSON: isJSON).run()
        case .data: try measureJournals(seconds: seconds)
        case .idle:
            try bench(load(voters: "--idle", seconds: seconds)).runIdle(seconds: seconds)
        case .relay: try RelayBench(load: load(seconds: seconds), isJSON: isJSON).run()
        case .load: try bench(load(seconds: seconds)).run()
        }
    }

    /// `voters`: the flag that says how many.
    private func load(voters flag: String = "--voters", seconds: UInt64) throws(UsageError)
        -> Load
    {
        let voters = try arguments.number(flag, default: 50, in: 1...100_000)
        let votes = try arguments.number("--votes", default: 0, in: 0...1 << 30)
        let pipeline = try arguments.number("--pipeline", default: 1, in: 1...1_000)
        let isTalking =
            !arguments.isSet("--quiet") && (Terminal.isTerminal(2) || arguments.isSet("--verbose"))
        return Load(
            voters: Int(voters), votes: votes, pipeline: Int(pipeline),
            isSingle: arguments.isSet("--single"),
            seconds: votes == 0 || arguments.isSet("--secs") ? seconds : nil, isTalking: isTalking)
    }

    private func bench(_ load: Load) -> Bench {
        Bench(load: load, servers: arguments.isSet("--servers") ? servers : nil, isJSON: isJSON)
    }

    private func measureJournals(seconds: UInt64) throws {
        var load = try load(seconds: seconds)
        let sync = try arguments.choice("--sync", default: "always", of: ["always", "never"])
        let folder = arguments.string("--data") ?? ""
        guard !folder.isEmpty else { throw UsageError("--data: give a folder") }
        defer { if folder == Self.ownFolder { try? Files.removeFolder(folder) } }
        if arguments.isSet("--checkpoint") {
            let voters = try arguments.number(
                "--checkpoint", default: 1_000_000, in: 10_000...1_000_000)
            try CheckpointBench(voters: Int(voters), folder: folder, isJSON: isJSON).run()
            return
        }
        load.opensAhead = true
        try DataBench(load: load, folder: folder, sync: sync, isJSON: isJSON).run()
    }
}
