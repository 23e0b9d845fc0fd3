import Wire

/// Who of a group's members leads.
package enum Election: String, CaseIterable, Sendable {
    /// A primary leads until it fails or hands over.
    case sticky
    /// The member with the highest id leads: when the primary fails the highest of those left takes
    /// over, and a primary hands over to a higher one that has joined.
    case bully
}

/// A backup's election after its primary has failed.
struct Bid: Equatable, Sendable {
    enum Phase: Equatable, Sendable {
        /// ELECTION was sent to all higher members.
        case asking
        /// One of them lives and has said that it sees to it.
        case waiting
        case won
    }

    var phase: Phase
    var ticks = 0
}

/// A lower member's ELECTION.
struct Summons: Equatable, Sendable {
    var id: ReplicaID
    var ticks = 0
}

// The bully algorithm (Garcia-Molina, Elections in a Distributed Computing System, 1982, section
// III). It settles only which backup asks the electorate first, so that the members of a group do
// not outbid each other and the highest wins; the electorate decides, safely whoever asks. Departs
// from the paper in that nobody is leader by its own word, and that an answer is not trusted for
// ever: who has answered and then brings no view is passed over.
extension Replica {
    /// Whether this replica may ask the electorate for the change that its view needs.
    var mayCampaign: Bool {
        guard missing == nil else { return false }
        return switch election {
        case .sticky: true
        case .bully: isPrimary || status == .choosing || mustFinish || bid?.phase == .won
        }
    }

    /// Higher than this replica and alive, as far as it knows.
    private var rivals: [Member] {
        guard let view, !isAnswerSpent else { return [] }
        return view.backups.filter { $0.outranks(me) && !hasFailed($0.instance) }
    }

    /// Backup: begins an election when the primary counts as failed, and takes it on from there.
    mutating func elect(into outbox: inout Outbox) {
        guard election == .bully, status == .normal, !isPrimary, let view else { return }
        guard hasFailed(view.primary.instance) else {
            bid = nil
            return
        }
        guard let bid else {
            outbox.effects.append(.leaderFailed(view.primary))
            openBid(by: summons?.id, into: &outbox)
            return
        }
        switch bid.phase {
        case .asking:
            if rivals.isEmpty || bid.ticks >= timing.gatherTicks { self.bid?.phase = .won }
        case .waiting:
            if rivals.isEmpty {
                self.bid?.phase = .won
            } else if bid.ticks >= answerTicksMax {
                isAnswerSpent = true
                openBid(by: nil, into: &outbox)
            }
        case .won: return
        }
    }

    private mutating func openBid(by initiator: ReplicaID?, into outbox: inout Outbox) {
        guard let view else { return }
        outbox.effects.append(.electionBegan(by: initiator))
        bid = Bid(phase: rivals.isEmpty ? .won : .asking)
        for rival in rivals {
            let election = Message.election(view: view.number, id: me.id)
            outbox.send.append(Envelope(to: rival.instance, election))
        }
    }

    mutating func onElection(
        _ number: ViewNumber, _ id: ReplicaID, from: Instance, into outbox: inout Outbox
    ) {
        guard election == .bully, isMember, missing == nil, !isPrimary, let view,
            view.number == number, view.contains(from), (id, from) < (me.id, me.instance)
        else { return }
        outbox.send.append(Envelope(to: from, .electionOK(view: number)))
        summons = Summons(id: id)
        elect(into: &outbox)
        // Not on the other's word: who is merely cut off from the primary would unseat it.
        if needsChange, mayCampaign, ticksToNextCampaign == 0 { startChange(into: &outbox) }
    }

    mutating func onElectionOK(_ number: ViewNumber, from: Instance) {
        guard bid?.phase == .asking, view?.number == number,
            rivals.contains(where: { $0.instance == from })
        else { return }
        bid = Bid(phase: .waiting)
    }

    mutating func tickElection(into outbox: inout Outbox) {
        guard election == .bully else { return }
        bid?.ticks += 1
        summons?.ticks += 1
        if let summons, summons.ticks > answerTicksMax { self.summons = nil }
        elect(into: &outbox)
    }

    /// How long a higher member that has answered may take to bring the next view.
    private var answerTicksMax: Int { 2 * timing.retryTicks }

    mutating func forgetElection() {
        bid = nil
        summons = nil
        isAnswerSpent = false
    }

    // MARK: The primary's side

    /// Primary: begins to hand over to the highest backup if that ranks before this replica, is
    /// there, and lacks only what is on its way.
    mutating func tickYield(into outbox: inout Outbox) {
        guard election == .bully, breakage != .highestIgnored, status == .normal, isPrimary,
            let view
        else { return }
        ticksToYield = max(0, ticksToYield - 1)
        guard ticksToYield == 0, drain == nil, campaign == nil, ticksToNextCampaign == 0 else {
            return
        }
        let alive = view.backups.indices.filter { !hasFailed(view.backups[$0].instance) }
        guard
            let index = alive.max(by: { view.backups[$1].outranks(view.backups[$0]) }),
            view.backups[index].id > me.id, progress[index].sent != nil,
            progress[index].acked >= commitMax, isFresh(view.backups[index].instance)
        else { return }
        onHandOver(into: &outbox)
    }

    /// Whether a heartbeat has come of late: one that has just stopped is not to lead.
    private func isFresh(_ instance: Instance) -> Bool {
        health.contains {
            $0.instance == instance && $0.ticksSinceHeard <= 2 * timing.beatTicks
        }
    }

    /// Also before the first: one that has handed over in order to leave says so meanwhile, and is
    /// not handed the service back.
    var yieldPauseMin: Int { 2 * timing.retryTicks }

    /// A hand-over that was given up has held requests back for nothing.
    mutating func onYieldGivenUp() {
        yieldPause = min(2 * yieldPause, 16 * yieldPauseMin)
        ticksToYield = yieldPause
    }

    mutating func resetYield() {
        yieldPause = yieldPauseMin
        ticksToYield = yieldPause
    }
}

extension Member {
    /// Whether this one leads rather than `other`. Of equal ids the higher instance does, so that
    /// there is always one highest; but no primary hands over for that.
    func outranks(_ other: Member) -> Bool {
        (other.id, other.instance) < (id, instance)
    }
}
