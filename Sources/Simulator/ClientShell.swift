import Replication
import Services
import Wire

// The clients: voters as `VoterSession` is one, in short, and an operator who opens votes, closes
// them and reads.
extension Simulation {
    // MARK: Time

    func tick(_ client: ClientProcess) {
        if let until = client.leavesAt, now >= until {
            tell { "client \(client.number) is gone" }
            end(client)
            return
        }
        step(client, .tick)
        if let view = client.witness.view { adopt(client, view) }
        guard client.leavesAt == nil else { return }
        dialMissing(client)
        if !isOperator(client) { joinPrimary(client) }
        for index in client.ballots.indices { sendBallot(client, index) }
        work(client)
        askResults(client)
    }

    func isOperator(_ client: ClientProcess) -> Bool { client.name == Self.operatorName }

    func dialMissing(_ client: ClientProcess) {
        guard now >= client.nextDial else { return }
        let isServed = client.links.contains { $0.joining == .joined }
        if let view = client.view {
            dial(client, Int(view.primary.address.port))
            for backup in view.backups { dial(client, Int(backup.address.port)) }
        }
        if !isServed {
            for slot in 0..<Self.slots where listening[slot] != nil { dial(client, slot) }
        }
        // Replicas that are in no view any more are let go, some time later.
        guard let view = client.view, isServed else { return }
        for link in client.links {
            guard let instance = link.instance, !view.contains(instance), random.chance(50) else {
                continue
            }
            drop(client, link.connection)
        }
    }

    /// Unless it is connected there, or about to be.
    private func dial(_ client: ClientProcess, _ slot: Int) {
        guard !client.dialing.contains(slot), !client.links.contains(where: { $0.slot == slot })
        else { return }
        client.nextDial = now + random.int(10_000...40_000)
        client.dialing.append(slot)
        dial(.client(client.number), from: Self.site(ofClient: client.name), to: slot)
    }

    func drop(_ client: ClientProcess, _ id: Int) {
        guard connections[id].isOpen[0] else { return }
        onClosed(client, id)
        close(id, by: 0)
    }

    private func joinPrimary(_ client: ClientProcess) {
        guard let index = client.primary, client.links[index].joining == .none,
            now >= client.links[index].retryAt
        else { return }
        let kind = Packet.Request.Kind.join(name: client.name, from: client.nextResult)
        let request = history.ask(kind, at: now)
        client.links[index].joining = .asked
        client.links[index].joinRequest = request.number
        send(client.links[index].connection, from: 0, .request(request))
    }

    // MARK: Ballots

    func decide(_ client: ClientProcess, _ vote: UInt64) {
        guard let index = client.ballots.firstIndex(where: { $0.vote == vote }),
            client.ballots[index].request == nil
        else { return }
        let choice = Self.choice(client.name, vote)
        client.ballots[index].request = history.ask(
            .cast(vote: vote, name: client.name, choice: choice), at: now)
        sendBallot(client, index)
    }

    private func onVote(_ client: ClientProcess, _ vote: UInt64, on id: Int) {
        guard vote >= client.nextResult, !client.early.contains(where: { $0.vote == vote }) else {
            return
        }
        if let index = client.ballots.firstIndex(where: { $0.vote == vote }) {
            // Asked again: it is not counted, whatever was said.
            client.ballots[index].isSettled = false
            client.ballots[index].sentOn.removeAll { $0 == id }
            return
        }
        client.ballots.append(.init(vote: vote))
        queue.push(
            .voteDecided(client: client.number, vote: vote),
            at: now + random.int(0...mix.decisionMax))
    }

    private func sendBallot(_ client: ClientProcess, _ index: Int) {
        guard let request = client.ballots[index].request, !client.ballots[index].isSettled,
            let primary = client.primary
        else { return }
        for (place, link) in client.links.enumerated() where client.isMember(link) {
            guard !client.ballots[index].sentOn.contains(link.connection), now >= link.retryAt,
                place != primary || link.joining != .none
            else { continue }
            client.ballots[index].sentOn.append(link.connection)
            send(link.connection, from: 0, .request(request))
        }
    }

    // MARK: Calls, reads, closes

