/// Deliberate mistakes, for one purpose: tests make a replica, witness or path commit one and see
/// that the checkers of the simulation notice. Never set in a server.
package enum Breakage: String, CaseIterable, Sendable {
    /// The primary commits what it has itself, whatever the backups have.
    case noWriteAll
    /// After a link broke nothing is sent again.
    case nothingResent
    /// A backup acks the next entry without writing it down.
    case ackUnwritten
    /// A majority less one decides.
    case quorumTooSmall
    /// An elector forgets which attempts it has granted.
    case grantsTwice
    /// An elector does not report what it has accepted.
    case acceptedUnreported
    /// A candidate does as it likes whatever phase 1 reports.
    case reportedIgnored
    /// A candidate goes on in the present view after PROPOSE.
    case proposerGoesOn
    /// A primary proposes anything under attempt 0, again and again.
    case attemptZeroTwice
    /// Whoever is cut off takes the other for proved dead.
    case proofBySilence
    /// A learner is let in before it has everything.
    case learnerTooEarly
    /// More replicas are let in than there are places.
    case placesUncounted
    /// A new primary drops what it does not know to be committed.
    case tailForgotten
    /// A backup takes its whole log for the new primary's.
    case tailTrusted
    /// Entries that contradict the primary's stay.
    case noTruncation
    /// Older news of a view is believed.
    case oldNewsBelieved
    /// Reads are answered without asking the backups.
    case staleRead
    /// A new primary answers reads at once, before it has executed the log that it inherited.
    case readBeforeCommit
    /// Snapshots come without the client table.
    case forgottenSessions
    /// An elector answers for views that are decided already.
    case electsThePast
    /// Who is told of a view without it goes on in the old one.
    case staysAfterRemoval
    /// The primary of a group does not hand over to a higher member.
    case highestIgnored
    /// A primary announces a vote's result when it decides to close it.
    case announcedTooEarly
    /// An ack leaves before what it vouches for is durable.
    case ackBeforeSync
    /// A primary sends what is not durable on its own disk yet.
    case prepareBeforeSync
    /// What an elector has accepted is not written down.
    case acceptedUnrecorded
    /// The newest view is not written down.
    case viewUnrecorded
    /// One that has been dead itself takes the proof of the other's end for enough.
    case proofAfterRestart
    /// A replica that comes back takes its whole log for the primary's.
    case rejoinTailTrusted
    /// Who has lost the end of its journal goes on as if it had not.
    case lostEndUnnoticed
    /// A folder is not synced when names in it have changed.
    case folderUnsynced
    /// A checkpoint counts before the journal is durable through its op.
    case checkpointBeforeJournal
    /// A segment is followed by another before it is durable to its end.
    case sealUnsynced
    /// A journal's records need not name the one before them.
    case chainUnchecked
    /// A sync that has failed is tried again.
    case syncRetried
    /// What the kernel alone may have of a last write is taken for durable at the next start.
    case tailNotRewritten
    /// Whoever has lost a part of its journal goes on under its name, with nothing.
    case renewedAsBefore
    /// A reservation does not wait for the caches that show its room.
    case leaseNotAwaited
    /// A new primary does not wait for its predecessor's leases to end.
    case takeoverNotAwaited
    /// What is about to change may be cached.
    case leaseWhileWriting
    /// A member or witness that takes its leave is not let go.
    case leaveIgnored
    /// A primary that is to hand over goes on.
    case handOverIgnored
    /// A backup does not say that reads may be answered.
    case readsUnconfirmed
    /// A primary answers a call before any other replica has it.
    case answeredTooEarly
    /// A new primary counts what was held for it as it likes.
    case heldBallotsGuessed
    /// More of what is committed is kept than there is room for.
    case keptForever
}
