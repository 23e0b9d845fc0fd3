import Journal
import Testing
import Wire

@Suite struct RecordCodingTests {
    @Test func everyRecordComesBack() throws {
        var generator = Generator(state: 1)
        var kinds: Set<UInt8> = []
        for _ in 0..<5_000 {
            let record = Sample.record(&generator)
            var bytes: [UInt8] = [9, 9]
            RecordCoding.append(record, to: &bytes)
            let kind = RecordCoding.kind(of: record)
            kinds.insert(kind)
            let end = bytes.count
            bytes += [7, 7, 7]
            #expect(try RecordCoding.record(kind: kind, bytes, in: 2..<end) == record)
        }
        // The last kind is the mark, which is no record.
        #expect(kinds == Set(RecordCoding.kinds.dropLast()))
    }

    /// Whatever is read is either refused or the very thing that gives these bytes; but for
    /// numbers in more bytes than they need, it is the same bytes.
    @Test func randomContentNeitherCrashesNorLies() {
        var generator = Generator(state: 2)
        var (taken, refused) = (0, 0)
        for round in 0..<40_000 {
            var bytes: [UInt8] = []
            if round % 2 == 0 {
                RecordCoding.append(Sample.record(&generator), to: &bytes)
                for _ in 0..<Int.random(in: 1...3, using: &generator) where !bytes.isEmpty {
                    let place = Int.random(in: 0..<bytes.count, using: &generator)
                    bytes[place] = UInt8.random(in: 0...255, using: &generator)
                }
            } else {
                let count = Int.random(in: 0..<24, using: &generator)
                bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            }
            let kind = UInt8.random(in: 0...8, using: &generator)
            do {
                let record = try RecordCoding.record(kind: kind, bytes, in: 0..<bytes.count)
                var again: [UInt8] = []
                RecordCoding.append(record, to: &again)
                let second = try RecordCoding.record(kind: kind, again, in: 0..<again.count)
                #expect(second == record)
                #expect(again.count <= bytes.count)
                taken += 1
            } catch {
                refused += 1
            }
        }
        #expect(taken > 1_000 && refused > 1_000)
    }

    static let nonsense: [[UInt8]] = [
        [0, 1], [8, 1], [2], [2, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 2, 0, 0], [5, 1, 1, 0], [7, 0],
        // The last op would be past the highest number.
        [1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1, 0, 0],
    ]

    /// The kind, then the content.
    @Test(arguments: nonsense) func contentWithoutSense(bytes: [UInt8]) {
        #expect(throws: DecodeError.self) {
            try RecordCoding.record(kind: bytes[0], bytes, in: 1..<bytes.count)
        }
    }

    @Test func anEntryCostsLittleMoreThanItsBatch() {
        let entry = Sample.entry(1_000_000, size: 100)
        let file = SegmentFile(writes: [[.entry(entry)]])
        #expect(file.places[1] - file.places[0] - entry.batch.bytes.count <= 40)
    }
}

@Suite struct SegmentTests {
    static let view: View = {
        var generator = Generator(state: 3)
        return Sample.view(1, &generator)
    }()
    static let writes: [[Record]] = [
        [.view(view)], [.entry(Sample.entry(1)), .entry(Sample.entry(2, size: 0))],
        [.truncated(after: OpNumber(1))], [.entry(Sample.entry(2)), .entry(Sample.entry(3))],
    ]
    static let records = writes.flatMap { $0 }
    static let file = SegmentFile(writes: writes, zeros: 200)

    @Test func recordsComeBack() {
        let (records, stop) = SegmentFile.read(Self.file.bytes)
        #expect(records == Self.records)
        #expect(stop == .end)
    }

    /// Flips in the last write look torn, as nothing proves it durable; all others are rot.
    @Test func everyFlippedBitIsNoticed() throws {
        let lastWrite = Self.file.places[Self.records.count - 2]
        let end = try #require(Self.file.places.last)
        for bit in 0..<Self.file.bytes.count * 8 {
            var bytes = Self.file.bytes
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            let (records, stop) = SegmentFile.read(bytes)
            guard case .flaw(let flaw) = stop else {
                Issue.record("bit \(bit % 8) of byte \(bit / 8) is not noticed")
                continue
            }
            let whole = Self.file.places.lastIndex { $0 <= bit / 8 } ?? 0
            #expect(records == Array(Self.records.prefix(whole)))
            let isTail = bit / 8 >= lastWrite
            #expect(flaw.kind == (isTail ? .torn : .rot), "byte \(bit / 8): \(flaw)")
            if bit / 8 >= SegmentHeader.byteCount {
                #expect(flaw.offset == (bit / 8 >= end ? end : Self.file.places[whole]))
            }
        }
    }

