import Services
import Wire

/// The polls once more, as slow and plain as can be: what replies, ballots and tallies should be.
struct ModelPolls {
    struct Vote {
        /// Nil: anybody may vote.
        var roll: [[UInt8]]?
        var ballots: [(name: [UInt8], choice: Choice, op: Int)] = []
        /// The op that closed it; nil while it is open.
        var closedAt: Int?

        var isOpen: Bool { closedAt == nil }

        func choice(of name: [UInt8]) -> Choice? { ballots.first { $0.name == name }?.choice }
        func tally(_ choice: Choice) -> UInt32 {
            UInt32(ballots.filter { $0.choice == choice }.count)
        }
    }

    private(set) var votes: [Vote] = []
    /// Everybody ever heard of, in that order, and who is joined now.
    private(set) var names: [[UInt8]] = []
    private(set) var joined: [[UInt8]] = []
    private(set) var reading = Reading(votes: 0, closed: 0, ballots: 0)
    private var op = 0

    func vote(_ number: UInt64) -> Vote? {
        number >= 1 && number <= UInt64(votes.count) ? votes[Int(number) - 1] : nil
    }

    /// What kind of answer the command deserves: for an error its code alone.
    mutating func apply(_ command: PollCommand, at op: Int) -> Reply {
        self.op = op
        switch command {
        case .cast(let vote, let voter, let choice):
            guard voter < UInt64(names.count) else { return .error("NOTONROLL") }
            return cast(vote, names[Int(voter)], choice)
        case .castByName(let vote, let name, let choice): return cast(vote, name, choice)
        case .open(let terms):
            votes.append(Vote(roll: terms.isRollOpen ? nil : joined))
            reading.votes += 1
            return .integer(Int64(votes.count))
        case .close(let number):
            guard vote(number) != nil else { return .error("NOSUCHVOTE") }
            close(Int(number) - 1)
            return .ok
        case .join(let name):
            note(name)
            if !joined.contains(name) { joined.append(name) }
            return .ok
        case .leave(let name):
            guard joined.contains(name) else { return .ok }
            joined.removeAll { $0 == name }
            for index in votes.indices.reversed() where votes[index].isOpen {
                guard votes[index].roll?.contains(name) == true,
                    votes[index].choice(of: name) == nil
                else { continue }
                votes[index].roll?.removeAll { $0 == name }
                closeIfComplete(index)
            }
            return .ok
        case .plan: return .ok
        }
    }

    private mutating func note(_ name: [UInt8]) {
        if !names.contains(name) { names.append(name) }
    }

    private mutating func cast(_ number: UInt64, _ name: [UInt8], _ choice: Choice) -> Reply {
        guard let vote = vote(number) else { return .error("NOSUCHVOTE") }
        if let before = vote.choice(of: name) {
            return before == choice ? .ok : .error("ALREADYVOTED")
        }
        guard vote.isOpen else { return .error("CLOSED") }
        guard vote.roll?.contains(name) ?? true else { return .error("NOTONROLL") }
        note(name)
        votes[Int(number) - 1].ballots.append((name, choice, op))
        reading.ballots += 1
        closeIfComplete(Int(number) - 1)
        return .ok
    }

    private mutating func closeIfComplete(_ index: Int) {
        guard let roll = votes[index].roll, votes[index].isOpen,
            roll.allSatisfy({ votes[index].choice(of: $0) != nil })
        else { return }
        close(index)
    }

    private mutating func close(_ index: Int) {
        guard votes[index].isOpen else { return }
        votes[index].closedAt = op
        reading.closed += 1
    }
}
