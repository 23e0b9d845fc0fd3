import Wire

// Choosing view n+1: one single-decree Paxos for each view number, its acceptors the electorate of
// view n. Only members of view n are candidates.
struct Campaign: Equatable, Sendable {
    enum Phase: Equatable, Sendable {
        case seeking
        case proposing
    }
    enum Answer: Equatable, Sendable {
        case none
        /// And where the elector's log ends.
        case granted(Accepted?, LogEnd)
        case accepted
    }

    var attempt: Attempt
    var phase: Phase
    /// While proposing.
    var proposal: View?
    /// Parallel to the electorate.
    var answers: [Answer]
    var ticks = 0
}

extension Replica {
    /// Begins the choice of the next view if none is under way.
    mutating func startChange(into outbox: inout Outbox) {
        guard isMember, missing == nil, fork == nil, campaign == nil, let view,
            let wanted = nextView()
        else { return }
        // Attempt 0 is the primary's, without phase 1, once: as nobody can have proposed before. One
        // that was dead asks first: the others know what its disk may have lost.
        if isPrimary, acceptor.granted == nil && !isProofVoid || breakage == .attemptZeroTwice {
            let attempt = Attempt(counter: 0, proposer: me.instance)
            let answers = [Campaign.Answer](repeating: .none, count: view.electorate.count)
            campaign = Campaign(attempt: attempt, phase: .seeking, proposal: nil, answers: answers)
            propose(wanted, into: &outbox)
        } else {
            seek(into: &outbox)
        }
    }

    private mutating func seek(into outbox: inout Outbox) {
        guard let view else { return }
        counterSeen += 1
        let attempt = Attempt(counter: counterSeen, proposer: me.instance)
        let answers = [Campaign.Answer](repeating: .none, count: view.electorate.count)
        campaign = Campaign(attempt: attempt, phase: .seeking, proposal: nil, answers: answers)
        if let own = view.electorate.firstIndex(of: me.instance) {
            let outbid = promise(attempt, number: view.number.next, into: &outbox)
            precondition(
                outbid == nil, "own attempt \(attempt) is outbid by \(outbid, default: "")")
            let answer = Campaign.Answer.granted(acceptor.accepted, logEnd)
            campaign?.answers[own] = answer
        } else {
            // No attempt may be made twice, by a candidate that restarts in between.
            outbox.records.append(.promised(number: view.number.next, attempt))
        }
        sendCampaign(into: &outbox)
        checkGrants(into: &outbox)
    }

    /// Sends the present question to every elector that has not answered it.
    func sendCampaign(into outbox: inout Outbox) {
        guard let view, let campaign else { return }
        for (elector, answer) in zip(view.electorate, campaign.answers) {
            guard elector != me.instance else { continue }
            switch (campaign.phase, answer) {
            case (.seeking, .none):
                // Electors who take the primary for alive would else keep alive a view in which
                // this replica acks nothing any more.
                let isViewOver =
                    lives.haveEnded(view.primary.instance) || status == .choosing || mustFinish
                    || health.contains { $0.instance == view.primary.instance && $0.hasLeft }
                let seek = Message.seek(
                    number: view.number.next, attempt: campaign.attempt,
                    isViewOver: isViewOver)
                // An elector that missed the last view could not answer without it.
                outbox.sendAfterSync.append(Envelope(to: elector, .view(view)))
                outbox.sendAfterSync.append(Envelope(to: elector, seek))
            case (.proposing, .none), (.proposing, .granted):
                guard let proposal = campaign.proposal else { continue }
                outbox.sendAfterSync.append(Envelope(to: elector, .view(view)))
                outbox.sendAfterSync.append(
                    Envelope(to: elector, .propose(attempt: campaign.attempt, view: proposal)))
            case (.seeking, .granted), (_, .accepted): continue
            }
        }
    }

    mutating func onGrant(
        _ number: ViewNumber, _ attempt: Attempt, _ end: LogEnd, _ accepted: Accepted?,
        from: Instance, into outbox: inout Outbox
    ) {
        if let accepted, isMember, number == view?.number.next,
            accepted.view.contains(me.instance), !accepted.view.contains(from)
        {
            mustFinish = true
        }
        guard let view, let campaign, number == view.number.next, campaign.attempt == attempt,
            campaign.phase == .seeking, let index = view.electorate.firstIndex(of: from)
        else { return }
        self.campaign?.answers[index] = .granted(accepted, end)
        if let accepted { counterSeen = max(counterSeen, accepted.attempt.counter) }
        checkGrants(into: &outbox)
    }

