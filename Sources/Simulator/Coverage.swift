/// How often each kind of trouble and each rare course of events really happened. What never does
/// in a million runs is a hole in the simulation.
package struct Coverage: Sendable {
    package enum Item: Int, CaseIterable, Sendable {
        // Faults.
        case primaryKilled, backupKilled, learnerKilled, machineLost, replicaPaused, clientPaused
        case primaryPaused, linkReset, linkHeld, linkHeldOneWay, linkFlapped, clientLinkReset
        case clientLinkHeld, clientLinkHeldOneWay, clientKilled, clientLeft, witnessKilled
        case replicaLeaves, primaryLeaves, switchover, startFailed, intruderStarted
        case delaySpike, votersFarAway, severalAtOnce, ambush
        case powerCut, powerCutSilently, replicaBounced, diskSlow, diskFull, shortWrites, diskFails
        case rottenInUse, rottenAtRest, recordMisplaced, endLost
        // What came of them.
        case viewEntered, proposedAtOnce, proposedAfterPhaseOne, primaryTookOver, handedOver
        case leaderFailed, electionBegan, electionSummoned, electionAsked, electionAnswered
        case handedOverToHigher, lowerTookOver
        case learnerAdmitted, memberExcluded, electorateChanged, decidedAlone
        case grantWithAccepted, proposalOfAnother, outbid, sought, stickyWitness
        case stepDown, truncated, joinFailed, joinRefused, joinRestarted, stalled
        case callRepeated, callRepeatedElsewhere, heldBallotProposed, readAnswered, readRefused
        case requestRefused, deadlineClosed, absentVoterRemoved
        case relayOpened, relayUsed, relayLost, backToDirect, relayBounced
        case answeredFromCache, roomInvalidated, reservationWaited, leaseRanOut, cacheLapsed
        case cacheOutlivesPrimary
        case replicaRestarted, tailOnly, segmentBegun, checkpointTaken, marked
        case writeFailed, noSpace, checkpointFailed, removalFailed, startRefused
        case writeCutShort, checkpointCutShort, startCutShort, tailCut, unsyncedLost
        case rotHarmless, replicaRenewed, formerHeard, lostEndNoticed, toldByClient
        case refusalDisproved, silentLinkClosed, lateFrame
        case twoPrimariesAtOnce, oldPrimaryRefused
        // How runs end.
        case healed, handedOverAtTheEnd, leftAtTheEnd, beyondRepair

        package var name: String { "\(self)" }
    }

    package private(set) var counts = [Int](repeating: 0, count: Item.allCases.count)

    package init() {}

    mutating func note(_ item: Item) { counts[item.rawValue] += 1 }

    package mutating func add(_ other: Coverage) {
        for index in counts.indices { counts[index] += other.counts[index] }
    }

    package subscript(item: Item) -> Int { counts[item.rawValue] }
}
