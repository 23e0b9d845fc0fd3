package import Linux
import Wire

/// The shell around a `VoterSession`: sockets, the log file, the terminal, the clock.
package final class VoterLoop {
    private final class Socket {
        let id: Int
        let fd: FileDescriptor
        var isConnected = false
        var input: [UInt8] = []
        var output: [UInt8] = []
        var wantsWrite = true

        init(id: Int, fd: consuming FileDescriptor) {
            self.id = id
            self.fd = fd
        }
    }

    private var session: VoterSession
    private var outbox = VoterSession.Outbox()
    private let log: ResultLog
    private let isQuiet: Bool
    private let isAsking: Bool
    private var poller: Poller
    private let signals: SignalQueue
    private var sockets: [Socket] = []
    private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    private var failures: [(id: Int, reason: String)] = []
    private var exitCode: Int32?
    private var isDiskRefusing = false
    private var nextWriteTry: UInt64 = 0
    private var terminal = TerminalBallots()

    private static let outputBytesMax = 1 << 20

    package init(
        _ settings: VoterSession.Settings, log: ResultLog, isQuiet: Bool
    ) throws(SystemError) {
        self.log = log
        self.isQuiet = isQuiet
        isAsking = settings.policy == .ask
        session = VoterSession(settings, lastLine: log.lastLine, seed: Entropy.next())
        signals = try SignalQueue([Signals.terminate, Signals.interrupt])
        poller = try Poller(eventsPerWaitMax: 16)
        try poller.add(signals.fd.raw)
        // A plain file cannot be polled, and need not be: it is always ready.
        if isAsking { terminal.isPolled = (try? poller.add(0)) != nil }
    }

    deinit { chunk.deallocate() }

    private var milliseconds: UInt64 { Clock.monotonicNanoseconds() / 1_000_000 + 1 }

    /// Runs until the session ends, and gives the exit code.
    package func run() -> Int32 {
        step(nil)
        while exitCode == nil {
            let now = milliseconds
            var due = session.nextDue
            if log.isBehind { due = min(due, nextWriteTry) }
            let count = poller.wait(milliseconds: CInt(clamping: due > now ? due - now : 0))
            for index in 0..<count { onReady(poller.ready(at: index)) }
            if isAsking { askAtTerminal() }
            if log.isBehind, milliseconds >= nextWriteTry { retryLog() }
            step(nil)
        }
        return finish()
    }

    private func finish() -> Int32 {
        for socket in sockets { flush(socket) }
        guard log.isBehind else { return exitCode ?? 0 }
        if let error = log.retry() {
            message("results are missing from the log: \(error)")
            return 74
        }
        return exitCode ?? 0
    }

    /// Gives the session an event, and the time before it.
    private func step(_ event: VoterSession.Event?) {
        session.step(.time(milliseconds: milliseconds), into: &outbox)
        if let event { session.step(event, into: &outbox) }
        carryOut()
        while let failure = failures.popLast() {
            session.step(.disconnected(failure.id, reason: failure.reason), into: &outbox)
            carryOut()
        }
    }

    private func carryOut() {
        let work = outbox
        outbox = VoterSession.Outbox()
        for result in work.results { write(result) }
        for dial in work.dial { self.dial(dial) }
        for send in work.send { queue(send) }
        for socket in sockets where !socket.output.isEmpty { flush(socket) }
        for id in work.close { close(id) }
        for text in work.messages where !isQuiet || !text.hasPrefix("joined") { message(text) }
        terminal.add(work.questions, logged: session.logged)
        switch work.exit {
        case .done: exitCode = exitCode ?? 0
        case .nameInUse(let text):
            message("the name is in use: \(text); give another --name")
            exitCode = 69
        case .foreignLog(let text):
            message("\(log.path): \(text)")
            exitCode = 74
        case nil: break
        }
    }

    private func message(_ text: String) { Terminal.message("pollclient: \(text)") }

    // MARK: The log

    private func write(_ result: VoteResult) {
        if !isQuiet { Terminal.print(result.summary) }
        report(log.append(result))
    }

    private func retryLog() { report(log.retry()) }

    private func report(_ error: SystemError?) {
        if let error {
            nextWriteTry = milliseconds + 1_000
            if !isDiskRefusing {
                isDiskRefusing = true
                message("the log cannot be written (\(error)); trying again every second")
            }
        } else if isDiskRefusing {
            isDiskRefusing = false
            message("the log can be written again")
        }
    }

    // MARK: Sockets

    private func dial(_ dial: VoterSession.Outbox.Dial) {
        do {
            let fd = try Sockets.connect(host: dial.address.host, port: dial.address.port)
            try poller.add(fd.raw, read: true, write: true)
            sockets.append(Socket(id: dial.connection, fd: fd))
        } catch {
            failures.append((dial.connection, "\(error)"))
        }
    }

    private func queue(_ send: VoterSession.Outbox.Send) {
        guard let socket = sockets.first(where: { $0.id == send.connection }) else { return }
        socket.output += send.bytes
        if socket.output.count > Self.outputBytesMax { fail(socket, "it does not read") }
    }

    private func flush(_ socket: Socket) {
        guard socket.isConnected, sockets.contains(where: { $0 === socket }) else { return }
        var sent = 0
        sending: while sent < socket.output.count {
            switch IO.send(socket.fd.raw, socket.output, from: sent) {
            case .bytes(let count): sent += count
            case .wouldBlock: break sending
            case .end, .failed:
                fail(socket, "the connection broke")
                return
            }
        }
        socket.output.removeFirst(sent)
        let wantsWrite = !socket.output.isEmpty
        if wantsWrite != socket.wantsWrite {
            socket.wantsWrite = wantsWrite
            poller.modify(socket.fd.raw, read: true, write: wantsWrite)
        }
    }

    private func close(_ id: Int) {
        guard let socket = sockets.first(where: { $0.id == id }) else { return }
        poller.remove(socket.fd.raw)
        sockets.removeAll { $0 === socket }
    }

    private func fail(_ socket: Socket, _ reason: String) {
        guard sockets.contains(where: { $0 === socket }) else { return }
        close(socket.id)
        failures.append((socket.id, reason))
    }

    private func onReady(_ ready: Poller.Ready) {
        if ready.fd == signals.fd.raw {
            while signals.next() != nil {
                if exitCode != nil || terminal.isLeaving { exitCode = 0 }
                terminal.isLeaving = true
                step(.leave)
            }
            return
        }
        if isAsking, ready.fd == 0 {
            terminal.isReadable = true
            return
        }
        guard let socket = sockets.first(where: { $0.fd.raw == ready.fd }) else { return }
        if !socket.isConnected {
            guard ready.canWrite else { return }
            if let error = Sockets.connectError(socket.fd.raw, "") {
                fail(socket, "\(error)")
                step(nil)
                return
            }
            socket.isConnected = true
            step(.connected(socket.id))
            flush(socket)
            return
        }
        if ready.canWrite { flush(socket) }
        if ready.canRead { receive(socket) }
    }

    private func receive(_ socket: Socket) {
        switch IO.read(socket.fd.raw, into: chunk) {
        case .wouldBlock: return
        case .end, .failed:
            fail(socket, "the connection was closed")
            step(nil)
        case .bytes(let count):
            socket.input.append(contentsOf: chunk[..<count])
            var used = 0
            do {
                let input = socket.input
                while let (value, next) = try RESPValue.parse(input.span, from: used) {
                    used = next
                    step(.received(socket.id, value))
                }
                socket.input.removeFirst(used)
            } catch {
                fail(socket, "it does not speak the protocol: \(error.text)")
                step(nil)
            }
        }
    }

    // MARK: The terminal

    private func askAtTerminal() {
        for answer in terminal.exchange(logged: session.logged) {
            step(.answered(vote: answer.vote, yes: answer.yes))
        }
        if terminal.hasEnded, !terminal.hasSaidEnd {
            terminal.hasSaidEnd = true
            if terminal.isPolled { poller.remove(0) }
            message("no more answers at the terminal: abstaining from now on")
        }
    }
}