    /// Phase 1 is over when a majority has granted and everybody within reach has answered, or
    /// has had its time.
    mutating func checkGrants(into outbox: inout Outbox) {
        guard let view, let campaign, campaign.phase == .seeking else { return }
        guard isQuorum(campaign.answers.map { $0 != .none }, of: view) else { return }
        let isComplete = zip(view.electorate, campaign.answers).allSatisfy { elector, answer in
            answer != .none || !isReachable(elector)
        }
        guard isComplete || campaign.ticks >= timing.gatherTicks else { return }
        guard let choice = choice(view, campaign) else { return }
        // Those who have not answered yet may show that it has not been decided; and nobody may be left to
        // finish it.
        let isOwn = choice.contains(me.instance)
        guard isOwn || isComplete || campaign.ticks >= attemptTicks else { return }
        // A view without this replica is for others to finish, who may not have heard of it.
        guard isOwn else {
            passOn(choice, campaign, into: &outbox)
            // They need longer than a try takes, or each new try would outbid them.
            let pause = 2 * attemptTicks
            endCampaign()
            ticksToNextCampaign += pause
            return
        }
        propose(choice, into: &outbox)
    }

    /// Tells its members of a view that was accepted and that only one of them can finish.
    private func passOn(_ choice: View, _ campaign: Campaign, into outbox: inout Outbox) {
        for case .granted(let accepted?, _) in campaign.answers where accepted.view == choice {
            for member in choice.members {
                let news = Message.grant(
                    number: choice.number, attempt: accepted.attempt, committed: knownCommitted,
                    end: logEnd, accepted: accepted)
                outbox.sendAfterSync.append(Envelope(to: member.instance, news))
            }
            return
        }
    }

    /// What phase 1 leaves to propose: the reported view with the highest attempt, unless so many
    /// have answered otherwise that it cannot have a majority.
    private func choice(_ view: View, _ campaign: Campaign) -> View? {
        var highest: Accepted?
        for case .granted(let accepted?, _) in campaign.answers
        where highest.map({ accepted.attempt > $0.attempt }) ?? true {
            highest = accepted
        }
        guard let highest, breakage != .reportedIgnored else { return nextView() }
        let couldAccept = campaign.answers.map { answer in
            switch answer {
            case .none: true
            case .granted(let accepted, _): accepted?.view == highest.view
            case .accepted: false
            }
        }
        let possible = couldAccept.filter { $0 }.count
        let isPossible =
            possible >= view.majority
            || highest.attempt.counter > 0 && haveAllMembers(couldAccept, of: view)
        return isPossible ? highest.view : nextView()
    }

    private mutating func propose(_ next: View, into outbox: inout Outbox) {
        guard let view, let attempt = campaign?.attempt else { return }
        precondition(next.contains(me.instance), "proposing a view without oneself")
        precondition(next.number == view.number.next, "proposing \(next.number)")
        // From here on this replica commits, answers and acks nothing in the present view. Written
        // down before its own acceptance: of the two the disk may have the first alone after a
        // crash, and a primary that has accepted what counts on its log as it was must not go on in
        // this view.
        if breakage != .proposerGoesOn {
            status = .choosing
            outbox.records.append(.proposed(number: next.number))
        }
        campaign?.phase = .proposing
        campaign?.proposal = next
        campaign?.ticks = 0
        for index in view.electorate.indices { campaign?.answers[index] = .none }
        if let own = view.electorate.firstIndex(of: me.instance) {
            if accept(attempt, next, into: &outbox) != nil {
                endCampaign()
                return
            }
            campaign?.answers[own] = .accepted
        }
        sendCampaign(into: &outbox)
        checkAccepted(into: &outbox)
    }

    mutating func onAccepted(
        _ number: ViewNumber, _ attempt: Attempt, from: Instance, into outbox: inout Outbox
    ) {
        guard let view, let campaign, number == view.number.next, campaign.attempt == attempt,
            campaign.phase == .proposing, let index = view.electorate.firstIndex(of: from)
        else { return }
        self.campaign?.answers[index] = .accepted
        checkAccepted(into: &outbox)
    }

    mutating func checkAccepted(into outbox: inout Outbox) {
        guard let view, let campaign, campaign.phase == .proposing,
            let proposal = campaign.proposal
        else { return }
        let answers = campaign.answers.map { $0 == .accepted }
        guard isQuorum(answers, of: view, proposed: campaign.attempt) else { return }
        // Unless others had decided it before, which `enter` sees: then it has been alive all the time since
        // that view began, and nobody has decided alone on one after it.
        isProofVoid = false
        announce(proposal, into: &outbox)
        enter(proposal, into: &outbox)
    }

