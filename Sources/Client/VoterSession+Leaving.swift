import Replication
import Wire

// The end of a run, and what is said while there is nobody to run with.
extension VoterSession {
    private static let leavingMillisecondsMax: UInt64 = 1_000
    private static let noServerMilliseconds: UInt64 = 500
    private static let noPrimaryMilliseconds: UInt64 = 3_000

    /// Tells the service that this voter goes, so that no vote waits for it and another witness is
    /// chosen in its place. Asked a second time, the session goes without waiting.
    mutating func onLeave(into outbox: inout VoterOutbox) {
        guard phase == .running else {
            end(.done, into: &outbox)
            return
        }
        phase = .leaving(until: now + Self.leavingMillisecondsMax)
        breakPrompt(into: &outbox)
        if let index = primaryIndex, links[index].joining != .none {
            send(.leave, on: index, into: &outbox)
        }
        for index in links.indices where links[index].isOpen {
            // An elector may be the last to know the newest view. One that is none says that it
            // goes all the same, or it might be made one in place of another that goes too.
            if witness.isElector, let view = witness.view {
                send(.witness(.view(view)), on: index, into: &outbox)
            }
            send(.witness(.leave(instance)), on: index, into: &outbox)
        }
    }

    mutating func settleLeaving(into outbox: inout VoterOutbox) {
        guard case .leaving(let until) = phase else {
            if phase == .running, settings.votesMax > 0, nextResult > settings.votesMax,
                unwritten.isEmpty
            {
                end(.done, into: &outbox)
            }
            return
        }
        let isAwaited = links.contains { link in link.awaits { $0 == .leave } }
        let isNeeded = witness.isElector && links.contains(where: \.isOpen)
        if isDue(at: until) || !(isAwaited || isNeeded) { end(.done, into: &outbox) }
    }

    /// Says once that no server answers, or that those that answer cannot do it.
    mutating func settleReports(into outbox: inout VoterOutbox) {
        guard phase == .running, let unservedSince else { return }
        if let oldest = links.first(where: \.isOpen) {
            guard unservedReport != .noPrimary,
                isDue(at: max(unservedSince, oldest.since) + Self.noPrimaryMilliseconds)
            else { return }
            unservedReport = .noPrimary
            let answering = links.filter(\.isOpen).map { $0.aliases[0].description }
            outbox.notices.append(
                .trouble(
                    "\(answering.joined(separator: ", ")) answers, but no primary takes this "
                        + "voter; waiting"
                )
            )
        } else if unservedReport == nil, isDue(at: unservedSince + Self.noServerMilliseconds) {
            unservedReport = .noServer
            let reason = lastFailure.isEmpty ? "no answer yet" : lastFailure
            outbox.notices.append(.trouble("no server answers (\(reason)); trying on"))
        }
    }
}
