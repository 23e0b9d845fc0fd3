import Arguments
import Journal
import Linux
import Storage
import Wire

/// `pollctl journal DIR`: reads every byte of a journal, or of a copy of a service, and says what is
/// in it and whether it is intact. Changes nothing.
struct JournalCommand {
    /// A journal's, or the path of a copy.
    let folder: String
    let listsRecords: Bool
    let asJSON: Bool

    /// Each may meet with a checkpoint that is just being made, and what is before it removed.
    private static let readingsInUseMax = 3

    func run() throws(Failure) {
        // Held while it is read, so that no server begins to write meanwhile.
        let lock: FileDescriptor?
        do throws(SystemError) {
            lock = try Files.lockFolder(folder, isShared: true)
        } catch {
            guard error.isNoFolder else { throw Failure(error) }
            try verifyCopy()
            return
        }
        let isInUse = lock == nil
        let (identity, inspection) = try inspect(isInUse: isInUse)
        _ = consume lock
        if !asJSON { try print(identity, inspection, isInUse: isInUse) }
        guard let place = inspection.places.first else { return }
        let note =
            isInUse && place.flaw.kind == .torn ? " (in use: it may just be being written)" : ""
        throw Failure("\(folder)/\(place)\(note)", .io)
    }

    /// What is not as it should be, in a journal in use, is looked at again: names that were listed
    /// may be gone, and what took their place was not listed.
    private func inspect(isInUse: Bool) throws(Failure) -> (Identity, Inspection) {
        var listing = Listing(isWanted: listsRecords || asJSON, isJSON: asJSON)
        var readings = isInUse ? Self.readingsInUseMax : 1
        while true {
            readings -= 1
            let names = try io { () throws(SystemError) in try Files.list(folder) }
            try checkNames(names)
            let identity = try readIdentity()
            let inspection: Inspection
            do throws(SystemError) {
                inspection = try Inspection(
                    identity: identity, names: names,
                    load: { name throws(SystemError) in try Files.readWhole("\(folder)/\(name)") },
                    visit: { listing.show($0, $1, $2, $3) })
            } catch {
                guard error.isMissing, readings > 0 else { throw Failure(error) }
                continue
            }
            try listing.checkShown()
            if inspection.places.isEmpty || readings == 0 { return (identity, inspection) }
        }
    }

    private func checkNames(_ names: [String]) throws(Failure) {
        guard !names.contains("identity") else { return }
        let isBlank = !names.contains { $0.hasPrefix("segment-") }
        throw Failure(
            isBlank
                ? "\(folder): no journal here"
                : "\(folder)/identity: missing, though there are segments", .io)
    }

    /// One file: what `pollctl backup` wrote, or a checkpoint.
    private func verifyCopy() throws(Failure) {
        let bytes = try io { () throws(SystemError) in try Files.readWhole(folder) }
        guard Checkpoint.isMeant(bytes) else {
            throw Failure("\(folder): neither a journal's folder nor a copy of a service", .io)
        }
        let copy: Checkpoint
        do throws(Flaw) {
            copy = try Checkpoint(bytes)
        } catch {
            throw Failure("\(folder), offset \(error.offset): \(error.reason)", .io)
        }
        try Output.print(CopyReport(path: folder, header: copy.header).text(asJSON: asJSON))
        if !asJSON { try Output.print("intact") }
    }

    private func readIdentity() throws(Failure) -> Identity {
        let path = "\(folder)/identity"
        let bytes = try io { () throws(SystemError) in try Files.readWhole(path) }
        do {
            return try Identity(text: String(decoding: bytes, as: UTF8.self))
        } catch {
            throw Failure("\(path): \(error.text)", .io)
        }
    }

