/// Names a log through one of its ops: XXH64 chained over all entries so far. Two logs with the same
/// hash at the same op are the same up to there (but for one chance in 2^64 and for malice).
package struct LogHash: Hashable, Sendable {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// Of a log without entries.
    package static let beginning = LogHash(0)
}

/// Where a log ends, and of which view its last entry is; 0, 0: it has none. Of two members' logs the
/// greater is the one that has more (Ongaro and Ousterhout, Raft, 2014, section 5.4.1).
package struct LogEnd: Hashable, Comparable, Sendable {
    package var view: ViewNumber
    package var op: OpNumber

    package init(view: ViewNumber, op: OpNumber) {
        self.view = view
        self.op = op
    }

    package static let beginning = LogEnd(view: ViewNumber(0), op: OpNumber(0))

    package static func < (a: Self, b: Self) -> Bool { (a.view, a.op) < (b.view, b.op) }

    /// Of two ends of what is committed the one that is further on; view 0: of an entry that nobody has
    /// named.
    package func orLater(_ other: Self) -> Self {
        (op, view) < (other.op, other.view) ? other : self
    }
}

/// An entry of the log: what one primary's loop has taken in one turn, or a part of that if it is
/// much.
package struct Entry: Hashable, Sendable {
    /// The view whose primary appended it.
    package var view: ViewNumber
    package var first: OpNumber
    /// Milliseconds since 1970 by the primary's clock; the only time that services see.
    package var time: UInt64
    package var batch: Batch
    /// Of the log through this entry.
    package var hash: LogHash

    /// `parent`: the hash of the log before it.
    package init(
        view: ViewNumber, first: OpNumber, time: UInt64, batch: Batch, after parent: LogHash
    ) {
        self.init(view: view, first: first, time: time, batch: batch, hash: .beginning)
        hash = hash(after: parent)
    }

    /// As it was written or sent by another, `hash` unproved: see `follows`.
    package init(
        view: ViewNumber, first: OpNumber, time: UInt64, batch: Batch, hash: LogHash
    ) {
        precondition(batch.count > 0, "an entry holds at least one request")
        self.view = view
        self.first = first
        self.time = time
        self.batch = batch
        self.hash = hash
    }

    package var last: OpNumber { first + (batch.count - 1) }

    /// Whether the log before it had this hash.
    package func follows(_ parent: LogHash) -> Bool { hash(after: parent) == hash }

    /// XXH64 of view, first op and time, 8 bytes each, the least significant first, seeded with the
    /// hash before; with that the batch's XXH64 is seeded.
    private func hash(after parent: LogHash) -> LogHash {
        var head: [UInt8] = []
        head.reserveCapacity(24)
        LittleEndian.append(view.rawValue, to: &head)
        LittleEndian.append(first.rawValue, to: &head)
        LittleEndian.append(time, to: &head)
        let seed = Checksum.of(head, seed: parent.rawValue)
        return LogHash(Checksum.of(batch.bytes, seed: seed))
    }
}

/// What an elector has accepted in the choice of a view.
package struct Accepted: Hashable, Sendable {
    package var attempt: Attempt
    package var view: View

    package init(attempt: Attempt, view: View) {
        self.attempt = attempt
        self.view = view
    }
}

/// What goes between two replicas through a client that is connected to both, while their direct
/// connection is down. The client reads no more of it than `to`.
package struct RelayFrame: Equatable, Sendable {
    package enum Body: Equatable, Sendable {
        /// Begin a path of this number; `accept` answers.
        case open
        case accept
        /// The fields of a message. In order and without holes as long as the path stands.
        case data([[UInt8]])
        /// The sender is alive. Path 0: it belongs to none; else that path stands for the sender.
        case beat
        /// The path has ended; number 0: all paths to `from` through this client have.
        case close
    }

    package var from: Instance
    package var to: Instance
    package var path: UInt64
    package var body: Body

    package init(from: Instance, to: Instance, path: UInt64, _ body: Body) {
        self.from = from
        self.to = to
        self.path = path
        self.body = body
    }
}

