import Wire

/// The ballots of one vote: two bits a voter, 32 voters a word, in the voters' order.
struct Ballots: Equatable, Sendable {
    private(set) var words: [UInt64] = []

    subscript(voter: Int) -> Choice? {
        let word = voter / 32
        guard word < words.count else { return nil }
        return Choice(rawValue: UInt8(words[word] >> (voter % 32 * 2) & 3))
    }

    mutating func set(_ voter: Int, _ choice: Choice) {
        let word = voter / 32
        while words.count <= word { words.append(0) }
        words[word] |= UInt64(choice.rawValue) << (voter % 32 * 2)
    }

    func write(to writer: inout SnapshotWriter) { writer.add(words: words) }

    init() {}

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        words = try reader.words()
    }
}

/// A set of voters: one bit each.
struct VoterSet: Equatable, Sendable {
    private(set) var words: [UInt64] = []
    private(set) var count = 0

    func contains(_ voter: Int) -> Bool {
        let word = voter / 64
        return word < words.count && words[word] >> (voter % 64) & 1 == 1
    }

    mutating func insert(_ voter: Int) {
        guard !contains(voter) else { return }
        let word = voter / 64
        while words.count <= word { words.append(0) }
        words[word] |= 1 << (voter % 64)
        count += 1
    }

    mutating func remove(_ voter: Int) {
        guard contains(voter) else { return }
        words[voter / 64] &= ~(1 << (voter % 64))
        count -= 1
    }

    /// Ascending. Complexity: O(places / 64 + members).
    var members: [Int] {
        var list: [Int] = []
        for (index, word) in words.enumerated() {
            var rest = word
            while rest != 0 {
                list.append(index * 64 + rest.trailingZeroBitCount)
                rest &= rest - 1
            }
        }
        return list
    }

    func write(to writer: inout SnapshotWriter) { writer.add(words: words) }

    init() {}

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        words = try reader.words()
        count = words.reduce(0) { $0 + $1.nonzeroBitCount }
    }
}

extension SnapshotWriter {
    fileprivate mutating func add(words: [UInt64]) {
        add(words.count)
        for word in words { add(word) }
    }
}

extension SnapshotReader {
    fileprivate mutating func words() throws(DecodeError) -> [UInt64] {
        var words: [UInt64] = []
        for _ in 0..<(try count()) { words.append(try number()) }
        return words
    }
}
