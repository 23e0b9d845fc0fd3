import Replication
import Services
import Wire

/// A connection as its two ends and the network see it. Without references, as it is read at every
/// turn.
struct Connection {
    var ends: [2 of Process]
    /// Where each end stands in the network.
    var sites: [2 of Int]
    var isOpen: [2 of Bool] = [true, true]
    /// Nothing arrives at an end before what was sent earlier.
    var lastArrival: [2 of Int] = [0, 0]
    /// The other end's process is gone with its machine: nobody will say so.
    var isOrphan = false
}

/// A replica's process: the replica, and as much of a server around it as its clients and the
/// other replicas notice. Keeps to `Server`'s ways (Sources/Server); where they differ a run shows
/// nothing about the real one.
final class ReplicaProcess {
    let number: Int
    let slot: Int
    let host: Int
    let me: Member
    let tickTime: Int

    var replica: Replica
    /// What of the replica is asked for all the time, as it is since its last step.
    var face: Face
    var paths: Paths
    var executor = Executor<ServiceSet>()

    var disk: Drive?
    /// The files of `disk`, open as long as the process is there.
    var journal: OpenStore?
    /// What its steps have given to the journal and what is not written yet, in order.
    var unwritten: [Drive.Item] = []
    /// How many there have been, and how many of them are durable.
    var itemsGiven = 0
    var itemsDurable = 0
    /// A sync is under way, of the first so many.
    var syncing: Int?
    var segmentsSeen = 0
    /// Who lived on the disk before rot made new instances of them.
    var formerly: [Instance] = []
    /// Instances that others say to have been before.
    var formers: [Instance] = []
    /// What waits until this many items are durable; in order.
    var outputs: [Output] = []
    /// As it was after the newest step of which everything is safe: reads wait for that, too.
    var confirmedProbe: UInt64 = 0
    /// See `shownView`.
    var shown: View?
    /// The newest view that it has entered or was told to be out of.
    var viewNumber = ViewNumber(0)
    /// Whether it takes requests as the primary: not before it has carried out that it entered its
    /// view, as caches and voters are asked after by what it did then.
    var leads: Bool { face.isPrimary && isLeading && viewNumber == replica.view?.number }
    /// Processes proved to have ended.
    var gone: [Int] = []

    var isUp = true
    var isPaused = false
    /// When its clock ticks next: what is on the queue for another moment is from before a pause.
    var tickDue = 0
    var backlog: [Event] = []
    /// Told to end: hands over, takes its leave, and goes at this moment at the latest.
    var leavesAt: Int?
    /// Until it says once more that it goes.
    var ticksToGoodbye = 0

    /// Direct connections to other replicas after their hellos, and those still being made.
    var links: [(instance: Instance, connection: Int)] = []
    var dialed: [(slot: Int, connection: Int?, at: Int)] = []
    var nextDial = 0
    var dialPause = ReplicaProcess.dialPauseMin
    var target: Int
    var joinCount: UInt64 = 0
    var begins = false

    var clients: [Int] = []
    var witnesses: [(instance: Instance, connection: Int)] = []
    var areWitnessesChanged = false
    var voters: [(name: Int, connection: Int)] = []

    var batch = Batch()
    var turnWaiters: [Waiter] = []
    var turnHasReads = false
    var isTurnDue = false
    var waiters: [Waiter] = []
    var held: [(vote: UInt64, name: Int, choice: Choice)] = []

    /// Who has which room cached.
    var leases: CacheLeases
    /// Reservations that wait for caches.
    var gated: [(request: Packet.Request, connection: Int)] = []
    var gatedVersion: UInt64 = 0

    /// Told of a view without it, and not back in one yet: it has nothing to say to clients.
    var isOut = false
    /// As `isOut`, and no newer state fetched since: it has nothing to execute.
    var isStateOver = false
    var isLeading = false
    var openedAt: [(vote: UInt64, at: Int)] = []
    var closeProposed: [UInt64] = []
    var absentTicks = [Int](repeating: 0, count: 16)
    var hasRelayed = false

    static let dialPauseMin = 5_000
    static let dialPauseMax = 80_000

    enum Token: Equatable {
        case connection(Int)
        case relay(via: Instance, path: UInt64)
    }

    struct Output {
        var need: Int
        /// The replica's after this step.
        var confirmedProbe: UInt64
        var envelopes: [(Envelope, Token?)]
        var execute: [Entry]
        var effects: [Replication.Effect]
    }

    struct Waiter {
        enum Kind {
            case write
            case join(name: Int, from: UInt64)
            case read
            case results(from: UInt64)
            case check(room: Int)
            case lease
        }
        var request: Int
        var connection: Int
        var kind: Kind
        var op: OpNumber
        var probe: UInt64 = 0
        var reply: Reply?
        /// The highest view in which anybody had answered anything when the request came in.
        var floor: ViewNumber
    }

