import Journal
import Replication
import Storage
import Synchronization
import Wire

// The end of a journal is gone without a trace: the file was cut, the folder is an older copy, the
// drive had not written what it said. Its replica cannot know; the others can.
extension Simulation {
    /// What a journal has lost, until its replica has it again or is out.
    struct LostEnd {
        /// The last op that was there.
        var op: OpNumber
        /// It has not been opened since.
        var isNew = true
    }

    /// Of a process that is killed for it, or one that waits to be started again.
    func loseEnd() {
        let isTrouble = disks.contains { drive in
            drive.isDoubtful || drive.files.state.withLock { $0.isFull || !$0.faults.isEmpty }
        }
        guard !isTrouble, !isAnyShort else { return }
        let waiting = disks.filter { waits($0) }
        if let drive = random.element(waiting), random.chance(700) {
            loseEnd(of: drive)
            return
        }
        let running = replicas.filter { $0.isUp && $0.disk != nil && $0.face.isMember }
        guard let process = random.element(running), let drive = process.disk, mayLose(process)
        else { return }
        tell { "replica \(process.number) is killed and started again" }
        end(process, .kill)
        restart(drive, after: random.int(200...50_000))
        loseEnd(of: drive)
    }

    private func loseEnd(of drive: Drive) {
        guard !drive.hasRotted, let view = history.newest, let end = end(of: drive) else { return }
        let cuts = end.cuts.filter { isKnown(elsewhere: drive.instance, behind: $0.op, in: view) }
        guard let cut = random.element(cuts) else { return }
        coverage.note(.endLost)
        tell { "slot \(drive.slot): the journal behind op \(cut.op) is gone, of \(end.op)" }
        drive.lost = LostEnd(op: end.op)
        let zeros = [UInt8](repeating: 0, count: end.byteCount - cut.offset)
        drive.files.state.withLock { $0.rot(end.path, at: cut.offset, zeros) }
    }

    private struct End {
        var path: String
        var byteCount: Int
        var op: OpNumber
        /// Where nothing follows that an elector or candidate is bound by: entries, ends of the log cut off
        /// before, news of views. `op`: from the next one on something may be missing, or another entry
        /// show again in its place.
        var cuts: [(offset: Int, op: OpNumber)] = []
    }

    /// The newest segment's, if it is on the disk as its process had it.
    private func end(of drive: Drive) -> End? {
        let (names, isWhole) = drive.files.state.withLock { state in
            let names = state.durableNames.filter { $0.hasPrefix("\(Drive.folder)/") }
                .map { String($0.dropFirst(Drive.folder.utf8.count + 1)) }
            return (names, state.isDurable)
        }
        guard isWhole, let number = names.compactMap({ Survey.number($0, "segment-") }).max()
        else { return nil }
        let path = "\(Drive.folder)/segment-\(number)"
        let bytes = drive.files.state.withLock { $0.durableBytes(path) }
        let checkpoint = names.compactMap { Survey.number($0, "checkpoint-") }.max() ?? 0
        let floor = max(drive.ledger.baseLast, OpNumber(checkpoint))
        do throws(Flaw) {
            var count = 0
            var reader = try SegmentReader(bytes)
            while reader.next() != nil { count += 1 }
            reader = try SegmentReader(bytes)
            var end = End(
                path: path, byteCount: bytes.count,
                op: OpNumber(reader.header.firstOp.rawValue - 1))
            while let record = reader.next() {
                count -= 1
                // What the processes before this one have written is not lost: others may have built on it.
                let isOwn = count < drive.ledger.durableCount
                var before = end.op
                switch record {
                case .entry(let entry):
                    before = OpNumber(entry.first.rawValue - 1)
                    end.op = entry.last
                case .truncated(let after):
                    end.op = after
                    for index in end.cuts.indices {
                        end.cuts[index].op = min(end.cuts[index].op, after)
                    }
                case .view: break
                case .restored, .promised, .accepted, .proposed:
                    if case .restored(let restored, _) = record { end.op = restored.op }
                    end.cuts = []
                    continue
                }
                if isOwn, reader.lastOffset >= reader.header.born, before >= floor {
                    end.cuts.append((reader.lastOffset, min(before, end.op)))
                }
            }
            // A checkpoint is younger than the records through its op.
            end.cuts.removeAll { $0.op < OpNumber(checkpoint) }
            return reader.stop == .end ? end : nil
        } catch {
            return nil
        }
    }

    /// Whether the loss of a member's ops behind `op` must be noticed before it leads or is counted
    /// on: others have them, and all who can help it know that they are committed. And all else that is: what
    /// nobody knows to be committed who is alive is not promised, as its primary may send it a part again.
    private func isKnown(elsewhere loser: Instance, behind op: OpNumber, in view: View) -> Bool {
        guard view.contains(loser) else { return true }
        // One that decides alone asks nobody.
        guard view.electorate != [loser] else { return false }
        let others = view.members.filter { $0.instance != loser }
        let isCopied = others.contains { member in
            disks.contains { $0.instance == member.instance && waits($0) }
                || replicas.contains { $0.me.instance == member.instance && $0.isUp }
        }
        let electors = view.electorate.filter { $0 != loser }
        return isCopied
            && electors.allSatisfy { elector in
                if view.contains(elector) { return true }
                return clients.contains {
                    $0.instance == elector && $0.isUp && $0.witness.view?.number == view.number
                        && $0.witness.committed.op > op
                        && $0.witness.committed.op >= history.lastOp
                }
            }
            && (!view.witnesses.isEmpty
                || others.allSatisfy { member in
                    replicas.contains {
                        $0.me.instance == member.instance && $0.isUp && $0.replica.view == view
                            && $0.replica.commitMax > op
                    }
                })
    }

    var isAnyShort: Bool { disks.contains { isShort($0) } }

    func isShort(_ instance: Instance) -> Bool {
        disks.contains { $0.instance == instance && isShort($0) }
    }

    /// Whether this disk's replica lacks what it had.
    func isShort(_ drive: Drive) -> Bool {
        guard let lost = drive.lost else { return false }
        let process = listening[drive.slot].map { replicas[$0] }
        // In no view as far as it knows, it may still be a member of one that it has to hear of.
        let isNamed = history.newest?.contains(drive.instance) ?? false
        guard let process, process.disk === drive, process.isUp, !lost.isNew,
            process.replica.op >= lost.op && process.replica.missing == nil
                || !process.face.isMember && !isNamed
        else { return true }
        drive.lost = nil
        return false
    }
}
