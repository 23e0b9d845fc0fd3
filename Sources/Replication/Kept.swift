import Wire

/// How much of what is committed a replica keeps for those who come back after a short absence.
package struct KeptMax: Equatable, Sendable {
    package var entries: Int
    package var bytes: Int

    package init(entries: Int = 1 << 16, bytes: Int = 16 << 20) {
        self.entries = entries
        self.bytes = bytes
    }
}

/// The newest committed entries, contiguous, up to `commitMin`.
struct Kept: Equatable, Sendable {
    private var entries: [Entry] = []
    /// Those before this place are gone; they are removed many at a time.
    private var head = 0
    private var bytes = 0
    let max: KeptMax

    init(max: KeptMax) {
        self.max = max
    }

    var count: Int { entries.count - head }
    var first: OpNumber? { head < entries.count ? entries[head].first : nil }

    var last: OpNumber? { head < entries.count ? entries[entries.count - 1].last : nil }

    mutating func append(_ new: ArraySlice<Entry>) {
        for entry in new {
            entries.append(entry)
            bytes += entry.batch.bytes.count
        }
        while count > max.entries || (bytes > max.bytes && count > 0) {
            bytes -= entries[head].batch.bytes.count
            head += 1
        }
        guard 2 * head > entries.count + 64 else { return }
        entries.removeFirst(head)
        head = 0
    }

    mutating func removeAll() {
        self = Kept(max: max)
    }

    /// The entries behind `op`.
    func entries(after op: OpNumber) -> ArraySlice<Entry> {
        var (low, high) = (head, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].first > op { high = middle } else { low = middle + 1 }
        }
        return entries[low...]
    }

    /// Of the log through `op`; nil where no entry that is kept ends there.
    func hash(at op: OpNumber) -> LogHash? {
        let place = entries(after: op).startIndex - 1
        guard place >= head, entries[place].last == op else { return nil }
        return entries[place].hash
    }
}
