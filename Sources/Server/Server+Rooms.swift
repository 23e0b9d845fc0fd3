import Linux
import Replication
import Services
import Wire

/// A reservation that waits for the caches that show its room.
struct Gate {
    enum Behind {
        case acknowledgement
        case lease
    }

    let request: Request
    let room: Int
    let name: [UInt8]
    /// What came behind it on its connection and was carried out; the replies must wait.
    var behind: [Behind] = []

    static let behindMax = 64
    static let ticksBetweenLooks = 3
    /// With so much unread input behind it the connection is not read.
    static let inputBytesMax = 64 << 10

    /// Nil: it changes no room.
    init?(_ request: Request, _ command: RoomCommand, _ rooms: Rooms) {
        switch command {
        case .reserve(let place), .delete(let place):
            guard let room = rooms.catalogue.room(place.room) else { return nil }
            self.room = room
            name = place.room
        case .catalogue: return nil
        }
        self.request = request
    }
}

// The ROOM.* commands, and the clients that cache their answers.
extension Server {
    func roomCommand(
        _ verb: String, _ arguments: borrowing CommandArguments, _ connection: Connection
    ) {
        var words: [[UInt8]] = []
        for index in 1..<arguments.count { words.append(arguments.array(index)) }
        guard let request = RoomRequest(verb: verb, words) else {
            unknownCommand(verb, connection)
            return
        }
        switch request {
        case .wrongCount: replyText(connection, RoomRequest.wrongCountText)
        case .list(let list):
            guard requirePrimary(connection) else { return }
            wait(connection, .read(.rooms(list)))
        case .check(let room):
            guard requirePrimary(connection) else { return }
            wait(connection, .read(.check(room: room)))
        case .write(let command):
            guard requirePrimary(connection) else { return }
            write(Request(command: command.encode()), command, connection)
        }
    }

    /// Only what changes something needs to be done exactly once.
    func roomCall(
        _ call: Request.Call, _ verb: String, _ words: [[UInt8]], _ connection: Connection
    ) {
        switch RoomRequest(verb: verb, words) {
        case .write(let command):
            write(Request(call: call, command: command.encode()), command, connection)
        case .wrongCount where verb == "ROOM.RESERVE" || verb == "ROOM.DELETE":
            replyText(connection, RoomRequest.wrongCountText)
        case .list, .check, .wrongCount, nil:
            replyError(
                connection, "ERR of the rooms' commands CALL takes ROOM.RESERVE, ROOM.DELETE")
        }
    }

    private func replyText(_ connection: Connection, _ text: String) {
        reply(connection) { RESP.bulk(text, into: &$0) }
    }

    func answer(_ list: Catalogue.List, _ connection: Connection) {
        let text = executor.service.rooms.text(of: list)
        connection.write { RESP.bulk(text, into: &$0) }
    }

    func answerCheck(_ name: [UInt8], _ connection: Connection) {
        let rooms = executor.service.rooms
        if connection.isTracking, let room = rooms.catalogue.room(name),
            leases.grant(
                connection.number, room: room, executed: executor.op.rawValue,
                at: Clock.monotonicNanoseconds())
        {
            connection.write { bytes in
                RESP.push(2, into: &bytes)
                RESP.bulk("cacheable", into: &bytes)
                RESP.bulk(name, into: &bytes)
            }
        }
        let text = rooms.check(name)
        connection.write { RESP.bulk(text, into: &$0) }
    }

    // MARK: Caches

