import Linux
import Synchronization
import Wire

/// The thread that exchanges heartbeats with other replicas, over connections of its own. It
/// vouches for the main loop, not for itself: when that has not turned since the last beat, no
/// beat is sent.
///
/// A beat is the command `BEAT INSTANCE`. Who makes the direct connection between two replicas dials
/// here, too; then both ends send one an interval.
final class Heartbeats: Sendable {
    struct Target: Equatable, Sendable {
        var instance: Instance
        var address: Address
    }

    private struct Shared {
        var targets: [Target] = []
        /// Accepted by the main loop, which read the first beat.
        var handedOver: [(fd: CInt, instance: Instance)] = []
        var heard: [Instance] = []
        /// Replicas with which none are exchanged: a test hook.
        var cut: [Instance] = []
        /// The connections to them stand all the same.
        var isCutSilent = false
        /// Replicas to which a connection is to be made anew.
        var renewed: [Instance] = []
    }

    private let me: Instance
    private let intervalNanoseconds: UInt64
    private let shared = Mutex(Shared())
    /// Counts the main loop's turns.
    private let turns = Atomic<UInt64>(0)
    private let waker: Waker
    /// Wakes the main loop.
    private let mainWaker: Waker

    init(me: Instance, intervalMilliseconds: UInt64) throws(SystemError) {
        self.me = me
        intervalNanoseconds = intervalMilliseconds * 1_000_000
        waker = try Waker()
        mainWaker = try Waker()
    }

    // MARK: The main loop's side

    var mainFD: CInt { mainWaker.fd.raw }

    func start() throws(SystemError) {
        try Threads.detach { [self] in run() }
    }

    func noteTurn() { turns.add(1, ordering: .relaxed) }

    func setTargets(_ targets: [Target]) {
        let isNews = shared.withLock { shared in
            defer { shared.targets = targets }
            return shared.targets != targets
        }
        if isNews { waker.wake() }
    }

    func setCut(_ instances: [Instance], isSilent: Bool) {
        shared.withLock { ($0.cut, $0.isCutSilent) = (instances, isSilent) }
        waker.wake()
    }

    /// A way to this replica has just been found. A connection that was made before may have been
    /// cut meanwhile without either end's knowing, and its bytes be minutes on their way.
    func renew(_ instance: Instance) {
        shared.withLock { $0.renewed.append(instance) }
        waker.wake()
    }

    func handOver(_ fd: CInt, from instance: Instance) {
        shared.withLock { $0.handedOver.append((fd, instance)) }
        waker.wake()
    }

    /// Whom beats have come from since the last call.
    func takeHeard() -> [Instance] {
        mainWaker.drain()
        return shared.withLock { shared in
            defer { shared.heard = [] }
            return shared.heard
        }
    }

    // MARK: The thread's side

    /// A connection over which both ends send beats.
    private struct Line {
        var fd: CInt
        var instance: Instance
        var isDialed: Bool
        var isConnected: Bool
        var input: [UInt8] = []
    }

    private func run() {
        var poller: Poller
        do {
            poller = try Poller(eventsPerWaitMax: 16)
            try poller.add(waker.fd.raw)
        } catch {
            preconditionFailure("heartbeat thread: \(error)")
        }
        var lines: [Line] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 1)
        defer { chunk.deallocate() }
        var nextBeat = Clock.monotonicNanoseconds()
        var lastTurns = UInt64.max

