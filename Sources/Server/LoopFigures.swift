/// How long the loop's turns take, without the waiting for news.
struct LoopFigures {
    /// Nanoseconds: the largest of the window that is running, and of the one before.
    private struct Largest {
        var now: UInt64 = 0
        var before: UInt64 = 0

        mutating func roll(isNext: Bool) { self = Largest(now: 0, before: isNext ? now : 0) }
        mutating func add(_ value: UInt64) { now = max(now, value) }
        var microseconds: UInt64 { max(now, before) / 1_000 }
    }

    private(set) var turns: UInt64 = 0
    private(set) var over10Milliseconds: UInt64 = 0
    private var time = Largest()
    private var processorTime = Largest()
    private var windowStart: UInt64 = 0
    private var processorStart: UInt64 = 0

    static let windowNanoseconds: UInt64 = 1_000_000_000

    /// A turn has lasted from `start` to `end`, in monotonic nanoseconds; `processor`: what the
    /// thread has used since it began.
    mutating func note(from start: UInt64, to end: UInt64, processor: UInt64) {
        turns += 1
        if end - start > 10_000_000 { over10Milliseconds += 1 }
        roll(end)
        time.add(end - start)
        processorTime.add(processor - processorStart)
        processorStart = processor
    }

    /// The longest turn of the last one to two seconds: from its beginning to its end, disk and
    /// other processes included, and the processor time of the one that used most.
    mutating func longestMicroseconds(at now: UInt64) -> (time: UInt64, processor: UInt64) {
        roll(now)
        return (time.microseconds, processorTime.microseconds)
    }

    private mutating func roll(_ now: UInt64) {
        let age = now - windowStart
        guard age >= Self.windowNanoseconds else { return }
        time.roll(isNext: age < 2 * Self.windowNanoseconds)
        processorTime.roll(isNext: age < 2 * Self.windowNanoseconds)
        windowStart = now
    }
}
