/// What a replica must not forget once it has answered for it: one record of its journal. Replayed in
/// order they give the replica as it was.
package enum Record: Hashable, Sendable {
    /// Appended to the log, behind the entry before it.
    case entry(Entry)
    /// Entries behind this op are gone.
    case truncated(after: OpNumber)
    /// The state of the services came from another replica, or from a copy, as it stands after this
    /// op; the log begins anew behind it. The state itself is a checkpoint.
    case restored(LogEnd, hash: LogHash)
    /// The newest view known: with this replica in it, it is in that view from here on; without,
    /// it is in none.
    case view(View)
    /// As an elector it has granted this attempt of choosing view `number`.
    case promised(number: ViewNumber, Attempt)
    /// As an elector it has accepted this, which also grants.
    case accepted(Accepted)
    /// It has proposed a view with this number: in the view before it commits, answers and acks
    /// nothing any more.
    case proposed(number: ViewNumber)
}
