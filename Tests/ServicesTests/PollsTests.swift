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
}
