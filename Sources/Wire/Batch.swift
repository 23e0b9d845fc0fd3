/// One request as the log carries it: a command that only its service understands and, for a
/// call that must be executed once, whose it is and which.
package struct Request: Equatable, Sendable {
    /// The session that a `CALL` belongs to.
    package struct Call: Equatable, Sendable {
        package var client: UInt64
        /// 1, 2, 3, … in each session.
        package var sequence: UInt64

        package init(client: UInt64, sequence: UInt64) {
            self.client = client
            self.sequence = sequence
        }
    }

    package var call: Call?
    package var command: [UInt8]

    package init(call: Call? = nil, command: [UInt8]) {
        self.call = call
        self.command = command
    }
}

/// The requests of one turn of the primary's loop, one behind the other: for each a byte (0: no
/// call, 1: with one), for a call its client and sequence, the command's length, the command. All
/// numbers are variable-length integers (7 bits a byte, least significant first).
package struct Batch: Hashable, Sendable {
    package private(set) var count: Int = 0
    package private(set) var bytes: [UInt8] = []

    /// A batch with more is proposed at once; with the largest command it still fits a message.
    package static let bytesMax = 1 << 20
    /// What is proposed at once goes into entries of little over this: one that came whole or not at all
    /// would seem to be silence on a slow way, over a client that has a few Mbit/s.
    package static let partBytes = 64 << 10

    package init() {}

    /// Takes bytes from another process: they must hold exactly `count` well-formed requests.
    package init(decoding bytes: [UInt8], count: Int) throws(DecodeError) {
        var reader = BatchReader()
        var found = 0
        while try reader.next(bytes.span) { found += 1 }
        guard found == count else {
            throw DecodeError("batch of \(found) requests announced as \(count)")
        }
        self.bytes = bytes
        self.count = count
    }

    package var isEmpty: Bool { count == 0 }
    package var isFull: Bool { bytes.count >= Self.bytesMax }

    package mutating func append(_ request: Request) {
        appendHeader(request.call, length: request.command.count)
        bytes.append(contentsOf: request.command)
        count += 1
    }

    /// Appends a request without a call whose command is a few numbers: what the hot path takes.
    package mutating func append(tag: UInt8, _ a: UInt64, _ b: UInt64, _ c: UInt8) {
        let length = 2 + VarInt.length(a) + VarInt.length(b)
        appendHeader(nil, length: length)
        bytes.append(tag)
        VarInt.append(a, to: &bytes)
        VarInt.append(b, to: &bytes)
        bytes.append(c)
        count += 1
    }

    package mutating func removeAll() {
        count = 0
        bytes = []
    }

    /// The same requests in the same order, parted where one has become larger than `partBytes`.
    package func parts() -> [Batch] {
        guard bytes.count > Self.partBytes else { return [self] }
        var parts: [Batch] = []
        var reader = BatchReader()
        var (start, count) = (0, 0)
        while reader.nextValid(bytes.span) {
            count += 1
            let end = reader.command.upperBound
            guard end - start > Self.partBytes || end == bytes.count else { continue }
            var part = Batch()
            (part.bytes, part.count) = (Array(bytes[start..<end]), count)
            parts.append(part)
            (start, count) = (end, 0)
        }
        return parts
    }

    private mutating func appendHeader(_ call: Request.Call?, length: Int) {
        if let call {
            bytes.append(1)
            VarInt.append(call.client, to: &bytes)
            VarInt.append(call.sequence, to: &bytes)
        } else {
            bytes.append(0)
        }
        VarInt.append(UInt64(length), to: &bytes)
    }
}

/// Walks over a batch's bytes without copying its commands.
package struct BatchReader: Sendable {
    package private(set) var call: Request.Call?
    /// Where the present request's command stands in the bytes.
    package private(set) var command = 0..<0
    private var position = 0

    package init() {}

    /// Moves to the next request; false behind the last.
    package mutating func next(_ bytes: Span<UInt8>) throws(DecodeError) -> Bool {
        guard position < bytes.count else { return false }
        let kind = bytes[position]
        position += 1
        switch kind {
        case 0: call = nil
        case 1:
            let client = try VarInt.read(bytes, &position)
            let sequence = try VarInt.read(bytes, &position)
            call = Request.Call(client: client, sequence: sequence)
        default: throw DecodeError("request of kind \(kind)")
        }
        let length = try VarInt.read(bytes, &position)
        guard length <= UInt64(bytes.count - position) else {
            throw DecodeError("request longer than its batch")
        }
        command = position..<position + Int(length)
        position += Int(length)
        return true
    }
}

extension BatchReader {
    /// As `next`, for bytes that were validated when they came in.
    package mutating func nextValid(_ bytes: Span<UInt8>) -> Bool {
        do {
            return try next(bytes)
        } catch {
            preconditionFailure("a validated batch does not decode: \(error.text)")
        }
    }
}

/// Variable-length integers: 7 bits a byte, least significant first, the top bit set on all bytes
/// but the last.
package enum VarInt {
    package static func length(_ value: UInt64) -> Int {
        var rest = value
        var length = 1
        while rest >= 0x80 {
            rest >>= 7
            length += 1
        }
        return length
    }

    package static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    package static func read(_ bytes: Span<UInt8>, _ position: inout Int) throws(DecodeError)
        -> UInt64
    {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            guard position < bytes.count else { throw DecodeError("number cut short") }
            let byte = bytes[position]
            position += 1
            guard shift < 63 || byte <= 1 else { throw DecodeError("number over 64 bits") }
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
    }
}
