import Foundation
import Journal
import Testing
import Wire

/// A folder in memory: two checkpoints, after ops 4 and 8, and three segments with ops 1 to 12,
/// spoiled in any of the ways that the table tells apart.
private struct Folder {
    var files: [String: [UInt8]] = [:]
    /// The op at which the spoiling strikes at the latest; 0: nowhere.
    var lostFrom: UInt64 = 0

    static let stranger = Identity(
        service: ServiceID(high: 6, low: 6), id: ReplicaID(id: 1), instance: Instance(1))

    init(_ checkpoint: Recovery.CheckpointState, _ segments: Recovery.SegmentsState) {
        let first = SegmentFile(writes: (1...4).map { [.entry(Sample.entry($0))] })
        let second = SegmentFile(
            number: 2, firstOp: 5, previous: first.chain,
            writes: (5...8).map { [.entry(Sample.entry($0))] })
        let third = SegmentFile(
            number: 3, firstOp: 9, previous: second.chain,
            writes: (9...12).map { [.entry(Sample.entry($0))] }, zeros: 100)
        files = ["segment-1": first.bytes, "segment-2": second.bytes, "segment-3": third.bytes]
        let snapshot = [UInt8](repeating: 7, count: 50)
        for (op, segment) in [(UInt64(4), second), (8, third)] where checkpoint != .none {
            let header = CheckpointHeader(
                identity: Sample.identity, op: OpNumber(op), view: ViewNumber(1),
                hash: .beginning, segment: segment.header.number,
                segmentChecksum: segment.header.checksum,
                origin: .taken, snapshotBytes: 50, salt: op)
            files["checkpoint-\(op)"] = Checkpoint.encode(header, snapshot)
        }
        switch checkpoint {
        case .newestIntact, .none: break
        case .olderIntact: files["checkpoint-8"]?[130] ^= 1
        case .rotten:
            files["checkpoint-8"]?[130] ^= 1
            files["checkpoint-4"]?[130] ^= 1
        }
        // The first op that is not in the checkpoint that can be used.
        let next: UInt64 =
            switch checkpoint {
            case .newestIntact: 9
            case .olderIntact: 5
            case .none, .rotten: 1
            }
        let needed = "segment-\((next + 3) / 4)"
        let needs = [first, second, third][Int((next - 1) / 4)]
        switch segments {
        case .intact: break
        case .tornTail:
            files["segment-3"]?[third.places[3] + 30] ^= 1
            lostFrom = 12
        case .rot:
            files[needed]?[needs.places[1] + 30] ^= 1
            lostFrom = next + 1
        case .missing:
            files[needed] = nil
            lostFrom = next
        case .chainBroken:
            // The same segment begun anew by a replica that had forgotten the one before.
            files[needed] =
                SegmentFile(
                    number: (next + 3) / 4, firstOp: next, previous: 666,
                    writes: (next...next + 3).map { [.entry(Sample.entry($0))] }
                ).bytes
            lostFrom = next
        case .foreign:
            files[needed] =
                SegmentFile(
                    number: (next + 3) / 4, firstOp: next, identity: Self.stranger,
                    writes: (next...next + 3).map { [.entry(Sample.entry($0))] }
                ).bytes
            lostFrom = next
        }
    }

    func survey() -> Survey {
        Survey(identity: Sample.identity, names: files.keys.sorted()) { name -> [UInt8] in
            files[name] ?? []
        }
    }
}

@Suite struct RecoveryTests {
    typealias Case = (Recovery.CheckpointState, Recovery.SegmentsState, Bool)

    static let all: [Case] = Recovery.CheckpointState.allCases.flatMap { checkpoint in
        Recovery.SegmentsState.allCases.flatMap { segments in
            [true, false].map { (checkpoint, segments, $0) }
        }
    }

    static func kind(_ segments: Recovery.SegmentsState) -> Flaw.Kind? {
        switch segments {
        case .intact: nil
        case .tornTail: .torn
        case .rot: .rot
        case .missing: .missing
        case .chainBroken: .chain
        case .foreign: .foreign
        }
    }

