import Replication
import Services
import Wire

// A replica's connections to others, and what it does in time.
extension Simulation {
    // MARK: Connections to other replicas

    func hello(of process: ReplicaProcess) -> Packet.Hello {
        .init(
            member: process.me, isMember: process.face.isMember, view: shownView(process),
            formerly: process.formerly)
    }

    func onHello(
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
        // From a process that is proved to have ended, or before a newer one of the same instance.
        let number = Int(theirs.member.pid) - 1
        guard !process.gone.contains(number),
            !process.met.contains(where: { $0.instance == instance && $0.number > number })
        else {
            close(id, by: side)
            return
        }
        if !isAnswer { send(id, from: side, .helloAnswer(hello(of: process))) }
        if let older = process.link(instance) {
            process.links.removeAll { $0.instance == instance }
            close(older, by: self.side(of: process, older))
            step(process, .directDown(instance))
        }
        process.links.append((instance, id))
        if !process.met.contains(where: { $0.number == number }) {
            process.met.append((instance, number, replicas[number].isUp))
        }
        let wasRelay = if case .relay = process.paths.route(to: instance) { true } else { false }
        if wasRelay { coverage.note(.backToDirect) }
        step(process, .met(Life(theirs.member), knowing: theirs.view))
        step(process, .directUp(instance))
        for former in theirs.formerly { onFormer(process, former) }
        guard connections[id].isOpen[side], isAnswer else { return }
        onServiceHello(process, theirs)
    }

    /// Nobody can be this instance any more: its folder, which is locked, belongs to another.
    private func onFormer(_ process: ReplicaProcess, _ former: Instance) {
        guard !process.formers.contains(former) else { return }
        process.formers.append(former)
        coverage.note(.formerHeard)
        for other in replicas where other.me.instance == former {
            process.gone.append(other.number)
        }
        step(process, Paths.Event.exited(former, nil))
    }

    func onServiceHello(_ process: ReplicaProcess, _ theirs: Packet.Hello) {
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
        process.gated.removeAll { $0.connection == id }
        process.leases.disconnect(UInt64(id))
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
    func isConnected(_ process: ReplicaProcess, to slot: Int) -> Bool {
        process.links.contains { link in
            connections[link.connection].sites[0] == slot
                || connections[link.connection].sites[1] == slot
        }
    }

    func dial(_ process: ReplicaProcess, _ slot: Int) {
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
            step(process, .create(after: .beginning, hash: .beginning))
        }
        step(process, Paths.Event.tick)
        step(process, Replica.Event.tick)
        guard process.isUp else { return }
        sendBeats(process)
        tickLinks(process)
        if process.face.isPrimary { drive(process) }
        tickRooms(process)
        tickDisk(process)
        guard process.isUp else { return }
        propose(process)
        release(process)
        tickLeaving(process)
    }

    func sendBeats(_ process: ReplicaProcess) {
        guard (now / process.tickTime) % timing.beatTicks == 0 else { return }
        for link in process.links {
            send(link.connection, from: side(of: process, link.connection), .beat)
        }
    }

    func tickLinks(_ process: ReplicaProcess) {
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
            ? view.backups.contains { process.replica.hasFailedInPlace($0.instance) }
            : process.replica.hasFailedInPlace(view.primary.instance)
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
        guard isAlone else { return }
        let running = listening.indices.filter { listening[$0] != nil }
        if let other = random.element(running), !isConnected(process, to: other) {
            dial(process, other)
        }
    }

    /// Deadlines, and voters that have gone.
    func drive(_ process: ReplicaProcess) {
        guard process.face.acceptsRequests, process.leads else { return }
        let polls = process.executor.service.polls
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
}
