import Replication
import Services
import Wire

// Around a replica: what its server does with what the core asks.
extension Simulation {
    // MARK: Stepping the core

    func step(_ process: ReplicaProcess, _ event: Paths.Event) {
        guard process.isUp else { return }
        var effects: [Paths.Effect] = []
        swap(&effects, &pathEffects)
        process.paths.step(event, into: &effects)
        for effect in effects {
            switch effect {
            case .step(let event):
                if case .linkDown = event { noteLostRelay(process) }
                step(process, event)
            case .send(let frame, let via):
                noteFrame(frame)
                postToWitness(process, via, .relay(frame))
            case .closeDirect(let instance):
                guard let id = process.link(instance) else { continue }
                coverage.note(.silentLinkClosed)
                process.links.removeAll { $0.instance == instance }
                close(id, by: side(of: process, id))
            }
        }
        effects.removeAll(keepingCapacity: true)
        pathEffects = effects
        noteRoutes(process)
    }

    func step(_ process: ReplicaProcess, _ event: Replica.Event) {
        guard process.isUp, violation == nil else { return }
        var out = Outbox()
        swap(&out, &outbox)
        process.replica.step(event, into: &out)
        process.face = process.replica.face()
        checkBounds(process)
        for envelope in out.send { checkAck(process, envelope) }
        for envelope in out.sendAfterSync { checkAck(process, envelope) }
        for envelope in out.send { post(process, envelope) }
        afterSync(process, out)
        out.removeAll()
        outbox = out
    }

    /// Rule 8.
    private func checkBounds(_ process: ReplicaProcess) {
        let face = process.face
        func holds(_ what: String, _ count: Int, _ most: Int) {
            guard count > most else { return }
            fail(Violation(.safety, rule: "bounds", "\(what) of \(count), not \(most) at most"))
        }
        // One that goes on from its disk has all there that the disk does not know to be committed, and
        // gives it to others.
        holds("a log", face.logCount, pendingMax + recoveredMost)
        holds("kept entries", face.keptCount, mix.keptMax.entries)
        let waiting = process.waiters.count + process.turnWaiters.count
        holds("waiting requests", waiting, pendingMax)
        holds("waiting reservations", process.gated.count, Self.gatedMax)
        holds("outputs", process.outputs.count, Self.outputsMax)
    }

    func post(_ process: ReplicaProcess, _ envelope: Envelope) {
        observe(process, envelope)
        switch process.paths.routeInPlace(to: envelope.to) {
        case .direct:
            guard let id = process.link(envelope.to) else { return }
            send(id, from: side(of: process, id), .peer(envelope.message))
        case .relay(let via, let path):
            let frame = process.paths.frame(envelope.message, to: envelope.to, path: path)
            coverage.note(.relayUsed)
            postToWitness(process, via, .relay(frame))
        case nil: postToWitness(process, envelope.to, envelope.message)
        }
    }

    func postToWitness(_ process: ReplicaProcess, _ witness: Instance, _ message: Message) {
        guard let id = process.witnesses.first(where: { $0.instance == witness })?.connection else {
            return
        }
        send(id, from: 1, .witness(message))
    }

    func side(of process: ReplicaProcess, _ id: Int) -> Side {
        connections[id].ends[0] == .replica(process.number) ? 0 : 1
    }

