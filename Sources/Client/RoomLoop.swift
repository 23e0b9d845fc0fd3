package import Linux
import Wire

/// Carries out what a `RoomSession` asks: the connection, the terminal, the clock. One thread; a
/// turn is wait, read, step, then send and say.
package struct RoomLoop: ~Copyable {
    private var session: RoomSession
    private let program: String
    private let verbosity: Verbosity
    private var links: LinkSet
    private let signals: SignalQueue
    private var input: TypedLines?
    private var outbox = RoomOutbox()
    private var ending: Ending?

    private static let leaveSignals = [Signals.interrupt, Signals.terminate]

    package init(
        program: String, settings: RoomSession.Settings, verbosity: Verbosity
    ) throws(SystemError) {
        let signals = try SignalQueue(Self.leaveSignals)
        let links = try LinkSet()
        try links.poller.add(signals.fd.raw)
        switch settings.source {
        case .terminal, .stream:
            input = TypedLines(readsAhead: false, lineBytesMax: RoomSession.lineBytesMax)
        case .arguments: break
        }
        session = RoomSession(settings: settings, seed: Entropy.next())
        self.program = program
        self.verbosity = verbosity
        self.signals = signals
        self.links = links
    }

    /// Runs until the session ends.
    package mutating func run() throws(SystemError) -> Ending {
        stepTime()
        while true {
            try carryOut()
            readInput()
            try carryOut()
            if let ending { return ending }
            let isReadable = input?.watch(links.poller, isAsking: session.isAsking) == true
            let readyCount = links.wait(milliseconds: isReadable ? 0 : timeout())
            for index in 0..<readyCount { onReady(links.poller.ready(at: index)) }
            stepTime()
            stepEvents()
        }
    }

    /// The lease must not last longer because the machine slept meanwhile.
    private mutating func stepTime() {
        session.step(.time(Clock.bootNanoseconds()), into: &outbox)
    }

    private func timeout() -> CInt {
        guard let wakeAt = session.wakeAt else { return -1 }
        let now = Clock.bootNanoseconds()
        return wakeAt > now ? CInt(min((wakeAt - now + 999_999) / 1_000_000, 60_000)) : 0
    }

    // MARK: In

    private mutating func onReady(_ ready: Poller.Ready) {
        if ready.fd == signals.fd.raw {
            while signals.next() != nil { session.step(.leave, into: &outbox) }
        } else if input != nil, TypedLines.isInput(ready.fd) {
            input?.read()
        } else {
            links.onReady(ready)
        }
    }

    private mutating func stepEvents() {
        for event in links.takeEvents() {
            switch event {
            case .connected(let link): session.step(.connected(link), into: &outbox)
            case .closed(let link, let reason):
                session.step(.closed(link, reason: reason), into: &outbox)
            case .malformed(let link, let error):
                session.step(.malformed(link, error), into: &outbox)
            case .reply(let link, let value): session.step(.reply(link, value), into: &outbox)
            case .push(let link, let fields): session.step(.push(link, fields), into: &outbox)
            }
        }
    }

    /// Gives the session lines for as long as it answers them by itself.
    private mutating func readInput() {
        for _ in 0..<TypedLines.linesMax {
            guard input != nil, session.isAsking else { return }
            let next = input?.next() ?? .nothing
            // After the line was read: the answer must not be from before the question.
            stepTime()
            switch next {
            case .nothing: return
            case .line(let line): session.step(.line(line), into: &outbox)
            case .tooLong: session.step(.lineTooLong, into: &outbox)
            case .ended: endInput(.inputEnded)
            case .failed(let error): endInput(.inputFailed("\(error)"))
            }
        }
    }

    private mutating func endInput(_ event: RoomSession.Event) {
        session.step(event, into: &outbox)
        input?.watch(links.poller, isAsking: false)
        input = nil
    }

    // MARK: Out

    /// Does what the session has asked for, and what it asks for upon that.
    private mutating func carryOut() throws(SystemError) {
        while outbox != RoomOutbox(), ending == nil {
            let work = outbox
            outbox = RoomOutbox()
            for item in work.send {
                links.enqueue(item.link) { RESP.command(item.words, into: &$0) }
            }
            links.flush()
            for link in work.close { links.forget(link) }
            for item in work.dial { try links.dial(item.link, item.address) }
            for speech in work.say {
                switch speech {
                case .output(let text): try IO.writeAll(1, Array(text.utf8), subject: "output")
                case .notice(let notice):
                    if let text = notice.text(for: verbosity) {
                        Terminal.message("\(program): \(text)")
                    }
                }
            }
            ending = work.ending
            stepEvents()
        }
    }
}
