import Linux
import Replication
import Storage
import Synchronization
import Wire

/// A replica's disk: its files, and what must stand in them. It outlives the process.
final class Drive {
    /// What a step gives to the journal: records, and the state that a `restored` among them needs.
    struct Item {
        var records: [Record]
        var state: (end: LogEnd, hash: LogHash, snapshot: [UInt8])?
    }

    static let folder = "/d"

    let id: UInt64
    let slot: Int
    /// Who lives on it: another one after a renewal, or when nothing of the old one had become
    /// durable.
    var instance: Instance
    let files = SimulatedDisk()
    let beside: Beside
    let options: Store.Options
    /// `files`, or with a deliberate mistake.
    private let disk: any Disk
    var ledger = Ledger()
    /// Of the instance.
    var starts: UInt64 = 0
    /// Syncs take long until then.
    var slowUntil = 0
    /// While nothing runs on it: when it is started, at the earliest.
    var restartAt: Int?
    /// Something that was durable has changed; only then may a start be refused or need the others.
    var hasRotted = false
    /// The end of its journal is gone.
    var lost: Simulation.LostEnd?
    /// What has changed may be needed: the replica may not come back as who it was.
    var isDoubtful = false
    /// The last start was refused, as nobody was there who had what is lost.
    var isRefused = false
    /// What is on it was to be put aside, which may have been done in part.
    var isRenewing = false
    /// Its power went, and nothing had been synced.
    var isForgetful = false

    init(
        instance: Instance, id: UInt64, slot: Int, seed: UInt64, segmentBytes: Int,
        durability: Store.Durability, breakage: Breakage?
    ) {
        self.instance = instance
        self.id = id
        self.slot = slot
        let beside = Beside(seed: seed)
        self.beside = beside
        var options = Store.Options()
        options.segmentBytes = segmentBytes
        options.durability = durability
        options.random = { beside.random.withLock { $0.next() } }
        options.runBeside = { (work: @escaping @Sendable () -> Void) throws(SystemError) in
            beside.work.withLock { $0 = work }
        }
        self.options = options
        let isBroken = breakage.map { BreakingDisk.breakages.contains($0) } ?? false
        if let breakage, isBroken {
            disk = BreakingDisk(files, breakage, durability)
        } else {
            disk = files
        }
    }

    /// Whether what was written survives a loss of power, or a kill.
    func keepsAll(withoutPower: Bool) -> Bool {
        !isDoubtful && !isForgetful && !(withoutPower && options.durability == .never)
    }

    /// It is blank but for what was put aside.
    func becomeNew() {
        ledger = Ledger()
        starts = 0
        (hasRotted, isDoubtful, isRefused, isRenewing) = (false, false, false, false)
        isForgetful = false
        lost = nil
    }

    func open() throws(StoreError) -> OpenStore {
        OpenStore(
            try Store(folder: Self.folder, service: nil, disk: disk, options: options))
    }
}

/// What the store wants done beside the replica's loop, and where its random numbers come from.
final class Beside: Sendable {
    let work = Mutex<(@Sendable () -> Void)?>(nil)
    let random: Mutex<Random>

    init(seed: UInt64) { random = Mutex(Random(seed: seed)) }

    var isWaiting: Bool { work.withLock { $0 != nil } }

    func run() {
        let work = work.withLock { work in
            let taken = work
            work = nil
            return taken
        }
        work?()
    }
}

/// A process's hold on its store.
final class OpenStore {
    var store: Store

    init(_ store: consuming Store) { self.store = store }
}

/// What was given to a journal since it was last opened, as plainly as can be, to compare with what
/// comes back.
struct Ledger {
    private var base = Recovered()
    private var records: [Record] = []
    /// So many of the records are known to be durable.
    private var safe = 0

    /// How many records it was given since, that are known to be durable.
    var durableCount: Int { safe }

    /// The last op that it began with.
    var baseLast: OpNumber { base.last }

    var isBlank: Bool { safe == 0 && base == Recovered() }

    /// These were durable when their writing ended.
    mutating func written(_ records: [Record]) {
        self.records += records
        safe = self.records.count
    }

    /// The process has ended before their writing had.
    mutating func unfinished(_ records: [Record]) { self.records += records }

    /// Goes on from what was found. Throws when that is not what was durable, or more than was
    /// given, or neither. `isForgetful`: nothing had to be durable.
    mutating func resume(_ found: Recovered, isForgetful: Bool) throws(DecodeError) {
        let floor = isForgetful ? 0 : safe
        var state = base
        for record in records.prefix(floor) { try state.replay(record) }
        var isFound = Self.isSame(found, state)
        for record in records.dropFirst(floor) {
            if isFound { break }
            try state.replay(record)
            isFound = Self.isSame(found, state)
        }
        guard isFound else {
            throw DecodeError(
                "of \(records.count) records, \(floor) of them durable, came back: op \(found.last) "
                    + "behind \(found.op), '\(found.view?.text ?? "-")'")
        }
        base = found
        records = []
        safe = 0
    }

    /// Whether the last entry counts as the primary's, though it is not: see `Replica.init`. (Of one that is
    /// the journal may not know it: where a segment begins with it, and with a later view.)
    private static func isTakenForSure(_ found: Recovered, _ state: Recovered) -> Bool {
        guard let last = found.log.last, !state.log.isEmpty else { return false }
        return last.view >= found.reign && last.view < state.reign
    }

    private static func isSame(_ found: Recovered, _ state: Recovered) -> Bool {
        guard found.last == state.last, found.view == state.view, found.promised == state.promised,
            found.accepted == state.accepted, found.hasProposed == state.hasProposed,
            found.op <= state.last, found.hasState == state.hasState,
            !isTakenForSure(found, state)
        else { return false }
        let from = max(found.op, state.op)
        return found.log.drop { $0.first <= from } == state.log.drop { $0.first <= from }
    }
}
