import Wire

// Inside a view: the primary appends and sends, the backups append and ack, an op counts once it
// is on every member (write-all; Alsberg and Day 1976 for the pair).
extension Replica {
    mutating func onBatch(_ batch: Batch, time: UInt64, into outbox: inout Outbox) {
        precondition(acceptsRequests, "a batch while \(status)")
        guard let view, !batch.isEmpty else { return }
        let entry = Entry(
            view: view.number, first: op.next, time: time, batch: batch, after: lastHash)
        append(entry, into: &outbox)
        sendLog(into: &outbox)
        if breakage == .prepareBeforeSync {
            outbox.send += outbox.sendAfterSync
            outbox.sendAfterSync = []
        }
        commitSent = commitMax
        advanceCommit(into: &outbox)
    }

    private mutating func append(_ entry: Entry, into outbox: inout Outbox) {
        precondition(entry.first == op.next, "gap: op \(op), entry from \(entry.first)")
        log.append(entry)
        op = entry.last
        hasState = true
        outbox.records.append(.entry(entry))
    }

    /// Sends every backup and learner what it has not been sent yet.
    mutating func sendLog(into outbox: inout Outbox) {
        guard status == .normal, missing == nil, let view else { return }
        for index in progress.indices {
            guard let sent = progress[index].sent, sent < op else { continue }
            sendEntries(after: sent, to: view.backups[index].instance, into: &outbox)
            progress[index].sent = op
        }
        for index in learners.indices {
            guard let sent = learners[index].sent, sent < op else { continue }
            sendEntries(after: sent, to: learners[index].member.instance, into: &outbox)
            learners[index].sent = op
        }
    }

    private func sendEntries(after sent: OpNumber, to: Instance, into outbox: inout Outbox) {
        guard let view else { return }
        func post(_ entry: Entry) {
            let message = Message.prepare(view: view.number, entry: entry, commitMax: commitMax)
            outbox.sendAfterSync.append(Envelope(to: to, message))
        }
        if sent < commitMin { for entry in kept.entries(after: sent) { post(entry) } }
        for entry in log where entry.first > sent { post(entry) }
    }

    /// Primary: commits what every member has, and executes it.
    mutating func advanceCommit(into outbox: inout Outbox) {
        guard status == .normal, missing == nil, isPrimary else { return }
        var onAll = progress.map(\.acked).min().map { min($0, op) } ?? op
        if breakage == .noWriteAll { onAll = op }
        commitMax = max(commitMax, onAll)
        executeCommitted(through: commitMax, into: &outbox)
    }

    mutating func executeCommitted(through bound: OpNumber, into outbox: inout Outbox) {
        let count = log.prefix { $0.last <= bound }.count
        guard count > 0 else { return }
        outbox.execute.append(contentsOf: log[..<count])
        kept.append(log[..<count])
        commitMin = log[count - 1].last
        commitHash = log[count - 1].hash
        commitView = log[count - 1].view
        log.removeFirst(count)
    }

    // MARK: The backup's and the learner's side

    mutating func onPrepare(
        _ number: ViewNumber, _ entry: Entry, _ commit: OpNumber, from: Instance,
        into outbox: inout Outbox
    ) {
        guard isFollowing(number, from) else { return }
        learnCommit(commit, into: &outbox)
        guard missing == nil else { return }
        if entry.last > matched {
            guard entry.first == matched.next else {
                // A hole: something was lost with a link. Ask again from where the log is sure. A
                // learner has passed over what was sent before it heard of the present view.
                attach(into: &outbox)
                failJoin("a part of the log came too late", into: &outbox)
                return
            }
            if breakage == .ackUnwritten, status == .normal, entry.last.rawValue % 7 == 0 {
                let ok = Message.prepareOK(view: number, op: entry.last)
                outbox.sendAfterSync.append(Envelope(to: from, ok))
                return
            }
            guard take(entry, into: &outbox) else {
                noteFork(with: from, at: entry.last, into: &outbox)
                return
            }
            matched = entry.last
            learnCommit(commit, into: &outbox)
        }
        acknowledge(into: &outbox)
    }

