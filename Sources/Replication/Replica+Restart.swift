package import Wire

// A replica with a disk after its restart: the same instance, with all that it has ever told of.
extension Replica {
    /// The replica as its disk has it. `resume` is to be its first event.
    ///
    /// Everything that another may have heard from it was durable before it was said, so the
    /// restart is to the others a pause in which all connections broke. It goes on in its view, with
    /// its part in choosing the next one; what it knows to be committed is only the checkpoint, and
    /// the others, or nobody being there the lack of them, tell it the rest.
    ///
    /// - An attempt is made once: the counter goes on above all that were written down, which are all
    ///   that were sent (SEEK leaves after the sync). Attempt 0 is spent if anything was granted or
    ///   accepted, and the primary accepts its own proposal before that leaves.
    /// - A probe may be made again: what confirms one counts only on a link on which the backup has
    ///   attached, and behind that attach nothing comes from before the restart.
    package init(
        me: Member, timing: Timing, membersMax: Int, election: Election = .sticky, seed: UInt64,
        keptMax: KeptMax = KeptMax(), recovered: Recovered
    ) {
        self.init(
            me: me, timing: timing, membersMax: membersMax, election: election, seed: seed,
            keptMax: keptMax)
        view = recovered.view
        log = recovered.log
        op = recovered.last
        (commitMin, commitMax, matched) = (recovered.op, recovered.op, recovered.op)
        commitView = recovered.opView
        hasState = view != nil
        acceptor = Acceptor(granted: recovered.promised, accepted: recovered.accepted)
        counterSeen = recovered.promised?.counter ?? 0
        isProofVoid = true
        guard let view, view.contains(me.instance) else { return }
        status = recovered.hasProposed ? .choosing : .normal
        health = view.members.filter { $0.instance != me.instance }.map {
            Health(instance: $0.instance)
        }
        resetYield()
        guard view.primary.instance == me.instance else { return }
        matched = op
        progress = view.backups.map { _ in Progress(acked: commitMax, sent: nil) }
    }

    mutating func onResume(into outbox: inout Outbox) {
        guard isMember, let view else { return }
        // Alone it has nobody to wait for.
        advanceCommit(into: &outbox)
        outbox.effects.append(.entered(view))
    }

    /// Whether `message`, of another member on a link of this life, shows that one to be in this
    /// replica's view; see `isProofVoid`.
    mutating func noteVoucher(_ message: Message, from: Instance) {
        guard isProofVoid, isMember, let view, view.contains(from) else { return }
        if message.viewSpokenIn == view.number || message == .view(view) { isProofVoid = false }
    }
}
