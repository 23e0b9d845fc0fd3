package import Wire

/// Another member's log and this one's are two, though both were this view's: see `noteFork`.
package struct Fork: Equatable, Sendable {
    package var other: Instance
    /// Where they were found to differ.
    package var op: OpNumber
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
        guard fork == nil else { return }
        fork = Fork(other: other, op: op)
        (campaign, drain, bid) = (nil, nil, nil)
        tellOfFork(into: &outbox)
    }

    mutating func onFork(
        _ number: ViewNumber, _ op: OpNumber, from: Instance, into outbox: inout Outbox
    ) {
        guard isMember, view?.number == number, view?.contains(from) == true else { return }
        noteFork(with: from, at: op, into: &outbox)
    }

    /// Repeated while it lasts.
    mutating func tellOfFork(into outbox: inout Outbox) {
        guard let fork, let view,
            let other = view.members.first(where: { $0.instance == fork.other })
        else { return }
        let text =
            "up to op \(fork.op) this replica's log and that of replica \(other.id) at "
            + "\(other.address) differ: one of the two disks is an older copy that has gone on since. "
            + "Both wait; pollctl promote --force on the one whose ops are to be kept goes on with "
            + "them, and the other then fetches them and loses its own"
        outbox.effects.append(.stalled(reason: text))
        let message = Message.fork(view: view.number, op: fork.op)
        outbox.send.append(Envelope(to: fork.other, message))
    }
}
