import Arguments
import Linux
import Replication
import Services
import Wire

/// The arguments of one command, as views into the bytes it came in.
struct CommandArguments: ~Escapable {
    let bytes: Span<UInt8>
    let ranges: [Range<Int>]

    @_lifetime(copy bytes)
    init(bytes: Span<UInt8>, ranges: [Range<Int>]) {
        self.bytes = bytes
        self.ranges = ranges
    }

    var count: Int { ranges.count }

    func array(_ index: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(ranges[index].count)
        for position in ranges[index] { result.append(bytes[position]) }
        return result
    }

    func text(_ index: Int) -> String { String(decoding: array(index), as: UTF8.self) }

    /// Upper case, for words that are case-insensitive; long ones are no word of ours.
    func word(_ index: Int) -> String {
        guard ranges[index].count <= 32 else { return "" }
        return text(index).uppercased()
    }

    func number(_ index: Int) -> UInt64? {
        let range = ranges[index]
        guard !range.isEmpty, range.count <= 19 else { return nil }
        var value: UInt64 = 0
        for position in range {
            guard bytes[position] >= 48, bytes[position] <= 57 else { return nil }
            value = value * 10 + UInt64(bytes[position] - 48)
        }
        return value
    }

    /// Who makes a call: a number of at most 19 digits is itself, another word of up to 64 bytes a hash
    /// of it, above those. Two words meet there by a chance of one in 8e18.
    func caller(_ index: Int) -> UInt64? {
        if let number = number(index) { return number }
        let range = ranges[index]
        guard (1...64).contains(range.count) else { return nil }
        return Self.numbersEnd + Checksum.of(bytes, in: range, seed: 0) % (0 &- Self.numbersEnd)
    }

    private static var numbersEnd: UInt64 { 10_000_000_000_000_000_000 }

    /// Whether an argument is `word` (given in lower case), in whatever case.
    @inline(__always)
    func equals(_ index: Int, _ word: StaticString) -> Bool {
        let range = ranges[index]
        guard range.count == word.utf8CodeUnitCount else { return false }
        var offset = 0
        for position in range {
            let byte = bytes[position]
            let lower = byte >= 65 && byte <= 90 ? byte | 0x20 : byte
            if lower != word.utf8Start[offset] { return false }
            offset += 1
        }
        return true
    }
}

extension Server {
    /// Carries out the command that the parser has found in `bytes`.
    func execute(_ bytes: Span<UInt8>, _ connection: Connection) {
        let arguments = CommandArguments(bytes: bytes, ranges: parser.ranges)
        if connection.kind != .client {
            onReplicaCommand(arguments, connection)
            return
        }
        // The hot path first.
        if arguments.equals(0, "vote.cast") {
            castCommand(arguments, connection)
            return
        }
        let verb = arguments.word(0)
        if verb.hasPrefix("VOTE.") {
            voteCommand(verb, arguments, connection)
            return
        }
        if verb.hasPrefix("ROOM.") {
            roomCommand(verb, arguments, connection)
            return
        }
        switch verb {
        case "HELLO": helloCommand(arguments, connection)
        case "VIEW": viewCommand(arguments, connection)
        case "CALL": callCommand(arguments, connection)
        case "WITNESS": witnessCommand(arguments, connection)
        case "PEER": onFirstPeerCommand(arguments, connection)
        case "BEAT": onFirstBeat(arguments, connection)
        case "REPLICA": replicaCommand(arguments, connection)
        case "LINK": linkCommand(arguments, connection)
        case "COPY": copyCommand(arguments, connection)
        default: stockCommand(verb, arguments, connection)
        }
    }

    /// Whether the command that the parser has found changes what others ask for.
    func changesState(_ bytes: Span<UInt8>) -> Bool {
        let arguments = CommandArguments(bytes: bytes, ranges: parser.ranges)
        switch arguments.word(0) {
        case "VOTE.OPEN", "VOTE.CAST", "VOTE.CLOSE", "VOTE.JOIN", "VOTE.LEAVE", "ROOM.RESERVE",
            "ROOM.DELETE", "CALL":
            return true
        default: return false
        }
    }

