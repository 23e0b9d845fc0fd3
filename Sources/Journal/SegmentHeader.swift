package import Wire

/// Why bytes of a file are not what was written there.
package struct Flaw: Error, Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// Not the bytes that were written and made durable.
        case rot
        /// Never made durable: the power went, or the process ended, in the middle of a write.
        case torn
        /// Intact in itself, but it does not continue what stands before it.
        case chain
        /// Not ours: another service, replica, instance or format.
        case foreign
        /// Not there.
        case missing
    }

    package var kind: Kind
    /// Bytes from the file's beginning.
    package var offset: Int
    package var reason: String

    package init(_ kind: Kind, at offset: Int, _ reason: String) {
        self.kind = kind
        self.offset = offset
        self.reason = reason
    }
}

/// The first 104 bytes of a segment. Behind it stand, from the moment the file got its name, the
/// records of what the replica was bound to then (`Standing.records`): nothing before the segment
/// is needed for them. What is broken among these bytes is rot, never a torn write.
///
///     0   8  magic, `PSRVJRNL`
///     8   4  format version
///     12  4  length of this header
///     16 16  service
///     32 16  priority and id of the replica
///     48  8  instance
///     56  8  number of the segment: 1, 2, 3, …
///     64  8  first op: the log's end when the segment began, plus 1
///     72  8  the chain value that it continues: the checksum of the last record of the segment
///            before (of its header, where it has no record), 0 for segment 1
///     80  8  salt: random; seeds the records' checksums, so that nobody who can put bytes into a
///            batch can make them pass for a record
///     88  8  born: the bytes of the file that were durable before it got its name
///     96  8  XXH64 of bytes 0 to 96, seed 0; the chain of the records begins with it
package struct SegmentHeader: Hashable, Sendable {
    package var identity: Identity
    package var number: UInt64
    package var firstOp: OpNumber
    package var previous: UInt64
    package var salt: UInt64
    package var born: Int

    package init(
        identity: Identity, number: UInt64, firstOp: OpNumber, previous: UInt64, salt: UInt64,
        born: Int = Self.byteCount
    ) {
        self.identity = identity
        self.number = number
        self.firstOp = firstOp
        self.previous = previous
        self.salt = salt
        self.born = born
    }

    package static let byteCount = 104
    static let magic = Array("PSRVJRNL".utf8)

    package static func name(_ number: UInt64) -> String { "segment-\(number)" }

    package var bytes: [UInt8] {
        var bytes = Self.magic
        LittleEndian.append(Identity.formatVersion, to: &bytes)
        LittleEndian.append(UInt32(Self.byteCount), to: &bytes)
        identity.append(to: &bytes)
        for value in [number, firstOp.rawValue, previous, salt, UInt64(born)] {
            LittleEndian.append(value, to: &bytes)
        }
        LittleEndian.append(Checksum.of(bytes), to: &bytes)
        return bytes
    }

    package var checksum: UInt64 { LittleEndian.read64(bytes.span, at: Self.byteCount - 8) }

    /// A segment as it gets its name: a header and `records`.
    package static func birth(
        identity: Identity, number: UInt64, firstOp: OpNumber, previous: UInt64, salt: UInt64,
        _ records: [Record]
    ) -> (header: SegmentHeader, bytes: [UInt8], writer: SegmentWriter) {
        var header = SegmentHeader(
            identity: identity, number: number, firstOp: firstOp, previous: previous, salt: salt)
        // Their length does not depend on the header, which has to name it.
        var draft = SegmentWriter(header)
        for record in records { draft.append(record) }
        header.born = draft.end
        var writer = SegmentWriter(header)
        for record in records { writer.append(record) }
        let bytes = header.bytes + writer.pending
        writer.onWritten()
        writer.onSynced()
        return (header, bytes, writer)
    }

    package init(_ bytes: Span<UInt8>) throws(Flaw) {
        try checkHead(bytes, magic: Self.magic, length: Self.byteCount, what: "segment")
        identity = Identity(bytes, at: 16)
        number = LittleEndian.read64(bytes, at: 56)
        firstOp = OpNumber(LittleEndian.read64(bytes, at: 64))
        previous = LittleEndian.read64(bytes, at: 72)
        salt = LittleEndian.read64(bytes, at: 80)
        let born = LittleEndian.read64(bytes, at: 88)
        guard firstOp.rawValue > 0, firstOp.rawValue < .max, number > 0, born <= UInt32.max else {
            throw Flaw(.rot, at: 56, "a segment's header without sense")
        }
        self.born = Int(born)
    }
}

/// Magic, version, length and the checksum in the last 8 bytes of a header.
func checkHead(_ bytes: Span<UInt8>, magic: [UInt8], length: Int, what: String) throws(Flaw) {
    guard bytes.count >= length else {
        throw Flaw(
            .rot, at: bytes.count, "\(what) of \(bytes.count) bytes, shorter than its header")
    }
    let expected = LittleEndian.read64(bytes, at: length - 8)
    let isIntact = Checksum.of(bytes, in: 0..<length - 8, seed: 0) == expected
    let isOurs = magic.indices.allSatisfy { bytes[$0] == magic[$0] }
    let version = LittleEndian.read32(bytes, at: 8)
    // A later format may have a longer header and its checksum elsewhere; the magic tells.
    if isOurs, !isIntact, version != Identity.formatVersion,
        LittleEndian.read32(bytes, at: 12) != UInt32(length)
    {
        throw otherFormat(version)
    }
    guard isIntact else { throw Flaw(.rot, at: 0, "checksum of the header does not match") }
    guard isOurs else { throw Flaw(.foreign, at: 0, "not a \(what) of pollsrv") }
    guard version == Identity.formatVersion else {
        throw otherFormat(version)
    }
}

private func otherFormat(_ version: UInt32) -> Flaw {
    Flaw(
        .foreign, at: 8,
        "format \(version); this program reads \(Identity.formatVersion)")
}
