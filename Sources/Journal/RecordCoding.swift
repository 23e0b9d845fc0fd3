package import Wire

/// The content of a record as bytes. Numbers are of variable length (`VarInt`), a view is its text:
///
///     1 entry      view, first op, time, count, hash of the log (8 bytes, the least significant first),
///                  the batch's bytes to the end
///     2 truncated  op
///     3 restored   view of the entry that ends there, op, hash of the log
///     4 view       text
///     5 promised   view number, counter, proposer
///     6 accepted   counter, proposer, text of the view
///     7 proposed   view number
///     8 mark       nothing: only that all before it is durable
///
/// The kind stands in the record's header, not here.
package enum RecordCoding {
    package static let kinds: ClosedRange<UInt8> = 1...8
    /// Of no record of the replica's.
    static let mark: UInt8 = 8

    package static func kind(of record: Record) -> UInt8 {
        switch record {
        case .entry: 1
        case .truncated: 2
        case .restored: 3
        case .view: 4
        case .promised: 5
        case .accepted: 6
        case .proposed: 7
        }
    }

    package static func append(_ record: Record, to bytes: inout [UInt8]) {
        switch record {
        case .entry(let entry):
            VarInt.append(entry.view.rawValue, to: &bytes)
            VarInt.append(entry.first.rawValue, to: &bytes)
            VarInt.append(entry.time, to: &bytes)
            VarInt.append(UInt64(entry.batch.count), to: &bytes)
            LittleEndian.append(entry.hash.rawValue, to: &bytes)
            bytes.append(contentsOf: entry.batch.bytes)
        case .truncated(let op): VarInt.append(op.rawValue, to: &bytes)
        case .restored(let end, let hash):
            VarInt.append(end.view.rawValue, to: &bytes)
            VarInt.append(end.op.rawValue, to: &bytes)
            LittleEndian.append(hash.rawValue, to: &bytes)
        case .view(let view): bytes.append(contentsOf: view.text.utf8)
        case .promised(let number, let attempt):
            VarInt.append(number.rawValue, to: &bytes)
            append(attempt, to: &bytes)
        case .accepted(let accepted):
            append(accepted.attempt, to: &bytes)
            bytes.append(contentsOf: accepted.view.text.utf8)
        case .proposed(let number): VarInt.append(number.rawValue, to: &bytes)
        }
    }

    private static func append(_ attempt: Attempt, to bytes: inout [UInt8]) {
        VarInt.append(attempt.counter, to: &bytes)
        VarInt.append(attempt.proposer.rawValue, to: &bytes)
    }

    /// The record of this kind whose content is exactly the bytes at `range`.
    package static func record(kind: UInt8, _ bytes: [UInt8], in range: Range<Int>)
        throws(DecodeError) -> Record
    {
        var content = Content(bytes: bytes, position: range.lowerBound, end: range.upperBound)
        let record: Record
        switch kind {
        case 1: record = .entry(try content.entry())
        case 2: record = .truncated(after: OpNumber(try content.number()))
        case 3:
            let view = ViewNumber(try content.number())
            let op = OpNumber(try content.number())
            record = .restored(LogEnd(view: view, op: op), hash: try content.hash())
        case 4: record = .view(try content.view())
        case 5:
            let number = try content.viewNumber()
            record = .promised(number: number, try content.attempt())
        case 6:
            let attempt = try content.attempt()
            record = .accepted(Accepted(attempt: attempt, view: try content.view()))
        case 7: record = .proposed(number: try content.viewNumber())
        default: throw DecodeError("record of kind \(kind)")
        }
        guard content.isAtEnd else { throw DecodeError("record longer than what it says") }
        return record
    }

    private struct Content {
        let bytes: [UInt8]
        var position: Int
        let end: Int

        var isAtEnd: Bool { position == end }

        mutating func number() throws(DecodeError) -> UInt64 {
            var next = position
            let value = try VarInt.read(bytes.span, &next)
            guard next <= end else { throw DecodeError("record shorter than what it says") }
            position = next
            return value
        }

        mutating func hash() throws(DecodeError) -> LogHash {
            guard position + 8 <= end else { throw DecodeError("record shorter than what it says") }
            position += 8
            return LogHash(LittleEndian.read64(bytes.span, at: position - 8))
        }

        mutating func viewNumber() throws(DecodeError) -> ViewNumber {
            let value = try number()
            // The highest number of all would have no next.
            guard value > 0, value < .max else { throw DecodeError("view \(value)") }
            return ViewNumber(value)
        }

        mutating func attempt() throws(DecodeError) -> Attempt {
            let counter = try number()
            let proposer = try number()
            guard proposer != 0 else { throw DecodeError("attempt of nobody") }
            return Attempt(counter: counter, proposer: Instance(proposer))
        }

        mutating func entry() throws(DecodeError) -> Entry {
            let view = try viewNumber()
            let first = try number()
            let time = try number()
            let count = try number()
            let hash = try hash()
            let batch = rest()
            // A request takes at least a byte, which bounds the count; then no sum overflows.
            guard first > 0, count > 0, count <= UInt64(batch.count), first < .max - count else {
                throw DecodeError("entry of \(count) requests from op \(first)")
            }
            return Entry(
                view: view, first: OpNumber(first), time: time,
                batch: try Batch(decoding: batch, count: Int(count)), hash: hash)
        }

        mutating func view() throws(DecodeError) -> View {
            guard let view = View(text: String(decoding: rest(), as: UTF8.self)) else {
                throw DecodeError("a view that is none")
            }
            return view
        }

        private mutating func rest() -> [UInt8] {
            let start = position
            position = end
            return Array(bytes[start..<end])
        }
    }
}
