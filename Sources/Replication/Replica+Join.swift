package import Wire

/// One piece of a snapshot on its way to a learner.
struct StatePiece {
    var join: JoinID
    var view: View
    var end: LogEnd
    var hash: LogHash
    var piece: Int
    var pieces: Int
    var bytes: [UInt8]

    var op: OpNumber { end.op }
}

// How a replica comes into the view: it fetches the state, follows the log as a learner, and once
// it has acked everything the primary proposes a view with it (Vertical Paxos, section 3.2).
extension Replica {
    /// The state after `end`, where it is not 0, came from another service: to this one's records
    /// it is as one that came from another replica. The shell has it already, and on its disk.
    mutating func onCreate(after end: LogEnd, _ hash: LogHash, into outbox: inout Outbox) {
        precondition(status == .idle && view == nil && op.rawValue == 0, "create while \(status)")
        let first = end.op
        if first.rawValue > 0 { outbox.records.append(.restored(end, hash: hash)) }
        (op, commitMin, commitMax, matched) = (first, first, first, first)
        (commitHash, commitView) = (hash, end.view)
        hasState = true
        let view = View(
            number: ViewNumber(1), primary: me, backups: [], electorate: [me.instance],
            base: end)
        enter(view, into: &outbox)
    }

    // MARK: The learner

    mutating func onJoinWanted(_ primary: Instance, _ join: JoinID, into outbox: inout Outbox) {
        // A replica that a proposed view may name keeps its log and waits to be told.
        guard status == .idle || status == .learning else { return }
        status = .learning
        // What it has not executed is not known to be a part of the history.
        let has = Learned(end: LogEnd(view: commitView, op: commitMin), hash: commitHash)
        let fetch = Fetch(primary: primary, join: join, has: has)
        self.fetch = fetch
        outbox.sendAfterSync.append(Envelope(to: primary, joinRequest(fetch)))
    }

    func joinRequest(_ fetch: Fetch) -> Message {
        .join(fetch.join, me, end: fetch.has.end, hash: fetch.has.hash)
    }

    mutating func onState(_ part: StatePiece, from: Instance, into outbox: inout Outbox) {
        guard status == .learning, var fetch, fetch.primary == from, fetch.join == part.join else {
            return
        }
        // A second state means that the primary had forgotten this learner: what was learnt before
        // may not be its log any more.
        // And one of an older view than is known here comes from a primary that does not know it is
        // over: the view known, or the next, may count on this log.
        // That is to be seen by the last piece, which alone changes anything.
        let isLast = part.piece + 1 >= part.pieces
        guard !fetch.isRestored, part.piece == fetch.piecesSeen, !part.view.contains(me.instance),
            !isLast || part.view.number >= view?.number ?? ViewNumber(0),
            fetch.snapshot.count + part.bytes.count <= Self.stateBytesMax
        else {
            failJoin("the state came in disorder", into: &outbox)
            return
        }
        if part.pieces == 0 {
            followFromHere(part, from: from, into: &outbox)
            return
        }
        // Moved out and back: with two owners each piece would copy all those before it.
        self.fetch = nil
        fetch.piecesSeen += 1
        fetch.ticksSinceNews = 0
        fetch.snapshot += part.bytes
        guard fetch.piecesSeen == part.pieces else {
            self.fetch = fetch
            return
        }
        // Only here, with the whole new state in hand, does the old log go.
        outbox.records.append(.restored(part.end, hash: part.hash))
        outbox.effects.append(.restore(op: part.op, snapshot: fetch.snapshot))
        fetch.snapshot = []
        fetch.isRestored = true
        self.fetch = fetch
        hasState = true
        log = []
        kept.removeAll()
        commitHash = part.hash
        commitView = part.end.view
        (op, commitMin, commitMax, matched) = (part.op, part.op, part.op, part.op)
        if part.view.number > (view?.number ?? ViewNumber(0)) {
            learnOfView(part.view, into: &outbox)
        }
        let ok = Message.learnOK(part.join, op: op)
        outbox.sendAfterSync.append(Envelope(to: from, ok))
    }

