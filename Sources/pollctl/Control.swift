import Arguments
import Client
import Linux
import Wire

/// The `pollctl` program: from arguments to one command.
enum Control {
    private static let commands = [
        "status", "open", "close", "results", "switchover", "stop", "link", "promote", "demo",
        "bench", "journal", "backup",
    ]

    private static let syntax = CommandLineSyntax(
        program: "pollctl", summary: "looks after a pair of polling servers",
        operands: "COMMAND [ARG...]",
        flags: [
            Flag(
                "--servers", value: "A,B", default: "127.0.0.1:7001,127.0.0.1:7002",
                "the two servers; any one live server is enough"),
            Flag(
                "--timeout", value: "DUR", default: "10s",
                "how long to try; what is asked of each server at once: at most 2s of it"),
            Flag("--json", "status, bench, journal, backup: JSON for programs"),
            Flag("--records", "journal: list the records"),
            Flag("--deadline", value: "DUR", default: "0s", "open: when the vote closes anyway"),
            Flag(
                "--roll", value: "joined|open", default: "joined",
                "open: who may vote: those joined now, or anybody"),
            Flag("--force", "promote: yes, on your word alone; backup: overwrite FILE"),
            Flag("--voters", value: "N", default: "50", "bench: voters"),
            Flag(
                "--votes", value: "M", default: "as many as --secs allows",
                "bench: votes, in each of which every voter casts a ballot"),
            Flag("--pipeline", value: "P", default: "1", "bench: ballots in flight per voter"),
            Flag("--single", "bench: ballots go to the primary alone"),
            Flag(
                "--secs", value: "S", default: "5",
                "bench: seconds to run; with --votes no limit unless given: whichever comes first"),
            Flag("--idle", value: "N", "bench: memory and processor time of N idle clients"),
            Flag(
                "--relay",
                "bench: the direct link, then cut, over clients that relay; a pair of its own"),
            Flag(
                "--data", value: "DIR", bare: BenchCommand.ownFolder,
                "bench: a pair with journals in DIR (else in TMPDIR or /var/tmp), and one in memory, in"
                    + " turns (3 runs each)"),
            Flag(
                "--sync", value: "always|never", default: "always",
                "bench --data: as of pollsrv"),
            Flag(
                "--checkpoint", value: "N",
                "bench --data: a checkpoint with N voters while ballots are counted"),
            Flag(
                "--disk", value: "DIR",
                "bench: the journal alone, in a folder of its own in DIR; no servers"),
            Flag(
                "--state", value: "N",
                "bench: answers while a state of N voters is copied, and sent to a new backup"),
            Flag("--entries", value: "N", default: "10000000", "bench --disk: entries to recover"),
            Flag("--failover", value: "R", "bench: R kills of the primary, time to the result"),
        ],
        details: """
            commands:
              status               who leads, who follows, what they wait for
              open QUESTION        open a vote and print its number
              close ID             close a vote
              results [FROM]       print `<id> <yes> <no>` of closed votes
              switchover           hand the primary's part to the backup
              stop                 end both servers
              link cut|heal        test hook: cut the link between the servers
              promote --force [A]  make a backup primary on your word alone
              demo                 show the pair on this machine, in a few seconds
              demo rooms           show a group of servers, reservations and caches
              bench                measure it on this machine
              journal DIR|FILE     verify a server's journal, or a copy, offline; changes nothing
              backup FILE          write a copy of all that is stored, while the service goes on;
                                   pollsrv --restore FILE begins a service from it

            bench starts a pair of its own unless --servers is given. ballot_us: from sending a
            ballot to the primary's OK. result_us: from asking for a vote to be opened to its
            result, at each voter. --data: votes are opened ahead, so that each voter always has
            its ballots in flight. --failover: from SIGKILL of the primary in the middle of a vote
            to the result in the last of 5 client logs.
            """,
        example: "pollctl status --json")

    static func main() {
        Terminal.openStandardDescriptors()
        CrashNote.install(program: "pollctl", exitCode: ExitCode.software.rawValue)
        // A file that may not grow, or a reader that has gone away, fails the command, which says so
        // and tidies up.
        Signals.ignoreFileSizeLimit()
        Signals.ignoreBrokenPipes()
        do {
            switch try syntax.parse(Array(CommandLine.arguments.dropFirst())) {
            case .show(let text): try Output.print(text)
            case .run(let arguments): try run(arguments)
            }
        } catch let error as UsageError {
            fail(error.text, ExitCode.usage.rawValue)
        } catch let failure as Failure {
            fail(failure.text, failure.status)
        } catch {
            fail("\(error)", ExitCode.software.rawValue)
        }
    }

    private static func fail(_ text: String, _ code: Int32) -> Never {
        Terminal.message("pollctl: \(text)")
        Terminal.exit(code)
    }