        while true {
            let now = Clock.monotonicNanoseconds()
            let wait = nextBeat > now ? (nextBeat - now) / 1_000_000 + 1 : 0
            let count = poller.wait(milliseconds: CInt(min(wait, 60_000)))
            var dead: [CInt] = []
            var isWoken = false
            for index in 0..<count {
                let ready = poller.ready(at: index)
                guard ready.fd != waker.fd.raw else {
                    waker.drain()
                    isWoken = true
                    continue
                }
                if !receive(ready, &lines, &poller, chunk) { dead.append(ready.fd) }
            }
            adopt(&lines, &poller, &dead)
            let isDue = Clock.monotonicNanoseconds() >= nextBeat
            if isDue {
                nextBeat = max(nextBeat + intervalNanoseconds, Clock.monotonicNanoseconds())
                let turnsNow = turns.load(ordering: .relaxed)
                if turnsNow != lastTurns {
                    let cut = shared.withLock { $0.cut }
                    for line in lines where line.isConnected && !cut.contains(line.instance) {
                        if !send(line.fd) { dead.append(line.fd) }
                    }
                }
                lastTurns = turnsNow
            }
            for fd in dead where lines.contains(where: { $0.fd == fd }) {
                poller.remove(fd)
                _ = FileDescriptor(owning: fd)
                lines.removeAll { $0.fd == fd }
            }
            if isDue || isWoken { dial(&lines, &poller) }
        }
    }

    private func send(_ fd: CInt) -> Bool {
        var bytes: [UInt8] = []
        RESP.command(["BEAT", me.description], into: &bytes)
        switch IO.send(fd, bytes) {
        case .bytes(let count): return count == bytes.count
        case .wouldBlock, .end, .failed: return false
        }
    }

    /// Takes over what the main loop accepted, and drops what is no longer wanted.
    private func adopt(_ lines: inout [Line], _ poller: inout Poller, _ dead: inout [CInt]) {
        let news = shared.withLock { shared in
            defer { (shared.handedOver, shared.renewed) = ([], []) }
            return shared
        }
        for (fd, instance) in news.handedOver {
            // The other end has given up the older one.
            dead += lines.filter { !$0.isDialed && $0.instance == instance }.map(\.fd)
            guard !news.cut.contains(instance), lines.count < 64, (try? poller.add(fd)) != nil
            else {
                _ = FileDescriptor(owning: fd)
                continue
            }
            lines.append(Line(fd: fd, instance: instance, isDialed: false, isConnected: true))
            if !send(fd) { dead.append(fd) }
        }
        for line in lines {
            let isTarget = news.targets.contains { $0.instance == line.instance }
            let isStale = line.isDialed && (!isTarget || news.renewed.contains(line.instance))
            let isCut = news.cut.contains(line.instance) && !news.isCutSilent
            if isStale || isCut { dead.append(line.fd) }
        }
    }

    private func dial(_ lines: inout [Line], _ poller: inout Poller) {
        let (targets, cut) = shared.withLock { ($0.targets, $0.cut) }
        for target in targets {
            guard !cut.contains(target.instance),
                !lines.contains(where: { $0.isDialed && $0.instance == target.instance }),
                let socket = try? Sockets.connect(
                    host: target.address.host, port: target.address.port),
                (try? poller.add(socket.raw, read: true, write: true)) != nil
            else { continue }
            lines.append(
                Line(
                    fd: socket.release(), instance: target.instance, isDialed: true,
                    isConnected: false))
        }
    }

    private func receive(
        _ ready: Poller.Ready, _ lines: inout [Line], _ poller: inout Poller,
        _ chunk: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard let index = lines.firstIndex(where: { $0.fd == ready.fd }) else { return true }
        if !lines[index].isConnected {
            guard ready.canWrite else { return true }
            guard Sockets.connectError(ready.fd, "") == nil else { return false }
            lines[index].isConnected = true
            poller.modify(ready.fd, read: true, write: false)
            return send(ready.fd)
        }
        guard ready.canRead else { return true }
        switch IO.read(ready.fd, into: chunk) {
        case .wouldBlock: return true
        case .end, .failed: return false
        case .bytes(let count): lines[index].input.append(contentsOf: chunk[..<count])
        }
        return parse(&lines[index])
    }

    private func parse(_ line: inout Line) -> Bool {
        var parser = CommandParser()
        var start = 0
        while true {
            switch parser.parse(line.input.span, from: start) {
            case .incomplete:
                line.input.removeFirst(start)
                return true
            case .malformed: return false
            case .blank: start = parser.next
            case .command:
                start = parser.next
                // A dialed port may by now be another process's.
                guard parser.ranges.count == 2,
                    Instance(text: String(decoding: line.input[parser.ranges[1]], as: UTF8.self))
                        == line.instance
                else { return false }
                let instance = line.instance
                shared.withLock { shared in
                    guard !shared.cut.contains(instance) else { return }
                    if !shared.heard.contains(instance) { shared.heard.append(instance) }
                }
                mainWaker.wake()
            }
        }
    }
}