    /// Whether these electors suffice, for either phase: their majority, or all members of the view.
    ///
    /// All members suffice because only members are candidates, and each asks itself first: it grants
    /// its own attempt before it relies on other grants, and accepts its own proposal before that
    /// leaves (both on its disk, if it has one). So
    /// - a majority that has granted contains, with the candidate, a member: if before that all
    ///   members had accepted a view, the candidate had, and reports it to itself;
    /// - a majority that has accepted contains, with the proposer, a member: if all members grant
    ///   after that, the proposer reports it; and if they have granted before, it does not accept.
    /// Any two that suffice thus have an elector in common wherever Paxos needs one, one for phase 1
    /// and an earlier one for phase 2 (Howard, Malkhi and Spiegelman, Flexible Paxos, 2016), and
    /// nothing is asked of the electors in between. A member that is gone for good never answers; it
    /// can only keep the rest from sufficing.
    ///
    /// It matters to a pair with three witnesses: the power fails everywhere, both replicas come
    /// back with their disks, and the clients are new ones, of whom none is an elector.
    ///
    /// `proposed`: in phase 2, the attempt. In attempt 0, which has no phase 1, all members do not
    /// suffice. Else a backup that accepts its own exclusion, from a primary that dies at that moment,
    /// would have to take it for decided, though no other elector has heard of it, and could never go
    /// on. With a majority gone for good the primary itself goes on to attempt 1. Fewer sets that
    /// suffice make nothing less safe.
    private func isQuorum(_ answers: [Bool], of view: View, proposed: Attempt? = nil) -> Bool {
        if answers.filter({ $0 }).count >= quorum(of: view) { return true }
        return proposed?.counter != 0 && haveAllMembers(answers, of: view)
    }

    /// Whether all members are electors with this answer.
    private func haveAllMembers(_ answers: [Bool], of view: View) -> Bool {
        let those = zip(view.electorate, answers).filter { $0.1 && view.contains($0.0) }
        return those.count == view.members.count
    }

    /// How many electors must answer. Of an electorate of two replicas one alone suffices when the
    /// other's process is proved dead: whatever the dead one took part in, this one knows. If the
    /// dead one comes back from its disk it knows of no later view, and needs this one, or the proof
    /// of its end, to find any: see `isProofVoid`.
    private func quorum(of view: View) -> Int {
        guard view.electorate.count == 2,
            let other = view.electorate.first(where: { $0 != me.instance }),
            view.contains(other), view.electorate.contains(me.instance),
            !isProofVoid || breakage == .proofAfterRestart,
            lives.haveEnded(other) || (breakage == .proofBySilence && hasFailed(other))
        else { return breakage == .quorumTooSmall ? max(1, view.majority - 1) : view.majority }
        return 1
    }

    func isReachable(_ elector: Instance) -> Bool {
        elector == me.instance
            || !lives.haveEnded(elector)
                && (links.contains(elector) || witnessesHere.contains(elector))
    }

    /// Another's higher attempt is about; try again later, above it.
    mutating func onOutbid(_ number: ViewNumber, _ attempt: Attempt) {
        guard let view, let campaign, number == view.number.next, attempt > campaign.attempt else {
            return
        }
        counterSeen = max(counterSeen, attempt.counter)
        endCampaign()
    }

    private mutating func endCampaign() {
        campaign = nil
        // It may have been for the electorate, which has not changed.
        isElectorateChecked = false
        ticksToNextCampaign = attemptTicks / 4 + random(below: attemptTicks / 2)
        attemptsFailed = min(attemptsFailed + 1, Self.failuresMax)
    }

    /// How long each phase of an attempt waits for the electors' answers: longer each time, as they may be
    /// far away. So are the pauses in between: two candidates who are near each other, and outbid each
    /// other at once, would else never leave one alone for as long as the electors take.
    private var attemptTicks: Int { 2 * timing.retryTicks << attemptsFailed }
    private static var failuresMax: Int { 4 }

    /// A campaign that gets nowhere is begun anew with a higher attempt.
    mutating func tickCampaign(into outbox: inout Outbox) {
        guard let view else { return }
        if ticksToNextCampaign > 0 { ticksToNextCampaign -= 1 }
        guard var running = campaign else {
            let isNeeded = status == .choosing || needsChange || mustFinish
            if isNeeded, ticksToNextCampaign == 0, mayCampaign { startChange(into: &outbox) }
            return
        }
        running.ticks += 1
        campaign = running
        checkGrants(into: &outbox)
        guard let current = campaign, current.attempt == running.attempt else { return }
        guard current.ticks % timing.retryTicks == 0 else { return }
        let isReasonGone =
            current.phase == .seeking && !isPrimary && status == .normal && !needsChange
            && !mustFinish
        if isReasonGone, current.ticks >= 2 * timing.retryTicks {
            endCampaign()
            attemptsFailed = 0
        } else if current.ticks >= attemptTicks {
            let answered = current.answers.filter { $0 != .none }.count
            let reason =
                "view \(view.number.next) needs \(view.majority) of \(view.electorate.count) "
                + "electors, \(answered) answered"
            outbox.effects.append(.stalled(reason: reason))
            askAround(current.attempt, into: &outbox)
            // After PROPOSE there is no way back.
            endCampaign()
        } else {
            sendCampaign(into: &outbox)
        }
    }