    private static func run(_ arguments: ParsedArguments) throws {
        guard let command = arguments.operands.first else {
            throw UsageError("a command is needed: \(commands.joined(separator: ", "))")
        }
        let rest = Array(arguments.operands.dropFirst())
        let servers = try arguments.addresses(
            "--servers", default: "127.0.0.1:7001,127.0.0.1:7002"
        ).map { Address(host: $0.host, port: $0.port) }
        let timeout = try arguments.milliseconds("--timeout", default: 10_000, in: 1...3_600_000)
        let isQuiet = arguments.isSet("--quiet")
        let isVerbose = arguments.isSet("--verbose")
        let dialogue = Dialogue(servers: servers, milliseconds: timeout) { text in
            if isVerbose { Terminal.message("pollctl: \(text)") }
        }
        let replicas = ReplicaCommands(servers: servers, milliseconds: timeout) {
            (text) throws(Failure) in
            if !isQuiet { try Output.report(text) }
        }
        var votes = VoteCommands(dialogue: dialogue)
        switch command {
        case "status":
            try expect(rest, 0...0, "status")
            let isJSON = arguments.isSet("--json")
            try StatusCommand(servers: servers, milliseconds: timeout, asJSON: isJSON).run()
        case "open":
            try expect(rest, 1...1, "open QUESTION")
            let deadline = try arguments.milliseconds("--deadline", default: 0)
            let roll = try arguments.choice("--roll", default: "joined", of: ["joined", "open"])
            try votes.open(
                rest[0], deadlineMilliseconds: deadline > 0 ? deadline : nil, roll: roll)
        case "close": try votes.close(number(rest, "close ID"))
        case "results":
            guard !arguments.isSet("--json") else {
                throw UsageError("results prints plain lines, `ID YES NO`: no --json with it")
            }
            try votes.results(from: rest.isEmpty ? 1 : number(rest, "results [FROM]"))
        case "switchover":
            try expect(rest, 0...0, "switchover")
            try replicas.switchover()
        case "stop":
            try expect(rest, 0...0, "stop")
            try replicas.stop()
        case "link":
            guard rest == ["cut"] || rest == ["heal"] else {
                throw UsageError("usage: pollctl link cut|heal")
            }
            try replicas.link(rest[0])
        case "promote": try promote(rest, arguments, replicas)
        case "demo":
            guard rest.isEmpty || rest == ["rooms"] else {
                throw UsageError("usage: pollctl demo [rooms]")
            }
            if rest.isEmpty {
                var demo = try Demo(isQuiet: isQuiet)
                try demo.run()
            } else {
                var demo = try RoomDemo(isQuiet: isQuiet)
                try demo.run()
            }
        case "bench":
            try expect(rest, 0...0, "bench")
            try BenchCommand(arguments: arguments, servers: servers).run()
        case "journal":
            try expect(rest, 1...1, "journal DIR|FILE [--records] [--json]")
            try JournalCommand(
                folder: rest[0], listsRecords: arguments.isSet("--records"),
                asJSON: arguments.isSet("--json")
            ).run()
        case "backup":
            try expect(rest, 1...1, "backup FILE [--force] [--json]")
            try BackupCommand(
                path: rest[0], servers: servers, milliseconds: timeout,
                overwrites: arguments.isSet("--force"), asJSON: arguments.isSet("--json"),
                talk: { if isVerbose { Terminal.message("pollctl: \($0)") } }
            ).run()
        default:
            let nearest = CommandLineSyntax.nearest(to: command, among: commands)
            let hint = nearest.map { "; did you mean \($0)?" } ?? ""
            throw UsageError("unknown command '\(command)'\(hint) (pollctl --help lists all)")
        }
    }

    private static func expect(_ rest: [String], _ count: ClosedRange<Int>, _ usage: String) throws
    {
        guard count.contains(rest.count) else { throw UsageError("usage: pollctl \(usage)") }
    }

    private static func number(_ rest: [String], _ usage: String) throws -> UInt64 {
        guard rest.count == 1, let number = UInt64(rest[0]) else {
            throw UsageError("usage: pollctl \(usage)")
        }
        return number
    }

    private static func promote(
        _ rest: [String], _ arguments: ParsedArguments, _ replicas: ReplicaCommands
    ) throws {
        try expect(rest, 0...1, "promote --force [HOST:PORT]")
        let address = try rest.first.map { text in
            guard let address = Address(text: text) else {
                throw UsageError("promote '\(text)': an address HOST:PORT is needed")
            }
            return address
        }
        guard arguments.isSet("--force") else { throw UsageError(ReplicaCommands.promoteWarning) }
        try replicas.promote(address)
    }
}
