import Replication
import Wire

/// A few replicas and witnesses whose messages wait in queues until a trace delivers them. Replica
/// n has instance n, witness `a1` instance 0xa1.
struct World {
    private struct Channel: Equatable {
        var from: Instance
        var to: Instance
    }

    private var replicas: [Replica] = []
    private var witnesses: [Witness] = []
    private var queue: [(channel: Channel, message: Message)] = []
    /// Which witness is connected to which replica.
    private var connections: [(witness: Instance, replica: Instance)] = []
    private var isDown: [Instance] = []
    /// Of the replicas that have one, in the order in which they were added.
    private var disks: [(instance: Instance, records: [Record])] = []
    private var links: [Channel] = []
    /// What was executed, by op: the same everywhere.
    private var history: [OpNumber: Entry] = [:]
    private var joins: UInt64 = 0
    /// Of the replicas that are added from now on.
    private var election = Election.sticky
    private var membersMax = 3
    private(set) var output: [String] = []

    /// Carries out one line of a trace and gives what happened.
    mutating func run(_ line: String) -> [String] {
        output = []
        let words = line.split(separator: " ").map(String.init)
        let numbers = words.dropFirst().map { UInt64($0, radix: 16) ?? 0 }
        switch words[0] {
        case "members": membersMax = Int(numbers[0])
        case "election": election = Election(rawValue: words[1]) ?? .sticky
        case "replica":
            let host = words.count > 2 ? numbers[1] : 1
            add(numbers[0], host: host)
        case "witness":
            witnesses.append(Witness(instance: Instance(numbers[0]), hearingTicksMax: 50))
        case "link":
            let ends = (Instance(numbers[0]), Instance(numbers[1]))
            links += [Channel(from: ends.0, to: ends.1), Channel(from: ends.1, to: ends.0)]
            both(numbers) { .linkUp($0) }
        case "cut":
            links.removeAll {
                numbers.contains($0.from.rawValue) && numbers.contains($0.to.rawValue)
            }
            both(numbers) { .linkDown($0) }
            let pair = numbers.map { Instance($0) }
            queue.removeAll { pair.contains($0.channel.from) && pair.contains($0.channel.to) }
        case "connect": connect(Instance(numbers[0]), numbers.dropFirst().map { Instance($0) })
        case "disconnect": disconnect(Instance(numbers[0]))
        case "create":
            // With a second number: from the services' state as it was after that op.
            let after = numbers.count > 1 ? numbers[1] : 0
            step(
                numbers[0],
                .create(
                    after: LogEnd(view: ViewNumber(0), op: OpNumber(after)), hash: .beginning))
        case "join":
            joins += 1
            step(numbers[0], .join(primary: Instance(numbers[1]), JoinID(joins)))
        case "propose": propose(numbers[0], count: Int(numbers[1]))
        case "read": step(numbers[0], .confirmReads)
        case "handover": step(numbers[0], .handOver)
        case "force":
            // By the operator's word what others have executed since is no part of the history.
            history = [:]
            step(numbers[0], .promoteByForce)
        case "kill":
            isDown.append(Instance(numbers[0]))
            queue.removeAll { $0.channel.to == Instance(numbers[0]) }
        case "disk": disks.append((Instance(numbers[0]), []))
        case "lose":
            // The newest records of a replica's disk: they were not synced when it was killed.
            if let index = disks.firstIndex(where: { $0.instance == Instance(numbers[0]) }) {
                disks[index].records.removeLast(Int(numbers[1]))
            }
        case "older":
            // Its disk is an older copy of itself: what it goes on with is another history.
            history = [:]
            if let index = disks.firstIndex(where: { $0.instance == Instance(numbers[0]) }) {
                disks[index].records.removeLast(Int(numbers[1]))
            }
        case "restart": restart(numbers[0])
        case "exited":
            let ended = replicas.first { $0.me.instance == Instance(numbers[1]) }
            step(numbers[0], .exited(Instance(numbers[1]), ended.map { Life($0.me) }))
        case "heard": step(numbers[0], .heard(Instance(numbers[1])))
        case "tick":
            for _ in 0..<(Int(words[2]) ?? 0) { tick(words[1]) }
        case "deliver": deliver(words)
        case "late":
            // What a newer connection brought overtakes what is left of an older one.
            let channel = channel(words[1])
            if let index = queue.lastIndex(where: { $0.channel == channel }) {
                queue.insert(queue.remove(at: index), at: 0)
            }
            deliver(words)
        case "drop":
            let channel = channel(words[1])
            queue.removeAll { $0.channel == channel }
        case "settle": settle()
        case "far": far(Int(words[1]) ?? 0, ticks: Int(words[2]) ?? 0)
        case "queue":
            for (channel, message) in queue {
                output.append("\(channel.from)->\(channel.to) \(text(message))")
            }
        case "status": for replica in replicas { output.append(status(replica)) }
        default: output.append("unknown command '\(words[0])'")
        }
        return output
    }