    init(
        number: Int, id: UInt64, instance: Instance, slot: Int, host: Int, target: Int,
        membersMax: Int,
        timing: Timing, election: Election, tickTime: Int, leaseLength: UInt64,
        seed: UInt64, keptMax: KeptMax, recovered: Recovered?, life: UInt64
    ) {
        self.number = number
        self.slot = slot
        self.host = host
        self.target = target
        self.tickTime = tickTime
        leases = CacheLeases(length: leaseLength)
        me = Member(
            id: ReplicaID(id: id), instance: instance,
            address: Address(host: "s", port: UInt16(slot)), host: UInt64(host),
            pid: UInt64(number + 1))
        if let recovered {
            replica = Replica(
                me: me, timing: timing, membersMax: membersMax, election: election, seed: seed,
                keptMax: keptMax, recovered: recovered)
        } else {
            replica = Replica(
                me: me, timing: timing, membersMax: membersMax, election: election, seed: seed,
                keptMax: keptMax)
        }
        face = replica.face()
        paths = Paths(me: me.instance, timing: timing, life: life)
    }

    /// Replicas that have been connected, so that their processes are watched from then on.
    /// `isWatched`: it was alive to say so.
    var met: [(instance: Instance, number: Int, isWatched: Bool)] = []

    func watches(_ process: ReplicaProcess) -> Bool {
        met.contains { $0.number == process.number && $0.isWatched }
    }

    /// Whether it would learn of the end of this instance's process, if that is the one of this number
    /// or a later one.
    func watches(_ instance: Instance, from pid: UInt64, in replicas: [ReplicaProcess]) -> Bool {
        guard let last = met.last(where: { $0.instance == instance }), last.isWatched else {
            return false
        }
        return replicas[last.number].me.pid >= pid
    }

    func link(_ instance: Instance) -> Int? {
        links.first { $0.instance == instance }?.connection
    }
}

/// A client's process: a voter and witness, or one who is neither: the operator or a guest, who
/// reserves rooms.
final class ClientProcess {
    let number: Int
    /// The voter's number; of others see `Simulation.operatorName` and `guestNames`.
    let name: Int
    let instance: Instance
    let tickTime: Int

    var witness: Witness
    var isUp = true
    var isPaused = false
    /// When its clock ticks next: what is on the queue for another moment is from before a pause.
    var tickDue = 0
    var backlog: [Event] = []
    /// Said goodbye, and goes at this moment.
    var leavesAt: Int?

    var links: [Link] = []
    var dialing: [Int] = []
    var nextDial = 0
    var view: View?

    var log: [Packet.Result]
    var early: [Packet.Result] = []
    var ballots: [Ballot] = []
    var askResultsAt: Int?
    var resultsAsked: (request: Int, connection: Int)?

    var sequence: UInt64 = 0
    var callsDone: UInt64 = 0
    /// The call, close or read that waits for its answer.
    var pending: Packet.Request?
    var pendingOn: Int?
    var pendingSince = 0
    var nextRequest = 0
    /// Of a guest, who reserves rooms: what it has cached, and on which connection.
    var cache = RoomCache(answersMax: 4)
    var home: Int?
    var leaseAsked: (request: Int, at: UInt64)?
    /// Where the last replica that it asked has sent it.
    var redirect: Int?

    struct Link {
        enum Joining { case none, asked, joined }
        var connection: Int
        var slot: Int
        var instance: Instance?
        var joining = Joining.none
        var joinRequest = -1
        var retryAt = 0
    }

    struct Ballot {
        var vote: UInt64
        var request: Packet.Request?
        var isSettled = false
        var sentOn: [Int] = []
    }

    init(number: Int, name: Int, tickTime: Int, log: [Packet.Result], hearingTicksMax: Int) {
        self.number = number
        self.name = name
        self.tickTime = tickTime
        self.log = log
        instance = Instance(0x1_0000 + UInt64(number))
        witness = Witness(instance: instance, hearingTicksMax: hearingTicksMax)
    }

    var nextResult: UInt64 { UInt64(log.count) + 1 }

    func index(_ connection: Int) -> Int? { links.firstIndex { $0.connection == connection } }

    /// The connection to the newest view's primary.
    var primary: Int? {
        guard let primary = view?.primary.instance else { return nil }
        return links.firstIndex { $0.instance == primary }
    }

    func isMember(_ link: Link) -> Bool {
        guard let instance = link.instance else { return false }
        return view?.contains(instance) ?? false
    }
}

/// A few facts of a replica. To read each by itself out of a process means to copy the replica.
struct Face {
    var status: Replica.Status
    var isMember: Bool
    var isPrimary: Bool
    var acceptsRequests: Bool
    var isChanging: Bool
    var op: OpNumber
    var commitMax: OpNumber
    var probe: UInt64
    var confirmedProbe: UInt64
    var logCount: Int
    var keptCount: Int
}

extension Replica {
    /// Checks the replica's invariants as well. Mutating only so that it is called in place.
    mutating func face() -> Face {
        checkInvariants()
        return Face(
            status: status, isMember: isMember, isPrimary: isPrimary,
            acceptsRequests: acceptsRequests, isChanging: isChanging, op: op, commitMax: commitMax,
            probe: probe, confirmedProbe: confirmedProbe, logCount: logCount,
            keptCount: keptCount)
    }

    /// As `hasFailed`, in place.
    mutating func hasFailedInPlace(_ instance: Instance) -> Bool { hasFailed(instance) }
}

extension Paths {
    /// As `route(to:)`, in place.
    mutating func routeInPlace(to instance: Instance) -> Route? { route(to: instance) }
    /// As `hasRelay`, in place.
    mutating func hasRelayInPlace() -> Bool { hasRelay }
}
