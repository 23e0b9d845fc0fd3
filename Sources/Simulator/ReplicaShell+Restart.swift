import Journal
import Linux
import Replication
import Services
import Storage
import Synchronization
import Wire

// A replica's start on a disk with something on it, as the server does it (`Durable.open`).
extension Simulation {
    static let service = ServiceID(high: 1, low: 2)

    /// Disks whose replicas are wanted back: not those that were turned away, but in any case the
    /// newest view's members.
    func restartDisks() {
        for drive in disks {
            guard let time = drive.restartAt else { continue }
            if now >= time || isHealed && !drive.isRefused { restart(drive) }
        }
    }

    func restart(_ drive: Drive) {
        guard listening[drive.slot] == nil else { return }
        drive.restartAt = nil
        resetOrphans(of: drive.slot)
        lostMachines[drive.slot] = false
        let isCutShort = !isHealed && random.chance(mix.torn / 5)
        if isCutShort {
            let budget = random.int(0...(random.element([10, 200, 2_000]) ?? 10))
            drive.files.state.withLock { $0.budget = budget }
        }
        defer { drive.files.state.withLock { $0.budget = nil } }
        do throws(StoreError) {
            let journal = try drive.open()
            guard let identity = journal.store.identity else {
                try startBlank(drive, journal)
                return
            }
            if drive.isRenewing, identity.instance != drive.instance, options.breakage == nil {
                // The start before was ended when the new identity was there and no more was done.
                drive.becomeNew()
                drive.instance = identity.instance
            }
            guard let found = try resume(drive, journal) else {
                try renew(drive, journal, identity)
                return
            }
            try goOn(drive, journal, found)
        } catch {
            onRefused(drive, error)
        }
    }

    /// Started again later, by people or by whatever starts it.
    private func onRefused(_ drive: Drive, _ error: StoreError) {
        tell { "slot \(drive.slot): not started: \(error)" }
        if drive.files.state.withLock({ $0.isOff }) {
            coverage.note(.startCutShort)
            if random.chance(500) {
                losePower(drive)
            } else {
                drive.files.state.withLock { $0.kill() }
            }
            restart(drive, after: random.int(1_000...50_000))
            return
        }
        switch error {
        case .system: coverage.note(.startFailed)
        case .refused:
            guard drive.hasRotted else {
                fail(
                    Violation(
                        .safety, rule: "a disk has what its replica has written",
                        "slot \(drive.slot): \(error)"))
                return
            }
            coverage.note(.startRefused)
            drive.isRefused = true
        }
        if drive.isForgetful {
            disks.removeAll { $0 === drive }
        } else {
            // The faults that were to come have.
            drive.files.state.withLock { $0.faults = [:] }
            restart(drive, after: random.int(20_000...150_000))
        }
    }

    /// Nothing that was answered for ever stood there.
    private func startBlank(_ drive: Drive, _ journal: OpenStore) throws(StoreError) {
        if !drive.ledger.isBlank, !drive.isForgetful, !drive.isRenewing {
            fail(
                Violation(
                    .safety, rule: "a disk has what its replica has written",
                    "slot \(drive.slot): blank"))
            return
        }
        let fresh = freshInstance()
        drive.becomeNew()
        drive.instance = fresh
        let formerly = formerly(drive, journal)
        let process = start(
            at: drive.slot, target: random.int(0...Self.slots - 1), on: drive, journal)
        process.formerly = formerly
    }

    /// Unlike those of replicas that start without a disk, or with one that nobody has used.
    private func freshInstance() -> Instance {
        renewals += 1
        return Instance(0x1000 + renewals)
    }

    /// Of a journal that was put aside, whether or not that was ended.
    private func formerly(_ drive: Drive, _ journal: OpenStore) -> [Instance] {
        journal.store.former.filter { $0 != drive.instance }
    }

    /// As the verdict has it; nil: only as a new instance.
    private func resume(_ drive: Drive, _ journal: OpenStore) throws(StoreError)
        -> Store.Resumption?
    {
        let newest = journal.store.survey?.newestView ?? ViewNumber(0)
        let resumption: Store.Resumption
        do throws(StoreError) {
            resumption = try journal.store.resume(isPeerReachable: false)
        } catch {
            guard case .refused = error, drive.hasRotted, isPeerReachable(drive, newest) else {
                throw error
            }
            resumption = try journal.store.resume(isPeerReachable: true)
        }
        switch resumption.verdict {
        case .useAll: return resumption
        case .cut:
            coverage.note(.tailCut)
            return resumption
        case .ask(_, keepsInstance: true): return resumption
        case .ask(_, keepsInstance: false): return nil
        case .refuse: preconditionFailure("refused and gone on")
        }
    }

