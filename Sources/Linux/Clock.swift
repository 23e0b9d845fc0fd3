import CLinux
import Glibc

package enum Clock {
    /// Nanoseconds since some fixed moment; never goes back and is not set by anybody.
    package static func monotonicNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// Processor time that the calling thread has used, in nanoseconds.
    package static func threadNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// As `monotonicNanoseconds`, and it goes on while the machine sleeps: for what was promised
    /// to last only so long.
    package static func bootNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// Milliseconds since 1970; for people and for stamps, never for a timeout.
    package static func wallMilliseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(max(0, time.tv_sec)) &* 1_000 &+ UInt64(time.tv_nsec / 1_000_000)
    }

    /// `12:03:07.250`, local time.
    package static func timeOfDay() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var parts = tm()
        localtime_r(&time.tv_sec, &parts)
        func padded(_ value: Int, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { padded(Int($0), 2) }
        return clock.joined(separator: ":") + "." + padded(Int(time.tv_nsec) / 1_000_000, 3)
    }

    package static func sleep(nanoseconds: UInt64) {
        var rest = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        var remaining = timespec()
        while nanosleep(&rest, &remaining) == -1, errno == EINTR { rest = remaining }
    }
}

package enum Entropy {
    /// 64 bits from the kernel's generator.
    package static func next() -> UInt64 {
        var value: UInt64 = 0
        let count = uninterrupted {
            getrandom(&value, MemoryLayout<UInt64>.size, 0)
        }
        precondition(count == MemoryLayout<UInt64>.size, "getrandom gave \(count) bytes")
        return value
    }
}
