import Journal
import Linux
import Replication
import Services
package import Storage
package import Wire

/// A replica's journal, opened, and what the replica was when it wrote it.
package final class Durable {
    var store: Store
    /// What was found; nil: a blank folder, or one that could not be used and was set aside.
    let recovered: Journal.Recovered?
    /// Whose the folder is; nil: nobody's yet.
    let identity: Identity?
    /// Messages that wait for the turn's sync, in order.
    var heldBack: [Envelope] = []
    /// Bytes in the journal at the last checkpoint.
    var bytesAtCheckpoint = 0
    var turns: UInt64 = 0

    /// With so much behind the last checkpoint another is made.
    static let bytesPerCheckpoint = 32 << 20

    private init(_ store: consuming Store, _ identity: Identity?, _ recovered: Journal.Recovered?) {
        self.store = store
        self.identity = identity
        self.recovered = recovered
    }

    /// Opens `folder`. `isPeerReachable` is asked only when the journal alone does not suffice. What
    /// people should know is told to `say`.
    package static func open(
        folder: String, id: ReplicaID?, options: Store.Options, isPeerReachable: () -> Bool,
        say: (String) -> Void
    ) throws(StoreError) -> Durable {
        var store = try Store(folder: folder, service: nil, id: id, options: options)
        guard let identity = store.identity else { return Durable(store, nil, nil) }
        let resumption: Store.Resumption
        do throws(StoreError) {
            resumption = try store.resume(isPeerReachable: false)
        } catch {
            guard case .refused = error, isPeerReachable() else { throw error }
            resumption = try store.resume(isPeerReachable: true)
        }
        switch resumption.verdict {
        case .useAll: break
        case .cut(let place), .ask(let place, keepsInstance: true):
            say("\(folder)/\(place.file), offset \(place.offset): \(place.flaw.reason); cut there")
        case .ask(let place, keepsInstance: false):
            let fresh = Identity(
                service: identity.service, id: identity.id,
                instance: Instance(max(1, Entropy.next())))
            do throws(SystemError) {
                let aside = try store.renew(fresh)
                say(
                    "\(folder)/\(place.file), offset \(place.offset): \(place.flaw.reason); it is in "
                        + "\(aside) now, and everything comes from the other replica")
            } catch {
                throw .system(error)
            }
            return Durable(store, fresh, nil)
        case .refuse: preconditionFailure("refused and gone on")
        }
        return Durable(store, identity, resumption.recovered)
    }

    /// What the core goes on from.
    func replicaState() -> Replication.Recovered? {
        guard let recovered, recovered.view != nil else { return nil }
        do throws(DecodeError) {
            return try Replication.Recovered(
                op: recovered.op, view: recovered.opView, records: recovered.records)
        } catch {
            preconditionFailure("the journal contradicts itself: \(error.text)")
        }
    }
}

// The journal's place in a turn: what a step has to remember is appended, once a turn all of it is
// written and synced, and only then anything leaves that vouches for it.
extension Server {
    /// From here on the folder is of this service.
    func claimFolder(_ service: ServiceID) {
        guard let durable, durable.store.identity == nil else { return }
        do throws(SystemError) {
            try durable.store.create(
                Identity(service: service, id: me.id, instance: me.instance))
        } catch {
            failDisk(error)
        }
    }

    func append(_ records: [Record], _ effects: [Replication.Effect]) {
        guard let durable, !records.isEmpty, exitCode == nil else { return }
        do throws(SystemError) {
            for case .restore(let op, let snapshot) in effects {
                let view = replica.view?.number ?? ViewNumber(0)
                try durable.store.receive(op: op, view: view, snapshot: snapshot)
            }
            try durable.store.append(records)
        } catch {
            failDisk(error)
        }
    }

    /// Writes and syncs what was appended, then lets go what has waited for that.
    func syncDisk() {
        guard let durable, exitCode == nil else { return }
        if durable.store.isPending {
            do throws(SystemError) {
                try durable.store.sync()
            } catch {
                failDisk(error)
                return
            }
        }
        guard !durable.heldBack.isEmpty else { return }
        let list = durable.heldBack
        durable.heldBack.removeAll(keepingCapacity: true)
        for envelope in list { post(envelope) }
    }

    /// What it could not write it must not answer for: this replica ends, the others go on.
    private func failDisk(_ error: SystemError) {
        guard exitCode == nil else { return }
        log.error("the journal cannot be written: \(error); this replica ends here")
        exitCode = 74
        outbox.removeAll()
        durable?.heldBack = []
    }

    func tickDisk() {
        guard let durable, exitCode == nil else { return }
        switch durable.store.takeCheckpointOutcome() {
        case .done(let op, let removal):
            log.detail("a checkpoint after op \(op) is on the disk")
            if let removal { log.warnOnce("old files of the journal stay: \(removal)") }
        case .failed(let error): log.warnOnce("no checkpoint could be made: \(error)")
        case .journalFailed(let error): failDisk(error)
        case nil: break
        }
        guard durable.store.counts.bytes - durable.bytesAtCheckpoint >= Durable.bytesPerCheckpoint,
            let view = executedView
        else { return }
        syncDisk()
        let copy = executor
        do throws(SystemError) {
            let isBegun = try durable.store.checkpoint(
                op: copy.op, view: view, snapshot: { copy.snapshot() })
            if isBegun { durable.bytesAtCheckpoint = durable.store.counts.bytes }
        } catch {
            failDisk(error)
        }
    }
}
