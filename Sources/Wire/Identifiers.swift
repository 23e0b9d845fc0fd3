/// The number of a view. 0 stands for "none yet"; the first view of a service is 1.
package struct ViewNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    package var next: Self { Self(rawValue + 1) }
    package var description: String { String(rawValue) }

    /// A promotion by force adds so much, all else 1: far above what another side can have reached by
    /// itself, so that the view is news to it when the two meet again.
    package static let forceStep: UInt64 = 1_000_000

    /// Equal as long as nobody has been promoted by force in between.
    package var era: UInt64 { rawValue / Self.forceStep }
}

/// The place of a request in the one sequence that all replicas execute. 0: before the first.
package struct OpNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    package static func + (op: Self, count: Int) -> Self { Self(op.rawValue + UInt64(count)) }
    package var next: Self { self + 1 }
    package var description: String { String(rawValue) }
}

/// A replica or a witness: a random number, never 0, that a process draws when it starts with
/// nothing. Only the same instance is the same replica, or the same witness; a process that restarts
/// without a disk is somebody new, one with a disk is who it was as long as that can be read.
package struct Instance: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package init?(text: String) {
        guard text.utf8.count <= 16, let value = UInt64(text, radix: 16), value != 0 else {
            return nil
        }
        rawValue = value
    }

    package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    package var description: String { String(rawValue, radix: 16) }
}

/// How replicas rank: the higher one leads where two are equally entitled.
package struct ReplicaID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var priority: UInt64
    package var id: UInt64

    package init(priority: UInt64 = 0, id: UInt64) {
        self.priority = priority
        self.id = id
    }

    package static func < (a: Self, b: Self) -> Bool { (a.priority, a.id) < (b.priority, b.id) }
    package var description: String { priority == 0 ? "\(id)" : "\(id) (priority \(priority))" }
}

/// One round of choosing a view (what Paxos calls a ballot). Counter 0 belongs to the primary of
/// the view before, which needs no first phase for it.
package struct Attempt: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var counter: UInt64
    package var proposer: Instance

    package init(counter: UInt64, proposer: Instance) {
        self.counter = counter
        self.proposer = proposer
    }

    package static func < (a: Self, b: Self) -> Bool {
        (a.counter, a.proposer) < (b.counter, b.proposer)
    }
    package var description: String { "\(counter)/\(proposer)" }
}

/// The name of one try of a learner to join. Acks under another id count for nothing.
package struct JoinID: Hashable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package var description: String { String(rawValue, radix: 16) }
}

/// The name of one service for ever: 128 random bits, written as 32 hexadecimal digits.
package struct ServiceID: Hashable, Sendable, CustomStringConvertible {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package init?(text: String) {
        guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    package var description: String {
        func digits(_ value: UInt64) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: 16 - text.utf8.count) + text
        }
        return digits(high) + digits(low)
    }
}

/// `HOST:PORT`.
package struct Address: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Takes `host:port`, and `[v6 address]:port`.
    package init?(text: String) {
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...])
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        let isPlain = host.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ",") }
        guard !host.isEmpty, host.utf8.count <= 255, isPlain else { return nil }
        self.init(host: String(host), port: port)
    }

    package var description: String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}
