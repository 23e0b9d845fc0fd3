/// xorshift64*: the tests' own randomness, from a fixed seed.
struct Generator: RandomNumberGenerator {
    var state: UInt64

    /// Near seeds give far sequences.
    init(seed: Int) { state = (UInt64(seed) &+ 1) &* 0x9e37_79b9_7f4a_7c15 | 1 }

    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_f491_4f6c_dd1d
    }
}
