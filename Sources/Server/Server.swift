package import Arguments
import Journal
package import Linux
import Replication
import Services
import Storage
import Wire

/// The shell around the replication core: one thread, one event loop.
///
/// A turn: wait; read what has come and parse it; give the core the turn's requests as one batch
/// and what else happened; send, execute and answer what waits for no disk. With a disk: write and
/// sync once, then send, execute and answer what has waited for that. Flush. One turn, one batch.
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
    /// Some were paused only for the rest of the turn, or for a reply that has gone out since.
    var areCommandsDue = false
    /// Replies are due that the last turn had no time for.
    var isReleaseCutShort = false
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
    /// What is on its way that takes voters off the roll, by name.
    var leavesPending: [[UInt8]: UInt64] = [:]

    /// The turn's requests, and who waits for them; `op` counts from the batch's start.
    var batch = Batch()
    var turnWaiters: [Waiter] = []
    var turnHasReads = false
    var waiters = Waiters()

    /// Direct connections to other replicas. Only looked up, never walked.
    var links: [Instance: Connection] = [:]
    /// What replicas have said of themselves. Looked up alike.
    var knownReplicas: [Instance: KnownReplica] = [:]
    /// Joined voters' connections, by their place in the polls.
    var voterConnections: [Connection?] = []
    /// Connections that have offered a witness, ascending by instance.
    var witnessConnections: [(instance: Instance, connection: Connection)] = []
    var areWitnessesChanged = false

    /// Of whom this server connects to.
    var names = HostNames()
    var areNamesWatched = false
    /// Connections that wait for the address of a name.
    var resolving: [Dial] = []
    var joining = Joining()
    var calls = Calls()
    var probes = Probes()
    var group = Group()
    var replacement = Replacement()
    var driver = Driver()
    var held = HeldBallots()
    /// The state is not encoded again before this moment, as it was too large to be sent.
    var stateTooLargeUntil: UInt64 = 0
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
    /// What the core waits for, as it has said, and in which view.
    var stall: (view: ViewNumber, reason: String)?
    var exitCode: ExitCode?

    var now: UInt64 = 0
    var startedAt: UInt64 = 0
    var nextTick: UInt64 = 0
    var loop = LoopFigures()

    /// `durable`: nil, and nothing is on disk. `restoration`: what a new service begins with; then
    /// no running one is joined. Precondition: a `durable` beside it is blank.
    package init(
        _ settings: Settings, durable: Durable? = nil, restoration: Restoration? = nil
    ) throws(SystemError) {
        self.settings = settings
        self.durable = durable
        joining.restoration = restoration
        log = try MessageLog(format: settings.logFormat, verbosity: settings.verbosity)
        signals = try SignalQueue([Signals.terminate, Signals.interrupt, Signals.child])
        listener = try Sockets.listen(host: settings.listen.host, port: settings.listen.port)
        let address = Address(
            host: settings.listen.host, port: Sockets.localPort(listener.raw))
        me = Member(
            id: durable?.identity?.id ?? settings.id,
            instance: durable?.identity?.instance ?? Instance(max(1, Entropy.next())),
            address: settings.advertised
                ?? settings.advertisedHost.map { Address(host: $0, port: address.port) } ?? address,
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
    package func run() throws(SystemError) -> ExitCode {
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
        log.finish()
        // What is under way on the disk would be waited for, with nobody left to see a second signal: a
        // checkpoint, or anything on a disk that hangs. The next start removes what is half done.
        if let durable,
            durable.isHung || durable.store.isWritingCheckpoint || durable.store.mustWait
        {
            Terminal.exitAtOnce((exitCode ?? .io).rawValue)
        }
        return exitCode ?? .ok
    }

    /// This turn is the last. Of several reasons the first one counts.
    func end(_ code: ExitCode) {
        if exitCode == nil { exitCode = code }
    }

    /// Seconds since the beginning of 2026: higher at each start of a replica with a disk, unless that is
    /// within the second or the clock was set back. Then others take no path over clients to this process
    /// until they have forgotten the one before.
    private static var life: UInt64 {
        (Clock.wallMilliseconds() / 1_000 &- 1_767_225_600) & (1 << 28 - 1)
    }

    private var stateWords: String {
        if let durable { return "journal in \(durable.store.folder)" }
        let which = settings.election == .bully ? "all" : "both"
        return "state in memory on \(which) replicas, nothing on disk"
    }

    private var listenWords: String {
        let place = Address(host: settings.listen.host, port: Sockets.localPort(listener.raw))
        return me.address == place ? "\(place)" : "\(place) (told to others: \(me.address))"
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
                if ready.fd == names.fd {
                    onNames()
                } else if processes.owns(ready.fd) {
                    onProcessExit(ready.fd)
                } else {
                    onReady(ready)
                }
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
        if driver.isDirty || areWitnessesChanged || areCommandsDue || isReleaseCutShort
            || durable?.mayGoOn == true
        {
            return true
        }
        return replica.acceptsRequests && leads && !joining.isProbing
            && (!batch.isEmpty || !turnWaiters.isEmpty)
    }

    private func tick() {
        step(Replica.Event.tick)
        step(Paths.Event.tick)
        tickJoining()
        tickReplacement()
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

    // MARK: Signals

    private func onSignals() {
        while let signal = signals.next() {
            switch signal {
            case Signals.child: reapChildren()
            default:
                if stopping != nil {
                    log.info("second signal: exiting at once")
                    end(.ok)
                } else {
                    beginLeaving()
                }
            }
        }
    }
}
