import Journal
import Linux
import Replication
import Services
package import Storage
package import Wire

/// A replica's journal, opened, and what the replica was when it wrote it.
package final class Durable {
    var store: Store
    let helpers: Helpers
    /// Whether something was found; else the folder was blank, or could not be used and was set aside.
    let isRecovered: Bool
    /// What was found, until it is taken: the state and the log, which the replica has from then on.
    private var recovered: Journal.Recovered?
    /// Whose the folder is; nil: nobody's yet.
    let identity: Identity?
    /// What was to be remembered before the folder was anybody's: a view that others have told of.
    /// Until then nothing would be broken by forgetting it, as the next start is a new instance.
    var unclaimed: [Record] = []
    /// What waits for a sync, in the order of the steps that asked for it.
    private(set) var outputs: [Output] = []
    /// Those before this place are done.
    private var outputsDone = 0
    /// Journal syncs completed.
    var syncs = 0
    /// The most that any turn has made, as the store counts them, and its count before the turn.
    private(set) var syncsOfATurnMax = 0
    private var syncsBefore = 0
    /// The number of the turn in which the last one began.
    var syncedTurn: UInt64?
    /// How long they have taken, with their writes.
    var syncNanoseconds: UInt64 = 0
    /// As it was after the newest step of which everything is durable: reads wait for that, too.
    var confirmedProbe: UInt64 = 0
    /// The newest view of which everything is durable.
    var shownView: View?
    /// When the checkpoint that is being written was begun, and how long the last one took.
    var checkpointStart: UInt64 = 0
    var checkpointNanoseconds: UInt64 = 0
    /// Bytes that this process had written to the journal at the last checkpoint; below zero: what
    /// was found behind it. Otherwise one that is killed again and again would never make one.
    var bytesAtCheckpoint = 0
    /// Of the journal, at the last tick.
    var recordsAtTick = 0
    /// For how many ticks the journal has waited for a file that is being made.
    var ticksWaited = 0
    /// The disk has not answered for so long that this replica ends.
    var isHung = false
    static let ticksWaitedMin = 3_000

    /// With so much behind the last checkpoint another is made.
    var bytesPerCheckpoint: Int { store.options.segmentBytes / 2 }

    private init(
        _ store: consuming Store, _ helpers: Helpers, _ identity: Identity?,
        _ recovered: Journal.Recovered?
    ) {
        self.store = store
        self.helpers = helpers
        self.identity = identity
        self.recovered = recovered
        isRecovered = recovered != nil
    }

    /// What was found, once: a second copy would stay in memory as long as the process.
    func takeRecovered() -> Journal.Recovered? {
        defer { recovered = nil }
        return recovered
    }

    /// Opens `folder`; `service`, `id`: what it must be of, if it is not blank. `peerView` is asked only when
    /// the journal alone does not suffice: for the newest view of the service that another replica is in,
    /// nil if none answers. What people should know is told to `say`.
    package static func open(
        folder: String, service: ServiceID?, id: Store.WantedID, options: Store.Options,
        peerView: (ServiceID) -> ViewNumber?, say: (String) -> Void
    ) throws(StoreError) -> Durable {
        let helpers = try Helpers.start()
        var store = try Store(
            folder: folder, service: service, id: id, options: helpers.serve(options))
        guard let identity = store.identity else { return Durable(store, helpers, nil, nil) }
        let rotten = (store.survey?.checkpoints ?? []).compactMap { report in
            report.flaw.map {
                "\(folder)/\(report.name) is rotten (offset \($0.offset): \($0.reason))"
            }
        }
        let bytesFound = store.survey?.segments.reduce(0) { $0 + $1.end } ?? 0
        let resumption: Store.Resumption
        do throws(StoreError) {
            resumption = try store.resume(isPeerReachable: false)
        } catch {
            guard case .refused = error, let theirs = peerView(identity.service) else {
                // One of them may be why the journal does not suffice.
                for words in rotten { say(words) }
                throw error
            }
            // A replica that has stayed behind has not got what is lost here.
            let newest = store.survey?.newestView ?? ViewNumber(0)
            guard theirs >= newest else {
                say(
                    "another replica answers, but is in view \(theirs) only, before view \(newest) "
                        + "of this journal: what is lost here may be missing there, too")
                throw error
            }
            resumption = try store.resume(isPeerReachable: true)
        }
        switch resumption.verdict {
        case .useAll: break
        case .cut(let place), .ask(let place, keepsInstance: true):
            say("\(folder)/\(place); cut there")
        case .ask(let place, keepsInstance: false):
            let fresh = Identity(
                service: identity.service, id: identity.id,
                instance: Instance(max(1, Entropy.next())))
            do throws(SystemError) {
                let aside = try store.renew(fresh)
                say(
                    "\(folder)/\(place); it is in \(aside) now, and everything comes from the other "
                        + "replica")
            } catch {
                throw .system(error)
            }
            return Durable(store, helpers, fresh, nil)
        case .refuse: preconditionFailure("refused and gone on")
        }
        for words in rotten { say("\(words); the journal makes up for it") }
        let durable = Durable(store, helpers, identity, resumption.recovered)
        durable.bytesAtCheckpoint = -bytesFound
        return durable
    }

    /// Whether something waits for a sync: then all that follows waits, too.
    var isBehind: Bool { store.isPending || outputsDone < outputs.count }

    /// Whether the next turn's sync would bring it on: else a new segment is awaited.
    var mayGoOn: Bool { isBehind && !store.mustWait }

    func noteTurn() {
        syncsOfATurnMax = max(syncsOfATurnMax, store.counts.syncs - syncsBefore)
        syncsBefore = store.counts.syncs
    }

    func keep(_ output: Output) { outputs.append(output) }

    /// The next that need not wait any more.
    func takeOutput() -> Output? {
        guard outputsDone < outputs.count, outputs[outputsDone].need <= syncs else { return nil }
        let output = outputs[outputsDone]
        outputsDone += 1
        // All at once: one by one the rest would be moved each time.
        if outputsDone == outputs.count { dropOutputs() }
        return output
    }

    func dropOutputs() {
        outputs.removeAll(keepingCapacity: true)
        outputsDone = 0
    }

    /// Opens `folder` for a new service: it must be blank, and is left alone if it is not.
    package static func openBlank(folder: String, options: Store.Options) throws(StoreError)
        -> Durable
    {
        let helpers = try Helpers.start()
        let store = try Store(
            folder: folder, service: nil, options: helpers.serve(options))
        if let identity = store.identity {
            guard store.survey?.standing.view != nil else {
                throw .refused(
                    path: folder,
                    reason:
                        "left behind by a start that did not get to its end; it has nothing that "
                        + "anybody was answered for: remove it, and try again")
            }
            throw .refused(
                path: folder,
                reason: "not blank, it has the journal of \(identity); --restore needs an empty "
                    + "folder (without --restore this server goes on from the journal)")
        }
        return Durable(store, helpers, nil, nil)
    }

    /// What the core goes on from; `executor`: as in the checkpoint.
    static func replicaState(_ recovered: Journal.Recovered, _ executor: Executor<ServiceSet>)
        -> Replication.Recovered?
    {
        guard recovered.view != nil else { return nil }
        do throws(DecodeError) {
            return try Replication.Recovered(
                op: recovered.op, hash: executor.hash, view: executor.view,
                committed: recovered.committed, reign: recovered.reign,
                hasState: recovered.hasState, records: recovered.records)
        } catch {
            preconditionFailure("the journal contradicts itself: \(error.text)")
        }
    }
}
