package import Wire

/// What a voter says to a replica. Replies come in the order of the commands, so the command
/// itself tells what its reply is about.
package enum VoterCommand: Equatable, Sendable {
    case hello(name: String)
    case offer(Instance)
    case witness(Message)
    case join(name: String, from: UInt64)
    case cast(vote: UInt64, name: String, Choice)
    /// For results that the log has already.
    case verify(from: UInt64)
    case results(from: UInt64)
    case leave
    case ping

    /// How many results one question asks for; an answer with so many is followed by another.
    package static let resultsMax = 1_000

    package func encode(into bytes: inout [UInt8]) {
        switch self {
        case .hello(let name): RESP.command(["HELLO", "3", "SETNAME", name], into: &bytes)
        case .offer(let instance):
            RESP.command(["WITNESS", "OFFER", instance.description], into: &bytes)
        case .witness(let message): message.encode(head: "WITNESS", into: &bytes)
        case .join(let name, let from):
            RESP.command(["VOTE.JOIN", name, "FROM", String(from)], into: &bytes)
        case .cast(let vote, let name, let choice):
            RESP.command(["VOTE.CAST", String(vote), name, choice.rawValue], into: &bytes)
        case .verify(let from), .results(let from):
            RESP.command(
                ["VOTE.RESULTS", String(from), "COUNT", String(Self.resultsMax)],
                into: &bytes
            )
        case .leave: RESP.command(["VOTE.LEAVE"], into: &bytes)
        case .ping: RESP.command(["PING"], into: &bytes)
        }
    }

    /// What has to be known of it until its reply comes: of what is relayed, nothing.
    var awaited: Self {
        guard case .witness(.relay(let frame)) = self else { return self }
        return .witness(.relay(RelayFrame(from: frame.from, to: frame.to, path: 0, .beat)))
    }

    /// For messages to people.
    package var verb: String {
        switch self {
        case .hello: "HELLO"
        case .offer, .witness: "WITNESS"
        case .join: "VOTE.JOIN"
        case .cast: "VOTE.CAST"
        case .verify, .results: "VOTE.RESULTS"
        case .leave: "VOTE.LEAVE"
        case .ping: "PING"
        }
    }
}

/// An error reply, `CODE text`, taken apart by what a voter does about it.
package enum Refusal: Equatable, Sendable {
    /// Ask the primary, at this address.
    case redirect(Address?)
    /// No primary is known, too much to do, or no room until others have done something: later.
    case later
    case alreadyVoted
    case closed
    case noSuchVote
    case notOnRoll
    case nameInUse
    case other

    package init(_ error: String) {
        let words = error.split(separator: " ", maxSplits: 1)
        switch words.first {
        case "REDIRECT":
            self = .redirect(words.count == 2 ? Address(text: String(words[1])) : nil)
        case "TRYAGAIN", "BUSY", "FULL": self = .later
        case "ALREADYVOTED": self = .alreadyVoted
        case "CLOSED": self = .closed
        case "NOSUCHVOTE": self = .noSuchVote
        case "NOTONROLL": self = .notOnRoll
        case "NAMEINUSE": self = .nameInUse
        default: self = .other
        }
    }
}