    private func work(_ client: ClientProcess) {
        if let request = client.pending {
            let isStanding = client.pendingOn.map { connections[$0].isOpen[0] } ?? false
            // A read is asked anew, so that it is known when it was asked.
            if isStanding, now < client.pendingSince + 400_000 { return }
            guard isRepeatable(request) else {
                client.pending = nil
                return
            }
            ask(client, request)
            return
        }
        guard !isHealed || isOperator(client), now >= client.nextRequest else { return }
        client.nextRequest = now + random.int(1_000...mix.pauseMax)
        let dice = random.int(0...99)
        if isHealed {
            workAtTheEnd(client)
        } else if dice < 45 {
            ask(client, history.ask(.read, at: now))
        } else if dice < 90 || history.model.votes.isEmpty {
            call(client)
        } else {
            let vote = UInt64(random.int(1...history.model.votes.count))
            ask(client, history.ask(.close(vote: vote), at: now))
        }
    }

    func call(_ client: ClientProcess) {
        client.sequence += 1
        let name = UInt64(client.number) << 8 | UInt64(client.name)
        ask(client, history.ask(.call(client: name, sequence: client.sequence), at: now))
    }

    private func isRepeatable(_ request: Packet.Request) -> Bool {
        switch request.kind {
        case .call, .close: true
        case .read, .join, .leave, .cast, .results, .check, .write, .lease, .acknowledge: false
        }
    }

    func ask(_ client: ClientProcess, _ request: Packet.Request) {
        client.pending = request
        // Anybody may be asked; only the primary should answer.
        let index =
            random.chance(isOperator(client) ? 500 : 300)
            ? random.element(Array(client.links.indices)) : client.primary
        guard let index, client.links[index].instance != nil else {
            client.pendingOn = nil
            return
        }
        if case .call = request.kind, client.pendingOn != nil {
            coverage.note(.callRepeated)
            if client.pendingOn != client.links[index].connection {
                coverage.note(.callRepeatedElsewhere)
            }
        }
        client.pendingOn = client.links[index].connection
        client.pendingSince = now
        send(client.links[index].connection, from: 0, .request(request))
    }

    // MARK: Results

    private func accept(_ client: ClientProcess, _ result: Packet.Result) {
        guard result.vote >= client.nextResult else {
            compare(client, result, client.log[Int(result.vote) - 1])
            return
        }
        guard result.vote == client.nextResult else {
            if let known = client.early.first(where: { $0.vote == result.vote }) {
                compare(client, result, known)
            } else {
                client.early.append(result)
                client.early.sort { $0.vote < $1.vote }
            }
            if client.askResultsAt == nil { client.askResultsAt = now + 20_000 }
            return
        }
        log(client, result)
        while let first = client.early.first, first.vote <= client.nextResult {
            client.early.removeFirst()
            if first.vote == client.nextResult { log(client, first) }
        }
    }

    /// Rule 4: what is told again is told as before.
    private func compare(_ client: ClientProcess, _ result: Packet.Result, _ known: Packet.Result) {
        guard result != known else { return }
        fail(
            Violation(
                .safety, rule: "client logs complete, without duplicate, true",
                "\(client.name) was told '\(known.vote) \(known.yes) \(known.no)', now "
                    + "'\(result.vote) \(result.yes) \(result.no)'"))
    }

    private func log(_ client: ClientProcess, _ result: Packet.Result) {
        client.log.append(result)
        client.ballots.removeAll { $0.vote <= result.vote }
    }

    private func askResults(_ client: ClientProcess) {
        guard !isOperator(client), let moment = client.askResultsAt, now >= moment,
            let index = client.primary, client.links[index].joining == .joined
        else { return }
        client.askResultsAt = now + 300_000
        let request = history.ask(.results(from: client.nextResult), at: now)
        send(client.links[index].connection, from: 0, .request(request))
    }

    // MARK: Packets