    func carryOut(_ process: ReplicaProcess, _ effect: Replication.Effect) {
        switch effect {
        case .entered(let view): onEntered(process, view)
        case .removed(let view): onRemoved(process, view)
        case .sendState(let learner, let join, let view):
            guard let id = process.link(learner) else { return }
            let snapshot = process.executor.snapshot()
            let pieces = min(2, max(1, snapshot.count))
            for piece in 0..<pieces {
                let part = snapshot[
                    snapshot.count * piece / pieces..<snapshot.count * (piece + 1) / pieces]
                let message = Message.state(
                    join, view: view, end: process.executor.end, hash: process.executor.hash,
                    piece: piece, pieces: pieces, bytes: Array(part))
                ambush(process, Envelope(to: learner, message))
                send(id, from: side(of: process, id), .peer(message))
            }
            step(process, .stateSent(to: learner, join: join, op: process.executor.op))
        case .stateKept(let op):
            tell { "replica \(process.number) goes on from its state after op \(op)" }
            coverage.note(.tailOnly)
            process.isStateOver = false
        case .restore(let op, let snapshot):
            do {
                process.executor = try Executor(snapshot: snapshot)
            } catch {
                preconditionFailure("a snapshot does not decode: \(error.text)")
            }
            if options.breakage == .forgottenSessions { process.executor.forgetSessions() }
            precondition(process.executor.op == op, "a state of another op")
            process.openedAt = process.executor.service.polls.openVotes.map { ($0, now) }
            process.isStateOver = false
        case .truncated:
            coverage.note(.truncated)
            let list = process.waiters
            process.waiters = []
            for waiter in list { refuse(process, waiter, .tryAgain) }
        case .joinFailed(let reason, let isPlaceTaken):
            tell { "replica \(process.number): \(reason)" }
            coverage.note(isPlaceTaken ? .joinRefused : .joinFailed)
            if isPlaceTaken {
                exit(process)
                if history.newest?.contains(process.me.instance) != true {
                    process.disk?.restartAt = nil
                }
            } else {
                backOff(process)
            }
        case .stalled(let reason):
            tell { "replica \(process.number): \(reason)" }
            if let fork = process.replica.fork {
                let text = "replica \(process.number) has come upon \(fork)"
                fail(Violation(.safety, rule: "one history", text))
            }
            coverage.note(process.replica.missing == nil ? .stalled : .lostEndNoticed)
        case .leaderFailed(let leader):
            tell { "replica \(process.number): leader \(leader.id) has failed" }
            coverage.note(.leaderFailed)
        case .electionBegan(let initiator):
            tell { "replica \(process.number) runs an election" }
            coverage.note(initiator == nil ? .electionBegan : .electionSummoned)
        case .stop: exit(process)
        }
    }

    func exit(_ process: ReplicaProcess) {
        guard process.isUp else { return }
        tell { "replica \(process.number) exits" }
        end(process, .kill)
    }

    func onEntered(_ process: ReplicaProcess, _ view: View) {
        tell { "replica \(process.number) enters '\(view.text)'" }
        noteView(view)
        process.viewNumber = view.number
        coverage.note(.viewEntered)
        let leads = view.primary.instance == process.me.instance
        if replicas.contains(where: { $0.isUp && $0.isLeading && $0.number != process.number }),
            leads
        {
            coverage.note(.twoPrimariesAtOnce)
        }
        process.isOut = false
        process.isStateOver = false
        if !leads {
            let list = process.waiters
            process.waiters = []
            for waiter in list {
                switch waiter.kind {
                case .write, .join: process.waiters.append(waiter)
                case .read, .results, .check, .lease: refuse(process, waiter, redirect(process))
                }
            }
        }
        if leads, !process.isLeading {
            if view.number.rawValue > 1 { coverage.note(.primaryTookOver) }
            if election == .bully, view.backups.contains(where: { $0.id > process.me.id }) {
                coverage.note(.lowerTookOver)
            }
            let isGuessed = options.breakage == .heldBallotsGuessed
            for item in process.held
            where !process.executor.service.polls.isSettled(item.vote, History.name(item.name)) {
                coverage.note(.heldBallotProposed)
                append(
                    process,
                    .castByName(
                        vote: item.vote, voter: History.name(item.name),
                        choice: isGuessed ? .yes : item.choice))
            }
            process.held = []
            remindVoters(process)
            process.absentTicks = [Int](repeating: 0, count: 16)
        }
        if !leads {
            process.leases.endLeading()
        } else if !process.isLeading {
            let isFirst =
                (view.number.rawValue == 1 && process.disk?.starts ?? 0 == 0)
                || options.breakage == .takeoverNotAwaited
            process.leases.beginLeading(at: leaseClock(process.tickTime), isFirst: isFirst)
        }
        process.isLeading = leads
        process.closeProposed = []
        process.dialPause = ReplicaProcess.dialPauseMin
        noteMembers(process)
        for connection in process.clients { send(connection, from: 1, .view(view)) }
        if process.leavesAt != nil { leave(process) }
    }

