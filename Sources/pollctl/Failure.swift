import Arguments
import Linux

/// Why a command ends without having done its work; the text says what was wrong and what to do.
struct Failure: Error {
    let text: String
    let status: Int32

    init(_ text: String, _ code: ExitCode = .unavailable) {
        self.text = text
        status = code.rawValue
    }

    init(_ error: SystemError) {
        self.init("\(error)", .io)
    }

    /// Another text, the same exit status.
    init(_ text: String, like other: Failure) {
        self.init(text: text, status: other.status)
    }

    private init(text: String, status: Int32) {
        self.text = text
        self.status = status
    }

    /// The shell's number for "ended by this signal".
    static func interrupted(by signal: CInt, _ text: String) -> Self {
        Self(text: "interrupted; \(text)", status: 128 + signal)
    }

    var isInterruption: Bool { status > 128 }
}

/// What the kernel refuses is a failure of the command.
func io<Result: ~Copyable>(_ body: () throws(SystemError) -> Result) throws(Failure) -> Result {
    do throws(SystemError) {
        return try body()
    } catch {
        throw Failure(error)
    }
}

/// A moment until which to try.
struct Deadline {
    let nanoseconds: UInt64

    init(milliseconds: UInt64) {
        nanoseconds = Clock.monotonicNanoseconds() + milliseconds * 1_000_000
    }

    var remainingMilliseconds: UInt64 {
        let now = Clock.monotonicNanoseconds()
        return nanoseconds > now ? (nanoseconds - now + 999_999) / 1_000_000 : 0
    }

    var hasPassed: Bool { Clock.monotonicNanoseconds() >= nanoseconds }
}

/// Measures from its making on.
struct Stopwatch {
    let start = Clock.monotonicNanoseconds()

    var milliseconds: Double { Double(Clock.monotonicNanoseconds() - start) / 1_000_000 }
    var seconds: Double { milliseconds / 1_000 }
}
