import Testing
import Wire

@testable import Replication

/// What a replica does and does not that has come back from its disk, event by event.
@Suite struct RestartTests {
    private static let attach = Message.attach(
        view: PairFixture.view.number, op: OpNumber(0), hash: .beginning)

    /// Whether the place of the backup is free is seen when it has come, or has not.
    @Test func aNewcomerIsSentAwayWhenTheBackupIsThere() throws {
        func refusals(_ replica: inout Replica) -> Int {
            let newcomer = PairFixture.member(3)
            let join = Message.join(
                JoinID(1), newcomer, end: .beginning, hash: .beginning)
            let outbox = PairFixture.give(join, to: &replica, from: newcomer.instance)
            return outbox.send.count { if case .joinRefused = $0.message { true } else { false } }
        }
        var primary = try PairFixture.replica(1, [])
        #expect(refusals(&primary) == 0)
        _ = PairFixture.give(Self.attach, to: &primary)
        #expect(refusals(&primary) == 1)
    }

    /// Witnesses are then chosen by phase 1, which may come to nothing.
    @Test func theElectorateIsMendedAgain() throws {
        var primary = try PairFixture.replica(1, [])
        _ = PairFixture.give(Self.attach, to: &primary)
        // It vouches for the other, but a promise of before keeps attempt 0 from being made.
        var outbox = Outbox()
        _ = PairFixture.give(
            .seek(
                number: ViewNumber(3), attempt: Attempt(counter: 1, proposer: Instance(2)),
                isViewOver: true), to: &primary)
        let client = Instance(10)
        primary.step(.witnesses([client]), into: &outbox)
        _ = PairFixture.give(.witnesses([client]), to: &primary)
        var tries: Set<Attempt> = []
        for _ in 0..<300 {
            outbox.removeAll()
            primary.step(.heard(Instance(2)), into: &outbox)
            primary.step(.tick, into: &outbox)
            for case .promised(_, let attempt) in outbox.records { tries.insert(attempt) }
        }
        #expect(tries.count > 1, "asked once, it asks no more")
    }

    /// Who speaks over clients may take this process for the one before, and by the proof of that one's
    /// end go on alone: it has vouched for nothing.
    @Test(arguments: [true, false]) func aWordOverClientsVouchesForNothing(isDirect: Bool) throws {
        var backup = try PairFixture.replica(2, [])
        var outbox = Outbox()
        let word = Message.commit(
            view: PairFixture.view.number, commitMax: OpNumber(0), hash: .beginning)
        let other = Instance(1)
        backup.step(
            isDirect ? .message(word, from: other) : .relayed(word, from: other), into: &outbox)
        #expect(backup.isProofVoid == !isDirect)
        backup.step(.exited(other, nil), into: &outbox)
        #expect(backup.view?.number == ViewNumber(isDirect ? 3 : 2))
    }

    /// A view that names a newer process of the other was chosen with its help.
    @Test func newsOfANewerProcessEndsTheProof() throws {
        var backup = try PairFixture.replica(2, [])
        var outbox = Outbox()
        let old = PairFixture.member(1)
        backup.step(.met(Life(old), knowing: nil), into: &outbox)
        backup.step(.linkDown(old.instance), into: &outbox)
        backup.step(.exited(old.instance, Life(old)), into: &outbox)
        #expect(backup.isProvedDead(old.instance))
        var next = PairFixture.view
        next.number = ViewNumber(3)
        next.primary = PairFixture.member(1, pid: 101)
        _ = PairFixture.give(.view(next), to: &backup, from: Instance(10))
        #expect(backup.view == next)
        #expect(!backup.isProvedDead(old.instance))
    }
}
