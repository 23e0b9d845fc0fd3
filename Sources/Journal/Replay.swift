package import Wire

/// What a replica was when its journal ended.
package struct Recovered: Hashable, Sendable {
    /// The services' state as it is after this op: `snapshot`, or the beginning (op 0).
    package var op: OpNumber
    /// The view of the entry that ends with `op`; 0 at the beginning.
    package var opView: ViewNumber
    /// nil: the beginning.
    package var snapshot: [UInt8]?
    /// The newest view known.
    package var view: View?
    /// See `Standing`.
    package var reign: ViewNumber
    package var hasState: Bool
    /// The log behind `op`, whether committed or not.
    package var entries: [Entry]
    /// See `Standing.committed`; not before `op`.
    package var committed: OpNumber
    package var promised: Standing.Promise?
    package var accepted: Accepted?
    package var proposed: ViewNumber?

    /// The log's end.
    package var last: OpNumber { entries.last?.last ?? op }

    /// The records that say the same, behind the state after `op`.
    package var records: [Record] {
        var records = entries.map(Record.entry)
        guard let view else { return records }
        records.append(.view(view))
        if let promised { records.append(.promised(number: promised.number, promised.attempt)) }
        if let accepted { records.append(.accepted(accepted)) }
        if let proposed { records.append(.proposed(number: proposed)) }
        return records
    }
}

/// From records in order to what the replica was.
package struct Replay: Sendable {
    /// The state that the log continues.
    package struct Base: Hashable, Sendable {
        package var op: OpNumber
        package var view: ViewNumber
        /// Of the log through `op`.
        package var hash: LogHash
        /// It came from another replica, and counts from the record `restored` on.
        package var isReceived: Bool

        package init(op: OpNumber, view: ViewNumber, hash: LogHash, isReceived: Bool) {
            self.op = op
            self.view = view
            self.hash = hash
            self.isReceived = isReceived
        }

        package static let beginning = Base(
            op: OpNumber(0), view: ViewNumber(0), hash: .beginning, isReceived: false)
    }

    package let base: Base
    package private(set) var standing: Standing
    /// Entries of the log with an op behind the base's. Before a received base has been restored
    /// they may be another history's, which it replaces.
    private var entries: [Entry] = []
    private var isPending: Bool
    /// The records have come to the base's op, by its own entries or its own state. A journal that stops
    /// before that was longer once, and has not been set back.
    private var hasMetBase: Bool
    /// Another state was restored after the base: the log went back, and on from there, maybe as another
    /// log, if somebody has been promoted by force.
    private var isSetBack = false
    /// Since then it has come to the base's op by the base's own entries.
    private var isBackAtBase = false {
        didSet { if isBackAtBase { hasMetBase = true } }
    }
    /// The op of a state that the records ask for and the base does not have; nil again when the log
    /// has gone back to the base.
    package private(set) var stateMissing: OpNumber?

    /// `firstOp`: as the first segment's header says.
    package init(base: Base, firstOp: OpNumber) {
        self.base = base
        standing = Standing(op: OpNumber(firstOp.rawValue - 1))
        isPending = base.isReceived
        // Segments that begin behind that may be of before a state of less was restored.
        hasMetBase = firstOp == base.op.next
    }

    /// Throws when the record contradicts those before it.
    package mutating func take(_ record: Record) throws(DecodeError) {
        switch record {
        case .entry(let entry):
            try standing.apply(record)
            if entry.last > base.op { entries.append(entry) }
            if entry.last == base.op { isBackAtBase = entry.hash == base.hash }
        case .truncated(let after):
            var kept = entries.count
            while kept > 0, entries[kept - 1].last > after { kept -= 1 }
            if kept < entries.count, entries[kept].first <= after {
                throw DecodeError("truncated after \(after), in the middle of an entry")
            }
            try standing.apply(record)
            entries.removeSubrange(kept...)
            if after < base.op { isBackAtBase = false }
            if let last = entries.last { standing.lastEntryView = last.view }
        case .restored(let end, let hash):
            let op = end.op
            try standing.apply(record)
            entries.removeAll()
            isBackAtBase = op == base.op && hash == base.hash
            if isBackAtBase { isPending = false }
            isSetBack = hasMetBase && op <= base.op && !isBackAtBase
            stateMissing = op > base.op ? op : nil
        case .view, .promised, .accepted, .proposed: try standing.apply(record)
        }
    }

    /// Makes room for so many times the entries that there are, once and not by doubling.
    package mutating func expect(times: Int) {
        if times > 1 { entries.reserveCapacity(entries.count * times) }
    }

    /// The replica stands on the checkpoint before the base: the base was received and never put to
    /// use, or the log has gone back behind it and has not come to it again. A primary that has itself just
    /// come back from its disk may give a joiner an older state than the one that it had; and one that was
    /// promoted by force has another log, which never comes to it.
    package var isBaseUnused: Bool { isPending || isSetBack && !isBackAtBase }

    /// What the records so far come to, without the base's snapshot. Throws when they do not meet
    /// the base: they end before it, or an entry reaches over it.
    package func recovered() throws(DecodeError) -> Recovered {
        if let stateMissing {
            throw DecodeError(
                "the state after op \(stateMissing) is needed, and no checkpoint has it")
        }
        guard !isPending else {
            throw DecodeError("the state received for op \(base.op) was never put to use")
        }
        guard standing.op >= base.op else {
            throw DecodeError(
                "the journal ends with op \(standing.op), its checkpoint with \(base.op)")
        }
        if let first = entries.first, first.first != base.op.next {
            throw DecodeError("the entry from op \(first.first) reaches over the checkpoint's op")
        }
        return Recovered(
            op: base.op, opView: base.view, snapshot: nil, view: standing.view,
            reign: standing.reign,
            hasState: standing.hasState || base.op.rawValue > 0 || base.isReceived,
            entries: entries,
            committed: max(base.op, standing.committed),
            promised: standing.promised, accepted: standing.accepted, proposed: standing.proposed)
    }
}