    private static let timing = Timing(suspectTicks: 50, beatTicks: 10)

    private mutating func add(_ number: UInt64, host: UInt64) {
        let me = Member(
            id: ReplicaID(id: number), instance: Instance(number),
            address: Address(host: "h", port: UInt16(number)), host: host, pid: number)
        replicas.append(
            Replica(
                me: me, timing: Self.timing, membersMax: membersMax, election: election,
                seed: number))
    }

    /// A new process on the disk of one that was killed: the same instance, under another number.
    private mutating func restart(_ number: UInt64) {
        let instance = Instance(number)
        guard let disk = disks.first(where: { $0.instance == instance }),
            let index = replicas.firstIndex(where: { $0.me.instance == instance })
        else {
            output.append("\(number) has no disk")
            return
        }
        var recovered = Recovered()
        do throws(DecodeError) {
            for record in disk.records { try recovered.replay(record) }
        } catch {
            output.append("\(number) \(error.text)")
            return
        }
        var me = replicas[index].me
        me.pid += 0x100
        replicas[index] = Replica(
            me: me, timing: Self.timing, membersMax: membersMax, election: election,
            seed: number + 1,
            recovered: recovered)
        isDown.removeAll { $0 == instance }
        step(number, .resume)
    }

    private mutating func both(_ pair: [UInt64], _ event: (Instance) -> Replica.Event) {
        step(pair[0], event(Instance(pair[1])))
        step(pair[1], event(Instance(pair[0])))
    }

    private mutating func connect(_ witness: Instance, _ to: [Instance]) {
        for replica in to {
            connections.append((witness, replica))
            reportWitnesses(replica)
            stepWitness(witness, .connected(replica))
            if let view = replicas.first(where: { $0.me.instance == replica })?.view {
                stepWitness(witness, .message(.view(view), from: replica))
            }
        }
    }

    private mutating func disconnect(_ witness: Instance) {
        let gone = connections.filter { $0.witness == witness }
        connections.removeAll { $0.witness == witness }
        for connection in gone {
            stepWitness(witness, .disconnected(connection.replica))
            reportWitnesses(connection.replica)
        }
        queue.removeAll { $0.channel.from == witness || $0.channel.to == witness }
    }

    private mutating func reportWitnesses(_ replica: Instance) {
        let here = connections.filter { $0.replica == replica }.map(\.witness).sorted()
        step(replica.rawValue, .witnesses(here))
    }

    private mutating func propose(_ number: UInt64, count: Int) {
        guard let replica = replicas.first(where: { $0.me.instance.rawValue == number }) else {
            return
        }
        guard replica.acceptsRequests else {
            output.append("\(number) takes no requests")
            return
        }
        var batch = Batch()
        for index in 0..<count { batch.append(Request(command: [UInt8(index)])) }
        step(number, .propose(batch, time: 0))
    }

    private mutating func tick(_ who: String) {
        for replica in replicas where who == "all" || who == replica.me.instance.description {
            step(replica.me.instance.rawValue, .tick)
        }
        for witness in witnesses where who == "all" || who == witness.instance.description {
            stepWitness(witness.instance, .tick)
        }
    }

