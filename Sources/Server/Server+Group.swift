import Replication
import Wire

/// What people were told of a group that elects its leader.
struct Group {
    /// The leader of the view that this replica was last in, while it is in one.
    var leaderSeen: Instance?
}

// The words about elections.
extension Server {
    func sayStarted() {
        log.info("Server \(me.id.id) started")
        // Who starts finds out who leads; the members that it joins do the rest.
        sayElection(initiatedBy: nil)
    }

    /// `initiator`: whose ELECTION has made this server begin; nil: nobody's.
    func sayElection(initiatedBy initiator: ReplicaID?) {
        log.info("\(me.id.id) is running an election initiated by \(initiator?.id ?? 0)")
    }

    func sayLeaderFailed(_ leader: Member) {
        log.info("Heartbeat to group leader \(leader.id.id) failed")
    }

    /// On entering a view, if another than before leads it.
    func sayLeader(of view: View) {
        guard settings.election == .bully, group.leaderSeen != view.primary.instance else { return }
        group.leaderSeen = view.primary.instance
        log.info("Election completed. Group Leader: \(view.primary.id.id)")
    }
}
