import Wire

/// One try to reach a replica, from the dial to the end of the connection. Never used again.
package struct LinkID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    package var description: String { "link \(rawValue)" }
}

/// What the session knows of one connection. All moments are milliseconds of the session's time.
struct VoterLink: Equatable, Sendable {
    enum Phase: Equatable, Sendable {
        case dialing
        /// Connected; HELLO is not answered yet.
        case greeting
        case open
    }

    enum Joining: Equatable, Sendable {
        case none
        case asked
        case joined
    }

    let id: LinkID
    /// All spellings of the replica's address that are known; the first one was dialed.
    var aliases: [Address]
    /// The one of `aliases` that is known from the replica's HELLO alone: as the primary it said
    /// where the primary is. Never the first one.
    var claim: Address?
    var phase = Phase.dialing
    /// When the phase began.
    var since: UInt64
    /// When something last came in, and when the silence since then was noticed.
    var heardAt: UInt64
    var pingedAt: UInt64?
    /// Known from HELLO on.
    var instance: Instance?
    var service: ServiceID?
    var joining = Joining.none
    /// Whether a JOIN went out here, to the primary that still leads.
    var hasName = false
    /// After a refusal that may pass: nothing is asked before this moment.
    var retryAt: UInt64 = 0
    var retries = 0
    /// Since when the newest view is without this replica.
    var strangerSince: UInt64?
    /// Commands without a reply yet, oldest first.
    var pending: [VoterCommand] = []

    var isOpen: Bool { phase == .open }

    func awaits(_ isMeant: (VoterCommand) -> Bool) -> Bool { pending.contains(where: isMeant) }
}

/// An address and how dialing it has gone; outlives the connections to it.
struct Endpoint: Equatable, Sendable {
    let address: Address
    /// In a row, without a HELLO answered in between.
    var failures = 0
    var retryAt: UInt64 = 0
    /// What was last said to people about it, so that it is said once.
    var reported: String?
}

/// Growing pauses between tries, each a little different so that many clients do not come at once.
enum Backoff {
    static let millisecondsMax: UInt64 = 1_000

    /// `first` doubled `failures` times, at most a second, give or take a quarter.
    static func pause(first: UInt64, failures: Int, _ random: inout SplitMix64) -> UInt64 {
        let full = min(millisecondsMax, first << UInt64(min(failures, 10)))
        return full - full / 4 + random.next() % (full / 2 + 1)
    }
}
