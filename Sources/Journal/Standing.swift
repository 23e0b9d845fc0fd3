package import Wire

/// What a replica has bound itself to, as its records so far say.
package struct Standing: Hashable, Sendable {
    /// An attempt of choosing view `number` below which nothing is granted or accepted any more.
    package struct Promise: Hashable, Sendable {
        package var number: ViewNumber
        package var attempt: Attempt

        package init(number: ViewNumber, attempt: Attempt) {
            self.number = number
            self.attempt = attempt
        }
    }

    /// The log's end.
    package var op: OpNumber
    /// The newest view known.
    package var view: View?
    /// The first of the views up to `view` that followed each other with the same primary, as far as they
    /// are at hand: a segment begins with the newest only. (That may be later than its entries are where
    /// the first was sent again in a later view; then less of the log is taken for the primary's.)
    package var reign = ViewNumber(0)
    /// Whether there was a state of the service: who was only about to join has heard of views, no more.
    package var hasState = false
    package var promised: Promise?
    package var accepted: Accepted?
    /// The highest view number under which the replica has proposed a view.
    package var proposed: ViewNumber?
    /// The view of the log's last entry; 0 where the log's beginning is not known.
    package var lastEntryView = ViewNumber(0)
    /// Through this op the log is known to be committed: the last entry of a view with one member, where
    /// it was at once. What is known besides is not written down.
    package var committed = OpNumber(0)

    package init(op: OpNumber) {
        self.op = op
        hasState = op.rawValue > 0
    }

    /// Takes the next record. Throws when it contradicts those before it; nothing is changed then.
    package mutating func apply(_ record: Record) throws(DecodeError) {
        switch record {
        case .entry(let entry):
            guard entry.first == op.next else {
                throw DecodeError("an entry from op \(entry.first) behind op \(op)")
            }
            guard entry.view >= lastEntryView else {
                throw DecodeError("an entry of view \(entry.view) behind one of \(lastEntryView)")
            }
            op = entry.last
            hasState = true
            lastEntryView = entry.view
            if let view, view.number == entry.view, view.backups.isEmpty { committed = op }
        case .truncated(let after):
            guard after <= op else { throw DecodeError("truncated after \(after) of \(op)") }
            op = after
            committed = min(committed, after)
            // What the entry before was of is known to who has it; here it is any.
            lastEntryView = ViewNumber(0)
        case .restored(let end, _):
            op = end.op
            hasState = true
            committed = op
            lastEntryView = ViewNumber(0)
        case .view(let view): try take(view)
        case .promised(let number, let attempt):
            try checkIsOpen(number, "a promise")
            if let promised {
                guard number >= promised.number else {
                    throw DecodeError("a promise for view \(number) after \(promised.number)")
                }
                guard number > promised.number || attempt >= promised.attempt else {
                    throw DecodeError("a promise of \(attempt) after one of \(promised.attempt)")
                }
            }
            promised = Promise(number: number, attempt: attempt)
        // Said again, as at a segment's beginning: a higher attempt may have been granted since.
        case .accepted(let new) where new == accepted: break
        case .accepted(let new):
            try checkIsOpen(new.view.number, "an accepted view")
            if let promised, promised.number >= new.view.number {
                guard promised.number == new.view.number else {
                    throw DecodeError("view \(new.view.number) accepted after a promise for later")
                }
                guard new.attempt >= promised.attempt else {
                    throw DecodeError(
                        "\(new.attempt) accepted after a promise of \(promised.attempt)")
                }
            }
            if let accepted, accepted.attempt == new.attempt,
                accepted.view.number == new.view.number
            {
                guard accepted.view == new.view else {
                    throw DecodeError("two views accepted in attempt \(new.attempt)")
                }
            }
            accepted = new
            promised = Promise(number: new.view.number, attempt: new.attempt)
        case .proposed(let number):
            try checkIsOpen(number, "a proposal")
            if let proposed {
                guard number >= proposed else {
                    throw DecodeError("a proposal of view \(number) after one of \(proposed)")
                }
            }
            proposed = number
        }
    }

    /// The records that say the same, the log aside: a segment begins with them, so that nothing
    /// before it is needed for them. `accepted` before `promised`, as it grants only its own
    /// attempt and a higher one may have been granted since.
    package var records: [Record] {
        var records: [Record] = []
        if let view { records.append(.view(view)) }
        if let accepted { records.append(.accepted(accepted)) }
        if let promised { records.append(.promised(number: promised.number, promised.attempt)) }
        if let proposed { records.append(.proposed(number: proposed)) }
        return records
    }

    private mutating func take(_ new: View) throws(DecodeError) {
        if let view {
            guard new.number >= view.number else {
                throw DecodeError("view \(new.number) after view \(view.number)")
            }
            guard new.number > view.number || new == view else {
                throw DecodeError("two views of number \(new.number)")
            }
        }
        if new.number > (view?.number ?? ViewNumber(0)) {
            let isSame = view?.primary.instance == new.primary.instance
            if !isSame || new.number != view?.number.next { reign = new.number }
        }
        view = new
        // The choice of a view that is known, or passed, is over.
        if let promised, promised.number <= new.number { self.promised = nil }
        if let accepted, accepted.view.number <= new.number { self.accepted = nil }
        if let proposed, proposed <= new.number { self.proposed = nil }
    }

    private func checkIsOpen(_ number: ViewNumber, _ what: String) throws(DecodeError) {
        if let view, number <= view.number {
            throw DecodeError("\(what) for view \(number), though view \(view.number) is known")
        }
    }
}
