import Services
import Testing

/// When a reservation must wait for caches, and for how long. A lease lasts 100.
@Suite final class CacheLeasesTests {
    private var leases = CacheLeases(length: 100)

    init() { leases.beginLeading(at: 0, isFirst: true) }

    private func write(_ room: Int, by writer: UInt64 = 9, at now: UInt64) -> CacheLeases.Verdict {
        leases.beginWrite(room, by: writer, at: now)
    }

    private func renew(_ holder: UInt64, at now: UInt64) -> Bool {
        leases.renew(holder, at: now) == .renewed
    }

    private func grant(_ holder: UInt64, _ room: Int, executed op: UInt64 = 0, at now: UInt64)
        -> Bool
    {
        leases.grant(holder, room: room, executed: op, at: now)
    }

    private func changed(_ room: Int) -> [UInt64] { leases.changed(room) }
    private func track(_ holder: UInt64) -> Bool { leases.track(holder) }

    private func cache(_ holder: UInt64, _ room: Int, at now: UInt64) {
        #expect(renew(holder, at: now))
        #expect(grant(holder, room, executed: 0, at: now))
    }

    @Test func nobodyHasItCached() {
        cache(1, 7, at: 0)
        #expect(write(8, at: 1) == .go)
    }

    @Test func waitsForTheAcknowledgement() {
        cache(1, 7, at: 0)
        cache(2, 7, at: 0)
        #expect(write(7, at: 1) == .wait(tell: [1, 2]))
        // Told once.
        #expect(write(7, at: 2) == .wait(tell: []))
        let version = leases.version
        leases.acknowledge(1, rooms: [7])
        #expect(leases.version != version)
        #expect(write(7, at: 3) == .wait(tell: []))
        leases.acknowledge(2, rooms: [7])
        #expect(write(7, at: 4) == .go)
    }

    @Test func orForTheLeasesEnd() {
        cache(1, 7, at: 10)
        #expect(write(7, at: 109) == .wait(tell: [1]))
        #expect(write(7, at: 110) == .go)
    }

    @Test func aRenewedLeaseIsWaitedForLonger() {
        cache(1, 7, at: 10)
        #expect(renew(1, at: 60))
        #expect(write(7, at: 110) == .wait(tell: [1]))
        #expect(write(7, at: 160) == .go)
    }

    /// What it had under the lease that ended the client has dropped.
    @Test func aLeaseAnewCoversNothingOld() {
        cache(1, 7, at: 10)
        #expect(renew(1, at: 110))
        #expect(write(7, at: 111) == .go)
    }

    /// Or it could stop the reservation for ever.
    @Test func whoDoesNotAcknowledgeGetsNoLongerLease() {
        cache(1, 7, at: 10)
        #expect(write(7, at: 20) == .wait(tell: [1]))
        #expect(!renew(1, at: 60))
        #expect(write(7, at: 109) == .wait(tell: []))
        #expect(write(7, at: 110) == .go)
        #expect(renew(1, at: 120))
    }

    @Test func anAcknowledgementOfWhatItWasNotToldCountsForNothing() {
        cache(1, 7, at: 0)
        leases.acknowledge(1, rooms: [7])
        #expect(write(7, at: 1) == .wait(tell: [1]))
    }

    @Test func aLostConnectionIsNoAcknowledgement() {
        cache(1, 7, at: 0)
        leases.disconnect(1)
        #expect(write(7, at: 1) == .wait(tell: []))
        leases.expire(at: 99)
        #expect(write(7, at: 99) == .wait(tell: []))
        #expect(write(7, at: 100) == .go)
    }

    @Test func whoSaysThatItCachesNothingIsNotWaitedFor() {
        cache(1, 7, at: 0)
        leases.forget(1)
        #expect(write(7, at: 1) == .go)
    }

    /// The writer has dropped the room before it asked.
    @Test func theWritersOwnCacheIsNotWaitedFor() {
        cache(1, 7, at: 0)
        #expect(write(7, by: 1, at: 1) == .go)
    }

    /// It need not know what its own writes make void.
    @Test func aWriterWithoutALeaseIsToldAfterwards() {
        #expect(track(1))
        #expect(!grant(1, 7, at: 0))
        #expect(write(7, by: 1, at: 1) == .go)
        #expect(changed(7) == [1])
        #expect(changed(7) == [])
    }

    /// Its word on the first invalidation must not count for the second.
    @Test func aWordThatIsOnItsWayCountsOnce() {
        cache(1, 7, at: 0)
        #expect(write(7, at: 1) == .wait(tell: [1]))
        // The holder writes the room itself, and looks at it again, before its word comes.
        #expect(write(7, by: 1, at: 2) == .go)
        #expect(write(7, at: 2) == .go)
        leases.proposed(through: 5)
        leases.executed(through: 5)
        #expect(!grant(1, 7, executed: 5, at: 3))
        leases.acknowledge(1, rooms: [7])
        #expect(grant(1, 7, executed: 5, at: 4))
        #expect(write(7, at: 5) == .wait(tell: [1]))
    }

    @Test func norAfterALeaseAnew() {
        cache(1, 7, at: 0)
        #expect(write(7, at: 1) == .wait(tell: [1]))
        #expect(renew(1, at: 200))
        #expect(!grant(1, 7, at: 200))
        leases.acknowledge(1, rooms: [7])
        #expect(grant(1, 7, at: 202))
    }

    @Test func whatIsBeingWrittenIsNotCached() {
        #expect(write(7, at: 0) == .go)
        #expect(renew(1, at: 0))
        #expect(!grant(1, 7, executed: 4, at: 1))
        leases.proposed(through: 5)
        #expect(!grant(1, 7, executed: 4, at: 2))
        #expect(grant(1, 8, executed: 4, at: 2))
        leases.executed(through: 5)
        #expect(grant(1, 7, executed: 5, at: 3))
    }

    @Test func whatIsWantedIsNotCached() {
        cache(1, 7, at: 0)
        #expect(renew(2, at: 0))
        #expect(write(7, at: 1) == .wait(tell: [1]))
        #expect(!grant(2, 7, executed: 0, at: 2))
        // Nor by the one that was told of it.
        #expect(!grant(1, 7, executed: 0, at: 2))
    }

    @Test func aRefusedWriteIsForgotten() {
        #expect(write(7, at: 0) == .go)
        leases.refused()
        #expect(renew(1, at: 0))
        #expect(grant(1, 7, executed: 0, at: 1))
    }

    @Test func withoutALeaseNothingIsCached() {
        #expect(!grant(1, 7, executed: 0, at: 0))
        #expect(renew(1, at: 0))
        #expect(!grant(1, 7, executed: 0, at: 100))
    }

    @Test func aNewLeaderWaitsForItsPredecessorsLeases() {
        leases.beginLeading(at: 1_000, isFirst: false)
        #expect(write(7, at: 1_099) == .wait(tell: []))
        #expect(write(7, at: 1_100) == .go)
    }

    @Test func theServicesFirstLeaderWaitsForNobody() {
        leases.beginLeading(at: 1_000, isFirst: true)
        #expect(write(7, at: 1_000) == .go)
    }

    @Test func stockClientsAreToldAfterwards() {
        #expect(track(1))
        // Not announced as cacheable, but it will cache it.
        #expect(!grant(1, 7, executed: 0, at: 0))
        #expect(write(7, at: 1) == .go)
        #expect(changed(7) == [1])
        #expect(changed(7) == [])
        leases.disconnect(1)
        #expect(changed(7) == [])
    }
}
