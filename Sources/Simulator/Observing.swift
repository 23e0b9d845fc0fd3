import Replication
import Wire

// What an observer of the messages takes note of.
extension Simulation {
    /// Rule 1, and what kind of change this was.
    func noteView(_ view: View) {
        let before = history.newest
        check { () throws(Violation) in try history.note(view, entered: true) }
        guard let before, view.number > before.number else { return }
        let (old, new) = (before.members.map(\.instance), view.members.map(\.instance))
        if new.contains(where: { !old.contains($0) }) { coverage.note(.learnerAdmitted) }
        if old.contains(where: { !new.contains($0) }) { coverage.note(.memberExcluded) }
        if Set(old) == Set(new), before.primary != view.primary {
            coverage.note(.handedOver)
            if election == .bully, view.primary.id > before.primary.id {
                coverage.note(.handedOverToHigher)
            }
        }
        if before.witnesses != view.witnesses { coverage.note(.electorateChanged) }
        if view.backups.isEmpty { coverage.note(.decidedAlone) }
        if view.members.count > mix.shape.replicas {
            fail(Violation(.safety, rule: "bounds", "more members than places: '\(view.text)'"))
        }
    }

    func observe(_ process: ReplicaProcess, _ envelope: Envelope) {
        ambush(process, envelope)
        switch envelope.message {
        case .view(let view): noteView(view)
        case .seek(_, _, _): coverage.note(.sought)
        case .propose(let attempt, let view):
            if attempt.counter == 0 {
                coverage.note(.proposedAtOnce)
            } else {
                coverage.note(.proposedAfterPhaseOne)
            }
            if attempt.proposer == process.me.instance {
                if history.isAnothers(attempt, view) { coverage.note(.proposalOfAnother) }
                history.notePropose(attempt, view)
            }
        case .accepted(let number, let attempt):
            history.noteAccept(number, attempt, by: process.me.instance)
        case .grant(_, _, _, _, let accepted):
            if accepted != nil { coverage.note(.grantWithAccepted) }
        case .outbid: coverage.note(.outbid)
        case .election: coverage.note(.electionAsked)
        case .electionOK: coverage.note(.electionAnswered)
        case .prepare, .commit, .confirm, .prepareOK, .confirmOK, .attach, .witnesses, .fork, .join,
            .state,
            .learnOK, .joinRefused, .leave, .stop, .beat, .relay:
            return
        }
    }

    /// Rule 7, when the message is made; it may leave later.
    func checkAck(_ process: ReplicaProcess, _ envelope: Envelope) {
        switch envelope.message {
        case .prepareOK(let number, _), .confirmOK(let number, _):
            guard let view = process.replica.view else { return }
            let isOut = process.isOut && process.outputs.isEmpty
            guard number < view.number || isOut else { return }
            fail(
                Violation(
                    .safety, rule: "told to step down, it answers nobody",
                    "replica \(process.number) acks in view \(number) after '\(view.text)'"))
        default: return
        }
    }

    func observe(_ client: ClientProcess, _ envelope: Envelope) {
        switch envelope.message {
        case .accepted(let number, let attempt):
            history.noteAccept(number, attempt, by: client.instance)
        case .grant(_, _, _, _, let accepted):
            if accepted != nil { coverage.note(.grantWithAccepted) }
        case .outbid: coverage.note(.outbid)
        case .view: if !client.witness.isElector { coverage.note(.toldByClient) }
        case .relay(let frame): if frame.body == .close { coverage.note(.relayBounced) }
        case .prepare, .commit, .confirm, .prepareOK, .confirmOK, .attach, .witnesses, .fork, .seek,
            .propose, .join, .state, .learnOK, .joinRefused, .election, .electionOK, .leave,
            .stop, .beat:
            return
        }
    }

    func noteFrame(_ frame: RelayFrame) {
        switch frame.body {
        case .open: coverage.note(.relayOpened)
        case .close: coverage.note(.lateFrame)
        case .accept, .data, .beat: return
        }
    }

    func noteRoutes(_ process: ReplicaProcess) {
        process.hasRelayed = process.paths.hasRelayInPlace()
    }

    func noteLostRelay(_ process: ReplicaProcess) {
        if process.hasRelayed { coverage.note(.relayLost) }
    }
}