    private func print(_ identity: Identity, _ inspection: Inspection, isInUse: Bool)
        throws(Failure)
    {
        try Output.print("\(folder): \(identity)")
        if isInUse { try Output.print("in use by a server: its last records may be missing here") }
        var rows = [["file", "records", "entries", "from op", "bytes", "of", ""]]
        for report in inspection.checkpoints + inspection.segments {
            let isSegment = report.name.hasPrefix("segment-")
            let state =
                report.isUnused
                ? "received, never put to use" : report.place.map { "\($0.flaw.reason)" } ?? ""
            rows.append([
                report.name, isSegment ? "\(report.records)" : "",
                isSegment ? "\(report.entries)" : "", report.firstOp.map(\.description) ?? "",
                "\(report.end)", "\(report.byteCount)", state,
            ])
        }
        for line in Text.table(rows) { try Output.print(line.trimmed) }
        let standing = inspection.survey.standing
        let view = standing.view.map { "\($0.number)" } ?? "none"
        try Output.print("last op \(standing.op), view \(view)")
        for place in inspection.places { try Output.print("NOT INTACT: \(place)") }
        if inspection.places.isEmpty { try Output.print("intact") }
    }
}

/// The records of a journal, each shown once however often the journal is read.
private struct Listing {
    let isWanted: Bool
    let isJSON: Bool
    /// Where the last record stands that was shown.
    private var last: (segment: UInt64, offset: Int) = (0, -1)
    /// Why no more could be shown.
    private(set) var failure: Failure?

    init(isWanted: Bool, isJSON: Bool) {
        self.isWanted = isWanted
        self.isJSON = isJSON
    }

    /// As `Inspection` visits them.
    mutating func show(_ file: String, _ offset: Int, _ byteCount: Int, _ record: Record) {
        guard isWanted, failure == nil else { return }
        let place = (segment: Survey.number(file, "segment-") ?? 0, offset: offset)
        guard place > last else { return }
        last = place
        do throws(Failure) {
            try Output.print(line(file, offset, byteCount, Self.fields(record)))
        } catch {
            failure = error
        }
    }

    /// Throws when not all could be shown.
    func checkShown() throws(Failure) {
        if let failure { throw failure }
    }

    private func line(
        _ file: String, _ offset: Int, _ byteCount: Int, _ fields: [(key: String, value: JSON)]
    ) -> String {
        guard !isJSON else {
            let place: [(key: String, value: JSON)] = [
                ("file", .string(file)), ("offset", .integer(offset)),
                ("bytes", .integer(byteCount)),
            ]
            return JSON.object(place + fields).text
        }
        let words = fields.map { field in
            switch field.value {
            case .string(let text): field.key == "kind" ? text : "\(field.key) \(text)"
            case .null, .bool, .integer, .number, .array, .object:
                "\(field.key) \(field.value.text)"
            }
        }
        return "\(file) +\(offset)  \(words.joined(separator: "  "))"
    }

    private static func fields(_ record: Record) -> [(key: String, value: JSON)] {
        func attempt(_ attempt: Attempt) -> [(key: String, value: JSON)] {
            [
                ("counter", .whole(attempt.counter)),
                ("proposer", .string(attempt.proposer.description)),
            ]
        }
        switch record {
        case .entry(let entry):
            return [
                ("kind", .string("entry")), ("view", .whole(entry.view.rawValue)),
                ("op", .whole(entry.first.rawValue)), ("last", .whole(entry.last.rawValue)),
                ("time", .whole(entry.time)),
            ]
        case .truncated(let after):
            return [("kind", .string("truncated")), ("after", .whole(after.rawValue))]
        case .restored(let end, _):
            return [("kind", .string("restored")), ("op", .whole(end.op.rawValue))]
        case .view(let view): return [("kind", .string("view")), ("text", .string(view.text))]
        case .promised(let view, let granted):
            return [("kind", .string("promised")), ("view", .whole(view.rawValue))]
                + attempt(granted)
        case .accepted(let accepted):
            return [("kind", .string("accepted"))] + attempt(accepted.attempt)
                + [("text", .string(accepted.view.text))]
        case .proposed(let view):
            return [("kind", .string("proposed")), ("view", .whole(view.rawValue))]
        }
    }
}

extension String {
    /// Without blanks at the end.
    fileprivate var trimmed: String {
        var rest = self[...]
        while rest.hasSuffix(" ") { rest = rest.dropLast() }
        return String(rest)
    }
}
