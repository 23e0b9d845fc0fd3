import Journal
package import Linux
import Synchronization
package import Wire

/// How the writing of a checkpoint ended.
package enum CheckpointOutcome: Equatable, Sendable {
    /// It counts; `removal`: what kept older files from being removed, which is tried again after
    /// the next one.
    case done(op: OpNumber, removal: SystemError?)
    /// It does not count; the ones before it and the journal do, and grow.
    case failed(SystemError)
    /// `--sync never`: the journal could not be made durable. The store is of no use any more.
    case journalFailed(SystemError)
}

/// A checkpoint that is being written beside the loop.
final class CheckpointJob: Sendable {
    let header: CheckpointHeader
    private let outcome = Mutex<CheckpointOutcome?>(nil)

    init(header: CheckpointHeader) { self.header = header }

    func finish(_ outcome: CheckpointOutcome) { self.outcome.withLock { $0 = outcome } }
    var result: CheckpointOutcome? { outcome.withLock { $0 } }
}

extension Store {
    /// Begins to write the state as it is after `op`, beside the caller's loop; `snapshot` is
    /// called there, so it should hold a copy of the services. `view`: of the entry that ends with
    /// `op`; `hash`: of the log through it. `onEnd` is called there too when `takeCheckpointOutcome` has
    /// something to give. Then what only older checkpoints needed is removed.
    ///
    /// Gives false, having done nothing, when one is being written or nothing is new.
    /// Precondition: the journal has been synced through `op`.
    package mutating func checkpoint(
        op: OpNumber, view: ViewNumber, hash: LogHash,
        snapshot: @escaping @Sendable () -> [UInt8],
        onEnd: @escaping @Sendable () -> Void = {}
    ) throws(SystemError) -> Bool {
        if let failure { throw failure }
        guard job == nil, op > (checkpoints.first?.op ?? OpNumber(0)) else { return false }
        precondition(op <= syncedOp, "a checkpoint of op \(op), synced through \(syncedOp)")
        let header = header(op, view, hash, .taken)
        let job = CheckpointJob(header: header)
        let removal = Removal(
            folder: folder, keeps: [header] + checkpoints.prefix(1), disk: disk)
        let (disk, folder) = (disk, folder)
        let journal =
            options.durability == .never ? begun.last.map { SegmentHeader.name($0.number) } : nil
        self.job = job
        do throws(SystemError) {
            try options.runBeside {
                job.finish(
                    Self.write(header, snapshot(), folder, disk, journal: journal, removal))
                onEnd()
            }
        } catch {
            self.job = nil
            throw error
        }
        return true
    }

    /// How the last checkpoint ended, once; nil while it is being written or there was none.
    package mutating func takeCheckpointOutcome() -> CheckpointOutcome? {
        guard let job, let result = job.result else { return nil }
        self.job = nil
        switch result {
        case .done:
            counts.checkpoints += 1
            checkpoints = [job.header] + checkpoints.prefix(1)
            if let oldest = checkpoints.last, checkpoints.count > 1 {
                begun.removeAll { $0.number < oldest.segment }
            }
        case .failed: break
        case .journalFailed(let error): failure = error
        }
        return result
    }

    /// Makes durable the state that came from another replica, as it is after `op`, so that
    /// `.restored` of it may be appended. Until that is synced it does not count.
    package mutating func receive(
        op: OpNumber, view: ViewNumber, hash: LogHash, snapshot: [UInt8]
    ) throws(SystemError) {
        waitForCheckpoint()
        _ = takeCheckpointOutcome()
        // One that is there says the same, if it is of the same log. And it counts whether or not the
        // record follows.
        if checkpoints.contains(where: { $0.op == op && $0.hash == hash }) { return }
        var header = header(op, view, hash, .received)
        header.snapshotBytes = snapshot.count
        try guarded { store throws(SystemError) in
            guard snapshot.count <= CheckpointHeader.snapshotBytesMax else {
                let path = "\(store.folder)/\(CheckpointHeader.name(op))"
                throw SystemError("write", path, code: SystemError.tooBig)
            }
            try store.removeSuperseded(for: op)
            try store.disk.publish(
                store.folder, CheckpointHeader.name(op), Checkpoint.encode(header, snapshot))
            store.checkpoints.removeAll { $0.op == op }
            store.checkpoints.append(header)
            store.checkpoints.sort { $0.op > $1.op }
        }
    }

