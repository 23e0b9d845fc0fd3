import Wire

/// One piece of a snapshot on its way to a learner.
struct StatePiece {
    var join: JoinID
    var view: View
    var op: OpNumber
    var piece: Int
    var pieces: Int
    var bytes: [UInt8]
}

// How a replica comes into the view: it fetches the state, follows the log as a learner, and once
// it has acked everything the primary proposes a view with it (Vertical Paxos, section 3.2).
extension Replica {
    mutating func onCreate(into outbox: inout Outbox) {
        precondition(status == .idle && view == nil, "create while \(status)")
        let first = View(
            number: ViewNumber(1), primary: me, backups: [], electorate: [me.instance])
        hasState = true
        enter(first, into: &outbox)
    }

    // MARK: The learner

    mutating func onJoinWanted(_ primary: Instance, _ join: JoinID, into outbox: inout Outbox) {
        // A replica that a proposed view may name keeps its log and waits to be told.
        guard status == .idle || status == .learning else { return }
        status = .learning
        fetch = Fetch(primary: primary, join: join)
        if breakage == .joinWipesLog {
            log = []
            (op, commitMax, matched) = (commitMin, commitMin, commitMin)
        }
        outbox.sendAfterSync.append(Envelope(to: primary, .join(join, me)))
    }

    mutating func onState(_ part: StatePiece, from: Instance, into outbox: inout Outbox) {
        guard status == .learning, var fetch, fetch.primary == from, fetch.join == part.join else {
            return
        }
        // A second state means that the primary had forgotten this learner: what was learnt before
        // may not be its log any more.
        guard !fetch.isRestored, part.piece == fetch.piecesSeen, !part.view.contains(me.instance),
            fetch.snapshot.count + part.bytes.count <= Fetch.snapshotBytesMax
        else {
            failJoin("the state came in disorder", into: &outbox)
            return
        }
        fetch.piecesSeen += 1
        fetch.ticksSinceNews = 0
        fetch.snapshot += part.bytes
        guard fetch.piecesSeen == part.pieces else {
            self.fetch = fetch
            return
        }
        // Only here, with the whole new state in hand, does the old log go.
        outbox.records.append(.restored(op: part.op))
        outbox.effects.append(.restore(op: part.op, snapshot: fetch.snapshot))
        fetch.snapshot = []
        fetch.isRestored = true
        self.fetch = fetch
        hasState = true
        log = []
        (op, commitMin, commitMax, matched) = (part.op, part.op, part.op, part.op)
        if part.view.number > (view?.number ?? ViewNumber(0)) {
            learnOfView(part.view, into: &outbox)
        }
        let ok = Message.learnOK(part.join, op: op)
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
        _ join: JoinID, _ member: Member, from: Instance, into outbox: inout Outbox
    ) {
        // What a process has said before its end may come after the proof of that.
        guard isPrimary, let view, member.instance == from, !exited.contains(from) else { return }
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
        learners.removeAll { $0.member.instance == from }
        guard view.members.count + learners.count < membersMax || breakage == .placesUncounted
        else {
            let holder = view.backups.first ?? learners[0].member
            refuse(from, join, holder: holder, into: &outbox)
            return
        }
        learners.append(Learner(member: member, join: join))
        outbox.effects.append(.sendState(to: from, join: join))
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
        guard let index = learnerIndex(learner, join), op == commitMin else { return }
        learners[index].sent = op
        sendLog(into: &outbox)
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
        guard status == .normal, isPrimary, drain == nil, let view else { return }
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
