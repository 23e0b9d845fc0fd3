import Arguments
import Client
import Linux
import Wire

private let program = "pollclient"

private let syntax = CommandLineSyntax(
    program: program,
    summary: "a voter of the polling service: votes, waits for the results and logs them",
    flags: [
        Flag(
            "--servers",
            value: "HOST:PORT,...",
            default: "127.0.0.1:7001,127.0.0.1:7002",
            "where to look for the service; one live server is enough to find the rest"
        ),
        Flag(
            "--name",
            value: "NAME",
            default: "voter-PID",
            "under which to vote: 1 to 64 printable characters, no blank, comma or slash"
        ),
        Flag(
            "--vote",
            value: "yes|no|random|ask|never",
            default: "random",
            "how to decide; ask: somebody at the terminal does; never: only witness and relay"
        ),
        Flag(
            "--seed",
            value: "N",
            default: "made from NAME",
            "for --vote random: the same N gives the same ballots again"
        ),
        Flag(
            "--log",
            value: "FILE",
            default: "logs/NAME.log",
            "where the results go, a line 'VOTE YES NO' each; an existing log is continued"
        ),
        Flag(
            "--votes",
            value: "N",
            default: "0",
            "exit when the log holds N results; 0: go on"
        ),
    ],
    details: """
        Results go to standard output, messages to standard error. SIGINT and SIGTERM make the
        client leave the service before it exits; the second one ends it at once.
        A log that is a pipe needs a reader when the client starts; what the pipe has no room for is
        kept and written later. Where the log is standard output nothing else is shown there; into a
        file that is the log messages must not go.
        Exit codes: 0 done, 64 usage, 69 name in use, 74 log or other I/O, 70 our fault.
        """,
    example: "pollclient --name alice --vote random --seed 7 --votes 20"
)

/// Says what is wrong and ends the process.
private func fail(_ code: ExitCode, _ text: String) -> Never {
    Terminal.message("\(program): \(text)")
    Terminal.exit(code.rawValue)
}

private struct Options {
    var settings: VoterSession.Settings
    var verbosity = Verbosity.normal
    var isLogDefault: Bool

    init(_ arguments: ParsedArguments) throws(UsageError) {
        if let stray = arguments.operands.first {
            throw UsageError("unexpected argument '\(stray)' (\(program) --help lists all flags)")
        }
        let name = arguments.string("--name") ?? "voter-\(Processes.pid)"
        guard Self.isName(name) else {
            throw UsageError(
                "--name '\(name)': 1 to 64 printable ASCII characters are needed, without blank, "
                    + "comma and slash"
            )
        }
        let servers = try arguments.addresses(
            "--servers",
            default: "127.0.0.1:7001,127.0.0.1:7002"
        )
        guard servers.allSatisfy({ $0.port > 0 }) else {
            throw UsageError("--servers: port 0 is no server's")
        }
        let log = arguments.string("--log")
        if log == "" { throw UsageError("--log needs the path of a file") }
        let policy = try Self.policy(arguments, name)
        // One that never joins is told no results.
        isLogDefault = log == nil && policy != .never
        let defaultLog = policy == .never ? "/dev/null" : "logs/\(name).log"
        let votes = try arguments.number("--votes", default: 0, in: 0...(1 << 62))
        guard votes == 0 || policy != .never else {
            throw UsageError(
                "--votes: with --vote never no results come, so it would never end; leave it out")
        }
        let isQuiet = arguments.isSet("--quiet")
        settings = VoterSession.Settings(
            name: name,
            servers: servers.map { Address(host: $0.host, port: $0.port) },
            policy: policy,
            votesMax: votes,
            logPath: log ?? defaultLog,
            showsResults: !isQuiet
        )
        if isQuiet {
            verbosity = .quiet
        } else if arguments.isSet("--verbose") {
            verbosity = .verbose
        }
    }

    private static func policy(_ arguments: ParsedArguments, _ name: String) throws(UsageError)
        -> VotePolicy
    {
        let choices = ["yes", "no", "random", "ask", "never"]
        let vote = try arguments.choice("--vote", default: "random", of: choices)
        let seed = try arguments.number(
            "--seed", default: Digest.of(Array(name.utf8)), in: 0...UInt64.max)
        if let choice = Choice(rawValue: vote) { return .always(choice) }
        if vote == "never" { return .never }
        return vote == "ask" ? .ask : .random(seed: seed)
    }

    private static func isName(_ name: String) -> Bool {
        let forbidden = [UInt8(ascii: ","), UInt8(ascii: "/")]
        return (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { $0 > 32 && $0 < 127 && !forbidden.contains($0) }
    }
}

private func openLog(_ options: Options) throws -> ResultLog {
    do {
        if options.isLogDefault { try Files.makeFolder("logs") }
        return try ResultLog(path: options.settings.logPath)
    } catch let error as SystemError {
        fail(.io, "\(error); --log FILE puts the results elsewhere, into a folder that exists")
    }
}

private func run() throws(UsageError) {
    let arguments: ParsedArguments
    switch try syntax.parse(Array(CommandLine.arguments.dropFirst())) {
    case .show(let text):
        do { try Terminal.write(text) } catch { fail(.io, "\(error)") }
        return
    case .run(let parsed): arguments = parsed
    }
    let options = try Options(arguments)
    let ending: Ending
    do {
        let log = try openLog(options)
        guard options.settings.policy != .ask || !log.isStandardOutput else {
            fail(
                .usage,
                "--vote ask: the questions go to standard output, which is the log; give another "
                    + "--log")
        }
        guard !log.takesMessages else {
            fail(
                .usage,
                "--log \(log.path): standard error goes into the same file, where messages would "
                    + "spoil the log; send them elsewhere (2>FILE), or give another --log")
        }
        var loop = try ClientLoop(
            program: program,
            settings: options.settings,
            log: log,
            verbosity: options.verbosity
        )
        ending = try loop.run()
    } catch let refusal as ResultLog.Refusal {
        fail(.io, refusal.text)
    } catch {
        fail(.io, "\(error)")
    }
    switch ending {
    case .done: break
    case .unavailable(let text): fail(.unavailable, text)
    case .io(let text): fail(.io, text)
    }
}

Terminal.openStandardDescriptors()
CrashNote.install(program: program, exitCode: ExitCode.software.rawValue)
// A log that may not grow is one that cannot be written for now; voting goes on.
Signals.ignoreFileSizeLimit()
do {
    try run()
} catch {
    fail(.usage, error.text)
}
