/// What a ballot says.
package enum Choice: String, Hashable, Sendable {
    case yes
    case no

    /// Takes what people type: y, yes, n, no, in any case and with blanks around.
    package init?(typed line: String) {
        let word = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" })
        guard word.count == 1, let word = word.first?.lowercased() else { return nil }
        switch word {
        case "y", "yes": self = .yes
        case "n", "no": self = .no
        default: return nil
        }
    }
}

/// How a voter makes up its mind.
package enum VotePolicy: Equatable, Sendable {
    case always(Choice)
    /// By the seed and the vote's id alone: a run can be repeated, and a restart in the middle of
    /// a vote does not change the ballot.
    case random(seed: UInt64)
    /// Somebody at the terminal says it.
    case ask
    /// It does not vote at all: it is only there as a witness, and to relay.
    case never
}

/// The outcome of one vote, as the service announces it and the log keeps it.
package struct PollResult: Hashable, Sendable {
    package var id: UInt64
    package var yes: UInt64
    package var no: UInt64

    package init(id: UInt64, yes: UInt64, no: UInt64) {
        self.id = id
        self.yes = yes
        self.no = no
    }

    /// `17 11 9` and a line end.
    package var logLine: [UInt8] { Array("\(id) \(yes) \(no)\n".utf8) }

    /// `vote 17: 11 yes, 9 no (55 % yes)`.
    package var summary: String {
        let total = Double(yes) + Double(no)
        guard total > 0 else { return "vote \(id): no ballots" }
        let share = Int((Double(yes) / total * 100).rounded())
        return "vote \(id): \(yes) yes, \(no) no (\(share) % yes)"
    }
}

/// This voter's part in one vote, kept until the vote's result is known, in the log or not.
struct Ballot: Equatable, Sendable {
    let vote: UInt64
    let question: String
    /// nil while nobody has decided.
    var choice: Choice?
    /// It is counted on every replica of the view, or will never be: nothing is left to send.
    var isSettled = false
    /// The connections that it went out on and that have not given it back.
    var sentOn: [LinkID] = []
}

/// The generator of Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators (2014):
/// all of its state is one number, so it can be part of a value that tests compare.
package struct SplitMix64: Equatable, Sendable, RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
