/// The results of a log from the first vote on, as its last result and one number for all of them: two
/// logs with equal chains are the same.
package struct ResultChain: Equatable, Sendable {
    package private(set) var last: PollResult?
    /// FNV-1a, 64 bits, over the fields' bytes. Against mix-ups, not against anybody's malice.
    private var hash: UInt64 = 0xcbf2_9ce4_8422_2325

    package init() {}

    package var nextID: UInt64 { (last?.id ?? 0) + 1 }

    /// Precondition: the result is that of the next vote.
    package mutating func append(_ result: PollResult) {
        precondition(result.id == nextID, "result \(result.id) behind \(nextID - 1)")
        for field in [result.id, result.yes, result.no] {
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                hash = (hash ^ field >> shift & 0xff) &* 0x0000_0100_0000_01b3
            }
        }
        last = result
    }
}