    @Test func everyTruncationIsAShorterJournalOrATornTail() {
        for count in 0...Self.file.bytes.count {
            let (records, stop) = SegmentFile.read(Array(Self.file.bytes[..<count]))
            let whole = Self.file.places.lastIndex { $0 <= count } ?? 0
            #expect(records == Array(Self.records.prefix(whole)))
            if count < SegmentHeader.byteCount {
                // No segment is without a header from the moment it has its name.
                guard case .flaw(let flaw) = stop else {
                    Issue.record("a header cut at \(count) is taken")
                    continue
                }
                #expect(flaw.kind == .rot)
            } else {
                let isClean = count == Self.file.places[whole] || whole == Self.records.count
                // Cut behind zeros of a record's first bytes there is nothing to be seen.
                let rest = Self.file.bytes[Self.file.places[whole]..<count]
                let expected: SegmentReader.Stop =
                    isClean || rest.allSatisfy { $0 == 0 }
                    ? .end
                    : .flaw(
                        Flaw(.torn, at: Self.file.places[whole], "a write that was not finished"))
                #expect(stop == expected, "cut at \(count)")
            }
        }
    }

    /// A write of several sectors of which the first was lost and a later one kept.
    @Test func partsOfTheLastWriteAreATornTail() {
        let writes: [[Record]] = [
            [.entry(Sample.entry(1))], (2...9).map { .entry(Sample.entry($0)) },
        ]
        let file = SegmentFile(writes: writes)
        for lost in 1..<8 {
            var bytes = file.bytes
            for place in file.places[lost]..<file.places[lost + 1] { bytes[place] = 0 }
            let (records, stop) = SegmentFile.read(bytes)
            #expect(records.count == lost)
            guard case .flaw(let flaw) = stop else {
                Issue.record("not noticed")
                continue
            }
            #expect(flaw.kind == .torn)
        }
    }

    @Test func lostSwappedAndStaleRecordsAreNoticed() {
        let entries = (1...4).map { [Record.entry(Sample.entry($0))] }
        let file = SegmentFile(writes: entries)
        func piece(_ index: Int) -> ArraySlice<UInt8> {
            file.bytes[file.places[index]..<file.places[index + 1]]
        }
        let head = file.bytes[..<file.places[0]]
        let lost = Array(head + piece(0) + piece(2) + piece(3))
        let swapped = Array(head + piece(1) + piece(0) + piece(2) + piece(3))
        let twice = Array(head + piece(0) + piece(0) + piece(2) + piece(3))
        let other = SegmentFile(writes: [[.entry(Sample.entry(1, size: 21))]] + entries.dropFirst())
        let stale = Array(
            file.bytes[..<file.places[3]] + other.bytes[other.places[3]..<other.places[4]])
        for (bytes, count) in [(lost, 1), (swapped, 0), (twice, 1), (stale, 3)] {
            let (records, stop) = SegmentFile.read(bytes)
            #expect(records.count == count)
            guard case .flaw(let flaw) = stop else {
                Issue.record("not noticed")
                continue
            }
            #expect(flaw.kind == .chain || flaw.kind == .rot)
            #expect(flaw.offset == file.places[count])
        }
    }

    /// It was durable before the segment had its name, though nothing behind it says so.
    @Test func aRecordFromTheSegmentsBirthIsNeverTorn() {
        let (header, bytes, writer) = SegmentHeader.birth(
            identity: Sample.identity, number: 1, firstOp: OpNumber(1), previous: 0, salt: 4,
            [.view(Self.view), .proposed(number: ViewNumber(2))])
        #expect(header.born == bytes.count && writer.durable == bytes.count)
        #expect(SegmentFile.read(bytes).stop == .end)
        for place in SegmentHeader.byteCount..<bytes.count {
            var spoiled = bytes
            spoiled[place] ^= 1
            for rotten in [spoiled, Array(bytes[..<place])] {
                guard case .flaw(let flaw) = SegmentFile.read(rotten).stop else {
                    Issue.record("byte \(place) is not noticed")
                    continue
                }
                #expect(flaw.kind == .rot, "byte \(place)")
            }
        }
    }

