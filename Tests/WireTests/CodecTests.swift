import Testing
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
}

/// The commands in `bytes`, parsed as they would be if they came in the given pieces.
private func commands(in bytes: [UInt8], splitAt cut: Int) -> [[[UInt8]]]? {
    var found: [[[UInt8]]] = []
    var buffer: [UInt8] = []
    var parser = CommandParser()
    for piece in [bytes[..<cut], bytes[cut...]] {
        buffer += piece
        var start = 0
        scan: while true {
            switch parser.parse(buffer.span, from: start) {
            case .command:
                found.append(parser.ranges.map { Array(buffer[$0]) })
                start = parser.next
            case .blank: start = parser.next
            case .incomplete: break scan
            case .malformed: return nil
            }
        }
        buffer.removeFirst(start)
    }
    return found
}

@Suite struct CommandParserTests {
    static let stream = Array(
        "*4\r\n$9\r\nVOTE.CAST\r\n$1\r\n7\r\n$3\r\nann\r\n$3\r\nyes\r\nPING\r\n\r\n*1\r\n$0\r\n\r\necho \"a b\"\r\n"
            .utf8)

    @Test func everySplitGivesTheSameCommands() throws {
        let whole = try #require(commands(in: Self.stream, splitAt: 0))
        #expect(whole.count == 4)
        #expect(whole[3] == [Array("echo".utf8), Array("a b".utf8)])
        for cut in Self.stream.indices {
            #expect(commands(in: Self.stream, splitAt: cut) == whole, "cut at \(cut)")
        }
    }

    @Test func aLargeBatchIsParted() throws {
        var batch = Batch()
        for index in 0..<1_000 {
            let call = index % 3 == 0 ? Request.Call(client: 7, sequence: UInt64(index)) : nil
            let command = [UInt8](repeating: UInt8(index % 251), count: index * 37 % 4_000)
            batch.append(Request(call: call, command: command))
        }
        let parts = batch.parts()
        #expect(parts.count > 20 && parts.allSatisfy { $0.bytes.count <= Batch.partBytes + 4_100 })
        #expect(parts.flatMap(\.bytes) == batch.bytes)
        #expect(parts.reduce(0) { $0 + $1.count } == batch.count)
        for part in parts { _ = try Batch(decoding: part.bytes, count: part.count) }
        #expect(Batch().parts() == [Batch()])
    }

    @Test func randomBytesNeitherCrashNorHang() {
        var generator = Generator(state: 0x5eed)
        let letters = Array("*$>0123456789\r\n-+ \"'aV\u{0}".utf8)
        var malformed = 0
        for _ in 0..<20_000 {
            let count = Int.random(in: 0..<64, using: &generator)
            let bytes = (0..<count).map { _ in letters.randomElement(using: &generator) ?? 0 }
            if commands(in: bytes, splitAt: bytes.count / 2) == nil { malformed += 1 }
        }
        // Both outcomes must really occur, or this tests nothing.
        #expect(malformed > 1_000 && malformed < 19_000)
    }

    @Test(arguments: [
        ("*x\r\n", "invalid multibulk length"), ("*1\r\n+a\r\n", "expected '$', got '+'"),
        ("*33\r\n", "33 arguments, at most 32 are taken"),
        ("*1\r\n$99999\r\n", "command too long, at most 65536 bytes are taken"),
        ("*1\r\n$1\r\nabc", "bulk string not ended by CR LF"),
        ("say \"x\n", "unbalanced quotes in request"),
    ]) func malformedInputIsNamed(input: String, reason: String) {
        var parser = CommandParser()
        #expect(parser.parse(Array(input.utf8).span, from: 0) == .malformed(DecodeError(reason)))
    }

    @Test func endlessInlineIsRefused() {
        var parser = CommandParser()
        let bytes = [UInt8](repeating: 97, count: 70_000)
        #expect(
            parser.parse(bytes.span, from: 0) == .malformed(DecodeError("inline command too long")))
    }
}

@Suite struct MessageTests {
    static let member = Member(
        id: ReplicaID(id: 41), instance: Instance(0xabc),
        address: Address(host: "127.0.0.1", port: 7001), host: 0xfe, pid: 41)
    static let other = Member(
        id: ReplicaID(priority: 2, id: 42), instance: Instance(0xdef),
        address: Address(host: "::1", port: 7002), host: 0xfe, pid: 42)
    static let view = View(
        number: ViewNumber(7), primary: member, backups: [other],
        electorate: [Instance(0x99), Instance(0xabc), Instance(0xdef)],
        base: LogEnd(view: ViewNumber(6), op: OpNumber(12)))

