package import Wire

/// Every byte of a journal looked at, also of what the next start does not need.
package struct Inspection: Sendable {
    package struct FileReport: Sendable {
        package let name: String
        package var byteCount: Int
        package var records = 0
        package var entries = 0
        package var firstOp: OpNumber?
        /// Bytes in use, the header included.
        package var end = 0
        /// nil: intact.
        package var place: Place?
        package var isUnused = false
    }

    /// Ascending.
    package private(set) var segments: [FileReport] = []
    package private(set) var checkpoints: [FileReport] = []
    package let survey: Survey
    /// The flaw that the next start has to deal with first, then the others.
    package private(set) var places: [Place] = []

    /// As `Survey`; `visit` is called for each intact record, with its segment's name, its offset
    /// there and how many bytes it takes.
    package init<Failure: Error>(
        identity: Identity, names: [String], load: (String) throws(Failure) -> [UInt8],
        visit: (_ file: String, _ offset: Int, _ byteCount: Int, Record) -> Void = { _, _, _, _ in }
    ) throws(Failure) {
        survey = try Survey(identity: identity, names: names, load: load)
        places = survey.place.map { [$0] } ?? []
        var chain: (number: UInt64, value: UInt64)?
        for number in survey.segmentNumbers {
            let name = SegmentHeader.name(number)
            let bytes = try load(name)
            var report = FileReport(name: name, byteCount: bytes.count)
            var op = OpNumber(1)
            let isLast = number == survey.segmentNumbers.last
            do throws(Flaw) {
                // A file may have any number, 0 and the highest too.
                let value = chain.flatMap { $0.number &+ 1 == number ? $0.value : nil }
                chain = nil
                let end = try Self.read(
                    bytes, identity, continuing: value, isLast: isLast, &report, &op, visit)
                chain = (number, end)
            } catch {
                report.place = Place(file: name, flaw: error, op: op)
            }
            if let place = report.place, place.file != survey.place?.file { places.append(place) }
            segments.append(report)
        }
        for checkpoint in survey.checkpoints.reversed() {
            var report = FileReport(name: checkpoint.name, byteCount: 0)
            report.byteCount = checkpoint.header?.fileBytes ?? 0
            report.end = report.byteCount
            report.firstOp = checkpoint.op
            report.isUnused = checkpoint.isUnused
            report.place = checkpoint.flaw.map {
                Place(file: checkpoint.name, flaw: $0, op: checkpoint.op)
            }
            if let place = report.place, place != survey.place { places.append(place) }
            checkpoints.append(report)
        }
    }

    /// Gives the chain's value at the end.
    private static func read(
        _ bytes: [UInt8], _ identity: Identity, continuing chain: UInt64?, isLast: Bool,
        _ report: inout FileReport, _ op: inout OpNumber,
        _ visit: (String, Int, Int, Record) -> Void
    ) throws(Flaw) -> UInt64 {
        var reader = try SegmentReader(bytes)
        report.firstOp = reader.header.firstOp
        op = reader.header.firstOp
        report.end = reader.offset
        guard reader.header.identity == identity else {
            throw Flaw(.foreign, at: 16, "of \(reader.header.identity)")
        }
        if let chain, reader.header.previous != chain {
            throw Flaw(.chain, at: 72, "it does not continue the segment before")
        }
        while let record = reader.next() {
            report.records += 1
            report.end = reader.offset
            switch record {
            case .entry(let entry):
                report.entries += 1
                op = entry.last.next
            case .truncated(let after): op = after.next
            case .restored(let end, _): op = end.op.next
            case .view, .promised, .accepted, .proposed: break
            }
            visit(report.name, reader.lastOffset, reader.offset - reader.lastOffset, record)
        }
        guard case .flaw(let flaw) = reader.stop else { return reader.chain }
        guard flaw.kind == .torn, !isLast else { throw flaw }
        throw Flaw(.rot, at: flaw.offset, "rot: a later segment follows")
    }
}