    // MARK: Messages

    private func channel(_ text: String) -> Channel {
        let ends = text.split(separator: "-").map { $0.drop { $0 == ">" } }
        let instances = ends.compactMap { Instance(text: String($0)) }
        precondition(instances.count == 2, "channel '\(text)'")
        return Channel(from: instances[0], to: instances[1])
    }

    private mutating func deliver(_ words: [String]) {
        let channel = channel(words[1])
        guard let index = queue.firstIndex(where: { $0.channel == channel }) else {
            output.append("nothing waits")
            return
        }
        let message = queue.remove(at: index).message
        receive(message, channel)
    }

    private mutating func receive(_ message: Message, _ channel: Channel) {
        guard !isDown.contains(channel.to) else { return }
        if witnesses.contains(where: { $0.instance == channel.to }) {
            stepWitness(channel.to, .message(message, from: channel.from))
        } else {
            step(channel.to.rawValue, .message(message, from: channel.from))
        }
    }

    /// Delivers until nothing waits.
    private mutating func settle() {
        var count = 0
        while !queue.isEmpty {
            let next = queue.removeFirst()
            receive(next.message, next.channel)
            count += 1
            precondition(count < 10_000, "messages without end")
        }
        omitDetails()
    }

    /// So many ticks, each message being so many on its way.
    private mutating func far(_ distance: Int, ticks: Int) {
        var ages = [Int](repeating: 0, count: queue.count)
        for _ in 0..<ticks {
            tick("all")
            ages += [Int](repeating: 0, count: queue.count - ages.count)
            for index in ages.indices { ages[index] += 1 }
            while let index = ages.firstIndex(where: { $0 > distance }) {
                ages.remove(at: index)
                let next = queue.remove(at: index)
                receive(next.message, next.channel)
                ages += [Int](repeating: 0, count: queue.count - ages.count)
            }
        }
        omitDetails()
    }

    /// Only what was executed and entered is told.
    private mutating func omitDetails() {
        output.removeAll { line in
            [" send ", " append ", " write "].contains { line.contains($0) }
        }
    }

    private mutating func step(_ number: UInt64, _ event: Replica.Event) {
        guard !isDown.contains(Instance(number)),
            let index = replicas.firstIndex(where: { $0.me.instance.rawValue == number })
        else { return }
        var outbox = Outbox()
        replicas[index].step(event, into: &outbox)
        replicas[index].checkInvariants()
        if let disk = disks.firstIndex(where: { $0.instance == Instance(number) }) {
            disks[disk].records += outbox.records
        }
        for record in outbox.records { output.append("\(number) \(text(record))") }
        for envelope in outbox.send + outbox.sendAfterSync {
            let channel = Channel(from: Instance(number), to: envelope.to)
            let isConnected =
                links.contains(channel)
                || connections.contains { $0.witness == channel.to && $0.replica == channel.from }
            guard isConnected else { continue }
            output.append("\(number) send \(envelope.to) \(text(envelope.message))")
            queue.append((channel, envelope.message))
        }
        for entry in outbox.execute {
            output.append("\(number) execute \(range(entry))")
            if let known = history[entry.first], known != entry {
                output.append("TWO HISTORIES at \(entry.first)")
            }
            history[entry.first] = entry
        }
        for effect in outbox.effects { carryOut(number, effect) }
    }