    /// Puts the primary's entry into the log. What is there already stays; only from the first
    /// difference on is the old tail removed, so that nothing acked is ever missing in between.
    /// False: the two logs differ where they must not.
    private mutating func take(_ entry: Entry, into outbox: inout Outbox) -> Bool {
        guard let index = log.firstIndex(where: { $0.last >= entry.first }) else {
            guard entry.first == op.next, entry.follows(lastHash) else { return false }
            append(entry, into: &outbox)
            return true
        }
        if log[index].hash == entry.hash || breakage == .noTruncation { return true }
        let parent = index > 0 ? log[index - 1].hash : commitHash
        let kept = log[index].first.rawValue - 1
        guard kept >= commitMax.rawValue, entry.first == log[index].first, entry.follows(parent)
        else { return false }
        log.removeSubrange(index...)
        op = OpNumber(kept)
        outbox.records.append(.truncated(after: op))
        outbox.effects.append(.truncated(after: op))
        append(entry, into: &outbox)
        return true
    }

    private func acknowledge(into outbox: inout Outbox) {
        guard let view else { return }
        switch status {
        case .normal:
            let ok = Envelope(
                to: view.primary.instance, .prepareOK(view: view.number, op: matched))
            if breakage == .ackBeforeSync {
                outbox.send.append(ok)
            } else {
                outbox.sendAfterSync.append(ok)
            }
        case .learning:
            guard let fetch else { return }
            let ok = Message.learnOK(fetch.join, op: matched)
            outbox.sendAfterSync.append(Envelope(to: fetch.primary, ok))
        case .idle, .choosing: return
        }
    }

    /// Whether a message of view `number` from `from` is to be followed: as a backup of that view,
    /// or as a learner of its primary that has the state.
    private mutating func isFollowing(_ number: ViewNumber, _ from: Instance) -> Bool {
        guard let view, view.number == number, view.primary.instance == from else { return false }
        switch status {
        case .normal:
            guard !isPrimary, fork == nil else { return false }
            isAttached = true
            ticksSinceFollowed = 0
            return true
        case .learning:
            fetch?.ticksSinceNews = 0
            return fetch?.primary == from && fetch?.isRestored == true
        case .idle, .choosing: return false
        }
    }

    mutating func onCommit(
        _ number: ViewNumber, _ commit: OpNumber, _ hash: LogHash, from: Instance,
        into outbox: inout Outbox
    ) {
        guard isFollowing(number, from) else { return }
        if isSameLog(commit, hash) == false {
            onDifference(with: from, at: commit, into: &outbox)
            return
        }
        learnCommit(commit, into: &outbox)
        // Entries go out before it is said that they are committed.
        if status == .learning, commit > matched {
            failJoin("a part of the log is missing", into: &outbox)
        }
    }

    /// Learns that everything through `commit` is on every member: so it is in this log too, and
    /// it is the primary's.
    private mutating func learnCommit(_ commit: OpNumber, into outbox: inout Outbox) {
        if status == .normal { checkForLostEnd(committed: end(at: commit), into: &outbox) }
        if status == .normal, commit <= op { matched = max(matched, commit) }
        commitMax = max(commitMax, min(commit, matched))
        executeCommitted(through: commitMax, into: &outbox)
    }

    mutating func onConfirm(
        _ number: ViewNumber, _ probe: UInt64, from: Instance, into outbox: inout Outbox
    ) {
        guard status == .normal, isFollowing(number, from), breakage != .readsUnconfirmed else {
            return
        }
        outbox.send.append(Envelope(to: from, .confirmOK(view: number, probe: probe)))
    }

    /// Tells the primary from where on to send, and that this replica is in the view.
    mutating func attach(into outbox: inout Outbox) {
        guard status == .normal, fork == nil, let view, !isPrimary else { return }
        isAttached = false
        let known = hash(at: matched)
        let attach = Message.attach(
            view: view.number, op: known == nil ? commitMin : matched, hash: known ?? commitHash)
        outbox.sendAfterSync.append(Envelope(to: view.primary.instance, attach))
        // Behind the attach, and so behind the view, without which it would say nothing to a primary
        // that has just been named.
        outbox.sendAfterSync.append(
            Envelope(to: view.primary.instance, .witnesses(witnessesHere)))
    }

    // MARK: The primary's side

    /// The index of a backup of the view that this replica leads.
    func backupIndex(_ number: ViewNumber, _ from: Instance) -> Int? {
        guard let view, view.number == number, isPrimary else { return nil }
        return view.backups.firstIndex { $0.instance == from }
    }