    /// What this replica has executed is a part of the primary's history, of which it needs no more
    /// than the rest. Nothing of the log behind it is taken for the primary's, and nothing is
    /// thrown away before that has sent something else in its place: an earlier join may have ended
    /// with a view that names this replica, which then must have all that it acked.
    private mutating func followFromHere(
        _ part: StatePiece, from: Instance, into outbox: inout Outbox
    ) {
        guard part.op == fetch?.has.end.op, part.op == commitMin else {
            failJoin("the state came in disorder", into: &outbox)
            return
        }
        outbox.effects.append(.stateKept(op: part.op))
        fetch?.isRestored = true
        fetch?.ticksSinceNews = 0
        matched = breakage == .rejoinTailTrusted ? op : commitMin
        if part.view.number > (view?.number ?? ViewNumber(0)) {
            learnOfView(part.view, into: &outbox)
        }
        let ok = Message.learnOK(part.join, op: matched)
        outbox.sendAfterSync.append(Envelope(to: from, ok))
    }

    mutating func onJoinRefused(
        _ join: JoinID, _ reason: String, from: Instance, into outbox: inout Outbox
    ) {
        guard status == .learning, let fetch, fetch.join == join, fetch.primary == from else {
            return
        }
        self.fetch = nil
        status = .idle
        outbox.effects.append(.joinFailed(reason: reason, isPlaceTaken: true))
    }

    /// The present try is over; the log stays, since a proposed view may already name this replica.
    mutating func failJoin(_ reason: String, into outbox: inout Outbox) {
        guard status == .learning else { return }
        fetch = nil
        status = .idle
        outbox.effects.append(.joinFailed(reason: reason, isPlaceTaken: false))
    }

    // MARK: The primary

    mutating func onJoin(
        _ join: JoinID, _ member: Member, _ has: Learned, from: Instance, into outbox: inout Outbox
    ) {
        // What a process has said before its end may come after the proof of that.
        guard isPrimary, let view, member.instance == from, !lives.haveEnded(from) else { return }
        if view.contains(from) {
            // It is in already and does not know it.
            outbox.sendAfterSync.append(Envelope(to: from, .view(view)))
            return
        }
        if let index = learnerIndex(from, join) {
            // Only to say that it is still there.
            learners[index].ticksSinceHeard = 0
            return
        }
        // The proposed view may name this learner, by an earlier join, and count on the log that it
        // would put a state in the place of. After a restart that state can be older than what was
        // committed since the checkpoint. It asks again when the view is known.
        guard status == .normal else { return }
        learners.removeAll { $0.member.instance == from }
        guard view.members.count + learners.count < membersMax || breakage == .placesUncounted
        else {
            // A place may become free, of a member that is gone, or has not come back: it asks again. And
            // who has executed what this primary has not heard of shows that this view may be over.
            if isUncompared || campaign != nil || needsChange || has.end.view > view.number {
                return
            }
            let holder = view.backups.first ?? learners[0].member
            refuse(from, join, holder: holder, into: &outbox)
            return
        }
        guard !isFork(has) else {
            // It has executed what this primary has not heard of: not the newcomer is out of place, and it
            // has told of the later view already. (Of a service that began with a copy it may be the view in
            // which that was taken.)
            guard has.end.view <= view.number else { return }
            let reason =
                "up to op \(has.end.op) its log is another than the service's, as no promotion by force "
                + "explains: its disk, or that of the primary, is an older copy that has gone on since. "
                + "Start it with an empty folder to give up what only it has acknowledged (pollctl journal "
                + "shows it)"
            outbox.send.append(Envelope(to: from, .joinRefused(join, reason: reason)))
            return
        }
        var learner = Learner(member: member, join: join)
        guard isPartOfHistory(has) else {
            learners.append(learner)
            outbox.effects.append(.sendState(to: from, join: join, view: view))
            return
        }
        learner.sent = has.end.op
        learners.append(learner)
        let state = Message.state(
            join, view: view, end: has.end, hash: has.hash, piece: 0, pieces: 0, bytes: [])
        outbox.sendAfterSync.append(Envelope(to: from, state))
        sendLog(into: &outbox)
    }

    /// Whether what the learner has executed stands in this replica's history, and all that follows
    /// is at hand. After a promotion by force it may be the end of another history, of which this
    /// one knows an older part only: so the op alone does not tell.
    private func isPartOfHistory(_ has: Learned) -> Bool {
        has.end.op.rawValue > 0 && isSameLog(has.end.op, has.hash) == true
    }

