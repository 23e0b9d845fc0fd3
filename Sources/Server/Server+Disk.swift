import Arguments
import Journal
import Linux
import Replication
import Services
import Storage
import Wire

// The journal's place in a turn: what a step has to remember is appended, and once a turn all of it
// is written and synced.
extension Server {
    /// From here on the folder is of this service.
    func claimFolder(_ service: ServiceID) {
        guard let durable, durable.store.identity == nil else { return }
        do throws(SystemError) {
            try durable.store.create(
                Identity(service: service, id: me.id, instance: me.instance), durable.unclaimed)
            durable.unclaimed = []
        } catch {
            failDisk(error)
        }
    }

    func append(_ records: [Record], _ effects: [Replication.Effect]) {
        guard let durable, !records.isEmpty, exitCode == nil else { return }
        do throws(SystemError) {
            if durable.store.identity == nil {
                durable.unclaimed += records
                // A new service. Were its first view not there with the folder's identity, a process
                // that ended in between would wait for a service that nobody has.
                if let service { claimFolder(service) }
                return
            }
            for case .restore(let op, let snapshot) in effects {
                for case .restored(let end, let hash) in records where end.op == op {
                    try durable.store.receive(
                        op: op, view: end.view, hash: hash, snapshot: snapshot)
                }
            }
            try durable.store.append(records)
        } catch {
            failDisk(error)
        }
    }

    /// Writes and syncs what was appended, if anything was; false when that failed.
    func syncDisk(_ durable: Durable) -> Bool {
        guard durable.store.isPending else { return true }
        let start = Clock.monotonicNanoseconds()
        do throws(SystemError) {
            try durable.store.sync()
            durable.syncs += 1
            durable.syncNanoseconds += Clock.monotonicNanoseconds() - start
            return true
        } catch {
            failDisk(error)
            return false
        }
    }

    /// What it could not write it must not answer for: this replica ends, the others go on.
    func failDisk(_ error: SystemError) {
        guard exitCode == nil else { return }
        log.error("the journal cannot be written: \(error); this replica ends here")
        end(.io)
        outbox.removeAll()
        durable?.dropOutputs()
    }

    func tickDisk() {
        guard let durable, exitCode == nil else { return }
        switch durable.store.takeCheckpointOutcome() {
        case .done(let op, let removal):
            durable.checkpointNanoseconds =
                Clock.monotonicNanoseconds() - durable.checkpointStart
            log.detail("a checkpoint after op \(op) is on the disk")
            if let removal { log.warnOnce("old files of the journal stay: \(removal)") }
        case .failed(let error): log.warnOnce("no checkpoint could be made: \(error)")
        case .journalFailed(let error): failDisk(error)
        case nil: break
        }
        checkWait(durable)
        markDisk(durable)
    }

    /// A disk that hangs in the loop's own sync stops the heartbeats with it. While another thread
    /// makes the next file the loop goes on, and all others take for alive what answers nobody.
    private func checkWait(_ durable: Durable) {
        guard durable.store.mustWait, exitCode == nil else {
            durable.ticksWaited = 0
            return
        }
        durable.ticksWaited += 1
        let tick = Settings.tickMilliseconds
        let silence = Int(settings.heartbeatMilliseconds * settings.misses / tick)
        // With `--sync never` the segment before is synced first: a MiB a second is a disk that works.
        let slow = (durable.store.options.segmentBytes >> 20) * Int(1_000 / tick)
        guard durable.ticksWaited > max(Durable.ticksWaitedMin, 2 * silence, slow) else { return }
        durable.isHung = true
        failDisk(
            SystemError(
                "making the next segment in", durable.store.folder, code: SystemError.timedOut))
    }

    /// When nothing more came since the last tick.
    private func markDisk(_ durable: Durable) {
        let records = durable.store.counts.records
        defer { durable.recordsAtTick = records }
        guard records == durable.recordsAtTick, !durable.isBehind, durable.store.canMark,
            durable.syncedTurn != loop.turns
        else { return }
        durable.syncedTurn = loop.turns
        endMarked()
    }

    /// The last write is vouched for, also when nothing comes behind it any more.
    func endMarked() {
        guard let durable, !durable.isBehind else { return }
        do throws(SystemError) {
            try durable.store.mark()
        } catch {
            failDisk(error)
        }
    }

    /// Once enough has been written since the last one, of a state of which everything is durable.
    func checkpointIfDue(_ durable: Durable) {
        guard durable.store.counts.bytes - durable.bytesAtCheckpoint >= durable.bytesPerCheckpoint,
            !durable.isBehind, exitCode == nil, executor.view.rawValue > 0
        else { return }
        let copy = executor
        do throws(SystemError) {
            let isBegun = try durable.store.checkpoint(
                op: copy.op, view: copy.view, hash: copy.hash,
                snapshot: { copy.snapshot() })
            if isBegun {
                durable.bytesAtCheckpoint = durable.store.counts.bytes
                durable.checkpointStart = Clock.monotonicNanoseconds()
            }
        } catch {
            failDisk(error)
        }
    }
}
