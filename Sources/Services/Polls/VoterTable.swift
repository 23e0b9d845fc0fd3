/// The voters' names, in the order in which they were first heard of, and where each stands.
///
/// Made for a million of them, in a loop that must not pause: neither a new voter nor a change while
/// a snapshot is being made from a copy moves or copies more than a few thousand entries.
package struct VoterTable: Equatable, Sendable {
    /// A voter's place here never changes.
    private var names = Chunked<[UInt8]>()
    /// The places by name, in parts by the name's hash. Only looked up, never walked. Follows from
    /// `names`.
    private var parts: [[[UInt8]: Int]] = []

    private static let partCount = 256

    package init() {}

    package static func == (a: Self, b: Self) -> Bool { a.names == b.names }

    package var count: Int { names.count }
    package var indices: Range<Int> { 0..<names.count }
    package subscript(place: Int) -> [UInt8] { names[place] }

    package func place(of name: [UInt8]) -> Int? {
        parts.isEmpty ? nil : parts[Self.part(of: name)][name]
    }

    /// Gives the new voter's place. Precondition: the name is not in the table.
    mutating func add(_ name: [UInt8]) -> Int {
        if parts.isEmpty { parts = Array(repeating: [:], count: Self.partCount) }
        let place = names.count
        let known = parts[Self.part(of: name)].updateValue(place, forKey: name)
        precondition(known == nil, "a voter a second time")
        names.append(name)
        return place
    }

    /// FNV-1a: names that differ in one letter are to go to different parts.
    private static func part(of name: [UInt8]) -> Int {
        var hash: UInt32 = 0x811c_9dc5
        for byte in name { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
        return Int((hash ^ hash >> 16) % UInt32(partCount))
    }
}
