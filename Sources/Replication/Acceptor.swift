package import Wire

/// An elector's part in the choice of one view: an acceptor of single-decree Paxos (Lamport, Paxos
/// Made Simple, 2001, section 2.2), where accepting also grants.
package struct Acceptor: Equatable, Sendable {
    /// The highest attempt that was granted or accepted; nothing lower is taken any more.
    package private(set) var granted: Attempt?
    package private(set) var accepted: Accepted?
    /// Only tests set it.
    package var breakage: Breakage?

    package init() {}

    /// As it was before a restart.
    package init(granted: Attempt?, accepted: Accepted?) {
        self.granted = granted
        self.accepted = accepted
    }

    /// Phase 1. Nil: granted, and `accepted` goes with the answer; else the attempt that was
    /// granted before and outbids this one.
    package mutating func grant(_ attempt: Attempt) -> Attempt? {
        if let granted, granted > attempt, breakage != .grantsTwice { return granted }
        granted = attempt
        if breakage == .acceptedUnreported { accepted = nil }
        return nil
    }

    /// Phase 2. Nil: accepted; else the attempt that outbids this one.
    package mutating func accept(_ attempt: Attempt, _ view: View) -> Attempt? {
        if let granted, granted > attempt, breakage != .grantsTwice { return granted }
        granted = attempt
        accepted = Accepted(attempt: attempt, view: view)
        return nil
    }
}
