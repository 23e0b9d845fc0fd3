import Arguments
import Client
import Journal
import Linux
import Storage
import Wire

/// `pollctl backup FILE`: fetches a copy of the service's whole state from the primary, while the
/// service goes on, and puts it under the file's name when all of it is there, checked and durable.
struct BackupCommand {
    let path: String
    let servers: [Address]
    /// How long to look for a primary that makes a copy, and how long any one answer may take.
    let milliseconds: UInt64
    let overwrites: Bool
    let asJSON: Bool
    /// Hears of every trouble on the way, for --verbose.
    let talk: (String) -> Void

    private static let pauseNanoseconds: UInt64 = 50_000_000
    /// No replica takes more than 1 GiB of state from another; the checksums come on top.
    private static let bytesMax = (1 << 30) + (1 << 20)
    private static let writeBytesMax = 4 << 20
    private static let redirectionsMax = 3

    func run() throws(Failure) {
        try checkPlace()
        // Whoever may write there need not be allowed to open it; found out once the copy has its
        // name, it would be too late.
        let place = try openFolder()
        let bytes = try fetch()
        let copy: Checkpoint
        do throws(Flaw) {
            copy = try Checkpoint(bytes)
        } catch {
            throw Failure(
                "the copy came damaged (offset \(error.offset): \(error.reason)); nothing was "
                    + "written, run the command again", .io)
        }
        try checkPlace()
        try write(bytes, place)
        try Output.report(CopyReport(path: path, header: copy.header).text(asJSON: asJSON))
    }

    // MARK: The file

    private var folder: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private var name: String {
        path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? path
    }

    private func openFolder() throws(Failure) -> FileDescriptor {
        do throws(SystemError) {
            return try Files.openFolder(folder)
        } catch {
            throw Failure("\(path): \(error)", .io)
        }
    }

    private func checkPlace() throws(Failure) {
        guard !name.isEmpty else {
            throw Failure("'\(path)': the name of a file is needed", .usage)
        }
        var isFolder = false
        do throws(SystemError) {
            _ = try Files.list(path)
            isFolder = true
        } catch {
            // A file, or nothing yet.
            guard error.isMissing || error.isNoFolder else { throw Failure(error) }
        }
        guard !isFolder else {
            throw Failure("\(path) is a folder; give the name of a file in it", .io)
        }
        guard !Files.isSpecial(path) else {
            throw Failure("\(path) is no plain file; give the name of one, or of none yet", .io)
        }
        guard Files.exists(path), !overwrites else { return }
        throw Failure("\(path) exists; give another name, or --force to overwrite it", .io)
    }

    /// Puts the bytes under the file's name when they are on the disk, and leaves nothing otherwise.
    private func write(_ bytes: [UInt8], _ place: borrowing FileDescriptor) throws(Failure) {
        let interrupts = try Interrupts("nothing was written")
        // A name of nobody's, as there is no --force for what else stands beside the copy.
        let token = String(Entropy.next() & 0xffff_ffff, radix: 16)
        let beside = "\(folder)/\(name).\(token).new"
        let file = try io { () throws(SystemError) in try Files.createNew(beside) }
        do throws(Failure) {
            try write(bytes, to: file.raw, beside, place.raw, interrupts)
        } catch {
            // The first failure is the one to tell of.
            do { try Files.remove(beside) } catch {}
            throw error
        }
    }

    private func write(
        _ bytes: [UInt8], to file: CInt, _ beside: String, _ place: CInt, _ interrupts: Interrupts
    ) throws(Failure) {
        var start = 0
        while start < bytes.count {
            try interrupts.check()
            start += try io { () throws(SystemError) in
                let count = try Files.write(
                    file, bytes, from: start, bytesMax: Self.writeBytesMax, at: start,
                    path: beside)
                // A write that takes nothing and names no reason would be tried for ever.
                if count == 0 { throw SystemError("pwrite", beside, code: SystemError.noSpace) }
                return count
            }
        }
        try io { () throws(SystemError) in try Files.syncData(file, path: beside) }
        try interrupts.check()
        try io { () throws(SystemError) in
            try Files.rename(beside, to: path)
            try Files.syncFolder(place, path: folder)
        }
    }

    // MARK: The copy