    private mutating func carryOut(_ number: UInt64, _ effect: Effect) {
        guard let replica = replicas.first(where: { $0.me.instance.rawValue == number }) else {
            return
        }
        switch effect {
        case .entered(let view): output.append("\(number) entered \(text(view))")
        case .removed(let view): output.append("\(number) removed by \(text(view))")
        case .sendState(let to, let join, _):
            guard let view = replica.view else { return }
            let state = Message.state(
                join, view: view, end: LogEnd(view: replica.commitView, op: replica.commitMin),
                hash: replica.commitHash, piece: 0,
                pieces: 1, bytes: [])
            queue.append((Channel(from: Instance(number), to: to), state))
            output.append("\(number) send \(to) state through \(replica.commitMin)")
            step(number, .stateSent(to: to, join: join, op: replica.commitMin))
        case .stateKept(let op): output.append("\(number) keeps its state through \(op)")
        case .restore(let op, _): output.append("\(number) restore through \(op)")
        case .truncated(let op): output.append("\(number) truncated after \(op)")
        case .joinFailed(let reason, _): output.append("\(number) join failed: \(reason)")
        case .leaderFailed(let leader): output.append("\(number) leader \(leader.id) failed")
        case .electionBegan(let initiator):
            output.append("\(number) runs an election by \(initiator?.id ?? 0)")
        case .stalled(let reason): output.append("\(number) stalled: \(reason)")
        case .stop: output.append("\(number) stop")
        }
    }

    private mutating func stepWitness(_ instance: Instance, _ event: Witness.Event) {
        guard let index = witnesses.firstIndex(where: { $0.instance == instance }) else { return }
        var outbox = Outbox()
        witnesses[index].step(event, into: &outbox)
        for envelope in outbox.send + outbox.sendAfterSync {
            let isConnected = connections.contains {
                $0.witness == instance && $0.replica == envelope.to
            }
            guard isConnected else { continue }
            output.append("\(instance) send \(envelope.to) \(text(envelope.message))")
            queue.append((Channel(from: instance, to: envelope.to), envelope.message))
        }
    }

    // MARK: Text

    private func range(_ entry: Entry) -> String {
        entry.first == entry.last ? "\(entry.first)" : "\(entry.first)-\(entry.last)"
    }

    private func text(_ view: View) -> String {
        let backups = view.backups.map { "\($0.instance)" }.joined(separator: ",")
        let electors = view.electorate.map(\.description).joined(separator: ",")
        return "view \(view.number) of \(view.primary.instance) [\(backups)] by {\(electors)}"
    }

    private func text(_ record: Record) -> String {
        switch record {
        case .entry(let entry): "append \(range(entry)) of view \(entry.view)"
        case .truncated(let op): "write truncated \(op)"
        case .restored(let end, _): "write restored \(end.op)"
        case .view(let view): "write \(text(view))"
        case .promised(let number, let attempt): "write promised \(number) \(attempt)"
        case .accepted(let accepted):
            "write accepted \(accepted.view.number) \(accepted.attempt)"
        case .proposed(let number): "write proposed \(number)"
        }
    }

    private func text(_ message: Message) -> String {
        switch message {
        case .prepare(let view, let entry, let commitMax):
            "prepare view \(view) ops \(range(entry)) of view \(entry.view) commit \(commitMax)"
        case .propose(let attempt, let view): "propose \(attempt) \(text(view))"
        case .view(let view): text(view)
        case .grant(let number, let attempt, _, _, let accepted):
            "grant \(number) \(attempt)" + (accepted.map { " accepted \($0.attempt)" } ?? "")
        case .join(let join, _, let end, _):
            "join \(join)" + (end.op.rawValue > 0 ? " has \(end.op) of view \(end.view)" : "")
        case .commit(let view, let commitMax, _): "commit \(view) \(commitMax)"
        case .attach(let view, let op, _): "attach \(view) \(op)"
        case .state: "state"
        case .confirm, .prepareOK, .confirmOK, .witnesses, .fork, .seek, .outbid,
            .accepted, .learnOK, .joinRefused, .election, .electionOK, .leave, .stop, .beat, .relay:
            message.fields.map { String(decoding: $0, as: UTF8.self) }.joined(separator: " ")
        }
    }

    private func status(_ replica: Replica) -> String {
        let role = replica.isPrimary ? "primary" : replica.isMember ? "backup" : "-"
        let down = isDown.contains(replica.me.instance) ? " down" : ""
        return
            "\(replica.me.instance) \(replica.status) \(role) view \(replica.view?.number.rawValue ?? 0)"
            + " op \(replica.op) commit \(replica.commitMin) probe \(replica.confirmedProbe)\(down)"
    }
}
