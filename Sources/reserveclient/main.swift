import Arguments
import Client
import Linux
import Wire

private let program = "reserveclient"

private let syntax = CommandLineSyntax(
    program: program,
    summary: "reserves rooms: commands at a prompt, on standard input, or one as arguments",
    operands: "[COMMAND [ARGS...]]",
    flags: [
        Flag(
            "--servers",
            value: "HOST:PORT,...",
            default: "127.0.0.1:7001,127.0.0.1:7002",
            "where to look for the service; one live server is enough to find the rest"
        ),
        Flag("--no-cache", "ask the servers each time"),
        Flag(
            "--timeout",
            value: "DURATION",
            default: "0s",
            "how long to wait for the answer to one command; 0s: until there is one"
        ),
    ],
    details: """
        Commands: rooms, timeslots, days, check ROOM, reserve ROOM SLOT DAY, delete ROOM SLOT DAY,
        quit. Each answer says where it comes from, '(From servers): ' or '(From cache): '.
        While no server can answer, the client says so and waits for one.

        Exit codes: 0 done, 64 wrong arguments, 69 no answer, 74 input or output, 70 our fault.
        """,
    example: "\(program) reserve SA318 8:30-9:30 Monday"
)

/// Says what is wrong and ends the process.
private func fail(_ code: ExitCode, _ text: String) -> Never {
    Terminal.message("\(program): \(text)")
    Terminal.exit(code.rawValue)
}

private struct Options {
    var settings: RoomSession.Settings
    var verbosity = Verbosity.normal

    init(_ arguments: ParsedArguments) throws(UsageError) {
        let servers = try arguments.addresses(
            "--servers",
            default: "127.0.0.1:7001,127.0.0.1:7002"
        )
        guard servers.allSatisfy({ $0.port > 0 }) else {
            throw UsageError("--servers: port 0 is no server's")
        }
        let timeout = try arguments.milliseconds("--timeout", default: 0)
        settings = RoomSession.Settings(
            servers: servers.map { Address(host: $0.host, port: $0.port) },
            isCaching: !arguments.isSet("--no-cache"),
            timeout: timeout * 1_000_000,
            source: try Self.source(arguments.operands)
        )
        if arguments.isSet("--quiet") {
            verbosity = .quiet
        } else if arguments.isSet("--verbose") {
            verbosity = .verbose
        }
    }

    private static func source(_ operands: [String]) throws(UsageError) -> RoomSession.Source {
        guard let word = operands.first else {
            return Terminal.isTerminal(0) ? .terminal : .stream
        }
        guard RoomVerb(rawValue: word) != nil else {
            let verbs = RoomVerb.allCases.map(\.rawValue)
            let nearest = CommandLineSyntax.nearest(to: word, among: verbs)
            let hint = nearest.map { "; did you mean \($0)?" } ?? ""
            Terminal.print(RoomVerb.unknownText(word))
            throw UsageError("no command '\(word)'\(hint) (\(program) --help lists all)")
        }
        let count = operands.reduce(0) { $0 + $1.utf8.count + 1 } - 1
        guard count <= RoomSession.lineBytesMax else {
            throw UsageError("a command of more than \(RoomSession.lineBytesMax) bytes is refused")
        }
        return .arguments(operands)
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
        var loop = try RoomLoop(
            program: program, settings: options.settings, verbosity: options.verbosity)
        ending = try loop.run()
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
do {
    try run()
} catch {
    fail(.usage, error.text)
}
