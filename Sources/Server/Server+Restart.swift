import Linux
import Replication
import Wire

/// The replacement for a lost backup: a process that this replica starts.
struct Restart {
    var child: Int32?
    /// In how many ticks it is given up if it has not joined: while this process stood still, nobody could.
    var childTicks: UInt64 = 0
    /// Replacements that have become members: their end is waited for, and nothing else.
    var members: [Int32] = []
    /// Where the child was told to listen.
    var childAddress: Address?
    var nextSpawn: UInt64 = 0
    var failures = 0
    /// The other replica as it was last seen in a view.
    var partner: Member?

    /// A `--primary` alone gives a backup started by hand this time to appear.
    static let graceNanoseconds: UInt64 = 3_000_000_000
    /// How long after a loss the proof of the process's end may take.
    static let proofNanoseconds: UInt64 = 300_000_000
    static let delayMax: UInt64 = 10_000_000_000
    /// How long a replacement may take to join once its time has come: it may have a journal to read.
    static let joinMillisecondsMax: UInt64 = 120_000

    var hasChildren: Bool { child != nil || !members.isEmpty }
    var statusWord: String { child != nil ? "starting" : failures > 0 ? "waiting" : "none" }
}

/// What an operator has asked for.
struct Switchover {
    /// Monotonic nanoseconds.
    let deadline: UInt64
    static let nanosecondsMax: UInt64 = 10_000_000_000
}

extension Server {
    func onEnteredForRestart(_ view: View) {
        guard view.primary.instance == me.instance else {
            restart.partner = view.primary
            return
        }
        if let backup = view.backups.first {
            restart.partner = backup
            restart.failures = 0
            if let child = restart.child {
                if UInt64(child) == backup.pid, backup.host == me.host {
                    restart.members.append(child)
                    restart.child = nil
                } else {
                    stopReplacement("replica \(backup.id) has taken the place")
                }
            }
        } else if restart.partner != nil, restart.child == nil {
            let isProved = restart.partner.map { replica.isProvedDead($0.instance) } ?? false
            restart.nextSpawn = now + (isProved ? 0 : Restart.proofNanoseconds)
        }
    }

    func tickRestart() {
        guard isPrimary, settings.restartsBackup, stopping == nil,
            replica.view?.backups.isEmpty == true, !replica.isAdmitting
        else { return }
        if let child = restart.child {
            restart.childTicks -= min(1, restart.childTicks)
            guard restart.childTicks == 0 else { return }
            // It is stopped, or its disk hangs, or it does not reach this server. Another is started when
            // its end is seen.
            log.warning("the replacement, process \(child), does not join: ending it")
            Processes.signal(child, Signals.kill)
            restart.childTicks = .max
        } else if now >= restart.nextSpawn {
            spawnBackup()
        }
    }

    private func spawnBackup() {
        let address = replacementAddress
        // The first backup of a fresh service has nothing to recover from.
        let isFirst = restart.partner == nil && durable?.isRecovered != true
        let delay = isFirst ? 0 : settings.restartDelayMilliseconds
        do {
            let program = try Processes.executablePath()
            let arguments =
                [
                    program, "--backup", "--listen", address.description, "--peer",
                    ownAddressHere.description, "--join-after", "\(delay)ms",
                ] + settings.inheritedFlags + folderFlags + placeFlags
            // Messages go where ours go, unless a reader at a pipe's end would then wait for the
            // replacement after this process is gone.
            let errorsTo: CInt? = Processes.isTerminalOrFile(2) ? 2 : nil
            let pid = try Processes.spawn(arguments, errorsTo: errorsTo)
            restart.child = pid
            restart.childAddress = address
            restart.childTicks =
                (delay + Restart.joinMillisecondsMax) / Settings.tickMilliseconds
            let when = delay == 0 ? "at once" : "in \(delay) ms"
            let place = replacementFolder.map { ", journal in \($0)" } ?? ""
            log.info("started a backup, process \(pid), at \(address)\(place); it joins \(when)")
            if let host = told {
                log.infoOnce(
                    "others are told that it is at \(host), at the port that it gets: where ports are "
                        + "mapped (NAT, a container) they do not reach it")
            }
        } catch {
            failSpawn("\(error)")
        }
    }

    /// What others are told is this host, if not where this server listens.
    private var told: String? { settings.advertised?.host ?? settings.advertisedHost }

    /// Where a process on this host reaches this server. What others are told may be the way here from
    /// outside alone.
    private var ownAddressHere: Address {
        guard told != nil else { return me.address }
        let port = Sockets.localPort(listener.raw)
        switch settings.listen.host {
        case "0.0.0.0": return Address(host: "127.0.0.1", port: port)
        case "::": return Address(host: "::1", port: port)
        default: return Address(host: settings.listen.host, port: port)
        }
    }

    private var placeFlags: [String] { told.map { ["--advertise-host", $0] } ?? [] }

    /// The lost replica's address if that is free again, else any port of this host.
    private var replacementAddress: Address {
        let anyPort = Address(host: settings.listen.host, port: 0)
        // Where the other is told to be found need not be where it listens, if this one's is not.
        guard restart.failures == 0, told == nil else { return anyPort }
        guard let partner = restart.partner else {
            return settings.peers.first { $0.host == me.address.host } ?? anyPort
        }
        let isFree = isHere(partner) && replica.isProvedDead(partner.instance)
        return isFree ? partner.address : anyPort
    }

    /// Whether it is, or was, on this host, as it has said itself: a view may be from before the last start
    /// of the machine, which has another number since.
    private func isHere(_ member: Member) -> Bool {
        (peers[member.instance]?.member ?? member).host == me.host
    }

