import Testing
import Wire

@testable import Services

@Suite struct PollsTests {
    private var polls = Polls()
    private var op: UInt64 = 0

    private mutating func apply(_ command: PollCommand) -> Reply {
        op += 1
        var effects: [Polls.Effect] = []
        let context = OpContext(view: ViewNumber(1), op: OpNumber(op), time: 0)
        return polls.apply(command.encode().span, at: context, into: &effects)
    }

    /// The plan waits for room; its votes do not come to nothing.
    @Test mutating func plannedVotesWaitUntilSomeAreClosed() throws {
        _ = apply(.plan(VotePlan(voters: 1, votes: 2, interval: 0, deadline: 0, questions: [])))
        for vote in 1...Polls.openMax {
            let terms = VoteTerms(question: [], isRollOpen: true)
            #expect(apply(.open(terms)) == .integer(Int64(vote)))
        }
        _ = apply(.join(voter: Array("ann".utf8)))
        #expect(polls.nextPlanned == nil)
        let refused = apply(.open(VoteTerms(question: [], planned: 1)))
        guard case .error(let text) = refused else {
            Issue.record("\(refused)")
            return
        }
        #expect(text.hasPrefix("FULL"))
        _ = apply(.close(vote: 5))
        let next = try #require(polls.nextPlanned)
        #expect(next.planned == 1)
        #expect(apply(.open(next)) == .integer(Int64(Polls.openMax + 1)))
    }

    /// Questions are kept for ever, and all of them are sent to each new backup.
    @Test mutating func questionsAreBoundedTogether() throws {
        let question = [UInt8](repeating: 63, count: Polls.questionBytesMax)
        let most = Polls.keptQuestionsBytesMax / question.count
        polls = try Polls(snapshot: Self.snapshot(of: most - 1, question))
        #expect(apply(.open(VoteTerms(question: question))) == .integer(Int64(most)))
        guard case .error(let text) = apply(.open(VoteTerms(question: [63]))) else {
            Issue.record("one more was opened")
            return
        }
        #expect(text.hasPrefix("FULL"))
        #expect(apply(.open(VoteTerms(question: []))) == .integer(Int64(most) + 1))
    }

    /// Of so many closed votes with one question.
    private static func snapshot(of votes: Int, _ question: [UInt8]) -> [UInt8] {
        var writer = SnapshotWriter()
        writer.add(0)
        VoterSet().write(to: &writer)
        writer.add(votes)
        for _ in 0..<votes {
            writer.add(question)
            for _ in ["yes", "no"] { writer.add(0) }
            writer.add(false)
        }
        for _ in ["open", "closed"] { writer.add(0) }
        writer.add(false)
        writer.add(0)
        return writer.bytes
    }
}