    static var messages: [Message] {
        var batch = Batch()
        batch.append(
            Request(call: .init(client: .max >> 1, sequence: 3), command: [1, 2, 3]))
        batch.append(tag: 1, 300, 7, 2)
        let number = ViewNumber(7)
        let attempt = Attempt(counter: 2, proposer: Instance(0xabc))
        let entry = Entry(
            view: ViewNumber(6), first: OpNumber(9), time: 1_234, batch: batch,
            after: LogHash(.max))
        return [
            .prepare(view: number, entry: entry, commitMax: OpNumber(8)),
            .commit(view: number, commitMax: OpNumber(8), hash: LogHash(.max)),
            .confirm(view: number, probe: 5),
            .prepareOK(view: number, op: OpNumber(10)), .confirmOK(view: number, probe: 5),
            .attach(view: number, op: OpNumber(3), hash: LogHash(1)), .witnesses([]),
            .fork(view: number, op: OpNumber(3)),
            .witnesses([Instance(1), Instance(2)]),
            .seek(number: number, attempt: attempt, isViewOver: true),
            .grant(
                number: number, attempt: attempt, committed: .beginning, end: .beginning,
                accepted: nil),
            .grant(
                number: number, attempt: attempt,
                committed: LogEnd(view: ViewNumber(4), op: OpNumber(6)),
                end: LogEnd(view: number, op: OpNumber(7)),
                accepted: Accepted(attempt: attempt, view: view)),
            .outbid(number: number, attempt: attempt), .propose(attempt: attempt, view: view),
            .accepted(number: number, attempt: attempt), .view(view),
            .join(JoinID(5), member, end: LogEnd(view: number, op: OpNumber(4)), hash: LogHash(8)),
            .state(
                JoinID(5), view: view, end: LogEnd(view: number, op: OpNumber(4)), hash: LogHash(8),
                piece: 1, pieces: 2,
                bytes: [0, 13, 10]),
            .learnOK(JoinID(5), op: OpNumber(4)), .joinRefused(JoinID(5), reason: "place taken"),
            .election(view: number, id: other.id), .electionOK(view: number),
            .leave(Instance(3)), .stop,
            .beat(view: number, committed: LogEnd(view: ViewNumber(4), op: OpNumber(7))),
            .relay(RelayFrame(from: Instance(3), to: Instance(4), path: 7, .open)),
            .relay(RelayFrame(from: Instance(3), to: Instance(4), path: 7, .accept)),
            .relay(RelayFrame(from: Instance(3), to: Instance(4), path: 0, .beat)),
            .relay(RelayFrame(from: Instance(3), to: Instance(4), path: 7, .close)),
            .relay(
                RelayFrame(
                    from: Instance(3), to: Instance(4), path: 7,
                    .data(
                        Message.commit(
                            view: number, commitMax: OpNumber(9), hash: .beginning
                        ).fields))),
        ]
    }

    @Test(arguments: messages) func survivesTheWire(message: Message) throws {
        var bytes: [UInt8] = []
        message.encode(head: "PEER", into: &bytes)
        var parser = CommandParser()
        #expect(parser.parse(bytes.span, from: 0, limits: .replica) == .command)
        #expect(parser.next == bytes.count)
        let fields = parser.ranges.dropFirst().map { Array(bytes[$0]) }
        #expect(try Message(fields: fields) == message)
    }

    @Test(arguments: messages) func everyCutFieldIsRefusedOrDiffers(message: Message) {
        let fields = message.fields
        for count in 0..<fields.count {
            let cut = try? Message(fields: Array(fields[..<count]))
            #expect(cut != message)
        }
        // What a relay frame carries is opaque to it.
        if case .relay(let frame) = message, case .data = frame.body { return }
        #expect(throws: DecodeError.self) { try Message(fields: fields + [[48], [48], [48]]) }
    }

    @Test func randomFieldsNeverCrash() {
        var generator = Generator(state: 0xf1e1d)
        var decoded = 0
        for _ in 0..<20_000 {
            var fields = Self.messages.randomElement(using: &generator)?.fields ?? []
            for _ in 0..<Int.random(in: 0...2, using: &generator) {
                guard let index = fields.indices.randomElement(using: &generator) else { continue }
                let length = Int.random(in: 0..<12, using: &generator)
                let random = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
                if Bool.random(using: &generator), !fields[index].isEmpty {
                    let at = Int.random(in: 0..<fields[index].count, using: &generator)
                    fields[index][at] = UInt8.random(in: 0...255, using: &generator)
                } else {
                    fields[index] = random
                }
            }
            if (try? Message(fields: fields)) != nil { decoded += 1 }
        }
        #expect(decoded > 1_000 && decoded < 20_000)
    }

    @Test func viewTextIsStrict() {
        #expect(View(text: Self.view.text) == Self.view)
        for bad in [
            "", "7", Self.view.text + " ", Self.view.text.replacing("99,abc", with: "abc,99"),
        ] {
            #expect(View(text: bad) == nil, "\(bad)")
        }
    }
}

@Suite struct ReplyParserTests {
    static let stream = Array(
        "+OK\r\n:-5\r\n$2\r\n\r\n\r\n$-1\r\n_\r\n*2\r\n+a\r\n*0\r\n%1\r\n+k\r\n#t\r\n>2\r\n$4\r\nvote\r\n:1\r\n-ERR x\r\n"
            .utf8)

    private func values(splitAt cut: Int) throws -> [RESPValue] {
        var found: [RESPValue] = []
        var buffer: [UInt8] = []
        for piece in [Self.stream[..<cut], Self.stream[cut...]] {
            buffer += piece
            var start = 0
            while let (value, next) = try RESPValue.parse(buffer.span, from: start) {
                found.append(value)
                start = next
            }
            buffer.removeFirst(start)
        }
        return found
    }

    @Test func everySplitGivesTheSameValues() throws {
        let whole = try values(splitAt: 0)
        #expect(whole.count == 9)
        for cut in Self.stream.indices {
            #expect(try values(splitAt: cut) == whole, "cut at \(cut)")
        }
    }

    @Test(arguments: ["?\r\n", ":x\r\n", "$-2\r\n", "*99999999\r\n", "+a\rb"])
    func nonsenseIsRefused(input: String) {
        #expect(throws: DecodeError.self) {
            try RESPValue.parse(Array(input.utf8).span, from: 0)
        }
    }

    @Test func deepNestingIsRefused() {
        let bytes = Array(String(repeating: "*1\r\n", count: 100).utf8)
        #expect(throws: DecodeError.self) { try RESPValue.parse(bytes.span, from: 0) }
    }
}
