package import Wire

/// What a replica finds on its disk when it starts: the records of its journal, replayed in order,
/// and the newest checkpoint of the services' state.
package struct Recovered: Equatable, Sendable {
    /// The newest view known, maybe one without this replica.
    package private(set) var view: View?
    /// The services' state stands after this op.
    package private(set) var op: OpNumber
    /// Of the log through `op`.
    package private(set) var opHash: LogHash
    /// Of the entry that ends there.
    package private(set) var opView: ViewNumber
    /// Entries through this one count as committed: of a view with one member, where they were at once.
    package private(set) var committed: OpNumber
    /// The entries behind `op`, contiguous.
    package private(set) var log: [Entry] = []
    /// As an elector of the view after `view`.
    package private(set) var promised: Attempt?
    package private(set) var accepted: Accepted?
    /// The first of the views up to `view` that followed each other with the same primary.
    package private(set) var reign = ViewNumber(0)
    /// Whether it has proposed the view after `view`.
    package private(set) var hasProposed = false
    /// Whether it had a state of the service. One that was only about to join has heard of views, and
    /// has nothing to lead with.
    package private(set) var hasState: Bool

    /// A journal that begins behind `op`, where there is a checkpoint, or at 0; `hash`: of the log
    /// through that, whose last entry is of `view`.
    package init(
        op: OpNumber = OpNumber(0), hash: LogHash = .beginning, view: ViewNumber = ViewNumber(0)
    ) {
        self.op = op
        opHash = hash
        opView = view
        committed = op
        hasState = op.rawValue > 0
    }

    /// Behind a checkpoint of the state after `op`, with all that a journal has since.
    ///
    /// Throws: when no replica can have written these records.
    ///
    /// `committed`, `reign`, `hasState`: as all records of the journal tell in their order; those given here
    /// may be fewer, in another.
    package init(
        op: OpNumber, hash: LogHash, view: ViewNumber, committed: OpNumber, reign: ViewNumber,
        hasState: Bool, records: [Record]
    ) throws(DecodeError) {
        self.init(op: op, hash: hash, view: view)
        for record in records { try replay(record) }
        self.committed = min(last, max(committed, self.committed))
        self.reign = reign
        self.hasState = hasState
    }

    package var last: OpNumber { log.last?.last ?? op }

    /// Takes the next record.
    ///
    /// Throws: when no replica can have written it at this place.
    package mutating func replay(_ record: Record) throws(DecodeError) {
        switch record {
        case .entry(let entry):
            guard entry.first == last.next else {
                throw DecodeError("an entry from op \(entry.first) behind op \(last)")
            }
            log.append(entry)
            hasState = true
            if let view, view.number == entry.view, view.backups.isEmpty { committed = entry.last }
        case .truncated(let after):
            committed = min(committed, after)
            guard after >= op else { throw DecodeError("truncated to op \(after), before \(op)") }
            log.removeAll { $0.first > after }
            guard last == after else {
                throw DecodeError("truncated to op \(after), where no entry ends")
            }
        case .restored(let end, let hash):
            (op, opHash, opView, log) = (end.op, hash, end.view, [])
            committed = end.op
            hasState = true
        case .view(let news):
            guard news.number > (view?.number ?? ViewNumber(0)) else { return }
            let isSame = view?.primary.instance == news.primary.instance
            if !isSame || news.number != view?.number.next { reign = news.number }
            view = news
            (promised, accepted, hasProposed) = (nil, nil, false)
        case .promised(let number, let attempt):
            guard number == view?.number.next else { return }
            promised = max(promised ?? attempt, attempt)
        case .accepted(let news):
            guard news.view.number == view?.number.next else { return }
            promised = max(promised ?? news.attempt, news.attempt)
            accepted = news
        case .proposed(let number):
            if number == view?.number.next { hasProposed = true }
        }
    }

    /// There is a checkpoint after this op: what comes before it is done.
    ///
    /// Throws: when the log does not reach it, or no entry ends there.
    package mutating func take(checkpoint: OpNumber) throws(DecodeError) {
        guard checkpoint > op else { return }
        guard let index = log.firstIndex(where: { $0.last == checkpoint }) else {
            throw DecodeError("a checkpoint at op \(checkpoint), but no entry ends there")
        }
        (op, opHash, opView) = (checkpoint, log[index].hash, log[index].view)
        log.removeFirst(index + 1)
        committed = max(committed, op)
    }
}
