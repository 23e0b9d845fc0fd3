package import Wire

/// A journal's directory as it was found: what each file holds, and what the whole comes to.
package struct Survey: Sendable {
    package struct CheckpointReport: Sendable {
        package let name: String
        /// By the name.
        package let op: OpNumber
        package fileprivate(set) var header: CheckpointHeader?
        package fileprivate(set) var flaw: Flaw?
        /// Received, and the journal never says that it was put to use.
        package var isUnused = false
    }

    package struct SegmentReport: Sendable {
        package let header: SegmentHeader
        package var byteCount: Int
        package var records = 0
        package var entries = 0
        /// Behind the last intact record.
        package var end = SegmentHeader.byteCount
        /// The log's end and newest view after it.
        package var lastOp: OpNumber
        package var lastView: ViewNumber?

        package var name: String { SegmentHeader.name(header.number) }
    }

    /// Where records are to be appended.
    package struct Tail: Hashable, Sendable {
        package let header: SegmentHeader
        package let offset: Int
        package let chain: UInt64
        /// What stands from here to `offset` was the last write: it may be in the kernel's memory
        /// and not on the disk.
        package let lastDurable: Int
    }

    package let identity: Identity
    /// Newest first.
    package private(set) var checkpoints: [CheckpointReport] = []
    /// Numbers of all segments that are there, ascending.
    package private(set) var segmentNumbers: [UInt64] = []
    /// Those that were needed and read, ascending.
    package private(set) var segments: [SegmentReport] = []
    package private(set) var checkpointState: Recovery.CheckpointState = .none
    /// nil: all that is needed is intact.
    package private(set) var place: Place?
    /// What the replica was; where there is a flaw, what is known of it before the flaw. nil when
    /// that does not reach the checkpoint.
    package private(set) var recovered: Recovered?
    /// nil when nothing can be appended: the flaw is not at the tail.
    package private(set) var tail: Tail?
    /// As the records say, up to the flaw.
    package private(set) var standing = Standing(op: OpNumber(0))
    /// The highest view that anything here names as chosen. Where there is a flaw, what cannot be
    /// replayed is asked as well: who is in an older view may lack what is lost here.
    package private(set) var newestView = ViewNumber(0)

    /// Where the records say that a state is needed which no checkpoint has.
    private var missing: Place?

    package func verdict(isPeerReachable: Bool) -> Verdict {
        Recovery.verdict(checkpointState, place, isPeerReachable: isPeerReachable)
    }

    /// What a file was found to hold, if anything could be read of it.
    private typealias Load<Failure: Error> = (String) throws(Failure) -> Result<[UInt8], Flaw>

    /// Looks through the files of these names; `load` gives a file's bytes. Files before those that
    /// the best checkpoint needs are not read, unless there is a flaw. `unreadable`: why a file's bytes
    /// are gone, if that is what this failure of `load` means, which then is the file's flaw.
    package init<Failure: Error>(
        identity: Identity, names: [String], load: (String) throws(Failure) -> [UInt8],
        unreadable: (Failure) -> String? = { _ in nil }
    ) throws(Failure) {
        self.identity = identity
        segmentNumbers = names.compactMap { Self.number($0, "segment-") }.sorted()
        func read(_ name: String) throws(Failure) -> Result<[UInt8], Flaw> {
            do throws(Failure) {
                return .success(try load(name))
            } catch {
                guard let reason = unreadable(error) else { throw error }
                return .failure(Flaw(.rot, at: 0, reason))
            }
        }
        var intact: [CheckpointHeader] = []
        // Of these one is needed, most likely the newest: the others are only looked at.
        var newest: Checkpoint?
        for op in names.compactMap({ Self.number($0, "checkpoint-") }).sorted(by: >) {
            let name = CheckpointHeader.name(OpNumber(op))
            let bytes = try read(name)
            do throws(Flaw) {
                let checkpoint = try Checkpoint(try bytes.get())
                guard checkpoint.header.identity == identity else {
                    throw Flaw(.foreign, at: 16, "of \(checkpoint.header.identity)")
                }
                guard checkpoint.header.origin != .copied else {
                    throw Flaw(
                        .foreign, at: 88, "a copy of a service, not a checkpoint of this one")
                }
                guard checkpoint.header.op.rawValue == op else {
                    throw Flaw(.rot, at: 56, "of op \(checkpoint.header.op), unlike its name")
                }
                intact.append(checkpoint.header)
                if newest == nil { newest = checkpoint }
                note(name, op, checkpoint.header, nil)
            } catch {
                note(name, op, nil, error)
            }
        }
        if let foreign = checkpoints.first(where: { $0.flaw?.kind == .foreign }),
            let flaw = foreign.flaw
        {
            place = Place(file: foreign.name, flaw: flaw, op: OpNumber(1))
            return
        }
        try follow(intact, newest, read)
        try findNewestView(read)
    }

    private mutating func note(
        _ name: String, _ op: UInt64, _ header: CheckpointHeader?, _ flaw: Flaw?
    ) {
        checkpoints.append(
            CheckpointReport(name: name, op: OpNumber(op), header: header, flaw: flaw))
    }

    package static func number(_ name: String, _ prefix: String) -> UInt64? {
        guard name.hasPrefix(prefix), let number = UInt64(name.dropFirst(prefix.utf8.count)),
            name == "\(prefix)\(number)"
        else { return nil }
        return number
    }

    /// Replays behind the newest intact checkpoint that was put to use. `first`: of `intact`.
    private mutating func follow<Failure: Error>(
        _ intact: [CheckpointHeader], _ first: Checkpoint?, _ load: Load<Failure>
    ) throws(Failure) {
        var rest = intact[...]
        var held = first
        while true {
            let header = rest.popFirst()
            var replay = try replay(header, load)
            let isUnused =
                header != nil && (place == nil || place?.flaw.kind == .torn)
                && replay.isBaseUnused
            var snapshot: [UInt8]?
            var flaw: Flaw?
            if let header, !isUnused {
                (snapshot, flaw) = try self.snapshot(header, held, load)
            }
            held = nil
            if let header, isUnused || flaw != nil {
                // The process ended between a state's arrival and its being put to use, or the log has
                // gone another way since. Or it has become unreadable since it was looked at.
                let index = checkpoints.firstIndex { $0.op == header.op }
                if let index, let flaw {
                    (checkpoints[index].header, checkpoints[index].flaw) = (nil, flaw)
                } else if let index {
                    checkpoints[index].isUnused = true
                }
                (segments, place, missing) = ([], nil, nil)
                continue
            }
            finish(header, snapshot, &replay)
            return
        }
    }

    /// Of this checkpoint, which was intact when it was looked at; `held`: one that is in memory.
    private func snapshot<Failure: Error>(
        _ header: CheckpointHeader, _ held: Checkpoint?, _ load: Load<Failure>
    ) throws(Failure) -> ([UInt8]?, Flaw?) {
        if let held, held.header == header { return (held.snapshot, nil) }
        let bytes = try load(CheckpointHeader.name(header.op))
        do throws(Flaw) {
            let again = try Checkpoint(try bytes.get())
            guard again.header == header else {
                throw Flaw(.rot, at: 0, "it has changed since it was looked at")
            }
            return (again.snapshot, nil)
        } catch {
            return (nil, error)
        }
    }

    /// With a flaw, through everything that was not replayed; of that nothing else is used.
    private mutating func findNewestView<Failure: Error>(_ load: Load<Failure>) throws(Failure) {
        newestView = max(
            standing.view?.number ?? ViewNumber(0), standing.lastEntryView)
        guard let place, place.flaw.kind != .torn else { return }
        for report in checkpoints {
            // A foreign one names another service's views.
            if let header = report.header { newestView = max(newestView, header.view) }
        }
        let replayed = segments.map(\.name).filter { $0 != place.file }
        for name in segmentNumbers.map({ SegmentHeader.name($0) })
        where !replayed.contains(name) {
            guard case .success(let bytes) = try load(name) else { continue }
            newestView = max(newestView, SegmentReader.newestView(bytes, of: identity))
        }
    }

    private mutating func finish(
        _ checkpoint: CheckpointHeader?, _ snapshot: [UInt8]?, _ replay: inout Replay
    ) {
        let used = checkpoints.filter { !$0.isUnused }
        checkpointState =
            switch (used.isEmpty, used.first?.op == checkpoint?.op, checkpoint == nil) {
            case (true, _, _): .none
            case (false, _, true): .rotten
            case (false, true, false): .newestIntact
            case (false, false, false): .olderIntact
            }
        standing = replay.standing
        if replay.stateMissing != nil, place == nil || place?.flaw.kind == .torn { place = missing }
        do throws(DecodeError) {
            recovered = try replay.recovered()
            recovered?.snapshot = snapshot
        } catch {
            if place == nil || place?.flaw.kind == .torn { setEnd(.rot, error.text) }
        }
        // A checkpoint gets its name when the journal is durable through its op.
        if place == nil || place?.flaw.kind == .torn, let newest = used.first,
            newest.op > replay.standing.op
        {
            setEnd(.rot, "the journal ends with op \(replay.standing.op), before \(newest.name)")
        }
        if let place, place.flaw.kind != .torn { tail = nil }
    }

    /// The journal as a whole is short of something.
    private mutating func setEnd(_ kind: Flaw.Kind, _ reason: String) {
        let last = segments.last
        place = Place(
            file: last?.name ?? SegmentHeader.name(1),
            flaw: Flaw(kind, at: last?.end ?? 0, reason), op: place?.op ?? nextOp)
    }

    private var nextOp: OpNumber { standing.op.next }

    /// Reads the segments that are needed behind this base, up to the first flaw.
    private mutating func replay<Failure: Error>(
        _ checkpoint: CheckpointHeader?, _ load: Load<Failure>
    ) throws(Failure) -> Replay {
        let base = checkpoint.map {
            Replay.Base(
                op: $0.op, view: $0.view, hash: $0.hash, isReceived: $0.origin == .received)
        }
        let first = checkpoint?.segment ?? 1
        let last = max(segmentNumbers.last ?? first, first)
        var replay = Replay(base: base ?? .beginning, firstOp: OpNumber(1))
        var chain: UInt64 = 0
        for number in first...last {
            let name = SegmentHeader.name(number)
            var found = Result<[UInt8], Flaw>.failure(
                Flaw(.missing, at: 0, "the file is not there"))
            if segmentNumbers.contains(number) { found = try load(name) }
            do throws(Flaw) {
                let bytes = try found.get()
                var reader = try SegmentReader(bytes)
                let isFirst = number == first
                if isFirst {
                    replay = Replay(base: base ?? .beginning, firstOp: reader.header.firstOp)
                }
                try check(
                    reader.header, number, continuing: isFirst && number > 1 ? nil : chain,
                    checksum: isFirst ? checkpoint?.segmentChecksum : nil, replay.standing.op)
                try run(&reader, &replay, byteCount: bytes.count, isLast: number == last)
                chain = reader.chain
                // Segments are about alike in what they hold.
                // Those that are there: a file may have any number.
                if isFirst { replay.expect(times: segmentNumbers.count { $0 >= first }) }
            } catch {
                let known = max(replay.standing.op, replay.base.op)
                place = Place(file: name, flaw: error, op: known.next)
                return replay
            }
        }
        return replay
    }

    private func check(
        _ header: SegmentHeader, _ number: UInt64, continuing chain: UInt64?, checksum: UInt64?,
        _ op: OpNumber
    ) throws(Flaw) {
        guard header.identity == identity else {
            throw Flaw(.foreign, at: 16, "of \(header.identity)")
        }
        guard header.number == number else {
            throw Flaw(.chain, at: 56, "segment \(header.number), unlike its name")
        }
        if let chain, header.previous != chain {
            throw Flaw(.chain, at: 72, "it does not continue the segment before")
        }
        if let checksum, header.checksum != checksum {
            throw Flaw(.chain, at: 96, "not the segment that the checkpoint names")
        }
        guard header.firstOp == op.next else {
            throw Flaw(.chain, at: 64, "it begins with op \(header.firstOp) behind op \(op)")
        }
    }

    private mutating func run(
        _ reader: inout SegmentReader, _ replay: inout Replay, byteCount: Int, isLast: Bool
    ) throws(Flaw) {
        let header = reader.header
        var report = SegmentReport(
            header: header, byteCount: byteCount, lastOp: replay.standing.op)
        defer {
            report.lastOp = replay.standing.op
            report.lastView = replay.standing.view?.number
            segments.append(report)
        }
        while let record = reader.next() {
            do {
                try replay.take(record)
            } catch {
                throw Flaw(.rot, at: reader.lastOffset, error.text)
            }
            if let op = replay.stateMissing, case .restored = record {
                let reason = "the state after op \(op) is needed, and no checkpoint has it"
                missing = Place(
                    file: report.name, flaw: Flaw(.missing, at: reader.lastOffset, reason),
                    op: replay.base.op.next)
            }
            report.records += 1
            if case .entry = record { report.entries += 1 }
            report.end = reader.offset
        }
        tail = Tail(
            header: header, offset: reader.offset, chain: reader.chain,
            lastDurable: reader.lastDurable)
        guard case .flaw(let flaw) = reader.stop else { return }
        // The segment behind it was begun when this one was durable to its end.
        guard isLast || flaw.kind != .torn else {
            throw Flaw(.rot, at: flaw.offset, "rot: a later segment follows")
        }
        throw flaw
    }
}