    /// A copy is of one moment, so one that breaks off is begun anew, with whoever leads then.
    private func fetch() throws(Failure) -> [UInt8] {
        let deadline = Deadline(milliseconds: milliseconds)
        var target: Address?
        var turn = 0
        var redirections = 0
        var trouble = ""
        var advice = "; is pollsrv running, and are the addresses right? (--servers A,B)"
        repeat {
            let address = target ?? servers[turn % servers.count]
            target = nil
            turn += 1
            let outcome: Outcome
            do throws(CommandFailure) {
                // One server that hangs must leave time for the other.
                outcome = try attempt(address, max(deadline.remainingMilliseconds / 3, 50))
                advice = ""
            } catch {
                outcome = .trouble("\(error)")
            }
            switch outcome {
            case .done(let bytes): return bytes
            case .redirect(let primary):
                target = primary
                redirections += 1
                if trouble.isEmpty { trouble = "\(address) sends us on to \(primary)" }
            case .trouble(let text):
                talk("\(address): \(text)")
                trouble = "\(address): \(text)"
            case .refused(let failure): throw failure
            }
            // Nor must two that name each other make us spin.
            if redirections > Self.redirectionsMax || target == nil && turn % servers.count == 0 {
                redirections = 0
                Clock.sleep(nanoseconds: Self.pauseNanoseconds)
            }
        } while !deadline.hasPassed
        throw Failure(
            "no copy could be fetched in the time there was (--timeout); \(trouble)\(advice)")
    }

    private enum Outcome {
        case done([UInt8])
        case redirect(Address)
        /// Not now, or not this one.
        case trouble(String)
        /// It will not do this, now or later.
        case refused(Failure)
    }

    private func attempt(_ address: Address, _ share: UInt64) throws(CommandFailure) -> Outcome {
        var connection = try CommandConnection(to: address, milliseconds: min(share, 2_000))
        let begun = try connection.ask(["COPY", "BEGIN"], milliseconds: share)
        guard case .error(let text) = begun else { return try read(&connection) }
        let words = text.split(separator: " ")
        switch words.first {
        case "REDIRECT":
            guard words.count > 1, let primary = Address(text: String(words[1])) else {
                return .trouble("a redirection to nowhere: \(text)")
            }
            return .redirect(primary)
        case "TRYAGAIN", "BUSY": return .trouble(text)
        case .none, .some: return .refused(Failure("\(address): \(text)"))
        }
    }

    private func read(_ connection: inout CommandConnection) throws(CommandFailure) -> Outcome {
        let waiting = Deadline(milliseconds: milliseconds)
        var bytes: [UInt8] = []
        while true {
            let piece = try connection.ask(
                ["COPY", "READ", String(bytes.count)], milliseconds: milliseconds)
            switch piece {
            case .bulk(let content):
                if content.isEmpty { return .done(bytes) }
                bytes += content
                guard bytes.count <= Self.bytesMax else {
                    return .refused(
                        Failure("the state is larger than 1 GiB, which no replica takes", .io))
                }
            case .error(let text):
                guard text.hasPrefix("TRYAGAIN "), bytes.isEmpty, !waiting.hasPassed else {
                    return .trouble(text)
                }
                Clock.sleep(nanoseconds: Self.pauseNanoseconds / 5)
            case .simple, .integer, .null, .boolean, .double, .array, .map, .push:
                return .refused(
                    Failure("an answer that makes no sense: is that pollsrv?", .software))
            }
        }
    }
}

/// What is said of a copy, or of any checkpoint.
struct CopyReport {
    let path: String
    let header: CheckpointHeader

    func text(asJSON: Bool) -> String {
        let service = header.identity.service
        guard asJSON else {
            let kind =
                switch header.origin {
                case .copied: "copy of service \(service)"
                case .taken, .received: "checkpoint of service \(service)"
                }
            return
                "\(path): \(kind), op \(header.op), view \(header.view), \(header.fileBytes) bytes"
        }
        let fields: [(key: String, value: JSON)] = [
            ("file", .string(path)), ("service", .string(service.description)),
            ("op", .whole(header.op.rawValue)), ("view", .whole(header.view.rawValue)),
            ("bytes", .integer(header.fileBytes)),
        ]
        return JSON.object(fields).text
    }
}
