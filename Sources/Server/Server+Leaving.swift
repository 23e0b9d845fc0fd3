import Arguments
import Replication
import Wire

/// What an operator has asked for.
struct Switchover {
    /// Monotonic nanoseconds.
    let deadline: UInt64
    static let nanosecondsMax: UInt64 = 10_000_000_000
}

/// How a process that has been told to end comes to its end.
enum Stopping {
    /// This replica alone goes.
    case leaving(Leaving)
    /// The whole service ends, which this replica has led. After `deadline` (monotonic nanoseconds)
    /// the process exits whatever is not done.
    case endingService(deadline: UInt64)
}

/// How far a replica has come that takes its leave.
struct Leaving {
    /// After this moment (monotonic nanoseconds) the process exits whatever is not done.
    let deadline: UInt64
    /// As a backup it has said that it goes.
    var hasLeft = false
    /// Until this backup says once more that it goes: the word may be lost with a connection, of which
    /// nothing tells when another takes its place at once.
    var ticksToGoodbye: UInt64 = 0
    static let goodbyeTicks = 100 / Settings.tickMilliseconds
    /// Ticks without a path to the primary since then.
    var ticksLost = 0
    static let ticksLostMax = 30
    /// The view that this leaving replica leads, and from when on it hands over.
    var viewLed: ViewNumber?
    var handOverAt: UInt64 = 0
    /// Nanoseconds.
    static let pause: UInt64 = 50_000_000
}

// Handing over, leaving, and ending the service.
extension Server {
    /// Again and again, as a hand-over is given up when something else is being changed, or when the
    /// backup does not get to everything soon enough.
    func continueSwitchover() {
        guard let switchover else { return }
        guard isPrimary, now < switchover.deadline else {
            if isPrimary { log.warning("the hand-over did not come about; ask again") }
            self.switchover = nil
            return
        }
        if replica.acceptsRequests { step(.handOver) }
    }

    // MARK: Leaving and stopping

    /// Nil when this replica stays, and when it ends the service.
    private var leaving: Leaving? {
        get { if case .leaving(let state) = stopping { state } else { nil } }
        set { stopping = newValue.map { .leaving($0) } }
    }

    /// SIGTERM, SIGINT: the primary hands over first; a backup takes its leave.
    func beginLeaving() {
        stopping = .leaving(Leaving(deadline: now + 5_000_000_000))
        stopReplacement("this replica is leaving")
        continueLeaving()
    }

    func continueLeaving() {
        guard leaving != nil else { return }
        guard replica.isMember, let view = replica.view else {
            log.info("leaving; this replica was in no view")
            end(.ok)
            return
        }
        guard isPrimary else {
            // A view that was being chosen when it said so may have come with this replica in it.
            leaving?.ticksToGoodbye = 0
            guard leaving?.hasLeft == false else {
                sayGoodbye(to: view.primary)
                return
            }
            leaving?.hasLeft = true
            log.info("leaving; replica \(view.primary.id) at \(view.primary.address) goes on")
            sayGoodbye(to: view.primary)
            return
        }
        guard !view.backups.isEmpty else {
            log.info("leaving; there is no backup: the service ends here")
            end(.ok)
            return
        }
        // In a group a primary hands over to a higher one, which may not have said yet that it goes.
        guard leaving?.hasLeft == false || settings.election == .bully else {
            // It had handed over already, and the other has handed back: it leaves as well.
            log.info("leaving; so does the other replica: the service ends here")
            end(.ok)
            return
        }
        if leaving?.viewLed != view.number {
            leaving?.viewLed = view.number
            let pause = leaving?.hasLeft == true ? Leaving.pause : 0
            leaving?.handOverAt = now + pause
        }
        // Whoever has handed over to this one may be leaving, too. Its word of that is on its way;
        // without waiting for it the two would hand over to each other until their time is over.
        guard let leaving, now >= leaving.handOverAt else { return }
        log.infoOnce("leaving: handing over to the backup first")
        step(.handOver)
    }

    private func sayGoodbye(to primary: Member) {
        guard var state = leaving else { return }
        let isReached = paths.route(to: primary.instance) != nil
        if isReached, state.ticksToGoodbye == 0 {
            state.ticksToGoodbye = Leaving.goodbyeTicks
            _ = send(.leave(me.instance), toReplica: primary.instance)
        }
        state.ticksToGoodbye -= min(1, state.ticksToGoodbye)
        // A new path takes a moment; the primary itself may have gone.
        if state.ticksLost > Leaving.ticksLostMax { end(.ok) }
        state.ticksLost = isReached ? 0 : state.ticksLost + 1
        leaving = state
    }

    func tickStopping() {
        switch stopping {
        case nil: break
        case .leaving(let leaving): tickLeaving(leaving)
        case .endingService(let deadline):
            let isAwaiting = replacement.hasChildren || isRelayed
            if now > deadline || !isAwaiting { end(.ok) }
        }
    }

    private func tickLeaving(_ leaving: Leaving) {
        if now > leaving.deadline {
            log.warning("leaving without having been let go")
            end(.ok)
        } else if leaving.hasLeft, !isPrimary, let view = replica.view {
            sayGoodbye(to: view.primary)
        } else if isPrimary, replica.acceptsRequests {
            // The hand-over was given up, for instance because the backup died in it.
            continueLeaving()
        }
    }

    /// Whether `from` may end the service: whoever else thinks so leads no more, or never did.
    func mayStop(_ from: Instance) -> Bool {
        if let view = replica.view, view.primary.instance == from { return true }
        log.warnOnce("replica \(from) says that the service is being ended, and does not lead it")
        return false
    }

    /// Ends the service that this replica leads: the others are told, then this process exits.
    func stopService() {
        log.info("stopping the service, as asked")
        // That this replica leads has to reach them before its word does.
        if durable?.isBehind == true { settleDisk() }
        stopping = .endingService(deadline: now + 1_000_000_000)
        for case let connection? in connections {
            guard connection.isLink else { continue }
            connection.write { Message.stop.encode(head: "PEER", into: &$0) }
            markDirty(connection)
        }
        for member in partners {
            guard case .relay = paths.route(to: member.instance) else { continue }
            _ = send(.stop, toReplica: member.instance)
        }
        stopReplacement("the service is being ended")
        // A child's end is waited for, so that it leaves no zombie to whoever adopts it.
        if !replacement.hasChildren, !isRelayed { end(.ok) }
    }

    /// Whoever has ended the service ends when the processes are over that it has started.
    func endWithChildren() {
        guard case .endingService = stopping, !replacement.hasChildren else { return }
        end(.ok)
    }

    /// The proof that this process has exited would be quicker than a relayed word to exit too.
    private var isRelayed: Bool {
        partners.contains { member in
            if case .relay = paths.route(to: member.instance) { true } else { false }
        }
    }
}
