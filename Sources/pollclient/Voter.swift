import Arguments
import Client
import Linux
import Wire

/// The `pollclient` program: from arguments to a running voter.
enum Voter {
    private static let syntax = CommandLineSyntax(
        program: "pollclient", summary: "a voter, and a witness for the servers",
        flags: [
            Flag(
                "--servers", value: "A,B", default: "127.0.0.1:7001,127.0.0.1:7002",
                "where to begin: any one live server is enough"),
            Flag("--name", value: "NAME", default: "voter-PID", "the voter's name"),
            Flag("--vote", value: "yes|no|random|ask", default: "random", "how to vote"),
            Flag("--seed", value: "N", default: "from the name", "for --vote random"),
            Flag("--log", value: "FILE", default: "logs/NAME.log", "where results are logged"),
            Flag(
                "--votes", value: "N", default: "0",
                "exit when the log holds N results; 0: go on for ever"),
        ],
        example: "pollclient --name ann --vote random --seed 7 --votes 20")

    static func main() {
        do {
            switch try syntax.parse(Array(CommandLine.arguments.dropFirst())) {
            case .show(let text): Terminal.print(text)
            case .run(let arguments): Terminal.exit(try run(arguments))
            }
        } catch let error as UsageError {
            fail(error.text, .usage)
        } catch let error as SystemError {
            fail("\(error)", .io)
        } catch {
            fail("\(error)", .software)
        }
    }

    private static func fail(_ text: String, _ code: ExitCode) -> Never {
        Terminal.message("pollclient: \(text)")
        Terminal.exit(code.rawValue)
    }

    private static func run(_ arguments: ParsedArguments) throws -> Int32 {
        if let operand = arguments.operands.first {
            throw UsageError("unexpected argument '\(operand)' (pollclient --help shows the usage)")
        }
        let name = arguments.string("--name") ?? "voter-\(Processes.pid)"
        let isPlain = name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 47 && $0 != 44 }
        guard !name.isEmpty, name.utf8.count <= 64, isPlain else {
            throw UsageError(
                "--name '\(name)': 1 to 64 printable ASCII characters without blank, / or ,")
        }
        let servers = try arguments.addresses(
            "--servers", default: "127.0.0.1:7001,127.0.0.1:7002")
        let settings = VoterSession.Settings(
            name: name, seeds: servers.map { Address(host: $0.host, port: $0.port) },
            policy: try policy(arguments, name),
            votesWanted: try arguments.number("--votes", default: 0, in: 0...1 << 40),
            instance: Instance(max(1, Entropy.next())))
        let log = try openLog(arguments.string("--log"), name)
        if settings.votesWanted > 0, (log.lastLine?.vote ?? 0) >= settings.votesWanted { return 0 }
        let loop = try VoterLoop(settings, log: log, isQuiet: arguments.isSet("--quiet"))
        return loop.run()
    }

    private static func policy(_ arguments: ParsedArguments, _ name: String) throws -> VotePolicy {
        let choices = ["yes", "no", "random", "ask"]
        switch try arguments.choice("--vote", default: "random", of: choices) {
        case "yes": return .yes
        case "no": return .no
        case "ask": return .ask
        default:
            let seed = try arguments.number(
                "--seed", default: Digest.of(Array(name.utf8)) >> 1, in: 0...UInt64.max)
            return .random(seed: seed)
        }
    }

    private static func openLog(_ path: String?, _ name: String) throws -> ResultLog {
        if path == nil { try Files.makeFolder("logs") }
        do {
            return try ResultLog(path: path ?? "logs/\(name).log")
        } catch ResultLog.OpenError.bad(let text) {
            fail(text, .io)
        } catch ResultLog.OpenError.system(let error) {
            fail("the log cannot be used: \(error)", .io)
        }
    }
}
