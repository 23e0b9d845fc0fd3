package import Linux
import Wire

/// How much a client says on standard error.
package enum Verbosity: Sendable {
    case quiet
    case normal
    case verbose
}

/// Carries out what a `VoterSession` asks: connections, the log, the terminal, the clock. One
/// thread; a turn is wait, read, step, then send, write and say.
package struct ClientLoop: ~Copyable {
    private var session: VoterSession
    private var log: ResultLog
    private let program: String
    private let verbosity: Verbosity
    private var poller: Poller
    private let signals: SignalQueue
    private var connections: [Connection] = []
    private var resolution: Resolution?
    /// The addresses of connections whose host is being looked up.
    private var resolving: [VoterOutbox.Dial] = []
    private var input: TypedLines?
    private var outbox = VoterOutbox()
    private var ending: Ending?
    private var chunk = [UInt8](repeating: 0, count: 16 << 10)

    /// Leave; at the second one, at once.
    private static let leaveSignals = [Signals.interrupt, Signals.terminate]

    package init(
        program: String,
        settings: VoterSession.Settings,
        log: consuming ResultLog,
        verbosity: Verbosity
    ) throws(SystemError) {
        let signals = try SignalQueue(Self.leaveSignals)
        let poller = try Poller(eventsPerWaitMax: 32)
        try poller.add(signals.fd.raw)
        var settings = settings
        var input: TypedLines?
        if settings.policy == .ask {
            input = TypedLines()
            settings.isInputEchoed = input?.isTerminal ?? true
        }
        if log.wasTorn {
            let line = (log.last?.id ?? 0) + 1
            Self.say(
                .news("\(log.path): line \(line) was incomplete and has been cut off"),
                program,
                verbosity
            )
        }
        session = VoterSession(
            settings: settings,
            instance: Instance(max(1, Entropy.next())),
            seed: Entropy.next(),
            last: log.last
        )
        self.program = program
        self.verbosity = verbosity
        self.input = input
        self.log = log
        self.signals = signals
        self.poller = poller
    }

    /// Runs until the session ends.
    package mutating func run() throws(SystemError) -> Ending {
        var readyCount = 0
        while true {
            session.step(.time(Self.milliseconds()), into: &outbox)
            for index in 0..<readyCount { try onReady(poller.ready(at: index)) }
            readInput()
            try carryOut()
            if let ending { return ending }
            input?.watch(poller, isAsking: session.isAsking)
            readyCount = poller.wait(milliseconds: timeout())
        }
    }

    private static func milliseconds() -> UInt64 { Clock.monotonicNanoseconds() / 1_000_000 }

    private func timeout() -> CInt {
        guard let wakeAt = session.wakeAt else { return -1 }
        let now = Self.milliseconds()
        return wakeAt > now ? CInt(min(wakeAt - now, 60_000)) : 0
    }

    // MARK: In

    private mutating func onReady(_ ready: Poller.Ready) throws(SystemError) {
        if ready.fd == signals.fd.raw {
            while signals.next() != nil { session.step(.leave, into: &outbox) }
        } else if input != nil, TypedLines.isInput(ready.fd) {
            input?.read()
        } else if ready.fd == resolution?.fd {
            for answer in resolution?.take() ?? [] { try onResolved(answer) }
        } else if let connection = connections.first(where: { $0.fd == ready.fd }) {
            if !connection.isConnected {
                try onDialed(connection)
            } else {
                onReady(connection, ready)
            }
        }
    }

    private mutating func onDialed(_ connection: Connection) throws(SystemError) {
        if let error = Sockets.connectError(connection.fd, "") {
            do {
                if try connection.tryNext() {
                    try poller.add(connection.fd, read: false, write: true)
                } else {
                    drop(connection, Self.reason(error))
                }
            } catch {
                drop(connection, Self.reason(error))
            }
            return
        }
        connection.isConnected = true
        poller.modify(connection.fd, read: true, write: false)
        session.step(.connected(connection.id), into: &outbox)
    }

    private mutating func onReady(_ connection: Connection, _ ready: Poller.Ready) {
        if ready.canRead {
            let flow = connection.receive(&chunk)
            do {
                // What came before the end still counts.
                while let value = try connection.next() {
                    if case .push(let fields) = value {
                        session.step(.push(connection.id, fields), into: &outbox)
                    } else {
                        session.step(.reply(connection.id, value), into: &outbox)
                    }
                }
            } catch {
                session.step(.malformed(connection.id, error), into: &outbox)
                return
            }
            if case .ended(let reason) = flow {
                drop(connection, reason)
                return
            }
        }
        if ready.canWrite { flush(connection) }
    }

    private mutating func readInput() {
        while input != nil, session.isAsking || input?.isTerminal == true {
            switch input?.next() ?? .nothing {
            case .nothing: return
            case .line(let line): session.step(.line(line), into: &outbox)
            case .ended:
                session.step(.inputEnded, into: &outbox)
                input?.watch(poller, isAsking: false)
                input = nil
            }
        }
    }

    /// Forgets a connection that has ended by itself and tells the session.
    private mutating func drop(_ connection: Connection, _ reason: String) {
        forget(connection.id)
        session.step(.closed(connection.id, reason: reason), into: &outbox)
    }

    private mutating func forget(_ id: LinkID) {
        resolving.removeAll { $0.link == id }
        guard let index = connections.firstIndex(where: { $0.id == id }) else { return }
        poller.remove(connections[index].fd)
        connections.remove(at: index)
    }

    // MARK: Out

    /// Does what the session has asked for, and what it asks for upon that.
    private mutating func carryOut() throws(SystemError) {
        while outbox != VoterOutbox(), ending == nil {
            let work = outbox
            outbox.removeAll()
            for item in work.send {
                connections.first { $0.id == item.link }?.enqueue(item.command)
            }
            for connection in connections where connection.hasOutput { flush(connection) }
            for link in work.close { forget(link) }
            for item in work.dial { try dial(item) }
            append(work.append)
            for text in work.show { Self.show(text) }
            for notice in work.notices { Self.say(notice, program, verbosity) }
            ending = work.ending
        }
    }

    private mutating func flush(_ connection: Connection) {
        guard connection.isConnected else { return }
        switch connection.flush() {
        case .open:
            guard connection.isWatchedForOutput != connection.hasOutput else { return }
            connection.isWatchedForOutput = connection.hasOutput
            poller.modify(connection.fd, read: true, write: connection.hasOutput)
        case .ended(let reason): drop(connection, reason)
        }
    }

    private mutating func append(_ results: [PollResult]) {
        var written: UInt64?
        for result in results {
            do {
                try log.append(result)
                written = result.id
            } catch {
                if let written { session.step(.logged(through: written), into: &outbox) }
                session.step(
                    .logFailed("cannot append to \(log.path): \(Self.reason(error))"),
                    into: &outbox
                )
                return
            }
        }
        if let written { session.step(.logged(through: written), into: &outbox) }
    }

    // MARK: Dialing

    private mutating func dial(_ item: VoterOutbox.Dial) throws(SystemError) {
        guard !Resolver.isNumeric(item.address.host) else {
            begin(item, hosts: [item.address.host])
            return
        }
        let resolution = try watchedResolution()
        resolving.append(item)
        do {
            try resolution.ask(item.address.host, for: item.link)
        } catch {
            resolving.removeAll { $0.link == item.link }
            session.step(.closed(item.link, reason: Self.reason(error)), into: &outbox)
        }
    }

    private mutating func watchedResolution() throws(SystemError) -> Resolution {
        if let resolution { return resolution }
        let fresh = try Resolution()
        try poller.add(fresh.fd)
        resolution = fresh
        return fresh
    }

    private mutating func onResolved(_ answer: Resolution.Answer) throws(SystemError) {
        guard let index = resolving.firstIndex(where: { $0.link == answer.link }) else { return }
        let item = resolving.remove(at: index)
        if answer.hosts.isEmpty {
            session.step(.closed(item.link, reason: "unknown host"), into: &outbox)
        } else {
            begin(item, hosts: answer.hosts)
        }
    }

    /// Begins to connect; on this very host that may fail at once.
    private mutating func begin(_ item: VoterOutbox.Dial, hosts: [String]) {
        var rest = hosts[...]
        while !rest.isEmpty {
            do {
                let connection = try Connection(item.link, item.address, hosts: Array(rest))
                try poller.add(connection.fd, read: false, write: true)
                connections.append(connection)
                return
            } catch {
                rest = rest.dropFirst()
                if rest.isEmpty {
                    session.step(.closed(item.link, reason: Self.reason(error)), into: &outbox)
                }
            }
        }
    }

    // MARK: People

    private static func reason(_ error: SystemError) -> String {
        SystemError(error.call, code: error.code).description
    }

    /// A reader that has gone away, or a full disk behind standard output, must not keep this
    /// client from voting and logging.
    private static func show(_ text: String) {
        do { try IO.writeAll(1, Array(text.utf8)) } catch {}
    }

    private static func say(_ notice: Notice, _ program: String, _ verbosity: Verbosity) {
        switch (notice, verbosity) {
        case (.trouble(let text), _), (.news(let text), .normal), (.news(let text), .verbose),
            (.detail(let text), .verbose):
            Terminal.message("\(program): \(text)")
        case (.news, .quiet), (.detail, .quiet), (.detail, .normal): break
        }
    }
}
