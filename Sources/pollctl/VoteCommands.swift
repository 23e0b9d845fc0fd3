import Arguments
import Client
import Linux
import Wire

/// `open`, `close` and `results`.
struct VoteCommands {
    var dialogue: Dialogue

    private static let pageCount = 1_000

    /// Opens a vote, once, whatever happens to the connection or the primary, and prints its id.
    mutating func open(_ question: String, deadlineMilliseconds: UInt64?, roll: String)
        throws(Failure)
    {
        var command = ["VOTE.OPEN", question]
        if let deadlineMilliseconds { command += ["DEADLINE", String(deadlineMilliseconds)] }
        if roll != "joined" { command += ["ROLL", roll] }
        let reply = try dialogue.call(command)
        guard let id = reply.number, id > 0 else { throw Self.unexpected(reply) }
        do throws(Failure) {
            try Output.print(String(id))
        } catch {
            throw Failure("vote \(id) is open, but: \(error.text)", like: error)
        }
    }

    mutating func close(_ id: UInt64) throws(Failure) {
        let reply = try dialogue.call(["VOTE.CLOSE", String(id)])
        guard reply.text == "OK" else { throw Self.unexpected(reply) }
    }

    /// Prints `<id> <yes> <no>` of every vote from `first` on, in the order of their ids.
    mutating func results(from first: UInt64) throws(Failure) {
        var next = first
        while true {
            let reply = try dialogue.ask(
                ["VOTE.RESULTS", String(next), "COUNT", String(Self.pageCount)])
            guard case .array(let items) = reply else { throw Self.unexpected(reply) }
            var lines: [String] = []
            for item in items {
                let numbers = (item.items ?? []).prefix(3).compactMap(\.number)
                let natural = numbers.compactMap { UInt64(exactly: $0) }
                guard natural.count == 3, natural[0] >= next else { throw Self.unexpected(item) }
                lines.append("\(natural[0]) \(natural[1]) \(natural[2])")
                next = natural[0] + 1
            }
            if !lines.isEmpty { try Output.print(lines.joined(separator: "\n")) }
            if items.count < Self.pageCount { return }
        }
    }

    private static func unexpected(_ reply: RESPValue) -> Failure {
        Failure("an answer that makes no sense: \(reply); is that pollsrv?", .software)
    }
}
