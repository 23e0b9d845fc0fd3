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
    /// What the results are shown on is this very file, pipe or terminal.
    package let isStandardOutput: Bool
    /// Messages go into this very file, where they would stand over its lines: their place in it is
    /// not its end.
    package let takesMessages: Bool
    private let file: FileDescriptor
    /// A device or pipe: nothing to read again, to lock or to cut off.
    private let isRegular: Bool
    /// How many bytes the whole lines take.
    private var size: UInt64
    /// A write that failed may have left a piece of its line behind `size`.
    private var isDirty = false
    /// How much of the line that failed last is in what cannot be cut off, as a terminal that had
    /// room for no more; 0: nothing, or none has failed.
    private var begun = 0

    /// Opens or creates the log, takes its lock, reads it and cuts a torn last line off.
    package init(path: String) throws(Refusal) {
        let opened: Opened
        do {
            opened = try Self.open(path)
        } catch let error as SystemError {
            let advice =
                error.isWithoutReader && Files.isPipe(path)
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
        takesMessages = opened.isRegular && Files.areSame(opened.fd, 2)
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

    /// Appends one line. Does not wait: what a pipe or terminal has no room for has failed. After a
    /// failure a file is as it was before, or is made so before the next line; anything else may
    /// have taken the beginning of the line.
    ///
    /// - Precondition: after a failure the same result comes next.
    package mutating func append(_ result: PollResult) throws(SystemError) {
        if isDirty { try cutOff() }
        let line = result.logLine
        do throws(SystemError) {
            while begun < line.count {
                let count = try IO.writeSome(file.raw, line, from: begun, subject: path)
                begun += count
            }
        } catch {
            guard isRegular else { throw error }
            isDirty = true
            // Tried at once, so that no reader sees half a line for long; that it may fail too is
            // remembered, and the first failure is the one to tell of.
            do { try cutOff() } catch {}
            throw error
        }
        begun = 0
        size += UInt64(line.count)
    }

    private mutating func cutOff() throws(SystemError) {
        begun = 0
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
