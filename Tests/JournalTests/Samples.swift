import Journal
import Wire

/// xorshift64*: the tests' own randomness, from a fixed seed.
struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_f491_4f6c_dd1d
    }

    /// A number of any magnitude from 1 on, below the highest of all.
    mutating func number() -> UInt64 {
        max(1, next() >> UInt64.random(in: 2...63, using: &self))
    }
}

enum Sample {
    static let identity = Identity(
        service: ServiceID(high: 0x1234, low: .max), id: ReplicaID(priority: 3, id: 17),
        instance: Instance(0xfeed))

    static func member(_ generator: inout Generator) -> Member {
        Member(
            id: ReplicaID(priority: generator.number(), id: generator.number()),
            instance: Instance(generator.number()),
            address: Address(host: "host-\(generator.number())", port: 7001),
            host: generator.number(), pid: generator.number())
    }

    static func view(_ number: UInt64, _ generator: inout Generator) -> View {
        var members = [member(&generator)]
        for _ in 0..<Int.random(in: 0...3, using: &generator) {
            let new = member(&generator)
            if !members.contains(where: { $0.instance == new.instance }) { members.append(new) }
        }
        return View(
            number: ViewNumber(number), primary: members[0], backups: Array(members[1...]),
            electorate: members.map(\.instance).sorted(),
            base: LogEnd(view: ViewNumber(number / 5), op: OpNumber(number / 3)))
    }

    static func entry(view: UInt64, first: UInt64, _ generator: inout Generator) -> Entry {
        var batch = Batch()
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            let size = Int.random(in: 0...60, using: &generator)
            let command = (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let call = Request.Call(client: generator.number(), sequence: generator.number())
            batch.append(
                Request(call: Bool.random(using: &generator) ? call : nil, command: command))
        }
        return Entry(
            view: ViewNumber(view), first: OpNumber(first), time: generator.number(), batch: batch,
            after: LogHash(generator.number()))
    }

    static func attempt(_ generator: inout Generator) -> Attempt {
        Attempt(counter: generator.number(), proposer: Instance(generator.number()))
    }

    /// A record of any kind, of no journal in particular.
    static func record(_ generator: inout Generator) -> Record {
        let number = ViewNumber(generator.number())
        switch Int.random(in: 0..<7, using: &generator) {
        case 0: return .truncated(after: OpNumber(generator.number()))
        case 1:
            return .restored(
                LogEnd(view: number, op: OpNumber(generator.number())),
                hash: LogHash(generator.number()))
        case 2: return .view(view(number.rawValue, &generator))
        case 3: return .promised(number: number, attempt(&generator))
        case 4:
            let attempt = attempt(&generator)
            return .accepted(
                Accepted(attempt: attempt, view: view(number.rawValue, &generator)))
        case 5: return .proposed(number: number)
        default:
            return .entry(entry(view: number.rawValue, first: generator.number(), &generator))
        }
    }

    static func entry(_ first: UInt64, size: Int = 20) -> Entry {
        var batch = Batch()
        batch.append(Request(command: [UInt8](repeating: UInt8(first & 0xff), count: size)))
        return Entry(
            view: ViewNumber(1), first: OpNumber(first), time: 5, batch: batch, after: .beginning)
    }
}

/// A segment as a store would leave it: each list of records is one write that was made durable.
struct SegmentFile {
    var header: SegmentHeader
    var bytes: [UInt8]
    /// Where each record begins, and behind the last.
    var places: [Int]
    var chain: UInt64

    init(
        number: UInt64 = 1, firstOp: UInt64 = 1, previous: UInt64 = 0,
        identity: Identity = Sample.identity, writes: [[Record]], zeros: Int = 0
    ) {
        var (header, bytes, writer) = SegmentHeader.birth(
            identity: identity, number: number, firstOp: OpNumber(firstOp), previous: previous,
            salt: 0x5a17 &+ number, [])
        places = [writer.end]
        for write in writes {
            for record in write {
                writer.append(record)
                places.append(writer.end)
            }
            bytes += writer.pending
            writer.onWritten()
            writer.onSynced()
        }
        self.header = header
        self.bytes = bytes + [UInt8](repeating: 0, count: zeros)
        chain = writer.chain
    }

    static func read(_ bytes: [UInt8]) -> (records: [Record], stop: SegmentReader.Stop) {
        do throws(Flaw) {
            var reader = try SegmentReader(bytes)
            var records: [Record] = []
            while let record = reader.next() { records.append(record) }
            return (records, reader.stop ?? .end)
        } catch {
            return ([], .flaw(error))
        }
    }
}
