package import Wire

/// What this replica has come upon that cannot be inside the rules: see `noteFork`.
package enum Fork: Equatable, Sendable {
    /// Another member's log is another than this one's, at the latest from this op on.
    case log(of: Instance, at: OpNumber)
    /// A view with the number of this replica's, and not that view.
    case view(View)
}

// Whether two logs are one. Each entry carries the hash of the log through it, as the prepares of
// TigerBeetle do by `checksum` and `parent`: so a single comparison tells of everything before.
extension Replica {
    /// Of the log through its end.
    var lastHash: LogHash { log.last?.hash ?? commitHash }

    /// Of the log through `op`; nil where no entry that is at hand ends there.
    func hash(at op: OpNumber) -> LogHash? {
        if op == commitMin { return commitHash }
        if op < commitMin { return kept.hash(at: op) }
        return log.first { $0.last == op }?.hash
    }

    /// Whether a log that has this hash at `op` is this one up to there; nil: this one does not reach
    /// so far, or no longer has what stood there.
    func isSameLog(_ op: OpNumber, _ hash: LogHash) -> Bool? {
        if op > self.op { return nil }
        if let own = self.hash(at: op) { return own == hash }
        // No entry ends there: it is in the midst of one, or before all that is at hand.
        let first = kept.first ?? commitMin.next
        return op >= first ? false : nil
    }

    /// Finds that what this replica has committed, or knows to be its primary's, is something else on
    /// another member.
    ///
    /// Inside the rules that cannot be. It is when a disk is an older copy of itself, a snapshot of a
    /// machine that was put back, and its replica was then alone in its view and went on: now two
    /// members have different ops under the same numbers, and clients have been told of both. Neither
    /// is thrown away here: nothing that needs both is answered, neither takes the other's place, and
    /// people say by a promotion by force which of them is to be the service.
    mutating func noteFork(with other: Instance, at op: OpNumber, into outbox: inout Outbox) {
        guard isMember, view?.contains(other) == true else {
            failJoin("its log is not the one that was learnt before", into: &outbox)
            return
        }
        wait(.log(of: other, at: op), into: &outbox)
    }

    private mutating func wait(_ found: Fork, into outbox: inout Outbox) {
        guard fork == nil else { return }
        fork = found
        (campaign, drain, bid) = (nil, nil, nil)
        tellOfFork(into: &outbox)
    }

    /// The same, where an older copy has gone on to a view of its own, or two were promoted by force.
    mutating func noteRival(_ news: View, into outbox: inout Outbox) {
        guard isMember, let view, news.number == view.number, news != view else { return }
        wait(.view(news), into: &outbox)
    }

    /// Backup: its primary is short, and shows what is left of its log. That is a part of this one.
    mutating func compare(
        _ number: ViewNumber, _ op: OpNumber, _ hash: LogHash, from: Instance,
        into outbox: inout Outbox
    ) {
        guard isMember, let view, view.number == number, view.primary.instance == from,
            isSameLog(op, hash) == false
        else { return }
        noteFork(with: from, at: op, into: &outbox)
    }

    mutating func onFork(
        _ number: ViewNumber, _ op: OpNumber, from: Instance, into outbox: inout Outbox
    ) {
        guard isMember, view?.number == number, view?.contains(from) == true else { return }
        noteFork(with: from, at: op, into: &outbox)
    }

    /// Repeated while it lasts. All members are told, as any of them could else be chosen.
    mutating func tellOfFork(into outbox: inout Outbox) {
        guard let fork, let view else { return }
        let advice =
            "one of the two disks is an older copy that has gone on since. Both wait; pollctl promote "
            + "--force on the one whose ops are to be kept goes on with them, and the other then "
            + "fetches them and loses its own"
        switch fork {
        case .log(let other, let op):
            let who = view.member(other).map { "replica \($0.id) at \($0.address)" } ?? "another"
            let text = "up to op \(op) this replica's log and that of \(who) differ: \(advice)"
            outbox.effects.append(.stalled(reason: text))
            for member in view.members where member.instance != me.instance {
                let message = Message.fork(view: view.number, op: op)
                outbox.send.append(Envelope(to: member.instance, message))
            }
        case .view(let other):
            let who = "replica \(other.primary.id) at \(other.primary.address)"
            let text =
                "there are two views \(view.number), this one of replica \(view.primary.id) and one of "
                + "\(who): both were promoted by force, or \(advice)"
            outbox.effects.append(.stalled(reason: text))
        }
    }
}
