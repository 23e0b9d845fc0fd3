import Journal
import Testing
import Wire

/// Copies of a service: checkpoints that belong to no journal.
@Suite struct CopyTests {
    private static let snapshot = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 * 31) }
    private static let header = CheckpointHeader(
        copyBy: Sample.identity, op: OpNumber(70), view: ViewNumber(3), hash: LogHash(5),
        snapshotBytes: 200_000, salt: 11)
    private static let bytes = Checkpoint.encode(header, snapshot)

    @Test func comesBack() throws {
        let copy = try Checkpoint(Self.bytes)
        #expect(copy.header == Self.header)
        #expect(copy.header.origin == .copied)
        #expect(copy.snapshot == Self.snapshot)
        #expect(Checkpoint.isMeant(Self.bytes))
        #expect(!Checkpoint.isMeant(Array("PSRVJRNL".utf8)))
        #expect(!Checkpoint.isMeant([]))
    }

    /// Only a copy names no segment, and it names none.
    @Test func segmentAndOriginGoTogether() {
        var header = Self.header
        header.segment = 1
        #expect(throws: Flaw.self) { try Checkpoint(Checkpoint.encode(header, Self.snapshot)) }
        header.segment = 0
        header.origin = .received
        #expect(throws: Flaw.self) { try Checkpoint(Checkpoint.encode(header, Self.snapshot)) }
    }

    @Test func rotIsNamedByItsPiece() {
        var bytes = Self.bytes
        let place = CheckpointHeader.byteCount + 2 * (CheckpointHeader.pieceBytesUsual + 8)
        bytes[place + 5] ^= 1
        let flaw = #expect(throws: Flaw.self) { try Checkpoint(bytes) }
        #expect(flaw?.offset == place)
    }

    /// Put into a journal's folder under a checkpoint's name, even of the very replica.
    @Test func isNoCheckpointOfAJournal() {
        let survey = Survey(
            identity: Sample.identity, names: ["checkpoint-70", "identity", "segment-1"]
        ) { name in name == "checkpoint-70" ? Self.bytes : [] }
        #expect(survey.place?.file == "checkpoint-70")
        #expect(survey.place?.flaw.kind == .foreign)
        for isPeerReachable in [true, false] {
            guard case .refuse = survey.verdict(isPeerReachable: isPeerReachable) else {
                Issue.record("taken for a checkpoint")
                continue
            }
        }
    }
}
