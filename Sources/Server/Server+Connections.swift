import Linux
import Replication
import Wire

/// Connections from their beginning to their end: what comes in over them is parsed and carried out,
/// what is owed to them is flushed, and who asks for more than there is room for is not read for a
/// while.
extension Server {
    func acceptAll() {
        for _ in 0..<256 {
            guard mayAccept else {
                pauseAccepting()
                return
            }
            do {
                guard let fd = try Sockets.accept(listener.raw) else { return }
                let connection = add(fd, kind: .client, isConnected: true)
                if connection == nil { return }
            } catch {
                guard error.isOutOfDescriptors else {
                    log.warnOnce("\(error)")
                    return
                }
                pauseAccepting()
                return
            }
        }
    }

    /// Waiting in the backlog costs nobody anything; spinning on a refusal would.
    private func pauseAccepting() {
        acceptPaused = (connectionCount, now + 1_000_000_000)
        poller.modify(listener.raw, read: false, write: false)
        log.warnOnce(
            "out of descriptors (limit \(descriptorsMax)): new connections wait; raise the limit with"
                + " ulimit -n")
    }

    /// Whether the next connection would get a number that it may have.
    var mayAccept: Bool {
        FileDescriptor.lowestFree.map { Int($0) < acceptedMax } ?? false
    }

    @discardableResult
    func add(_ fd: consuming FileDescriptor, kind: Connection.Kind, isConnected: Bool)
        -> Connection?
    {
        let raw = fd.raw
        do {
            try poller.add(raw, read: true, write: !isConnected)
        } catch {
            log.warnOnce("\(error)")
            return nil
        }
        connectionNumber += 1
        let connection = Connection(
            fd: fd, number: connectionNumber, kind: kind, isConnected: isConnected)
        connection.wantsWrite = !isConnected
        while connections.count <= Int(raw) { connections.append(nil) }
        connections[Int(raw)] = connection
        connectionCount += 1
        return connection
    }

    func onReady(_ ready: Poller.Ready) {
        guard Int(ready.fd) < connections.count, let connection = connections[Int(ready.fd)],
            connection.isOpen
        else { return }
        if !connection.isConnected {
            if ready.canWrite { onDialed(connection) }
            return
        }
        if ready.canWrite, connection.wantsWrite { markDirty(connection) }
        if connection.isPaused {
            // Of one that is not read this is told all the same, and again and again.
            if ready.isBroken { close(connection) }
            return
        }
        if ready.canRead { receive(connection) }
    }

    private func receive(_ connection: Connection) {
        // Bounded, so that one busy connection does not starve the others.
        for _ in 0..<4 {
            guard connection.isOpen, !connection.isPaused else { return }
            switch IO.read(connection.fd.raw, into: chunk) {
            case .wouldBlock: return
            case .end, .failed:
                close(connection)
                return
            case .bytes(let count):
                if connection.closesWhenAnswered { continue }
                if connection.input.isEmpty {
                    let bytes = UnsafeBufferPointer(
                        rebasing: chunk.bindMemory(to: UInt8.self)[..<count])
                    let used = parse(bytes.span, connection)
                    if used < count, connection.isOpen {
                        connection.input.append(contentsOf: bytes[used...])
                    }
                } else {
                    connection.input.append(contentsOf: chunk[..<count])
                    parseInput(connection)
                }
                let isHeldUp = connection.gate != nil || connection.isDelayed
                if isHeldUp, connection.input.count > Gate.inputBytesMax {
                    suspend(connection)
                }
                if count < chunk.count { return }
            }
        }
    }

    func parseInput(_ connection: Connection) {
        let input = connection.input
        let used = parse(input.span, connection)
        connection.input = used == input.count ? [] : Array(input[used...])
    }

    /// Carries out the whole commands in `bytes`; gives how many bytes they took.
    private func parse(_ bytes: Span<UInt8>, _ connection: Connection) -> Int {
        var start = 0
        var count = 0
        let begun = Clock.monotonicNanoseconds()
        while connection.isOpen, !connection.isClosing, !connection.closesWhenAnswered {
            count += 1
            if connection.isOutputFull, !drain(connection) { return bytes.count }
            // The others have their turn, and the heartbeats, whatever one asks for.
            if count % 64 == 0, !connection.mustBeRead,
                Clock.monotonicNanoseconds() - begun > Self.turnNanosecondsMax
            {
                pause(connection)
                areCommandsDue = true
                return start
            }
            if batch.isFull, replica.acceptsRequests { proposeTurn() }
            let isFull = areRequestsFull
            // While nothing goes on people must still get at it.
            let isRead = !isFull || connection.mustBeRead || isStalled && connection.pending == 0
            if connection.isOwedTooMuch || !isRead {
                pause(connection)
                return start
            }
            switch parser.parse(bytes, from: start, limits: connection.limits) {
            case .incomplete: return start
            case .blank: start = parser.next
            case .command:
                let next = parser.next
                if connection.pending > 0, !connection.mustBeRead {
                    connection.awaitsAll = changesForm(bytes, connection)
                    // A read shows the state as it is when it may be answered: it would show this, too.
                    connection.awaitsReads = connection.pendingReads > 0 && changesState(bytes)
                    if connection.awaitsAll || connection.awaitsReads {
                        pause(connection)
                        return start
                    }
                }
                if connection.gate != nil || connection.readAfter > now {
                    guard passesGate(bytes, connection) else {
                        if connection.gate == nil { postpone(connection) }
                        return start
                    }
                } else if connection.kind == .client,
                    isFull || connection.witness != nil && connection.hasManyPending
                {
                    executeUnlessBusy(bytes, connection)
                } else {
                    execute(bytes, connection)
                }
                start = next
            case .malformed(let error):
                // What stands before it is not done yet.
                guard connection.gate == nil, connection.readAfter <= now else {
                    if connection.gate == nil { postpone(connection) }
                    return start
                }
                fail(connection, "ERR protocol error: \(error.text)")
                return bytes.count
            }
        }
        return bytes.count
    }

