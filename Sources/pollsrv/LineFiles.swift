import Arguments
import Linux
import Services
import Wire

/// Files with one thing a line, given by flags: questions, rooms, time slots, days.
enum LineFiles {
    /// The lines of the file that `flag` names, without their ends (LF or CRLF; the last one may
    /// have none); nil when the flag is not given. Empty lines at the end do not count.
    private static func lines(_ flag: String, _ arguments: ParsedArguments, _ what: String) throws
        -> (path: String, lines: [[UInt8]])?
    {
        guard let path = arguments.string(flag) else { return nil }
        var bytes = try Files.read(path)
        // The mark that some editors put before UTF-8.
        if bytes.starts(with: [0xef, 0xbb, 0xbf]) { bytes.removeFirst(3) }
        var lines = bytes.split(separator: 10, omittingEmptySubsequences: false)
            .map { Array($0.last == 13 ? $0.dropLast() : $0) }
        while lines.last?.isEmpty == true { lines.removeLast() }
        guard !lines.isEmpty else { throw UsageError("\(flag) \(path): no \(what) in it") }
        return (path, lines)
    }

    static func questions(_ arguments: ParsedArguments) throws -> [[UInt8]] {
        guard let (path, lines) = try lines("--questions", arguments, "question") else { return [] }
        for (index, question) in lines.enumerated() {
            guard !question.isEmpty, question.count <= Polls.questionBytesMax else {
                throw UsageError(
                    "--questions \(path), line \(index + 1): a question has 1 to "
                        + "\(Polls.questionBytesMax) bytes")
            }
        }
        // They go through the log as one request.
        let bytes = lines.reduce(0) { $0 + $1.count }
        guard bytes <= Polls.questionsBytesMax else {
            throw UsageError(
                "--questions \(path): \(bytes) bytes of questions, \(Polls.questionsBytesMax) are "
                    + "taken; use shorter ones or fewer")
        }
        return lines
    }

    /// Nil when none of `--rooms`, `--timeslots`, `--days` is given.
    static func catalogue(_ arguments: ParsedArguments) throws -> Catalogue? {
        let rooms = try names("--rooms", arguments, "room")
        let timeslots = try names("--timeslots", arguments, "time slot")
        let days = try names("--days", arguments, "day")
        guard rooms != nil || timeslots != nil || days != nil else { return nil }
        do throws(DecodeError) {
            return try Catalogue(
                rooms: rooms ?? Catalogue.builtIn.rooms,
                timeslots: timeslots ?? Catalogue.builtIn.timeslots,
                days: days ?? Catalogue.builtIn.days)
        } catch {
            throw UsageError("--rooms, --timeslots, --days: \(error.text)")
        }
    }

    private static func names(_ flag: String, _ arguments: ParsedArguments, _ what: String) throws
        -> [[UInt8]]?
    {
        guard let (path, lines) = try lines(flag, arguments, what) else { return nil }
        var seen: [[UInt8]: Int] = [:]
        for (index, name) in lines.enumerated() {
            let place = "\(flag) \(path), line \(index + 1)"
            if let problem = Catalogue.problem(with: name) {
                throw UsageError("\(place): \(problem)")
            }
            if let first = seen.updateValue(index + 1, forKey: name) {
                throw UsageError(
                    "\(place): \(what) '\(String(decoding: name, as: UTF8.self))' is on line "
                        + "\(first) already")
            }
        }
        return lines
    }

    /// `MIN-MAX`, two durations, or one; nil when the flag is not given.
    static func delays(_ flag: String, _ arguments: ParsedArguments) throws -> ClosedRange<UInt64>?
    {
        guard let text = arguments.string(flag) else { return nil }
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
            .map { ParsedArguments.milliseconds(String($0)) }
        guard parts.count <= 2, let first = parts[0], let last = parts[parts.count - 1],
            first <= last, last <= 3_600_000
        else {
            throw UsageError(
                "\(flag) '\(text)': two durations MIN-MAX such as 100ms-2s are needed, up to 60m")
        }
        return first...last
    }
}
