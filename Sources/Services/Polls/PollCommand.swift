package import Wire

/// What can be done to the polls; a request's command is one of these as bytes: a tag, then the
/// fields (numbers of variable length, strings with their length before them).
package enum PollCommand: Equatable, Sendable {
    /// A ballot of a voter whose place in the table is known.
    case cast(vote: UInt64, voter: UInt64, choice: Choice)
    case castByName(vote: UInt64, voter: [UInt8], choice: Choice)
    case open(VoteTerms)
    case close(vote: UInt64)
    case join(voter: [UInt8])
    case leave(voter: [UInt8])
    case plan(VotePlan)

    package static let castTag: UInt8 = 1

    package func encode() -> [UInt8] {
        var writer = SnapshotWriter()
        switch self {
        case .cast(let vote, let voter, let choice):
            writer.add(UInt64(Self.castTag))
            writer.add(vote)
            writer.add(voter)
            writer.add(UInt64(choice.rawValue))
        case .castByName(let vote, let voter, let choice):
            writer.add(2)
            writer.add(vote)
            writer.add(voter)
            writer.add(UInt64(choice.rawValue))
        case .open(let terms):
            writer.add(3)
            writer.add(terms.question)
            writer.add(terms.deadline)
            writer.add(terms.isRollOpen)
            writer.add(terms.planned)
        case .close(let vote):
            writer.add(4)
            writer.add(vote)
        case .join(let voter):
            writer.add(5)
            writer.add(voter)
        case .leave(let voter):
            writer.add(6)
            writer.add(voter)
        case .plan(let plan):
            writer.add(7)
            plan.write(to: &writer)
        }
        return writer.bytes
    }

    package init(decoding bytes: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(bytes)
        switch try reader.number() {
        case UInt64(Self.castTag):
            self = try .cast(
                vote: reader.number(), voter: reader.number(), choice: Choice(from: &reader))
        case 2:
            self = try .castByName(
                vote: reader.number(), voter: reader.string(), choice: Choice(from: &reader))
        case 3:
            self = try .open(
                VoteTerms(
                    question: reader.string(), deadline: reader.number(),
                    isRollOpen: reader.flag(), planned: reader.number()))
        case 4: self = try .close(vote: reader.number())
        case 5: self = try .join(voter: reader.string())
        case 6: self = try .leave(voter: reader.string())
        case 7: self = try .plan(VotePlan(from: &reader))
        default: throw DecodeError("unknown poll command")
        }
        guard reader.isAtEnd else { throw DecodeError("poll command too long") }
    }
}

/// What a ballot says; the raw value is its two bits in a vote's ballots (0: none).
package enum Choice: UInt8, Equatable, Sendable {
    case no = 1
    case yes = 2

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        guard let choice = Choice(rawValue: UInt8(truncatingIfNeeded: try reader.number())) else {
            throw DecodeError("bad choice")
        }
        self = choice
    }
}

/// How a vote is opened.
package struct VoteTerms: Equatable, Sendable {
    package var question: [UInt8]
    /// Milliseconds after which the primary closes it; 0: never.
    package var deadline: UInt64
    /// Anybody may vote; else those who are joined now.
    package var isRollOpen: Bool
    /// Which vote of the plan this is, from 1; 0 for one that somebody asked for.
    package var planned: UInt64

    package init(
        question: [UInt8], deadline: UInt64 = 0, isRollOpen: Bool = false, planned: UInt64 = 0
    ) {
        self.question = question
        self.deadline = deadline
        self.isRollOpen = isRollOpen
        self.planned = planned
    }
}

/// The votes that the primary opens by itself, one after the other.
package struct VotePlan: Equatable, Sendable {
    /// The first is opened when so many have joined.
    package var voters: UInt64
    package var votes: UInt64
    /// Milliseconds between a result and the next vote.
    package var interval: UInt64
    /// Milliseconds; 0: wait for every voter.
    package var deadline: UInt64
    /// For the first votes; later ones have none of their own.
    package var questions: [[UInt8]]

    package init(
        voters: UInt64, votes: UInt64, interval: UInt64, deadline: UInt64, questions: [[UInt8]]
    ) {
        self.voters = voters
        self.votes = votes
        self.interval = interval
        self.deadline = deadline
        self.questions = questions
    }

    func write(to writer: inout SnapshotWriter) {
        writer.add(voters)
        writer.add(votes)
        writer.add(interval)
        writer.add(deadline)
        writer.add(questions.count)
        for question in questions { writer.add(question) }
    }

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        voters = try reader.number()
        votes = try reader.number()
        interval = try reader.number()
        deadline = try reader.number()
        questions = []
        for _ in 0..<(try reader.count()) { questions.append(try reader.string()) }
    }
}
