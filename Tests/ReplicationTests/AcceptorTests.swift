import Replication
import Testing
import Wire

@Suite struct AcceptorTests {
    static let low = Attempt(counter: 1, proposer: Instance(1))
    static let high = Attempt(counter: 1, proposer: Instance(2))
    static let view = View(
        number: ViewNumber(2),
        primary: Member(
            id: ReplicaID(id: 1), instance: Instance(1), address: Address(host: "h", port: 1),
            host: 1, pid: 1), backups: [], electorate: [Instance(1)],
        base: .beginning)

    @Test func nothingLowerThanWhatWasGranted() {
        var acceptor = Acceptor()
        #expect(acceptor.grant(Self.high) == nil)
        #expect(acceptor.grant(Self.low) == Self.high)
        #expect(acceptor.accept(Self.low, Self.view) == Self.high)
        #expect(acceptor.accepted == nil)
        #expect(acceptor.grant(Self.high) == nil)
    }

    @Test func acceptingAlsoGrants() {
        var acceptor = Acceptor()
        #expect(acceptor.accept(Self.high, Self.view) == nil)
        #expect(acceptor.grant(Self.low) == Self.high)
        #expect(acceptor.accepted == Accepted(attempt: Self.high, view: Self.view))
    }

    @Test func whatWasAcceptedGoesWithALaterGrant() {
        var acceptor = Acceptor()
        #expect(acceptor.accept(Self.low, Self.view) == nil)
        #expect(acceptor.grant(Self.high) == nil)
        #expect(acceptor.accepted?.attempt == Self.low)
    }
}
