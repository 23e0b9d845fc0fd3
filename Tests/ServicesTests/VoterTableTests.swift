import Services
import Testing
import Wire

/// What holds a great many voters and votes in parts: nothing of the parts is to be seen outside.
@Suite struct VoterTableTests {
    private static func apply(_ command: PollCommand, to polls: inout Polls) -> Reply {
        var effects: [Polls.Effect] = []
        let context = OpContext(view: ViewNumber(1), op: OpNumber(1), time: 0)
        return polls.apply(command.encode().span, at: context, into: &effects)
    }

    private static func name(_ number: Int) -> [UInt8] { Array("voter-\(number)".utf8) }

    /// More than a chunk of voters and of votes.
    private static func polls(voters: Int, votes: Int) -> Polls {
        var polls = Polls()
        for number in 0..<voters { _ = apply(.join(voter: name(number)), to: &polls) }
        for number in 0..<votes {
            let question = Array("question \(number)".utf8)
            _ = apply(.open(VoteTerms(question: question, isRollOpen: true)), to: &polls)
        }
        return polls
    }

    @Test func placesAreInTheOrderOfAppearance() {
        let count = 3_000
        let polls = Self.polls(voters: count, votes: 0)
        #expect(polls.voters.count == count)
        for number in 0..<count {
            #expect(polls.voterPlace(Self.name(number)) == number)
            #expect(polls.voters[number] == Self.name(number))
        }
        #expect(polls.voterPlace(Self.name(count)) == nil)
        #expect(Polls().voterPlace(Self.name(0)) == nil)
    }

    @Test func snapshotsComeBack() throws {
        var polls = Self.polls(voters: 2_500, votes: 2_100)
        for vote: UInt64 in [1, 1_024, 1_025, 2_048, 2_100] {
            let cast = PollCommand.castByName(vote: vote, voter: Self.name(2_000), choice: .yes)
            #expect(Self.apply(cast, to: &polls) == .ok)
        }
        let snapshot = polls.snapshot()
        let again = try Polls(snapshot: snapshot)
        #expect(again == polls)
        #expect(again.snapshot() == snapshot)
        #expect(again.record(2_048)?.yes == 1)
        #expect(again.record(2_047)?.yes == 0)
        #expect(again.voterPlace(Self.name(2_499)) == 2_499)
    }

    /// A copy that a thread encodes stays as it was, whatever the loop does meanwhile.
    @Test func copiesAreValues() {
        var polls = Self.polls(voters: 2_500, votes: 1_500)
        let copy = polls
        let before = copy.snapshot()
        #expect(Self.apply(.join(voter: Self.name(9_999)), to: &polls) == .ok)
        let cast = PollCommand.castByName(vote: 1_200, voter: Self.name(3), choice: .no)
        #expect(Self.apply(cast, to: &polls) == .ok)
        #expect(Self.apply(.close(vote: 7), to: &polls) == .ok)
        #expect(copy.snapshot() == before)
        #expect(copy != polls)
        #expect(copy.voterPlace(Self.name(9_999)) == nil)
        #expect(polls.voterPlace(Self.name(9_999)) == 2_500)
    }

    @Test func aVoterTwiceIsNoSnapshot() {
        var writer = SnapshotWriter()
        writer.add(2)
        for _ in 0..<2 { writer.add(Self.name(1)) }
        for _ in 0..<6 { writer.add(0) }
        #expect(throws: DecodeError.self) { try Polls(snapshot: writer.bytes) }
    }
}
