import CLinux
import Glibc

/// What a thread was busy with when the process dies of a defect: each thread keeps one number,
/// and the dying one's is printed, with a text that is the same for all.
package enum CrashNote {
    nonisolated(unsafe) private static var key = pthread_key_t()
    nonisolated(unsafe) private static var text: UnsafeMutablePointer<CChar>?
    nonisolated(unsafe) private static var exitCode: CInt = 70

    /// For a program of which nothing but its name is to be said.
    package static func install(program: String, exitCode code: CInt) {
        install(
            before: "\(program): a defect has ended this process (what stands above may say which)",
            after: "", exitCode: code)
    }

    /// Called once, before there are other threads. The line that a crash prints is `before`, the
    /// thread's number, if it has one, and `after`; then the process exits with `code`.
    package static func install(before: String, after: String, exitCode code: CInt) {
        pthread_key_create(&key, nil)
        // One block of bytes, as nothing can be allocated in a handler: both texts, each ended.
        text = strdup(before + "\u{1}" + after + "\n")
        exitCode = code
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] {
            signal(number) { _ in CrashNote.report() }
        }
    }

    /// This thread is busy with this from now on.
    package static func set(_ number: UInt64) {
        pthread_setspecific(key, UnsafeRawPointer(bitPattern: UInt(number &+ 1)))
    }

    private static func report() {
        guard let text else { _exit(exitCode) }
        let length = strlen(text)
        var split = 0
        while split < length, text[split] != 1 { split += 1 }
        write(2, text, split)
        if let note = pthread_getspecific(key) { printDecimal(UInt64(UInt(bitPattern: note)) &- 1) }
        if split < length { write(2, text + split + 1, length - split - 1) }
        _exit(exitCode)
    }

    private static func printDecimal(_ number: UInt64) {
        var number = number
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 20) { digits in
            var start = 20
            repeat {
                start -= 1
                digits[start] = CChar(48 + number % 10)
                number /= 10
            } while number > 0
            if let base = digits.baseAddress { write(2, base + start, 20 - start) }
        }
    }
}
