import Replication
import Wire

/// What is demanded when all is well again, one thing after the other: a service that has stood still since may
/// only look whole.
enum Finale {
    case none
    /// The primary, another than this, leads.
    case handOver(from: Instance)
    /// This process is let go by the others, however long it takes, and another takes its place.
    case leave(Int)
    /// The operator makes one more call, then one more read.
    case lastCall
    case lastRead
}

// The end of a run: when it is over, and when it has failed.
extension Simulation {
    /// Whether the service is whole and nothing is left to be done. If it is not in time, that is
    /// a violation, unless more was lost than it promises to survive.
    var isDone: Bool {
        guard now >= healedAt + 50_000 else { return false }
        guard events % 64 == 0 else { return false }
        guard let missing = whatIsMissing() ?? whatIsToCome() else { return true }
        if now > healedAt + Self.recoveryMax {
            if isBeyondRepair {
                coverage.note(.beyondRepair)
                tell { "beyond repair: \(missing)" }
                isHealed = false
                return true
            }
            fail(Violation(.liveness, rule: "after healing all is well", missing))
        }
        return false
    }

    // MARK: The finale

    /// To be asked when nothing is missing.
    private func whatIsToCome() -> String? {
        guard let primary, let view = primary.replica.view else { return "no primary" }
        switch finale {
        case .none:
            healedAt = now
            begin(primary, view)
            return "the finale"
        case .handOver(let former):
            if primary.me.instance == former {
                step(primary, .handOver)
                return "the hand-over by replica \(primary.number)"
            }
            coverage.note(.handedOverAtTheEnd)
        case .leave(let number):
            if replicas[number].isUp { return "the end of replica \(number)" }
            coverage.note(.leftAtTheEnd)
        case .lastCall:
            guard isAnswered(isCall) else { return "the answer to a last call" }
            begin(.lastRead)
            return "a last read"
        case .lastRead:
            guard isAnswered({ $0 == .read }) else { return "the answer to a last read" }
            for process in replicas where process.isUp && view.contains(process.me.instance) {
                guard process.executor.op == history.lastOp, process.face.op == history.lastOp
                else { return "ops at replica \(process.number) that are not executed" }
            }
            return nil
        }
        begin(.lastCall)
        return "a last call"
    }

    private func begin(_ stage: Finale) {
        finale = stage
        finaleAsks = history.asked.count
        healedAt = now
    }

    private func begin(_ primary: ReplicaProcess, _ view: View) {
        // Not drawn from the run's numbers, as they are those of the run's end.
        let dice = Random.mix(options.seed ^ 0x66_696e_616c_65) % 8
        let second = view.backups.first?.instance
        guard let backup = replicas.first(where: { $0.isUp && $0.me.instance == second }) else {
            begin(.lastCall)
            return
        }
        switch dice {
        case 0...1 where election == .sticky:
            tell { "at the end replica \(primary.number) is to hand over" }
            begin(.handOver(from: primary.me.instance))
        case 2, 3:
            let process = dice == 2 ? primary : backup
            tell { "at the end replica \(process.number) leaves" }
            begin(.leave(process.number))
            process.leavesAt = .max
            leave(process)
        default: begin(.lastCall)
        }
    }

    private func isAnswered(_ isMeant: (Packet.Request.Kind) -> Bool) -> Bool {
        history.asked[finaleAsks...].contains { $0.answered != nil && isMeant($0.request.kind) }
    }

    private func isCall(_ kind: Packet.Request.Kind) -> Bool {
        if case .call = kind { true } else { false }
    }

    /// The operator's part.
    func workAtTheEnd(_ client: ClientProcess) {
        // What nobody else will close.
        let open = history.model.votes.firstIndex { $0.isOpen && ($0.roll?.isEmpty ?? false) }
        if let open {
            ask(client, history.ask(.close(vote: UInt64(open + 1)), at: now))
            return
        }
        switch finale {
        case .lastCall:
            let isMade = history.asked[finaleAsks...].contains { isCall($0.request.kind) }
            if !isMade { call(client) }
        case .lastRead: ask(client, history.ask(.read, at: now))
        case .none, .handOver, .leave: return
        }
    }

    // MARK: What is missing

