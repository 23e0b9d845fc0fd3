import Services

/// A ballot that has come to a backup.
struct HeldBallot {
    var vote: UInt64
    var voter: [UInt8]
    var choice: Choice
    /// Of the view in which it came: behind a promotion by force the vote of this number may be
    /// another. Nil: no view was known here yet.
    var era: UInt64?
}

/// Ballots that this backup has seen and not yet found in the log.
struct HeldBallots {
    private var ballots: [HeldBallot] = []
    private var pruneAt = 1_024
    /// Ballots that came when there was no room.
    private var refusals = 0

    static let countMax = 1_000_000
    private static let lookedForMax = 2_048
    private static let refusalsPerLook = 65_536

    /// How many are not in the log yet. Of many, which it would take long to look for, all that are kept.
    func unsettledCount(_ polls: Polls) -> Int {
        guard ballots.count <= Self.lookedForMax else { return ballots.count }
        return ballots.count { !polls.isSettled($0.vote, $0.voter) }
    }

    /// False when there is no room.
    mutating func keep(_ ballot: HeldBallot, _ polls: Polls) -> Bool {
        // Mostly the primary's copy is here first.
        if polls.isSettled(ballot.vote, ballot.voter) { return true }
        if ballots.count >= Self.countMax {
            // To look at all of them for each that finds no room would hold the loop up.
            if refusals % Self.refusalsPerLook == 0 { forgetSettled(polls) }
            refusals += 1
        }
        guard ballots.count < Self.countMax else { return false }
        ballots.append(ballot)
        return true
    }

    /// Forgets what is in the log by now; looks only when there is much to forget.
    mutating func prune(_ polls: Polls) {
        if ballots.count >= pruneAt { forgetSettled(polls) }
    }

    private mutating func forgetSettled(_ polls: Polls) {
        ballots.removeAll { polls.isSettled($0.vote, $0.voter) }
        pruneAt = max(1_024, ballots.count * 2)
    }

    mutating func forget(notOf era: UInt64) {
        ballots.removeAll { $0.era.map { $0 != era } ?? false }
    }

    mutating func takeAll(_ polls: Polls) -> [HeldBallot] {
        defer {
            ballots = []
            pruneAt = 1_024
        }
        return ballots.filter { !polls.isSettled($0.vote, $0.voter) }
    }
}