/// What replicas and witnesses say to each other.
package enum Message: Equatable, Sendable {
    /// Of the messages and of what they begin with (`PEER hello`): replicas of two versions refuse
    /// each other.
    package static let protocolVersion = 6

    // Inside a view, primary to backup and to learner.
    case prepare(view: ViewNumber, entry: Entry, commitMax: OpNumber)
    /// `hash`: of the log through `commitMax`.
    case commit(view: ViewNumber, commitMax: OpNumber, hash: LogHash)
    /// Asks whether the backup is still in the view; reads wait for the answer.
    case confirm(view: ViewNumber, probe: UInt64)

    // Inside a view, backup to primary.
    case prepareOK(view: ViewNumber, op: OpNumber)
    case confirmOK(view: ViewNumber, probe: UInt64)
    /// The backup is in the view and its log, which has this hash there, is the primary's through `op`:
    /// send what follows. From a primary that has lost what the backup has: this is left of its log.
    case attach(view: ViewNumber, op: OpNumber, hash: LogHash)
    /// Client witnesses that are connected to the sender.
    case witnesses([Instance])
    /// Between members: up to `op` the receiver's log is another than the sender's.
    case fork(view: ViewNumber, op: OpNumber)

    // The choice of view `number`.
    /// `isViewOver`: the view before cannot go on, as its primary's process is proved to have
    /// exited or the sender has proposed and acks nothing in it any more.
    case seek(number: ViewNumber, attempt: Attempt, isViewOver: Bool)
    /// `committed`: through this entry everything is committed, as far as the elector knows. `end`: of a
    /// member's log; a witness has none.
    case grant(
        number: ViewNumber, attempt: Attempt, committed: LogEnd, end: LogEnd,
        accepted: Accepted?)
    /// The elector has granted a higher attempt than the one it was asked for.
    case outbid(number: ViewNumber, attempt: Attempt)
    case propose(attempt: Attempt, view: View)
    case accepted(number: ViewNumber, attempt: Attempt)
    /// A view that was decided.
    case view(View)

    // Joining: learner to primary and back.
    /// The learner has executed through `end`, where its log has this hash; 0, 0, 0: it needs the whole
    /// state.
    case join(JoinID, Member, end: LogEnd, hash: LogHash)
    /// `end`: of the log so far, which is what the snapshot is after; `hash`: of that. `pieces` 0: the
    /// learner's own state will do, no snapshot is needed.
    case state(
        JoinID, view: View, end: LogEnd, hash: LogHash, piece: Int, pieces: Int, bytes: [UInt8])
    case learnOK(JoinID, op: OpNumber)
    case joinRefused(JoinID, reason: String)

    // Who is to ask for the next view: among the backups of a group whose primary has failed.
    /// To each higher member: is it alive? `id` is the sender's.
    case election(view: ViewNumber, id: ReplicaID)
    /// To a lower one: it is, and sees to it.
    case electionOK(view: ViewNumber)

    // Leaving.
    case leave(Instance)
    /// The service is being ended: exit.
    case stop

    /// From the primary to its witnesses: the view's primary is alive, and everything through
    /// `committed` is on every member.
    case beat(view: ViewNumber, committed: LogEnd)
    /// Between a replica and a witness, for another replica.
    case relay(RelayFrame)
}

/// Messages as lists of byte strings: a word for the kind, then the fields, numbers in decimal.
extension Message {
    package var fields: [[UInt8]] {
        var list = FieldWriter()
        switch self {
        case .prepare(let view, let entry, let commitMax):
            list.add("prepare", view.rawValue, entry.view.rawValue, entry.first.rawValue)
            list.add(UInt64(entry.batch.count), entry.time, commitMax.rawValue)
            list.add(entry.hash.rawValue)
            list.fields.append(entry.batch.bytes)
        case .commit(let view, let commitMax, let hash):
            list.add("commit", view.rawValue, commitMax.rawValue, hash.rawValue)
        case .confirm(let view, let probe): list.add("confirm", view.rawValue, probe)
        case .prepareOK(let view, let op): list.add("prepareok", view.rawValue, op.rawValue)
        case .confirmOK(let view, let probe): list.add("confirmok", view.rawValue, probe)
        case .attach(let view, let op, let hash):
            list.add("attach", view.rawValue, op.rawValue, hash.rawValue)
        case .witnesses(let instances):
            list.add("witnesses")
            list.add(instances.map(\.description).joined(separator: ","))
        case .fork(let view, let op): list.add("fork", view.rawValue, op.rawValue)
        case .seek(let number, let attempt, let isViewOver):
            list.add("seek", number.rawValue)
            list.add(attempt)
            list.add(isViewOver ? 1 : 0)
        case .grant(let number, let attempt, let committed, let end, let accepted):
            list.add("grant", number.rawValue)
            list.add(attempt)
            list.add(committed.view.rawValue, committed.op.rawValue)
            list.add(end.view.rawValue, end.op.rawValue)
            if let accepted {
                list.add(accepted.attempt)
                list.add(accepted.view.text)
            }
        case .outbid(let number, let attempt):
            list.add("outbid", number.rawValue)
            list.add(attempt)
        case .propose(let attempt, let view):
            list.add("propose")
            list.add(attempt)
            list.add(view.text)
        case .accepted(let number, let attempt):
            list.add("accepted", number.rawValue)
            list.add(attempt)
        case .view(let view):
            list.add("view")
            list.add(view.text)
        case .join(let join, let member, let end, let hash):
            list.add("join", join.rawValue)
            list.add(member.text)
            list.add(end.view.rawValue, end.op.rawValue, hash.rawValue)
        case .state(let join, let view, let end, let hash, let piece, let pieces, let bytes):
            list.add("state", join.rawValue, end.view.rawValue, end.op.rawValue, hash.rawValue)
            list.add(UInt64(piece), UInt64(pieces))
            list.add(view.text)
            list.fields.append(bytes)
        case .learnOK(let join, let op): list.add("learnok", join.rawValue, op.rawValue)
        case .joinRefused(let join, let reason):
            list.add("joinrefused", join.rawValue)
            list.add(reason)
        case .election(let view, let id):
            list.add("election", view.rawValue, id.priority, id.id)
        case .electionOK(let view): list.add("electionok", view.rawValue)
        case .leave(let instance):
            list.add("leave")
            list.add(instance.description)
        case .stop: list.add("stop")
        case .beat(let view, let committed):
            list.add(
                "beat", view.rawValue, committed.view.rawValue, committed.op.rawValue)
        case .relay(let frame):
            list.add("relay")
            list.add(frame.from.description)
            list.add(frame.to.description)
            list.add(frame.path)
            switch frame.body {
            case .open: list.add("open")
            case .accept: list.add("accept")
            case .beat: list.add("beat")
            case .close: list.add("close")
            case .data(let fields):
                list.add("data")
                list.fields += fields
            }
        }
        return list.fields
    }