    /// What a client may have put into a batch is no record, however it looks.
    @Test func aRecordInsideABatchIsNone() throws {
        // Bytes of a valid segment with another salt, inside an entry's batch that is then torn.
        let inner = SegmentFile(number: 2, writes: [[], [.entry(Sample.entry(1))]])
        var batch = Batch()
        batch.append(Request(command: inner.bytes))
        let entry = Entry(
            view: ViewNumber(1), first: OpNumber(1), time: 5, batch: batch, after: .beginning)
        let file = SegmentFile(writes: [[.entry(entry)]])
        var bytes = file.bytes
        bytes[file.places[0] + 34] ^= 1
        guard case .flaw(let flaw) = SegmentFile.read(bytes).stop else {
            Issue.record("not noticed")
            return
        }
        #expect(flaw.kind == .torn)
    }

    @Test func laterFormatsAndOtherFilesAreForeign() {
        var later = Self.file.bytes
        later[8] = UInt8(Identity.formatVersion + 1)
        later[12] = 200
        var other = Self.file.bytes
        other.replaceSubrange(0..<8, with: Array("PSRVCKPT".utf8))
        let end = SegmentHeader.byteCount - 8
        LittleEndian.put(Checksum.of(Array(other[..<end])), into: &other, at: end)
        for bytes in [later, other] {
            guard case .flaw(let flaw) = SegmentFile.read(bytes).stop else {
                Issue.record("taken")
                continue
            }
            #expect(flaw.kind == .foreign)
        }
    }
}

@Suite struct CheckpointTests {
    static let snapshot = (0..<1_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
    static let header = CheckpointHeader(
        identity: Sample.identity, op: OpNumber(70), view: ViewNumber(3), hash: LogHash(5),
        segment: 2, segmentChecksum: 99, origin: .taken, snapshotBytes: 1_000, salt: 11,
        pieceBytes: 300)
    static let bytes = Checkpoint.encode(header, snapshot)

    @Test func comesBack() throws {
        let checkpoint = try Checkpoint(Self.bytes)
        #expect(checkpoint.header == Self.header)
        #expect(checkpoint.snapshot == Self.snapshot)
        var empty = Self.header
        empty.snapshotBytes = 0
        #expect(try Checkpoint(Checkpoint.encode(empty, [])).snapshot.isEmpty)
    }

    @Test func everyFlippedBitIsNamedByItsPiece() {
        for bit in 0..<Self.bytes.count * 8 {
            var bytes = Self.bytes
            bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            let flaw = #expect(throws: Flaw.self, "bit \(bit)") { try Checkpoint(bytes) }
            if bit / 8 >= CheckpointHeader.byteCount {
                let piece = (bit / 8 - CheckpointHeader.byteCount) / 308
                #expect(flaw?.offset == CheckpointHeader.byteCount + piece * 308)
            }
        }
    }

    @Test func everyOtherLengthIsNoticed() {
        for count in 0..<Self.bytes.count {
            #expect(throws: Flaw.self) { try Checkpoint(Array(Self.bytes[..<count])) }
        }
        #expect(throws: Flaw.self) { try Checkpoint(Self.bytes + [0]) }
    }
}

@Suite struct IdentityTests {
    @Test func comesBackAndEveryChangeIsNoticed() throws {
        let text = Sample.identity.text
        #expect(try Identity(text: text) == Sample.identity)
        for place in text.utf8.indices {
            for bit in 0..<8 {
                var bytes = Array(text.utf8)
                bytes[text.utf8.distance(from: text.utf8.startIndex, to: place)] ^= 1 << UInt8(bit)
                let changed = String(decoding: bytes, as: UTF8.self)
                #expect(throws: DecodeError.self) { try Identity(text: changed) }
            }
        }
        #expect(throws: DecodeError.self) { try Identity(text: text + "\n") }
    }
}
