package import Replication
package import Wire

/// One vote's outcome, as clients log it.
package struct VoteResult: Hashable, Sendable {
    package var vote: UInt64
    package var yes: UInt64
    package var no: UInt64

    package init(vote: UInt64, yes: UInt64, no: UInt64) {
        self.vote = vote
        self.yes = yes
        self.no = no
    }

    /// The line of the log, without line end.
    package var line: String { "\(vote) \(yes) \(no)" }

    /// `vote 17: 11 yes, 9 no (55 % yes)`
    package var summary: String {
        guard yes + no > 0 else { return "vote \(vote): nobody voted" }
        let percent = (yes * 100 + (yes + no) / 2) / (yes + no)
        return "vote \(vote): \(yes) yes, \(no) no (\(percent) % yes)"
    }
}

/// How a voter makes up its mind.
package enum VotePolicy: Equatable, Sendable {
    case yes
    case no
    /// By the seed and the vote's number alone, so that a run can be repeated.
    case random(seed: UInt64)
    case ask
}

/// A voter's part in the protocol: a value with one door, `step(_:into:)`. It keeps a connection to
/// every member of the view, joins at the primary, sends each ballot to all, puts the results in
/// order, and takes part in choosing views as a witness. No clock, no I/O.
package struct VoterSession: Equatable, Sendable {
    package struct Settings: Equatable, Sendable {
        package var name: String
        package var seeds: [Address]
        package var policy: VotePolicy
        /// Leave when the log holds so many results; 0: never.
        package var votesWanted: UInt64
        package var instance: Instance

        package init(
            name: String, seeds: [Address], policy: VotePolicy, votesWanted: UInt64,
            instance: Instance
        ) {
            self.name = name
            self.seeds = seeds
            self.policy = policy
            self.votesWanted = votesWanted
            self.instance = instance
        }
    }

    package enum Event: Equatable, Sendable {
        /// The TCP connection that was asked for stands.
        case connected(Int)
        /// It is gone, or never came to be.
        case disconnected(Int, reason: String)
        case received(Int, RESPValue)
        case answered(vote: UInt64, yes: Bool)
        case leave
        /// Time has passed; every event is preceded by one.
        case time(milliseconds: UInt64)
    }

    package struct Outbox: Equatable, Sendable {
        package struct Dial: Equatable, Sendable {
            package var connection: Int
            package var address: Address
        }
        package struct Send: Equatable, Sendable {
            package var connection: Int
            package var bytes: [UInt8]
        }
        package struct Question: Equatable, Sendable {
            package var vote: UInt64
            package var text: String
        }

        package var dial: [Dial] = []
        package var send: [Send] = []
        package var close: [Int] = []
        /// To be logged, in order, each once.
        package var results: [VoteResult] = []
        package var questions: [Question] = []
        package var messages: [String] = []
        package var exit: Exit?

        package init() {}
    }

    package enum Exit: Equatable, Sendable {
        case done
        case nameInUse(String)
        case foreignLog(String)
    }

    package let settings: Settings
    var connections: [Connection] = []
    var connectionCount = 0
    /// When an address may be dialed again, and the delay after that.
    var backOffs: [BackOff] = []
    var now: UInt64 = 0
    package internal(set) var witness: Witness
    /// The service this run belongs to, from its first join on.
    var service: String?
    var viewNumber: UInt64 = 0
    var primary: Address?
    var backup: Address?

    /// The last result that was given to the log.
    package internal(set) var logged: UInt64
    /// Whether the service has the log's last line too.
    var lastLine: VoteResult?
    var results = ResultOrder()
    var ballots: [Ballot] = []
    var joinRetryAt: UInt64 = 0
    var resendAt: UInt64 = .max
    var askResultsAt: UInt64 = .max
    var leavingSince: UInt64?
    var isCutOff = false
    var hasEverAnswered = false
    var foreignSeen: [Address] = []
    var randomState: UInt64

    struct Connection: Equatable, Sendable {
        enum Expected: Equatable, Sendable {
            case hello
            case join
            case cast(UInt64)
            case results
            case check
            case ignored
        }
        enum Join: Equatable, Sendable { case none, asked, done }

        var id: Int
        var address: Address
        var isConnected = false
        /// The replica at the other end, once it has said hello.
        var instance: Instance?
        /// The service it says it is in.
        var service: String?
        var expected: [Expected] = []
        var join = Join.none
    }

    struct BackOff: Equatable, Sendable {
        var address: Address
        var delay: UInt64
        var until: UInt64
        /// Another spelling of a replica that is connected already.
        var alias: Instance?
    }

    struct Ballot: Equatable, Sendable {
        var vote: UInt64
        var yes: Bool?
        var isAcknowledged = false
    }

    static let delayMin: UInt64 = 50
    static let delayMax: UInt64 = 1_000
    static let ballotsMax = 20_000

    /// `lastLine` is what an existing log ends with.
    package init(_ settings: Settings, lastLine: VoteResult?, seed: UInt64) {
        self.settings = settings
        self.lastLine = lastLine
        logged = lastLine?.vote ?? 0
        witness = Witness(instance: settings.instance, hearingTicksMax: 500)
        randomState = seed | 1
    }

    package mutating func step(_ event: Event, into outbox: inout Outbox) {
        switch event {
        case .time(let milliseconds): onTime(milliseconds, into: &outbox)
        case .connected(let id): onConnected(id, into: &outbox)
        case .disconnected(let id, let reason): onDisconnected(id, reason, into: &outbox)
        case .received(let id, let value):
            guard let index = index(id) else { return }
            if case .push(let items) = value {
                onPush(index, items, into: &outbox)
            } else {
                onReply(index, value, into: &outbox)
            }
        case .answered(let vote, let yes): onAnswer(vote, yes, into: &outbox)
        case .leave: leave(into: &outbox)
        }
        pursue(into: &outbox)
    }

    /// When time matters next, in milliseconds of the events' clock.
    package var nextDue: UInt64 {
        var due = now + 1_000
        due = min(due, resendAt, askResultsAt)
        if leavingSince != nil { due = min(due, now + 20) }
        if joinRetryAt > now { due = min(due, joinRetryAt) }
        for backOff in backOffs where isWanted(backOff.address) && backOff.until > now {
            due = min(due, backOff.until)
        }
        return due
    }

    // MARK: Connections

    func index(_ id: Int) -> Int? { connections.firstIndex { $0.id == id } }

    private func isWanted(_ address: Address) -> Bool { wanted.contains(address) }

    /// The members, and until one has let us join also the addresses we started from.
    private var wanted: [Address] {
        guard leavingSince == nil else { return [] }
        var list: [Address] = []
        for member in [primary, backup] {
            if let member, !list.contains(member) { list.append(member) }
        }
        if !connections.contains(where: { $0.join == .done }) {
            for seed in settings.seeds where !list.contains(seed) { list.append(seed) }
        }
        return list
    }

    /// Brings the connections to what is wanted, and joins where the primary is.
    private mutating func pursue(into outbox: inout Outbox) {
        for address in wanted where !connections.contains(where: { $0.address == address }) {
            if let known = backOffs.first(where: { $0.address == address }) {
                guard now >= known.until else { continue }
                if let alias = known.alias, connections.contains(where: { $0.instance == alias }) {
                    continue
                }
            }
            connectionCount += 1
            connections.append(Connection(id: connectionCount, address: address))
            outbox.dial.append(.init(connection: connectionCount, address: address))
        }
        if let index = primaryIndex, connections[index].join == .none, now >= joinRetryAt,
            leavingSince == nil
        {
            join(index, into: &outbox)
        }
        if connections.contains(where: { $0.join == .done }), leavingSince == nil {
            let keep = wanted
            for connection in connections
            where !keep.contains(connection.address) && connection.join == .none
                && !isMember(connection)
            {
                drop(connection.id, into: &outbox)
            }
        }
        finishLeaving(into: &outbox)
    }

    private func isMember(_ connection: Connection) -> Bool {
        guard let instance = connection.instance else { return false }
        return witness.view?.contains(instance) ?? true
    }

    /// The open connection to the replica that leads the newest view.
    var primaryIndex: Int? {
        if let view = witness.view, view.number.rawValue >= viewNumber,
            let index = connections.firstIndex(where: { $0.instance == view.primary.instance })
        {
            return index
        }
        return connections.firstIndex { $0.instance != nil && $0.address == primary }
    }

    private mutating func onConnected(_ id: Int, into outbox: inout Outbox) {
        guard let index = index(id) else { return }
        connections[index].isConnected = true
        send(index, ["HELLO", "3", "SETNAME", settings.name], .hello, into: &outbox)
    }

    private mutating func onDisconnected(_ id: Int, _ reason: String, into outbox: inout Outbox) {
        guard let index = index(id) else { return }
        let connection = connections.remove(at: index)
        if let instance = connection.instance {
            stepWitness(.disconnected(instance), into: &outbox)
        }
        backOff(connection.address, wasOpen: connection.instance != nil)
        guard !connections.contains(where: { $0.instance != nil }), !isCutOff,
            leavingSince == nil
        else { return }
        isCutOff = true
        let list = settings.seeds.map(\.description).joined(separator: ", ")
        outbox.messages.append("no server answers (\(list); \(reason)); trying again")
    }

    private mutating func drop(_ id: Int, into outbox: inout Outbox) {
        guard let index = index(id) else { return }
        let connection = connections.remove(at: index)
        if let instance = connection.instance {
            stepWitness(.disconnected(instance), into: &outbox)
        }
        outbox.close.append(id)
    }

    private mutating func backOff(_ address: Address, wasOpen: Bool, alias: Instance? = nil) {
        var entry =
            backOffs.first { $0.address == address }
            ?? BackOff(address: address, delay: Self.delayMin, until: 0)
        if wasOpen { entry.delay = Self.delayMin }
        let jitter = random(below: Int(entry.delay / 2) + 1)
        entry.until = now + entry.delay / 2 + UInt64(jitter)
        entry.delay = min(entry.delay * 2, Self.delayMax)
        entry.alias = alias
        backOffs.removeAll { $0.address == address }
        backOffs.append(entry)
        if backOffs.count > 64 { backOffs.removeFirst() }
    }

    func send(_ index: Int, _ words: [String], into outbox: inout Outbox) {
        var bytes: [UInt8] = []
        RESP.command(words, into: &bytes)
        outbox.send.append(.init(connection: connections[index].id, bytes: bytes))
    }

    mutating func send(
        _ index: Int, _ words: [String], _ expected: Connection.Expected, into outbox: inout Outbox
    ) {
        connections[index].expected.append(expected)
        send(index, words, into: &outbox)
    }

    // MARK: Hello

    mutating func onHello(_ index: Int, _ value: RESPValue, into outbox: inout Outbox) {
        let connection = connections[index]
        guard value["server"]?.text == "pollsrv",
            let instance = value["instance"]?.text.flatMap({ Instance(text: $0) })
        else {
            reportOnce(
                connection.address, "\(connection.address) is no pollsrv; not used", into: &outbox)
            drop(connection.id, into: &outbox)
            backOff(connection.address, wasOpen: false)
            return
        }
        if let service, let theirs = value["service"]?.text, theirs != service {
            reportOnce(
                connection.address,
                "\(connection.address) belongs to another service (\(theirs)); not used",
                into: &outbox)
            drop(connection.id, into: &outbox)
            backOff(connection.address, wasOpen: false)
            return
        }
        if connections.contains(where: { $0.instance == instance }) {
            drop(connection.id, into: &outbox)
            backOff(connection.address, wasOpen: false, alias: instance)
            return
        }
        connections[index].instance = instance
        connections[index].service = value["service"]?.text
        backOffs.removeAll { $0.address == connection.address }
        if isCutOff {
            isCutOff = false
            outbox.messages.append("connected again, to \(connection.address)")
        }
        if let heartbeat = value["heartbeat"]?.number,
            let misses = value["misses"]?.number
        {
            witness.hearingTicksMax = max(1, Int(clamping: heartbeat) * Int(clamping: misses) / 10)
        }
        send(index, ["WITNESS", "OFFER", settings.instance.description], .ignored, into: &outbox)
        stepWitness(.connected(instance), into: &outbox)
        learnView(
            value["view"]?.number, value["primary"]?.text, value["backup"]?.text,
            into: &outbox)
        // A backup that is new here gets what the primary has not acknowledged.
        if connections.contains(where: { $0.join == .done }) {
            for ballot in ballots where !ballot.isAcknowledged {
                cast(ballot, on: index, into: &outbox)
            }
        }
    }

    private mutating func reportOnce(
        _ address: Address, _ text: String, into outbox: inout Outbox
    ) {
        guard !foreignSeen.contains(address), foreignSeen.count < 64 else { return }
        foreignSeen.append(address)
        outbox.messages.append(text)
    }

    mutating func learnView(
        _ number: Int64?, _ primaryText: String?, _ backupText: String?, into outbox: inout Outbox
    ) {
        guard let number, number > 0, UInt64(number) > viewNumber,
            let primary = primaryText.flatMap({ Address(text: $0) })
        else { return }
        let oldPrimary = self.primary
        viewNumber = UInt64(number)
        self.primary = primary
        backup = backupText.flatMap { Address(text: $0) }
        guard primary != oldPrimary else { return }
        // Who led before answers no more; joins begin anew at the new one.
        for index in connections.indices where connections[index].address != primary {
            connections[index].join = .none
        }
        joinRetryAt = 0
    }

    // MARK: Time and chance

    private mutating func onTime(_ milliseconds: UInt64, into outbox: inout Outbox) {
        let before = now
        now = max(now, milliseconds)
        // The first event only sets the clock.
        let ticks = before == 0 ? 0 : Int(now / 10 - before / 10)
        for _ in 0..<min(ticks, witness.hearingTicksMax + 1) { stepWitness(.tick, into: &outbox) }
        if now >= resendAt {
            resendAt = .max
            resend(into: &outbox)
        }
        if now >= askResultsAt {
            askResultsAt = .max
            askResults(into: &outbox)
        }
    }

    mutating func random(below bound: Int) -> Int {
        randomState ^= randomState >> 12
        randomState ^= randomState << 25
        randomState ^= randomState >> 27
        return Int((randomState &* 0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    // MARK: The witness

    mutating func stepWitness(_ event: Witness.Event, into outbox: inout Outbox) {
        var said = Replication.Outbox()
        witness.step(event, into: &said)
        // A witness has nothing to sync: its memory lives as long as its instance.
        for envelope in said.send + said.sendAfterSync { post(envelope, into: &outbox) }
    }

    private mutating func post(_ envelope: Envelope, into outbox: inout Outbox) {
        guard let index = connections.firstIndex(where: { $0.instance == envelope.to }) else {
            return
        }
        var bytes: [UInt8] = []
        envelope.message.encode(head: "WITNESS", into: &bytes)
        connections[index].expected.append(.ignored)
        outbox.send.append(.init(connection: connections[index].id, bytes: bytes))
    }

    // MARK: Leaving

    private mutating func leave(into outbox: inout Outbox) {
        guard leavingSince == nil else { return }
        leavingSince = now
        if let index = primaryIndex, connections[index].join == .done {
            send(index, ["VOTE.LEAVE"], .ignored, into: &outbox)
        }
        guard witness.isElector else { return }
        for index in connections.indices {
            guard let instance = connections[index].instance else { continue }
            post(Envelope(to: instance, .leave(settings.instance)), into: &outbox)
        }
    }

    /// An elector waits, shortly, until the next view does without it: if it just went, a crash
    /// at the same moment could leave the rest without a majority.
    private mutating func finishLeaving(into outbox: inout Outbox) {
        guard let leavingSince else { return }
        let isFree = !witness.isElector || !connections.contains { $0.instance != nil }
        if isFree || now >= leavingSince + 1_000 { outbox.exit = outbox.exit ?? .done }
    }

    mutating func leaveIfDone(into outbox: inout Outbox) {
        guard settings.votesWanted > 0, logged >= settings.votesWanted else { return }
        leave(into: &outbox)
    }
}
