import Journal
import Linux
import Storage
import Synchronization
import Wire

/// What a replica has appended, and how much of it it has been told to be durable.
struct Model {
    var records: [Record] = []
    var synced = 0
    /// The state of the services after an op, as the script made it up.
    static func snapshot(_ op: OpNumber) -> [UInt8] {
        (0..<100 + Int(op.rawValue)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ Int(op.rawValue)) }
    }

    /// What the first `count` records come to, as plainly as can be; the log whole.
    struct State: Equatable {
        var log: [Entry] = []
        var op = OpNumber(0)
        var view: View?
        var promised: Standing.Promise?
        var accepted: Accepted?
        var proposed: ViewNumber?
    }

    func state(_ count: Int) -> State {
        var state = State()
        for record in records.prefix(count) {
            switch record {
            case .entry(let entry):
                state.log.append(entry)
                state.op = entry.last
            case .truncated(let op):
                state.log.removeAll { $0.last > op }
                state.op = op
            case .restored(let end, _):
                let op = end.op
                state.log = []
                state.op = op
            case .view(let view):
                state.view = view
                (state.promised, state.accepted, state.proposed) = (nil, nil, nil)
            case .promised(let number, let attempt):
                state.promised = Standing.Promise(number: number, attempt: attempt)
            case .accepted(let accepted):
                state.accepted = accepted
                state.promised = Standing.Promise(
                    number: accepted.view.number, attempt: accepted.attempt)
            case .proposed(let number): state.proposed = number
            }
        }
        return state
    }

    /// How many records `recovered` has, if that is all that was synced and nothing invented.
    func match(_ recovered: Recovered) -> Int? {
        let snapshot = recovered.op.rawValue == 0 ? nil : Self.snapshot(recovered.op)
        guard recovered.snapshot == snapshot else { return nil }
        for count in stride(from: records.count, through: synced, by: -1) {
            let state = state(count)
            let behind = state.log.filter { $0.last > recovered.op }
            if state.op == recovered.last, behind == recovered.entries,
                state.view == recovered.view, state.promised == recovered.promised,
                state.accepted == recovered.accepted, state.proposed == recovered.proposed
            {
                return count
            }
        }
        return nil
    }
}

enum Sample {
    static let identity = Identity(
        service: ServiceID(high: 1, low: 2), id: ReplicaID(id: 1), instance: Instance(0xa))

    static func member(_ id: UInt64) -> Member {
        Member(
            id: ReplicaID(id: id), instance: Instance(9 + id),
            address: Address(host: "h", port: 7), host: 1, pid: id)
    }

    static func view(_ number: UInt64) -> View {
        View(
            number: ViewNumber(number), primary: member(1), backups: [member(2)],
            electorate: [Instance(10), Instance(11)], base: .beginning)
    }

    static func entry(_ view: UInt64, _ first: OpNumber, count: Int, size: Int, fill: UInt8)
        -> Entry
    {
        var batch = Batch()
        for _ in 0..<count {
            batch.append(Request(command: [UInt8](repeating: fill, count: size)))
        }
        return Entry(
            view: ViewNumber(view), first: first, time: 1_700_000_000_000, batch: batch,
            after: .beginning)
    }
}

/// Work that a loop has given away, done when the test says so.
final class Beside: Sendable {
    private let works = Mutex<[@Sendable () -> Void]>([])

    func take(_ work: @escaping @Sendable () -> Void) { works.withLock { $0.append(work) } }

    func run() {
        let list = works.withLock { works in
            defer { works = [] }
            return works
        }
        for work in list { work() }
    }
}

/// A replica that lives: a seed decides what it appends.
struct Script {
    var model = Model()
    var generator: Generator
    /// Entries through here are committed: never truncated, and checkpoints are taken of them.
    var committed = OpNumber(0)

    /// Where segments are made; nil: at once.
    var beside: Beside?

    /// Only the process can end: what was handed to the kernel stays.
    let isKernelSafe: Bool

    init(seed: Int, isKernelSafe: Bool = false) {
        self.isKernelSafe = isKernelSafe
        generator = Generator(seed: seed)
    }

    static func options(_ durability: Store.Durability = .always) -> Store.Options {
        var options = Store.Options()
        options.segmentBytes = 400
        options.durability = durability
        // At once, so that a crash can be put at every byte of it.
        options.runBeside = { (work: @escaping @Sendable () -> Void) throws(SystemError) in work() }
        return options
    }

    private mutating func record() -> Record {
        let state = model.state(model.records.count)
        let number = state.view?.number.rawValue ?? 0
        switch Int.random(in: 0..<20, using: &generator) {
        case 0: return .view(Sample.view(number + 1))
        case 1:
            let counter = state.promised?.attempt.counter ?? 0
            let attempt = Attempt(counter: counter + 1, proposer: Instance(10))
            return .promised(number: ViewNumber(number + 1), attempt)
        case 2:
            let attempt = Attempt(
                counter: (state.promised?.attempt.counter ?? 0) + 1, proposer: Instance(11))
            return .accepted(Accepted(attempt: attempt, view: Sample.view(number + 1)))
        case 3: return .proposed(number: ViewNumber(number + 1))
        case 4 where state.op > committed:
            let kept = state.log.filter { $0.last <= committed }.last?.last ?? committed
            return .truncated(after: kept)
        default:
            return .entry(
                Sample.entry(
                    max(number, 1), state.op.next, count: Int.random(in: 1...3, using: &generator),
                    size: Int.random(in: 0...40, using: &generator),
                    fill: UInt8.random(in: 0...255, using: &generator)))
        }
    }

    /// One turn of a loop, now and then with a checkpoint behind it or a state from elsewhere.
    mutating func turn(_ store: inout Store) throws(SystemError) {
        var records: [Record] = []
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            let record = record()
            records.append(record)
            model.records.append(record)
        }
        if Int.random(in: 0..<12, using: &generator) == 0 {
            let op = model.state(model.records.count).op + 3
            try store.receive(
                op: op, view: ViewNumber(1), hash: .beginning, snapshot: Model.snapshot(op))
            records.append(.restored(LogEnd(view: ViewNumber(1), op: op), hash: .beginning))
            model.records.append(.restored(LogEnd(view: ViewNumber(1), op: op), hash: .beginning))
        }
        try store.append(records)
        if let beside {
            // Whatever becomes of the checkpoint, the store waits for its segment in the end.
            defer { beside.run() }
            if store.mustWait, committed.rawValue > 0, Bool.random(using: &generator) {
                try checkpoint(&store)
            }
        }
        try store.sync()
        if store.options.durability == .always || isKernelSafe {
            model.synced = model.records.count
        }
        let state = model.state(model.records.count)
        // Some of what is in the log, at an entry's end.
        let ends = state.log.map(\.last).filter { $0 > committed }
        if let op = ends.randomElement(using: &generator) { committed = op }
        if case .restored(let end, _)? = records.last { committed = end.op }
        if Int.random(in: 0..<4, using: &generator) == 0 {
            let op = committed
            if op.rawValue > 0 { try checkpoint(&store) }
        }
    }

    private func checkpoint(_ store: inout Store) throws(SystemError) {
        let op = committed
        // A state that came from elsewhere has the hash `.beginning` here.
        let entry = model.state(model.records.count).log.last { $0.last == op }
        _ = try store.checkpoint(
            op: op, view: ViewNumber(1), hash: entry?.hash ?? .beginning,
            snapshot: { Model.snapshot(op) })
        if let outcome = store.takeCheckpointOutcome() {
            switch outcome {
            case .done: break
            case .failed(let error), .journalFailed(let error): throw error
            }
        }
    }
}
