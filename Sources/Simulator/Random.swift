/// The one source of chance of a run: SplitMix64 (Steele, Lea and Flood, Fast Splittable
/// Pseudorandom Number Generators, 2014).
package struct Random: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return Self.mix(state)
    }

    static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// Evenly from the range.
    mutating func int(_ range: ClosedRange<Int>) -> Int {
        let count = UInt64(range.upperBound - range.lowerBound) + 1
        return range.lowerBound + Int(next().multipliedFullWidth(by: count).high)
    }

    /// True so many times in a thousand.
    mutating func chance(_ thousandths: Int) -> Bool { int(0...999) < thousandths }

    mutating func element<T>(_ list: [T]) -> T? {
        list.isEmpty ? nil : list[int(0...list.count - 1)]
    }
}
