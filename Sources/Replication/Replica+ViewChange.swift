import Wire

// What the next view should be, and what entering or leaving one means.
extension Replica {
    /// The view this replica would propose now.
    func nextView() -> View? {
        guard let view else { return nil }
        // Who has more of the log is not left out: its grant has come just now.
        let alive = view.members.filter {
            $0.instance == me.instance || !hasFailed($0.instance) || granted($0) > logEnd
        }
        var primary = me
        var others = alive.filter { $0.instance != me.instance }
        if view.primary.instance != me.instance {
            // Taking over: the old primary comes back, if it does, as a learner.
            others.removeAll { $0.instance == view.primary.instance }
            // Who has more of its log leads: this one's disk may have lost what was committed.
            if let best = others.indices.max(by: { granted(others[$0]) < granted(others[$1]) }),
                granted(others[best]) > logEnd
            {
                primary = others[best]
                others[best] = me
            }
        } else {
            switch drain?.goal {
            case .admit(let instance):
                if let learner = learners.first(where: { $0.member.instance == instance }),
                    learner.acked == op || breakage == .learnerTooEarly
                {
                    others.append(learner.member)
                }
            case .handOver(let heir):
                if let index = others.firstIndex(where: { $0.instance == heir }) {
                    primary = others[index]
                    others[index] = me
                }
            case nil: break
            }
        }
        let electorate = electorate(primary: primary, backups: others)
        return View(
            number: view.number.next, primary: primary, backups: others, electorate: electorate,
            base: knownCommitted)
    }

    /// Where this member's log ends, if it has granted, and this replica's disk may have lost what it
    /// had. (Else what others have more is on its way here.)
    private func granted(_ member: Member) -> LogEnd {
        guard hasRestarted, let view, let campaign,
            let index = view.electorate.firstIndex(of: member.instance),
            case .granted(_, let end) = campaign.answers[index]
        else { return .beginning }
        return end
    }

    /// The members and so many witnesses that the number is odd; without any, two replicas of one
    /// host decide together (each can prove the other's end), and of two hosts the primary alone.
    func electorate(primary: Member, backups: [Member]) -> [Instance] {
        let members = [primary] + backups
        guard members.count > 1 else { return [primary.instance] }
        let available = usableWitnesses(of: backups.map(\.instance) + [primary.instance])
        var wanted = min(3, available.count)
        if (members.count + wanted) % 2 == 0 { wanted -= 1 }
        if wanted > 0 {
            // Those of today first, so that the electorate changes no more than it must.
            let today = available.filter { view?.electorate.contains($0) ?? false }
            let fresh = available.filter { !today.contains($0) }
            let chosen = (today + fresh).prefix(wanted)
            return (members.map(\.instance) + chosen).sorted()
        }
        let hosts = members.map { $0.instance == me.instance ? me.host : lives.host(of: $0) }
        if hosts.count == 2, hosts[0] != hosts[1] { return [primary.instance] }
        return members.map(\.instance).sorted()
    }

    /// Witnesses that are connected to all of `members`, as far as known here; a present one that
    /// is away only for a moment counts.
    private func usableWitnesses(of members: [Instance]) -> [Instance] {
        guard let view else { return [] }
        let others = members.filter { $0 != me.instance }
        func isSeen(_ witness: Instance, by member: Instance) -> Bool {
            guard let index = view.backups.firstIndex(where: { $0.instance == member }),
                index < progress.count
            else { return false }
            return progress[index].witnesses.contains(witness)
        }
        let seen = witnessesHere.filter { witness in
            others.allSatisfy { isSeen(witness, by: $0) }
        }
        let isSameSet = Set(members) == Set(view.members.map(\.instance))
        let waiting =
            isSameSet
            ? view.witnesses.filter { witness in
                !seen.contains(witness)
                    && absences.contains {
                        $0.witness == witness && $0.ticks < timing.absenceTicksMax
                    }
            } : []
        return (seen + waiting).sorted()
    }

    // MARK: Entering and leaving

