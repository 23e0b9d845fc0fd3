/// Where a command stands in the one history, as its service sees it.
package struct OpContext: Equatable, Sendable {
    package var view: ViewNumber
    package var op: OpNumber
    /// Milliseconds since 1970, stamped once, by the primary.
    package var time: UInt64

    package init(view: ViewNumber, op: OpNumber, time: UInt64) {
        self.view = view
        self.op = op
        self.time = time
    }
}

/// What a service answers to a command.
package enum Reply: Equatable, Sendable {
    case ok
    case integer(Int64)
    /// A text for people, which may have several lines.
    case text(String)
    /// `CODE words for people`.
    case error(String)

    package func encode(into bytes: inout [UInt8]) {
        switch self {
        case .ok: bytes.append(contentsOf: RESP.ok)
        case .integer(let value): RESP.integer(value, into: &bytes)
        case .text(let text): RESP.bulk(text, into: &bytes)
        case .error(let text): RESP.error(text, into: &bytes)
        }
    }
}

/// A service on the replication core. Every replica gives it the same commands in the same order;
/// from equal states equal commands must give equal states, replies and effects: no clock, no
/// randomness, no iteration over dictionaries.
package protocol StateMachine: Equatable, Sendable {
    /// Something that happened and that clients may have to be told.
    associatedtype Effect: Equatable, Sendable

    init()

    /// Executes one command. A command that makes no sense is answered with an error: the
    /// primary's checks may have run against an older state.
    mutating func apply(_ command: Span<UInt8>, at context: OpContext, into effects: inout [Effect])
        -> Reply

    /// The whole state as bytes from which `init(snapshot:)` makes an equal one.
    func snapshot() -> [UInt8]

    init(snapshot: [UInt8]) throws(DecodeError)
}

/// A 64-bit FNV-1a hash: to compare states of replicas, not against anybody's malice.
package enum Digest {
    package static func of(_ bytes: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
        return hash
    }
}

/// Writes snapshots: numbers of variable length, strings with their length before them.
package struct SnapshotWriter: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func add(_ value: UInt64) { VarInt.append(value, to: &bytes) }
    package mutating func add(_ value: Int) { add(UInt64(value)) }
    package mutating func add(_ value: Bool) { bytes.append(value ? 1 : 0) }

    package mutating func add(_ value: [UInt8]) {
        add(value.count)
        bytes.append(contentsOf: value)
    }
}

/// Reads what `SnapshotWriter` wrote; all of it may come from another process.
package struct SnapshotReader: Sendable {
    private let bytes: [UInt8]
    private var position = 0

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package var isAtEnd: Bool { position == bytes.count }

    package mutating func number() throws(DecodeError) -> UInt64 {
        var next = position
        defer { position = next }
        return try VarInt.read(bytes.span, &next)
    }

    /// A number of things of which each takes at least a byte, so it cannot exceed what is left.
    package mutating func count() throws(DecodeError) -> Int {
        let value = try number()
        guard value <= UInt64(bytes.count - position) else {
            throw DecodeError("snapshot cut short")
        }
        return Int(value)
    }

    package mutating func flag() throws(DecodeError) -> Bool {
        guard position < bytes.count, bytes[position] <= 1 else {
            throw DecodeError("bad flag in snapshot")
        }
        position += 1
        return bytes[position - 1] == 1
    }

    package mutating func string() throws(DecodeError) -> [UInt8] {
        let length = try count()
        position += length
        return Array(bytes[position - length..<position])
    }
}
