package import Linux
import Wire

/// Carries out what a `VoterSession` asks: connections, the log, the terminal, the clock. One
/// thread; a turn is wait, read, step, then send, write and say.
package struct ClientLoop: ~Copyable {
    private var session: VoterSession
    private var log: ResultLog
    private let program: String
    private let verbosity: Verbosity
    private let speaker: Speaker
    private var links: LinkSet
    private let signals: SignalQueue
    private var input: TypedLines?
    private var outbox = VoterOutbox()
    private var ending: Ending?
    private var isToldToEnd = false

    /// Leave; at the second one, at once.
    private static let leaveSignals = [Signals.interrupt, Signals.terminate]

    package init(
        program: String,
        settings: VoterSession.Settings,
        log: consuming ResultLog,
        verbosity: Verbosity
    ) throws(SystemError) {
        let signals = try SignalQueue(Self.leaveSignals)
        let links = try LinkSet()
        let speaker = try Speaker()
        try links.poller.add(signals.fd.raw)
        var settings = settings
        // Between the log's lines nothing else may stand, and in a file it would stand over them.
        if log.isStandardOutput { settings.showsResults = false }
        var input: TypedLines?
        if settings.policy == .ask {
            input = TypedLines(readsAhead: Terminal.isTerminal(TypedLines.fd))
            settings.isInputEchoed = input?.isTerminal ?? true
        }
        session = VoterSession(
            settings: settings,
            instance: Instance(max(1, Entropy.next())),
            seed: Entropy.next(),
            log: log.found
        )
        self.program = program
        self.verbosity = verbosity
        self.input = input
        self.log = log
        self.signals = signals
        self.links = links
        self.speaker = speaker
        if self.log.wasTorn {
            let line = self.log.found.nextID
            say(.news("\(self.log.path): line \(line) was incomplete and has been cut off"))
        }
    }

    /// Runs until the session ends.
    package mutating func run() throws(SystemError) -> Ending {
        var readyCount = 0
        while true {
            session.step(.time(Self.milliseconds()), into: &outbox)
            for index in 0..<readyCount { onReady(links.poller.ready(at: index)) }
            stepEvents()
            readInput()
            try carryOut()
            if let ending {
                speaker.finish(milliseconds: isToldToEnd ? 1_000 : 10_000)
                return ending
            }
            let isReadable = input?.watch(links.poller, isAsking: session.isAsking) == true
            readyCount = links.wait(milliseconds: isReadable ? 0 : timeout())
        }
    }

    private static func milliseconds() -> UInt64 { Clock.monotonicNanoseconds() / 1_000_000 }

    private func timeout() -> CInt {
        guard let wakeAt = session.wakeAt else { return -1 }
        let now = Self.milliseconds()
        return wakeAt > now ? CInt(min(wakeAt - now, 60_000)) : 0
    }

    // MARK: In

    private mutating func onReady(_ ready: Poller.Ready) {
        if ready.fd == signals.fd.raw {
            while signals.next() != nil {
                isToldToEnd = true
                session.step(.leave, into: &outbox)
            }
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

    private mutating func readInput() {
        for _ in 0..<TypedLines.linesMax {
            guard input != nil, session.isAsking || input?.isTerminal == true else { return }
            switch input?.next() ?? .nothing {
            case .nothing: return
            case .line(let line): session.step(.line(line), into: &outbox)
            case .tooLong: session.step(.line(""), into: &outbox)
            case .ended: endInput()
            case .failed(let error):
                outbox.notices.append(.trouble("\(error)"))
                endInput()
            }
        }
    }

    private mutating func endInput() {
        session.step(.inputEnded, into: &outbox)
        input?.watch(links.poller, isAsking: false)
        input = nil
    }

    // MARK: Out

    /// Does what the session has asked for, and what it asks for upon that.
    private mutating func carryOut() throws(SystemError) {
        while outbox != VoterOutbox(), ending == nil {
            let work = outbox
            outbox.removeAll()
            for item in work.send { links.enqueue(item.link) { item.command.encode(into: &$0) } }
            links.flush()
            for link in work.close { links.forget(link) }
            for item in work.dial { try links.dial(item.link, item.address) }
            stepEvents()
            append(work.append)
            for text in work.show { speaker.show(text) }
            for notice in work.notices { say(notice) }
            // Of what came along with the end something may not be in the log.
            if let last = work.ending { ending = outbox.ending ?? last }
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
                    .logFailed("cannot append to \(log.path): \(LinkSet.reason(error))"),
                    into: &outbox
                )
                return
            }
        }
        if let written { session.step(.logged(through: written), into: &outbox) }
    }

    // MARK: People

    private func say(_ notice: Notice) {
        if let text = notice.text(for: verbosity) { speaker.message("\(program): \(text)") }
    }
}

extension Notice {
    /// What people are told of it; nil: not at this verbosity.
    func text(for verbosity: Verbosity) -> String? {
        switch (self, verbosity) {
        case (.trouble(let text), _), (.news(let text), .normal), (.news(let text), .verbose),
            (.detail(let text), .verbose):
            text
        case (.news, .quiet), (.detail, .quiet), (.detail, .normal): nil
        }
    }
}
