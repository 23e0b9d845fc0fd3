package import Wire

// A replica with a disk after its restart: the same instance, with all that it has ever told of.
extension Replica {
    /// The replica as its disk has it. `resume` is to be its first event.
    ///
    /// Everything that another may have heard from it was durable before it was said, so the
    /// restart is to the others a pause in which all connections broke. It goes on in its view, with
    /// its part in choosing the next one; what it knows to be committed is only the checkpoint and what it had
    /// while alone; the others, or nobody being there the lack of them, tell it the rest.
    ///
    /// - An attempt is made once: the counter goes on above all that were written down, which are all
    ///   that were sent (SEEK leaves after the sync). Attempt 0 is spent if anything was granted or
    ///   accepted, and the primary accepts its own proposal before that leaves.
    /// - A probe may be made again: what confirms one counts only on a link on which the backup has
    ///   attached, and behind that attach nothing comes from before the restart.
    package init(
        me: Member, timing: Timing, membersMax: Int, election: Election = .sticky, seed: UInt64,
        keptMax: KeptMax = KeptMax(), recovered: Recovered
    ) {
        self.init(
            me: me, timing: timing, membersMax: membersMax, election: election, seed: seed,
            keptMax: keptMax)
        view = recovered.view
        log = recovered.log
        op = recovered.last
        commitMin = recovered.op
        (commitMax, matched) = (recovered.committed, recovered.committed)
        commitHash = recovered.opHash
        commitView = recovered.opView
        hasState = recovered.hasState || view?.contains(me.instance) == true
        acceptor = Acceptor(granted: recovered.promised, accepted: recovered.accepted)
        counterSeen = recovered.promised?.counter ?? 0
        (isProofVoid, hasRestarted) = (true, true)
        guard let view, view.contains(me.instance) else { return }
        status = recovered.hasProposed ? .choosing : .normal
        // Its primary's own entries are in the primary's log, and so is what stands before them.
        if let last = log.last, last.view >= recovered.reign { matched = op }
        health = view.members.filter { $0.instance != me.instance }.map {
            Health(instance: $0.instance)
        }
        resetYield()
        guard view.primary.instance == me.instance else { return }
        matched = op
        // What it had proposed may have been decided, and what came then be lost.
        isUncompared =
            (!view.backups.isEmpty || recovered.hasProposed) && breakage != .lostEndUnnoticed
        progress = view.backups.map { _ in Progress(acked: commitMax, sent: nil) }
    }

    mutating func onResume(into outbox: inout Outbox) {
        executeCommitted(through: commitMax, into: &outbox)
        guard isMember, let view else { return }
        // Alone it has nobody to wait for.
        advanceCommit(into: &outbox)
        outbox.effects.append(.entered(view))
        checkBase(into: &outbox)
    }

    /// Hears that everything through `committed` was committed in this replica's view.
    ///
    /// Whatever is committed in a view is on the disk of every member before it counts. A member whose
    /// log ends before that has a disk that lost the end of what it had: a file that was cut, an older
    /// copy of a folder, a drive that said that it had written what it had not. Its log shows nothing of
    /// that; the others do: backups, other electors, and the witnesses, which are told by each beat.
    ///
    /// Nor need it end before: what was cut off may have been written over what stood there of an
    /// earlier view, was never committed, and shows again. So an entry is named with its view.
    ///
    /// It must not lead, or what it lacks would be gone, and must not be counted on. So it leaves, and
    /// helps to choose the next view, without it; then it joins as anybody does, and fetches what it
    /// lacks. (Votes in choosing a view are not noticed to be lost, only ops.)
    mutating func checkForLostEnd(committed: LogEnd, into outbox: inout Outbox) {
        guard isMember else { return }
        heardCommitted = heardCommitted.orLater(committed)
        checkForLostEnd(had: committed, into: &outbox)
    }

    /// Hears that this replica's log once had this entry, which need not be committed. View 0: any.
    mutating func checkForLostEnd(had last: LogEnd, into outbox: inout Outbox) {
        guard isMember, last.op > op || hasOther(than: last) else { return }
        becomeShort(of: last, into: &outbox)
    }