    private func whatIsMissing() -> String? {
        guard let primary else { return "no primary" }
        let leaders = replicas.filter { $0.isUp && $0.face.isPrimary }
        guard leaders.count == 1, primary.face.isPrimary, primary.face.acceptsRequests,
            let view = primary.replica.view
        else { return "primaries: \(leaders.map(\.number))" }
        let wanted = mix.shape.replicas
        guard view.members.count == wanted else { return "view '\(view.text)'" }
        for member in view.members {
            guard
                let process = replicas.first(where: {
                    $0.me.instance == member.instance && $0.isUp
                }), process.face.status == .normal, process.replica.view == view,
                process.leavesAt == nil
            else { return "member \(member.id) is not there" }
            guard process.executor.op == history.lastOp || process.face.commitMax == history.lastOp
            else { return "member \(member.id) is behind" }
        }
        if election == .bully, let highest = view.backups.map(\.id).max(), highest > primary.me.id {
            return "\(highest) is there and \(primary.me.id) leads"
        }
        for member in view.backups {
            let route = primary.paths.route(to: member.instance)
            guard route == .direct else {
                return "the path to \(member.id) is \(route, default: "none")"
            }
        }
        if let vote = history.model.votes.firstIndex(where: \.isOpen) {
            return "vote \(vote + 1) is open"
        }
        for name in 0..<mix.voters {
            let client = clients[voters[name]]
            guard client.isUp, client.log.count == history.model.votes.count else {
                return
                    "voter \(name) has \(client.log.count) of \(history.model.votes.count) results"
            }
        }
        for client in clients where client.isUp {
            if let request = client.pending, isKept(request) {
                return "request \(request.number) of client \(client.number) is not answered"
            }
        }
        return nil
    }

    private func isKept(_ request: Packet.Request) -> Bool {
        switch request.kind {
        case .call, .close, .write: true
        case .read, .join, .leave, .cast, .results, .check, .lease, .acknowledge: false
        }
    }

    /// Whether the newest view has lost all its members, or so many of its electors that nobody
    /// can know what they have decided.
    private var isBeyondRepair: Bool {
        guard let newest = history.newest else { return true }
        if isKnown(newest) { return isBeyondRepair(newest, history.accepts) }
        // Nobody who is left has heard of it; but those who have accepted it may be there, and must then
        // find that it is decided. Who decided it alone may have died before telling anybody.
        guard let (before, accepts) = history.before, isKnown(before) else { return true }
        let deciders = accepts.filter { $0.view == newest }
        let isDecidedTogether =
            deciders.count >= before.majority || hasAllMembers(before, deciders)
        return !isDecidedTogether || isBeyondRepair(before, accepts)
    }

    private func isKnown(_ view: View) -> Bool {
        replicas.contains { $0.isUp && $0.replica.view?.number == view.number }
            || clients.contains { $0.isUp && $0.witness.view?.number == view.number }
    }

    private func hasAllMembers(_ view: View, _ accepts: [History.Accept]) -> Bool {
        view.members.allSatisfy { member in accepts.contains { $0.elector == member.instance } }
    }

    private func isBeyondRepair(_ view: View, _ known: [History.Accept]) -> Bool {
        let alive = view.members.filter { comesBack($0.instance) }
        // One that is short leads nobody, and what it may have promised to lead is lost with its end.
        let whole = alive.filter { !isShort($0.instance) }
        guard !whole.isEmpty else { return true }
        let electing = view.electorate.filter { comesBack($0) }
        if view.members.allSatisfy({ electing.contains($0.instance) }) { return false }
        // Also what was written down and never said, as the process ended in between.
        var accepts = known
        for process in replicas where process.isUp {
            guard let own = process.replica.accepted else { continue }
            accepts.removeAll { $0.elector == process.me.instance }
            accepts.append(History.Accept(elector: process.me.instance, what: own))
        }
        let dead = view.electorate.count - electing.count
        let lost = view.electorate.first { !comesBack($0) }
        if let lost, canProve(lost, in: view) {
            // Proof of the other's end suffices, unless this one has helped it to go on alone.
            return whole.allSatisfy { member in
                accepts.contains {
                    $0.elector == member.instance && !$0.view.contains(member.instance)
                }
            }
        }
        if view.electorate.count - dead < view.majority { return true }
        // A view without the whole members that are left may have been accepted by those who are gone.
        return whole.allSatisfy { member in
            accepts.contains { accept in
                guard !accept.view.contains(member.instance) else { return false }
                let same = accepts.filter { $0.view == accept.view }
                let left = same.filter { isAlive($0.elector) }
                if left.count + dead >= view.majority { return true }
                // Or by all members, who suffice but for the first attempt.
                let isLostOrSame = view.members.allSatisfy { other in
                    !comesBack(other.instance) || same.contains { $0.elector == other.instance }
                }
                return accept.what.attempt.counter > 0 && isLostOrSame
            }
        }
    }
}
