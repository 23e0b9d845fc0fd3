package import Wire

/// How patient a replica is; all in ticks, which are 10 ms in the server.
package struct Timing: Equatable, Sendable {
    /// Without a heartbeat for longer than this a member counts as failed.
    package var suspectTicks: Int
    /// Between the primary's beats to its witnesses.
    package var beatTicks: Int
    /// How long a candidate waits for the electors beyond a majority.
    package var gatherTicks = 5
    /// Between repeats of what was not answered.
    package var retryTicks = 10
    /// How long a planned change may hold requests back until everything is acked.
    package var drainTicksMax = 50
    /// How long a witness may be away before another takes its place.
    package var absenceTicksMax = 10
    /// How long the set of clients must have been steady before witnesses are added.
    package var steadyTicks = 10

    package init(suspectTicks: Int, beatTicks: Int) {
        self.suspectTicks = suspectTicks
        self.beatTicks = beatTicks
    }
}

/// One replica's part in the protocol: a value with one door, `step(_:into:)`. It computes and
/// returns what is to be done; it does nothing itself.
package struct Replica: Equatable, Sendable {
    package enum Status: Equatable, Sendable {
        /// In no view; may ask to join.
        case idle
        /// Has asked a primary to let it in, or is fetching the state and the log's tail.
        case learning
        /// In `view`.
        case normal
        /// Was in `view` and has proposed the next one. Until that is known it commits, answers
        /// and acks nothing: so whoever is named in a proposed view has everything that was ever
        /// committed in this one.
        case choosing
    }

    package enum Event: Equatable, Sendable {
        /// Over a direct connection, or of a client that witnesses.
        case message(Message, from: Instance)
        /// Of another replica, over a client. It need not know that this process is not the one before.
        case relayed(Message, from: Instance)
        case tick
        /// The requests of one turn. Only while `acceptsRequests`.
        case propose(Batch, time: UInt64)
        /// Reads have come; they may be answered when `confirmedProbe` reaches the new `probe`.
        case confirmReads
        /// A path to this instance stands, to a process that is not proved to have ended: to a newer
        /// one of the same instance, if that was proved of an older.
        case linkUp(Instance)
        case linkDown(Instance)
        /// A heartbeat has come.
        case heard(Instance)
        /// A new connection to this replica was refused: nobody listens there.
        case refused(Instance)
        /// This process has made a direct connection, and knows this view.
        case met(Life, knowing: View?)
        /// This process of the instance is proved to have exited; nil: no process of it can run any more.
        case exited(Instance, Life?)
        /// The client witnesses that are connected here, ascending.
        case witnesses([Instance])
        /// Begin a service: view 1, of this replica alone. Its history begins behind this op, after
        /// which the services' state is at hand; 0: with nothing.
        case create(after: LogEnd, hash: LogHash)
        case join(primary: Instance, JoinID)
        case stateSent(to: Instance, join: JoinID, op: OpNumber)
        /// The first event of a replica that was made from what its disk had.
        case resume
        /// Hand the primary's part to a backup.
        case handOver
        /// The operator's word that the view's other members are gone for good.
        case promoteByForce
    }

    package let me: Member
    package let timing: Timing
    /// The largest number of replicas in a view; a learner beyond it is turned away.
    package let membersMax: Int
    /// Who of the members is to lead.
    package let election: Election

    package internal(set) var status = Status.idle
    /// The newest view known; while `normal` or `choosing` one with this replica in it.
    package internal(set) var view: View?

    /// Entries behind `commitMin`, contiguous, up to `op`.
    var log: [Entry] = []
    /// The last op in the log.
    package internal(set) var op = OpNumber(0)
    /// Executed here through this op. commitMin ≤ commitMax ≤ op.
    package internal(set) var commitMin = OpNumber(0)
    /// Known to be on every member of the view.
    package internal(set) var commitMax = OpNumber(0)
    /// The entries up to `commitMin`, as far as they are kept.
    var kept: Kept
    /// Of the log through `commitMin`.
    package internal(set) var commitHash = LogHash.beginning
    /// Of the entry that ends with `commitMin`.
    package internal(set) var commitView = ViewNumber(0)
    /// Backup, learner: through this op the log is known to be the primary's. ≤ op.
    var matched = OpNumber(0)

    /// Parallel to `view.backups` while primary, else empty.
    var progress: [Progress] = []
    var learners: [Learner] = []
    /// The last probe that was sent to confirm reads; the primary's.
    package internal(set) var probe: UInt64 = 0
    var commitSent = OpNumber(0)
    /// What the witnesses were told is committed.
    var commitBeaten = OpNumber(0)
    var drain: Drain?

    /// This replica's own fetch of the state, while `learning`.
    var fetch: Fetch?
    /// Whether the services' state here is a service's, not just empty.
    var hasState = false
    /// Backup: whether the primary has answered the attach.
    var isAttached = false
    /// Backup: since the primary said anything in this view.
    var ticksSinceFollowed = 0

    /// The part in choosing the view after `view`.
    var acceptor = Acceptor()
    var campaign: Campaign?
    /// The highest counter of any attempt seen for the view after `view`.
    var counterSeen: UInt64 = 0
    var ticksToNextCampaign = 0
    /// Attempts for the view after `view`, in a row, that came to nothing.
    var attemptsFailed = 0
    /// A view was accepted with this replica and without the candidate that has found that: it
    /// cannot finish it, so this replica must.
    var mustFinish = false

    /// Bully: this backup's election, while its primary counts as failed.
    var bid: Bid?
    /// Bully: the last ELECTION that came in this view, for a while.
    var summons: Summons?
    /// Bully: a higher member has answered in this view and brought no other.
    var isAnswerSpent = false
    /// Bully: until this primary looks for a higher backup to hand over to.
    var ticksToYield = 0
    var yieldPause = 0

    /// Instances with a standing link, ascending.
    var links: [Instance] = []
    /// What is known of the other members' life, in the order of `view.members`.
    var health: [Health] = []
    /// Who is proved dead. One with a disk may come back, which ends the proof.
    var lives = Lives()
    /// This replica was dead itself, so the other of two electors may have decided alone meanwhile,
    /// by the proof of that. Its own proof of the other's end counts for nothing until the other has
    /// said in this life, on a direct connection, that it is in this view, and what it has or knows to be
    /// committed there: from then on the other can decide alone only when this replica has ended once
    /// more, and what this one may have lost of its log has been noticed.
    package internal(set) var isProofVoid = false
    /// This process goes on from a disk, which may have lost the end of what it had.
    var hasRestarted = false
    /// Through this op was committed in this replica's view, behind the end of its log: its disk has
    /// lost what it had. It takes no part in the view any more but as an elector.
    package internal(set) var missing: LogEnd?
    /// This replica's log and another member's have been found to be two.
    package internal(set) var fork: Fork?
    /// What others have said to be committed in this view, or before it. After a restart it may be more
    /// than `commitMax`. Its next view says so.
    var heardCommitted = LogEnd.beginning
    /// This primary was dead, and not all its backups have attached since, or since it heard of a view in
    /// which it leads. Only then does it know that its disk has all that it had, and takes requests. They
    /// could not be committed before.
    var isUncompared = false
    /// Client witnesses connected here, ascending.
    var witnessesHere: [Instance] = []
    /// Witnesses of the electorate that are away, and for how many ticks.
    var absences: [Absence] = []
    var ticksSinceWitnessChange = 0
    /// Whether the electorate was compared with the clients since they last changed.
    var isElectorateChecked = false

    var ticksToBeat = 0
    var ticksToRetry = 0
    /// Only tests set it.
    package var breakage: Breakage? { didSet { acceptor.breakage = breakage } }
    /// For back-off alone (xorshift64*, Marsaglia 2003, Vigna 2016).
    var randomState: UInt64

    struct Progress: Equatable, Sendable {
        var acked: OpNumber
        /// Sent through this op; nil until the backup has attached.
        var sent: OpNumber?
        var confirmed: UInt64 = 0
        var witnesses: [Instance] = []
    }

    struct Learner: Equatable, Sendable {
        var member: Member
        var join: JoinID
        /// nil while the snapshot is being made.
        var sent: OpNumber?
        /// nil until it has the state, which may be empty.
        var acked: OpNumber?
        var ticksSinceHeard = 0
    }

    struct Fetch: Equatable, Sendable {
        var primary: Instance
        var join: JoinID
        /// What it has said it has.
        var has: Learned
        var snapshot: [UInt8] = []
        var piecesSeen = 0
        var isRestored = false
        var ticksSinceNews = 0

    }

    /// A larger state is not taken by a learner.
    package static let stateBytesMax = 1 << 30

    /// Through which op a learner has executed, all of it committed, and its log's hash there: by both
    /// it is seen whether that is a part of this history. Op 0: nothing.
    struct Learned: Equatable, Sendable {
        var end: LogEnd
        var hash: LogHash
    }

    /// A planned change that waits until its backup or learner has everything; requests are held
    /// back by the shell meanwhile.
    struct Drain: Equatable, Sendable {
        enum Goal: Equatable, Sendable {
            case admit(Instance)
            case handOver(to: Instance)
        }
        var goal: Goal
        var ticks = 0
    }

    struct Health: Equatable, Sendable {
        var instance: Instance
        var ticksSinceHeard = 0
        var isRefused = false
        var hasLeft = false
    }

    struct Absence: Equatable, Sendable {
        var witness: Instance
        var ticks = 0
    }

    package init(
        me: Member, timing: Timing, membersMax: Int, election: Election = .sticky, seed: UInt64,
        keptMax: KeptMax = KeptMax()
    ) {
        precondition(membersMax >= 1 && membersMax <= View.backupsMax + 1)
        self.me = me
        self.timing = timing
        self.membersMax = membersMax
        self.election = election
        kept = Kept(max: keptMax)
        randomState = seed | 1
    }

    /// How many entries wait to be committed and executed.
    package var logCount: Int { log.count }
    package var keptCount: Int { kept.count }

    package var isMember: Bool { status == .normal || status == .choosing }
    package var isPrimary: Bool { isMember && view?.primary.instance == me.instance }

    /// Whether `propose` may be called; if not, requests wait or are sent elsewhere.
    package var acceptsRequests: Bool {
        status == .normal && isPrimary && drain == nil && !isUncompared && fork == nil
    }

    /// Whether a planned hand-over or admission is holding requests back, or the next view is
    /// being chosen: requests are worth keeping for the moment.
    package var isChanging: Bool { isPrimary && !acceptsRequests }

    /// Through this entry is committed, here or as others have said.
    var knownCommitted: LogEnd { end(at: commitMax).orLater(heardCommitted) }

    /// The entry of this log in which `op` is; view 0: it is not at hand.
    func end(at op: OpNumber) -> LogEnd {
        if op == commitMin { return LogEnd(view: commitView, op: op) }
        let entry = log.first { $0.last >= op }
        return LogEnd(view: op > commitMin ? entry?.view ?? ViewNumber(0) : ViewNumber(0), op: op)
    }

    /// Whether a learner is on its way in.
    package var isAdmitting: Bool { !learners.isEmpty }

    /// As an elector of the view after `view`.
    package var accepted: Accepted? { acceptor.accepted }

    package func isProvedDead(_ instance: Instance) -> Bool { lives.haveEnded(instance) }

    /// Reads with a probe up to this one may be answered, once the log of their time is executed.
    package var confirmedProbe: UInt64 {
        guard status == .normal, isPrimary else { return 0 }
        if breakage == .staleRead || breakage == .readBeforeCommit { return probe }
        return progress.lazy.map(\.confirmed).min() ?? probe
    }

    package mutating func step(_ event: Event, into outbox: inout Outbox) {
        switch event {
        case .message(let message, let from):
            let isProof = noteNewest(message, from: from)
            onMessage(message, from: from, into: &outbox)
            onVoucher(message, from: from, into: &outbox)
            if isProof { mend(into: &outbox) }
        case .relayed(let message, let from): onMessage(message, from: from, into: &outbox)
        case .tick: onTick(into: &outbox)
        case .propose(let batch, let time): onBatch(batch, time: time, into: &outbox)
        case .confirmReads: onConfirmReads(into: &outbox)
        case .linkUp(let instance): onLinkUp(instance, into: &outbox)
        case .linkDown(let instance): onLinkDown(instance, into: &outbox)
        case .heard(let instance): onHeard(instance)
        case .refused(let instance): onRefused(instance, into: &outbox)
        case .met(let life, let view): lives.met(life, knowing: view)
        case .exited(let instance, let life): onExited(instance, life, into: &outbox)
        case .witnesses(let instances): onWitnesses(instances, into: &outbox)
        case .create(let end, let hash): onCreate(after: end, hash, into: &outbox)
        case .join(let primary, let join): onJoinWanted(primary, join, into: &outbox)
        case .stateSent(let learner, let join, let op):
            onStateSent(learner, join, op, into: &outbox)
        case .resume: onResume(into: &outbox)
        case .handOver: onHandOver(into: &outbox)
        case .promoteByForce: onPromoteByForce(into: &outbox)
        }
    }

    /// Whether what it says of the choice of the next view may count. Any client can offer a witness.
    private func isVoter(_ instance: Instance) -> Bool {
        guard let view else { return false }
        return view.electorate.contains(instance) || view.contains(instance)
    }

    private mutating func onMessage(_ message: Message, from: Instance, into outbox: inout Outbox) {
        if let number = message.viewSpokenIn, isMember { tellIfBehind(number, from, into: &outbox) }
        switch message {
        case .prepare(let view, let entry, let commitMax):
            onPrepare(view, entry, commitMax, from: from, into: &outbox)
        case .commit(let view, let commitMax, let hash):
            onCommit(view, commitMax, hash, from: from, into: &outbox)
        case .confirm(let view, let probe): onConfirm(view, probe, from: from, into: &outbox)
        case .prepareOK(let view, let op): onPrepareOK(view, op, from: from, into: &outbox)
        case .confirmOK(let view, let probe): onConfirmOK(view, probe, from: from)
        case .attach(let view, let op, let hash):
            onAttach(view, op, hash, from: from, into: &outbox)
        case .witnesses(let instances): onWitnessReport(instances, from: from)
        case .fork(let view, let op): onFork(view, op, from: from, into: &outbox)
        case .seek(let number, let attempt, let isViewOver):
            onSeek(number, attempt, isViewOver, from: from, into: &outbox)
        case .grant, .outbid, .accepted:
            if isVoter(from) { onAnswer(message, from: from, into: &outbox) }
        case .propose(let attempt, let view): onPropose(attempt, view, from: from, into: &outbox)
        case .view(let view): onView(view, from: from, into: &outbox)
        case .join(let join, let member, let end, let hash):
            let has = Learned(end: end, hash: hash)
            onJoin(join, member, has, from: from, into: &outbox)
        case .state(let join, let view, let end, let hash, let piece, let pieces, let bytes):
            let part = StatePiece(
                join: join, view: view, end: end, hash: hash, piece: piece, pieces: pieces,
                bytes: bytes)
            onState(part, from: from, into: &outbox)
        case .learnOK(let join, let op): onLearnOK(join, op: op, from: from, into: &outbox)
        case .joinRefused(let join, let reason):
            onJoinRefused(join, reason, from: from, into: &outbox)
        case .election(let view, let id): onElection(view, id, from: from, into: &outbox)
        case .electionOK(let view): onElectionOK(view, from: from)
        case .leave(let instance): onLeave(instance, from: from, into: &outbox)
        case .stop: outbox.effects.append(.stop)
        case .beat(let number, let committed):
            if number == view?.number, view?.electorate.contains(from) == true {
                checkForLostEnd(committed: committed, into: &outbox)
            }
        case .relay: break
        }
    }

    /// To this replica's own campaign, mostly.
    private mutating func onAnswer(_ message: Message, from: Instance, into outbox: inout Outbox) {
        switch message {
        case .grant(let number, let attempt, let committed, let end, let accepted):
            if let accepted, accepted.view.number != number { return }
            if number == view?.number.next {
                checkForLostEnd(committed: committed, into: &outbox)
                // What a backup has of this view's log is this primary's, or was.
                if isPrimary, end.view == view?.number { checkForLostEnd(had: end, into: &outbox) }
            }
            onGrant(number, attempt, end, accepted, from: from, into: &outbox)
        case .outbid(let number, let attempt): onOutbid(number, attempt)
        case .accepted(let number, let attempt):
            onAccepted(number, attempt, from: from, into: &outbox)
        default: preconditionFailure("\(message) is no answer")
        }
    }

    /// Numbers for back-off.
    mutating func random(below bound: Int) -> Int {
        randomState ^= randomState >> 12
        randomState ^= randomState << 25
        randomState ^= randomState >> 27
        return Int((randomState &* 0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
