import Services
import Testing

private let ms: UInt64 = 1_000_000

/// The cache alone; moments are milliseconds from 0.
@Suite struct RoomCacheTests {
    private static func check(_ room: String) -> RoomCache.Question { .check(room: room) }

    /// A lease from 0 to 875 and an answer for A.
    private func filled() -> RoomCache {
        var cache = RoomCache()
        cache.onLease(sentAt: 0, length: 1_000 * ms, now: 10 * ms)
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "old", now: 20 * ms)
        return cache
    }

    @Test func answersUntilSevenEighths() {
        var cache = filled()
        #expect(cache.lookup(Self.check("A"), now: 874 * ms) == "old")
        #expect(cache.lookup(Self.check("B"), now: 874 * ms) == nil)
        #expect(cache.hasLease(now: 874 * ms))
        #expect(!cache.hasLease(now: 875 * ms))
        #expect(cache.lookup(Self.check("A"), now: 875 * ms) == nil)
    }

    @Test func leaseCountsFromItsSending() {
        var cache = filled()
        cache.onLease(sentAt: 400 * ms, length: 1_000 * ms, now: 800 * ms)
        #expect(cache.lookup(Self.check("A"), now: 1_274 * ms) == "old")
        #expect(cache.lookup(Self.check("A"), now: 1_275 * ms) == nil)
    }

    @Test func newLeaseDoesNotReviveWhatAnOlderCovered() {
        var cache = filled()
        // Answered after the old one's end: the server may have let it lapse in between.
        cache.onLease(sentAt: 800 * ms, length: 1_000 * ms, now: 880 * ms)
        #expect(cache.hasLease(now: 880 * ms))
        #expect(cache.lookup(Self.check("A"), now: 880 * ms) == nil)
    }

    @Test func shorterLeaseDoesNotCutALongerOne() {
        var cache = filled()
        cache.onLease(sentAt: 100 * ms, length: 10 * ms, now: 120 * ms)
        #expect(cache.lookup(Self.check("A"), now: 800 * ms) == "old")
    }

    @Test func keepsOnlyWhatWasAnnounced() {
        var cache = RoomCache()
        cache.onLease(sentAt: 0, length: 1_000 * ms, now: 0)
        cache.onReply(to: Self.check("A"), text: "a", now: 0)
        #expect(cache.lookup(Self.check("A"), now: 1) == nil)
        // For another key, and for another reply than the next.
        cache.onCacheable("B")
        cache.onReply(to: Self.check("A"), text: "a", now: 0)
        #expect(cache.lookup(Self.check("A"), now: 1) == nil)
        cache.onCacheable("A")
        cache.onReply(to: nil, text: nil, now: 0)
        cache.onReply(to: Self.check("A"), text: "a", now: 0)
        #expect(cache.lookup(Self.check("A"), now: 1) == nil)
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: nil, now: 0)
        #expect(cache.lookup(Self.check("A"), now: 1) == nil)
        #expect(cache.count == 0)
    }

    @Test func newerAnswerReplacesTheOlder() {
        var cache = filled()
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "new", now: 30 * ms)
        #expect(cache.lookup(Self.check("A"), now: 40 * ms) == "new")
        #expect(cache.count == 1)
    }

    @Test func keepsNothingWithoutALease() {
        var cache = RoomCache()
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "a", now: 0)
        cache.onLease(sentAt: 0, length: 1_000 * ms, now: 0)
        #expect(cache.lookup(Self.check("A"), now: 1) == nil)
        // Nor after one has lapsed.
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "a", now: 880 * ms)
        #expect(cache.count == 0)
        cache.onLease(sentAt: 870 * ms, length: 1_000 * ms, now: 890 * ms)
        #expect(cache.lookup(Self.check("A"), now: 890 * ms) == nil)
    }

    @Test func invalidationDropsAndAcknowledges() {
        var cache = filled()
        cache.onCacheable("B")
        cache.onReply(to: Self.check("B"), text: "b", now: 20 * ms)
        #expect(cache.onInvalidate(["A", "C"]) == ["A", "C"])
        #expect(cache.lookup(Self.check("A"), now: 30 * ms) == nil)
        #expect(cache.lookup(Self.check("B"), now: 30 * ms) == "b")
        #expect(cache.onInvalidate(nil) == [])
        #expect(cache.lookup(Self.check("B"), now: 30 * ms) == nil)
        // The lease itself goes on, and what comes behind the push is good again.
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "new", now: 40 * ms)
        #expect(cache.lookup(Self.check("A"), now: 50 * ms) == "new")
    }

    @Test func listsNeedNoLease() {
        var cache = RoomCache()
        cache.onReply(to: .rooms, text: "A\nB", now: 0)
        cache.onReply(to: .days, text: nil, now: 0)
        #expect(cache.lookup(.rooms, now: 1_000_000 * ms) == "A\nB")
        #expect(cache.lookup(.timeslots, now: 0) == nil)
        #expect(cache.lookup(.days, now: 0) == nil)
        _ = cache.onInvalidate(nil)
        #expect(cache.lookup(.rooms, now: 0) == "A\nB")
    }

    @Test(arguments: [true, false]) func viewAndDisconnectEmptyAll(isView: Bool) {
        var cache = filled()
        cache.onReply(to: .rooms, text: "A\nB", now: 20 * ms)
        cache.onCacheable("B")
        if isView { cache.onView() } else { cache.onDisconnect() }
        #expect(cache == RoomCache())
    }

    @Test func ownWriteDropsItsRoomUntilAnswered() {
        var cache = filled()
        cache.onWriteSent(room: "A")
        #expect(cache.lookup(Self.check("A"), now: 30 * ms) == nil)
        // The answer to a question that was asked before the write, and again one of two writes.
        cache.onWriteSent(room: "A")
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "old", now: 40 * ms)
        cache.onWriteAnswered(room: "A")
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "old", now: 40 * ms)
        #expect(cache.lookup(Self.check("A"), now: 50 * ms) == nil)
        cache.onWriteAnswered(room: "A")
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "new", now: 60 * ms)
        #expect(cache.lookup(Self.check("A"), now: 70 * ms) == "new")
    }

    /// A view may change while a write is on its way on the same connection.
    @Test func viewDoesNotForgetWritesOnTheirWay() {
        var cache = filled()
        cache.onWriteSent(room: "A")
        cache.onView()
        cache.onLease(sentAt: 30 * ms, length: 1_000 * ms, now: 30 * ms)
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "old", now: 40 * ms)
        #expect(cache.lookup(Self.check("A"), now: 50 * ms) == nil)
    }

    @Test func isBounded() {
        var cache = RoomCache(answersMax: 2)
        cache.onLease(sentAt: 0, length: 1_000 * ms, now: 0)
        for room in ["A", "B", "A", "C"] {
            cache.onCacheable(room)
            cache.onReply(to: Self.check(room), text: room, now: 0)
        }
        #expect(cache.count == 2)
        // A was asked for again, so B is the oldest.
        #expect(cache.lookup(Self.check("B"), now: 1) == nil)
        #expect(cache.lookup(Self.check("A"), now: 1) == "A")
        cache.onCacheable("D")
        let long = String(repeating: "x", count: RoomCache.answerBytesMax + 1)
        cache.onReply(to: Self.check("D"), text: long, now: 0)
        #expect(cache.lookup(Self.check("D"), now: 1) == nil)
    }

    @Test func renewsAtAThirdOnlyWhatIsWorthIt() {
        var cache = RoomCache()
        #expect(cache.renewAt == nil)
        cache.onLease(sentAt: 0, length: 900 * ms, now: 0)
        #expect(cache.renewAt == nil)
        cache.onCacheable("A")
        cache.onReply(to: Self.check("A"), text: "a", now: 0)
        #expect(cache.renewAt == 300 * ms)
        _ = cache.onInvalidate(["A"])
        #expect(cache.renewAt == nil)
    }
}