    package init(fields: [[UInt8]]) throws(DecodeError) {
        var list = FieldReader(fields)
        let kind = try list.text()
        switch kind {
        case "prepare":
            let view = try ViewNumber(list.number())
            let entryView = try ViewNumber(list.number())
            let first = try OpNumber(list.number())
            let count = try list.number(max: UInt64(Batch.bytesMax) * 2)
            let time = try list.number()
            let commitMax = try OpNumber(list.number())
            let hash = try list.hash()
            guard count > 0, first.rawValue > 0, entryView <= view else {
                throw DecodeError("prepare out of range")
            }
            let batch = try Batch(decoding: list.blob(), count: Int(count))
            let entry = Entry(
                view: entryView, first: first, time: time, batch: batch, hash: hash)
            self = .prepare(view: view, entry: entry, commitMax: commitMax)
        case "commit":
            self = try .commit(
                view: ViewNumber(list.number()), commitMax: OpNumber(list.number()),
                hash: list.hash())
        case "confirm": self = try .confirm(view: ViewNumber(list.number()), probe: list.number())
        case "prepareok":
            self = try .prepareOK(view: ViewNumber(list.number()), op: OpNumber(list.number()))
        case "confirmok":
            self = try .confirmOK(view: ViewNumber(list.number()), probe: list.number())
        case "attach":
            self = try .attach(
                view: ViewNumber(list.number()), op: OpNumber(list.number()), hash: list.hash())
        case "witnesses": self = try .witnesses(list.instances())
        case "fork":
            self = try .fork(view: ViewNumber(list.number()), op: OpNumber(list.number()))
        case "seek":
            self = try .seek(
                number: ViewNumber(list.number()), attempt: list.attempt(),
                isViewOver: list.number(max: 1) == 1)
        case "grant":
            let number = try ViewNumber(list.number())
            let attempt = try list.attempt()
            let committed = try list.logEnd()
            let end = try list.logEnd()
            let accepted =
                try list.isAtEnd ? nil : Accepted(attempt: list.attempt(), view: list.view())
            self = .grant(
                number: number, attempt: attempt, committed: committed, end: end,
                accepted: accepted)
        case "outbid":
            self = try .outbid(number: ViewNumber(list.number()), attempt: list.attempt())
        case "propose": self = try .propose(attempt: list.attempt(), view: list.view())
        case "accepted":
            self = try .accepted(number: ViewNumber(list.number()), attempt: list.attempt())
        case "view": self = try .view(list.view())
        case "join":
            let join = try JoinID(list.number())
            guard let member = try Member(text: list.text()) else {
                throw DecodeError("bad member")
            }
            self = try .join(
                join, member, end: list.logEnd(), hash: list.hash())
        case "state":
            let join = try JoinID(list.number())
            let end = try list.logEnd()
            let hash = try list.hash()
            let piece = try Int(list.number(max: 1 << 30))
            let pieces = try Int(list.number(max: 1 << 30))
            let view = try list.view()
            guard piece < pieces || (piece, pieces) == (0, 0) else {
                throw DecodeError("piece \(piece) of \(pieces)")
            }
            self = try .state(
                join, view: view, end: end, hash: hash, piece: piece, pieces: pieces,
                bytes: list.blob())
        case "learnok": self = try .learnOK(JoinID(list.number()), op: OpNumber(list.number()))
        case "joinrefused": self = try .joinRefused(JoinID(list.number()), reason: list.text())
        case "election":
            let view = try ViewNumber(list.number())
            let id = try ReplicaID(priority: list.number(), id: list.number())
            self = .election(view: view, id: id)
        case "electionok": self = try .electionOK(view: ViewNumber(list.number()))
        case "leave": self = try .leave(list.instance())
        case "stop": self = .stop
        case "beat":
            self = try .beat(
                view: ViewNumber(list.number()), committed: list.logEnd())
        case "relay": self = try .relay(list.relayFrame())
        default: throw DecodeError("unknown message '\(kind.prefix(32))'")
        }
        guard list.isAtEnd else { throw DecodeError("too many fields in '\(kind)'") }
    }