    /// News of a decided view, from anybody.
    mutating func onView(_ news: View, from: Instance, into outbox: inout Outbox) {
        let isOlderTaken = breakage == .oldNewsBelieved && news != view
        // Its members tell each other. One that is in no view may be the last to know of it: its new
        // primary, even, has not heard of it if the one before decided it alone; and one that has come
        // back into a view that is over may be connected to no other.
        if !isMember, let view, news.number < view.number {
            outbox.sendAfterSync.append(Envelope(to: from, .view(view)))
        }
        noteRival(news, into: &outbox)
        guard news.number > (view?.number ?? ViewNumber(0)) || isOlderTaken else { return }
        // Those who have followed this primary hear of it here, if nobody else reaches them.
        if isPrimary, let view {
            for backup in view.backups where backup.instance != news.primary.instance {
                outbox.sendAfterSync.append(Envelope(to: backup.instance, .view(news)))
            }
        }
        tellOutsiders(news, into: &outbox)
        // Who has restarted and has no state any more, where a view names it, has lost that: it comes in to find
        // itself short, and leaves.
        if news.contains(me.instance), isMember || hasState || hasRestarted {
            enter(news, into: &outbox)
            return
        }
        let wasMember = isMember
        let isNext = news.number == view?.number.next
        if !(wasMember && breakage == .staysAfterRemoval) { learnOfView(news, into: &outbox) }
        if wasMember {
            if breakage == .staysAfterRemoval {
                outbox.effects.append(.removed(news))
                return
            }
            stepDown(isNext: isNext, into: &outbox)
            outbox.effects.append(.removed(news))
        } else if status == .learning, fetch?.primary != news.primary.instance {
            failJoin("replica \(news.primary.id) leads now", into: &outbox)
        } else if status == .learning, fetch?.isRestored == true, !isNext {
            // In a view that was missed another may have led, and this one's log been cut.
            failJoin("a view was missed", into: &outbox)
        }
    }

    /// A replica that came back from its disk may be in an old view, connected to none but this
    /// one, which was in no view when the connection was made: it takes this one for its backup, and
    /// has no reason to ask.
    private func tellOutsiders(_ news: View, into outbox: inout Outbox) {
        for instance in links where !news.contains(instance) {
            outbox.sendAfterSync.append(Envelope(to: instance, .view(news)))
        }
    }

    mutating func learnOfView(_ news: View, into outbox: inout Outbox) {
        lives.learn(news.members, before: view)
        view = news
        if breakage != .viewUnrecorded { outbox.records.append(.view(news)) }
        acceptor = Acceptor()
        acceptor.breakage = breakage
        counterSeen = 0
        // Who was far away for the choice of this view is so for the next.
        attemptsFailed = max(0, attemptsFailed - 1)
        mustFinish = false
        heardCommitted = news.base
        isUncompared = false
        fork = nil
        campaign = nil
        forgetElection()
    }

    /// This replica is out: what it could not commit was never answered, and goes. `isNext`: of the view
    /// after the one that it was in. What was committed before that was chosen is on it, and may be
    /// on no other disk any more.
    private mutating func stepDown(isNext: Bool, into outbox: inout Outbox) {
        if isNext, missing == nil, let view {
            // Where its log ends before the base its disk has lost the end of what it had, and what is left may
            // be what had been cut off before.
            let sure = view.base.op > op ? matched : op
            if !hasOther(than: view.base) { commitMax = max(commitMax, min(sure, view.base.op)) }
            executeCommitted(through: commitMax, into: &outbox)
        }
        status = .idle
        missing = nil
        log = []
        op = commitMin
        commitMax = commitMin
        matched = commitMin
        clearViewState()
        outbox.records.append(.truncated(after: op))
        outbox.effects.append(.truncated(after: op))
    }

    private mutating func clearViewState() {
        progress = []
        learners = []
        drain = nil
        fetch = nil
        health = []
        absences = []
        isAttached = false
        ticksSinceFollowed = 0
        ticksToNextCampaign = 0
        resetYield()
    }

