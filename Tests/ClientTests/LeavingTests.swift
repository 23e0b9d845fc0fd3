import Replication
import Testing
import Wire

@testable import Client

/// Leaving, and the witness's part in it.
@Suite struct LeavingTests {
    private static func member(_ address: Address) -> Member {
        Member(
            id: ReplicaID(id: UInt64(address.port)), instance: Instance(UInt64(address.port)),
            address: address, host: 1, pid: UInt64(address.port))
    }

    private static func view(_ number: UInt64, electors: [UInt64]) -> View {
        View(
            number: ViewNumber(number), primary: member(ann), backups: [member(bob)],
            electorate: electors.map { Instance($0) }, base: .beginning)
    }

    private static func push(_ message: Message) -> [RESPValue] {
        [.bulk(Array("witness".utf8))] + message.fields.map { .bulk($0) }
    }

    private static func witnessed(_ stage: inout Stage, _ address: Address) throws -> [Message] {
        let link = try stage.link(address)
        return stage.out.send.compactMap { item in
            guard item.link == link, case .witness(let message) = item.command else { return nil }
            return message
        }
    }

    @Test func leavesAtOnceWhereNobodyIs() {
        var stage = Stage()
        stage.step(.leave)
        #expect(stage.ending == .done)
    }

    @Test func tellsTheServiceAndWaitsForItsWord() throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        _ = stage.sent(ann)
        try stage.ok(ann)
        stage.step(.leave)
        #expect(stage.ending == nil)
        try stage.vote(2)
        #expect(stage.sent(ann) == ["LEAVE"], "no ballot of one that goes")
        try stage.ok(ann)
        #expect(stage.ending == .done)
    }

    @Test func hungServiceDoesNotHoldItBack() throws {
        var stage = Stage()
        try stage.settle()
        stage.step(.leave)
        stage.wait(999)
        #expect(stage.ending == nil)
        stage.wait(1)
        #expect(stage.ending == .done)
    }

    /// It comes along with the service's word that this voter has left, so the end has been decided
    /// when the disk turns out to be full.
    @Test func lastResultThatIsNotInTheLogIsAFailure() throws {
        var stage = Stage()
        try stage.settle()
        stage.step(.leave)
        try stage.result(1)
        try stage.ok(ann)
        #expect(stage.ending == .done)
        #expect(stage.out.append.map(\.id) == [1])
        stage.step(.logFailed("cannot append to eve.log"))
        #expect(stage.out.ending == .io("cannot append to eve.log"))
    }

    @Test func electorWaitsForAViewWithoutIt() throws {
        var stage = Stage()
        try stage.settle()
        let with = Self.view(3, electors: [0xeee, 7_001, 7_002])
        try stage.push(ann, Self.push(.view(with)))
        #expect(stage.session.view?.number == ViewNumber(3))
        _ = (stage.sent(ann), stage.sent(bob))
        stage.step(.leave)
        let expected = [Message.view(with), .leave(Instance(0xeee))]
        #expect(try Self.witnessed(&stage, ann) == expected)
        #expect(try Self.witnessed(&stage, bob) == expected)
        try stage.ok(ann)
        #expect(stage.ending == nil, "it still has a say")
        let without = Self.view(4, electors: [7_001, 7_002])
        try stage.push(ann, Self.push(.view(without)))
        #expect(stage.ending == .done)
    }

    @Test func witnessAnswersItsReplicaOnly() throws {
        var stage = Stage()
        try stage.settle()
        try stage.push(ann, Self.push(.view(Self.view(3, electors: [0xeee, 7_001, 7_002]))))
        _ = (stage.sent(ann), stage.sent(bob))
        let attempt = Attempt(counter: 1, proposer: Instance(7_002))
        let seek = Message.seek(number: ViewNumber(4), attempt: attempt, isViewOver: false)
        try stage.push(bob, Self.push(seek))
        #expect(try Self.witnessed(&stage, bob) == [], "the primary has just been heard")
        // The ticks of the silence are counted when something comes, not one by one.
        stage.wait(6_000)
        try stage.push(bob, Self.push(seek))
        #expect(
            try Self.witnessed(&stage, bob)
                == [
                    .grant(
                        number: ViewNumber(4), attempt: attempt, committed: .beginning,
                        end: .beginning, accepted: nil)
                ])
        #expect(try Self.witnessed(&stage, ann) == [])
    }
}
