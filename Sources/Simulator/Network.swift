import Replication
import Wire

/// What lies between the sites: the replicas' slots, then the clients by name.
struct Network {
    private let sites: Int
    /// How many faults hold packets back, by sender and receiver.
    private var holds: [Int]
    /// How many faults refuse connections, by pair.
    private var bars: [Int]

    init(sites: Int) {
        self.sites = sites
        holds = [Int](repeating: 0, count: sites * sites)
        bars = holds
    }

    func isHeld(_ from: Int, _ to: Int) -> Bool { holds[from * sites + to] > 0 }
    func isBarred(_ a: Int, _ b: Int) -> Bool { bars[a * sites + b] > 0 }

    mutating func hold(_ from: Int, _ to: Int, _ count: Int) { holds[from * sites + to] += count }

    mutating func bar(_ a: Int, _ b: Int, _ count: Int) {
        bars[a * sites + b] += count
        bars[b * sites + a] += count
    }
}

/// How a process ends: alone, or with its kernel, and what that has not made durable.
enum Ending {
    case kill
    case power
}

extension Simulation {
    static func site(ofClient name: Int) -> Int { slots + name }

    func delay() -> Int {
        if mix.spikes > 0, !isHealed, random.chance(mix.spikes) {
            coverage.note(.delaySpike)
            return random.int(mix.delayMin...mix.delayMax + mix.spike)
        }
        return random.int(mix.delayMin...mix.delayMax)
    }

    private func distance(_ from: Int, _ to: Int) -> Int {
        let name = max(from, to) - Self.slots
        return name >= 0 && name < mix.voters ? mix.distance : 0
    }

    /// A SYN that meets no answer ends so; one that is refused comes back at once.
    func dial(_ process: Process, from site: Int, to slot: Int) {
        let isHeld = network.isHeld(site, slot) || network.isHeld(slot, site)
        if isHeld || lostMachines[slot] {
            queue.push(
                .dialFailed(process, slot: slot, refused: false),
                at: now + random.int(50_000...100_000))
            return
        }
        guard let number = listening[slot], replicas[number].isUp else {
            queue.push(.dialFailed(process, slot: slot, refused: true), at: now + delay())
            return
        }
        if network.isBarred(site, slot) {
            queue.push(.dialFailed(process, slot: slot, refused: false), at: now + delay())
            return
        }
        let id = connections.count
        connections.append(Connection(ends: [process, .replica(number)], sites: [site, slot]))
        held += [[], []]
        switch process {
        case .replica(let dialer):
            let index = replicas[dialer].dialed.firstIndex {
                $0.slot == slot && $0.connection == nil
            }
            if let index { replicas[dialer].dialed[index].connection = id }
            send(id, from: 0, .hello(hello(of: replicas[dialer])))
        case .client(let dialer):
            clients[dialer].dialing.removeAll { $0 == slot }
            clients[dialer].links.append(ClientProcess.Link(connection: id, slot: slot))
            // HELLO, whose answer is the welcome.
            connections[id].lastArrival[1] = now + delay() + distance(site, slot)
            queue.push(
                .arrive(.offer(Instance(0)), connection: id, side: 1),
                at: connections[id].lastArrival[1])
        }
    }

    func send(_ id: Int, from side: Side, _ packet: Packet) {
        guard connections[id].isOpen[side] else { return }
        transmit(id, to: 1 - side, packet)
    }

    private func transmit(_ id: Int, to side: Side, _ packet: Packet?) {
        guard !connections[id].isOrphan else { return }
        let (from, to) = (connections[id].sites[1 - side], connections[id].sites[side])
        if network.isHeld(from, to) {
            held[2 * id + side].append(packet)
            return
        }
        deliver(id, to: side, packet)
    }

    private func deliver(_ id: Int, to side: Side, _ packet: Packet?) {
        let (from, to) = (connections[id].sites[1 - side], connections[id].sites[side])
        let due = now + delay() + distance(from, to)
        let arrival = max(due, connections[id].lastArrival[side] + 1)
        connections[id].lastArrival[side] = arrival
        if let packet {
            queue.push(.arrive(packet, connection: id, side: side), at: arrival)
        } else {
            queue.push(.closed(connection: id, side: side), at: arrival)
        }
    }

    /// What was held back gets through.
    func flushHeld() {
        for id in connections.indices {
            for side in 0...1 where !held[2 * id + side].isEmpty {
                let (from, to) = (connections[id].sites[1 - side], connections[id].sites[side])
                guard !network.isHeld(from, to) else { continue }
                let packets = held[2 * id + side]
                held[2 * id + side] = []
                for packet in packets { deliver(id, to: side, packet) }
            }
        }
    }

    /// One end closes. The other learns of it behind what was sent, or, if the connection is
    /// reset, at once and without that.
    func close(_ id: Int, by side: Side) {
        guard connections[id].isOpen[side] else { return }
        connections[id].isOpen[side] = false
        guard connections[id].isOpen[1 - side], !connections[id].isOrphan else { return }
        if random.chance(mix.losses) {
            let (from, to) = (connections[id].sites[side], connections[id].sites[1 - side])
            guard !network.isHeld(from, to) else {
                held[2 * id + 1 - side] = [nil]
                return
            }
            queue.push(.closed(connection: id, side: 1 - side), at: now + mix.delayMin)
        } else {
            transmit(id, to: 1 - side, nil)
        }
    }

    /// Something in the middle resets the connection.
    func reset(_ id: Int) {
        for side in 0...1 where connections[id].isOpen[side] {
            held[2 * id + side] = []
            queue.push(.closed(connection: id, side: side), at: now + random.int(0...5_000))
        }
    }

    /// The process ends; its kernel closes its connections, unless the machine is gone as well.
    func end(_ process: ReplicaProcess, _ ending: Ending, withMachine: Bool = false) {
        process.isUp = false
        if let drive = process.disk { crash(process, drive, ending) }
        process.backlog = []
        if listening[process.slot] == process.number { listening[process.slot] = nil }
        if withMachine { lostMachines[process.slot] = true }
        let end = Process.replica(process.number)
        for id in connections.indices {
            for side in 0...1 where connections[id].ends[side] == end {
                if withMachine {
                    connections[id].isOpen[side] = false
                    connections[id].isOrphan = true
                    // A client's PING is not answered, some time.
                    if case .client = connections[id].ends[1 - side] {
                        queue.push(
                            .closed(connection: id, side: 1 - side),
                            at: now + random.int(200_000...600_000))
                    }
                } else {
                    close(id, by: side)
                }
            }
        }
        guard !withMachine else { return }
        for other in replicas
        where other.isUp && other.host == process.host && other.watches(process) {
            queue.push(
                .exited(of: process.number, to: other.number), at: now + random.int(50...3_000))
        }
    }

    func end(_ client: ClientProcess) {
        client.isUp = false
        client.backlog = []
        for link in client.links { close(link.connection, by: 0) }
    }
}
