import Arguments
import Client
import Linux
import Wire

/// `pollctl bench --checkpoint N --data DIR`: what a checkpoint of a service with N voters takes,
/// and how long it holds up the loops of a pair that goes on counting ballots, among them some of
/// voters that nobody has heard of before.
struct CheckpointBench {
    let voters: Int
    let folder: String
    let isJSON: Bool

    /// Sent together; the larger, the longer the turn that takes them.
    private static let fillCommands = 2_000
    private static let windowCommands = 400
    private static let newOfAWindow = 4
    /// A server's longest turn is of the last two seconds: before that it is the filling's.
    private static let settlingSeconds = 2.5
    private static let secondsMax = 300.0

    func run() throws(Failure) {
        let path = try DataPair.blank(folder)
        try Household.measure(purpose: "bench") { (household) throws(Failure) in
            try run(household, path)
        }
    }

    private func run(_ household: Household, _ path: String) throws(Failure) {
        let pair = try DataPair(household, path, sync: "always")
        defer { pair.end() }
        let flood: Flood
        do throws(SystemError) {
            flood = try Flood(pair.primary.askedAt)
        } catch { throw Failure(error) }
        // Some are left to come while the checkpoint is written.
        let known = voters - voters / 20
        let clock = Stopwatch()
        var vote = try flood.open()
        var next = 0
        while next < known {
            try household.checkInterrupt()
            let end = min(known, next + Self.fillCommands)
            try flood.cast(vote, Array(next..<end))
            next = end
        }
        let filling = clock.seconds
        let start = try pair.reports()
        var (before, during) = ([Longest(), Longest()], [Longest(), Longest()])
        var reports = start
        let counting = Stopwatch()
        var (voted, lastLook) = (known, Stopwatch())
        // Ballots until both have written one that was begun with all these voters.
        while !zip(start, reports).allSatisfy({
            $1.number("checkpoints") > $0.number("checkpoints")
        }) {
            try household.checkInterrupt()
            guard clock.seconds < Self.secondsMax else {
                throw Failure(
                    "no checkpoint within \(Int(Self.secondsMax)) s; see \(pair.messages)")
            }
            if voted + Self.windowCommands > known {
                vote = try flood.open()
                voted = 0
            }
            var places = Array(voted..<voted + Self.windowCommands)
            voted += places.count
            for index in 0..<Self.newOfAWindow where next < voters {
                places[index * (Self.windowCommands / Self.newOfAWindow)] = next
                next += 1
            }
            try flood.cast(vote, places)
            guard lastLook.milliseconds > 150 else { continue }
            reports = try pair.reports()
            for (index, report) in reports.enumerated() {
                // Begun: all of what follows may be its doing.
                if report.number("checkpoint_running") == 0,
                    report.number("checkpoints") == start[index].number("checkpoints")
                {
                    if counting.seconds > Self.settlingSeconds { before[index].add(report) }
                } else {
                    during[index].add(report)
                }
            }
            lastLook = Stopwatch()
        }
        try show(filling, before, during, start, reports, sizes(path))
    }

    /// Microseconds; what other processes and the disk take is in `time` alone.
    private struct Longest {
        var time = 0
        var processor = 0

        mutating func add(_ report: ServerReport) {
            time = max(time, report.number("loop_longest_turn_us"))
            processor = max(processor, report.number("loop_longest_turn_cpu_us"))
        }

        var text: String {
            "\(Text.fixed(Double(time) / 1_000, 1)) ms (processor time at most "
                + "\(Text.fixed(Double(processor) / 1_000, 1)) ms)"
        }
    }

    /// Bytes of each replica's newest checkpoint.
    private func sizes(_ path: String) -> [Int] {
        DataPair.roles.map { role in
            let names = (try? Files.list("\(path)/\(role)")) ?? []
            let files = names.filter { $0.hasPrefix("checkpoint-") }
            return files.compactMap { try? Files.readWhole("\(path)/\(role)/\($0)").count }.max()
                ?? 0
        }
    }

