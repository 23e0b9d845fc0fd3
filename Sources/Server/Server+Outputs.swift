import Replication
import Services
import Storage
import Wire

/// What a step asked for that must wait until the journal is durable through the step's records.
struct Output {
    /// So many syncs must have ended.
    let need: Int
    /// As it was after the step.
    let confirmedProbe: UInt64
    let envelopes: [(envelope: Envelope, channel: Channel?)]
    let execute: [Entry]
    let effects: [Replication.Effect]
}

/// What a message to another would go through now.
enum Channel: Equatable {
    /// By its number.
    case connection(UInt64)
    case relay(via: Instance, path: UInt64)
}

// The second half of each step: what vouches for the records goes out when they are durable. A turn
// syncs once, at its end, whatever its steps ask for; so steps go on meanwhile, and what they ask
// for is carried out in their order. The simulator's replicas do the same, over longer syncs.
extension Server {
    /// Carries out what the core has asked for, or keeps it until the turn's sync.
    func carryOut() {
        for envelope in outbox.send { post(envelope) }
        guard let durable else {
            for envelope in outbox.sendAfterSync { post(envelope) }
            return finish(outbox.execute, outbox.effects)
        }
        append(outbox.records, outbox.effects)
        guard exitCode == nil else { return }
        guard !durable.isBehind else {
            // A message is for the path that stands now: what was on its way when a path breaks is
            // sent anew, from the last ack on, over the next.
            let envelopes = outbox.sendAfterSync.map { ($0, channel(to: $0.to)) }
            durable.keep(
                Output(
                    need: durable.syncs + (durable.store.isPending ? 1 : 0),
                    confirmedProbe: replica.confirmedProbe, envelopes: envelopes,
                    execute: outbox.execute, effects: outbox.effects))
            return
        }
        noteSettled(durable, replica.confirmedProbe)
        for envelope in outbox.sendAfterSync { post(envelope) }
        finish(outbox.execute, outbox.effects)
    }

    /// An effect may step the core again, which refills the outbox; hence the copies.
    private func finish(_ entries: [Entry], _ effects: [Replication.Effect]) {
        for entry in entries { execute(entry) }
        for effect in effects { carryOut(effect) }
    }

    /// The turn's one sync, at its end or earlier, and then what has waited for it. What that asks
    /// for waits for the next turn's sync, if it has to be written down.
    func settleDisk() {
        guard let durable, exitCode == nil else { return }
        if durable.store.isPending, durable.syncedTurn != loop.turns, !durable.store.mustWait {
            durable.syncedTurn = loop.turns
            guard syncDisk(durable) else { return }
        }
        while let output = durable.takeOutput() {
            noteSettled(durable, output.confirmedProbe)
            for (envelope, channel) in output.envelopes {
                guard let channel, self.channel(to: envelope.to) == channel else { continue }
                post(envelope)
            }
            finish(output.execute, output.effects)
        }
        release()
        checkpointIfDue(durable)
    }

    private func noteSettled(_ durable: Durable, _ confirmedProbe: UInt64) {
        durable.confirmedProbe = confirmedProbe
        guard !durable.isBehind, durable.shownView?.number != replica.view?.number else { return }
        durable.shownView = replica.view
    }

    private func channel(to instance: Instance) -> Channel? {
        switch paths.route(to: instance) {
        case .direct:
            if let link = links[instance] { return .connection(link.number) }
        case .relay(let via, let path): return .relay(via: via, path: path)
        case nil: break
        }
        return witnessConnection(instance).map { .connection($0.number) }
    }

    /// Sends a message that is true only when all that was written so far is durable.
    func postAfterSync(_ envelope: Envelope) {
        guard let durable, durable.isBehind else { return post(envelope) }
        durable.keep(
            Output(
                need: durable.syncs + (durable.store.isPending ? 1 : 0),
                confirmedProbe: replica.confirmedProbe,
                envelopes: [(envelope, channel(to: envelope.to))], execute: [], effects: []))
    }

    /// Reads with a probe up to this one may be answered.
    var confirmedProbe: UInt64 { durable?.confirmedProbe ?? replica.confirmedProbe }

    /// The newest view that will be known here after any loss of power.
    var shownView: View? {
        guard let durable, durable.isBehind else { return replica.view }
        return durable.shownView
    }

    /// Whether it proposes as the primary: not before it has carried out that it has entered its
    /// view, as by that caches and voters are asked after.
    var leads: Bool {
        replica.isPrimary && driver.viewEntered == replica.view?.number && driver.isLeading
    }
}
