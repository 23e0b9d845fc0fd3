package import Wire

// Who is alive, which clients can witness, and what time brings.
extension Replica {
    /// Whether this replica counts another member of its view as failed.
    package func hasFailed(_ instance: Instance) -> Bool {
        if lives.haveEnded(instance) { return true }
        guard let life = health.first(where: { $0.instance == instance }) else { return false }
        return life.isRefused || life.hasLeft || life.ticksSinceHeard > timing.suspectTicks
    }

    /// Whether the view has a member that has failed and whose failure is this replica's to mend:
    /// any for the primary, the primary for a backup.
    var needsChange: Bool {
        guard isMember, let view else { return false }
        if isPrimary { return view.backups.contains { hasFailed($0.instance) } }
        return hasFailed(view.primary.instance)
    }

    mutating func onLinkUp(_ instance: Instance, into outbox: inout Outbox) {
        // It has come back from its disk: it is another process, and as alive as any.
        lives.connected(instance)
        if !links.contains(instance) {
            links.append(instance)
            links.sort()
        }
        if let index = health.firstIndex(where: { $0.instance == instance }) {
            health[index].isRefused = false
        }
        guard isMember, let view else {
            // A backup of the newest view may have missed it, with nobody else left to tell.
            if let view, view.backups.contains(where: { $0.instance == instance }) {
                outbox.sendAfterSync.append(Envelope(to: instance, .view(view)))
            }
            return
        }
        if !isPrimary, view.primary.instance == instance { attach(into: &outbox) }
        leaveAsShort(into: &outbox)
        // It may have been cut off, or stopped, while views changed; even if it is in this one, it
        // need not know.
        tellIfBehind(ViewNumber(0), instance, into: &outbox)
    }

    mutating func onLinkDown(_ instance: Instance, into outbox: inout Outbox) {
        links.removeAll { $0 == instance }
        if let index = view?.backups.firstIndex(where: { $0.instance == instance }), isPrimary {
            progress[index].sent = nil
        }
        if instance == view?.primary.instance { isAttached = false }
        forgetLearner(instance)
        if fetch?.primary == instance { failJoin("the connection to it broke", into: &outbox) }
    }

    mutating func onHeard(_ instance: Instance) {
        // Heartbeats alone do not help a member with which no log can be exchanged.
        guard links.contains(instance) else { return }
        if let index = health.firstIndex(where: { $0.instance == instance }) {
            health[index].ticksSinceHeard = 0
        }
    }

    mutating func onRefused(_ instance: Instance, into outbox: inout Outbox) {
        guard let index = health.firstIndex(where: { $0.instance == instance }),
            !health[index].isRefused
        else { return }
        health[index].isRefused = true
        mend(into: &outbox)
    }

    mutating func onExited(_ instance: Instance, _ life: Life?, into outbox: inout Outbox) {
        guard lives.end(instance, life) else { return }
        forgetLearner(instance)
        if fetch?.primary == instance { failJoin("its process has exited", into: &outbox) }
        mend(into: &outbox)
    }

    mutating func onLeave(_ instance: Instance, from: Instance, into outbox: inout Outbox) {
        guard instance == from, isMember, let view, breakage != .leaveIgnored else { return }
        if let index = health.firstIndex(where: { $0.instance == instance }) {
            // Who is short says it again and again. That is no news: if each time it let all who hear
            // it ask at once, whatever pause they are in, they would outbid each other for ever.
            guard !health[index].hasLeft else { return }
            health[index].hasLeft = true
            mend(into: &outbox)
        } else if view.electorate.contains(instance) {
            noteAbsence(of: instance, ticks: timing.absenceTicksMax)
            witnessesHere.removeAll { $0 == instance }
            mendElectorate(into: &outbox)
        } else {
            forgetLearner(instance)
        }
    }

    /// Starts what a failure calls for, at once. A planned change that waits for the failed
    /// member's acks would wait for ever.
    mutating func mend(into outbox: inout Outbox) {
        guard needsChange else { return }
        // A running phase 1 asks again at once: its electors are told of the death now.
        if let campaign, campaign.phase == .seeking { sendCampaign(into: &outbox) }
        if case .handOver = drain?.goal, campaign == nil { drain = nil }
        elect(into: &outbox)
        if mayCampaign { startChange(into: &outbox) }
        checkGrants(into: &outbox)
        checkAccepted(into: &outbox)
    }

    // MARK: Witnesses

    mutating func onWitnesses(_ instances: [Instance], into outbox: inout Outbox) {
        guard instances != witnessesHere else { return }
        witnessesHere = instances
        noteWitnessChange()
        guard isMember, let view, !isPrimary else { return }
        outbox.sendAfterSync.append(Envelope(to: view.primary.instance, .witnesses(instances)))
    }

    mutating func onWitnessReport(_ instances: [Instance], from: Instance) {
        guard isPrimary, let view,
            let index = view.backups.firstIndex(where: { $0.instance == from })
        else { return }
        guard progress[index].witnesses != instances else { return }
        progress[index].witnesses = instances
        noteWitnessChange()
    }

    mutating func noteWitnessChange() {
        ticksSinceWitnessChange = 0
        isElectorateChecked = false
    }

    private mutating func noteAbsence(of witness: Instance, ticks: Int) {
        if let index = absences.firstIndex(where: { $0.witness == witness }) {
            absences[index].ticks = max(absences[index].ticks, ticks)
        } else {
            absences.append(Absence(witness: witness, ticks: ticks))
        }
    }

