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
        if process.face.logCount > 4_000 {
            fail(Violation(.safety, rule: "bounds", "a log of \(process.face.logCount) entries"))
        }
        for envelope in out.send { post(process, envelope) }
        for envelope in out.sendAfterSync { post(process, envelope) }
        for entry in out.execute { execute(process, entry) }
        let effects = out.effects
        out.removeAll()
        outbox = out
        for effect in effects { carryOut(process, effect) }
    }

    private func post(_ process: ReplicaProcess, _ envelope: Envelope) {
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

    private func postToWitness(_ process: ReplicaProcess, _ witness: Instance, _ message: Message) {
        guard let id = process.witnesses.first(where: { $0.instance == witness })?.connection else {
            return
        }
        send(id, from: 1, .witness(message))
    }

    func side(of process: ReplicaProcess, _ id: Int) -> Side {
        connections[id].ends[0] == .replica(process.number) ? 0 : 1
    }

    private func carryOut(_ process: ReplicaProcess, _ effect: Replication.Effect) {
        switch effect {
        case .entered(let view): onEntered(process, view)
        case .removed(let view): onRemoved(process, view)
        case .sendState(let learner, let join):
            guard let id = process.link(learner), let view = process.replica.view else { return }
            let snapshot = process.executor.snapshot()
            let pieces = min(2, max(1, snapshot.count))
            for piece in 0..<pieces {
                let part = snapshot[
                    snapshot.count * piece / pieces..<snapshot.count * (piece + 1) / pieces]
                let message = Message.state(
                    join, view: view, op: process.executor.op, piece: piece, pieces: pieces,
                    bytes: Array(part))
                ambush(process, Envelope(to: learner, message))
                send(id, from: side(of: process, id), .peer(message))
            }
            step(process, .stateSent(to: learner, join: join, op: process.executor.op))
        case .restore(let op, let snapshot):
            do {
                process.executor = try Executor(snapshot: snapshot)
            } catch {
                preconditionFailure("a snapshot does not decode: \(error.text)")
            }
            if options.breakage == .forgottenSessions { process.executor.forgetSessions() }
            precondition(process.executor.op == op, "a state of another op")
            process.openedAt = process.executor.service.openVotes.map { ($0, now) }
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
            } else {
                backOff(process)
            }
        case .stalled: coverage.note(.stalled)
        case .stop: exit(process)
        }
    }

    private func exit(_ process: ReplicaProcess) {
        guard process.isUp else { return }
        tell { "replica \(process.number) exits" }
        end(process, withMachine: false)
    }

    private func onEntered(_ process: ReplicaProcess, _ view: View) {
        tell { "replica \(process.number) enters '\(view.text)'" }
        noteView(view)
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
                case .read, .results: refuse(process, waiter, redirect(process))
                }
            }
        }
        if leads, !process.isLeading {
            if view.number.rawValue > 1 { coverage.note(.primaryTookOver) }
            for item in process.held
            where !process.executor.service.isSettled(item.vote, History.name(item.name)) {
                coverage.note(.heldBallotProposed)
                append(
                    process,
                    .castByName(
                        vote: item.vote, voter: History.name(item.name), choice: item.choice))
            }
            process.held = []
            remindVoters(process)
            process.absentTicks = [Int](repeating: 0, count: 16)
        }
        process.isLeading = leads
        process.closeProposed = []
        process.dialPause = ReplicaProcess.dialPauseMin
        noteMembers(process)
        for connection in process.clients { send(connection, from: 1, .view(view)) }
        if process.leavesAt != nil { leave(process) }
    }

    private func onRemoved(_ process: ReplicaProcess, _ view: View) {
        tell { "replica \(process.number) is out: '\(view.text)'" }
        coverage.note(.stepDown)
        process.isOut = true
        process.isStateOver = true
        process.isLeading = false
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

    private func noteMembers(_ process: ReplicaProcess) {
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

    // MARK: Requests

    func append(_ process: ReplicaProcess, _ command: PollCommand, call: Wire.Request.Call? = nil) {
        process.batch.append(Wire.Request(call: call, command: command.encode()))
        scheduleTurn(process)
    }

    private func scheduleTurn(_ process: ReplicaProcess) {
        guard !process.isTurnDue else { return }
        process.isTurnDue = true
        queue.push(.turn(process.number), at: now + random.int(0...mix.turnMax))
    }

    func propose(_ process: ReplicaProcess) {
        guard !process.batch.isEmpty || !process.turnWaiters.isEmpty else { return }
        guard process.face.acceptsRequests else {
            guard !process.face.isChanging else { return }
            let list = process.turnWaiters
            process.turnWaiters = []
            process.turnHasReads = false
            process.batch = Batch()
            for waiter in list {
                coverage.note(.requestRefused)
                refuse(process, waiter, redirect(process))
            }
            return
        }
        let base = Int(process.face.op.rawValue)
        if process.turnHasReads { step(process, .confirmReads) }
        let probe = process.turnHasReads ? process.face.probe : 0
        for var waiter in process.turnWaiters {
            waiter.op = waiter.op + base
            switch waiter.kind {
            case .read, .results:
                waiter.probe = probe
                if options.breakage == .readBeforeCommit { waiter.op = OpNumber(0) }
            case .write, .join: break
            }
            process.waiters.append(waiter)
        }
        process.turnWaiters = []
        process.turnHasReads = false
        guard !process.batch.isEmpty else { return }
        let batch = process.batch
        process.batch = Batch()
        step(process, .propose(batch, time: UInt64(now / 1_000)))
    }

    func redirect(_ process: ReplicaProcess) -> Packet.Answer {
        guard let view = process.replica.view, view.primary.instance != process.me.instance else {
            return .tryAgain
        }
        return .redirect(view.primary.address)
    }

    private func refuse(
        _ process: ReplicaProcess, _ waiter: ReplicaProcess.Waiter, _ answer: Packet.Answer
    ) {
        if case .read = waiter.kind { coverage.note(.readRefused) }
        // What was executed here is known.
        if let reply = waiter.reply {
            self.answer(process, waiter, .reply(reply))
        } else {
            send(waiter.connection, from: 1, .reply(waiter.request, answer))
        }
    }

    private func answer(
        _ process: ReplicaProcess, _ waiter: ReplicaProcess.Waiter, _ answer: Packet.Answer
    ) {
        let view = process.replica.view?.number ?? ViewNumber(0)
        check { () throws(Violation) in
            // Rule 7. A write that was executed before it was told may be answered still.
            if waiter.reply == nil, process.isOut || !process.face.isPrimary {
                throw Violation(
                    .safety, rule: "told to step down, it answers nobody",
                    "replica \(process.number) answers request \(waiter.request)")
            }
            if waiter.reply == nil || process.face.isPrimary {
                try history.noteAnswer(of: process.me.instance, in: view, floor: waiter.floor)
            }
            try history.answer(waiter.request, answer, at: now)
        }
        send(waiter.connection, from: 1, .reply(waiter.request, answer))
    }

    private func execute(_ process: ReplicaProcess, _ entry: Entry) {
        if process.isStateOver {
            fail(
                Violation(
                    .safety, rule: "told to step down, it answers nobody",
                    "replica \(process.number) executes \(entry.first)"))
        }
        replies.removeAll(keepingCapacity: true)
        var effects: [Polls.Effect] = []
        process.executor.execute(entry, effects: &effects) { _, reply in replies.append(reply) }
        check { () throws(Violation) in
            try history.execute(entry, by: process.me.instance, replies)
        }
        for index in process.waiters.indices {
            let op = process.waiters[index].op
            guard op >= entry.first, op <= entry.last else { continue }
            switch process.waiters[index].kind {
            case .write, .join:
                process.waiters[index].reply = replies[Int(op.rawValue - entry.first.rawValue)]
            case .read, .results: break
            }
        }
        for effect in effects { onEffect(process, effect) }
        if process.held.count > 20 {
            process.held.removeAll {
                process.executor.service.isSettled($0.vote, History.name($0.name))
            }
        }
    }

    func release(_ process: ReplicaProcess) {
        guard process.isUp, !process.waiters.isEmpty else { return }
        let confirmed = process.replica.face().confirmedProbe
        while let waiter = process.waiters.first, waiter.op <= process.executor.op,
            waiter.probe <= confirmed
        {
            process.waiters.removeFirst()
            switch waiter.kind {
            case .write:
                answer(process, waiter, .reply(waiter.reply ?? .error("LOST")))
            case .join(let name, let from):
                answer(process, waiter, .reply(waiter.reply ?? .error("LOST")))
                admit(process, name, waiter.connection, from: from)
            case .read:
                coverage.note(.readAnswered)
                answer(process, waiter, .read(reading(process)))
            case .results(let from):
                answer(process, waiter, .results(results(process, from: from)))
            }
        }
    }

    private func reading(_ process: ReplicaProcess) -> Reading {
        let polls = process.executor.service
        var ballots = 0
        for record in polls.records { ballots += Int(record.yes) + Int(record.no) }
        return Reading(votes: polls.records.count, closed: polls.closedCount, ballots: ballots)
    }

    private func results(_ process: ReplicaProcess, from: UInt64) -> [Packet.Result] {
        var list: [Packet.Result] = []
        var vote = from
        while let record = process.executor.service.record(vote) {
            if !record.isOpen { list.append(.init(vote: vote, yes: record.yes, no: record.no)) }
            vote += 1
        }
        return list
    }

    // MARK: Voters

    private func admit(_ process: ReplicaProcess, _ name: Int, _ connection: Int, from: UInt64) {
        guard connections[connection].isOpen[1] else { return }
        process.voters.removeAll { $0.name == name || $0.connection == connection }
        process.voters.append((name, connection))
        for result in results(process, from: from) {
            send(connection, from: 1, .result(result.vote, yes: result.yes, no: result.no))
        }
        guard let place = process.executor.service.voterPlace(History.name(name)) else { return }
        for vote in process.executor.service.openVotes
        where process.executor.service.isWaiting(vote, for: place) {
            send(connection, from: 1, .vote(vote))
        }
    }

    private func remindVoters(_ process: ReplicaProcess) {
        for voter in process.voters {
            guard let place = process.executor.service.voterPlace(History.name(voter.name)) else {
                continue
            }
            for vote in process.executor.service.openVotes
            where process.executor.service.isWaiting(vote, for: place) {
                send(voter.connection, from: 1, .vote(vote))
            }
        }
    }

    private func onEffect(_ process: ReplicaProcess, _ effect: Polls.Effect) {
        switch effect {
        case .opened(let vote):
            process.openedAt.append((vote, now))
            guard process.face.isPrimary else { return }
            for voter in process.voters {
                guard
                    let place = process.executor.service.voterPlace(History.name(voter.name)),
                    process.executor.service.isWaiting(vote, for: place)
                else { continue }
                send(voter.connection, from: 1, .vote(vote))
            }
        case .closed(let vote):
            process.openedAt.removeAll { $0.vote == vote }
            guard process.face.isPrimary, let record = process.executor.service.record(vote)
            else { return }
            for voter in process.voters {
                send(voter.connection, from: 1, .result(vote, yes: record.yes, no: record.no))
            }
        }
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
        case .welcome, .reply, .vote, .result, .view: return
        }
        release(process)
    }

    private func onOffer(_ process: ReplicaProcess, _ witness: Instance, _ id: Int) {
        guard witness.rawValue != 0 else {
            process.clients.append(id)
            send(id, from: 1, .welcome(process.me.instance, process.replica.view))
            return
        }
        process.witnesses.removeAll { $0.instance == witness }
        process.witnesses.append((witness, id))
        process.witnesses.sort { $0.instance < $1.instance }
        if let view = process.replica.view { send(id, from: 1, .witness(.view(view))) }
        step(process, .witnessUp(witness))
        reportWitnesses(process)
    }

    func reportWitnesses(_ process: ReplicaProcess) {
        step(process, .witnesses(process.witnesses.map(\.instance)))
    }

    private func onRequest(_ process: ReplicaProcess, _ request: Packet.Request, _ id: Int) {
        let replica = process.face
        if case .cast(let vote, let name, let choice) = request.kind, !replica.isPrimary {
            guard replica.isMember || replica.status == .learning else {
                send(id, from: 1, .reply(request.number, redirect(process)))
                return
            }
            if !process.executor.service.isSettled(vote, History.name(name)) {
                process.held.append((vote, name, choice))
            }
            send(id, from: 1, .reply(request.number, .held))
            return
        }
        guard replica.isPrimary else {
            if history.answeredView.rawValue > 0, process.isLeading == false, process.isOut {
                coverage.note(.oldPrimaryRefused)
            }
            send(id, from: 1, .reply(request.number, redirect(process)))
            return
        }
        var waiter = ReplicaProcess.Waiter(
            request: request.number, connection: id, kind: .write, op: OpNumber(0),
            floor: history.answeredView)
        switch request.kind {
        case .join(let name, let from):
            append(process, .join(voter: History.name(name)))
            waiter.kind = .join(name: name, from: from)
        case .leave(let name):
            process.voters.removeAll { $0.name == name }
            append(process, .leave(voter: History.name(name)))
        case .cast(let vote, let name, let choice):
            if let place = process.executor.service.voterPlace(History.name(name)) {
                append(process, .cast(vote: vote, voter: UInt64(place), choice: choice))
            } else {
                append(
                    process, .castByName(vote: vote, voter: History.name(name), choice: choice))
            }
        case .call(let client, let sequence):
            // What kind of vote it opens follows from who asks, so that a repeat is the same.
            let isOpen = (client ^ sequence) & 3 == 0 || client == UInt64(Self.operatorName)
            let terms = VoteTerms(
                question: [], deadline: isOpen || sequence & 1 == 0 ? 60 + (sequence & 7) * 30 : 0,
                isRollOpen: isOpen)
            append(process, .open(terms), call: .init(client: client, sequence: sequence))
        case .close(let vote): append(process, .close(vote: vote))
        case .read, .results:
            waiter.kind = request.kind == .read ? .read : .results(from: from(request))
            process.turnHasReads = true
            scheduleTurn(process)
        }
        waiter.op = OpNumber(UInt64(process.batch.count))
        process.turnWaiters.append(waiter)
    }

    private func from(_ request: Packet.Request) -> UInt64 {
        if case .results(let from) = request.kind { from } else { 1 }
    }

    // MARK: Connections to other replicas

    func hello(of process: ReplicaProcess) -> Packet.Hello {
        .init(member: process.me, isMember: process.face.isMember, view: process.replica.view)
    }

    private func onHello(
        _ process: ReplicaProcess, _ theirs: Packet.Hello, _ id: Int, _ side: Side, isAnswer: Bool
    ) {
        let site = connections[id].sites[1 - side]
        if network.isBarred(process.slot, site) {
            close(id, by: side)
            process.dialed.removeAll { $0.connection == id }
            return
        }
        let instance = theirs.member.instance
        process.dialed.removeAll { $0.connection == id }
        if !isAnswer { send(id, from: side, .helloAnswer(hello(of: process))) }
        if let older = process.link(instance) {
            process.links.removeAll { $0.instance == instance }
            close(older, by: self.side(of: process, older))
            step(process, .directDown(instance))
        }
        process.links.append((instance, id))
        if !process.met.contains(instance) { process.met.append(instance) }
        let wasRelay = if case .relay = process.paths.route(to: instance) { true } else { false }
        if wasRelay { coverage.note(.backToDirect) }
        step(process, .directUp(instance))
        guard connections[id].isOpen[side], isAnswer else { return }
        onServiceHello(process, theirs)
    }

    private func onServiceHello(_ process: ReplicaProcess, _ theirs: Packet.Hello) {
        guard !process.face.isMember, process.face.status != .learning, process.leavesAt == nil
        else { return }
        if theirs.isMember, let view = theirs.view, view.primary.instance == theirs.member.instance
        {
            process.joinCount += 1
            if process.joinCount > 1 { coverage.note(.joinRestarted) }
            let join = JoinID(UInt64(process.number) << 20 | process.joinCount)
            step(process, .join(primary: theirs.member.instance, join))
        } else if let view = theirs.view {
            process.target = Int(view.primary.address.port)
            backOff(process)
        } else {
            backOff(process)
        }
    }

    func backOff(_ process: ReplicaProcess) {
        // Two that call each other at the same moment should not do so again.
        let pause = process.dialPause + random.int(0...process.dialPause / 2)
        process.nextDial = max(process.nextDial, now + pause)
        process.dialPause = min(process.dialPause * 2, ReplicaProcess.dialPauseMax)
    }

    func onClosed(_ process: ReplicaProcess, _ id: Int) {
        process.dialed.removeAll { $0.connection == id }
        process.clients.removeAll { $0 == id }
        process.voters.removeAll { $0.connection == id }
        if let witness = process.witnesses.first(where: { $0.connection == id })?.instance {
            process.witnesses.removeAll { $0.connection == id }
            step(process, .witnessDown(witness))
            reportWitnesses(process)
        }
        guard let instance = process.links.first(where: { $0.connection == id })?.instance else {
            return
        }
        process.links.removeAll { $0.connection == id }
        step(process, .directDown(instance))
        process.nextDial = now
        // Whether anybody still listens there tells a crash from a hiccup.
        if let member = process.replica.view?.member(instance), process.face.isPrimary {
            dial(process, Int(member.address.port))
        }
        release(process)
    }

    func onDialFailed(_ process: ReplicaProcess, _ slot: Int, refused: Bool) {
        process.dialed.removeAll { $0.slot == slot && $0.connection == nil }
        guard refused, process.face.isMember, let view = process.replica.view,
            let member = view.members.first(where: { Int($0.address.port) == slot }),
            member.instance != process.me.instance
        else { return }
        step(process, Paths.Event.refused(member.instance))
        if process.paths.route(to: member.instance) != nil { coverage.note(.refusalDisproved) }
    }

    /// Whether a replica that is connected lives at this slot: maybe in the place of another.
    private func isConnected(_ process: ReplicaProcess, to slot: Int) -> Bool {
        process.links.contains { connections[$0.connection].sites.contains(slot) }
    }

    private func dial(_ process: ReplicaProcess, _ slot: Int) {
        guard slot != process.slot, !process.dialed.contains(where: { $0.slot == slot }) else {
            return
        }
        process.dialed.append((slot, nil, now))
        dial(.replica(process.number), from: process.slot, to: slot)
    }

    // MARK: Time

    func tick(_ process: ReplicaProcess) {
        if process.begins {
            process.begins = false
            step(process, .create)
        }
        step(process, Paths.Event.tick)
        step(process, Replica.Event.tick)
        guard process.isUp else { return }
        sendBeats(process)
        tickLinks(process)
        if process.face.isPrimary { drive(process) }
        propose(process)
        release(process)
        tickLeaving(process)
    }

    private func sendBeats(_ process: ReplicaProcess) {
        guard (now / process.tickTime) % timing.beatTicks == 0 else { return }
        for link in process.links {
            send(link.connection, from: side(of: process, link.connection), .beat)
        }
    }

    private func tickLinks(_ process: ReplicaProcess) {
        for dialed in process.dialed where now > dialed.at + 200_000 {
            guard let id = dialed.connection else { continue }
            process.dialed.removeAll { $0.connection == id }
            close(id, by: 0)
        }
        guard now >= process.nextDial, process.leavesAt == nil || process.face.isMember else {
            return
        }
        guard process.face.isMember, let view = process.replica.view else {
            guard process.face.status == .idle, process.dialed.isEmpty else { return }
            if let view = process.replica.view, let id = process.link(view.primary.instance),
                Int(view.primary.address.port) == process.target
            {
                // Say hello anew.
                process.links.removeAll { $0.connection == id }
                close(id, by: side(of: process, id))
                step(process, .directDown(view.primary.instance))
            }
            let target = process.target
            backOff(process)
            if target != process.slot { dial(process, target) }
            // Any other may know more.
            let others = listening.indices.filter { listening[$0] != nil && $0 != process.slot }
            if random.chance(500) { process.target = random.element(others) ?? target }
            return
        }
        let me = process.me.instance
        // Who may be alone calls everybody, and the address from its command line: the others may
        // have gone on without it and have no reason to look for it.
        let isAlone =
            view.primary.instance == me
            ? view.backups.contains { process.replica.hasFailed($0.instance) }
            : process.replica.hasFailed(view.primary.instance)
        for member in view.members where member.instance != me {
            let isKept =
                view.primary.instance != me
                && (member.instance == view.primary.instance || member.instance < me)
            let slot = Int(member.address.port)
            guard isKept || isAlone, process.link(member.instance) == nil,
                !isConnected(process, to: slot)
            else { continue }
            backOff(process)
            dial(process, slot)
        }
        let other = random.int(0...Self.slots - 1)
        if isAlone, !isConnected(process, to: other), random.chance(200) { dial(process, other) }
    }

    /// Deadlines, and voters that have gone.
    private func drive(_ process: ReplicaProcess) {
        guard process.face.acceptsRequests else { return }
        let polls = process.executor.service
        for (vote, at) in process.openedAt {
            let deadline = Int(polls.deadline(vote)) * 1_000
            guard deadline > 0, now >= at + deadline, !process.closeProposed.contains(vote) else {
                continue
            }
            coverage.note(.deadlineClosed)
            process.closeProposed.append(vote)
            if options.breakage == .announcedTooEarly, let record = polls.record(vote) {
                for voter in process.voters {
                    send(voter.connection, from: 1, .result(vote, yes: record.yes, no: record.no))
                }
            }
            append(process, .close(vote: vote))
        }
        for place in polls.voters.indices where polls.isJoined(place) {
            guard let name = History.number(polls.voters[place]) else { continue }
            guard !process.voters.contains(where: { $0.name == name }) else {
                process.absentTicks[name] = 0
                continue
            }
            process.absentTicks[name] += 1
            guard process.absentTicks[name] > 30 else { continue }
            process.absentTicks[name] = 0
            coverage.note(.absentVoterRemoved)
            append(process, .leave(voter: polls.voters[place]))
        }
    }

    // MARK: Leaving

    func leave(_ process: ReplicaProcess) {
        guard process.face.isMember, let view = process.replica.view else {
            exit(process)
            return
        }
        guard process.face.isPrimary else {
            guard !process.hasLeft else { return }
            process.hasLeft = true
            post(process, Envelope(to: view.primary.instance, .leave(process.me.instance)))
            return
        }
        if !view.backups.isEmpty { step(process, .handOver) }
    }

    private func tickLeaving(_ process: ReplicaProcess) {
        guard let until = process.leavesAt else { return }
        if now >= until {
            // Somebody would not let the last copy go.
            if mayLose(process) { exit(process) } else { process.leavesAt = nil }
        } else if process.face.acceptsRequests {
            leave(process)
        }
    }
}