    /// CLIENT TRACKING ON [LEASE]|OFF|ACK [key ...]
    func trackingCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        let usage = "CLIENT TRACKING ON [LEASE]|OFF|ACK [key ...]"
        guard arguments.count >= 3 else { return replyArity(connection, usage) }
        if arguments.equals(2, "ack") {
            acknowledge(arguments, connection)
            let readAfter = connection.readAfter
            replyOK(connection)
            connection.readAfter = readAfter
        } else if arguments.count == 3, arguments.equals(2, "off") {
            stopTracking(connection)
            replyOK(connection)
        } else if arguments.equals(2, "on"),
            arguments.count == 3 || (arguments.count == 4 && arguments.equals(3, "lease"))
        {
            guard connection.version == .resp3 else {
                replyError(connection, "ERR tracking needs pushes: say HELLO 3 first")
                return
            }
            guard requirePrimary(connection) else { return }
            if arguments.count == 4 {
                wait(connection, .read(.lease(epoch: connection.trackingEpoch)))
            } else if leases.track(connection.number) {
                connection.isTracking = true
                trackers[connection.number] = connection
                replyOK(connection)
            } else {
                replyError(connection, Self.tooManyCaches)
            }
        } else {
            replyArity(connection, usage)
        }
    }

    private func acknowledge(
        _ arguments: borrowing CommandArguments, _ connection: Connection
    ) {
        var rooms: [Int]?
        if arguments.count > 3 {
            rooms = []
            for index in 3..<arguments.count {
                let room = executor.service.rooms.catalogue.room(arguments.array(index))
                if let room { rooms?.append(room) }
            }
        }
        leases.acknowledge(connection.number, rooms: rooms)
    }

    private static let tooManyCaches = "BUSY \(CacheLeases.cachesMax) clients cache answers already"

    /// All members of the view have confirmed it since the question came: no other replica can have
    /// begun to lead before that, and one that does from here on waits for the lease's end.
    func answerLease(_ connection: Connection, epoch: UInt64) {
        guard connection.trackingEpoch == epoch else {
            connection.write { RESP.error("ERR tracking was turned off behind this", into: &$0) }
            return
        }
        switch leases.renew(connection.number, at: Clock.monotonicNanoseconds()) {
        case .renewed: break
        case .tooMany:
            connection.write { RESP.error(Self.tooManyCaches, into: &$0) }
            return
        case .owesAcknowledgement:
            connection.write {
                RESP.error("BUSY acknowledge first what you were told is invalid", into: &$0)
            }
            return
        }
        connection.isTracking = true
        trackers[connection.number] = connection
        let length = Int64(Settings.leaseMilliseconds)
        connection.write { RESP.integer(length, into: &$0) }
    }

    /// The client itself says that it caches nothing any more.
    func stopTracking(_ connection: Connection) {
        connection.trackingEpoch += 1
        guard connection.isTracking else { return }
        connection.isTracking = false
        trackers[connection.number] = nil
        leases.forget(connection.number)
    }

    /// What the client has cached it may not know to be void.
    func loseTracker(_ connection: Connection) {
        guard connection.isTracking else { return }
        trackers[connection.number] = nil
        leases.disconnect(connection.number)
    }

    /// Proposes a reservation, at once or when the caches that show the room know that it is about
    /// to change.
    private func write(_ request: Request, _ command: RoomCommand, _ connection: Connection) {
        if let gate = Gate(request, command, executor.service.rooms), !mayWrite(gate, connection) {
            if connection.mustBeRead {
                // What comes behind it may be what requests wait for.
                replyError(connection, "BUSY caches are being told of the change; try again")
            } else {
                connection.gate = gate
                gated.append(connection)
            }
            return
        }
        batch.append(request)
        wait(connection, .request)
    }

    private func mayWrite(_ gate: Gate, _ connection: Connection) -> Bool {
        // Before it has begun to lead it has not begun to wait for the leases given before it.
        guard leads else { return false }
        let verdict = leases.beginWrite(
            gate.room, by: connection.number, at: Clock.monotonicNanoseconds())
        guard case .wait(let holders) = verdict else { return true }
        for holder in holders { pushInvalidate([gate.name], to: holder) }
        return false
    }

    func tell(_ effect: Rooms.Effect) {
        guard isPrimary else { return }
        switch effect {
        case .changed(let room):
            let name = executor.service.rooms.catalogue.rooms[room]
            for holder in leases.changed(room) { pushInvalidate([name], to: holder) }
        }
    }

    /// `names` nil: everything.
    private func pushInvalidate(_ names: [[UInt8]]?, to holder: CacheLeases.Holder) {
        guard let connection = trackers[holder] else { return }
        connection.write { bytes in
            RESP.push(2, into: &bytes)
            RESP.bulk("invalidate", into: &bytes)
            if let names {
                RESP.array(names.count, into: &bytes)
                for name in names { RESP.bulk(name, into: &bytes) }
            } else {
                RESP.null(.resp3, into: &bytes)
            }
        }
        markDirty(connection)
    }

    /// Leases are the leader's, who does not pass them on.
    func onViewForRooms(_ view: View, wasLeading: Bool) {
        let isLeading = view.primary.instance == me.instance
        if isLeading {
            guard !wasLeading else { return }
            // In the first view nobody has led before, but for this replica before a restart.
            let isFirst = view.number == ViewNumber(1) && durable?.isRecovered != true
            leases.beginLeading(at: Clock.monotonicNanoseconds(), isFirst: isFirst)
            // They track since this replica led before, or since it was told that it leads: what they ask
            // from now on they keep, and are to be told of.
            for case let connection? in connections
            where connection.isTracking && connection.isOpen && !leases.track(connection.number) {
                close(connection)
            }
        } else {
            voidCaches()
        }
    }

    /// This replica does not lead any more: its clients' caches are void, and are told so in case
    /// they do not look at views.
    func voidCaches() {
        leases.endLeading()
        guard !trackers.isEmpty else { return }
        for case let connection? in connections where connection.isTracking {
            pushInvalidate(nil, to: connection.number)
        }
    }

    // MARK: The gate

    /// Carries out a command of a connection that is held up, by a reservation that waits or by a
    /// reply delay: only what others' reservations may wait for in their turn, or two clients that
    /// write what the other has cached would wait for each other. False: not such a command.
    func passesGate(_ bytes: Span<UInt8>, _ connection: Connection) -> Bool {
        let arguments = CommandArguments(bytes: bytes, ranges: parser.ranges)
        guard arguments.count >= 3, arguments.equals(0, "client"),
            arguments.equals(1, "tracking")
        else { return false }
        let isAcknowledgement = arguments.equals(2, "ack")
        let isLease =
            arguments.count == 4 && arguments.equals(2, "on") && arguments.equals(3, "lease")
        guard isAcknowledgement || isLease else { return false }
        guard let count = connection.gate?.behind.count else {
            trackingCommand(arguments, connection)
            return true
        }
        guard count < Gate.behindMax else { return false }
        if isAcknowledgement { acknowledge(arguments, connection) }
        connection.gate?.behind.append(isAcknowledgement ? .acknowledgement : .lease)
        return true
    }

    /// Looks again at what waits for caches, whenever there is news of them.
    func resumeGated() {
        guard !gated.isEmpty, gatedVersion != leases.version || areGatedDue else { return }
        gatedVersion = leases.version
        areGatedDue = false
        let list = gated
        gated = []
        var blocked: [Int] = []
        for connection in list where connection.isOpen {
            guard let room = connection.gate?.room else { continue }
            // Who waits for the same caches need not look at all of them again.
            if isPrimary, blocked.contains(room) {
                gated.append(connection)
                continue
            }
            open(connection)
            if connection.gate != nil { blocked.append(room) }
        }
    }

    private func open(_ connection: Connection) {
        guard let gate = connection.gate else { return }
        if isPrimary {
            if batch.isFull, replica.acceptsRequests { proposeTurn() }
            guard !areRequestsFull, mayWrite(gate, connection) else {
                gated.append(connection)
                return
            }
            batch.append(gate.request)
            wait(connection, .request)
        } else {
            replyError(connection, redirectError)
        }
        connection.gate = nil
        for item in gate.behind {
            switch item {
            case .acknowledgement: replyOK(connection)
            case .lease where isPrimary:
                wait(connection, .read(.lease(epoch: connection.trackingEpoch)))
            case .lease: replyError(connection, redirectError)
            }
        }
        if connection.isPaused { resume(connection) } else { parseInput(connection) }
    }

    // MARK: Delayed replies

    /// `--reply-delay`: this connection alone waits, as if the server had much to do.
    func noteReply(_ connection: Connection) {
        guard let delay = settings.replyDelay, !connection.mustBeRead else { return }
        let spread = delay.upperBound - delay.lowerBound + 1
        let milliseconds = delay.lowerBound + Entropy.next() % spread
        connection.readAfter = now + milliseconds * 1_000_000
    }

    func postpone(_ connection: Connection) {
        guard !connection.isDelayed else { return }
        connection.isDelayed = true
        delayed.append(connection)
    }

    private func resumeDelayed() {
        guard !delayed.isEmpty else { return }
        let list = delayed
        delayed = []
        for connection in list where connection.isOpen {
            if connection.readAfter > now {
                delayed.append(connection)
            } else {
                connection.isDelayed = false
                if connection.isPaused { resume(connection) } else { parseInput(connection) }
            }
        }
    }

    func tickRooms() {
        // A lease may have ended; to look all the time would cost more than it brings.
        ticksToGate -= 1
        if ticksToGate <= 0 {
            ticksToGate = Gate.ticksBetweenLooks
            areGatedDue = true
        }
        if isPrimary { leases.expire(at: now) }
        resumeDelayed()
    }

    func suspend(_ connection: Connection) {
        guard !connection.isPaused else { return }
        connection.isPaused = true
        poller.modify(connection.fd.raw, read: false, write: connection.wantsWrite)
    }

    private func resume(_ connection: Connection) {
        connection.isPaused = false
        poller.modify(connection.fd.raw, read: true, write: connection.wantsWrite)
        parseInput(connection)
    }
}