    /// The electors may all have gone on, and have no reason to look for this replica. Any other
    /// that is connected and knows a later view answers with that.
    private func askAround(_ attempt: Attempt, into outbox: inout Outbox) {
        guard let view else { return }
        for instance in links where !view.electorate.contains(instance) {
            let seek = Message.seek(
                number: view.number.next, attempt: attempt, isViewOver: false)
            outbox.sendAfterSync.append(Envelope(to: instance, seek))
        }
    }

    // MARK: The elector's side

    /// Phase 1 as an elector, written down. Not nil: outbid.
    private mutating func promise(
        _ attempt: Attempt, number: ViewNumber, into outbox: inout Outbox
    ) -> Attempt? {
        if let outbid = acceptor.grant(attempt) { return outbid }
        outbox.records.append(.promised(number: number, attempt))
        return nil
    }

    /// Phase 2 as an elector, written down. Not nil: outbid.
    private mutating func accept(
        _ attempt: Attempt, _ proposal: View, into outbox: inout Outbox
    ) -> Attempt? {
        if let outbid = acceptor.accept(attempt, proposal) { return outbid }
        if breakage != .acceptedUnrecorded {
            outbox.records.append(.accepted(Accepted(attempt: attempt, view: proposal)))
        }
        return nil
    }

    mutating func onSeek(
        _ number: ViewNumber, _ attempt: Attempt, _ isViewOver: Bool, from: Instance,
        into outbox: inout Outbox
    ) {
        guard isAsked(number, by: from, into: &outbox), fork == nil, let view else { return }
        counterSeen = max(counterSeen, attempt.counter)
        guard from == view.primary.instance || !isPrimaryAlive(isViewOver) else { return }
        if let outbid = promise(attempt, number: number, into: &outbox) {
            outbox.send.append(Envelope(to: from, .outbid(number: number, attempt: outbid)))
            return
        }
        if let campaign, campaign.attempt < attempt { endCampaign() }
        if let accepted = acceptor.accepted?.view, accepted.contains(me.instance),
            !accepted.contains(from)
        {
            mustFinish = true
        }
        let grant = Message.grant(
            number: number, attempt: attempt, committed: knownCommitted, end: logEnd,
            accepted: acceptor.accepted)
        outbox.sendAfterSync.append(Envelope(to: from, grant))
    }

    mutating func onPropose(
        _ attempt: Attempt, _ proposal: View, from: Instance, into outbox: inout Outbox
    ) {
        guard isAsked(proposal.number, by: from, into: &outbox) else { return }
        counterSeen = max(counterSeen, attempt.counter)
        if let outbid = accept(attempt, proposal, into: &outbox) {
            let answer = Message.outbid(number: proposal.number, attempt: outbid)
            outbox.send.append(Envelope(to: from, answer))
            return
        }
        if let campaign, campaign.attempt < attempt { endCampaign() }
        let answer = Message.accepted(number: proposal.number, attempt: attempt)
        outbox.sendAfterSync.append(Envelope(to: from, answer))
    }

    var logEnd: LogEnd { LogEnd(view: log.last?.view ?? commitView, op: op) }

    private mutating func isAsked(
        _ number: ViewNumber, by from: Instance, into outbox: inout Outbox
    ) -> Bool {
        guard isMember, let view else { return false }
        guard number > view.number || breakage == .electsThePast else {
            outbox.sendAfterSync.append(Envelope(to: from, .view(view)))
            return false
        }
        return number == view.number.next && view.electorate.contains(me.instance)
            || breakage == .electsThePast
    }

    /// Whether this elector still takes the view's primary for alive: then it does not help to
    /// unseat it, unless the view cannot go on.
    private func isPrimaryAlive(_ isViewOver: Bool) -> Bool {
        guard let view, !isViewOver else { return false }
        if view.primary.instance == me.instance { return status == .normal }
        return !hasFailed(view.primary.instance)
            && links.contains(view.primary.instance)
    }
}
