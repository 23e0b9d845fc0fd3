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

    func run() throws(Failure) {
        let names: [String]
        do throws(SystemError) {
            names = try Files.list(folder)
        } catch {
            guard error.isNoFolder else { throw Failure(error) }
            try verifyCopy()
            return
        }
        guard names.contains("identity") else {
            let isBlank = !names.contains { $0.hasPrefix("segment-") }
            throw Failure(
                isBlank
                    ? "\(folder): no journal here"
                    : "\(folder)/identity: missing, though there are segments", .io)
        }
        // Held while it is read, so that no server begins to write meanwhile.
        let lock = try io { () throws(SystemError) in
            try Files.lockFolder(folder, isShared: true)
        }
        let isInUse = lock == nil
        let identity = try readIdentity()
        let inspection = try io { () throws(SystemError) in
            try Inspection(
                identity: identity, names: names,
                load: { name throws(SystemError) in try Files.readWhole("\(folder)/\(name)") },
                visit: show)
        }
        _ = consume lock
        if !asJSON { print(identity, inspection, isInUse: isInUse) }
        guard let place = inspection.places.first else { return }
        let note =
            isInUse && place.flaw.kind == .torn ? " (in use: it may just be being written)" : ""
        throw Failure("\(folder)/\(place)\(note)", .io)
    }

    /// One file: what `pollctl backup` wrote, or a checkpoint.
    private func verifyCopy() throws(Failure) {
        let bytes = try io { () throws(SystemError) in try Files.readWhole(folder) }
        guard Checkpoint.isMeant(bytes) else {
            throw Failure("\(folder): neither a journal's folder nor a copy of a service", .io)
        }
        do throws(Flaw) {
            let copy = try Checkpoint(bytes)
            CopyReport(path: folder, header: copy.header).print(asJSON: asJSON)
            if !asJSON { Terminal.print("intact") }
        } catch {
            throw Failure("\(folder), offset \(error.offset): \(error.reason)", .io)
        }
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

    private func print(_ identity: Identity, _ inspection: Inspection, isInUse: Bool) {
        Terminal.print("\(folder): \(identity)")
        if isInUse { Terminal.print("in use by a server: its last records may be missing here") }
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
        for line in Text.table(rows) { Terminal.print(line.trimmed) }
        let standing = inspection.survey.standing
        let view = standing.view.map { "\($0.number)" } ?? "none"
        Terminal.print("last op \(standing.op), view \(view)")
        for place in inspection.places { Terminal.print("NOT INTACT: \(place)") }
        if inspection.places.isEmpty { Terminal.print("intact") }
    }

    private func show(_ file: String, _ offset: Int, _ byteCount: Int, _ record: Record) {
        guard listsRecords || asJSON else { return }
        let fields = Self.fields(record)
        if asJSON {
            let place: [(key: String, value: JSON)] = [
                ("file", .string(file)), ("offset", .integer(offset)),
                ("bytes", .integer(byteCount)),
            ]
            Terminal.print(JSON.object(place + fields).text)
        } else {
            let words = fields.map { field in
                switch field.value {
                case .string(let text): field.key == "kind" ? text : "\(field.key) \(text)"
                case .null, .bool, .integer, .number, .array, .object:
                    "\(field.key) \(field.value.text)"
                }
            }
            Terminal.print("\(file) +\(offset)  \(words.joined(separator: "  "))")
        }
    }

    /// Numbers over 2^53 and instances as strings: programs that read JSON would round them.
    private static func fields(_ record: Record) -> [(key: String, value: JSON)] {
        func number(_ value: UInt64) -> JSON {
            value < 1 << 53 ? .integer(Int(value)) : .string("\(value)")
        }
        func attempt(_ attempt: Attempt) -> [(key: String, value: JSON)] {
            [
                ("counter", number(attempt.counter)),
                ("proposer", .string(attempt.proposer.description)),
            ]
        }
        switch record {
        case .entry(let entry):
            return [
                ("kind", .string("entry")), ("view", number(entry.view.rawValue)),
                ("op", number(entry.first.rawValue)), ("last", number(entry.last.rawValue)),
                ("time", number(entry.time)),
            ]
        case .truncated(let after):
            return [("kind", .string("truncated")), ("after", number(after.rawValue))]
        case .restored(let end, _):
            return [("kind", .string("restored")), ("op", number(end.op.rawValue))]
        case .view(let view): return [("kind", .string("view")), ("text", .string(view.text))]
        case .promised(let view, let granted):
            return [("kind", .string("promised")), ("view", number(view.rawValue))]
                + attempt(granted)
        case .accepted(let accepted):
            return [("kind", .string("accepted"))] + attempt(accepted.attempt)
                + [("text", .string(accepted.view.text))]
        case .proposed(let view):
            return [("kind", .string("proposed")), ("view", number(view.rawValue))]
        }
    }

    private func io<Result: ~Copyable>(_ body: () throws(SystemError) -> Result) throws(Failure)
        -> Result
    {
        do throws(SystemError) {
            return try body()
        } catch {
            throw Failure(error)
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
