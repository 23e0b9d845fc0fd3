/// What one client of the room service may answer by itself.
///
/// A value without clock and connection: whoever has these calls it in the order in which things
/// are sent and come in on the one connection that stands. Moments are nanoseconds of one clock of
/// the client's that never goes back and does not stand still while the machine sleeps.
///
/// A client has a lease when the server promises, for a while, to have it told of every change and
/// to wait for its acknowledgement before the change is acknowledged to anybody. So an answer
/// within a lease is as good as one from the server. Leases are Gray and Cheriton's (SOSP 1989).
package struct RoomCache: Equatable, Sendable {
    /// Answers to `check`, oldest first, each room once; at most `answersMax`. All were announced
    /// as cacheable under the present lease and not invalidated since.
    private var answers: [Answer] = []
    /// They never change while a service lives, so they need no lease.
    private var lists: Lists = Lists()
    private var lease: Lease?
    /// Named by the push that came last, if no reply has come since.
    private var announced: [UInt8]?
    /// Rooms of own writes without a reply, one entry for each.
    private var written: [[UInt8]] = []
    private let answersMax: Int

    /// Longer answers are not kept.
    package static let answerBytesMax = 64 << 10

    /// What may be asked of a cache.
    package enum Question: Hashable, Sendable {
        case rooms
        case timeslots
        case days
        case check(room: String)
    }

    private struct Answer: Equatable, Sendable {
        /// Names match by their bytes; a `String` takes more for equal.
        let room: [UInt8]
        let text: String
    }

    private struct Lists: Equatable, Sendable {
        var rooms: String?
        var timeslots: String?
        var days: String?
    }

    private struct Lease: Equatable, Sendable {
        let sentAt: UInt64
        let length: UInt64

        /// The server counts the whole length, from a later moment on. The eighth is for clocks
        /// that do not go equally fast.
        var end: UInt64 { sentAt + (length - length / 8) }
    }

    package init(answersMax: Int = 1_024) {
        precondition(answersMax > 0, "a cache of \(answersMax) answers")
        self.answersMax = answersMax
    }

    // MARK: Questions

    /// The answer as the server would give it at the moment `now`, which must not lie before that
    /// at which the question was asked; nil: ask the server.
    package mutating func lookup(_ question: Question, now: UInt64) -> String? {
        expire(now: now)
        return switch question {
        case .rooms: lists.rooms
        case .timeslots: lists.timeslots
        case .days: lists.days
        case .check(let room): answers.first { $0.room == Array(room.utf8) }?.text
        }
    }

    /// How many answers to `check` are held.
    package var count: Int { answers.count }

    // MARK: The lease

    /// Whether answers to `check` may be given at the moment `now`. If not, a lease should be asked
    /// for before the next one.
    package func hasLease(now: UInt64) -> Bool { lease.map { now < $0.end } ?? false }

    /// When to ask for the lease again so that it does not lapse; nil: there is nothing to lose.
    package var renewAt: UInt64? {
        guard let lease, !answers.isEmpty else { return nil }
        return lease.sentAt + lease.length / 3
    }

    /// When the answers to `check` become void if the lease is not renewed; nil: without lease.
    package var leaseEnd: UInt64? { lease?.end }

    /// The server has answered `CLIENT TRACKING ON LEASE`, at the moment `now`.
    ///
    /// - Parameters:
    ///   - sentAt: when that very command was sent.
    ///   - length: the answer, in nanoseconds.
    package mutating func onLease(sentAt: UInt64, length: UInt64, now: UInt64) {
        precondition(sentAt <= now, "answered at \(now), sent at \(sentAt)")
        // What was held before a lapse stays void: between two leases nothing was watched.
        expire(now: now)
        let bounded = min(length, 3_600_000_000_000)
        if let lease, lease.end > Lease(sentAt: sentAt, length: bounded).end { return }
        lease = Lease(sentAt: sentAt, length: bounded)
    }

    /// Forgets what the lease covered once it has lapsed.
    private mutating func expire(now: UInt64) {
        guard lease != nil, !hasLease(now: now) else { return }
        lease = nil
        answers.removeAll()
    }

    // MARK: What comes in

    /// The push `cacheable`: the next reply may be kept under this key.
    package mutating func onCacheable(_ key: String) { announced = Array(key.utf8) }

    /// Any reply whatever of the server.
    ///
    /// - Parameters:
    ///   - question: what it is the reply to; nil if that is not cached.
    ///   - text: nil for an error.
    package mutating func onReply(to question: Question?, text: String?, now: UInt64) {
        let key = announced
        announced = nil
        guard let question, let text, text.utf8.count <= Self.answerBytesMax else { return }
        switch question {
        case .rooms: lists.rooms = text
        case .timeslots: lists.timeslots = text
        case .days: lists.days = text
        case .check(let room):
            // For a write of our own the server waits for no acknowledgement of ours, so an answer
            // from before the write would outlive it.
            let name = Array(room.utf8)
            guard key == name, hasLease(now: now), !written.contains(name) else { return }
            drop(room)
            if answers.count == answersMax { answers.removeFirst() }
            answers.append(Answer(room: name, text: text))
        }
    }

    /// The push `invalidate`; nil: all keys. Gives the keys to acknowledge, empty for all. They are
    /// acknowledged whether anything was held under them or not: the server waits for it.
    package mutating func onInvalidate(_ keys: [String]?) -> [String] {
        // Whatever was announced before belongs to no reply if a push stands in between.
        announced = nil
        guard let keys else {
            answers.removeAll()
            return []
        }
        for key in keys { drop(key) }
        return keys
    }

    /// The push `view`: whatever was promised, was promised in the old view.
    package mutating func onView() {
        answers.removeAll()
        lists = Lists()
        lease = nil
        announced = nil
    }

    /// The connection is gone, and with it all that was promised on it and asked on it.
    package mutating func onDisconnect() {
        onView()
        written.removeAll()
    }

    // MARK: Own writes

    /// A write of ours to this room is sent: that counts as our acknowledgement of its change.
    package mutating func onWriteSent(room: String) {
        drop(room)
        written.append(Array(room.utf8))
    }

    /// The oldest write of ours to this room is answered, by whatever. Nothing is held of the room:
    /// it was dropped when the write was sent, and nothing was kept since.
    package mutating func onWriteAnswered(room: String) {
        if let index = written.firstIndex(of: Array(room.utf8)) { written.remove(at: index) }
    }

    private mutating func drop(_ room: String) {
        let name = Array(room.utf8)
        answers.removeAll { $0.room == name }
    }
}
