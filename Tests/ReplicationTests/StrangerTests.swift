import Testing
import Wire

@testable import Replication

/// Clients that are no electors may say what they like.
@Suite struct StrangerTests {
    private static let next = ViewNumber(3)
    private static let attempt = Attempt(counter: 1, proposer: Instance(1))

    private static func grant(_ committed: UInt64, _ accepted: Accepted? = nil) -> Message {
        .grant(
            number: next, attempt: attempt, committed: LogEnd(view: next, op: OpNumber(committed)),
            end: .beginning,
            accepted: accepted)
    }

    /// Of an op that was never proposed, to a replica that would take its disk to have lost it.
    @Test(arguments: [UInt64(1), 2]) func whatTheySayIsCommittedDoesNotCount(number: UInt64) throws
    {
        let log = [PairFixture.entry(1, after: .beginning)]
        var replica = try PairFixture.replica(number, log)
        _ = PairFixture.give(Self.grant(1 << 62), to: &replica, from: Instance(0xbad))
        #expect(replica.missing == nil)
        #expect(replica.knownCommitted.op <= replica.op)
        // An elector's word does.
        _ = PairFixture.give(Self.grant(2), to: &replica)
        #expect(replica.knownCommitted.op == OpNumber(2))
    }

    @Test func theyDoNotOutbid() throws {
        var replica = try Self.seeking()
        let before = replica.campaign
        let outbid = Message.outbid(
            number: Self.next, attempt: Attempt(counter: 1 << 62, proposer: Instance(0xbad)))
        _ = PairFixture.give(outbid, to: &replica, from: Instance(0xbad))
        #expect(replica.campaign == before && before != nil)
        #expect(replica.counterSeen < 10)
    }

    /// A view of another number cannot have been accepted in the choice of this one.
    @Test func aViewOfAnotherNumberIsNotTaken() throws {
        var replica = try Self.seeking()
        var far = PairFixture.view
        far.number = ViewNumber(9)
        let accepted = Accepted(attempt: Attempt(counter: 0, proposer: Instance(1)), view: far)
        guard let attempt = replica.campaign?.attempt else { throw NoCampaign() }
        let grant = Message.grant(
            number: Self.next, attempt: attempt, committed: .beginning, end: .beginning,
            accepted: accepted)
        let outbox = PairFixture.give(grant, to: &replica)
        #expect(replica.view == PairFixture.view)
        #expect(!outbox.records.contains { if case .proposed = $0 { true } else { false } })
    }

    private struct NoCampaign: Error {}

    /// The backup, which asks the electors for the next view.
    private static func seeking() throws -> Replica {
        var replica = try PairFixture.replica(2, [])
        var outbox = Outbox()
        for _ in 0..<60 where replica.campaign == nil { replica.step(.tick, into: &outbox) }
        return replica
    }
}
