import Replication
import Storage

/// The shape of a simulated service.
package enum Shape: String, CaseIterable, Sendable {
    case pair
    case group3
    case group5

    var replicas: Int {
        switch self {
        case .pair: 2
        case .group3: 3
        case .group5: 5
        }
    }
}

/// What one run is made of: each seed draws its own mixture, with most kinds of trouble absent
/// and a few frequent. Runs with all of them at one rate all look the same (Groce and others,
/// Swarm Testing, 2012). Times in microseconds.
struct Mix {
    var shape: Shape
    /// Voters, who are witnesses too. An operator's client, which is neither, is always there.
    var voters: Int
    /// Whether all replicas are on one host, where one process can prove another's end.
    var isOneHost: Bool
    /// Clients that reserve rooms and cache what they have read.
    var guests: Int
    /// How long a cache's lease is.
    var leaseLength: UInt64
    /// How long a guest waits for an answer before it tries another replica.
    var guestPatience: Int
    var guestPauseMax: Int
    var suspectTicks: Int
    var beatTicks: Int
    var faultsUntil: Int
    /// The moments of faults, ascending.
    var faults: [Int]
    var weights: [(fault: Fault, weight: Int)]
    var delayMin: Int
    var delayMax: Int
    /// Strikes when a message of this kind is sent, so many times in a thousand.
    var ambushes = 3
    var ambush: (message: Ambush, fault: Fault, chance: Int)?
    /// In a thousand messages, so many are late by up to `spike`.
    var spikes: Int
    var spike: Int
    /// In a thousand.
    var startFailures: Int
    /// A lost connection loses what is on its way, in a thousand cases.
    var losses: Int
    /// A turn of a replica's loop lasts up to this.
    var turnMax: Int
    /// A voter takes up to this to decide.
    var decisionMax: Int
    /// Between an operator's or voter's requests.
    var pauseMax: Int
    var restartMax: Int
    /// Voters start within this time.
    var arrivalMax: Int
    var election: Election
    /// What a replica that starts at a slot has as its id; two of a group may have the same.
    var ids: [UInt64]
    /// Which slots have a disk.
    var hasDisk: [Bool]
    /// A sync takes up to this.
    var syncMax: Int
    /// In a thousand crashes in the middle of a write, so many have begun it.
    var torn: Int
    var segmentBytes: Int
    var durability = Store.Durability.always
    /// In a thousand ticks.
    var checkpoints: Int
    var keptMax: KeptMax
    /// From any voter to any replica, besides the delay: electors may be on another continent.
    var distance = 0
    /// Whoever's power goes has no kernel left to close its connections.
    var isPowerLostSilently = false

