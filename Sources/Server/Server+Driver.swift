import Linux
import Replication
import Services
import Wire

/// What the primary does by itself, by its own monotonic clock: planned votes, deadlines, voters
/// who have gone. All of it becomes requests in the log, so a new primary carries on.
struct Driver {
    var membersSeen: [Member] = []
    var hasEntered = false
    /// The newest view of which it has carried out that it was entered.
    var viewEntered: ViewNumber?
    /// Whether this replica led in the view before, too.
    var isLeading = false
    /// Open votes and when this replica learned that they were open.
    var openedAt: [(vote: UInt64, at: UInt64)] = []
    var closedAt: UInt64 = 0
    /// The planned vote that was proposed last in this view.
    var plannedProposed: UInt64 = 0
    /// Votes that were proposed to be closed in this view.
    var closeProposed: [UInt64] = []
    /// Something happened that may call for a request at once.
    var isDirty = false
    var nextAbsenceCheck: UInt64 = 0
    /// The joined voters without a connection, ascending by place, and for how many seconds.
    var absences: [(place: Int, seconds: UInt32)] = []
    /// Ballots that were held here and are to be proposed, as many at a time as a batch takes.
    var taken: ArraySlice<HeldBallot> = []

    mutating func note(_ effect: Polls.Effect, now: UInt64) {
        isDirty = true
        switch effect {
        case .opened(let vote): openedAt.append((vote, now))
        case .closed(let vote):
            openedAt.removeAll { $0.vote == vote }
            closeProposed.removeAll { $0 == vote }
            // It may have been refused, as too many were open.
            plannedProposed = 0
            closedAt = now
        }
    }
}

extension Server {
    /// On taking over: what only this replica has seen is proposed now, without its clients.
    func onViewForDriver(isPrimary: Bool) {
        driver.plannedProposed = 0
        driver.closeProposed = []
        driver.isDirty = true
        defer { driver.isLeading = isPrimary }
        guard isPrimary else {
            for ballot in driver.taken { _ = held.keep(ballot, executor.service.polls) }
            driver.taken = []
            return
        }
        if !driver.isLeading {
            // Its voters have yet to come over from the old primary.
            driver.nextAbsenceCheck = now + 1_000_000_000
            driver.absences = []
            remindVoters()
        }
        let ballots = held.takeAll(executor.service.polls)
        if !ballots.isEmpty { log.info("proposing \(ballots.count) ballots that were held here") }
        driver.taken += ballots
        proposeTaken()
    }

    /// This replica goes on from another's history. If that was led on by force since a ballot came, its
    /// vote may have been forgotten and the number given again; its voter casts it anew if not. In the
    /// same history what is held here may be the only copy.
    func forgetBallotsOfOthers() {
        guard let era = replica.view?.number.era else { return }
        held.forget(notOf: era)
        driver.taken.removeAll { $0.era.map { $0 != era } ?? false }
    }

    private func proposeTaken() {
        while !batch.isFull, let ballot = driver.taken.popFirst() {
            let command = PollCommand.castByName(
                vote: ballot.vote, voter: ballot.voter, choice: ballot.choice)
            batch.append(Request(command: command.encode()))
        }
        if driver.taken.isEmpty { driver.taken = [] }
    }

    /// After a snapshot: deadlines run from now, as this replica knows no better.
    func restartClocks() {
        driver.openedAt = executor.service.polls.openVotes.map { ($0, now) }
        driver.closedAt = now
    }

    func tickDriver() {
        guard isPrimary else { return }
        drive()
        if now >= driver.nextAbsenceCheck {
            driver.nextAbsenceCheck = now + 1_000_000_000
            checkAbsences()
        }
    }

    /// Proposes what is due.
    func drive() {
        driver.isDirty = false
        guard replica.acceptsRequests, leads else { return }
        proposeTaken()
        if !driver.taken.isEmpty { driver.isDirty = true }
        let polls = executor.service.polls
        for (vote, at) in driver.openedAt {
            let deadline = polls.deadline(vote)
            guard deadline > 0, now >= at + deadline * 1_000_000,
                !driver.closeProposed.contains(vote)
            else { continue }
            driver.closeProposed.append(vote)
            log.detail("vote \(vote) has reached its deadline")
            batch.append(Request(command: PollCommand.close(vote: vote).encode()))
        }
        guard let terms = polls.nextPlanned, driver.plannedProposed < terms.planned else { return }
        let interval = (polls.plan?.interval ?? 0) * 1_000_000
        guard terms.planned == 1 || now >= driver.closedAt + interval else { return }
        driver.plannedProposed = terms.planned
        batch.append(Request(command: PollCommand.open(terms).encode()))
    }

    private static func absenceGraceNanoseconds(_ settings: Settings) -> UInt64 {
        max(10_000, 2 * settings.heartbeatMilliseconds * settings.misses) * 1_000_000
    }

    /// A voter without a connection for long is taken off the roll: nobody is to wait for it.
    private func checkAbsences() {
        guard replica.acceptsRequests, leads else { return }
        leavesPending = leavesPending.filter { $0.value > executor.op.rawValue }
        let polls = executor.service.polls
        let secondsMax = UInt32(Self.absenceGraceNanoseconds(settings) / 1_000_000_000)
        var before = driver.absences[...]
        var absences: [(place: Int, seconds: UInt32)] = []
        // Those joined alone: of the voters ever heard of there may be a million.
        for place in polls.joinedPlaces {
            guard place >= voterConnections.count || voterConnections[place] == nil else {
                continue
            }
            while let first = before.first, first.place < place { before.removeFirst() }
            let known = before.first.flatMap { $0.place == place ? $0.seconds : nil } ?? 0
            // The rest in a second, if so many are gone at once.
            guard known + 1 >= secondsMax, !batch.isFull else {
                absences.append((place, known + 1))
                continue
            }
            let name = polls.voters[place]
            log.info(
                "voter \(String(decoding: name, as: UTF8.self)) has been away for "
                    + "\(secondsMax) s: taken off the roll")
            appendLeave(of: name)
        }
        driver.absences = absences
    }
}
