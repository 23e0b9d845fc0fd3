package import Wire

/// How a record stands in a segment: 24 bytes of header, then its content.
///
///     0   8  XXH64 of bytes 8 to the content's end, seeded with the segment's salt
///     8   8  the checksum of the record before it (the header's, for the first)
///     16  4  durable: the bytes of this file before this offset were durable when the record was
///            handed to the kernel
///     20  3  length of the content
///     23  1  kind
///
/// Each record can be checked by itself, as a search for intact ones behind a broken one needs;
/// and it names the one before it, so that a lost, swapped or stale record is noticed. (So do the
/// prepares of TigerBeetle, by `checksum` and `parent`.)
package enum RecordFrame {
    package static let headerBytes = 24
    /// An entry holds a batch, of little over `Batch.bytesMax`; a bound that is not much higher
    /// keeps the search for records in garbage short.
    package static let contentBytesMax = 4 << 20
}

/// Records in, bytes out. Holds what is not yet in the file.
package struct SegmentWriter: Sendable {
    /// What is to be written at `offset`.
    package private(set) var pending: [UInt8] = []
    package private(set) var offset: Int
    /// The checksum of the last record, written or pending.
    package private(set) var chain: UInt64
    /// Bytes before it are durable.
    package private(set) var durable: Int
    package let salt: UInt64

    /// Behind a header that is durable.
    package init(_ header: SegmentHeader) {
        self.init(
            salt: header.salt, chain: header.checksum, offset: SegmentHeader.byteCount,
            durable: SegmentHeader.byteCount)
    }

    package init(salt: UInt64, chain: UInt64, offset: Int, durable: Int) {
        precondition(durable <= offset, "durable through \(durable) of \(offset)")
        self.salt = salt
        self.chain = chain
        self.offset = offset
        self.durable = durable
    }

    /// Where the file will end with what is pending.
    package var end: Int { offset + pending.count }

    package mutating func append(_ record: Record) {
        append(kind: RecordCoding.kind(of: record)) { RecordCoding.append(record, to: &$0) }
        isMarked = false
    }

    /// Whether nothing stands behind the last mark.
    package private(set) var isMarked = false

    /// Writes down that all before is durable. Precondition: it is.
    package mutating func appendMark() {
        precondition(pending.isEmpty && durable == offset, "a mark before the sync")
        append(kind: RecordCoding.mark) { _ in }
        isMarked = true
    }

    private mutating func append(kind: UInt8, content: (inout [UInt8]) -> Void) {
        let start = pending.count
        pending.append(contentsOf: repeatElement(0, count: RecordFrame.headerBytes))
        content(&pending)
        let length = pending.count - start - RecordFrame.headerBytes
        precondition(length <= RecordFrame.contentBytesMax, "a record of \(length) bytes")
        precondition(offset + pending.count <= Int(UInt32.max), "a segment of over 4 GiB")
        LittleEndian.put(chain, into: &pending, at: start + 8)
        LittleEndian.put(UInt32(durable), into: &pending, at: start + 16)
        LittleEndian.put(UInt32(length) | UInt32(kind) &<< 24, into: &pending, at: start + 20)
        chain = Checksum.of(pending.span, in: start + 8..<pending.count, seed: salt)
        LittleEndian.put(chain, into: &pending, at: start)
    }

    /// What was pending is in the file.
    package mutating func onWritten() {
        offset += pending.count
        pending.removeAll(keepingCapacity: true)
    }

    /// All that is in the file is durable.
    package mutating func onSynced() { durable = offset }
}