    /// Where the lost replica had its journal, which makes the replacement that replica again, with
    /// all that it had; where that cannot be used, beside this replica's.
    private var replacementFolder: String? {
        guard let own = settings.dataFolder else { return nil }
        var folders: [String] = []
        if let partner = restart.partner, isHere(partner),
            let folder = peers[partner.instance]?.folder
        {
            folders.append(folder)
        }
        for folder in ["\(own)-backup", "\(own)-backup-2"] where !folders.contains(folder) {
            folders.append(folder)
        }
        return folders[restart.failures % folders.count]
    }

    /// A replica on this disk that nobody needs any more must not keep a port and a folder from
    /// those who start the lost one by hand. And a folder that is there already may be another service's.
    private var folderFlags: [String] {
        guard let folder = replacementFolder, let service else { return [] }
        return ["--data", folder, "--started-by", "\(me.pid)", "--service", "\(service)"]
    }

    private func failSpawn(_ reason: String) {
        restart.failures += 1
        let delay = min(
            UInt64(500_000_000) << UInt64(min(restart.failures - 1, 8)), Restart.delayMax)
        restart.nextSpawn = now + delay
        log.warning("the backup could not be started: \(reason); again in \(delay / 1_000_000) ms")
    }

    func reapChildren() {
        for child in restart.members {
            guard let exit = Processes.reap(child) else { continue }
            restart.members.removeAll { $0 == child }
            if isPrimary, stopping == nil {
                log.info("the backup, process \(child), has ended (\(exit))")
            }
            if stopping?.isForAll == true, !restart.hasChildren { exitCode = exitCode ?? 0 }
        }
        guard let child = restart.child, let exit = Processes.reap(child) else { return }
        restart.child = nil
        if stopping?.isForAll == true, !restart.hasChildren { exitCode = exitCode ?? 0 }
        guard isPrimary, stopping == nil else { return }
        if replica.view?.backups.isEmpty == true, !replica.isAdmitting {
            failSpawn("process \(child) ended before it joined (\(exit))")
        }
    }

    /// Ends a replacement that has not joined and is not needed.
    func stopReplacement(_ reason: String) {
        guard let child = restart.child,
            replica.view?.members.contains(where: { $0.pid == UInt64(child) }) != true
        else { return }
        log.info("stopping the replacement, process \(child): \(reason)")
        Processes.signal(child, Signals.terminate)
    }

    // MARK: Leading no more

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

    /// SIGTERM, SIGINT: the primary hands over first; a backup takes its leave.
    func beginLeaving() {
        stopping = Stopping(deadline: now + 5_000_000_000, isForAll: false)
        stopReplacement("this replica is leaving")
        continueLeaving()
    }

    func continueLeaving() {
        guard stopping?.isForAll == false else { return }
        guard replica.isMember, let view = replica.view else {
            log.info("leaving; this replica was in no view")
            exitCode = exitCode ?? 0
            return
        }
        guard isPrimary else {
            // A view that was being chosen when it said so may have come with this replica in it.
            stopping?.route = nil
            guard stopping?.hasLeft == false else {
                sayGoodbye(to: view.primary)
                return
            }
            stopping?.hasLeft = true
            log.info("leaving; replica \(view.primary.id) at \(view.primary.address) goes on")
            sayGoodbye(to: view.primary)
            return
        }
        guard !view.backups.isEmpty else {
            log.info("leaving; there is no backup: the service ends here")
            exitCode = exitCode ?? 0
            return
        }
        // In a group a primary hands over to a higher one, which may not have said yet that it goes.
        guard stopping?.hasLeft == false || settings.election == .bully else {
            // It had handed over already, and the other has handed back: it leaves as well.
            log.info("leaving; so does the other replica: the service ends here")
            exitCode = exitCode ?? 0
            return
        }
        if stopping?.viewLed != view.number {
            stopping?.viewLed = view.number
            let pause = stopping?.hasLeft == true ? Stopping.pause : 0
            stopping?.handOverAt = now + pause
        }
        // Whoever has handed over to this one may be leaving, too. Its word of that is on its way;
        // without waiting for it the two would hand over to each other until their time is over.
        guard let stopping, now >= stopping.handOverAt else { return }
        log.infoOnce("leaving: handing over to the backup first")
        step(.handOver)
    }

    /// Again whenever the path has changed, as it may have been lost with the old one.
    private func sayGoodbye(to primary: Member) {
        let route = paths.route(to: primary.instance)
        if let route, route != stopping?.route {
            stopping?.route = route
            _ = send(.leave(me.instance), toReplica: primary.instance)
        }
        let ticksLost = stopping?.ticksLost ?? 0
        stopping?.ticksLost = route == nil ? ticksLost + 1 : 0
        // A new path takes a moment; the primary itself may have gone.
        if ticksLost > Stopping.ticksLostMax { exitCode = exitCode ?? 0 }
    }

    func tickStopping() {
        guard let stopping else { return }
        if stopping.isForAll {
            let isAwaiting = restart.hasChildren || isRelayed
            if now > stopping.deadline || !isAwaiting { exitCode = exitCode ?? 0 }
            return
        }
        if now > stopping.deadline {
            log.warning("leaving without having been let go")
            exitCode = exitCode ?? 0
        } else if stopping.hasLeft, !isPrimary, let view = replica.view {
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
        stopping = Stopping(deadline: now + 1_000_000_000, isForAll: true)
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
        if !restart.hasChildren, !isRelayed { exitCode = exitCode ?? 0 }
    }

    /// The proof that this process has exited would be quicker than a relayed word to exit too.
    private var isRelayed: Bool {
        partners.contains { member in
            if case .relay = paths.route(to: member.instance) { true } else { false }
        }
    }
}
