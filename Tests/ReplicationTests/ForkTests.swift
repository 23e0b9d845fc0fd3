import Testing
import Wire

@testable import Replication

/// What a member does that finds another's log to be another than its own, event by event; the
/// stories are in the traces 51 and 53.
@Suite struct ForkTests {
    private static func acks(_ outbox: Outbox) -> [Message] {
        (outbox.send + outbox.sendAfterSync).map(\.message).filter {
            if case .prepareOK = $0 { true } else { false }
        }
    }

    private static func isStalled(_ outbox: Outbox) -> Bool {
        outbox.effects.contains { if case .stalled = $0 { true } else { false } }
    }

    @Test func anEntryThatDoesNotFollowIsNotTaken() throws {
        let first = PairFixture.entry(1, after: .beginning)
        var backup = try PairFixture.replica(2, [first])
        func prepare(_ entry: Entry) -> Message {
            .prepare(view: PairFixture.view.number, entry: entry, commitMax: OpNumber(0))
        }
        let second = PairFixture.entry(2, after: first.hash)
        #expect(Self.acks(PairFixture.give(prepare(second), to: &backup)).count == 1)
        let stranger = PairFixture.entry(3, after: LogHash(77))
        let refusal = PairFixture.give(prepare(stranger), to: &backup)
        #expect(Self.isStalled(refusal))
        #expect(Self.acks(refusal).isEmpty)
        #expect(refusal.records.isEmpty)
        #expect(backup.fork == .log(of: Instance(1), at: OpNumber(3)))
        let told = refusal.send.map(\.message)
        #expect(told == [.fork(view: PairFixture.view.number, op: OpNumber(3))])
        // Nor anything after that, also if it would follow.
        let third = PairFixture.entry(3, after: second.hash)
        #expect(Self.acks(PairFixture.give(prepare(third), to: &backup)).isEmpty)
        #expect(backup.op == OpNumber(2))
    }

    /// In the place of an entry that is not committed only one that follows what is before it.
    @Test func anotherEntryHasToFollowToo() throws {
        var old = PairFixture.entry(1, after: .beginning)
        old.view = ViewNumber(1)
        func prepare(after parent: LogHash) -> Message {
            .prepare(
                view: PairFixture.view.number, entry: PairFixture.entry(1, after: parent, 2),
                commitMax: OpNumber(0))
        }
        var backup = try PairFixture.replica(2, [old])
        let refusal = PairFixture.give(prepare(after: LogHash(77)), to: &backup)
        #expect(Self.isStalled(refusal))
        #expect(refusal.records.isEmpty)
        backup = try PairFixture.replica(2, [old])
        let taken = PairFixture.give(prepare(after: .beginning), to: &backup)
        #expect(Self.acks(taken).count == 1)
        #expect(taken.records.first == .truncated(after: OpNumber(0)))
    }

    @Test(arguments: [Election.sticky, .bully]) func bothWait(election: Election) throws {
        let first = PairFixture.entry(1, after: .beginning)
        var primary = try PairFixture.replica(1, [first], election: election)
        let same = Message.attach(
            view: PairFixture.view.number, op: OpNumber(1), hash: first.hash)
        #expect(!Self.isStalled(PairFixture.give(same, to: &primary)))
        #expect(primary.acceptsRequests)
        let attach = Message.attach(
            view: PairFixture.view.number, op: OpNumber(1), hash: LogHash(77))
        #expect(Self.isStalled(PairFixture.give(attach, to: &primary)))
        #expect(!primary.acceptsRequests)
        var backup = try PairFixture.replica(2, [first], election: election)
        let fork = Message.fork(view: PairFixture.view.number, op: OpNumber(1))
        #expect(Self.isStalled(PairFixture.give(fork, to: &backup)))
        for var replica in [primary, backup] {
            let other = 3 - replica.me.instance.rawValue
            var outbox = Outbox()
            replica.step(.linkDown(Instance(other)), into: &outbox)
            replica.step(
                .exited(Instance(other), Life(PairFixture.member(other))), into: &outbox)
            for _ in 0..<200 { replica.step(.tick, into: &outbox) }
            #expect(replica.view == PairFixture.view)
            #expect(replica.status == .normal)
            #expect(outbox.records.isEmpty, "it has begun to choose a view")
            // Only people can.
            replica.step(.promoteByForce, into: &outbox)
            #expect(replica.fork == nil && replica.acceptsRequests)
        }
    }

    /// What a backup says in a grant that it has of this view's log its primary has had.
    @Test func aGrantShowsWhatThePrimaryLacks() throws {
        let first = PairFixture.entry(1, after: .beginning)
        var primary = try PairFixture.replica(1, [first])
        let attempt = Attempt(counter: 1, proposer: Instance(1))
        func grant(_ op: UInt64) -> Message {
            .grant(
                number: ViewNumber(3), attempt: attempt, committed: .beginning,
                end: LogEnd(view: PairFixture.view.number, op: OpNumber(op)),
                accepted: nil)
        }
        _ = PairFixture.give(grant(1), to: &primary)
        #expect(primary.missing == nil)
        #expect(Self.isStalled(PairFixture.give(grant(2), to: &primary)))
        #expect(primary.missing?.op == OpNumber(2))
    }

    /// Behind a lost end an entry of an earlier view shows again, which was never committed: that is no
    /// second log, and who has restarted lets the other go on.
    @Test(arguments: [UInt64(1), 2]) func whatShowsAgainIsNoFork(number: UInt64) throws {
        var batch = Batch()
        batch.append(Request(command: [1]))
        let older = Entry(
            view: ViewNumber(1), first: OpNumber(1), time: 1, batch: batch, after: .beginning)
        var replica = try PairFixture.replica(number, [older])
        let other = PairFixture.entry(1, after: .beginning, 9).hash
        let message: Message =
            number == 1
            ? .attach(view: ViewNumber(2), op: OpNumber(1), hash: other)
            : .commit(view: ViewNumber(2), commitMax: OpNumber(1), hash: other)
        _ = PairFixture.give(message, to: &replica)
        #expect(replica.fork == nil && replica.missing?.op == OpNumber(1))
    }
}
