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

    /// Its view names a process of the other's that is over, and the one that is connected answers for the
    /// choice of the next: then that is the newer, and its end the proof.
    @Test(arguments: [true, false]) func whoAnswersInAViewIsTheNewest(isFirst: Bool) throws {
        var replica = try PairFixture.replica(1, [])
        var outbox = Outbox()
        let newest = Life(PairFixture.member(2, pid: 9))
        replica.step(.met(newest, knowing: nil), into: &outbox)
        var next = PairFixture.view
        next.number = ViewNumber(3)
        next.backups = [PairFixture.member(2, pid: 7)]
        _ = PairFixture.give(.view(next), to: &replica)
        #expect(replica.lives.doubted == [Instance(2)])
        let end = Replica.Event.exited(Instance(2), newest)
        if isFirst { replica.step(end, into: &outbox) }
        #expect(!replica.lives.haveEnded(Instance(2)))
        _ = PairFixture.give(
            .grant(
                number: ViewNumber(4), attempt: Attempt(counter: 1, proposer: Instance(1)),
                committed: .beginning, end: .beginning, accepted: nil), to: &replica)
        if !isFirst { replica.step(end, into: &outbox) }
        #expect(replica.lives.haveEnded(Instance(2)))
    }

    /// What it has lost may be this very view, and an op of it: requests wait until the backup shows what
    /// it has.
    @Test func aViewThatWasForgottenIsComparedToo() throws {
        var primary = try PairFixture.replica(1, [])
        var next = PairFixture.view
        next.number = ViewNumber(3)
        _ = PairFixture.give(.view(next), to: &primary)
        #expect(primary.isPrimary && !primary.acceptsRequests)
        let hash = PairFixture.entry(1, after: .beginning).hash
        _ = PairFixture.give(
            .attach(view: next.number, op: OpNumber(1), hash: hash), to: &primary)
        #expect(primary.missing?.op == OpNumber(1) && primary.fork == nil)
        primary = try PairFixture.replica(1, [])
        _ = PairFixture.give(.view(next), to: &primary)
        _ = PairFixture.give(
            .attach(view: next.number, op: OpNumber(0), hash: .beginning), to: &primary)
        #expect(primary.acceptsRequests)
    }

    /// Replica 1 alone in view 2, or with replica 2 in view 3, if that was proposed before and is decided
    /// again.
    private func alone(_ records: [Record]) throws -> Replica {
        var view = PairFixture.view
        (view.backups, view.electorate) = ([], [Instance(1)])
        var recovered = Recovered()
        for record in [.view(view)] + records { try recovered.replay(record) }
        var replica = Replica(
            me: PairFixture.member(1, pid: 101), timing: Timing(suspectTicks: 50, beatTicks: 10),
            membersMax: 2, seed: 1, recovered: recovered)
        var outbox = Outbox()
        replica.step(.resume, into: &outbox)
        for _ in 0..<20 { replica.step(.tick, into: &outbox) }
        return replica
    }

    /// Who has executed more may be of a later view, of which this primary has not heard. Where the
    /// service began with a copy, the view may be of the one before.
    @Test(arguments: [2, 3, 40]) func whoHasMoreOfALaterViewIsNotSentAway(view: UInt64) throws {
        let entry = PairFixture.entry(1, after: .beginning)
        var primary = try alone([.entry(entry)])
        let newcomer = PairFixture.member(3)
        let isOfCopy = view == 40
        let end = LogEnd(view: ViewNumber(view), op: OpNumber(isOfCopy ? 1 : 20))
        let join = Message.join(
            JoinID(1), newcomer, end: end, hash: isOfCopy ? entry.hash : .beginning)
        let outbox = PairFixture.give(join, to: &primary, from: newcomer.instance)
        var answers: [String] = []
        for envelope in outbox.send + outbox.sendAfterSync {
            switch envelope.message {
            case .joinRefused: answers.append("refused")
            case .state: answers.append("let in")
            default: break
            }
        }
        #expect(answers == (view == 2 ? ["refused"] : isOfCopy ? ["let in"] : []))
    }

    /// Nor for want of a place, which may be free in the later view.
    @Test(arguments: [2, 3]) func norForWantOfAPlace(view: UInt64) throws {
        var primary = try PairFixture.replica(1, [])
        _ = PairFixture.give(Self.attach, to: &primary)
        let newcomer = PairFixture.member(3)
        let end = LogEnd(view: ViewNumber(view), op: OpNumber(20))
        let join = Message.join(JoinID(1), newcomer, end: end, hash: .beginning)
        let outbox = PairFixture.give(join, to: &primary, from: newcomer.instance)
        let isRefused = outbox.send.contains { envelope in
            if case .joinRefused = envelope.message { true } else { false }
        }
        #expect(isRefused == (view == 2))
    }

    /// What it had proposed was decided, and what came in that view may be lost.
    @Test func aViewDecidedAgainIsCompared() throws {
        var next = PairFixture.view
        next.number = ViewNumber(3)
        let attempt = Attempt(counter: 0, proposer: Instance(1))
        var primary = try alone([
            .proposed(number: next.number), .accepted(Accepted(attempt: attempt, view: next)),
        ])
        #expect(primary.view == next && primary.isPrimary && !primary.acceptsRequests)
        _ = PairFixture.give(
            .attach(view: next.number, op: OpNumber(0), hash: .beginning), to: &primary)
        #expect(primary.acceptsRequests)
    }

    /// The same where another member helps to decide it again, which is not in it.
    @Test func whoWasNotLedIsCompared() throws {
        var next = PairFixture.view
        (next.number, next.backups) = (ViewNumber(3), [PairFixture.member(3)])
        next.electorate = [Instance(1), Instance(3)]
        let accepted = Accepted(
            attempt: Attempt(counter: 0, proposer: Instance(1)), view: next)
        var recovered = Recovered()
        let records: [Record] = [
            .view(PairFixture.view), .proposed(number: next.number), .accepted(accepted),
        ]
        for record in records { try recovered.replay(record) }
        var primary = Replica(
            me: PairFixture.member(1), timing: Timing(suspectTicks: 50, beatTicks: 10),
            membersMax: 3, seed: 1, recovered: recovered)
        var outbox = Outbox()
        primary.step(.resume, into: &outbox)
        primary.step(.linkUp(Instance(2)), into: &outbox)
        _ = PairFixture.give(Self.attach, to: &primary, from: Instance(2))
        for _ in 0..<60 where primary.campaign == nil { primary.step(.tick, into: &outbox) }
        let attempt = try #require(primary.campaign?.attempt)
        let grant = Message.grant(
            number: next.number, attempt: attempt, committed: .beginning, end: .beginning,
            accepted: accepted)
        _ = PairFixture.give(grant, to: &primary, from: Instance(2))
        _ = PairFixture.give(
            .accepted(number: next.number, attempt: attempt), to: &primary, from: Instance(2))
        #expect(primary.view == next && primary.isPrimary && !primary.acceptsRequests)
        let attach = Message.attach(view: next.number, op: OpNumber(0), hash: .beginning)
        _ = PairFixture.give(attach, to: &primary, from: Instance(3))
        #expect(primary.acceptsRequests)
    }

    /// What shows again behind a lost end was never committed, however far the next view's base reaches.
    @Test(arguments: [true, false]) func whatShowsAgainIsNotExecuted(isShort: Bool) throws {
        let entry = PairFixture.entry(1, after: .beginning)
        var view = PairFixture.view
        (view.number, view.primary) = (ViewNumber(3), PairFixture.member(3))
        var recovered = Recovered()
        for record in [.view(PairFixture.view), .entry(entry), .view(view)] as [Record] {
            try recovered.replay(record)
        }
        var backup = Replica(
            me: PairFixture.member(2), timing: Timing(suspectTicks: 50, beatTicks: 10),
            membersMax: 2, seed: 1, recovered: recovered)
        view.number = ViewNumber(4)
        (view.backups, view.electorate) = ([], [Instance(3)])
        view.base = LogEnd(view: ViewNumber(isShort ? 3 : 2), op: OpNumber(isShort ? 7 : 1))
        let outbox = PairFixture.give(.view(view), to: &backup, from: Instance(3))
        #expect(outbox.execute == (isShort ? [] : [entry]))
    }

    /// It must have had the state of the view that names it.
    @Test func whoHasLostItsStateComesInAsShort() throws {
        var recovered = Recovered()
        var view = PairFixture.view
        (view.backups, view.electorate) = ([], [Instance(1)])
        try recovered.replay(.view(view))
        var replica = Replica(
            me: PairFixture.member(2), timing: Timing(suspectTicks: 50, beatTicks: 10),
            membersMax: 2, seed: 1, recovered: recovered)
        var next = PairFixture.view
        next.number = ViewNumber(3)
        next.base = LogEnd(view: ViewNumber(2), op: OpNumber(7))
        _ = PairFixture.give(.view(next), to: &replica)
        #expect(replica.isMember && replica.missing?.op == OpNumber(7))
        #expect(!replica.isPrimary)
    }

    /// A view that one elector has accepted, and that nobody is left to finish, need not be waited for once
    /// the last one has answered, who is far away.
    @Test func theLastAnswerIsWaitedFor() throws {
        let clients = [10, 11, 12].map { Instance($0) }
        var view = PairFixture.view
        view.electorate += clients
        var recovered = Recovered()
        try recovered.replay(.view(view))
        var backup = Replica(
            me: PairFixture.member(2), timing: Timing(suspectTicks: 50, beatTicks: 10),
            membersMax: 2, seed: 1, recovered: recovered)
        var outbox = Outbox()
        backup.step(.resume, into: &outbox)
        backup.step(.witnesses(clients), into: &outbox)
        backup.step(.exited(Instance(1), nil), into: &outbox)
        let attempt = try #require(backup.campaign?.attempt)
        let alone = View(
            number: ViewNumber(3), primary: PairFixture.member(1), backups: [],
            electorate: [Instance(1)], base: .beginning)
        let first = Accepted(attempt: Attempt(counter: 0, proposer: Instance(1)), view: alone)
        func answer(_ client: Int, _ accepted: Accepted?) {
            let grant = Message.grant(
                number: ViewNumber(3), attempt: attempt, committed: .beginning, end: .beginning,
                accepted: accepted)
            _ = PairFixture.give(grant, to: &backup, from: clients[client])
        }
        answer(0, first)
        answer(1, nil)
        for _ in 0..<10 { backup.step(.tick, into: &outbox) }
        #expect(backup.campaign?.attempt == attempt)
        answer(2, nil)
        #expect(backup.campaign?.proposal?.members.map(\.instance) == [Instance(2)])
    }

    /// A machine has another number after each of its starts, which the view does not know yet: the two
    /// still decide together, by the proof of the other's end.
    @Test(arguments: [7, 8]) func aRebootMakesNoTwoHosts(hostOfBackup: UInt64) throws {
        var primary = try PairFixture.replica(1, [], host: 7)
        var outbox = Outbox()
        let backup = PairFixture.member(2, pid: 102, host: hostOfBackup)
        primary.step(.met(Life(backup), knowing: PairFixture.view), into: &outbox)
        _ = PairFixture.give(Self.attach, to: &primary)
        for _ in 0..<300 {
            primary.step(.heard(backup.instance), into: &outbox)
            primary.step(.tick, into: &outbox)
        }
        let proposed = outbox.records.contains { if case .proposed = $0 { true } else { false } }
        #expect(proposed == (hostOfBackup != 7), "by the primary alone only on two hosts")
    }

    /// Who was only about to join has heard of a view, and has nothing to lead with.
    @Test func onlyAStateIsPromoted() throws {
        func mayBePromoted(_ number: UInt64, _ records: [Record]) throws -> Bool {
            var recovered = Recovered()
            for record in records { try recovered.replay(record) }
            let replica = Replica(
                me: PairFixture.member(number), timing: Timing(suspectTicks: 50, beatTicks: 10),
                membersMax: 2, seed: 1, recovered: recovered)
            return replica.mayBePromoted
        }
        let view = Record.view(PairFixture.view)
        #expect(try !mayBePromoted(3, [view]))
        #expect(try mayBePromoted(2, [view]))
        #expect(try mayBePromoted(3, [.restored(.beginning, hash: .beginning), view]))
        let entry = PairFixture.entry(1, after: .beginning)
        #expect(try mayBePromoted(3, [.entry(entry), view]))
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