    /// Takes away what earlier joins have left, before a state after `new` comes: who joins again and
    /// again, and never gets to a checkpoint of its own, would fill its disk with theirs.
    ///
    /// Why nothing goes that is needed:
    /// 1. Nothing is pending and no segment is being made, and with `--sync never` the journal is made
    ///    durable here. So the journal that stands on the disk is the one that `checkpoints` tells of:
    ///    every `restored` that was appended is in it.
    /// 2. That journal is gone on with from the first of `checkpoints`: it was taken here, or the last
    ///    `restored` names it. What was received and never put to use is not among them: opening
    ///    removes it, and `restored` follows in the turn in which a state is received. That first
    ///    one stays, and the next one, should it rot.
    /// 3. A newer file that is not among them is of before the log was set back. A start passes it over,
    ///    or the log has come to its op again: then the first of `checkpoints` and the log behind that
    ///    say the same, as the segments behind either of the two that stay are still there.
    /// 4. A file of the very op is not counted, as the state that comes takes its place: the two before
    ///    it stay until `restored` is durable.
    /// 5. A loss of power may bring back any of the names, which then are where they were. The next
    ///    sync of the folder, behind the state that comes, ends that before `restored` is written.
    private mutating func removeSuperseded(for new: OpNumber) throws(SystemError) {
        guard !isPending, birth == nil, let file else { return }
        let kept = Set(checkpoints.filter { $0.op != new }.prefix(2).map(\.op) + [new])
        let names: [String]
        do throws(SystemError) {
            names = try disk.list(folder)
        } catch {
            // It is tried again with the next one; no more depends on it.
            return
        }
        let superseded = names.filter { name in
            Survey.number(name, "checkpoint-").map { !kept.contains(OpNumber($0)) } ?? false
        }
        guard !superseded.isEmpty else { return }
        if options.durability == .never { try disk.sync(file) }
        checkpoints.removeAll { !kept.contains($0.op) }
        for name in superseded {
            do throws(SystemError) { try disk.remove("\(folder)/\(name)") } catch { return }
        }
    }

    /// Waits for the checkpoint that is being written, if one is.
    package func waitForCheckpoint() {
        while let job, job.result == nil { Clock.sleep(nanoseconds: 200_000) }
    }

    private func header(
        _ op: OpNumber, _ view: ViewNumber, _ hash: LogHash, _ origin: CheckpointHeader.Origin
    ) -> CheckpointHeader {
        guard let identity else { preconditionFailure("a checkpoint of nobody") }
        // The one in which `op` stands: all that was appended behind it stands there or later. And of a
        // log that has been set back the next one need not tell from where.
        let needed = begun.last { $0.firstOp <= op } ?? begun.first
        guard let needed else { preconditionFailure("a checkpoint without a journal") }
        return CheckpointHeader(
            identity: identity, op: op, view: view, hash: hash, segment: needed.number,
            segmentChecksum: needed.checksum, origin: origin, snapshotBytes: 0,
            salt: options.random())
    }

    private static func write(
        _ header: CheckpointHeader, _ snapshot: [UInt8], _ folder: String, _ disk: any Disk,
        journal: String?, _ removal: Removal
    ) -> CheckpointOutcome {
        if let journal {
            do throws(SystemError) {
                let file = try disk.open("\(folder)/\(journal)")
                defer { disk.close(file) }
                try disk.sync(file)
            } catch {
                return .journalFailed(error)
            }
        }
        var header = header
        let name = CheckpointHeader.name(header.op)
        guard snapshot.count <= CheckpointHeader.snapshotBytesMax else {
            return .failed(SystemError("write", "\(folder)/\(name)", code: SystemError.tooBig))
        }
        header.snapshotBytes = snapshot.count
        do throws(SystemError) {
            try disk.publish(folder, name, Checkpoint.encode(header, snapshot))
        } catch {
            return .failed(error)
        }
        do throws(SystemError) {
            try removal.run()
            return .done(op: header.op, removal: nil)
        } catch {
            return .done(op: header.op, removal: error)
        }
    }
}

/// Takes away what neither of the checkpoints that are kept needs.
private struct Removal: Sendable {
    let folder: String
    /// Newest first, at most two. With one alone every segment stays: it may rot, and then all is
    /// made anew from the first.
    let keeps: [CheckpointHeader]
    let disk: any Disk

    /// No checkpoint is ever there, also after a loss of power, without the segments that it needs: a start
    /// would be refused.
    func run() throws(SystemError) {
        let names = try disk.list(folder)
        let checkpoints = names.filter { name in
            Survey.number(name, "checkpoint-").map { op in
                !keeps.contains { $0.op.rawValue == op }
            } ?? false
        }
        for name in checkpoints { try disk.remove("\(folder)/\(name)") }
        guard keeps.count > 1, let oldest = keeps.last else { return }
        let segments = names.filter { name in
            Survey.number(name, "segment-").map { $0 < oldest.segment } ?? false
        }
        guard !segments.isEmpty else { return }
        if !checkpoints.isEmpty { try disk.syncFolder(folder) }
        for name in segments { try disk.remove("\(folder)/\(name)") }
    }
}