    /// A member that knows a view no older than what this journal knows has all that was committed
    /// up to there.
    private func isPeerReachable(_ drive: Drive, _ newest: ViewNumber) -> Bool {
        replicas.contains { peer in
            peer.isUp && !peer.isPaused && peer.face.isMember && peer.slot != drive.slot
                && !isShort(peer.me.instance)
                && (peer.replica.view?.number ?? ViewNumber(0)) >= newest
                && !network.isBarred(drive.slot, peer.slot)
                && !network.isHeld(drive.slot, peer.slot)
                && !network.isHeld(peer.slot, drive.slot)
        }
    }

    private func goOn(_ drive: Drive, _ journal: OpenStore, _ found: Store.Resumption)
        throws(StoreError)
    {
        guard let recovered = found.recovered else {
            throw .refused(path: Drive.folder, reason: "nothing recovered")
        }
        let state: Replication.Recovered
        let executor: Executor<ServiceSet>
        do throws(DecodeError) {
            executor =
                try recovered.snapshot.map { bytes throws(DecodeError) in
                    try Executor(snapshot: bytes)
                } ?? Executor()
            state = try Replication.Recovered(
                op: recovered.op, hash: executor.hash, view: executor.view,
                committed: recovered.committed, reign: recovered.reign,
                hasState: recovered.hasState, records: recovered.records)
            let mayLack = drive.isForgetful || drive.lost?.isNew ?? false
            try drive.ledger.resume(state, isForgetful: mayLack)
            drive.lost?.isNew = false
        } catch {
            fail(
                Violation(
                    .safety, rule: "a disk has what its replica has written",
                    "slot \(drive.slot): \(error.text)"))
            return
        }
        if drive.isForgetful {
            // What comes back is a prefix, which is all that is promised: it is not used.
            coverage.note(.unsyncedLost)
            disks.removeAll { $0 === drive }
            return
        }
        let formerly = formerly(drive, journal)
        if drive.hasRotted { coverage.note(.rotHarmless) }
        (drive.isDoubtful, drive.isRefused) = (false, false)
        drive.starts += 1
        coverage.note(.replicaRestarted)
        let process = start(
            at: drive.slot, target: Int(state.view?.primary.address.port ?? 0), on: drive, journal,
            state.view == nil ? nil : state)
        process.formerly = formerly
        process.executor = executor
        process.openedAt = executor.service.polls.openVotes.map { ($0, now) }
        step(process, .resume)
        if !process.face.isMember { noteMembers(process) }
    }

    private func renew(_ drive: Drive, _ journal: OpenStore, _ identity: Identity)
        throws(StoreError)
    {
        let former = drive.instance
        let isBroken = options.breakage == .renewedAsBefore
        let fresh = isBroken ? former : freshInstance()
        var asRenewed = identity
        // The store itself would not take the same again.
        asRenewed.instance = isBroken ? Instance(former.rawValue | 1 << 40) : fresh
        drive.isRenewing = true
        do throws(SystemError) {
            _ = try journal.store.renew(asRenewed)
        } catch {
            throw .system(error)
        }
        coverage.note(.replicaRenewed)
        tell { "slot \(drive.slot): instance \(former) goes on as \(fresh)" }
        let starts = drive.starts
        drive.becomeNew()
        drive.instance = fresh
        let formerly = formerly(drive, journal)
        if isBroken { drive.starts = starts + 1 }
        let process = start(
            at: drive.slot, target: random.int(0...Self.slots - 1), on: drive, journal)
        process.formerly = formerly
        noteMembers(process)
    }

    /// A machine that is back answers what comes on the connections of before with a reset.
    func resetOrphans(of slot: Int) {
        for id in connections.indices where connections[id].isOrphan {
            for side in 0...1
            where connections[id].isOpen[side] && connections[id].sites[1 - side] == slot {
                queue.push(.closed(connection: id, side: side), at: now + random.int(0...100_000))
            }
        }
    }
}
