package import Linux
import Wire

/// The file of results: one line a vote, `<id> <yes> <no>`, in order, without gap or repeat.
package final class ResultLog {
    package enum OpenError: Error {
        case system(SystemError)
        case bad(String)
    }

    package let path: String
    private let file: FileDescriptor
    /// Whole lines only.
    private var size: Int
    package private(set) var lastLine: VoteResult?
    /// Results that could not be written yet.
    private var unwritten: [VoteResult] = []

    package var isBehind: Bool { !unwritten.isEmpty }

    /// Opens or creates the log, cuts off a torn last line, and checks what is there.
    package init(path: String) throws(OpenError) {
        self.path = path
        do {
            file = try Files.openForAppending(path)
        } catch {
            throw .system(error)
        }
        guard Files.lock(file.raw) else {
            throw .bad("\(path): another client is writing this log")
        }
        let bytes: [UInt8]
        do {
            bytes = try Files.read(path, bytesMax: 1 << 30)
        } catch {
            throw .system(error)
        }
        let whole = bytes.lastIndex(of: 10).map { $0 + 1 } ?? 0
        size = whole
        var expected: UInt64 = 1
        for line in bytes[..<whole].split(separator: 10, omittingEmptySubsequences: false)
            .dropLast()
        {
            guard let result = Self.parse(line), result.vote == expected else {
                throw .bad(
                    "\(path), line \(expected): '\(String(decoding: line.prefix(60), as: UTF8.self))'"
                        + " is not the result of vote \(expected); move the file away or give "
                        + "another --log")
            }
            lastLine = result
            expected += 1
        }
        guard whole < bytes.count else { return }
        do {
            try Files.truncate(file.raw, to: whole, path: path)
        } catch {
            throw .system(error)
        }
    }

    private static func parse(_ line: ArraySlice<UInt8>) -> VoteResult? {
        let parts = line.split(separator: 32, omittingEmptySubsequences: false)
        let numbers = parts.compactMap { UInt64(String(decoding: $0, as: UTF8.self)) }
        guard parts.count == 3, numbers.count == 3 else { return nil }
        let result = VoteResult(vote: numbers[0], yes: numbers[1], no: numbers[2])
        return Array(result.line.utf8) == Array(line) ? result : nil
    }

    /// Appends a result, or keeps it for `retry` where the disk refuses. Gives the refusal.
    package func append(_ result: VoteResult) -> SystemError? {
        unwritten.append(result)
        return retry()
    }

    /// Writes what could not be written before. Gives the refusal, if it stands.
    package func retry() -> SystemError? {
        while let next = unwritten.first {
            let bytes = Array("\(next.line)\n".utf8)
            do {
                try IO.writeAll(file.raw, bytes, subject: path)
            } catch {
                // A part of the line may be there: a log holds whole lines only.
                do {
                    try Files.truncate(file.raw, to: size, path: path)
                } catch let second {
                    return second
                }
                return error
            }
            size += bytes.count
            unwritten.removeFirst()
        }
        return nil
    }
}
