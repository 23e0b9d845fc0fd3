/// Reads a client log piece by piece: `1 YES NO`, `2 YES NO`, … one line a vote, none missing.
/// What stands behind the last line end is a write that was cut short.
package struct LogScanner: Equatable, Sendable {
    /// What is wrong with the log, and where.
    package struct Fault: Error, Equatable, Sendable {
        /// Counted from 1.
        package let line: UInt64
        package let text: String
    }

    /// The results of the whole lines.
    package private(set) var results = ResultChain()
    /// How many bytes the whole lines take.
    package private(set) var wholeBytes: UInt64 = 0
    /// The line that has begun but not ended.
    package private(set) var tail: [UInt8] = []

    /// Three numbers of 20 digits and two blanks.
    private static let lineBytesMax = 62

    package init() {}

    /// The result of the last whole line.
    package var last: PollResult? { results.last }

    package mutating func feed(_ bytes: ArraySlice<UInt8>) throws(Fault) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                try endLine()
            } else {
                tail.append(byte)
                // No line of ours is so long, so nothing of this is ours to cut off.
                if tail.count > Self.lineBytesMax { throw fault() }
            }
        }
    }

    /// To be called behind the last piece. A file without a single line of a log is somebody's
    /// else: what stands in it is only cut off if it could be the beginning of one.
    package func finish() throws(Fault) {
        guard last == nil, !tail.isEmpty else { return }
        let isPlausible =
            tail.allSatisfy { $0 == UInt8(ascii: " ") || Self.isDigit($0) }
            && tail[0] == UInt8(ascii: "1")
        if !isPlausible { throw fault() }
    }

    private mutating func endLine() throws(Fault) {
        let parts = tail.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard parts.count == 3, let id = Self.number(parts[0]), let yes = Self.number(parts[1]),
            let no = Self.number(parts[2]), id == results.nextID
        else { throw fault() }
        results.append(PollResult(id: id, yes: yes, no: no))
        wholeBytes += UInt64(tail.count) + 1
        tail.removeAll(keepingCapacity: true)
    }

    /// Decimal digits and no zero in front: exactly as it was written.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
        guard let first = digits.first, digits.allSatisfy(isDigit),
            first != UInt8(ascii: "0") || digits.count == 1
        else { return nil }
        return UInt64(String(decoding: digits, as: UTF8.self))
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private func fault() -> Fault {
        let line = results.nextID
        return Fault(line: line, text: "'\(line) YES NO' expected")
    }
}