    mutating func onPrepareOK(
        _ number: ViewNumber, _ acked: OpNumber, from: Instance, into outbox: inout Outbox
    ) {
        guard let index = backupIndex(number, from), acked <= op else { return }
        progress[index].acked = max(progress[index].acked, acked)
        advanceCommit(into: &outbox)
        checkDrain(into: &outbox)
    }

    mutating func onAttach(
        _ number: ViewNumber, _ matched: OpNumber, _ hash: LogHash, from: Instance,
        into outbox: inout Outbox
    ) {
        guard let index = backupIndex(number, from), let view else {
            compare(number, matched, hash, from: from, into: &outbox)
            return
        }
        guard matched <= op else {
            // What a backup has of this view's log is this primary's, or was. Before it is told to do
            // without this one it is to see whether what is left is a part of it.
            let rest = Message.attach(view: view.number, op: op, hash: lastHash)
            outbox.sendAfterSync.append(Envelope(to: from, rest))
            checkForLostEnd(had: LogEnd(view: ViewNumber(0), op: matched), into: &outbox)
            return
        }
        if isSameLog(matched, hash) == false {
            onDifference(with: from, at: matched, into: &outbox)
            return
        }
        // Everything committed is on all members, also where the backup does not know it yet.
        let sure = max(matched, commitMax)
        progress[index].acked = max(progress[index].acked, sure)
        progress[index].sent = breakage == .nothingResent ? op : sure
        if progress.allSatisfy({ $0.sent != nil }) { isUncompared = false }
        outbox.sendAfterSync.append(Envelope(to: from, commitMessage(view)))
        if probe > progress[index].confirmed {
            outbox.send.append(Envelope(to: from, .confirm(view: view.number, probe: probe)))
        }
        sendLog(into: &outbox)
        advanceCommit(into: &outbox)
        checkDrain(into: &outbox)
    }

    func commitMessage(_ view: View) -> Message {
        .commit(view: view.number, commitMax: commitMin, hash: commitHash)
    }

    /// Who speaks of an older view is told the newest.
    func tellIfBehind(_ number: ViewNumber, _ from: Instance, into outbox: inout Outbox) {
        guard let view, number < view.number else { return }
        outbox.sendAfterSync.append(Envelope(to: from, .view(view)))
    }

    mutating func onConfirmReads(into outbox: inout Outbox) {
        guard status == .normal, isPrimary, let view else { return }
        probe += 1
        for (backup, progress) in zip(view.backups, progress) where progress.sent != nil {
            outbox.send.append(
                Envelope(to: backup.instance, .confirm(view: view.number, probe: probe)))
        }
    }

    mutating func onConfirmOK(_ number: ViewNumber, _ probe: UInt64, from: Instance) {
        // One that has not attached yet may be confirming to this replica's life before.
        guard let index = backupIndex(number, from), probe <= self.probe,
            progress[index].sent != nil
        else { return }
        progress[index].confirmed = max(progress[index].confirmed, probe)
    }

    /// Lets idle backups know what has been committed.
    mutating func sendCommit(into outbox: inout Outbox) {
        guard status == .normal, isPrimary, let view, commitSent < commitMax else { return }
        commitSent = commitMax
        let commit = commitMessage(view)
        for (backup, progress) in zip(view.backups, progress) where progress.sent != nil {
            outbox.sendAfterSync.append(Envelope(to: backup.instance, commit))
        }
        for learner in learners where learner.sent != nil {
            outbox.sendAfterSync.append(Envelope(to: learner.member.instance, commit))
        }
    }
}

extension Message {
    /// The view in which the sender takes itself to be; nil where that is not what the message is
    /// about.
    var viewSpokenIn: ViewNumber? {
        switch self {
        case .prepare(let view, _, _): view
        case .commit(let view, _, _), .confirm(let view, _), .prepareOK(let view, _),
            .confirmOK(let view, _), .attach(let view, _, _), .election(let view, _),
            .electionOK(let view), .fork(let view, _):
            view
        case .witnesses, .seek, .grant, .outbid, .propose, .accepted, .view, .join, .state,
            .learnOK, .joinRefused, .leave, .stop, .beat, .relay:
            nil
        }
    }
}
