import Arguments
import Linux
import Replication
import Services
import Wire

// Carrying out what the core asks, in the order of the outbox's fields.
extension Server {
    func step(_ event: Replica.Event) {
        switch event {
        case .message(.stop, let from), .relayed(.stop, let from):
            guard mayStop(from) else { return }
        default: break
        }
        outbox.removeAll()
        replica.step(event, into: &outbox)
        carryOut()
    }

    func post(_ envelope: Envelope) {
        if send(envelope.message, toReplica: envelope.to) { return }
        if let witness = witnessConnection(envelope.to) {
            witness.write { envelope.message.encode(head: "witness", asPush: true, into: &$0) }
            markDirty(witness)
        }
    }

    // MARK: Requests

    /// Gives the core what the turn has brought.
    func proposeTurn() {
        guard !batch.isEmpty || !turnWaiters.isEmpty, !joining.isProbing else { return }
        guard replica.acceptsRequests, leads else {
            // While a view is being chosen or entered requests wait; it takes moments. Nor do the turn's
            // replies overtake those to what was proposed before, which may have to wait for the disk.
            if !replica.isPrimary, waiters.count == 0 { refuseTurn() }
            return
        }
        let base = replica.op.rawValue
        if turnHasReads { step(.confirmReads) }
        let probe = turnHasReads ? replica.probe : 0
        for var waiter in turnWaiters {
            waiter.op += base
            switch waiter.kind {
            case .read, .rejoin: waiter.probe = probe
            case .request, .join, .reply, .joined, .bytes: break
            }
            waiters.append(waiter)
        }
        turnWaiters.removeAll(keepingCapacity: true)
        turnHasReads = false
        guard !batch.isEmpty else { return }
        let turn = batch
        batch.removeAll()
        leases.proposed(through: base + UInt64(turn.count))
        let time = Clock.wallMilliseconds()
        for part in turn.parts() { step(.propose(part, time: time)) }
    }

    /// Nothing of the turn was proposed, so it may safely be sent elsewhere.
    private func refuseTurn() {
        let list = turnWaiters
        turnWaiters = []
        turnHasReads = false
        batch.removeAll()
        leavesPending = [:]
        leases.refused()
        for waiter in list { refuse(waiter, redirectError) }
    }

    private func refuse(_ waiter: Waiter, _ text: String) {
        let connection = waiter.connection
        connection.settle(waiter.kind)
        switch waiter.kind {
        case .bytes(let bytes): connection.write(bytes)
        case .reply(let reply), .joined(let reply, _, _):
            connection.write { reply.encode(into: &$0) }
        case .request, .join, .rejoin, .read:
            connection.write { RESP.error(text, into: &$0) }
        }
        switch waiter.kind {
        case .join(let name, _), .rejoin(let name, _), .joined(_, let name, _):
            notJoined(connection, name)
        case .request, .reply, .read, .bytes: break
        }
        markDirty(connection)
    }

    /// The requests that were proposed have no outcome here any more.
    private func refuseWaiters() {
        let text = "TRYAGAIN the view has changed; what became of this request the primary knows"
        for waiter in waiters.removeAll() { refuse(waiter, text) }
    }

    func execute(_ entry: Entry) {
        var effects: [ServiceSet.Effect] = []
        executor.execute(entry, effects: &effects) { op, reply in
            guard let connection = waiters.answer(op.rawValue, reply) else { return }
            connection.settle(.request)
            connection.write { reply.encode(into: &$0) }
            noteReply(connection)
            markDirty(connection)
        }
        leases.executed(through: executor.op.rawValue)
        for effect in effects {
            switch effect {
            case .polls(let effect): tell(effect)
            case .rooms(let effect): tell(effect)
            }
        }
        held.prune(executor.service.polls)
    }

