/// Counts durations in buckets that are linear within a power of two: a percentile read from it
/// is at most 1.6 % too low. Adding costs no memory and no search.
struct Histogram {
    private var buckets: [UInt64]
    private(set) var count: UInt64 = 0
    private(set) var largest: UInt64 = 0

    /// Each power of two has 2^6 buckets.
    private static let bits = 6

    init() {
        buckets = [UInt64](repeating: 0, count: (64 - Self.bits + 1) << Self.bits)
    }

    @inline(__always)
    mutating func add(nanoseconds value: UInt64) {
        buckets[Self.bucket(value)] += 1
        count += 1
        if value > largest { largest = value }
    }

    /// The smallest duration that so large a part of all does not exceed; 0 when there is none.
    func nanoseconds(part: Double) -> UInt64 {
        guard count > 0 else { return 0 }
        let wanted = UInt64((Double(count) * part).rounded(.up))
        var seen: UInt64 = 0
        for (index, bucket) in buckets.enumerated() {
            seen += bucket
            if seen >= max(wanted, 1) { return min(Self.value(index), largest) }
        }
        return largest
    }

    func microseconds(part: Double) -> Double { Double(nanoseconds(part: part)) / 1_000 }

    /// The three that a report shows.
    var json: JSON {
        .object([
            ("p50", .number(microseconds(part: 0.5), digits: 1)),
            ("p99", .number(microseconds(part: 0.99), digits: 1)),
            ("p99.9", .number(microseconds(part: 0.999), digits: 1)),
        ])
    }

    var text: String {
        func shown(_ part: Double) -> String { Text.fixed(microseconds(part: part), 0) }
        return "p50 \(shown(0.5)) us, p99 \(shown(0.99)) us, p99.9 \(shown(0.999)) us"
    }

    @inline(__always)
    private static func bucket(_ value: UInt64) -> Int {
        let linear = UInt64(1) << UInt64(bits)
        guard value >= linear else { return Int(value) }
        let shift = 63 - value.leadingZeroBitCount - bits
        return (shift + 1) << bits + Int((value >> UInt64(shift)) & (linear - 1))
    }

    private static func value(_ bucket: Int) -> UInt64 {
        let linear = 1 << bits
        guard bucket >= linear else { return UInt64(bucket) }
        let shift = bucket >> bits - 1
        return UInt64(linear + bucket & (linear - 1)) << UInt64(shift)
    }
}
