/// How long the loop's turns take, without the waiting for news.
struct LoopFigures {
    private(set) var turns: UInt64 = 0
    private(set) var over10Milliseconds: UInt64 = 0
    /// Nanoseconds: the longest turn of the window that is running, and of the one before.
    private var longest: (now: UInt64, before: UInt64) = (0, 0)
    private var windowStart: UInt64 = 0

    static let windowNanoseconds: UInt64 = 1_000_000_000

    /// A turn has lasted from `start` to `end`, in monotonic nanoseconds.
    mutating func note(from start: UInt64, to end: UInt64) {
        turns += 1
        let time = end - start
        if time > 10_000_000 { over10Milliseconds += 1 }
        roll(end)
        longest.now = max(longest.now, time)
    }

    /// The longest turn of the last one to two seconds.
    mutating func longestMicroseconds(at now: UInt64) -> UInt64 {
        roll(now)
        return max(longest.now, longest.before) / 1_000
    }

    private mutating func roll(_ now: UInt64) {
        let age = now - windowStart
        guard age >= Self.windowNanoseconds else { return }
        longest = (0, age < 2 * Self.windowNanoseconds ? longest.now : 0)
        windowStart = now
    }
}
