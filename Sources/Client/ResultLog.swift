package import Linux

/// The file that a voter appends the results to: one line, one write each.
package struct ResultLog: ~Copyable {
    /// Why a log cannot be used, for people.
    package struct Refusal: Error, Equatable, Sendable {
        package let text: String
    }

    package let path: String
    /// The results in it, as it was found.
    package let found: ResultChain
    /// Whether half a line stood at its end and was cut off.
    package let wasTorn: Bool
    /// What the results are shown on is this very file, pipe or device.
    package let isStandardOutput: Bool
    private let file: FileDescriptor
    /// A device or pipe: nothing to read again, to lock or to cut off.
    private let isRegular: Bool
    /// How many bytes the whole lines take.
    private var size: UInt64
    /// A write that failed may have left a piece of its line behind `size`.
    private var isDirty = false

    /// Opens or creates the log, takes its lock, reads it and cuts a torn last line off.
    package init(path: String) throws(Refusal) {
        let opened: Opened
        do {
            opened = try Self.open(path)
        } catch let error as SystemError {
            let advice =
                error.isWithoutReader
                ? "nobody reads there: start the reader of that pipe first, or give another --log"
                : "--log FILE puts the results elsewhere, into a folder that exists"
            throw Refusal(text: "\(error); \(advice)")
        } catch let fault as LogScanner.Fault {
            throw Refusal(text: "\(path):\(fault.line): not the log of a voter: \(fault.text)")
        } catch let refusal as Refusal {
            throw refusal
        } catch {
            throw Refusal(text: "\(path): \(error)")
        }
        self.path = path
        found = opened.scanner.results
        wasTorn = !opened.scanner.tail.isEmpty
        size = opened.scanner.wholeBytes
        isRegular = opened.isRegular
        isStandardOutput = Files.areSame(opened.fd, 1)
        file = FileDescriptor(owning: opened.fd)
    }

    private struct Opened {
        let fd: CInt
        let isRegular: Bool
        let scanner: LogScanner
    }

    private static func open(_ path: String) throws -> Opened {
        let file = try openFile(path)
        let isRegular = Files.isRegular(file.raw)
        var scanner = LogScanner()
        if isRegular {
            guard try Files.lock(file.raw, path: path) else {
                throw Refusal(text: "\(path) is in use by another client")
            }
            try scan(file.raw, path, &scanner)
            if !scanner.tail.isEmpty {
                try Files.truncate(file.raw, to: Int(scanner.wholeBytes), path: path)
            }
        }
        return Opened(fd: file.release(), isRegular: isRegular, scanner: scanner)
    }

    /// Whoever reads a pipe, or watches a terminal, may pause for as long as he likes.
    private static func openFile(_ path: String) throws(SystemError) -> FileDescriptor {
        if Files.isSpecial(path) { return try Files.openSpecial(path) }
        return try Files.openForAppending(path)
    }

    /// Appends one line. After a failure the file is as it was before, or is made so before the
    /// next line. Does not wait: what a pipe has no room for has failed.
    package mutating func append(_ result: PollResult) throws(SystemError) {
        if isDirty { try cutOff() }
        let line = result.logLine
        do {
            try IO.writeAll(file.raw, line, subject: path, waits: false)
        } catch {
            isDirty = isRegular
            // Tried at once, so that no reader sees half a line for long; that it may fail too is
            // remembered, and the first failure is the one to tell of.
            do { if isDirty { try cutOff() } } catch {}
            throw error
        }
        size += UInt64(line.count)
    }

    private mutating func cutOff() throws(SystemError) {
        try Files.truncate(file.raw, to: Int(size), path: path)
        isDirty = false
    }

    private static func scan(_ fd: CInt, _ path: String, _ scanner: inout LogScanner)
        throws
    {
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            switch chunk.withUnsafeMutableBytes({ IO.read(fd, into: $0) }) {
            case .bytes(let count): try scanner.feed(chunk[..<count])
            case .end:
                try scanner.finish()
                return
            case .wouldBlock: throw SystemError("read", path)
            case .failed(let code): throw SystemError("read", path, code: code)
            }
        }
    }
}
