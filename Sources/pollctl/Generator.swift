import Arguments
import Linux
import Wire

/// Voters on real sockets in one thread: each waits for the `vote` push, sends its ballot to both
/// servers, and counts the primary's OK and the result. As many votes are open at any time as
/// ballots are to be in flight per voter; while one is being opened its voters have one less. Where
/// `opensAhead`, as many again are opened beforehand, and a voter that has its ballots in flight
/// keeps those votes for later: then it always has as many in flight as it may.
final class Generator {
    private final class Socket {
        let fd: FileDescriptor
        let voter: Int
        let isPrimary: Bool
        var input: [UInt8] = []
        var output: [UInt8] = []
        var isDirty = false
        var wantsWrite = false
        /// When the ballots that are not answered yet were sent, oldest first.
        var sent: [UInt64] = []
        var sentHead = 0
        /// Votes for which it has not sent its ballot yet, oldest first.
        var kept: [Int] = []
        var keptHead = 0

        var inFlight: Int { sent.count - sentHead }

        init(fd: consuming FileDescriptor, voter: Int, isPrimary: Bool) {
            self.fd = fd
            self.voter = voter
            self.isPrimary = isPrimary
        }
    }

    private let load: Load
    private let interrupts: Interrupts
    private var poller: Poller
    /// By descriptor.
    private var sockets: [Socket?] = []
    private var toPrimary: [Socket] = []
    private var toBackup: [Socket] = []
    private let control: Socket
    private var dirty: [Socket] = []
    private let names: [[UInt8]]
    private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 16)
    private var now: UInt64 = 0
    private var joined = 0
    /// No ballots any more; how many have left.
    private var isLeaving = false
    private var left = 0
    private var errors = 0
    private var firstError = ""

    private var opened: UInt64 = 0
    private var openedAt: [UInt64] = []
    private var firstVote: Int?
    private(set) var ballots = 0
    private(set) var held = 0
    private(set) var results = 0
    private(set) var seconds = 0.0
    private(set) var ballotTimes = Histogram()
    private(set) var resultTimes = Histogram()

    init(_ load: Load, _ report: ServerReport, _ interrupts: Interrupts) throws(Failure) {
        self.load = load
        self.interrupts = interrupts
        names = (0..<load.voters).map { Array("bench-\($0)".utf8) }
        _ = Processes.raiseDescriptorLimit()
        let backup = load.isSingle ? nil : report.backup?.address
        do throws(SystemError) {
            poller = try Poller(eventsPerWaitMax: 1_024)
            control = Socket(
                fd: try Sockets.connect(
                    host: report.reachedAt.host, port: report.reachedAt.port), voter: -1,
                isPrimary: true)
            for voter in 0..<load.voters {
                toPrimary.append(try Self.socket(report.reachedAt, voter, isPrimary: true))
                if let backup { toBackup.append(try Self.socket(backup, voter, isPrimary: false)) }
            }
            for socket in toPrimary + toBackup + [control] {
                while sockets.count <= Int(socket.fd.raw) { sockets.append(nil) }
                sockets[Int(socket.fd.raw)] = socket
                socket.wantsWrite = true
                try poller.add(socket.fd.raw, read: true, write: true)
            }
        } catch { throw Failure(error) }
    }

    deinit { chunk.deallocate() }

    private static func socket(_ address: Address, _ voter: Int, isPrimary: Bool)
        throws(SystemError) -> Socket
    {
        Socket(
            fd: try Sockets.connect(host: address.host, port: address.port), voter: voter,
            isPrimary: isPrimary)
    }

    var ballotsPerSecond: Double { Double(ballots) / seconds }

    /// For programs; `more` follows.
    func figures(_ more: [(key: String, value: JSON)] = []) -> JSON {
        .object(
            [
                ("voters", .integer(load.voters)), ("pipeline", .integer(load.pipeline)),
                ("single", .bool(load.isSingle)), ("ballots", .integer(ballots)),
                ("seconds", .number(seconds, digits: 3)),
                ("ballots_per_s", .integer(Int(ballotsPerSecond))), ("votes", .integer(results)),
                ("ballot_us", ballotTimes.json), ("result_us", resultTimes.json),
            ] + more)
    }

    // MARK: Phases

    func join() throws(Failure) {
        for socket in toPrimary {
            let name = String(decoding: names[socket.voter], as: UTF8.self)
            RESP.command(["HELLO", "3"], into: &socket.output)
            RESP.command(["VOTE.JOIN", name], into: &socket.output)
            mark(socket)
        }
        let deadline = Deadline(milliseconds: 60_000)
        while joined < load.voters {
            try turn()
            guard !deadline.hasPassed else {
                throw Failure("only \(joined) of \(load.voters) voters could join within a minute")
            }
        }
    }

    func run() throws(Failure) {
        let watch = Stopwatch()
        let secondsMax = load.seconds.map { Double($0) } ?? .infinity
        var nextWord = 1.0
        var (last, sinceLast) = (results, Stopwatch())
        open(count: votesOpen)
        while true {
            try turn()
            let elapsed = watch.seconds
            let isOver = elapsed >= secondsMax || load.votes > 0 && opened >= load.votes
            if results >= Int(opened), isOver, !isAnyInFlight { break }
            let missing = votesOpen - (Int(opened) - results)
            if !isOver, missing > 0 { open(count: missing) }
            if results > last { (last, sinceLast) = (results, Stopwatch()) }
            guard sinceLast.seconds < 60 else { throw Failure("no result for a minute") }
            if load.isTalking, elapsed >= nextWord {
                nextWord += 1
                let rate = Text.grouped(UInt64(Double(ballots) / elapsed))
                Terminal.message("\(Int(elapsed)) s: \(ballots) ballots, \(rate)/s")
            }
        }
        seconds = watch.seconds
    }

    /// A vote's result may come before the OK to its last ballots, on another voter's connection.
    private var isAnyInFlight: Bool { toPrimary.contains { $0.inFlight > 0 } }

    private var votesOpen: Int { load.opensAhead ? 2 * load.pipeline : load.pipeline }

    private func open(count: Int) {
        var count = UInt64(count)
        if load.votes > 0 { count = min(count, load.votes - min(load.votes, opened)) }
        for _ in 0..<count {
            RESP.command(["VOTE.OPEN", "bench"], into: &control.output)
            openedAt.append(Clock.monotonicNanoseconds())
        }
        opened += count
        mark(control)
    }

    private static let farewell = "left"

    /// Takes the voters off the roll, as far as the primary still answers.
    func leave() {
        isLeaving = true
        for socket in toPrimary {
            RESP.command(["VOTE.LEAVE"], into: &socket.output)
            // Behind what may still be on its way.
            RESP.command(["ECHO", Self.farewell], into: &socket.output)
            mark(socket)
        }
        let deadline = Deadline(milliseconds: 5_000)
        while left < load.voters, !deadline.hasPassed {
            do throws(Failure) { try turn() } catch { return }
        }
    }

    /// Ends the voters' connections, so that others may join under their names.
    func hangUp() {
        for socket in toPrimary + toBackup + [control] {
            poller.remove(socket.fd.raw)
            sockets[Int(socket.fd.raw)] = nil
        }
        toPrimary = []
        toBackup = []
    }

    // MARK: Turns

    private func turn() throws(Failure) {
        try interrupts.check()
        flush()
        let count = poller.wait(milliseconds: 100)
        now = Clock.monotonicNanoseconds()
        for index in 0..<count {
            let ready = poller.ready(at: index)
            guard let socket = sockets[Int(ready.fd)] else { continue }
            if ready.canWrite, socket.wantsWrite { mark(socket) }
            if ready.canRead { try receive(socket) }
        }
        flush()
        if errors > 0, !isLeaving { throw Failure("a server refused: \(firstError)") }
    }

    private func mark(_ socket: Socket) {
        guard !socket.isDirty else { return }
        socket.isDirty = true
        dirty.append(socket)
    }

    private func flush() {
        for socket in dirty {
            socket.isDirty = false
            var sent = 0
            sending: while sent < socket.output.count {
                switch IO.send(socket.fd.raw, socket.output, from: sent) {
                case .bytes(let count): sent += count
                case .wouldBlock, .end, .failed: break sending
                }
            }
            if sent == socket.output.count {
                socket.output.removeAll(keepingCapacity: true)
            } else {
                socket.output.removeFirst(sent)
            }
            let wantsWrite = !socket.output.isEmpty
            if wantsWrite != socket.wantsWrite {
                socket.wantsWrite = wantsWrite
                poller.modify(socket.fd.raw, read: true, write: wantsWrite)
            }
        }
        dirty.removeAll(keepingCapacity: true)
    }

    private func receive(_ socket: Socket) throws(Failure) {
        switch IO.read(socket.fd.raw, into: chunk) {
        case .wouldBlock: return
        case .end, .failed: throw Failure("a server closed a voter's connection")
        case .bytes(let count):
            let bytes = UnsafeBufferPointer(rebasing: chunk.bindMemory(to: UInt8.self)[..<count])
            if socket.input.isEmpty {
                let used = try parse(bytes.span, socket)
                if used < count { socket.input.append(contentsOf: bytes[used...]) }
            } else {
                socket.input.append(contentsOf: bytes)
                let input = socket.input
                let used = try parse(input.span, socket)
                socket.input.removeFirst(used)
            }
        }
    }

    // MARK: Replies

    /// Takes whole replies and pushes; only the few that can come are known here.
    private func parse(_ bytes: Span<UInt8>, _ socket: Socket) throws(Failure) -> Int {
        var start = 0
        while start < bytes.count {
            switch bytes[start] {
            case UInt8(ascii: "+"), UInt8(ascii: ":"), UInt8(ascii: "-"):
                guard let end = Self.lineEnd(bytes, start) else { return start }
                onLine(bytes, start, end, socket)
                start = end
            case UInt8(ascii: ">"):
                guard let next = try onPush(bytes, start, socket) else { return start }
                start = next
            default:
                do throws(DecodeError) {
                    guard let (value, next) = try RESPValue.parse(bytes, from: start) else {
                        return start
                    }
                    if value.text == Self.farewell { left += 1 }
                    start = next
                } catch { throw Failure("a server sent nonsense: \(error.text)", .software) }
            }
        }
        return start
    }

    private func onLine(_ bytes: Span<UInt8>, _ start: Int, _ end: Int, _ socket: Socket) {
        if bytes[start] == UInt8(ascii: "-") {
            var text: [UInt8] = []
            for index in start..<end { text.append(bytes[index]) }
            if errors == 0 { firstError = String(decoding: text.dropLast(2), as: UTF8.self) }
            errors += 1
            return
        }
        guard socket.voter >= 0 else { return }
        guard socket.isPrimary else {
            held += 1
            return
        }
        guard socket.sentHead < socket.sent.count else {
            joined += 1
            return
        }
        ballotTimes.add(nanoseconds: now - socket.sent[socket.sentHead])
        ballots += 1
        socket.sentHead += 1
        if socket.sentHead == socket.sent.count {
            socket.sent.removeAll(keepingCapacity: true)
            socket.sentHead = 0
        }
        guard socket.keptHead < socket.kept.count, !isLeaving else { return }
        send(socket.kept[socket.keptHead], socket)
        socket.keptHead += 1
        if socket.keptHead == socket.kept.count {
            socket.kept.removeAll(keepingCapacity: true)
            socket.keptHead = 0
        }
    }

    /// `>4 $4 vote :id $n question :view` and `>5 $6 result :id :yes :no :view`; nil when it is
    /// not all there.
    private func onPush(_ bytes: Span<UInt8>, _ start: Int, _ socket: Socket) throws(Failure)
        -> Int?
    {
        guard let kind = Self.lineEnd(bytes, start), let word = Self.lineEnd(bytes, kind),
            let afterWord = Self.lineEnd(bytes, word), let afterID = Self.lineEnd(bytes, afterWord)
        else { return nil }
        let isVote = bytes[word] == UInt8(ascii: "v") && bytes[word + 1] == UInt8(ascii: "o")
        guard isVote || bytes[word] == UInt8(ascii: "r") else {
            // A view, which does not concern a voter that is none.
            guard let (_, next) = try? RESPValue.parse(bytes, from: start) else { return nil }
            return next
        }
        // Behind the id: a question of two lines and the view, or yes, no and the view.
        var end = afterID
        for _ in 0..<3 {
            guard let next = Self.lineEnd(bytes, end) else { return nil }
            end = next
        }
        let vote = try Self.number(bytes, afterWord + 1, afterID - 2)
        if isVote { cast(vote, socket) } else { onResult(vote, socket) }
        return end
    }

    /// The digits from `start` to `end`; no more than make an `Int` for sure.
    private static func number(_ bytes: Span<UInt8>, _ start: Int, _ end: Int) throws(Failure)
        -> Int
    {
        var number = 0
        var isNumber = start < end && end - start <= 18
        var index = start
        while isNumber, index < end {
            isNumber = (48...57).contains(bytes[index])
            if isNumber { number = number * 10 + Int(bytes[index] - 48) }
            index += 1
        }
        guard isNumber else { throw Failure("a server sent nonsense: no vote's number", .software) }
        return number
    }

    private func cast(_ vote: Int, _ socket: Socket) {
        guard !isLeaving else { return }
        if firstVote == nil { firstVote = vote }
        if load.opensAhead, socket.inFlight >= load.pipeline {
            socket.kept.append(vote)
        } else {
            send(vote, socket)
        }
    }

    private func send(_ vote: Int, _ socket: Socket) {
        append(vote, socket)
        socket.sent.append(now)
        mark(socket)
        guard !toBackup.isEmpty else { return }
        let second = toBackup[socket.voter]
        append(vote, second)
        mark(second)
    }

    private static let castHead = Array("*4\r\n$9\r\nVOTE.CAST\r\n$".utf8)
    private static let castYes = Array("$3\r\nyes\r\n".utf8)
    private static let castNo = Array("$2\r\nno\r\n".utf8)

    private func append(_ vote: Int, _ socket: Socket) {
        var digits = 1
        var rest = vote
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        socket.output.append(contentsOf: Self.castHead)
        RESP.digits(UInt64(digits), into: &socket.output)
        socket.output.append(13)
        socket.output.append(10)
        RESP.digits(UInt64(vote), into: &socket.output)
        socket.output.append(13)
        socket.output.append(10)
        RESP.bulk(names[socket.voter], into: &socket.output)
        let isYes = (vote ^ socket.voter) & 1 == 0
        socket.output.append(contentsOf: isYes ? Self.castYes : Self.castNo)
    }

    private func onResult(_ vote: Int, _ socket: Socket) {
        guard let firstVote, vote >= firstVote, vote - firstVote < openedAt.count else { return }
        resultTimes.add(nanoseconds: now - openedAt[vote - firstVote])
        // The last voter to hear of it is as good as any to count it once.
        if socket.voter == load.voters - 1 { results += 1 }
    }

    private static func lineEnd(_ bytes: Span<UInt8>, _ start: Int) -> Int? {
        var index = start
        while index + 1 < bytes.count {
            if bytes[index] == 13, bytes[index + 1] == 10 { return index + 2 }
            index += 1
        }
        return nil
    }
}
