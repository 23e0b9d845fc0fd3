import Testing
import Wire

@testable import Replication

/// A member that leaves says so until it is out.
@Suite struct LeaveTests {
    private static let leave = Message.leave(Instance(1))

    /// The first time it is news, and the others do not wait for their time to come. After that it
    /// is not: candidates that all begin whenever it is said outbid each other for ever.
    @Test func whoSaysItAgainDoesNotHurryAnyone() throws {
        var replica = try PairFixture.replica(2, [])
        var outbox = PairFixture.give(Self.leave, to: &replica)
        let first = try #require(replica.campaign)
        #expect(outbox.sendAfterSync.contains { $0.to == Instance(1) })

        let higher = Attempt(counter: first.attempt.counter, proposer: Instance(3))
        let outbid = Message.outbid(number: ViewNumber(3), attempt: higher)
        _ = PairFixture.give(outbid, to: &replica)
        #expect(replica.campaign == nil)
        _ = PairFixture.give(Self.leave, to: &replica)
        #expect(replica.campaign == nil)

        for _ in 0..<100 where replica.campaign == nil { replica.step(.tick, into: &outbox) }
        #expect(replica.campaign != nil)
    }
}
