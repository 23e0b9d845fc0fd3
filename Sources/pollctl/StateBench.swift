import Arguments
import Client
import Linux
import Wire

/// `pollctl bench --state N`: a server with N voters answers requests one by one, while nothing else
/// happens, while it gives its state to a file and while it gives it to a new backup. What the loop
/// is held up by shows in the slowest answers.
struct StateBench {
    let voters: Int
    let isJSON: Bool

    private static let burst = 1_000
    private static let answerMilliseconds: UInt64 = 30_000
    private static let calmSeconds = 2.0

    /// How long answers took meanwhile.
    private struct Phase {
        let name: String
        let what: String
        var seconds = 0.0
        var times = Histogram()
    }

    func run() throws(Failure) {
        try Household.measure(purpose: "state", run)
    }

    private func run(_ household: Household) throws(Failure) {
        let pair = try LocalPair(household)
        _ = try pair.start("primary", ["--quiet", "--no-restart"])
        try household.wait(for: "the server to lead") { pair.primary() != nil }
        try fill(pair.addresses[0], household)
        var phases: [Phase] = []
        phases.append(
            try measure(pair, "calm", "nothing else") { watch in
                watch.seconds > Self.calmSeconds
            })
        let path = "\(household.folder)/copy"
        let servers = pair.servers
        let copying = try household.start(
            "pollctl", ["backup", path, "--servers", servers], name: "backup",
            output: nil)
        phases.append(
            try measure(pair, "copy", "a copy to a file") { (_) throws(Failure) in
                try household.checkInterrupt()
                return household.exit(of: copying) != nil
            })
        guard Files.exists(path) else {
            throw Failure("no copy came; see \(household.folder)/backup.messages")
        }
        _ = try pair.start("backup", ["--quiet"])
        phases.append(
            try measure(pair, "join", "a backup joins") { (_) throws(Failure) in
                try household.checkInterrupt()
                return pair.primary()?.isPair ?? false
            })
        try show(phases)
    }

    private func fill(_ address: Address, _ household: Household) throws(Failure) {
        var connection = try connected(address)
        try ask([["VOTE.OPEN", "bench", "ROLL", "open"]], &connection)
        for first in stride(from: 0, to: voters, by: Self.burst) {
            try household.checkInterrupt()
            let numbers = first..<min(first + Self.burst, voters)
            try ask(numbers.map { ["VOTE.CAST", "1", "voter-\($0)", "yes"] }, &connection)
        }
    }

    /// Asks the primary one thing after the other until `isOver`: by turns something that changes
    /// nothing, and a new voter's ballot, which changes what a copy of the state may share.
    private func measure(
        _ pair: LocalPair, _ name: String, _ what: String,
        until isOver: (Stopwatch) throws(Failure) -> Bool
    ) throws(Failure) -> Phase {
        var phase = Phase(name: name, what: what)
        var connection = try connected(pair.addresses[0])
        let watch = Stopwatch()
        var number = 0
        repeat {
            for _ in 0..<50 {
                number += 1
                let ballot = ["VOTE.CAST", "1", "late-\(name)-\(number)", "yes"]
                let asked = Clock.monotonicNanoseconds()
                try ask([number % 2 == 0 ? ["PING"] : ballot], &connection)
                phase.times.add(nanoseconds: Clock.monotonicNanoseconds() - asked)
            }
        } while try !isOver(watch)
        phase.seconds = watch.seconds
        return phase
    }

    private func connected(_ address: Address) throws(Failure) -> CommandConnection {
        do throws(CommandFailure) {
            return try CommandConnection(to: address, milliseconds: Self.answerMilliseconds)
        } catch { throw Failure("\(error)") }
    }

    private func ask(_ commands: [[String]], _ connection: inout CommandConnection)
        throws(Failure)
    {
        let replies: [RESPValue]
        do throws(CommandFailure) {
            replies = try connection.ask(all: commands, milliseconds: Self.answerMilliseconds)
        } catch { throw Failure("\(error)") }
        for case .error(let text) in replies {
            throw Failure("\(connection.address): \(text)")
        }
    }

    private func show(_ phases: [Phase]) throws(Failure) {
        if isJSON {
            let fields: [(key: String, value: JSON)] = phases.map { phase in
                let largest = Double(phase.times.largest) / 1_000
                return (
                    phase.name,
                    .object([
                        ("seconds", .number(phase.seconds, digits: 2)),
                        ("answers", .integer(Int(phase.times.count))),
                        ("answer_us", phase.times.json),
                        ("slowest_us", .number(largest, digits: 1)),
                    ])
                )
            }
            try Output.print(JSON.object([("voters", .integer(voters))] + fields).text)
            return
        }
        try Output.print("\(Text.grouped(UInt64(voters))) voters; answers one after the other:")
        for phase in phases {
            let slowest = Text.fixed(Double(phase.times.largest) / 1_000_000, 1)
            try Output.print(
                "  \(phase.what), \(Text.fixed(phase.seconds, 2)) s: \(phase.times.text), "
                    + "slowest \(slowest) ms")
        }
    }
}