    func onRemoved(_ process: ReplicaProcess, _ view: View) {
        tell { "replica \(process.number) is out: '\(view.text)'" }
        coverage.note(.stepDown)
        process.viewNumber = view.number
        process.isOut = true
        process.isStateOver = true
        process.isLeading = false
        process.leases.endLeading()
        let list = process.waiters
        process.waiters = []
        for waiter in list { refuse(process, waiter, .tryAgain) }
        for connection in process.clients { send(connection, from: 1, .view(view)) }
        noteMembers(process)
        if process.leavesAt != nil {
            exit(process)
            return
        }
        process.target = Int(view.primary.address.port)
        process.dialPause = ReplicaProcess.dialPauseMin
        process.nextDial = now
    }

    func noteMembers(_ process: ReplicaProcess) {
        guard process.face.isMember, let view = process.replica.view else {
            step(process, .members([], keepsLinksTo: []))
            return
        }
        let me = process.me.instance
        let others = view.members.map(\.instance).filter { $0 != me }
        var kept: [Instance] = []
        if view.primary.instance != me {
            kept = others.filter { $0 == view.primary.instance || $0 < me }
        }
        step(process, .members(others, keepsLinksTo: kept))
    }

    // MARK: Packets

    func receive(_ process: ReplicaProcess, _ packet: Packet, _ id: Int, _ side: Side) {
        switch packet {
        case .hello(let theirs), .helloAnswer(let theirs):
            let isAnswer = if case .helloAnswer = packet { true } else { false }
            onHello(process, theirs, id, side, isAnswer: isAnswer)
        case .peer(let message):
            guard let from = process.links.first(where: { $0.connection == id })?.instance else {
                return
            }
            step(process, .message(message, from: from))
        case .beat:
            guard let from = process.links.first(where: { $0.connection == id })?.instance else {
                return
            }
            step(process, .heardDirectly(from))
        case .offer(let witness): onOffer(process, witness, id)
        case .witness(let message):
            guard let from = process.witnesses.first(where: { $0.connection == id })?.instance
            else { return }
            if case .relay(let frame) = message {
                step(process, .frame(frame, via: from))
            } else {
                step(process, .message(message, from: from))
            }
        case .request(let request): onRequest(process, request, id)
        case .welcome, .reply, .vote, .result, .view, .cacheable, .invalidate: return
        }
        release(process)
    }

    func onOffer(_ process: ReplicaProcess, _ witness: Instance, _ id: Int) {
        guard witness.rawValue != 0 else {
            process.clients.append(id)
            send(id, from: 1, .welcome(process.me.instance, shownView(process)))
            return
        }
        // One that was held up on its way, on a connection that the client has long replaced.
        guard !process.witnesses.contains(where: { $0.instance == witness && $0.connection > id })
        else { return }
        process.witnesses.removeAll { $0.instance == witness }
        process.witnesses.append((witness, id))
        process.witnesses.sort { $0.instance < $1.instance }
        if let view = process.replica.view {
            var out = Outbox()
            out.sendAfterSync = [Envelope(to: witness, .view(view))]
            afterSync(process, out)
        }
        step(process, .witnessUp(witness))
        reportWitnesses(process)
    }

    func reportWitnesses(_ process: ReplicaProcess) {
        step(process, .witnesses(process.witnesses.map(\.instance)))
    }

    // MARK: Leaving

    func leave(_ process: ReplicaProcess) {
        guard process.face.isMember, let view = process.replica.view else {
            exit(process)
            return
        }
        guard process.face.isPrimary else {
            // In each view anew: one that was being chosen meanwhile may have come with it in.
            process.ticksToGoodbye = 0
            sayGoodbye(process, to: view.primary.instance)
            return
        }
        if !view.backups.isEmpty { step(process, .handOver) }
    }

    func tickLeaving(_ process: ReplicaProcess) {
        guard let until = process.leavesAt else { return }
        if now >= until {
            // Somebody would not let the last copy go.
            if mayLose(process) { exit(process) } else { process.leavesAt = nil }
        } else if process.face.acceptsRequests {
            leave(process)
        } else if process.face.isMember, !process.face.isPrimary, let view = process.replica.view {
            sayGoodbye(process, to: view.primary.instance)
        }
    }

    /// Again and again, as it may be lost with a connection.
    private func sayGoodbye(_ process: ReplicaProcess, to primary: Instance) {
        if process.ticksToGoodbye == 0, process.paths.routeInPlace(to: primary) != nil {
            process.ticksToGoodbye = 10
            post(process, Envelope(to: primary, .leave(process.me.instance)))
        }
        process.ticksToGoodbye = max(0, process.ticksToGoodbye - 1)
    }
}
