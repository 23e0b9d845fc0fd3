import Arguments

/// What `pollctl bench` can measure: of these the first whose flag is given.
enum Measurement: CaseIterable {
    case failover
    case disk
    case state
    case data
    case idle
    case relay
    /// Voters that vote as fast as they can; no flag asks for it.
    case load

    /// Throws if flags do not go together.
    init(_ arguments: ParsedArguments) throws(UsageError) {
        let asked = Self.allCases.first { measurement in
            measurement.flag.map { arguments.isSet($0) } ?? false
        }
        self = asked ?? .load
        for clash in clashes where arguments.isSet(clash.flag) { throw UsageError(clash.words) }
    }

    private var flag: String? {
        switch self {
        case .failover: "--failover"
        case .disk: "--disk"
        case .state: "--state"
        case .data: "--data"
        case .idle: "--idle"
        case .relay: "--relay"
        case .load: nil
        }
    }

    /// A flag that a measurement does not take, and what is said of it.
    private struct Clash {
        let flag: String
        let words: String
    }

    /// Those that its own flag cannot stand beside. Others that it does not take change nothing.
    private var clashes: [Clash] {
        switch self {
        case .failover: Self.alone("--failover")
        case .disk: Self.alone("--disk")
        case .state: Self.alone("--state")
        case .data:
            Self.clash(
                ["--servers", "--idle", "--relay"],
                "--data starts pairs of its own: no --servers, --idle or --relay with it")
        case .idle:
            Self.ofJournals
                + Self.clash(["--relay"], "--idle and --relay are two measurements: one at a time")
        case .relay:
            Self.ofJournals
                + Self.clash(
                    ["--servers"],
                    "--relay cuts a link: it starts a pair of its own, no --servers")
        case .load: Self.ofJournals
        }
    }

    /// What measures servers of its own in its own way, or none, takes no other that chooses.
    private static func alone(_ own: String) -> [Clash] {
        let choosing = [
            "--failover", "--disk", "--state", "--servers", "--data", "--idle", "--relay",
        ]
        return choosing.filter { $0 != own }.map { flag in
            Clash(flag: flag, words: "\(own) measures by itself: no \(flag) with it")
        }
    }

    /// Those that are for journals, where there are none.
    private static let ofJournals = [
        Clash(flag: "--checkpoint", words: "--checkpoint needs --data DIR, for the journals"),
        Clash(flag: "--sync", words: "--sync is of no use without --data"),
    ]

    /// `words`: the same whichever of them it is.
    private static func clash(_ flags: [String], _ words: String) -> [Clash] {
        flags.map { Clash(flag: $0, words: words) }
    }
}