    mutating func enter(_ next: View, into outbox: inout Outbox) {
        let old = isMember ? view : nil
        // In a view between the two another may have led, and this one's log have been cut.
        let isFollowed = next.number == old?.number.next
        let wasBackupOfSame = old?.primary == next.primary && isFollowed && !isPrimary
        let wasLearner =
            fetch?.isRestored == true && fetch?.primary == next.primary.instance
            && next.number == view?.number.next
        let oldProgress = zip(old?.backups ?? [], progress).map { ($0.0.instance, $0.1) }
        let oldLearners = learners
        let oldHealth = health
        // What the others have of this replica's log is not known before they attach, unless it has led
        // them all the time: its disk may have lost this very view, also if it is now decided again.
        let known = (old?.backups ?? []).map(\.instance) + learners.map(\.member.instance)
        let hasLed =
            campaign?.proposal == next
            && next.backups.allSatisfy { known.contains($0.instance) }
        let isToBeCompared = isUncompared || hasRestarted && !hasLed

        learnOfView(next, into: &outbox)
        clearViewState()
        // A view that names an older process of this instance may have begun, and been over, before
        // this one's life.
        if !next.members.contains(me) { isProofVoid = true }
        status = .normal
        health = next.members.filter { $0.instance != me.instance }.map { member in
            var life = Health(instance: member.instance)
            let known = oldHealth.first { $0.instance == member.instance }
            life.ticksSinceHeard = known?.ticksSinceHeard ?? 0
            life.isRefused = known?.isRefused ?? false
            return life
        }
        noteWitnessChange()
        ticksToBeat = 0
        commitBeaten = OpNumber(0)
        if next.primary.instance == me.instance {
            if breakage == .tailForgotten, old?.primary != me {
                log = []
                op = commitMin
                commitMax = op
                outbox.records.append(.truncated(after: op))
            }
            matched = op
            isUncompared =
                isToBeCompared && !next.backups.isEmpty && breakage != .lostEndUnnoticed
            progress = next.backups.map { backup in
                if var known = oldProgress.first(where: { $0.0 == backup.instance })?.1 {
                    // What it had it still has: it drops nothing before it follows another.
                    known.sent = nil
                    return known
                }
                let learner = oldLearners.first { $0.member.instance == backup.instance }
                return Progress(acked: max(learner?.acked ?? commitMax, commitMax), sent: nil)
            }
            learners = oldLearners.filter { !next.contains($0.member.instance) }
            turnAwaySurplus(into: &outbox)
            for index in learners.indices { tellLearner(learners[index].member.instance, &outbox) }
            // Before it is committed and so leaves the log.
            sendLog(into: &outbox)
            advanceCommit(into: &outbox)
        } else {
            // As a learner, or as a backup of the same primary, what it knew it still knows; under
            // another only what is committed is sure.
            if breakage == .tailTrusted {
                matched = op
            } else if !wasLearner, !wasBackupOfSame {
                matched = commitMax
            }
            attach(into: &outbox)
        }
        outbox.effects.append(.entered(next))
        checkBase(into: &outbox)
    }

    /// One whose connection broke while its admission was being decided may come in all the same,
    /// and another have been given its place meanwhile.
    private mutating func turnAwaySurplus(into outbox: inout Outbox) {
        while let view, let last = learners.last, breakage != .placesUncounted,
            view.members.count + learners.count > membersMax
        {
            learners.removeLast()
            refuse(last.member.instance, last.join, holder: view.backups.last, into: &outbox)
        }
    }

    private func tellLearner(_ learner: Instance, _ outbox: inout Outbox) {
        guard let view else { return }
        outbox.sendAfterSync.append(Envelope(to: learner, .view(view)))
    }

    /// Tells everybody concerned that `next` was decided; to be called before entering it.
    mutating func announce(_ next: View, into outbox: inout Outbox) {
        // Learners are told when it is entered, before what follows.
        var told = [me.instance]
        told += learners.map(\.member.instance).filter { !next.contains($0) }
        let all =
            (view?.electorate ?? []) + (view?.members.map(\.instance) ?? [])
            + next.members.map(\.instance) + next.electorate + links
        for instance in all where !told.contains(instance) {
            told.append(instance)
            outbox.sendAfterSync.append(Envelope(to: instance, .view(next)))
        }
    }

    /// Whether it could lead alone on an operator's word. A primary alone needs none. One that has
    /// come back from its disk and waits for the others does, and so does one who knows that others
    /// went on without it, and is all that is left.
    package var mayBePromoted: Bool {
        guard let view, hasState, status != .learning else { return false }
        return !isPrimary || !view.backups.isEmpty || missing != nil || fork != nil
    }

    mutating func onPromoteByForce(into outbox: inout Outbox) {
        guard let view, mayBePromoted else { return }
        let number = ViewNumber(view.number.rawValue + ViewNumber.forceStep)
        let next = View(
            number: number, primary: me, backups: [], electorate: [me.instance],
            base: end(at: commitMax))
        announce(next, into: &outbox)
        missing = nil
        enter(next, into: &outbox)
    }
}