    /// Appends the message as RESP: `head` (a verb, or the kind of a push) and the fields.
    package func encode(head: String, asPush: Bool = false, into bytes: inout [UInt8]) {
        let fields = self.fields
        if asPush {
            RESP.push(fields.count + 1, into: &bytes)
        } else {
            RESP.array(fields.count + 1, into: &bytes)
        }
        RESP.bulk(head, into: &bytes)
        for field in fields { RESP.bulk(field, into: &bytes) }
    }
}

private struct FieldWriter {
    var fields: [[UInt8]] = []

    mutating func add(_ text: String, _ numbers: UInt64...) {
        fields.append(Array(text.utf8))
        for number in numbers { add(number) }
    }

    mutating func add(_ numbers: UInt64...) {
        for number in numbers {
            var digits: [UInt8] = []
            RESP.digits(number, into: &digits)
            fields.append(digits)
        }
    }

    mutating func add(_ attempt: Attempt) {
        add(attempt.counter)
        add(attempt.proposer.description)
    }
}

private struct FieldReader {
    private let fields: [[UInt8]]
    private var position = 0

    init(_ fields: [[UInt8]]) {
        self.fields = fields
    }

    var isAtEnd: Bool { position == fields.count }

    mutating func blob() throws(DecodeError) -> [UInt8] {
        guard position < fields.count else { throw DecodeError("field missing") }
        position += 1
        return fields[position - 1]
    }

    mutating func text() throws(DecodeError) -> String {
        try String(decoding: blob(), as: UTF8.self)
    }

    mutating func number(max: UInt64 = 1 << 62) throws(DecodeError) -> UInt64 {
        guard let value = try UInt64(text()), value <= max else {
            throw DecodeError("bad number in field \(position)")
        }
        return value
    }

    mutating func logEnd() throws(DecodeError) -> LogEnd {
        let view = try ViewNumber(number())
        return try LogEnd(view: view, op: OpNumber(number()))
    }

    mutating func hash() throws(DecodeError) -> LogHash { try LogHash(number(max: .max)) }

    mutating func instance() throws(DecodeError) -> Instance {
        guard let instance = try Instance(text: text()) else {
            throw DecodeError("bad instance in field \(position)")
        }
        return instance
    }

    mutating func instances() throws(DecodeError) -> [Instance] {
        var list: [Instance] = []
        for part in try text().split(separator: ",") {
            guard let instance = Instance(text: String(part)), list.count < 256 else {
                throw DecodeError("bad list of instances")
            }
            list.append(instance)
        }
        return list
    }

    mutating func attempt() throws(DecodeError) -> Attempt {
        try Attempt(counter: number(), proposer: instance())
    }

    mutating func relayFrame() throws(DecodeError) -> RelayFrame {
        let (from, to) = (try instance(), try instance())
        let path = try number()
        let body: RelayFrame.Body
        switch try text() {
        case "open": body = .open
        case "accept": body = .accept
        case "beat": body = .beat
        case "close": body = .close
        case "data":
            body = .data(Array(fields[position...]))
            position = fields.count
        default: throw DecodeError("unknown kind of relay frame")
        }
        return RelayFrame(from: from, to: to, path: path, body)
    }

    mutating func view() throws(DecodeError) -> View {
        guard let view = try View(text: text()) else {
            throw DecodeError("bad view in field \(position)")
        }
        return view
    }
}
