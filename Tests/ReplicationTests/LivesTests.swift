import Testing
import Wire

@testable import Replication

/// Which proof of a process's end counts.
@Suite struct LivesTests {
    private static let instance = Instance(1)

    private static func member(_ pid: UInt64) -> Member {
        Member(
            id: ReplicaID(id: 1), instance: instance, address: Address(host: "h", port: 1), host: 5,
            pid: pid)
    }

    private static func view(_ number: UInt64, pid: UInt64) -> View {
        View(
            number: ViewNumber(number), primary: member(pid), backups: [], electorate: [instance],
            base: .beginning)
    }

    private static func life(_ pid: UInt64) -> Life { Life(member(pid)) }

    private var lives = Lives()

    private mutating func expectEnd(
        _ life: Life?, isNews: Bool, at place: SourceLocation = #_sourceLocation
    ) {
        let found = lives.end(Self.instance, life)
        #expect(found == isNews, sourceLocation: place)
    }

    private var isDead: Bool { lives.haveEnded(Self.instance) }

    @Test mutating func theEndOfTheNewest() {
        lives.met(Self.life(7))
        expectEnd(Self.life(7), isNews: true)
        #expect(isDead)
        expectEnd(Self.life(7), isNews: false)
        lives.connected(Self.instance)
        #expect(!isDead)
    }

    @Test mutating func theEndOfAnOlderOne() {
        lives.met(Self.life(7))
        lives.met(Self.life(8))
        expectEnd(Self.life(7), isNews: false)
        #expect(!isDead)
        expectEnd(Self.life(8), isNews: true)
        #expect(isDead)
    }

    /// A view that names another process than the one before was chosen with that one's help.
    @Test mutating func aViewNamesANewerOne() {
        lives.met(Self.life(7))
        expectEnd(Self.life(7), isNews: true)
        lives.learn(Self.view(4, pid: 7).members, before: Self.view(3, pid: 7))
        #expect(isDead)
        lives.learn(Self.view(5, pid: 8).members, before: Self.view(4, pid: 7))
        #expect(!isDead)
        expectEnd(Self.life(7), isNews: false)
        expectEnd(Self.life(8), isNews: true)
        #expect(isDead)
    }

    /// Of the newer one, too, the end has been proved before the view was heard of.
    @Test mutating func bothHaveEnded() {
        lives.met(Self.life(7))
        expectEnd(Self.life(7), isNews: true)
        lives.met(Self.life(8))
        lives.connected(Self.instance)
        expectEnd(Self.life(8), isNews: true)
        lives.learn(Self.view(5, pid: 8).members, before: Self.view(4, pid: 7))
        #expect(isDead)
    }

    /// What a process knows when it is met was before it: its view names an older one.
    @Test mutating func aViewThatItsNewestKnows() {
        lives.met(Self.life(8), knowing: Self.view(2, pid: 6))
        lives.learn(Self.view(2, pid: 6).members, before: Self.view(1, pid: 5))
        expectEnd(Self.life(8), isNews: true)
        #expect(isDead)
    }

    /// The instance has lost its disk: whatever process a view names, it runs no more.
    @Test mutating func theInstanceIsOver() {
        lives.met(Self.life(7))
        expectEnd(nil, isNews: true)
        lives.learn(Self.view(5, pid: 8).members, before: Self.view(4, pid: 7))
        #expect(isDead)
    }

    /// A process whose name a view of old gives is older than one that is connected.
    @Test mutating func anOldViewIsNoNews() {
        lives.learn(Self.view(3, pid: 6).members, before: nil)
        lives.met(Self.life(7))
        expectEnd(Self.life(7), isNews: true)
        lives.learn(Self.view(4, pid: 6).members, before: Self.view(3, pid: 6))
        #expect(isDead)
    }

    /// A view that was proposed long ago may be decided now, and names a process that was there then:
    /// which of the two is the newer shows when the one that is connected speaks in that view.
    @Test(arguments: [true, false]) mutating func aViewOfLongAgo(endsFirst: Bool) {
        lives.met(Self.life(8), knowing: Self.view(3, pid: 5))
        lives.learn(Self.view(4, pid: 7).members, before: Self.view(3, pid: 5))
        #expect(lives.doubted == [Self.instance])
        if endsFirst {
            expectEnd(Self.life(8), isNews: false)
            #expect(!isDead)
        }
        let isNews = lives.spoke(Self.instance, of: Self.view(4, pid: 7))
        #expect(isNews == endsFirst && lives.doubted.isEmpty)
        if !endsFirst { expectEnd(Self.life(8), isNews: true) }
        #expect(isDead)
    }

    /// Left out when its process had ended, an instance is let in again with another.
    @Test mutating func aViewLetsItInAgain() {
        let other = Member(
            id: ReplicaID(id: 2), instance: Instance(2), address: Address(host: "h", port: 2),
            host: 5,
            pid: 70)
        var without = Self.view(4, pid: 7)
        without.primary = other
        lives.met(Self.life(7))
        expectEnd(Self.life(7), isNews: true)
        lives.learn(without.members, before: Self.view(3, pid: 7))
        #expect(isDead)
        lives.learn(Self.view(5, pid: 8).members, before: without)
        #expect(!isDead)
        expectEnd(Self.life(7), isNews: false)
        #expect(!isDead)
    }
}
