import Journal
package import Linux
import Replication
import Services
import Storage
import Wire

/// The shell around the replication core: one thread, one event loop.
///
/// A turn: wait; read what has come and parse it; give the core the turn's requests as one batch
/// and what else happened; send; execute what is committed and answer; flush. One turn, one batch.
package final class Server {
    let settings: Settings
    var log: MessageLog
    var poller: Poller
    let listener: FileDescriptor
    let signals: SignalQueue
    let heartbeats: Heartbeats
    let me: Member

    var replica: Replica
    /// How messages reach the other replicas.
    var paths: Paths
    /// What people were last told of the paths to the view's other members.
    var routesSeen: [(instance: Instance, route: Paths.Route)] = []
    var executor = Executor<ServiceSet>()
    /// Nil: nothing is on disk.
    let durable: Durable?
    var outbox = Outbox()
    /// The service this replica is in; nil while it is in none.
    var service: ServiceID?

    /// By descriptor.
    var connections: [Connection?] = []
    var connectionCount = 0
    var connectionNumber: UInt64 = 0
    var dirty: [Connection] = []
    var paused: [Connection] = []
    /// Closed at the end of the turn, so that no descriptor number is reused within one.
    var closing: [Connection] = []
    let chunk: UnsafeMutableRawBufferPointer
    var parser = CommandParser()
    let descriptorsMax: Int
    /// A connection that comes in gets a number below this. Those from it on are left to files, to
    /// connections that this replica itself makes and to proofs of others' ends: a segment that
    /// cannot be opened would end the replica, and as those who connect do so to both replicas, the
    /// other one at the same time.
    let acceptedMax: Int
    /// How many connections there were when the descriptors ran out; nil while they suffice.
    /// Nothing is accepted until there are fewer connections than these, or until then.
    var acceptPaused: (count: Int, until: UInt64)?
    static let reservedDescriptors = 64
    /// Replies are owed to connections that are closed; looked at once a second.
    var isOwedToClosed = false
    var nextSweep: UInt64 = 0
    /// Behind this op none is on its way that takes a voter off the roll.
    var lastLeave: UInt64 = 0

    /// The turn's requests, and who waits for them; `op` counts from the batch's start.
    var batch = Batch()
    var turnWaiters: [Waiter] = []
    var turnHasReads = false
    var waiters = Waiters()

    /// Direct connections to other replicas. Only looked up, never walked.
    var links: [Instance: Connection] = [:]
    var peers: [Instance: Peer] = [:]
    /// Joined voters' connections, by their place in the polls.
    var voterConnections: [Connection?] = []
    /// Connections that have offered a witness, ascending by instance.
    var witnessConnections: [(instance: Instance, connection: Connection)] = []
    var areWitnessesChanged = false

    var joining = Joining()
    var calls = Calls()
    var group = Group()
    var restart = Restart()
    var driver = Driver()
    var held = HeldBallots()
    /// States that learners have asked for.
    var transfers: [StateTransfer] = []
    var copy: ServiceCopy?
    /// The last one that was begun, until it is made.
    var copyBeingMade: EncodedState?
    let loopWaker: LoopWaker
    /// Who has cached what of the rooms.
    var leases = CacheLeases(length: Settings.leaseMilliseconds * 1_000_000)
    /// Connections that cache, by number. Only looked up, never walked.
    var trackers: [CacheLeases.Holder: Connection] = [:]
    /// Connections with a reservation that waits for caches.
    var gated: [Connection] = []
    var gatedVersion: UInt64 = 0
    var areGatedDue = false
    var ticksToGate = 0
    /// Connections that wait after a reply.
    var delayed: [Connection] = []
    var processes = PeerProcesses()
    /// Replicas to which the test hook has cut the direct connection.
    var cutInstances: [Instance] = []
    /// Those connections stand, but nothing comes through.
    var isCutSilent = false
    var stopping: Stopping?
    var switchover: Switchover?
    /// The view in which the choice of the next was seen to lack electors.
    var stalledIn: ViewNumber?
    var exitCode: Int32?

    var now: UInt64 = 0
    var startedAt: UInt64 = 0
    var nextTick: UInt64 = 0
    var loop = LoopFigures()

    struct Stopping {
        /// After this moment (monotonic nanoseconds) the process exits whatever is not done.
        var deadline: UInt64
        var hasLeft = false
        /// The path over which this backup has said that it goes.
        var route: Paths.Route?
        /// Ticks without a path to the primary since then.
        var ticksLost = 0
        static let ticksLostMax = 30
        /// The view that this leaving replica leads, and from when on it hands over.
        var viewLed: ViewNumber?
        var handOverAt: UInt64 = 0
        /// Nanoseconds.
        static let pause: UInt64 = 50_000_000
        /// The whole service ends, not only this replica.
        var isForAll: Bool
    }

    /// `durable`: nil, and nothing is on disk. `restoration`: what a new service begins with; then
    /// no running one is joined. Precondition: a `durable` beside it is blank.
    package init(
        _ settings: Settings, durable: Durable? = nil, restoration: Restoration? = nil
    ) throws(SystemError) {
        self.settings = settings
        self.durable = durable
        joining.restoration = restoration
        log = MessageLog(format: settings.logFormat, verbosity: settings.verbosity)
        signals = try SignalQueue([Signals.terminate, Signals.interrupt, Signals.child])
        listener = try Sockets.listen(host: settings.listen.host, port: settings.listen.port)
        let address = Address(
            host: settings.listen.host, port: Sockets.localPort(listener.raw))
        me = Member(
            id: durable?.identity?.id ?? settings.id,
            instance: durable?.identity?.instance ?? Instance(max(1, Entropy.next())),
            address: settings.advertised ?? address,
            host: Processes.hostToken(), pid: UInt64(Processes.pid))
        log.address = address.description
        log.mode = settings.startsAsPrimary ? "primary" : "backup"
        let ticksPerBeat = max(1, Int(settings.heartbeatMilliseconds / Settings.tickMilliseconds))
        let timing = Timing(
            suspectTicks: ticksPerBeat * Int(settings.misses), beatTicks: ticksPerBeat)
        let recovered = durable?.takeRecovered()
        if let snapshot = recovered?.snapshot {
            do throws(DecodeError) {
                executor = try Executor(snapshot: snapshot)
            } catch {
                preconditionFailure("the checkpoint does not decode: \(error.text)")
            }
        }
        if let recovered, let state = Durable.replicaState(recovered, executor) {
            replica = Replica(
                me: me, timing: timing, membersMax: settings.membersMax,
                election: settings.election, seed: Entropy.next(), recovered: state)
        } else {
            replica = Replica(
                me: me, timing: timing, membersMax: settings.membersMax,
                election: settings.election, seed: Entropy.next())
        }
        service = durable?.identity?.service
        paths = Paths(
            me: me.instance, timing: timing, life: durable == nil ? 0 : Self.life)
        heartbeats = try Heartbeats(
            me: me.instance, intervalMilliseconds: settings.heartbeatMilliseconds)
        if let durable {
            loopWaker = durable.helpers.waker
        } else {
            loopWaker = try LoopWaker()
        }
        poller = try Poller()
        try poller.add(listener.raw)
        try poller.add(loopWaker.fd)
        try poller.add(signals.fd.raw)
        try poller.add(heartbeats.mainFD)
        chunk = .allocate(byteCount: 256 << 10, alignment: 16)
        descriptorsMax = Processes.raiseDescriptorLimit()
        // Of a low limit half, beside what is open now.
        let rest = max(0, descriptorsMax - Int(FileDescriptor.lowestFree ?? 0))
        acceptedMax = descriptorsMax - min(Self.reservedDescriptors, rest / 2)
    }

    deinit { chunk.deallocate() }

    /// Runs until the server is stopped, and gives the exit code.
    package func run() throws(SystemError) -> Int32 {
        try heartbeats.start()
        now = Clock.monotonicNanoseconds()
        (startedAt, nextTick) = (now, now)
        log.info(
            "listening on \(listenWords), replica \(me.id), process \(me.pid); \(stateWords)")
        if settings.election == .bully { sayStarted() }
        if replica.status == .idle { beginJoining() } else { resumeService() }
        while exitCode == nil {
            turn()
        }
        flushAll()
        endMarked()
        return exitCode ?? 0
    }

    private var stateWords: String {
        if let durable { return "journal in \(durable.store.folder)" }
        let which = settings.election == .bully ? "all" : "both"
        return "state in memory on \(which) replicas, nothing on disk"
    }

    private var listenWords: String {
        guard let advertised = settings.advertised else { return "\(me.address)" }
        return "\(settings.listen.host):\(Sockets.localPort(listener.raw)) (told to others: "
            + "\(advertised))"
    }

    private func turn() {
        let isPressing = isMoreDue || isFeeding
        let rest = nextTick > now && !isPressing ? (nextTick - now + 999_999) / 1_000_000 : 0
        let count = poller.wait(milliseconds: CInt(min(rest, Settings.tickMilliseconds)))
        now = Clock.monotonicNanoseconds()
        heartbeats.noteTurn()
        var mustAccept = false
        for index in 0..<count {
            let ready = poller.ready(at: index)
            switch ready.fd {
            case listener.raw: mustAccept = true
            case signals.fd.raw: onSignals()
            case loopWaker.fd: loopWaker.drain()
            case heartbeats.mainFD:
                for instance in heartbeats.takeHeard() { step(.heardDirectly(instance)) }
            default:
                if processes.owns(ready.fd) { onProcessExit(ready.fd) } else { onReady(ready) }
            }
        }
        if now >= nextTick {
            // A loop that was held up has learnt nothing meanwhile: its ticks do not count.
            nextTick = max(nextTick + Settings.tickMilliseconds * 1_000_000, now)
            tick()
        }
        if areWitnessesChanged { reportWitnesses() }
        resumeGated()
        proposeTurn()
        release()
        if driver.isDirty {
            drive()
            proposeTurn()
            release()
        }
        resumePaused()
        feedTransfers()
        if durable != nil {
            // The others read while this disk is busy.
            flushAll()
            settleDisk()
        }
        flushAll()
        for connection in closing { forget(connection) }
        closing.removeAll()
        if mustAccept { acceptAll() }
        durable?.noteTurn()
        loop.note(
            from: now, to: Clock.monotonicNanoseconds(), processor: Clock.threadNanoseconds())
    }

    /// Whether the end of the last turn has left something to do for the next, which then does
    /// not wait for news.
    private var isMoreDue: Bool {
        if driver.isDirty || areWitnessesChanged || durable?.mayGoOn == true { return true }
        return replica.acceptsRequests && leads && !joining.isProbing
            && (!batch.isEmpty || !turnWaiters.isEmpty)
    }

    private func tick() {
        step(Replica.Event.tick)
        step(Paths.Event.tick)
        tickJoining()
        tickRestart()
        tickDriver()
        tickStopping()
        continueSwitchover()
        tickRooms()
        tickDisk()
        tickCopy()
        // Descriptors may be free again for other reasons, too.
        if let paused = acceptPaused, connectionCount < paused.count || now >= paused.until,
            mayAccept
        {
            acceptPaused = nil
            poller.modify(listener.raw, read: true, write: false)
        }
        if isOwedToClosed, now >= nextSweep {
            (isOwedToClosed, nextSweep) = (false, now + 1_000_000_000)
            waiters.removeClosed()
            turnWaiters.removeAll { !$0.connection.isOpen }
        }
    }

    // MARK: Connections

    private func acceptAll() {
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
    private var mayAccept: Bool {
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

    private func onReady(_ ready: Poller.Ready) {
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
        while connection.isOpen, !connection.isClosing, !connection.closesWhenAnswered {
            if batch.isFull, replica.acceptsRequests { proposeTurn() }
            let isFull = areRequestsFull
            // While nothing goes on people must still get at it.
            let isRead = !isFull || connection.mustBeRead || isStalled && connection.pending == 0
            if connection.pending >= connection.pendingMax || !isRead {
                pause(connection)
                return start
            }
            switch parser.parse(bytes, from: start, limits: connection.limits) {
            case .incomplete: return start
            case .blank: start = parser.next
            case .command:
                let next = parser.next
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
                fail(connection, "ERR protocol error: \(error.text)")
                return bytes.count
            }
        }
        return bytes.count
    }

    /// Seconds since the beginning of 2026: higher at each start of a replica with a disk, unless that is
    /// within the second.
    private static var life: UInt64 {
        (Clock.wallMilliseconds() / 1_000 &- 1_767_225_600) & (1 << 28 - 1)
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

    private func resumePaused() {
        guard !paused.isEmpty, !areRequestsFull || isStalled else { return }
        let list = paused
        paused = []
        for connection in list where connection.isOpen {
            guard connection.pending < connection.pendingMax / 2,
                !areRequestsFull || connection.pending == 0
            else {
                paused.append(connection)
                continue
            }
            connection.isPaused = false
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
            let wantsWrite = connection.outputCount > 0
            let isDone = connection.closesWhenAnswered && connection.pending == 0
            if !wantsWrite, connection.isClosing || isDone {
                close(connection)
                continue
            }
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
        connection.markClosed()
        // Whom a reply is owed keeps its descriptor.
        if connection.pending > 0 { isOwedToClosed = true }
        poller.remove(connection.fd.raw)
        closing.append(connection)
        onClosed(connection)
    }

    /// Lets the descriptor go, with the last reference.
    private func forget(_ connection: Connection) {
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

    // MARK: Signals

    private func onSignals() {
        while let signal = signals.next() {
            switch signal {
            case Signals.child: reapChildren()
            default:
                if stopping != nil {
                    log.info("second signal: exiting at once")
                    exitCode = exitCode ?? 0
                } else {
                    beginLeaving()
                }
            }
        }
    }
}
