import Replication
import Services
import Wire
// Requests at a replica, their answers, and its voters.
extension Simulation {
    // MARK: Requests

    func append(_ process: ReplicaProcess, _ command: PollCommand, call: Wire.Request.Call? = nil) {
        append(process, command.encode(), call: call)
    }

    func append(_ process: ReplicaProcess, _ command: [UInt8], call: Wire.Request.Call?) {
        process.batch.append(Wire.Request(call: call, command: command))
        scheduleTurn(process)
    }

    func scheduleTurn(_ process: ReplicaProcess) {
        guard !process.isTurnDue else { return }
        process.isTurnDue = true
        queue.push(.turn(process.number), at: now + random.int(0...mix.turnMax))
    }

    func propose(_ process: ReplicaProcess) {
        guard !process.batch.isEmpty || !process.turnWaiters.isEmpty else { return }
        guard process.face.acceptsRequests, process.leads else {
            guard !process.face.isPrimary else { return }
            let list = process.turnWaiters
            process.turnWaiters = []
            process.turnHasReads = false
            process.batch = Batch()
            process.leases.refused()
            for waiter in list {
                coverage.note(.requestRefused)
                refuse(process, waiter, redirect(process))
            }
            return
        }
        let base = Int(process.face.op.rawValue)
        if process.turnHasReads { step(process, .confirmReads) }
        let probe = process.turnHasReads ? process.face.probe : 0
        if options.breakage == .answeredTooEarly { answerTooEarly(process) }
        for var waiter in process.turnWaiters {
            waiter.op = waiter.op + base
            switch waiter.kind {
            case .read, .results, .check, .lease:
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
        process.leases.proposed(through: UInt64(base) + UInt64(batch.count))
        step(process, .propose(batch, time: UInt64(now / 1_000)))
    }

    /// With what it will be answered in the end, if nothing is lost: where that is known.
    private func answerTooEarly(_ process: ReplicaProcess) {
        guard process.batch.count == 1, process.face.op == process.executor.op else { return }
        for waiter in process.turnWaiters {
            guard case .write = waiter.kind,
                case .call = history.asked[waiter.request].request.kind
            else { continue }
            let vote = Int64(process.executor.service.polls.records.count) + 1
            answer(process, waiter, .reply(.integer(vote)))
        }
    }

    func redirect(_ process: ReplicaProcess) -> Packet.Answer {
        guard let view = process.replica.view, view.primary.instance != process.me.instance else {
            return .tryAgain
        }
        return .redirect(view.primary.address)
    }

    func refuse(
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

    func answer(
        _ process: ReplicaProcess, _ waiter: ReplicaProcess.Waiter, _ answer: Packet.Answer
    ) {
        let view = process.viewNumber
        // What it may have learnt since is not carried out yet, nor would be after a crash.
        let answersReads =
            process.outputs.isEmpty ? process.face.isPrimary : process.isLeading
        check { () throws(Violation) in
            // Rule 7. A write that was executed before it was told may be answered still.
            if waiter.reply == nil, process.isOut || !answersReads {
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

    func execute(_ process: ReplicaProcess, _ entry: Entry) {
        if process.isStateOver {
            fail(
                Violation(
                    .safety, rule: "told to step down, it answers nobody",
                    "replica \(process.number) executes \(entry.first)"))
        }
        replies.removeAll(keepingCapacity: true)
        var effects: [ServiceSet.Effect] = []
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
            case .read, .results, .check, .lease: break
            }
        }
        process.leases.executed(through: process.executor.op.rawValue)
        for case .polls(let effect) in effects { onEffect(process, effect) }
        if process.held.count > 20 {
            process.held.removeAll {
                process.executor.service.polls.isSettled($0.vote, History.name($0.name))
            }
        }
    }

    func release(_ process: ReplicaProcess) {
        guard process.isUp, !process.waiters.isEmpty else { return }
        let confirmed = process.confirmedProbe
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
            case .check(let room): answerCheck(process, waiter, room)
            case .lease: answerLease(process, waiter)
            }
        }
    }

    func reading(_ process: ReplicaProcess) -> Reading {
        let polls = process.executor.service.polls
        return Reading(
            votes: polls.records.count, closed: polls.closedCount, ballots: polls.ballotTotal)
    }

    func results(_ process: ReplicaProcess, from: UInt64) -> [Packet.Result] {
        var list: [Packet.Result] = []
        var vote = from
        while let record = process.executor.service.polls.record(vote) {
            if !record.isOpen { list.append(.init(vote: vote, yes: record.yes, no: record.no)) }
            vote += 1
        }
        return list
    }

    func onRequest(_ process: ReplicaProcess, _ request: Packet.Request, _ id: Int) {
        let replica = process.face
        if case .cast(let vote, let name, let choice) = request.kind, !replica.isPrimary {
            guard replica.isMember || replica.status == .learning else {
                send(id, from: 1, .reply(request.number, redirect(process)))
                return
            }
            if !process.executor.service.polls.isSettled(vote, History.name(name)) {
                process.held.append((vote, name, choice))
            }
            send(id, from: 1, .reply(request.number, .held))
            return
        }
        guard process.leads else {
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
            if let place = process.executor.service.polls.voterPlace(History.name(name)) {
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
        case .read, .results, .check, .lease:
            waiter.kind =
                switch request.kind {
                case .check(let room): .check(room: room)
                case .lease: .lease
                case .results(let from): .results(from: from)
                default: .read
                }
            process.turnHasReads = true
            scheduleTurn(process)
        case .write(let client, let sequence, let command):
            guard mayWrite(process, command, id) else {
                coverage.note(.reservationWaited)
                process.gated.append((request, id))
                return
            }
            append(process, command.encode(), call: .init(client: client, sequence: sequence))
        case .acknowledge(let room):
            process.leases.acknowledge(UInt64(id), rooms: room.map { [$0] })
            resumeGated(process)
            return
        }
        waiter.op = OpNumber(UInt64(process.batch.count))
        process.turnWaiters.append(waiter)
    }

    // MARK: Voters

    func admit(_ process: ReplicaProcess, _ name: Int, _ connection: Int, from: UInt64) {
        guard connections[connection].isOpen[1] else { return }
        process.voters.removeAll { $0.name == name || $0.connection == connection }
        process.voters.append((name, connection))
        for result in results(process, from: from) {
            send(connection, from: 1, .result(result.vote, yes: result.yes, no: result.no))
        }
        guard let place = process.executor.service.polls.voterPlace(History.name(name)) else {
            return
        }
        for vote in process.executor.service.polls.openVotes
        where process.executor.service.polls.isWaiting(vote, for: place) {
            send(connection, from: 1, .vote(vote))
        }
    }

    func remindVoters(_ process: ReplicaProcess) {
        for voter in process.voters {
            guard let place = process.executor.service.polls.voterPlace(History.name(voter.name))
            else {
                continue
            }
            for vote in process.executor.service.polls.openVotes
            where process.executor.service.polls.isWaiting(vote, for: place) {
                send(voter.connection, from: 1, .vote(vote))
            }
        }
    }

    func onEffect(_ process: ReplicaProcess, _ effect: Polls.Effect) {
        switch effect {
        case .opened(let vote):
            process.openedAt.append((vote, now))
            guard process.face.isPrimary else { return }
            for voter in process.voters {
                guard
                    let place = process.executor.service.polls.voterPlace(History.name(voter.name)),
                    process.executor.service.polls.isWaiting(vote, for: place)
                else { continue }
                send(voter.connection, from: 1, .vote(vote))
            }
        case .closed(let vote):
            process.openedAt.removeAll { $0.vote == vote }
            guard process.face.isPrimary, let record = process.executor.service.polls.record(vote)
            else { return }
            for voter in process.voters {
                send(voter.connection, from: 1, .result(vote, yes: record.yes, no: record.no))
            }
        }
    }
}