    /// Sends the replies whose time has come.
    func release() {
        isReleaseCutShort = false
        let begun = Clock.monotonicNanoseconds()
        var count = 0
        defer { waiters.trim() }
        while let waiter = waiters.next(
            executed: executor.op.rawValue, probe: confirmedProbe)
        {
            let connection = waiter.connection
            connection.settle(waiter.kind)
            guard connection.isOpen else { continue }
            let before = connection.outputCount
            switch waiter.kind {
            case .reply(let reply): connection.write { reply.encode(into: &$0) }
            case .joined(.ok, let voter, let from):
                completeJoin(connection, voter, from: from)
            case .joined(let reply, let voter, _):
                connection.write { reply.encode(into: &$0) }
                notJoined(connection, voter)
            case .rejoin(let voter, let from):
                completeJoin(connection, voter, from: from)
            case .read(let read): answer(read, connection)
            case .bytes(let bytes): connection.write(bytes)
            case .request, .join: preconditionFailure("op \(waiter.op) was executed unanswered")
            }
            if case .read(.lease) = waiter.kind {} else { noteReply(connection) }
            markDirty(connection)
            if connection.isPaused, connection.isOwedLess { areCommandsDue = true }
            // Not only at the turn's end: many large answers at once would hold the loop up.
            if connection.isOutputFull, !drain(connection, before: before) {
                dropUnread(connection)
            }
            count += 1
            // One read may confirm thousands, of results or of rooms, and the heartbeats are as old as the
            // last turn.
            if count % 16 == 0, Clock.monotonicNanoseconds() - begun > Self.turnNanosecondsMax {
                isReleaseCutShort = true
                return
            }
        }
    }

    /// Whether one that has too much to read may have it: what was there `before` this one answer was not
    /// too much, or the kernel takes it now.
    private func drain(_ connection: Connection, before: Int) -> Bool {
        if connection.mayHave(before) {
            connection.allowWhatIsThere()
            return true
        }
        return connection.flush() && !connection.isOutputFull
    }

    // MARK: Effects

    func carryOut(_ effect: Replication.Effect) {
        switch effect {
        case .entered(let view): onEntered(view)
        case .removed(let view): onRemoved(view)
        case .sendState(let learner, let join, _): sendState(to: learner, join)
        case .stateKept(let op):
            log.detail("no more than the log behind op \(op) is missing here")
            forgetBallotsOfOthers()
        case .restore(let op, let snapshot): restore(op, snapshot)
        case .truncated:
            // What was on its way is gone, or, if it is committed after all, done.
            leavesPending = [:]
            refuseWaiters()
        case .joinFailed(let reason, let isPlaceTaken):
            onJoinFailed(reason, isPlaceTaken: isPlaceTaken)
        case .stalled(let reason):
            stall = replica.view.map { ($0.number, reason) }
            log.warnOnce("waiting: \(reason)")
        case .leaderFailed(let leader): sayLeaderFailed(leader)
        case .electionBegan(let initiator): sayElection(initiatedBy: initiator)
        case .stop:
            log.info("told to stop: the service is being ended")
            end(.ok)
        }
    }

    /// Whether it waits for electors, or for people, and cannot go on meanwhile.
    var isStalled: Bool {
        guard replica.isMember, let view = replica.view, stall?.view == view.number,
            !replica.acceptsRequests
        else { return false }
        return isPrimary || replica.status == .choosing || replica.fork != nil
            || replica.hasFailed(view.primary.instance)
    }

    private func onEntered(_ view: View) {
        driver.viewEntered = view.number
        // Reservations that have waited for this may go on.
        areGatedDue = true
        log.forgetRepeated()
        let isPrimary = view.primary.instance == me.instance
        let before = log.mode
        log.mode = isPrimary ? "primary" : "backup"
        let backups = view.backups.map { "backup \($0.id) at \($0.address)" }
        let partner = backups.isEmpty ? "no backup" : backups.joined(separator: ", ")
        let count = view.witnesses.count
        let electors = "\(count) witness\(count == 1 ? "" : "es")"
        if before != log.mode || !driver.hasEntered {
            log.info("mode is now \(log.mode)")
        }
        let line =
            "view \(view.number): primary \(view.primary.id) at \(view.primary.address), "
            + "\(partner), \(electors)"
        // A mere change of witnesses is of no interest to most.
        if driver.membersSeen == view.members { log.detail(line) } else { log.info(line) }
        driver.membersSeen = view.members
        driver.hasEntered = true
        sayLeader(of: view)
        if !isPrimary {
            refuseReads()
            switchover = nil
        }
        joining.onEntered(now)
        if settings.startedBy != nil { Processes.outliveParent() }
        let wasLeading = driver.isLeading
        onViewForDriver(isPrimary: isPrimary)
        updateLinks()
        updatePaths()
        pushView(view)
        onViewForRooms(view, wasLeading: wasLeading)
        onEnteredForReplacement(view)
        if stopping != nil { continueLeaving() }
    }