    /// `disks`: some replicas have disks whatever the seed draws.
    init(_ random: inout Random, shape: Shape?, election given: Election?, disks: Bool) {
        let drawn: Shape =
            switch random.int(0...9) {
            case 0...6: .pair
            case 7, 8: .group3
            default: .group5
            }
        self.shape = shape ?? drawn
        voters = random.chance(150) ? 0 : random.int(1...5)
        isOneHost = random.chance(500)
        guests = random.chance(400) ? 2 : 0
        leaseLength = UInt64(random.element([30_000, 300_000, 800_000]) ?? 300_000)
        guestPatience = random.element([15_000, 60_000, 300_000]) ?? 60_000
        guestPauseMax = random.element([2_000, 10_000, 40_000]) ?? 10_000
        beatTicks = random.int(2...4)
        suspectTicks = beatTicks * random.int(2...4)
        // Most runs are short: what can go wrong goes wrong soon, or in the next run.
        faultsUntil = random.int(200_000...(random.chance(150) ? 1_500_000 : 600_000))
        let crowd = random.chance(200)
        let count = crowd ? random.int(6...12) : random.int(1...5)
        faults = []
        for _ in 0..<count { faults.append(random.int(60_000...faultsUntil)) }
        if crowd, random.chance(500) {
            // Several at once.
            let moment = faults[0]
            for index in faults.indices where random.chance(600) {
                faults[index] = moment + random.int(0...20_000)
            }
        }
        faults.sort()
        weights = []
        for fault in Fault.allCases where !fault.isOfDisks && random.chance(350) {
            weights.append((fault, random.int(1...10)))
        }
        if weights.isEmpty { weights = [(.killPrimary, 1)] }
        if random.chance(300) {
            ambush = (
                random.element(Ambush.allCases.filter { $0 != .grant }) ?? .propose,
                random.element(Fault.allCases.filter { !$0.isOfDisks }) ?? .flapLink,
                random.int(20...300)
            )
        }
        delayMin = random.int(20...200)
        let spread = random.element([100, 1_000, 8_000, 20_000]) ?? 100
        delayMax = delayMin + random.int(10...spread)
        // A time-out that beats cannot keep, between the slowest clock and the fastest, only shows
        // that members are then excluded as fast as they come back.
        let gapMax = beatTicks * 11_000 + delayMax
        suspectTicks = max(suspectTicks, gapMax / 9_000 + 2)
        // Nor may a direct connection that is well count as silent, which is after the longer of two
        // beats and half of that: connections would then be closed as fast as they come up.
        let silentTicks = gapMax / 9_000 + 2
        if 2 * beatTicks < silentTicks { suspectTicks = max(suspectTicks, 2 * silentTicks) }
        spikes = random.chance(300) ? random.int(1...30) : 0
        spike = random.int(10_000...150_000)
        startFailures = random.chance(300) ? random.int(100...800) : 0
        losses = random.element([0, 300, 700, 1_000]) ?? 0
        turnMax = random.element([100, 1_000, 5_000]) ?? 100
        decisionMax = random.element([1_000, 20_000, 200_000]) ?? 1_000
        pauseMax = random.element([10_000, 40_000, 150_000]) ?? 40_000
        restartMax = random.element([20_000, 150_000, 400_000]) ?? 150_000
        arrivalMax = random.element([5_000, 50_000, 300_000]) ?? 5_000
        // From numbers of their own, so that a run is the same in all else.
        var others = random
        others = Random(seed: Random.mix(others.next()))
        let isGroup = self.shape != .pair
        self.election = given ?? (isGroup && others.chance(600) ? .bully : .sticky)
        ids = (1...UInt64(Simulation.slots)).map { $0 * 10 }
        for index in ids.indices.dropLast() {
            ids.swapAt(index, others.int(index...ids.count - 1))
        }
        if others.chance(100) { ids[0] = ids[1] }
        var chances = 0
        if others.chance(500) || disks { chances = others.chance(700) ? 1_000 : 500 }
        hasDisk = []
        for _ in 0..<Simulation.slots { hasDisk.append(others.chance(chances)) }
        syncMax = others.element([100, 2_000, 20_000]) ?? 100
        torn = others.element([0, 500, 1_000]) ?? 0
        checkpoints = others.element([0, 10, 100]) ?? 0
        keptMax = KeptMax(entries: others.element([0, 5, 1 << 16]) ?? 0)
        segmentBytes = others.element([1_024, 4_096, 32_768]) ?? 4_096
        if others.chance(100) { durability = .never }
        if hasDisk.contains(true) {
            for fault in Fault.allCases where fault.isOfDisks && others.chance(500) {
                weights.append((fault, others.int(1...12)))
            }
            for _ in 0..<others.int(0...5) { faults.append(others.int(60_000...faultsUntil)) }
            faults.sort()
            if others.chance(150) { voters = 0 }
            if others.chance(500) {
                ambush = (
                    others.element(Ambush.allCases) ?? .propose,
                    others.chance(800) ? .bounce : .cutPower, others.int(20...500)
                )
                ambushes = 8
            }
        }
        // Last, so that a run without it is the same in all else.
        if others.chance(60) { distance = others.int(50_000...250_000) }
        isPowerLostSilently = !isOneHost && others.chance(400)
    }
}

/// Moments at which trouble is worst.
enum Ambush: CaseIterable {
    case seek, grant, propose, accepted, view, state, learnOK, prepare, confirm
}

enum Fault: CaseIterable {
    case killPrimary, killBackup, loseMachine, pausePrimary, pauseBackup, pauseClient
    case resetLink, holdLink, holdLinkOneWay, flapLink
    case resetClientLink, holdClientLink, holdClientLinkOneWay
    case killClient, clientLeaves, replicaLeaves, switchover, startIntruder
    case resetAllClients, isolateReplica
    case cutPower, bounce, failDisk, slowDisk, fillDisk, shortenWrites, rot, loseEnd

    /// What happens only to replicas with disks.
    var isOfDisks: Bool {
        switch self {
        case .cutPower, .bounce, .failDisk, .slowDisk, .fillDisk, .shortenWrites, .rot, .loseEnd:
            true
        default: false
        }
    }
}