    /// For a connection that is read although there is no room for requests: it also brings what
    /// those that are waiting wait for, or what people say.
    func executeUnlessBusy(_ bytes: Span<UInt8>, _ connection: Connection) {
        let arguments = CommandArguments(bytes: bytes, ranges: parser.ranges)
        switch arguments.word(0) {
        case "WITNESS", "HELLO", "INFO", "PING", "QUIT", "REPLICA", "VIEW", "PEER", "BEAT":
            execute(bytes, connection)
        default: replyError(connection, "BUSY too many requests are waiting here")
        }
    }

    // MARK: Replies

    /// Sends a reply that waits for nothing, but not before those that came earlier.
    func reply(_ connection: Connection, _ body: (inout [UInt8]) -> Void) {
        if connection.pending == 0 {
            connection.write(body)
            noteReply(connection)
            markDirty(connection)
            return
        }
        var bytes: [UInt8] = []
        body(&bytes)
        wait(connection, .bytes(bytes))
    }

    func replyOK(_ connection: Connection) {
        reply(connection) { $0.append(contentsOf: RESP.ok) }
    }

    func replyError(_ connection: Connection, _ text: String) {
        reply(connection) { RESP.error(text, into: &$0) }
    }

    /// Queues a reply behind the turn's requests so far.
    func wait(_ connection: Connection, _ kind: Waiter.Kind) {
        connection.owe(kind)
        switch kind {
        case .read, .rejoin: turnHasReads = true
        case .request, .join, .reply, .joined, .bytes: break
        }
        turnWaiters.append(
            Waiter(connection: connection, op: UInt64(batch.count), probe: 0, kind: kind))
    }

    func replyArity(_ connection: Connection, _ usage: String) {
        replyError(connection, "ERR wrong number of arguments or syntax; usage: \(usage)")
    }

    /// For commands that need the primary, at a replica that is not.
    var redirectError: String {
        guard let view = shownView, replica.isMember || replica.status == .learning,
            view.primary.instance != me.instance
        else { return "TRYAGAIN no primary is known here yet" }
        return "REDIRECT \(view.primary.address)"
    }

    var isPrimary: Bool { replica.isPrimary }

    /// Whether this replica leads; if not, the client is told who does.
    func requirePrimary(_ connection: Connection) -> Bool {
        if isPrimary { return true }
        replyError(connection, redirectError)
        return false
    }

    // MARK: CALL