    /// Whether what the learner has executed is certainly not a part of this history, and nobody has
    /// said, by a promotion by force since, that it may be lost.
    private func isFork(_ has: Learned) -> Bool {
        guard let view, has.end.op.rawValue > 0, has.end.view.era >= view.number.era else {
            return false
        }
        // Executed is committed: whoever leads has it.
        return has.end.op > op || isSameLog(has.end.op, has.hash) == false
    }

    func refuse(
        _ learner: Instance, _ join: JoinID, holder: Member?, into outbox: inout Outbox
    ) {
        let name = holder.map { "replica \($0.id) at \($0.address)" } ?? "another"
        let reason =
            switch election {
            case .sticky: "the place is taken by \(name)"
            case .bully: "all \(membersMax) places of the group are taken"
            }
        let refusal = Message.joinRefused(join, reason: reason)
        outbox.send.append(Envelope(to: learner, refusal))
    }

    mutating func onStateSent(
        _ learner: Instance, _ join: JoinID, _ op: OpNumber, into outbox: inout Outbox
    ) {
        guard let index = learnerIndex(learner, join) else { return }
        // More may have been committed while the state was written; if too much, it asks anew.
        guard op == commitMin || kept.first.map({ $0 <= op.next }) ?? false else {
            forgetLearner(learner)
            return
        }
        learners[index].sent = op
        sendLog(into: &outbox)
    }

    /// Whether a state is still to be sent to this learner, who asked in this join.
    package func awaitsState(_ learner: Instance, _ join: JoinID) -> Bool {
        learnerIndex(learner, join).map { learners[$0].sent == nil } ?? false
    }

    mutating func onLearnOK(
        _ join: JoinID, op acked: OpNumber, from: Instance, into outbox: inout Outbox
    ) {
        guard let index = learnerIndex(from, join), acked <= op else { return }
        learners[index].acked = max(learners[index].acked ?? acked, acked)
        learners[index].ticksSinceHeard = 0
        admitLearner(into: &outbox)
        checkDrain(into: &outbox)
    }

    /// Begins to let in a learner that lacks only what is on its way: requests stop for a moment
    /// and let that arrive. Looked at time and again, as another change may have come in between.
    mutating func admitLearner(into outbox: inout Outbox) {
        guard drain == nil, campaign == nil, status == .normal, ticksToNextCampaign == 0,
            let ready = learners.first(where: { learner in
                learner.acked.map { $0 >= commitMax }
                    ?? (breakage == .learnerTooEarly && learner.sent != nil)
            })
        else { return }
        drain = Drain(goal: .admit(ready.member.instance))
        checkDrain(into: &outbox)
    }

    private func learnerIndex(_ instance: Instance, _ join: JoinID) -> Int? {
        guard isPrimary else { return nil }
        return learners.firstIndex { $0.member.instance == instance && $0.join == join }
    }

    /// A learner whose machine is gone says nothing, nor does its connection: it must not hold the
    /// place of one that is there.
    mutating func tickLearners() {
        for index in learners.indices { learners[index].ticksSinceHeard += 1 }
        let silent = learners.filter { $0.ticksSinceHeard > joinTicksMax }
        for learner in silent { forgetLearner(learner.member.instance) }
    }

    /// How long either side of a join waits for a word from the other.
    var joinTicksMax: Int { timing.suspectTicks + 10 * timing.retryTicks }

    mutating func forgetLearner(_ instance: Instance) {
        learners.removeAll { $0.member.instance == instance }
        if case .admit(instance) = drain?.goal, campaign == nil { drain = nil }
    }

    // MARK: Planned changes

    mutating func onHandOver(into outbox: inout Outbox) {
        guard status == .normal, isPrimary, drain == nil, let view, breakage != .handOverIgnored
        else { return }
        let isWhole = view.backups.allSatisfy { !hasFailed($0.instance) }
        guard isWhole, let heir = view.backups.max(by: { $1.outranks($0) }) else { return }
        drain = Drain(goal: .handOver(to: heir.instance))
        checkDrain(into: &outbox)
    }

    /// Proposes what a drain has waited for, as soon as everything is acked.
    mutating func checkDrain(into outbox: inout Outbox) {
        guard status == .normal, campaign == nil, let drain else { return }
        let isReady =
            switch drain.goal {
            case .admit(let instance):
                learners.first { $0.member.instance == instance }?.acked == op
                    || breakage == .learnerTooEarly
            case .handOver: progress.allSatisfy { $0.acked == op && $0.sent != nil }
            }
        if isReady { startChange(into: &outbox) }
    }
}