    /// Whether this log has another entry where that one should be, and has not executed it.
    func hasOther(than last: LogEnd) -> Bool {
        guard last.op > commitMin, last.op <= op, last.view > ViewNumber(0) else { return false }
        return end(at: last.op).view != last.view
    }

    /// Finds that another member's log is another than this one's at `op`.
    mutating func onDifference(with other: Instance, at op: OpNumber, into outbox: inout Outbox) {
        if isLeftover(at: op) {
            becomeShort(of: LogEnd(view: ViewNumber(0), op: op), into: &outbox)
        } else {
            noteFork(with: other, at: op, into: &outbox)
        }
    }

    /// Whether that is but what has come back behind a lost end: nothing that was committed, of an earlier
    /// view. (What an older copy has gone on with alone it knows to be committed.)
    private func isLeftover(at op: OpNumber) -> Bool {
        guard hasRestarted, isMember, let view, op > commitMax, op <= self.op else { return false }
        return end(at: op).view < view.number
    }

    mutating func becomeShort(of last: LogEnd, into outbox: inout Outbox) {
        guard isMember, missing.map({ last.op > $0.op }) ?? true, breakage != .lostEndUnnoticed
        else {
            return
        }
        missing = last
        status = .choosing
        (campaign, drain, bid) = (nil, nil, nil)
        let what =
            last.op > op
            ? "ends with op \(op), and it has had op \(last.op)"
            : "has another op \(last.op) than it has had"
        let text =
            "this replica's journal \(what): its disk has lost the "
            + "end. It waits for another that has it; if there is none, pollctl promote --force on the "
            + "one that has most goes on with that"
        outbox.effects.append(.stalled(reason: text))
        leaveAsShort(into: &outbox)
    }

    /// Whoever chose the view that this replica has just entered, or comes back to, did not know
    /// what it lacks.
    mutating func checkBase(into outbox: inout Outbox) {
        guard let view else { return }
        let had = missing
        missing = nil
        checkForLostEnd(committed: view.base, into: &outbox)
        if let had { becomeShort(of: had, into: &outbox) }
    }

    /// Tells the other members to go on without this one, which has lost what it had.
    mutating func leaveAsShort(into outbox: inout Outbox) {
        guard missing != nil, let view else { return }
        for member in view.members where member.instance != me.instance {
            outbox.sendAfterSync.append(Envelope(to: member.instance, .leave(me.instance)))
        }
    }

    /// Whether `message`, of another member on a direct connection of this life, shows that one to be in
    /// this replica's view, and what is committed in it: see `isProofVoid`. Who has made the connection
    /// has met this process, and cannot take the end of the one before for its end; over a client it may.
    ///
    /// If the view names another process of that member, it also shows which of the two is the older.
    mutating func onVoucher(_ message: Message, from: Instance, into outbox: inout Outbox) {
        guard isProofVoid || !lives.doubted.isEmpty, isMember, let view, view.contains(from) else {
            return
        }
        switch message {
        case .attach(view.number, _, _), .commit(view.number, _, _), .prepare(view.number, _, _):
            isProofVoid = false
            if lives.doubted.contains(from), lives.spoke(from, of: view) { mend(into: &outbox) }
        default: return
        }
    }

    /// What is said of the choice of the next view shows its sender to be in this one as well, and backups
    /// say nothing else to each other. Whether that gives a meaning to the proof of its end.
    mutating func noteNewest(_ message: Message, from: Instance) -> Bool {
        guard lives.doubted.contains(from), isMember, let view, view.contains(from) else {
            return false
        }
        let next = view.number.next
        switch message {
        case .seek(next, _, _), .grant(next, _, _, _, _), .accepted(next, _):
            return lives.spoke(from, of: view)
        case .propose(_, let proposal) where proposal.number == next:
            return lives.spoke(from, of: view)
        default: return false
        }
    }
}