    func receive(_ client: ClientProcess, _ packet: Packet, _ id: Int) {
        guard let index = client.index(id) else { return }
        if isGuest(client), receiveAsGuest(client, packet, id) { return }
        switch packet {
        case .welcome(let instance, let view):
            client.links[index].instance = instance
            if let view { adopt(client, view) }
            guard !isOperator(client), !isGuest(client) else { return }
            send(id, from: 0, .offer(client.instance))
            step(client, .connected(instance))
        case .witness(let message):
            guard let from = client.links[index].instance else { return }
            step(client, .message(message, from: from))
        case .view(let view): adopt(client, view)
        case .vote(let vote): onVote(client, vote, on: id)
        case .result(let vote, let yes, let no):
            accept(client, .init(vote: vote, yes: yes, no: no))
        case .reply(let number, let answer): onReply(client, index, number, answer)
        case .hello, .helloAnswer, .peer, .beat, .offer, .request, .cacheable, .invalidate: return
        }
    }

    private func onReply(
        _ client: ClientProcess, _ index: Int, _ number: Int, _ answer: Packet.Answer
    ) {
        let id = client.links[index].connection
        let isRefused =
            answer == .tryAgain || { if case .redirect = answer { true } else { false } }()
        if isRefused { client.links[index].retryAt = now + random.int(2_000...30_000) }
        if client.links[index].joinRequest == number {
            client.links[index].joining = isRefused ? .none : .joined
            client.links[index].joinRequest = -1
            client.askResultsAt = now + 100_000
            return
        }
        if client.pending?.number == number {
            if isRefused {
                client.pendingOn = nil
                client.pendingSince = 0
                if case .read = client.pending?.kind { client.pending = nil }
            } else {
                client.pending = nil
            }
            return
        }
        if case .results(let list) = answer {
            for result in list { accept(client, result) }
            return
        }
        guard let place = client.ballots.firstIndex(where: { $0.request?.number == number }) else {
            return
        }
        if isRefused {
            client.ballots[place].sentOn.removeAll { $0 == id }
        } else if answer != .held, index == client.primary {
            client.ballots[place].isSettled = true
        }
    }

    // MARK: Witness and views

    private func step(_ client: ClientProcess, _ event: Witness.Event) {
        var answers = Outbox()
        client.witness.step(event, into: &answers)
        if case .message(.seek, _) = event, answers.send.isEmpty, answers.sendAfterSync.isEmpty {
            coverage.note(.stickyWitness)
        }
        for envelope in answers.send { post(client, envelope) }
        for envelope in answers.sendAfterSync { post(client, envelope) }
    }

    private func post(_ client: ClientProcess, _ envelope: Envelope) {
        observe(client, envelope)
        let link = client.links.first { $0.instance == envelope.to }
        if let link { send(link.connection, from: 0, .witness(envelope.message)) }
    }

    func adopt(_ client: ClientProcess, _ news: View) {
        guard news.number > (client.view?.number ?? ViewNumber(0)) else { return }
        let known = client.view
        client.view = news
        // A view in between may have had another primary, to which this one was a backup: it has
        // told nothing meanwhile.
        let isFollowed =
            known?.primary.instance == news.primary.instance
            && known?.number.next == news.number
        let kept = isFollowed ? client.primary.map { client.links[$0].connection } : nil
        for index in client.links.indices {
            client.links[index].retryAt = 0
            if !isFollowed { client.links[index].joining = .none }
        }
        for index in client.ballots.indices {
            client.ballots[index].sentOn.removeAll { $0 != kept }
        }
    }

    func onClosed(_ client: ClientProcess, _ id: Int) {
        guard let index = client.index(id) else { return }
        let lost = client.links.remove(at: index)
        for place in client.ballots.indices { client.ballots[place].sentOn.removeAll { $0 == id } }
        if client.home == id { leaveHome(client) }
        if let instance = lost.instance, !isOperator(client), !isGuest(client) {
            step(client, .disconnected(instance))
        }
    }

    /// Says goodbye, as `pollclient` does.
    func leave(_ client: ClientProcess) {
        client.leavesAt = now + random.int(20_000...100_000)
        if let index = client.primary, client.links[index].joining != .none {
            let request = history.ask(.leave(name: client.name), at: now)
            send(client.links[index].connection, from: 0, .request(request))
        }
        for link in client.links where link.instance != nil {
            if client.witness.isElector, let view = client.witness.view {
                send(link.connection, from: 0, .witness(.view(view)))
            }
            send(link.connection, from: 0, .witness(.leave(client.instance)))
        }
    }
}