    /// A backup answers what it proposed as primary when it is executed, but no reads.
    private func refuseReads() {
        var kept: [Waiter] = []
        for waiter in waiters.removeAll() {
            switch waiter.kind {
            case .request, .join: kept.append(waiter)
            case .rejoin, .reply, .joined, .read, .bytes: refuse(waiter, redirectError)
            }
        }
        for waiter in kept { waiters.append(waiter) }
    }

    private func onRemoved(_ view: View) {
        log.mode = "backup"
        driver.membersSeen = []
        driver.hasEntered = false
        driver.isLeading = false
        group.leaderSeen = nil
        log.info(
            "mode is now backup: view \(view.number) of primary \(view.primary.id) at "
                + "\(view.primary.address) goes on without this replica")
        refuseReads()
        refuseWaiters()
        pushView(view)
        voidCaches()
        stopReplacement("this replica no longer leads")
        if stopping != nil {
            end(.ok)
            return
        }
        joining.rejoin(at: view.primary.address, now: now)
        updateLinks()
        updatePaths()
    }

    /// Decoded in the loop, however long that takes: a learner serves nobody, and the primary does not
    /// wait for it.
    private func restore(_ op: OpNumber, _ snapshot: [UInt8]) {
        do {
            executor = try Executor(snapshot: snapshot)
        } catch {
            preconditionFailure("the primary's state at op \(op) does not decode: \(error.text)")
        }
        precondition(executor.op == op, "state of \(executor.op) sent as of \(op)")
        joining.hasHadState = true
        forgetBallotsOfOthers()
        replaceVoters()
        restartClocks()
    }

    /// Places in the table of voters may be others' now. Whose name is not in it has to join anew.
    private func replaceVoters() {
        let joined = voterConnections.compactMap { $0 }
        voterConnections = []
        for connection in joined {
            connection.voterPlace = nil
            if let name = connection.voterName, executor.service.polls.voterPlace(name) != nil {
                placeVoter(connection, name)
            } else {
                close(connection)
            }
        }
    }

    // MARK: Witnesses

    func witnessConnection(_ instance: Instance) -> Connection? {
        let index = witnessIndex(instance)
        return isWitness(instance, at: index) ? witnessConnections[index].connection : nil
    }

    /// The place of a witness among the connections that have offered one, or where it would come in.
    private func witnessIndex(_ instance: Instance) -> Int {
        witnessConnections.partitioningIndex { $0.instance >= instance }
    }

    private func isWitness(_ instance: Instance, at index: Int) -> Bool {
        index < witnessConnections.count && witnessConnections[index].instance == instance
    }

    func addWitness(_ instance: Instance, _ connection: Connection) {
        // One that was held up on its way, on a connection that the client has long replaced.
        if let present = witnessConnection(instance), present.number > connection.number { return }
        removeWitness(connection)
        connection.witness = instance
        areWitnessesChanged = true
        let index = witnessIndex(instance)
        if isWitness(instance, at: index) {
            // Its newer connection; the older one is about to break or has half done so.
            witnessConnections[index].connection.witness = nil
            witnessConnections[index].connection = connection
        } else {
            witnessConnections.insert((instance, connection), at: index)
        }
        if let view = replica.view { postAfterSync(Envelope(to: instance, .view(view))) }
        step(.witnessUp(instance))
    }

    func removeWitness(_ connection: Connection) {
        guard let instance = connection.witness else { return }
        connection.witness = nil
        areWitnessesChanged = true
        let index = witnessIndex(instance)
        if isWitness(instance, at: index), witnessConnections[index].connection === connection {
            witnessConnections.remove(at: index)
            step(.witnessDown(instance))
        }
    }

    /// The lowest few and those of the electorate: enough to choose from, and the same few at
    /// every replica where the same clients are connected.
    func reportWitnesses() {
        areWitnessesChanged = false
        let staying = witnessConnections.lazy.filter { !$0.connection.isWitnessLeaving }
        var list = Array(staying.prefix(16).map(\.instance))
        for elector in replica.view?.witnesses ?? [] where !list.contains(elector) {
            if let connection = witnessConnection(elector), !connection.isWitnessLeaving {
                list.append(elector)
            }
        }
        step(.witnesses(list.sorted()))
    }
}