    /// Primary: counts how long each witness of the electorate has been away from any member.
    private mutating func tickAbsences() {
        guard let view else { return }
        let away = view.witnesses.filter { witness in
            !witnessesHere.contains(witness)
                || progress.contains { !$0.witnesses.contains(witness) }
        }
        absences.removeAll { absence in !away.contains(absence.witness) }
        for witness in away { noteAbsence(of: witness, ticks: 0) }
        for index in absences.indices { absences[index].ticks += 1 }
    }

    /// Primary: replaces witnesses that have gone and takes more when there are more.
    mutating func mendElectorate(into outbox: inout Outbox) {
        // A backup that has not said yet which clients it has seems to have none.
        guard status == .normal, isPrimary, !isUncompared, drain == nil, campaign == nil,
            ticksToNextCampaign == 0,
            let view, !view.backups.isEmpty
        else { return }
        let hasLost = absences.contains { $0.ticks >= timing.absenceTicksMax }
        let isSteady = ticksSinceWitnessChange >= timing.steadyTicks
        guard hasLost || (isSteady && !isElectorateChecked) else { return }
        isElectorateChecked = isSteady
        guard nextView()?.electorate != view.electorate else { return }
        startChange(into: &outbox)
    }

    // MARK: Time

    mutating func onTick(into outbox: inout Outbox) {
        for index in health.indices { health[index].ticksSinceHeard += 1 }
        ticksSinceWitnessChange = min(ticksSinceWitnessChange + 1, timing.steadyTicks)
        ticksToRetry -= 1
        tickFetch(into: &outbox)
        defer { if ticksToRetry <= 0 { ticksToRetry = timing.retryTicks } }
        guard isMember else { return }
        tickDrain()
        tickElection(into: &outbox)
        tickCampaign(into: &outbox)
        if isPrimary, status == .normal {
            tickLearners()
            admitLearner(into: &outbox)
            tickYield(into: &outbox)
            tickAbsences()
            mendElectorate(into: &outbox)
        }
        sendCommit(into: &outbox)
        beat(into: &outbox)
        if ticksToRetry <= 0 {
            leaveAsShort(into: &outbox)
            tellOfFork(into: &outbox)
        }
        tickFollowing()
        if ticksToRetry <= 0, let view, status == .normal, !isPrimary, !isAttached,
            links.contains(view.primary.instance)
        {
            attach(into: &outbox)
        }
    }

    /// A primary that is alive and says nothing has nothing to say, or has left this replica
    /// behind in a view that is over. It answers an attach either way.
    private mutating func tickFollowing() {
        guard !isPrimary else { return }
        ticksSinceFollowed += 1
        guard ticksSinceFollowed > 10 * timing.retryTicks else { return }
        ticksSinceFollowed = 0
        isAttached = false
    }

    private mutating func tickDrain() {
        guard campaign == nil, status == .normal, drain != nil else { return }
        drain?.ticks += 1
        guard let ticks = drain?.ticks, ticks > timing.drainTicksMax else { return }
        if case .handOver = drain?.goal { onYieldGivenUp() }
        drain = nil
        // Requests are not to be held up again at once.
        ticksToNextCampaign = timing.retryTicks
    }

    private mutating func tickFetch(into outbox: inout Outbox) {
        guard status == .learning else { return }
        fetch?.ticksSinceNews += 1
        guard let fetch else { return }
        if fetch.ticksSinceNews > joinTicksMax {
            failJoin("it has been silent for too long", into: &outbox)
        } else if ticksToRetry <= 0 {
            outbox.sendAfterSync.append(Envelope(to: fetch.primary, joinRequest(fetch)))
        }
    }

    /// The primary tells its witnesses that it is alive, and what is committed.
    private mutating func beat(into outbox: inout Outbox) {
        guard isPrimary, missing == nil, let view else { return }
        ticksToBeat -= 1
        guard ticksToBeat <= 0 || commitBeaten < commitMax else { return }
        commitBeaten = commitMax
        for witness in view.witnesses {
            let beat = Message.beat(view: view.number, committed: end(at: commitMax))
            outbox.send.append(Envelope(to: witness, beat))
        }
        guard ticksToBeat <= 0 else { return }
        ticksToBeat = timing.beatTicks
        // A learner that has nothing to fetch hears by this that its primary is there.
        for learner in learners where learner.sent != nil {
            outbox.sendAfterSync.append(
                Envelope(to: learner.member.instance, commitMessage(view)))
        }
    }

    // MARK: Invariants

    /// Whole-state checks for tests and simulation.
    package func checkInvariants() {
        precondition(commitMin <= commitMax && commitMax <= op, "\(commitMin) \(commitMax) \(op)")
        precondition(matched <= op, "matched \(matched) of \(op)")
        var next = commitMin.next
        for entry in log {
            precondition(entry.first == next, "log: \(entry.first) where \(next) is due")
            next = entry.last.next
        }
        let keptLast = kept.last ?? commitMin
        precondition(keptLast == commitMin, "kept up to \(keptLast), executed to \(commitMin)")
        precondition(next == op.next, "log ends before \(next), op is \(op)")
        if isPrimary, let view {
            precondition(progress.count == view.backups.count, "progress of \(progress.count)")
        } else {
            precondition(progress.isEmpty && drain == nil, "primary's state in another")
        }
        precondition(bid == nil || (isMember && !isPrimary), "an election at no backup")
        if isMember { precondition(view?.contains(me.instance) == true, "member of no view") }
        precondition((status == .learning) == (fetch != nil), "fetch while \(status)")
    }
}
