package import Replication
import Services
import Wire

/// One run: a whole service with its clients, network and clocks in one thread, from one seed.
///
/// First faults strike; then everything is mended and the service must become whole and finish
/// what was begun. Every moment is watched by `History`.
package final class Simulation {
    package struct Options: Sendable {
        package var seed: UInt64
        /// Nil: the seed says.
        package var shape: Shape?
        /// Nil: the seed says.
        package var election: Election?
        /// Some replicas have disks, whatever the seed says.
        package var disks = false
        package var breakage: Breakage?
        /// Gets the run's story, a line each.
        package var tell: (@Sendable (String) -> Void)?
        /// Tells every message, too.
        package var isVerbose = false

        package init(
            seed: UInt64, shape: Shape? = nil, election: Election? = nil, breakage: Breakage? = nil
        ) {
            self.seed = seed
            self.shape = shape
            self.election = election
            self.breakage = breakage
        }
    }

    package struct Outcome: Sendable {
        package var violation: Violation?
        package var coverage: Coverage
        /// Equal for equal runs.
        package var digest: UInt64
        package var events: Int
        package var ops: UInt64
        /// Simulated microseconds.
        package var time: Int
    }

    let options: Options
    var random: Random
    let mix: Mix
    let timing: Timing
    var now = 0
    var queue = EventQueue()
    var events = 0
    var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    var coverage = Coverage()
    var history = History()
    var violation: Violation?

    var replicas: [ReplicaProcess] = []
    var clients: [ClientProcess] = []
    var disks: [Drive] = []
    /// Instances made on disks that were used before.
    var renewals: UInt64 = 0
    /// The most entries that any disk had at a start.
    private(set) var recoveredMost = 0
    var connections: [Connection] = []
    /// What cannot get through to side `s` of connection `c` for the moment, at 2c + s, in order;
    /// `nil`: the other end is closed.
    var held: [[Packet?]] = []
    /// Which replica's process listens at each slot.
    var listening = [Int?](repeating: nil, count: Simulation.slots)
    var lostMachines = [Bool](repeating: false, count: Simulation.slots)
    /// The present process of each voter, and of the operator.
    var voters: [Int] = []
    var network: Network
    var mends: [Mend] = []
    var nextFault = 0
    var isHealed = false
    var healedAt = 0
    var finale = Finale.none
    /// Requests from this one on belong to the end of the finale.
    var finaleAsks = 0
    var lastFaultAt = -1
    /// So many ambushes are left.
    var ambushes = 3
    /// When a missing replica or client is started, at the earliest.
    var nextStart = 0
    var nextClientStart: [Int]

    // Kept for reuse.
    var outbox = Outbox()
    var pathEffects: [Paths.Effect] = []
    var replies: [Reply] = []

    static let slots = 8
    static let operatorName = 7
    static let guestNames = 5...6
    static let eventsMax = 400_000
    /// No client has more than a few requests under way at a time; where nothing goes on they are asked
    /// again and again.
    var pendingMax: Int { 400 + now / 5_000 }
    static let gatedMax = 5 * guestNames.count
    /// What waits for a disk to sync.
    static let outputsMax = 2_000
    /// After the healing, and after each change of the finale, everything must be well within this time.
    static let recoveryMax = 12_000_000

    package init(_ options: Options) {
        self.options = options
        random = Random(seed: options.seed &* 0x2545_f491_4f6c_dd1d &+ 1)
        mix = Mix(
            &random, shape: options.shape, election: options.election, disks: options.disks)
        var timing = Timing(suspectTicks: mix.suspectTicks, beatTicks: mix.beatTicks)
        timing.drainTicksMax = 20
        timing.retryTicks = 6
        timing.absenceTicksMax = 6
        timing.steadyTicks = 3
        self.timing = timing
        network = Network(sites: Simulation.slots + Simulation.operatorName + 1)
        ambushes = mix.ambushes
        nextClientStart = [Int](repeating: 0, count: mix.voters)
        if mix.distance > 0, mix.voters > 0 { coverage.note(.votersFarAway) }
    }

    package func run() -> Outcome {
        begin()
        while violation == nil, let event = queue.pop() {
            now = queue.time
            events += 1
            guard events < Self.eventsMax else {
                fail(Violation(.liveness, rule: "progress", "\(events) events and no end"))
                break
            }
            carryOut(event)
            if isHealed, isDone { break }
        }
        if violation == nil { finish() }
        // A store waits for its checkpoint before it goes.
        for drive in disks { drive.beside.run() }
        return Outcome(
            violation: violation, coverage: coverage, digest: digest, events: events,
            ops: history.lastOp.rawValue, time: now)
    }

    private func begin() {
        tell { "\(mix)" }
        let first = start(at: 0, target: 1)
        first.begins = true
        for slot in 1..<mix.shape.replicas { _ = start(at: slot, target: 0) }
        for name in 0..<mix.voters {
            voters.append(0)
            let moment = random.int(0...mix.arrivalMax)
            voters[name] = startClient(name, log: [], at: moment).number
        }
        voters.append(startClient(Self.operatorName, log: [], at: 0).number)
        for name in Self.guestNames.prefix(mix.guests) {
            startClient(name, log: [], at: random.int(0...mix.arrivalMax))
        }
        for moment in mix.faults { queue.push(.fault(nil, of: nil), at: moment) }
        queue.push(.keep, at: 20_000)
        queue.push(.heal, at: mix.faultsUntil + 30_000)
    }

    // MARK: Processes

    /// Without `drive`: a new replica, which gets a disk if its slot has one.
    @discardableResult
    func start(
        at slot: Int, target: Int, on drive: Drive? = nil, _ journal: OpenStore? = nil,
        _ recovered: Recovered? = nil
    ) -> ReplicaProcess {
        let host = mix.isOneHost ? 1 : slot + 1
        // Clocks drift by up to a tenth.
        let process = ReplicaProcess(
            number: replicas.count, id: drive?.id ?? id(at: slot),
            instance: drive?.instance ?? Instance(UInt64(replicas.count + 1)), slot: slot,
            host: host, target: target,
            membersMax: mix.shape.replicas, timing: timing, election: election,
            tickTime: random.int(9_000...11_000), leaseLength: mix.leaseLength,
            seed: random.next(),
            keptMax: options.breakage == .keptForever ? KeptMax() : mix.keptMax,
            recovered: recovered,
            life: drive?.starts ?? 0)
        recoveredMost = max(recoveredMost, recovered?.log.count ?? 0)
        (process.disk, process.journal) = (drive, journal)
        if drive == nil, mix.hasDisk[slot] { addDisk(to: process) }
        process.replica.breakage = options.breakage
        replicas.append(process)
        listening[slot] = process.number
        tick(process, at: now + random.int(0...process.tickTime))
        tell { "replica \(process.number) starts at slot \(slot)" }
        return process
    }

    /// A blank one.
    private func addDisk(to process: ReplicaProcess) {
        disks.removeAll { $0.slot == process.slot }
        let fresh = Drive(
            instance: process.me.instance, id: process.me.id.id, slot: process.slot,
            seed: random.next(), segmentBytes: mix.segmentBytes, durability: mix.durability,
            breakage: options.breakage)
        do {
            process.journal = try fresh.open()
        } catch {
            preconditionFailure("a blank disk: \(error)")
        }
        process.disk = fresh
        disks.append(fresh)
    }

    var election: Election { mix.election }

    private func id(at slot: Int) -> UInt64 {
        switch election {
        case .sticky: UInt64(replicas.count + 1)
        case .bully: mix.ids[slot]
        }
    }

    @discardableResult
    func startClient(_ name: Int, log: [Packet.Result], at moment: Int) -> ClientProcess {
        let client = ClientProcess(
            number: clients.count, name: name, tickTime: random.int(9_000...11_000), log: log,
            hearingTicksMax: timing.suspectTicks)
        client.witness.breakage = options.breakage
        clients.append(client)
        tick(client, at: max(now, moment) + random.int(0...10_000))
        tell { "client \(client.number) starts as \(name)" }
        return client
    }

    // MARK: Events

    private func carryOut(_ event: Event) {
        switch event {
        case .tick(let number):
            let process = replicas[number]
            guard process.isUp, !process.isPaused, now == process.tickDue else { return }
            mark(1, number)
            tick(process, at: now + process.tickTime)
            tick(process)
        case .clientTick(let number):
            let client = clients[number]
            guard client.isUp, !client.isPaused, now == client.tickDue else { return }
            tick(client, at: now + client.tickTime)
            if isGuest(client) { tickGuest(client) } else { tick(client) }
        case .turn(let number):
            let process = replicas[number]
            guard process.isUp, !keepBack(event, process) else { return }
            process.isTurnDue = false
            propose(process)
            release(process)
        case .arrive(let packet, let connection, let side):
            arrive(event, packet, connection, side)
        case .closed(let connection, let side):
            guard connections[connection].isOpen[side] else { return }
            switch connections[connection].ends[side] {
            case .replica(let number):
                guard replicas[number].isUp, !keepBack(event, replicas[number]) else { return }
                connections[connection].isOpen[side] = false
                onClosed(replicas[number], connection)
            case .client(let number):
                guard clients[number].isUp, !keepBack(event, clients[number]) else { return }
                connections[connection].isOpen[side] = false
                onClosed(clients[number], connection)
            }
        case .dialFailed(let process, let slot, let refused):
            switch process {
            case .replica(let number):
                guard replicas[number].isUp, !keepBack(event, replicas[number]) else { return }
                onDialFailed(replicas[number], slot, refused: refused)
            case .client(let number):
                guard clients[number].isUp, !keepBack(event, clients[number]) else { return }
                clients[number].dialing.removeAll { $0 == slot }
            }
        case .exited(let dead, let number):
            let process = replicas[number]
            guard process.isUp, !keepBack(event, process) else { return }
            process.gone.append(dead)
            let instance = replicas[dead].me.instance
            // A newer process of the same instance may be connected already.
            let life = Life(replicas[dead].me)
            if process.met.contains(where: { $0.instance == instance && $0.number > dead }) {
                step(process, Replica.Event.exited(instance, life))
            } else {
                step(process, Paths.Event.exited(instance, life))
            }
        case .synced(let number, let count):
            guard replicas[number].isUp, !keepBack(event, replicas[number]) else { return }
            onSynced(replicas[number], count)
        case .checkpointWritten(let number):
            guard replicas[number].isUp, !keepBack(event, replicas[number]) else { return }
            onCheckpointWritten(replicas[number])
        case .voteDecided(let number, let vote):
            guard clients[number].isUp, !keepBack(event, clients[number]) else { return }
            decide(clients[number], vote)
        case .fault(let fault, let target): strike(fault, target)
        case .restart(let slot):
            for drive in disks
            where drive.slot == slot && drive.restartAt.map({ $0 <= now }) ?? false {
                restart(drive)
            }
        case .mend(let index): mend(index)
        case .resume(let process): resume(process)
        case .keep: keep()
        case .heal: heal()
        }
    }

    private func arrive(_ event: Event, _ packet: Packet, _ connection: Int, _ side: Side) {
        guard connections[connection].isOpen[side] else { return }
        switch connections[connection].ends[side] {
        case .replica(let number):
            let process = replicas[number]
            guard process.isUp, !keepBack(event, process) else { return }
            mark(2, number)
            tellPacket(packet, connection, side)
            receive(process, packet, connection, side)
        case .client(let number):
            let client = clients[number]
            guard client.isUp, !keepBack(event, client) else { return }
            mark(3, number)
            tellPacket(packet, connection, side)
            receive(client, packet, connection)
        }
    }

    /// A process that is stopped gets everything when it goes on.
    private func keepBack(_ event: Event, _ process: ReplicaProcess) -> Bool {
        if process.isPaused { process.backlog.append(event) }
        return process.isPaused
    }

    private func keepBack(_ event: Event, _ client: ClientProcess) -> Bool {
        if client.isPaused { client.backlog.append(event) }
        return client.isPaused
    }

    private func tick(_ process: ReplicaProcess, at time: Int) {
        process.tickDue = time
        queue.push(.tick(process.number), at: time)
    }

    private func tick(_ client: ClientProcess, at time: Int) {
        client.tickDue = time
        queue.push(.clientTick(client.number), at: time)
    }

    private func resume(_ process: Process) {
        var backlog: [Event] = []
        switch process {
        case .replica(let number):
            guard replicas[number].isUp, replicas[number].isPaused else { return }
            replicas[number].isPaused = false
            swap(&backlog, &replicas[number].backlog)
            tick(replicas[number], at: now)
        case .client(let number):
            guard clients[number].isUp, clients[number].isPaused else { return }
            clients[number].isPaused = false
            swap(&backlog, &clients[number].backlog)
            tick(clients[number], at: now)
        }
        tell { "\(process) goes on" }
        for event in backlog { queue.push(event, at: now) }
    }

    // MARK: What is told and checked

    func fail(_ violation: Violation) {
        if self.violation == nil { self.violation = violation }
    }

    func check(_ body: () throws(Violation) -> Void) {
        do { try body() } catch { fail(error) }
    }

    func tell(_ text: () -> String) {
        guard let tell = options.tell else { return }
        tell("\(now / 1_000).\(now % 1_000 / 100) ms  \(text())")
    }

    private func tellPacket(_ packet: Packet, _ connection: Int, _ side: Side) {
        guard options.isVerbose, options.tell != nil else { return }
        let (from, to) = (
            connections[connection].ends[1 - side], connections[connection].ends[side]
        )
        tell { "\(from) -> \(to): \(packet)" }
    }

    /// For the digest: something happens now at this process.
    private func mark(_ kind: Int, _ number: Int) {
        digest = Random.mix(digest ^ UInt64(now << 8 | kind << 6 | number & 63))
    }

    private func finish() {
        for name in 0..<mix.voters {
            let client = clients[voters[name]]
            check { () throws(Violation) in
                try history.check(log: client.log, of: "voter \(name)")
            }
        }
        check { () throws(Violation) in
            try history.check()
        }
        var digests: [UInt64] = []
        for process in replicas
        where process.isUp && process.face.isMember && process.executor.op == history.lastOp {
            digests.append(process.executor.digest)
            check { () throws(Violation) in
                try history.check(process.executor.service, of: process.me.instance)
            }
        }
        if let first = digests.first, digests.contains(where: { $0 != first }) {
            fail(Violation(.safety, rule: "one history", "equal ops, different states"))
        }
        digest = Random.mix(digest ^ (digests.first ?? 0) ^ history.lastOp.rawValue)
        for item in history.entries {
            digest = Random.mix(digest ^ item.first.rawValue ^ item.hash.rawValue)
        }
        for asked in history.asked {
            digest = Random.mix(digest ^ UInt64(bitPattern: Int64(asked.answered ?? -1)))
        }
    }

    /// How a voter votes.
    static func choice(_ name: Int, _ vote: UInt64) -> Choice {
        Random.mix(UInt64(name) << 32 | vote) & 1 == 0 ? .yes : .no
    }
}
