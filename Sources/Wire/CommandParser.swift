/// Input that does not follow the protocol; the text is for the one who sent it.
package struct DecodeError: Error, Equatable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }
}

/// How large a command may be.
package struct CommandLimits: Equatable, Sendable {
    package var bytesMax: Int
    package var argumentsMax: Int

    package init(bytesMax: Int, argumentsMax: Int) {
        self.bytesMax = bytesMax
        self.argumentsMax = argumentsMax
    }

    package static let client = Self(bytesMax: 64 << 10, argumentsMax: 32)
    /// A witness may relay a prepare.
    package static let witness = Self(bytesMax: 2 << 20, argumentsMax: 32)
    /// A prepare carries a whole batch, a state message a piece of a snapshot.
    package static let replica = Self(bytesMax: 4 << 20, argumentsMax: 32)
}

/// Finds commands in a stream of bytes: RESP arrays of bulk strings, and inline commands (words
/// parted by blanks, ended by a line end). Remembers nothing of the bytes; after `.command` the
/// arguments are the `ranges` of the span that was given.
///
/// Complexity: a command costs its number of arguments, not its bytes, each time it is looked at.
package struct CommandParser: Sendable {
    package enum Outcome: Equatable, Sendable {
        /// `ranges` hold the arguments; `next` is where the next command begins.
        case command
        /// A line with nothing on it, to be passed over; `next` is behind it.
        case blank
        /// More bytes are needed.
        case incomplete
        case malformed(DecodeError)
    }

    package private(set) var ranges: [Range<Int>] = []
    package private(set) var next = 0

    package init() {
        ranges.reserveCapacity(32)
    }

    package mutating func parse(
        _ bytes: Span<UInt8>, from start: Int, limits: CommandLimits = .client
    ) -> Outcome {
        ranges.removeAll(keepingCapacity: true)
        guard start < bytes.count else { return .incomplete }
        return bytes[start] == UInt8(ascii: "*")
            ? parseArray(bytes, start, limits) : parseInline(bytes, start, limits)
    }

    private mutating func parseArray(_ bytes: Span<UInt8>, _ start: Int, _ limits: CommandLimits)
        -> Outcome
    {
        var position = start + 1
        let count: Int
        switch Self.number(bytes, &position) {
        case .value(let value): count = value
        case .incomplete: return .incomplete
        case .malformed: return .malformed(DecodeError("invalid multibulk length"))
        }
        if count <= 0 {
            next = position
            return .blank
        }
        guard count <= limits.argumentsMax else {
            return .malformed(
                DecodeError("\(count) arguments, at most \(limits.argumentsMax) are taken"))
        }
        for _ in 0..<count {
            guard position < bytes.count else { return .incomplete }
            guard bytes[position] == UInt8(ascii: "$") else {
                let got = Self.printable(bytes[position])
                return .malformed(DecodeError("expected '$', got '\(got)'"))
            }
            position += 1
            let length: Int
            switch Self.number(bytes, &position) {
            case .value(let value): length = value
            case .incomplete: return .incomplete
            case .malformed: return .malformed(DecodeError("invalid bulk length"))
            }
            guard length >= 0 else { return .malformed(DecodeError("invalid bulk length")) }
            guard position - start + length <= limits.bytesMax else {
                return .malformed(
                    DecodeError("command too long, at most \(limits.bytesMax) bytes are taken"))
            }
            guard position + length + 2 <= bytes.count else { return .incomplete }
            guard bytes[position + length] == 13, bytes[position + length + 1] == 10 else {
                return .malformed(DecodeError("bulk string not ended by CR LF"))
            }
            ranges.append(position..<position + length)
            position += length + 2
        }
        next = position
        return .command
    }

    private mutating func parseInline(_ bytes: Span<UInt8>, _ start: Int, _ limits: CommandLimits)
        -> Outcome
    {
        var end = start
        let bound = min(bytes.count, start + CommandLimits.client.bytesMax)
        while end < bound, bytes[end] != 10 { end += 1 }
        guard end < bytes.count else {
            return end - start < CommandLimits.client.bytesMax
                ? .incomplete : .malformed(DecodeError("inline command too long"))
        }
        guard bytes[end] == 10 else { return .malformed(DecodeError("inline command too long")) }
        next = end + 1
        if end > start, bytes[end - 1] == 13 { end -= 1 }
        var position = start
        while position < end {
            guard bytes[position] != 32, bytes[position] != 9 else {
                position += 1
                continue
            }
            guard ranges.count < limits.argumentsMax else {
                return .malformed(
                    DecodeError("too many arguments, at most \(limits.argumentsMax) are taken"))
            }
            switch Self.word(bytes, position, end) {
            case .some(let (range, after)):
                ranges.append(range)
                position = after
            case nil: return .malformed(DecodeError("unbalanced quotes in request"))
            }
        }
        return ranges.isEmpty ? .blank : .command
    }

    /// A plain word, or one in double or single quotes (taken as it stands, without escapes).
    private static func word(_ bytes: Span<UInt8>, _ start: Int, _ end: Int)
        -> (Range<Int>, after: Int)?
    {
        let first = bytes[start]
        var position = start
        guard first == UInt8(ascii: "\"") || first == UInt8(ascii: "'") else {
            while position < end, bytes[position] != 32, bytes[position] != 9 { position += 1 }
            return (start..<position, position)
        }
        position += 1
        while position < end, bytes[position] != first { position += 1 }
        guard position < end else { return nil }
        let after = position + 1
        guard after == end || bytes[after] == 32 || bytes[after] == 9 else { return nil }
        return (start + 1..<position, after)
    }

    private enum Number {
        case value(Int)
        case incomplete
        case malformed
    }

    /// A decimal number and CR LF; `position` moves behind them.
    @inline(__always)
    private static func number(_ bytes: Span<UInt8>, _ position: inout Int) -> Number {
        var value = 0
        var index = position
        var isNegative = false
        if index < bytes.count, bytes[index] == UInt8(ascii: "-") {
            isNegative = true
            index += 1
        }
        let first = index
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 13 {
                guard index > first else { return .malformed }
                guard index + 1 < bytes.count else { return .incomplete }
                guard bytes[index + 1] == 10 else { return .malformed }
                position = index + 2
                return .value(isNegative ? -value : value)
            }
            guard byte >= 48, byte <= 57, index - first < 10 else { return .malformed }
            value = value * 10 + Int(byte - 48)
            index += 1
        }
        return .incomplete
    }

    private static func printable(_ byte: UInt8) -> String {
        byte > 32 && byte < 127 ? String(UnicodeScalar(byte)) : "\\x\(String(byte, radix: 16))"
    }
}