/// The bytes of a segment in, its records out, and where and why it stopped.
package struct SegmentReader: Sendable {
    /// Where the records end.
    package enum Stop: Hashable, Sendable {
        /// Only zeros follow, or nothing.
        case end
        case flaw(Flaw)
    }

    package let header: SegmentHeader
    /// Set when `next` has given nil.
    package private(set) var stop: Stop?
    /// Where the next record begins; behind the last one once stopped.
    package private(set) var offset = SegmentHeader.byteCount
    /// Where the record that `next` gave begins.
    package private(set) var lastOffset = 0
    /// What the record that `next` gave says to have been durable before it.
    package private(set) var lastDurable = SegmentHeader.byteCount
    package private(set) var chain: UInt64
    package private(set) var count = 0
    private let bytes: [UInt8]

    package init(_ bytes: [UInt8]) throws(Flaw) {
        header = try SegmentHeader(bytes.span)
        chain = header.checksum
        self.bytes = bytes
    }

    /// The next record; marks are passed over.
    package mutating func next() -> Record? {
        while stop == nil {
            if let record = step() { return record }
        }
        return nil
    }

    /// nil: a mark, or the end.
    private mutating func step() -> Record? {
        let bytes = bytes
        let span = bytes.span
        guard let content = content(span, at: offset) else {
            stop = stopAtBreak(span)
            return nil
        }
        // A record that was written behind this place stands here by mistake.
        let durable = Int(LittleEndian.read32(span, at: offset + 16))
        guard LittleEndian.read64(span, at: offset + 8) == chain, durable <= offset else {
            stop = .flaw(
                Flaw(.chain, at: offset, "an intact record that does not continue the one before"))
            return nil
        }
        do {
            let kind = bytes[offset + 23]
            let isMark = kind == RecordCoding.mark && content.isEmpty
            let record = isMark ? nil : try RecordCoding.record(kind: kind, bytes, in: content)
            chain = LittleEndian.read64(span, at: offset)
            lastOffset = offset
            lastDurable = durable
            offset = content.upperBound
            if !isMark { count += 1 }
            return record
        } catch {
            stop = .flaw(Flaw(.rot, at: offset, "a record without sense: \(error.text)"))
            return nil
        }
    }

    /// The place of the content of the record that begins at `start`, if an intact one does.
    private func content(_ span: Span<UInt8>, at start: Int) -> Range<Int>? {
        guard start <= span.count - RecordFrame.headerBytes,
            RecordCoding.kinds.contains(span[start + 23])
        else { return nil }
        let length = Int(LittleEndian.read32(span, at: start + 20) & 0xff_ffff)
        let first = start + RecordFrame.headerBytes
        guard length <= min(span.count - first, RecordFrame.contentBytesMax) else { return nil }
        let checksum = Checksum.of(span, in: start + 8..<first + length, seed: header.salt)
        guard LittleEndian.read64(span, at: start) == checksum else { return nil }
        return first..<first + length
    }

    /// The highest view that intact records name as chosen, wherever they stand in the file; 0: none
    /// does, or the file is not of `identity`, or its head cannot be read.
    static func newestView(_ bytes: [UInt8], of identity: Identity) -> ViewNumber {
        let reader: SegmentReader
        do throws(Flaw) {
            reader = try SegmentReader(bytes)
        } catch {
            return ViewNumber(0)
        }
        guard reader.header.identity == identity else { return ViewNumber(0) }
        let span = bytes.span
        var newest = ViewNumber(0)
        var place = reader.offset
        var last = span.count
        while last > place, span[last - 1] == 0 { last -= 1 }
        // The last byte of a record may be zero, its kind is not.
        while place < last, place + RecordFrame.headerBytes <= span.count {
            // What stands where no record does seldom passes for a length and this as well.
            let durable = Int(LittleEndian.read32(span, at: place + 16))
            guard durable >= SegmentHeader.byteCount, durable <= place,
                let content = reader.content(span, at: place)
            else {
                place += 1
                continue
            }
            newest = max(newest, Self.view(bytes, place, content))
            place = content.upperBound
        }
        return newest
    }

    private static func view(_ bytes: [UInt8], _ place: Int, _ content: Range<Int>) -> ViewNumber {
        do throws(DecodeError) {
            switch try RecordCoding.record(kind: bytes[place + 23], bytes, in: content) {
            case .entry(let entry): return entry.view
            case .restored(let end, _): return end.view
            case .view(let view): return view.number
            // Of a choice that may never have come about.
            case .truncated, .promised, .accepted, .proposed: return ViewNumber(0)
            }
        } catch {
            // A mark, or a record without sense.
            return ViewNumber(0)
        }
    }

    /// No intact record begins at `offset`. A record behind it says which bytes were durable when
    /// it was written: if the broken place is among them, it was answered for and has rotted. If
    /// no record says so, it belongs to the last write, which need not have become durable, and of
    /// which the disk may have kept any part.
    private func stopAtBreak(_ span: Span<UInt8>) -> Stop {
        var last = span.count
        while last > offset, span[last - 1] == 0 { last -= 1 }
        if offset < header.born {
            return .flaw(Flaw(.rot, at: offset, "rot: the segment began with more records"))
        }
        if last == offset { return .end }
        var place = offset + 1
        // The last byte of a record may be zero, its kind is not.
        while place + RecordFrame.headerBytes <= span.count, place < last {
            let durable = Int(LittleEndian.read32(span, at: place + 16))
            if durable > offset, durable <= place, content(span, at: place) != nil {
                return .flaw(
                    Flaw(.rot, at: offset, "rot: the intact record at \(place) was written later"))
            }
            place += 1
        }
        return .flaw(Flaw(.torn, at: offset, "a write that was not finished"))
    }
}