    static var turnNanosecondsMax: UInt64 { 50_000_000 }

    /// Sends what has piled up in the middle of a turn; false: it is not taken, and the connection gone.
    private func drain(_ connection: Connection) -> Bool {
        guard connection.flush() else {
            close(connection)
            return false
        }
        guard !connection.isOutputFull else {
            dropUnread(connection)
            return false
        }
        return true
    }

    var areRequestsFull: Bool {
        batch.isFull || waiters.count + turnWaiters.count >= Waiters.countMax
    }

    private func pause(_ connection: Connection) {
        guard !connection.isPaused else { return }
        connection.isPaused = true
        paused.append(connection)
        poller.modify(connection.fd.raw, read: false, write: connection.wantsWrite)
    }

    func resumePaused() {
        areCommandsDue = false
        guard !paused.isEmpty, !areRequestsFull || isStalled else { return }
        let list = paused
        paused = []
        let begun = Clock.monotonicNanoseconds()
        for connection in list where connection.isOpen {
            // All of them together get no more time than one.
            if Clock.monotonicNanoseconds() - begun > Self.turnNanosecondsMax {
                areCommandsDue = true
                paused.append(connection)
                continue
            }
            guard connection.isOwedLess,
                !areRequestsFull || connection.pending == 0
            else {
                paused.append(connection)
                continue
            }
            connection.isPaused = false
            (connection.awaitsAll, connection.awaitsReads) = (false, false)
            poller.modify(connection.fd.raw, read: true, write: connection.wantsWrite)
            parseInput(connection)
        }
    }

    /// One reply, behind those that are owed, then the end of the connection.
    func fail(_ connection: Connection, _ text: String) {
        replyError(connection, text)
        connection.isClosing = connection.pending == 0
        connection.closesWhenAnswered = true
        connection.input = []
        log.detail("connection \(connection.number) closed: \(text)")
    }

    func markDirty(_ connection: Connection) {
        guard !connection.isInDirtyList else { return }
        connection.isInDirtyList = true
        dirty.append(connection)
    }

    func flushAll() {
        // Closing one may make others dirty.
        var index = 0
        while index < dirty.count {
            let connection = dirty[index]
            index += 1
            connection.isInDirtyList = false
            guard connection.isOpen, connection.isConnected else { continue }
            guard connection.flush() else {
                close(connection)
                continue
            }
            if connection.isOutputFull {
                dropUnread(connection)
                continue
            }
            let isDone = connection.closesWhenAnswered && connection.pending == 0
            if connection.outputCount == 0 {
                if connection.isClosing || isDone {
                    close(connection)
                    continue
                }
                pushPastResults(to: connection)
            }
            let wantsWrite = connection.outputCount > 0
            if wantsWrite != connection.wantsWrite {
                connection.wantsWrite = wantsWrite
                poller.modify(
                    connection.fd.raw, read: !connection.isPaused, write: wantsWrite)
            }
        }
        dirty.removeAll(keepingCapacity: true)
    }

    func dropUnread(_ connection: Connection) {
        log.warning(
            "connection \(connection.number) (\(connection.name)) does not read: "
                + "\(connection.outputCount) bytes wait for it; dropped")
        close(connection)
    }

    func close(_ connection: Connection) {
        guard connection.isOpen else { return }
        // It was given up before it stood: the next try begins with another address.
        if !connection.isConnected, let dial = connection.dial { names.turn(dial.address.host) }
        abandon(connection)
        onClosed(connection)
    }

    /// Closes a connection, and nothing more comes of that.
    func abandon(_ connection: Connection) {
        guard connection.isOpen else { return }
        connection.markClosed()
        // Whom a reply is owed keeps its descriptor.
        if connection.pending > 0 { isOwedToClosed = true }
        poller.remove(connection.fd.raw)
        closing.append(connection)
    }

    /// Lets the descriptor go, with the last reference.
    func forget(_ connection: Connection) {
        connections[Int(connection.fd.raw)] = nil
        connectionCount -= 1
    }

    private func onClosed(_ connection: Connection) {
        switch connection.kind {
        case .client:
            leaveVoter(connection)
            loseTracker(connection)
            loseCopy(connection)
            if connection.witness != nil { removeWitness(connection) }
        case .link(let instance): onLinkClosed(connection, instance)
        case .dialing(let address): onDialFailed(address, "the connection was closed")
        case .calling(let address): calls.onFailed(address)
        case .probing: break
        }
    }
}
