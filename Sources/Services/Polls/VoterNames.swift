import Wire

/// The voters' names in the order in which they were first heard of; a name's place never changes.
///
/// A copy of the polls is written down while the polls go on, so whatever is changed first has to be
/// copied. Both ways of looking are therefore in parts: a new name copies one part of each, not a
/// million names.
package struct VoterNames: Equatable, Sendable, RandomAccessCollection {
    /// Of `chunkCount` names each, the last one of fewer.
    private var chunks: [[[UInt8]]] = []
    /// By a hash of the name. Only looked up, never walked.
    private var places: [[[UInt8]: Int]]
    package private(set) var count = 0

    private static let chunkCount = 1_024
    private static let partCount = 1_024

    package init() {
        places = Array(repeating: [:], count: Self.partCount)
    }

    package var startIndex: Int { 0 }
    package var endIndex: Int { count }
    package subscript(place: Int) -> [UInt8] {
        chunks[place / Self.chunkCount][place % Self.chunkCount]
    }

    package func place(of name: [UInt8]) -> Int? { places[Self.part(name)][name] }

    /// Gives the new name's place. Precondition: it has none.
    mutating func append(_ name: [UInt8]) -> Int {
        let place = count
        let before = places[Self.part(name)].updateValue(place, forKey: name)
        precondition(before == nil, "a voter twice")
        if place.isMultiple(of: Self.chunkCount) { chunks.append([]) }
        chunks[chunks.count - 1].append(name)
        count += 1
        return place
    }

    private static func part(_ name: [UInt8]) -> Int {
        Int(truncatingIfNeeded: Digest.of(name) % UInt64(partCount))
    }
}
