import Replication
package import Wire

/// A voter: keeps connected to the replicas of the newest view, sends its ballots to all of them,
/// puts the results in order, and lends its voice to the choice of views (`Witness`).
///
/// It only computes. Everything that happens comes in through `step`, the time included; everything
/// to be done goes out in the outbox. After each event it looks at its whole state and does what is
/// due (`settle`), so a lost connection, a refusal and a new view need no plans of their own: the
/// next look finds that something is missing and asks for it again. All commands are idempotent.
package struct VoterSession: Equatable, Sendable {
    package struct Settings: Equatable, Sendable {
        package var name: String
        package var servers: [Address]
        package var policy: VotePolicy
        /// How many results the log shall hold before the run ends by itself; 0: no end.
        package var votesMax: UInt64
        /// The log's path, for messages.
        package var logPath: String
        /// Whether each result is shown to people.
        package var showsResults: Bool
        /// Whether what is typed shows by itself behind the prompt.
        package var isInputEchoed: Bool

        package init(
            name: String,
            servers: [Address],
            policy: VotePolicy,
            votesMax: UInt64 = 0,
            logPath: String = "",
            showsResults: Bool = true,
            isInputEchoed: Bool = true
        ) {
            self.name = name
            self.servers = servers
            self.policy = policy
            self.votesMax = votesMax
            self.logPath = logPath
            self.showsResults = showsResults
            self.isInputEchoed = isInputEchoed
        }
    }

    package enum Event: Equatable, Sendable {
        /// The time has come to so many milliseconds since some fixed moment; never goes back.
        case time(UInt64)
        case connected(LinkID)
        /// The connection, or the try to make one, has ended.
        case closed(LinkID, reason: String)
        /// What came in on the connection is no RESP.
        case malformed(LinkID, DecodeError)
        case reply(LinkID, RESPValue)
        case push(LinkID, [RESPValue])
        /// All results up to this id are in the log.
        case logged(through: UInt64)
        /// The first result that was to be appended, and so all behind it, is not in the log.
        case logFailed(String)
        /// Typed at the terminal, without its line end.
        case line(String)
        case inputEnded
        /// Somebody wants the run to end.
        case leave
    }

    enum Phase: Equatable, Sendable {
        case running
        /// The service has been told; at this moment the run ends whether it has answered or not.
        case leaving(until: UInt64)
        case ended
    }

    package let settings: Settings
    var instance: Instance
    var random: SplitMix64
    var now: UInt64 = 0
    var phase = Phase.running
    /// When `step` wants to be called with the time even if nothing else happens; nil: never.
    package internal(set) var wakeAt: UInt64?

    // Links and views.
    /// Ascending by id.
    var links: [VoterLink] = []
    var lastLink: UInt64 = 0
    /// Each address once; holds all `settings.servers`.
    var endpoints: [Endpoint] = []
    var service: ServiceID?
    var view: VoterView?
    /// Where a replica said that the primary is; tried until this voter has joined somewhere.
    var hint: Address?
    var witness: Witness
    /// The 10 ms tick that the witness has come to.
    var witnessTick: UInt64 = 0
    /// Since when this voter is joined nowhere; nil while it is.
    var unservedSince: UInt64? = 0
    /// What has been said about that.
    var unservedReport: UnservedReport?
    var lastFailure = ""

    // Votes.
    /// Of votes whose result is not known here; ascending by vote, at most `keptMax`, which is as
    /// many as may be open.
    var ballots: [Ballot] = []
    /// Whether some ballot may have to go out on some connection.
    var mayOweBallots = false
    /// Whether votes may wait for this voter.
    var isOnRoll = false
    var verification: Verification
    /// The vote whose prompt stands at the end of the terminal.
    var promptedVote: UInt64?
    var hasInputEnded = false

    // Results.
    /// All results that were accepted; each is in `unwritten` or in the log.
    var accepted: ResultChain
    /// Results that came too early, ascending, at most `keptMax`.
    var early: [PollResult] = []
    /// When to ask for the results from `nextResult` on; nil: nothing seems to be missing.
    var askResultsAt: UInt64?
    /// After how long to ask again if that changes nothing: the vote may just be open still.
    var askAgainMilliseconds: UInt64 = 1_000
    /// Accepted, not yet in the log, in order, at most `keptMax`.
    var unwritten: [PollResult] = []
    /// How many of `unwritten` the shell has been given to write.
    var offered = 0
    /// While the log takes nothing: when to try again.
    var retryLogAt: UInt64?

    package static let keptMax = 10_000
    static let pendingMax = 4 * keptMax

    enum UnservedReport: Equatable, Sendable {
        case noServer
        case noPrimary
    }

    /// - Parameters:
    ///   - instance: this run's own random name among the electors.
    ///   - seed: for the jitter of its pauses.
    ///   - log: the results of the log as it was found.
    package init(settings: Settings, instance: Instance, seed: UInt64, log: ResultChain) {
        self.settings = settings
        self.instance = instance
        random = SplitMix64(seed: seed)
        witness = Witness(instance: instance, hearingTicksMax: 500)
        verification = log.last == nil ? .done : .needed(service: ResultChain())
        accepted = log
        for address in settings.servers where !endpoints.contains(where: { $0.address == address })
        {
            endpoints.append(Endpoint(address: address))
        }
    }

    /// The result that is accepted next.
    var nextResult: UInt64 { accepted.nextID }

    /// Whether a line from the terminal is waited for.
    package var isAsking: Bool { promptedVote != nil }

    package mutating func step(_ event: Event, into outbox: inout VoterOutbox) {
        guard phase != .ended else {
            if case .logFailed(let reason) = event { outbox.ending = .io(reason) }
            return
        }
        switch event {
        case .time(let moment): onTime(moment, into: &outbox)
        case .connected(let link): onConnected(link, into: &outbox)
        case .closed(let link, let reason): onClosed(link, reason, into: &outbox)
        case .malformed(let link, let error): onMalformed(link, error, into: &outbox)
        case .reply(let link, let value): onReply(link, value, into: &outbox)
        case .push(let link, let fields): onPush(link, fields, into: &outbox)
        case .logged(let id): onLogged(through: id, into: &outbox)
        case .logFailed(let reason): onLogFailed(reason, into: &outbox)
        case .line(let line): onLine(line, into: &outbox)
        case .inputEnded: onInputEnded(into: &outbox)
        case .leave: onLeave(into: &outbox)
        }
        settle(into: &outbox)
    }

    /// Does all that is due. The order is that of urgency: a ballot that is owed goes out before
    /// anything is written or said.
    private mutating func settle(into outbox: inout VoterOutbox) {
        wakeAt = nil
        adoptWitnessView(into: &outbox)
        settleService(into: &outbox)
        settleBallots(into: &outbox)
        settleResults(into: &outbox)
        settleLog(into: &outbox)
        settleSilence(into: &outbox)
        if let ticks = witness.ticksToTell { _ = isDue(at: (witnessTick + UInt64(ticks)) * 10) }
        settleDials(into: &outbox)
        settleStrangers(into: &outbox)
        settleReports(into: &outbox)
        settlePrompt(into: &outbox)
        settleLeaving(into: &outbox)
    }

    private mutating func onTime(_ moment: UInt64, into outbox: inout VoterOutbox) {
        let isFirst = now == 0
        now = max(now, moment)
        if isFirst {
            unservedSince = now
            witnessTick = now / 10
        }
        // More ticks than the hearing lasts make no difference, and a process that was stopped for
        // an hour should not count through them all.
        let ticks = min(now / 10 - witnessTick, UInt64(witness.hearingTicksMax) + 1)
        witnessTick = now / 10
        for _ in 0..<ticks { stepWitness(.tick, into: &outbox) }
    }

    /// Whether `moment` has come; if not, the session asks to be woken then.
    mutating func isDue(at moment: UInt64) -> Bool {
        if now >= moment { return true }
        wakeAt = min(wakeAt ?? moment, moment)
        return false
    }

    mutating func send(_ command: VoterCommand, on index: Int, into outbox: inout VoterOutbox) {
        links[index].pending.append(command.awaited)
        outbox.send.append(VoterOutbox.Outgoing(links[index].id, command))
    }

    func index(of link: LinkID) -> Int? { links.firstIndex { $0.id == link } }

    /// Ends the run. Results that could not be written are worth a failure whatever else happened;
    /// so are those that come along with the end, which the shell writes after it.
    mutating func end(_ ending: Ending, into outbox: inout VoterOutbox) {
        guard phase != .ended else { return }
        breakPrompt(into: &outbox)
        phase = .ended
        wakeAt = nil
        if ending == .done, !unwritten.isEmpty, retryLogAt != nil {
            let count = unwritten.count
            outbox.ending = .io(
                "\(count) result\(count == 1 ? "" : "s") from vote \(unwritten[0].id) on could not "
                    + "be written to \(settings.logPath)"
            )
        } else {
            outbox.ending = ending
        }
    }
}
