package import Wire

/// A message and whose it is: a replica's or a witness's instance.
package struct Envelope: Equatable, Sendable {
    package var to: Instance
    package var message: Message

    package init(to: Instance, _ message: Message) {
        self.to = to
        self.message = message
    }
}

/// What the core asks of the shell, to be carried out in the order of the fields.
package struct Outbox: Equatable, Sendable {
    /// What the replica must not forget, in the order in which it came about. A `restored` is
    /// durable only together with the state that `effects` has for it.
    package var records: [Record] = []
    /// Messages that are as true of a replica that has forgotten this step: they may leave at once.
    package var send: [Envelope] = []
    /// Messages that must not leave before `records`, and those of all steps before this one, are
    /// durable. So to the others a restart from disk looks like a pause in which all connections
    /// broke. Without a disk they leave at once.
    ///
    /// PREPARE is among them. If it left while the primary's own entry is not durable yet, a primary
    /// that restarts without the entry would give its op to another entry of the same view, and a
    /// backup that has the first would be left with another log. It costs an op the time of a second
    /// sync; and no ack can come before the primary's own sync.
    /// VIEW is too, as the sender's own acceptance may be what has decided it.
    package var sendAfterSync: [Envelope] = []
    /// Committed entries to be given to the services, in order, each once; as `sendAfterSync`, not
    /// before all is durable. So a primary alone answers what is on its disk. Reads wait, too: for
    /// `confirmedProbe` as it was after the newest step of which everything is durable.
    package var execute: [Entry] = []
    /// After the sync, too.
    package var effects: [Effect] = []

    package init() {}

    package mutating func removeAll() {
        Self.clear(&records)
        Self.clear(&send)
        Self.clear(&sendAfterSync)
        Self.clear(&execute)
        Self.clear(&effects)
    }

    /// Most are empty most of the time, and to empty an empty array is not free.
    private static func clear<Element>(_ list: inout [Element]) {
        if !list.isEmpty { list.removeAll(keepingCapacity: true) }
    }
}

/// What happened to this replica that its shell has to act on.
package enum Effect: Equatable, Sendable {
    /// The replica is now in this view (as its primary or a backup), having executed all that
    /// stands before this in the outbox. Requests of clients are for the primary only when this has
    /// been carried out.
    case entered(View)
    /// This view leaves the replica out; its log's uncommitted tail is gone.
    case removed(View)
    /// Give this learner a snapshot of the services' state as it is after the outbox's entries,
    /// said to be of this view, then tell the core by `stateSent`.
    case sendState(to: Instance, join: JoinID, view: View)
    /// The join goes on from the services' state as it is here, after `op`.
    case stateKept(op: OpNumber)
    /// Put the services into this state; it stands after `op`.
    case restore(op: OpNumber, snapshot: [UInt8])
    /// Entries behind `op` are gone; requests of this replica among them have no outcome here.
    case truncated(after: OpNumber)
    /// The join has come to nothing; another may be tried.
    case joinFailed(reason: String, isPlaceTaken: Bool)
    /// No majority of the electorate answers; repeated while that lasts.
    case stalled(reason: String)
    /// Bully: this view's primary counts as failed. Once for each time.
    case leaderFailed(Member)
    /// Bully: this backup has begun an election; after whose ELECTION, if not of itself.
    case electionBegan(by: ReplicaID?)
    /// The service is being ended.
    case stop
}
