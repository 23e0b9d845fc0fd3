package import Services
package import Wire

/// A client of the rooms: one command at a time, answered from its cache or by the primary, to
/// which it holds the one connection there is.
///
/// It only computes. Everything that happens comes in through `step`, the time included; everything
/// to be done goes out in the outbox. After each event it does what is due (`settle`), so a command
/// whose connection was lost needs no plan of its own: the next look finds that it is not sent.
///
/// Writes go as `CALL client sequence`, and a retry is the same CALL, so the servers carry it out
/// once whatever was lost in between. Where that can no longer be known (a command was given up, or
/// the servers have forgotten this client) the next write begins a session under a new number.
package struct RoomSession: Equatable, Sendable {
    package struct Settings: Equatable, Sendable {
        package var servers: [Address]
        package var isCaching: Bool
        /// How long one command may take, in nanoseconds; 0: for ever.
        package var timeout: UInt64
        package var source: Source

        package init(
            servers: [Address], isCaching: Bool = true, timeout: UInt64 = 0, source: Source
        ) {
            self.servers = servers
            self.isCaching = isCaching
            self.timeout = timeout
            self.source = source
        }
    }

    /// Where the commands come from.
    package enum Source: Equatable, Sendable {
        /// Somebody types them: what fails is said, and the prompt comes again.
        case terminal
        /// A file or a program: what fails ends the run.
        case stream
        /// This one only, as words.
        case arguments([String])
    }

    package enum Event: Equatable, Sendable {
        /// The time has come to so many nanoseconds since some fixed moment; never goes back.
        ///
        /// It must be told between the moment at which a line or anything from a server was read
        /// and the event of that: leases are counted by it.
        case time(UInt64)
        case connected(LinkID)
        /// The connection, or the try to make one, has ended.
        case closed(LinkID, reason: String)
        /// What came in on the connection is no RESP.
        case malformed(LinkID, DecodeError)
        case reply(LinkID, RESPValue)
        case push(LinkID, [RESPValue])
        /// A line of the input without its end. Only while `isAsking`.
        case line(String)
        /// There was one, but it was too long.
        case lineTooLong
        case inputEnded
        /// The rest of it cannot be read, and why.
        case inputFailed(String)
        /// Somebody wants the run to end.
        case leave
    }

    package let settings: Settings
    var random: SplitMix64
    var now: UInt64 = 0
    var hasEnded = false
    /// When `step` wants to be called with the time even if nothing else happens; nil: never.
    package internal(set) var wakeAt: UInt64?

    // The command and its answer.
    var task: RoomTask?
    var isPrompting = false
    /// When somebody last gave a command.
    var lastUse: UInt64 = 0
    /// This client's number in CALLs, 63 bits.
    var client: UInt64
    /// The sequence number of the next write.
    var nextSequence: UInt64 = 1
    package internal(set) var cache = RoomCache()
    /// After a lease was refused: no other is asked for before this moment.
    var leaseRetryAt: UInt64 = 0

    // The connection.
    var link: RoomLink?
    var lastLink: UInt64 = 0
    /// Members of the newest view and other servers that were named, the likeliest primary first.
    var known: [Address] = []
    var view: VoterView?
    var service: String?
    /// Left to be tried in this pass over all servers, and tried already.
    var queue: [Address] = []
    var tried: [Address] = []
    /// When the next pass may begin.
    var retryAt: UInt64 = 0
    /// In a row, without a command answered in between.
    var failureCount = 0
    /// What was last wrong with each address.
    var failures: [Failure] = []
    /// Nobody can be asked; when to say so again.
    var reportAt: UInt64?
    /// What was last said about a server that misbehaves.
    var complaint = ""

    struct Failure: Equatable, Sendable {
        let address: Address
        let reason: String
    }

    package static let prompt = "Next command: "

    /// - Parameter seed: 64 bits by chance; of no other client that ever used this service.
    package init(settings: Settings, seed: UInt64) {
        self.settings = settings
        random = SplitMix64(seed: seed)
        client = Self.clientNumber(&random)
    }

    static func clientNumber(_ random: inout SplitMix64) -> UInt64 { max(1, random.next() >> 1) }

    /// Whether a line of the input is waited for.
    package var isAsking: Bool {
        switch settings.source {
        case .terminal, .stream: task == nil && !hasEnded
        case .arguments: false
        }
    }

    package mutating func step(_ event: Event, into outbox: inout RoomOutbox) {
        guard !hasEnded else {
            // A second reply right behind the one that ended the run is still an error to be told.
            if case .reply(let id, let value) = event { onReply(id, value, into: &outbox) }
            return
        }
        switch event {
        case .time(let moment): onTime(moment, into: &outbox)
        case .connected(let id): onConnected(id, into: &outbox)
        case .closed(let id, let reason): onClosed(id, reason, into: &outbox)
        case .malformed(let id, let error):
            guard link?.id == id else { return }
            complain("does not speak RESP (\(error.text)): is it pollsrv?", into: &outbox)
        case .reply(let id, let value): onReply(id, value, into: &outbox)
        case .push(let id, let fields): onPush(id, fields, into: &outbox)
        case .line(let line): onLine(line, into: &outbox)
        case .lineTooLong: onLongLine(into: &outbox)
        case .inputEnded: onInputEnded(into: &outbox)
        case .inputFailed(let reason): end(.io(reason), into: &outbox)
        case .leave: onLeave(into: &outbox)
        }
        settle(into: &outbox)
    }

    private mutating func settle(into outbox: inout RoomOutbox) {
        wakeAt = nil
        guard !hasEnded else { return }
        settleTimeout(into: &outbox)
        settleSilence(into: &outbox)
        settleDial(into: &outbox)
        settleTask(into: &outbox)
        settleLease(into: &outbox)
        settleReport(into: &outbox)
        settlePrompt(into: &outbox)
    }

    private mutating func onTime(_ moment: UInt64, into outbox: inout RoomOutbox) {
        let isFirst = now == 0
        now = max(now, moment)
        guard isFirst, case .arguments(let words) = settings.source else { return }
        begin(words, into: &outbox)
    }

    /// Whether `moment` has come; if not, the session asks to be woken then.
    mutating func isDue(at moment: UInt64) -> Bool {
        if now >= moment { return true }
        wakeAt = min(wakeAt ?? moment, moment)
        return false
    }

    // MARK: Input

    private mutating func onLine(_ line: String, into outbox: inout RoomOutbox) {
        guard isAsking else { return }
        isPrompting = false
        // By bytes: a mark that combines with a blank would hide it.
        let words = line.utf8.split(whereSeparator: { $0 <= 32 })
        if !words.isEmpty { begin(words.map { String(Substring($0)) }, into: &outbox) }
    }

    private mutating func onLongLine(into outbox: inout RoomOutbox) {
        guard isAsking else { return }
        isPrompting = false
        outbox.say.append(
            .notice(.trouble("a line of more than \(Self.lineBytesMax) bytes is refused")))
    }

    package static let lineBytesMax = 4 << 10

    private mutating func onInputEnded(into outbox: inout RoomOutbox) {
        breakPrompt(into: &outbox)
        leaveWithBye(into: &outbox)
    }

    private mutating func onLeave(into outbox: inout RoomOutbox) {
        breakPrompt(into: &outbox)
        if let task {
            end(.unavailable("interrupted" + Self.outcome(task)), into: &outbox)
        } else {
            end(.done, into: &outbox)
        }
    }

    private mutating func begin(_ words: [String], into outbox: inout RoomOutbox) {
        lastUse = now
        guard let word = words.first else { return }
        guard let verb = RoomVerb(rawValue: word) else {
            answer(RoomVerb.unknownText(word), into: &outbox)
            return
        }
        let parameters = Array(words.dropFirst())
        guard let task = RoomTask(verb, parameters, since: now) else {
            if verb == .quit, parameters.isEmpty {
                leaveWithBye(into: &outbox)
            } else {
                answer(RoomVerb.wrongCountText, into: &outbox)
            }
            return
        }
        // Without `isCaching` nothing is ever in it.
        if let question = task.question, let text = cache.lookup(question, now: now) {
            answer("(From cache): " + text, into: &outbox)
        } else {
            self.task = task
        }
    }

    // MARK: Answers

    /// Says what the command came to; the next one may come.
    mutating func answer(_ text: String, into outbox: inout RoomOutbox) {
        task = nil
        outbox.say.append(.output(text + "\n"))
        if case .arguments = settings.source { end(.done, into: &outbox) }
    }

    /// The command comes to nothing.
    mutating func giveUp(_ reason: String, into outbox: inout RoomOutbox) {
        guard let task else { return }
        let text = reason + Self.outcome(task)
        if task.sequence != nil { renewSession() }
        self.task = nil
        switch settings.source {
        case .terminal: outbox.say.append(.notice(.trouble(text)))
        case .stream, .arguments: end(.unavailable(text), into: &outbox)
        }
        // The server may still answer, and may still carry it out: not on this connection's terms.
        if task.isSent { lose("the command was given up", into: &outbox) }
    }

    /// What to say of a write that got no answer.
    private static func outcome(_ task: RoomTask) -> String {
        guard task.writtenRoom != nil else { return "" }
        let act = task.words[0] == "ROOM.DELETE" ? "deletion" : "reservation"
        return task.isSent || task.isUncertain
            ? "; it is not known whether the \(act) was carried out"
            : "; the \(act) was not carried out"
    }

    /// No write of the session so far will be sent again.
    mutating func renewSession() {
        client = Self.clientNumber(&random)
        nextSequence = 1
    }

    private mutating func leaveWithBye(into outbox: inout RoomOutbox) {
        outbox.say.append(.output("bye\n"))
        end(.done, into: &outbox)
    }

    private mutating func end(_ ending: Ending, into outbox: inout RoomOutbox) {
        hasEnded = true
        stopTracking(into: &outbox)
        outbox.ending = ending
    }

    // MARK: The terminal

    /// Ends the line that a prompt stands on; the prompt comes again if it is still wanted.
    func breakPrompt(into outbox: inout RoomOutbox) {
        guard isPrompting, settings.source == .terminal else { return }
        outbox.say.append(.output("\n"))
    }

    /// A message that does not belong to a command.
    mutating func interject(_ notice: Notice, into outbox: inout RoomOutbox) {
        breakPrompt(into: &outbox)
        outbox.say.append(.notice(notice))
        if settings.source == .terminal { isPrompting = false }
    }

    private mutating func settlePrompt(into outbox: inout RoomOutbox) {
        guard isAsking, !isPrompting else { return }
        isPrompting = true
        outbox.say.append(.output(Self.prompt))
    }

    // MARK: What is due

    private mutating func settleTimeout(into outbox: inout RoomOutbox) {
        guard settings.timeout > 0, let task, isDue(at: task.since + settings.timeout) else {
            return
        }
        let limit = settings.timeout / 1_000_000
        giveUp("no answer within \(limit)ms (\(describeServers()))", into: &outbox)
    }

    private static let graceNanoseconds: UInt64 = 300_000_000
    private static let reportNanoseconds: UInt64 = 30_000_000_000

    /// Says that nobody can be asked: soon, and then now and then.
    private mutating func settleReport(into outbox: inout RoomOutbox) {
        guard let task, !task.isSent, failureCount > 0 else { return }
        guard isDue(at: reportAt ?? task.since + Self.graceNanoseconds) else { return }
        let text = "no server can answer now (\(describeServers())); waiting for one"
        outbox.say.append(.notice(reportAt == nil ? .trouble(text) : .news(text)))
        reportAt = now + Self.reportNanoseconds
        _ = isDue(at: now + Self.reportNanoseconds)
    }

    /// `tried 127.0.0.1:7001: connect: Connection refused; …`
    private func describeServers() -> String {
        var parts: [String] = []
        if let link, !failures.contains(where: { link.aliases.contains($0.address) }) {
            parts.append("\(link.aliases[0]): \(link.isOpen ? "has not answered" : "connecting")")
        }
        parts += failures.map { "\($0.address): \($0.reason)" }
        return parts.isEmpty ? "none tried yet" : "tried " + parts.joined(separator: "; ")
    }
}
