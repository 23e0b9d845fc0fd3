package import Wire

/// A place in a journal, and what was found there.
package struct Place: Hashable, Sendable, CustomStringConvertible {
    /// The file's name in the journal's directory.
    package var file: String
    package var flaw: Flaw
    /// The first op that is not known to be here.
    package var op: OpNumber

    package init(file: String, flaw: Flaw, op: OpNumber) {
        self.file = file
        self.flaw = flaw
        self.op = op
    }

    package var offset: Int { flaw.offset }
    package var description: String { "\(file), offset \(offset), op \(op): \(flaw.reason)" }
}

/// What is to be done with a journal as it was found.
package enum Verdict: Hashable, Sendable {
    case useAll
    /// The last write was not finished. It was not answered for, unless the disk lost what it had
    /// called durable: ops from the place's on may be missing, and that is said.
    case cut(Place)
    /// Everything from the place's op on comes from a peer. `keepsInstance`: the tail is cut and
    /// the replica stays who it is. Else records that it answered for are lost, among which there
    /// may have been a promise: it has to go on as a new instance.
    case ask(Place, keepsInstance: Bool)
    /// Nothing is touched.
    case refuse(Place, advice: String)
}

/// The decision as a table: every combination of what can be found has one row.
package enum Recovery {
    package enum CheckpointState: String, CaseIterable, Sendable {
        case newestIntact = "newest intact"
        /// The newest is rotten, the one before it is not.
        case olderIntact = "older intact"
        case none
        /// There are some, and none can be read.
        case rotten
    }

    /// The segments that are needed: from where the best intact checkpoint says, or from the first
    /// where there is none, to the last.
    package enum SegmentsState: String, CaseIterable, Sendable {
        case intact
        case tornTail = "torn tail"
        /// A broken record with later ones intact, or an end before what a checkpoint proves.
        case rot
        case missing
        case chainBroken = "chain broken"
        case foreign

        init(_ kind: Flaw.Kind) {
            self =
                switch kind {
                case .rot: .rot
                case .torn: .tornTail
                case .chain: .chainBroken
                case .foreign: .foreign
                case .missing: .missing
                }
        }
    }

    package enum Ruling: String, CaseIterable, Sendable {
        case useAll = "use everything"
        case cut = "cut the tail, say from which op"
        case cutAndAsk = "cut the tail, ask the peer from there"
        case ask = "ask the peer, as a new instance"
        case refuse = "refuse"
    }

    package struct Row: Sendable {
        package let checkpoints: [CheckpointState]
        package let segments: [SegmentsState]
        package let peers: [Bool]
        package let ruling: Ruling
        package let reason: String

        package func covers(
            _ checkpoint: CheckpointState, _ segments: SegmentsState, isPeerReachable: Bool
        ) -> Bool {
            checkpoints.contains(checkpoint) && self.segments.contains(segments)
                && peers.contains(isPeerReachable)
        }

        /// A row of the table in docs/journal.md.
        package var text: String {
            let checkpoint =
                checkpoints.count == CheckpointState.allCases.count
                ? "any" : checkpoints.map(\.rawValue).joined(separator: ", ")
            let segment = segments.map(\.rawValue).joined(separator: ", ")
            let peer = peers.count == 2 ? "either" : peers == [true] ? "yes" : "no"
            return "| \(checkpoint) | \(segment) | \(peer) | \(ruling.rawValue) | \(reason) |"
        }
    }

    package static let table: [Row] = [
        Row(
            checkpoints: [.newestIntact], segments: [.intact], peers: [true, false],
            ruling: .useAll, reason: "the usual start"),
        Row(
            checkpoints: [.olderIntact], segments: [.intact], peers: [true, false],
            ruling: .useAll, reason: "the segments since the older one are kept for this"),
        Row(
            checkpoints: [.none, .rotten], segments: [.intact], peers: [true, false],
            ruling: .useAll, reason: "the segments go back to op 1"),
        Row(
            checkpoints: CheckpointState.allCases, segments: [.tornTail], peers: [true],
            ruling: .cutAndAsk, reason: "a rotten tail looks torn; only a peer can tell them apart"),
        Row(
            checkpoints: CheckpointState.allCases, segments: [.tornTail], peers: [false],
            ruling: .cut,
            reason: "taken for a write that never ended, of which nothing was answered for; said"),
        Row(
            checkpoints: CheckpointState.allCases, segments: [.rot, .missing, .chainBroken],
            peers: [true], ruling: .ask,
            reason: "what is lost was answered for; a promise may be among it"),
        Row(
            checkpoints: CheckpointState.allCases, segments: [.rot, .missing, .chainBroken],
            peers: [false], ruling: .refuse,
            reason: "what is lost was answered for, and nobody here has it"),
        Row(
            checkpoints: CheckpointState.allCases, segments: [.foreign], peers: [true, false],
            ruling: .refuse, reason: "not this replica's: somebody has mixed up directories"),
    ]

    package static func ruling(
        _ checkpoint: CheckpointState, _ segments: SegmentsState, isPeerReachable: Bool
    ) -> Ruling {
        let row = table.first {
            $0.covers(checkpoint, segments, isPeerReachable: isPeerReachable)
        }
        guard let row else {
            preconditionFailure("no row for \(checkpoint), \(segments), \(isPeerReachable)")
        }
        return row.ruling
    }

    /// The ruling with the place where it applies. Precondition: there is one, unless the segments
    /// are intact.
    package static func verdict(
        _ checkpoint: CheckpointState, _ place: Place?, isPeerReachable: Bool
    ) -> Verdict {
        let segments = place.map { SegmentsState($0.flaw.kind) } ?? .intact
        let ruling = ruling(checkpoint, segments, isPeerReachable: isPeerReachable)
        guard let place else {
            precondition(ruling == .useAll, "\(ruling) of intact segments")
            return .useAll
        }
        switch ruling {
        case .useAll: preconditionFailure("everything is to be used in spite of \(place)")
        case .cut: return .cut(place)
        case .cutAndAsk: return .ask(place, keepsInstance: true)
        case .ask: return .ask(place, keepsInstance: false)
        case .refuse: return .refuse(place, advice: advice(segments))
        }
    }

    private static func advice(_ segments: SegmentsState) -> String {
        switch segments {
        case .foreign: "give this replica the directory that it had, or an empty one"
        case .missing: "put the missing file back, or start when a partner that has it all is up"
        case .intact, .tornTail, .rot, .chainBroken:
            "start when a partner that has it all is up, or from a backup; nothing was changed here"
        }
    }
}