    private func callCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count >= 4, let client = arguments.caller(1),
            let sequence = arguments.number(2), sequence > 0
        else {
            replyArity(
                connection,
                "CALL client sequence VERB [argument ...] (client: 1 to 64 bytes, sequence: 1, 2, 3)"
            )
            return
        }
        guard requirePrimary(connection) else { return }
        var words: [[UInt8]] = []
        for index in 3..<arguments.count { words.append(arguments.array(index)) }
        let verb = arguments.word(3)
        let call = Request.Call(client: client, sequence: sequence)
        if verb.hasPrefix("ROOM.") {
            roomCall(call, verb, Array(words.dropFirst()), connection)
            return
        }
        do {
            let command = try pollCommand(verb, Array(words.dropFirst()))
            batch.append(Request(call: call, command: command.encode()))
            wait(connection, .request)
        } catch {
            replyError(connection, error.text)
        }
    }

    // MARK: Witnesses

    private func witnessCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count >= 2 else {
            replyArity(connection, "WITNESS OFFER instance")
            return
        }
        if arguments.equals(1, "offer") {
            guard arguments.count == 3, let instance = Instance(text: arguments.text(2)) else {
                replyArity(connection, "WITNESS OFFER instance (hexadecimal, 1 to 16 digits)")
                return
            }
            guard connection.version == .resp3 else {
                replyError(connection, "ERR a witness needs pushes: say HELLO 3 first")
                return
            }
            // A client of another service has views of that one, which must not be believed here.
            guard service != nil else {
                connection.awaitsService = true
                replyError(
                    connection,
                    "NOSERVICE this replica is in no service yet; a view is pushed when it is")
                return
            }
            replyOK(connection)
            addWitness(instance, connection)
            return
        }
        guard let witness = connection.witness else {
            replyError(connection, "ERR this connection has not offered a witness")
            return
        }
        var fields: [[UInt8]] = []
        for index in 1..<arguments.count { fields.append(arguments.array(index)) }
        do {
            let message = try Message(fields: fields)
            switch message {
            case .grant, .outbid, .accepted, .view, .leave, .beat:
                replyOK(connection)
                if case .leave(let instance) = message, instance == witness {
                    // It still has a say until a view without it is known.
                    connection.isWitnessLeaving = true
                    areWitnessesChanged = true
                }
                step(.message(message, from: witness))
            case .relay(let frame):
                replyOK(connection)
                step(.frame(frame, via: witness))
            case .prepare, .commit, .confirm, .prepareOK, .confirmOK, .attach, .witnesses, .fork,
                .seek,
                .propose, .join, .state, .learnOK, .joinRefused, .election, .electionOK, .stop:
                replyError(connection, "ERR not a message of a witness")
            }
        } catch {
            replyError(connection, "ERR \(error.text)")
        }
    }

    // MARK: Operators

    private func replicaCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        let verb = arguments.count > 1 ? arguments.word(1) : ""
        guard arguments.count == (verb == "PROMOTE" ? 3 : 2) else {
            replyArity(connection, "REPLICA SWITCHOVER|STOP|PROMOTE FORCE")
            return
        }
        switch verb {
        case "SWITCHOVER":
            guard requirePrimary(connection) else { return }
            guard settings.election == .sticky else {
                replyError(connection, "ERR in a group the highest id leads and nobody else")
                return
            }
            guard let view = replica.view, !view.backups.isEmpty else {
                replyError(connection, "NOBACKUP there is no backup to hand over to")
                return
            }
            log.info("handing over to the backup, as asked")
            replyOK(connection)
            switchover = Switchover(deadline: now + Switchover.nanosecondsMax)
            continueSwitchover()
        case "STOP":
            guard !isPrimary else {
                replyOK(connection)
                stopService()
                return
            }
            if replica.isMember || replica.status == .learning, let view = replica.view,
                paths.route(to: view.primary.instance) != nil
            {
                replyError(connection, redirectError)
                return
            }
            replyOK(connection)
            log.info("stopping this replica alone, as asked: it has no path to a primary")
            end(.ok)
        case "PROMOTE":
            guard arguments.equals(2, "force") else {
                replyArity(connection, "REPLICA PROMOTE FORCE")
                return
            }
            guard replica.mayBePromoted, !isPrimary || isStalled else {
                let text =
                    isPrimary
                    ? "ERR it leads already" : "ERR it has no state of the service to lead with"
                replyError(connection, text)
                return
            }
            log.warning("promoted by force: what others acknowledged without this replica is lost")
            replyOK(connection)
            step(.promoteByForce)
        default: replyArity(connection, "REPLICA SWITCHOVER|STOP|PROMOTE FORCE")
        }
    }

    private func linkCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard settings.hasTestHooks else {
            replyError(connection, "NOHOOKS start the servers with --test-hooks to use this")
            return
        }
        let isSilent = arguments.count == 3 && arguments.equals(2, "silent")
        let isHeal = arguments.count == 2 && arguments.equals(1, "heal")
        let isCut = arguments.count >= 2 && arguments.equals(1, "cut")
        guard isHeal || (isCut && (arguments.count == 2 || isSilent)) else {
            replyArity(connection, "LINK CUT [SILENT]|HEAL")
            return
        }
        replyOK(connection)
        setCut(isCut, isSilent: isSilent)
    }
}
