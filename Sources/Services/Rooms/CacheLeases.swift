/// The server's half of the clients' caches: who may have which room's reservations cached, and
/// when a reservation may therefore be made (Gray and Cheriton, Leases, 1989). `RoomCache` is the
/// other half.
///
/// A client with a lease may answer from its cache until the lease ends, counted from before its
/// request; here it is counted from after the answer, and in full where the client takes 7/8. So a
/// reservation that has waited for every holder's acknowledgement, or the end of its lease by this
/// clock, meets no cache that still shows the room as it was. A replica that begins to lead does
/// not know its predecessor's leases: it makes no reservation for the length of one.
///
/// A client without a lease (a stock one) is told when a room has changed, and not waited for.
///
/// Moments and lengths are in one unit, of the owner's monotonic clock. Only the primary's is in use.
package struct CacheLeases: Sendable {
    /// A connection, by a number that is never used again.
    package typealias Holder = UInt64

    package enum Verdict: Equatable, Sendable {
        case go
        /// The holders that have not been told yet: the room is invalid now. Ask again later.
        case wait(tell: [Holder])
    }

    private struct Cache: Sendable {
        var holder: Holder
        /// Nil: without a lease.
        var until: UInt64?
        /// Ascending.
        var rooms: [Int] = []
        /// It was told that these are invalid, and has not said that it knows. They are not given
        /// to it again before that, whatever else has made them void: its word is on its way and
        /// must not count for what it is told later. Ascending.
        var toldOf: [Int] = []
        var isConnected = true
    }

    /// Of a room that is being written, or about to be.
    private struct Write: Sendable {
        var room: Int
        /// The last op that writes it; nil: not in the log yet.
        var op: UInt64?
    }

    private struct Wanted: Sendable {
        var room: Int
        /// A writer that does not ask again has gone.
        var until: UInt64
    }

    /// By ascending holder.
    private var caches: [Cache] = []
    private var writes: [Write] = []
    private var wanted: [Wanted] = []
    private var writesFrom: UInt64 = 0
    /// Rises whenever a verdict of `wait` may have become `go`.
    package private(set) var version: UInt64 = 0

    package static let cachesMax = 65_536

    /// How long a lease lasts. The same at every replica.
    package let length: UInt64

    package init(length: UInt64) { self.length = length }

    // MARK: The part that leads

    /// From another's hands, or anew after another led: whoever led may have given leases until
    /// just now.
    package mutating func beginLeading(at now: UInt64, isFirst: Bool) {
        let version = version
        self = CacheLeases(length: length)
        self.version = version + 1
        writesFrom = isFirst ? 0 : now + length
    }

    package mutating func endLeading() {
        let version = version
        self = CacheLeases(length: length)
        self.version = version + 1
    }

    // MARK: Caches

    /// False: there are too many.
    package mutating func track(_ holder: Holder) -> Bool {
        if let index = index(of: holder) {
            caches[index].until = nil
            return true
        }
        return insert(Cache(holder: holder))
    }

    package enum Renewal: Equatable, Sendable {
        case renewed
        case tooMany
        /// A reservation waits for a word from this holder: its lease is not prolonged before that,
        /// or somebody who never answers could stop that reservation for ever.
        case owesAcknowledgement
    }

    /// `now` is to be a moment after all members of the view have confirmed it.
    package mutating func renew(_ holder: Holder, at now: UInt64) -> Renewal {
        guard let index = index(of: holder) else {
            return insert(Cache(holder: holder, until: now + length)) ? .renewed : .tooMany
        }
        // What it had under a lease that is over it has dropped.
        if let until = caches[index].until, until <= now {
            caches[index].rooms = []
            version += 1
        }
        guard !caches[index].rooms.contains(where: caches[index].toldOf.contains) else {
            return .owesAcknowledgement
        }
        caches[index].until = now + length
        return .renewed
    }

    private mutating func insert(_ cache: Cache) -> Bool {
        guard caches.count < Self.cachesMax else { return false }
        caches.insert(cache, at: place(of: cache.holder))
        return true
    }

    private func place(of holder: Holder) -> Int {
        var (low, high) = (0, caches.count)
        while low < high {
            let middle = (low + high) / 2
            if caches[middle].holder < holder { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func index(of holder: Holder) -> Int? {
        let index = place(of: holder)
        return index < caches.count && caches[index].holder == holder ? index : nil
    }

    /// Whether the room's reservations, as they are executed through `op`, may be cached under its
    /// lease by the holder that they are being sent to. If so it is remembered; and always for one
    /// without a lease, who will cache it unasked.
    package mutating func grant(
        _ holder: Holder, room: Int, executed op: UInt64, at now: UInt64
    ) -> Bool {
        guard let index = index(of: holder) else { return false }
        if let until = caches[index].until {
            guard until > now, !caches[index].toldOf.contains(room) else { return false }
            // What is about to change is not worth a lease.
            guard !wanted.contains(where: { $0.room == room && $0.until > now }),
                !writes.contains(where: { $0.room == room && $0.op.map { $0 > op } ?? true })
            else { return false }
        }
        caches[index].rooms.insertSorted(room)
        return caches[index].until != nil
    }

    /// The holder has dropped these rooms; nil: all.
    package mutating func acknowledge(_ holder: Holder, rooms: [Int]?) {
        guard let index = index(of: holder) else { return }
        version += 1
        guard let rooms else {
            caches[index].rooms = []
            caches[index].toldOf = []
            return
        }
        for room in rooms where caches[index].toldOf.contains(room) {
            caches[index].toldOf.removeAll { $0 == room }
            caches[index].rooms.removeAll { $0 == room }
        }
    }

    /// The connection is gone. The client need not know that yet: its lease goes on.
    package mutating func disconnect(_ holder: Holder) {
        guard let index = index(of: holder) else { return }
        if caches[index].until == nil {
            caches.remove(at: index)
        } else {
            caches[index].isConnected = false
        }
    }

    /// The client has said that it caches nothing any more.
    package mutating func forget(_ holder: Holder) {
        caches.removeAll { $0.holder == holder }
        version += 1
    }

    /// Forgets leases that are over. To be called now and then.
    package mutating func expire(at now: UInt64) {
        wanted.removeAll { $0.until <= now }
        let before = caches.count
        caches.removeAll { !$0.isConnected && $0.until.map { $0 <= now } ?? true }
        if caches.count != before { version += 1 }
    }

    // MARK: Writes

    /// Whether a reservation in this room may be proposed now. A writer with a lease has dropped the
    /// room from its cache when it asked; one without is told when it has changed, like others. After
    /// `go` it must be proposed, or `refused` called.
    package mutating func beginWrite(_ room: Int, by writer: Holder, at now: UInt64) -> Verdict {
        if now >= writesFrom { writesFrom = 0 }
        if let own = index(of: writer), caches[own].until != nil {
            caches[own].rooms.removeAll { $0 == room }
        }
        var tell: [Holder] = []
        var mustWait = writesFrom > now
        for index in caches.indices where caches[index].rooms.contains(room) {
            guard let until = caches[index].until else { continue }
            guard until > now else { continue }
            mustWait = true
            guard !caches[index].toldOf.contains(room) else { continue }
            caches[index].toldOf.insertSorted(room)
            if caches[index].isConnected { tell.append(caches[index].holder) }
        }
        guard mustWait else {
            wanted.removeAll { $0.room == room }
            note(write: room)
            return .go
        }
        let until = now + 2 * length
        if let index = wanted.firstIndex(where: { $0.room == room }) {
            wanted[index].until = until
        } else {
            wanted.append(Wanted(room: room, until: until))
        }
        return .wait(tell: tell)
    }

    private mutating func note(write room: Int) {
        if let index = writes.firstIndex(where: { $0.room == room }) {
            writes[index].op = nil
        } else {
            writes.append(Write(room: room, op: nil))
        }
    }

    /// The writes so far are in the log, up to `op`.
    package mutating func proposed(through op: UInt64) {
        for index in writes.indices where writes[index].op == nil { writes[index].op = op }
    }

    /// The writes that are not in the log yet will not be.
    package mutating func refused() { writes.removeAll { $0.op == nil } }

    package mutating func executed(through op: UInt64) {
        if !writes.isEmpty { writes.removeAll { $0.op.map { $0 <= op } ?? false } }
    }

    /// The room has changed: gives the holders without a lease, who are told afterwards.
    package mutating func changed(_ room: Int) -> [Holder] {
        var told: [Holder] = []
        for index in caches.indices
        where caches[index].until == nil && caches[index].rooms.contains(room) {
            caches[index].rooms.removeAll { $0 == room }
            told.append(caches[index].holder)
        }
        return told
    }
}

extension [Int] {
    fileprivate mutating func insertSorted(_ value: Int) {
        let index = firstIndex { $0 >= value } ?? count
        if index == count || self[index] != value { insert(value, at: index) }
    }
}
