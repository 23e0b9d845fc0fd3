package import Wire

/// The first 120 bytes of a checkpoint: the services' state as it is after an op.
///
///     0   8  magic, `PSRVCKPT`
///     8   4  format version
///     12  4  length of this header
///     16 16  service
///     32 16  priority and id of the replica
///     48  8  instance
///     56  8  op
///     64  8  view of the entry that ends with this op; 0: none does
///     72  8  number of the segment that replay begins with: every entry behind the op that was
///            ever appended stands in it or later
///     80  8  checksum of that segment's header
///     88  3  bytes in a piece
///     91  1  origin: 0 taken here, 1 received from another replica, 2 a copy of a service; of that
///            the view is the one in which it was made, and segment and checksum are 0
///     92  4  bytes of the snapshot
///     96  8  hash of the log through this op
///     104 8  salt: random; seeds the checksums of the pieces
///     112 8  XXH64 of bytes 0 to 112, seed 0
///
/// Then the snapshot in pieces, the last one shorter, behind each piece its XXH64, seeded with the
/// salt plus the piece's number from 0; nothing behind the last.
package struct CheckpointHeader: Hashable, Sendable {
    package enum Origin: UInt8, Hashable, Sendable {
        case taken = 0
        /// Counts only if the journal says, by a record `restored`, that it was made use of.
        case received = 1
        /// Made for an operator, to begin another service from. No part of any journal.
        case copied = 2
    }

    package var identity: Identity
    package var op: OpNumber
    package var view: ViewNumber
    /// Of the log through `op`. After a promotion by force the same op may be another log's.
    package var hash: LogHash
    package var segment: UInt64
    package var segmentChecksum: UInt64
    package var origin: Origin
    package var pieceBytes: Int
    package var snapshotBytes: Int
    package var salt: UInt64

    package init(
        identity: Identity, op: OpNumber, view: ViewNumber, hash: LogHash, segment: UInt64,
        segmentChecksum: UInt64, origin: Origin, snapshotBytes: Int, salt: UInt64,
        pieceBytes: Int = Self.pieceBytesUsual
    ) {
        self.identity = identity
        self.op = op
        self.view = view
        self.hash = hash
        self.segment = segment
        self.segmentChecksum = segmentChecksum
        self.origin = origin
        self.pieceBytes = pieceBytes
        self.snapshotBytes = snapshotBytes
        self.salt = salt
    }

    /// Of a copy of a service; `identity`: of the replica that makes it.
    package init(
        copyBy identity: Identity, op: OpNumber, view: ViewNumber, hash: LogHash,
        snapshotBytes: Int = 0, salt: UInt64
    ) {
        self.init(
            identity: identity, op: op, view: view, hash: hash, segment: 0, segmentChecksum: 0,
            origin: .copied, snapshotBytes: snapshotBytes, salt: salt)
    }

    package static let byteCount = 120
    package static let pieceBytesUsual = 64 << 10
    /// What the header has room to say.
    package static let snapshotBytesMax = Int(UInt32.max)
    static let magic = Array("PSRVCKPT".utf8)

    package static func name(_ op: OpNumber) -> String { "checkpoint-\(op)" }

    package var bytes: [UInt8] {
        var bytes = Self.magic
        LittleEndian.append(Identity.formatVersion, to: &bytes)
        LittleEndian.append(UInt32(Self.byteCount), to: &bytes)
        identity.append(to: &bytes)
        for value in [op.rawValue, view.rawValue, segment, segmentChecksum] {
            LittleEndian.append(value, to: &bytes)
        }
        precondition(pieceBytes < 1 << 24, "pieces of \(pieceBytes) bytes")
        LittleEndian.append(UInt32(pieceBytes) | UInt32(origin.rawValue) << 24, to: &bytes)
        LittleEndian.append(UInt32(snapshotBytes), to: &bytes)
        LittleEndian.append(hash.rawValue, to: &bytes)
        LittleEndian.append(salt, to: &bytes)
        LittleEndian.append(Checksum.of(bytes), to: &bytes)
        return bytes
    }

    package init(_ bytes: Span<UInt8>) throws(Flaw) {
        try checkHead(bytes, magic: Self.magic, length: Self.byteCount, what: "checkpoint")
        identity = Identity(bytes, at: 16)
        op = OpNumber(LittleEndian.read64(bytes, at: 56))
        view = ViewNumber(LittleEndian.read64(bytes, at: 64))
        segment = LittleEndian.read64(bytes, at: 72)
        segmentChecksum = LittleEndian.read64(bytes, at: 80)
        let piece = LittleEndian.read32(bytes, at: 88)
        pieceBytes = Int(piece & 0xff_ffff)
        snapshotBytes = Int(LittleEndian.read32(bytes, at: 92))
        hash = LogHash(LittleEndian.read64(bytes, at: 96))
        salt = LittleEndian.read64(bytes, at: 104)
        guard let origin = Origin(rawValue: UInt8(piece >> 24)), pieceBytes > 0,
            op.rawValue < .max, (segment == 0) == (origin == .copied),
            snapshotBytes <= bytes.count
        else { throw Flaw(.rot, at: 56, "a checkpoint's header without sense") }
        self.origin = origin
    }

    package var pieceCount: Int { (snapshotBytes + pieceBytes - 1) / pieceBytes }
    package var fileBytes: Int { Self.byteCount + snapshotBytes + 8 * pieceCount }
}

/// A checkpoint as it was read.
package struct Checkpoint: Hashable, Sendable {
    package var header: CheckpointHeader
    package var snapshot: [UInt8]

    /// The whole file.
    package static func encode(_ header: CheckpointHeader, _ snapshot: [UInt8]) -> [UInt8] {
        precondition(header.snapshotBytes == snapshot.count, "a header of another snapshot")
        var bytes: [UInt8] = []
        bytes.reserveCapacity(header.fileBytes)
        bytes.append(contentsOf: header.bytes)
        for piece in 0..<header.pieceCount {
            let start = piece * header.pieceBytes
            let end = min(start + header.pieceBytes, snapshot.count)
            bytes.append(contentsOf: snapshot[start..<end])
            let seed = header.salt &+ UInt64(piece)
            LittleEndian.append(
                Checksum.of(snapshot.span, in: start..<end, seed: seed), to: &bytes)
        }
        return bytes
    }

    /// Whether a file that begins so is meant to be a checkpoint, intact or not.
    package static func isMeant(_ bytes: [UInt8]) -> Bool {
        bytes.starts(with: CheckpointHeader.magic)
    }

    /// Throws the first rotten piece with its offset in the file.
    package init(_ bytes: [UInt8]) throws(Flaw) {
        header = try CheckpointHeader(bytes.span)
        guard bytes.count == header.fileBytes else {
            throw Flaw(
                .rot, at: min(bytes.count, header.fileBytes),
                "\(bytes.count) bytes instead of \(header.fileBytes)")
        }
        snapshot = []
        snapshot.reserveCapacity(header.snapshotBytes)
        var place = CheckpointHeader.byteCount
        for piece in 0..<header.pieceCount {
            let length = min(header.pieceBytes, header.snapshotBytes - piece * header.pieceBytes)
            let seed = header.salt &+ UInt64(piece)
            let expected = LittleEndian.read64(bytes.span, at: place + length)
            guard Checksum.of(bytes.span, in: place..<place + length, seed: seed) == expected else {
                throw Flaw(
                    .rot, at: place,
                    "piece \(piece + 1) of \(header.pieceCount), \(length) bytes, is rotten")
            }
            snapshot.append(contentsOf: bytes[place..<place + length])
            place += length + 8
        }
    }
}