    private func show(
        _ filling: Double, _ before: [Longest], _ during: [Longest], _ start: [ServerReport],
        _ end: [ServerReport], _ sizes: [Int]
    ) throws(Failure) {
        if !isJSON {
            try Output.print(
                "\(voters) voters; the first \(voters - voters / 20) ballots took "
                    + "\(Text.fixed(filling, 1)) s")
        }
        var replicas: [JSON] = []
        for (index, role) in DataPair.roles.enumerated() {
            let time = end[index].number("checkpoint_ms")
            let key = "loop_turns_over_10ms"
            let over = end[index].number(key) - start[index].number(key)
            replicas.append(
                .object([
                    ("role", .string(role)), ("checkpoint_ms", .integer(time)),
                    ("checkpoint_bytes", .integer(sizes[index])),
                    ("longest_turn_before_us", .integer(before[index].time)),
                    ("longest_turn_before_cpu_us", .integer(before[index].processor)),
                    ("longest_turn_during_us", .integer(during[index].time)),
                    ("longest_turn_during_cpu_us", .integer(during[index].processor)),
                    ("turns_over_10ms", .integer(over)),
                ]))
            if isJSON { continue }
            try Output.print(
                "  \(role): a checkpoint of \(Text.grouped(UInt64(sizes[index]))) bytes in "
                    + "\(time) ms; longest turn \(during[index].text), before it "
                    + "\(before[index].text); \(over) turns over 10 ms in all")
        }
        guard isJSON else { return }
        try Output.print(
            JSON.object([("voters", .integer(voters)), ("replicas", .array(replicas))]).text)
    }
}

/// Commands on one connection, many at a time; the replies are counted.
private final class Flood {
    private let fd: FileDescriptor
    private var poller: Poller
    private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    private var votes = 0

    init(_ address: Address) throws(SystemError) {
        fd = try Sockets.connect(host: address.host, port: address.port)
        poller = try Poller(eventsPerWaitMax: 1)
        try poller.add(fd.raw, read: true, write: true)
    }

    deinit { chunk.deallocate() }

    /// Gives the new vote's number; anybody may cast a ballot in it.
    func open() throws(Failure) -> Int {
        var bytes: [UInt8] = []
        if votes > 0 { RESP.command(["VOTE.CLOSE", "\(votes)"], into: &bytes) }
        RESP.command(["VOTE.OPEN", "bench", "ROLL", "open"], into: &bytes)
        try send(bytes, replies: votes > 0 ? 2 : 1)
        votes += 1
        return votes
    }

    func cast(_ vote: Int, _ voters: [Int]) throws(Failure) {
        var bytes: [UInt8] = []
        for voter in voters {
            RESP.command(["VOTE.CAST", "\(vote)", "voter-\(voter)", "yes"], into: &bytes)
        }
        try send(bytes, replies: voters.count)
    }

    private func send(_ bytes: [UInt8], replies: Int) throws(Failure) {
        var (sent, lines) = (0, 0)
        let deadline = Deadline(milliseconds: 60_000)
        while sent < bytes.count || lines < replies {
            poller.modify(fd.raw, read: true, write: sent < bytes.count)
            _ = poller.wait(milliseconds: 100)
            guard !deadline.hasPassed else { throw Failure("no reply within a minute") }
            if sent < bytes.count, case .bytes(let count) = IO.send(fd.raw, bytes, from: sent) {
                sent += count
            }
            switch IO.read(fd.raw, into: chunk) {
            case .wouldBlock: continue
            case .end, .failed: throw Failure("the server closed the connection")
            case .bytes(let count):
                let new = chunk.bindMemory(to: UInt8.self)[..<count]
                if new.contains(UInt8(ascii: "-")) {
                    throw Failure("the server refused: \(String(decoding: new, as: UTF8.self))")
                }
                for byte in new where byte == UInt8(ascii: "\n") { lines += 1 }
            }
        }
    }
}