    @Test func everyCombinationHasOneRow() {
        #expect(Self.all.count == 48)
        for (checkpoint, segments, peer) in Self.all {
            let rows = Recovery.table.filter {
                $0.covers(checkpoint, segments, isPeerReachable: peer)
            }
            #expect(rows.count == 1, "\(checkpoint), \(segments), \(peer)")
        }
    }

    /// What each state says of ops that were answered for, and what may then be done.
    @Test func noRowLosesAnAcknowledgedOpSilently() {
        for (checkpoint, segments, peer) in Self.all {
            let ruling = Recovery.ruling(checkpoint, segments, isPeerReachable: peer)
            switch segments {
            case .intact: #expect(ruling == .useAll)
            // Nothing proves that it was answered for: a peer is asked, or it is said.
            case .tornTail: #expect(ruling == (peer ? .cutAndAsk : .cut))
            // Something was for certain: only a peer may make up for it.
            case .rot, .missing, .chainBroken: #expect(ruling == (peer ? .ask : .refuse))
            // Not ours to touch.
            case .foreign: #expect(ruling == .refuse)
            }
        }
    }

    /// Every combination as real files: found to be what it is, with what is left.
    @Test func everyCombinationIsRecognised() throws {
        for (checkpoint, segments, peer) in Self.all {
            let what: Comment = "\(checkpoint), \(segments), \(peer)"
            let folder = Folder(checkpoint, segments)
            let survey = folder.survey()
            #expect(survey.checkpointState == checkpoint, what)
            let found = survey.place?.flaw.kind
            #expect(found == Self.kind(segments), what)
            if segments != .intact {
                #expect(survey.place?.op.rawValue == folder.lostFrom, what)
            }
            let expected = Recovery.ruling(checkpoint, segments, isPeerReachable: peer)
            let ruling: Recovery.Ruling =
                switch survey.verdict(isPeerReachable: peer) {
                case .useAll: .useAll
                case .cut: .cut
                case .ask(_, keepsInstance: true): .cutAndAsk
                case .ask(_, keepsInstance: false): .ask
                case .refuse: .refuse
                }
            #expect(ruling == expected, what)
            guard segments == .intact || segments == .tornTail else {
                #expect(survey.tail == nil, what)
                continue
            }
            let recovered = try #require(survey.recovered, what)
            let last: UInt64 = segments == .intact ? 12 : 11
            #expect(recovered.last.rawValue == last, what)
            #expect(
                recovered.entries == (recovered.op.rawValue + 1...last).map { Sample.entry($0) },
                what)
            #expect((recovered.snapshot == nil) == (recovered.op.rawValue == 0), what)
            #expect(survey.tail?.header.number == 3, what)
        }
    }

    /// A checkpoint gets its name when its journal is durable: an earlier end is no torn tail.
    @Test func anEndBeforeACheckpointIsRot() {
        for count in [1, 0] {
            var folder = Folder(.olderIntact, .intact)
            folder.files["segment-3"] = nil
            let second = folder.files["segment-2"] ?? []
            // Cut in the middle of op 7 or behind it: torn, or clean.
            let file = SegmentFile(
                number: 2, firstOp: 5, writes: (5...7).map { [.entry(Sample.entry($0))] })
            folder.files["segment-2"] = Array(second[..<(file.places[2] + 10 * count)])
            let survey = folder.survey()
            #expect(survey.place?.flaw.kind == .rot)
            #expect(survey.place?.file == "segment-2")
            #expect(survey.tail == nil)
        }
    }

    /// A file that somebody has put there.
    @Test(arguments: [5, 20_260_711, UInt64.max]) func aStraySegment(number: UInt64) {
        var folder = Folder(.newestIntact, .intact)
        folder.files["segment-\(number)"] = folder.files["segment-3"]
        let survey = folder.survey()
        #expect(survey.place?.file == "segment-4")
        #expect(survey.place?.flaw.kind == .missing)
        #expect(survey.tail == nil)
    }

    /// What lies behind a flaw is not used, but what it names as chosen must be known to a replica from
    /// which everything is to come.
    @Test func theNewestViewBehindAFlaw() {
        var generator = Generator(state: 7)
        func view(_ number: UInt64) -> [Record] { [.view(Sample.view(number, &generator))] }
        let promise = Record.promised(number: ViewNumber(50), Sample.attempt(&generator))
        let first = SegmentFile(writes: [view(3), [.entry(Sample.entry(1))]])
        let second = SegmentFile(
            number: 2, firstOp: 2, previous: first.chain,
            writes: [view(5), [.entry(Sample.entry(2))], view(7), [promise]])
        let header = CheckpointHeader(
            identity: Sample.identity, op: OpNumber(2), view: ViewNumber(9), hash: .beginning,
            segment: 2, segmentChecksum: second.header.checksum, origin: .taken,
            snapshotBytes: 4, salt: 1)
        let whole = [
            "segment-1": first.bytes, "segment-2": second.bytes,
            "checkpoint-2": Checkpoint.encode(header, [1, 2, 3, 4]),
        ]
        func newest(_ names: [String], _ spoil: (inout [String: [UInt8]]) -> Void) -> String {
            var files = whole.filter { names.contains($0.key) }
            spoil(&files)
            let survey = Survey(identity: Sample.identity, names: files.keys.sorted()) {
                files[$0] ?? []
            }
            return "\(survey.newestView) \(survey.place.map { "\($0.flaw.kind)" } ?? "intact")"
        }
        let segments = ["segment-1", "segment-2"]
        #expect(newest(segments) { _ in } == "7 intact")
        #expect(newest(segments) { $0["segment-1"]?[50] ^= 1 } == "7 rot")
        #expect(newest(segments) { $0["segment-1"]?[first.places[0] + 30] ^= 1 } == "7 rot")
        #expect(newest(segments) { $0["segment-1"] = nil } == "7 missing")
        // Behind the flaw in its own segment.
        #expect(newest(segments) { $0["segment-2"]?[second.places[0] + 30] ^= 1 } == "7 rot")
        #expect(newest(segments) { $0["segment-2"]?[second.places[2] + 30] ^= 1 } == "5 rot")
        #expect(newest(segments) { $0["segment-2"]?[50] ^= 1 } == "3 rot")
        let all = segments + ["checkpoint-2"]
        #expect(newest(all) { $0["segment-2"]?[50] ^= 1 } == "9 rot")
        // Another replica's are none of this one's.
        let foreign = SegmentFile(number: 2, identity: Folder.stranger, writes: [view(11)])
        #expect(newest(segments) { $0["segment-2"] = foreign.bytes } == "3 foreign")
    }

    private struct ReadError: Error, Equatable { var code: Int }

    /// A file whose bytes the disk does not give is as good as rotten; any other failure ends the start.
    @Test func unreadableFiles() throws {
        let folder = Folder(.newestIntact, .intact)
        func survey(without name: String, code: Int = 5) throws(ReadError) -> Survey {
            try Survey(
                identity: Sample.identity, names: folder.files.keys.sorted(),
                load: { file throws(ReadError) in
                    if file == name { throw ReadError(code: code) }
                    return folder.files[file] ?? []
                }, unreadable: { $0.code == 5 ? "gone" : nil })
        }
        let older = try survey(without: "checkpoint-8")
        #expect(older.checkpointState == .olderIntact && older.place == nil)
        #expect(older.checkpoints.first?.flaw == Flaw(.rot, at: 0, "gone"))
        #expect(older.recovered?.last == OpNumber(12))
        #expect(older.recovered?.snapshot?.count == 50)
        let segment = try survey(without: "segment-3")
        #expect(segment.place?.file == "segment-3")
        #expect(segment.place?.flaw == Flaw(.rot, at: 0, "gone"))
        #expect(segment.place?.op == OpNumber(9))
        // It is not needed.
        #expect(try survey(without: "segment-1").place == nil)
        for name in ["checkpoint-8", "segment-3"] {
            #expect(throws: ReadError(code: 13)) { _ = try survey(without: name, code: 13) }
        }
    }

    @Test func rowsAreThoseOfTheManual() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let manual = try String(
            contentsOf: root.appending(path: "docs/journal.md"), encoding: .utf8)
        for row in Recovery.table { #expect(manual.contains(row.text), "\(row.text)") }
    }
}
