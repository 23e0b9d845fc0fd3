import Replication
import Wire

/// How a replica finds the service, or finds that there is none.
struct Joining {
    /// Started as primary, and not yet known whether a service is running.
    var isDeciding = false
    /// Since the start. What the others may have said to a loop that was held up has not been heard yet, so
    /// how long they are given is counted in these.
    var ticks: UInt64 = 0
    /// Alone in the journal's view, and not yet known whether a copy of the folder is in use at one of
    /// the peers: nothing is proposed meanwhile, as both would acknowledge it alone.
    var isProbing = false
    /// A backup waits so long before it asks to join.
    var startAt: UInt64 = 0
    /// Where to ask next.
    var target: Address?
    var dialStarted: UInt64?
    var nextDial: UInt64 = 0
    var delay: UInt64 = Self.delayMin
    var joinCount = 0
    /// Joins that came to nothing, since the last view.
    var failures: UInt64 = 0
    var lastReason = ""
    /// Since when nobody has been met who is in a service.
    var vainSince: UInt64?
    /// What a new service begins with; nil: with nothing, or it has begun.
    var restoration: Restoration?
    /// Whether this process has ever had the state of a service, by which a view may count on it.
    var hasHadState = false
    /// Where the members were of a service that this replica has forgotten.
    var lastKnown: [Address] = []
    /// The members of the view that it asks to be let into.
    var seats: [Member] = []
    /// When a primary alone in its view next looks for another.
    var nextSearch: UInt64 = 0

    static let delayMin: UInt64 = 20_000_000
    static let delayMax: UInt64 = 1_000_000_000
    static let dialTimeMax: UInt64 = 2_000_000_000
    /// So long nobody need be told that it looks in vain: others are being started as well.
    static let vainTimeMax: UInt64 = 3_000_000_000
    private static let decideTicksMax = 3_000 / Settings.tickMilliseconds
    private static let probeTicksMax = 2_000 / Settings.tickMilliseconds

    /// Nobody has said that there is a service: it begins one.
    var hasDecided: Bool { isDeciding && ticks > Self.decideTicksMax }
    /// Nobody has said to be this very replica.
    var hasProbed: Bool { ticks > Self.probeTicksMax }

    mutating func backOff(_ now: UInt64) {
        nextDial = max(nextDial, now + delay)
        delay = min(delay * 2, Self.delayMax)
    }

    mutating func retrySoon(_ now: UInt64) { nextDial = now + Self.delayMin }

    mutating func onEntered(_ now: UInt64) {
        isDeciding = false
        nextSearch = now + Self.delayMax
        delay = Self.delayMin
        failures = 0
        lastReason = ""
        vainSince = nil
    }

    mutating func rejoin(at address: Address, now: UInt64) {
        target = address
        delay = Self.delayMin
        nextDial = now
    }

    func note(_ replica: Replica) -> String {
        switch replica.status {
        case .idle: isDeciding ? "finding out whether a service is running" : lastReason
        case .learning: "fetching the state"
        case .normal where replica.fork != nil, .choosing where replica.fork != nil:
            "people: its log and another's differ (its messages say more)"
        case .normal: ""
        case .choosing:
            replica.missing == nil
                ? "choosing the next view" : "another that has what this one's disk has lost"
        }
    }
}
