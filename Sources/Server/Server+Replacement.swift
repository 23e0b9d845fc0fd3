import Linux
import Replication
import Wire

/// The replacement for a lost backup: a process that this replica starts.
struct Replacement {
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

// What this replica does about a lost backup.
extension Server {
    func onEnteredForReplacement(_ view: View) {
        guard view.primary.instance == me.instance else {
            replacement.partner = view.primary
            return
        }
        if let backup = view.backups.first {
            replacement.partner = backup
            replacement.failures = 0
            if let child = replacement.child {
                if UInt64(child) == backup.pid, backup.host == me.host {
                    replacement.members.append(child)
                    replacement.child = nil
                } else {
                    stopReplacement("replica \(backup.id) has taken the place")
                }
            }
        } else if replacement.partner != nil, replacement.child == nil {
            let isProved = replacement.partner.map { replica.isProvedDead($0.instance) } ?? false
            replacement.nextSpawn = now + (isProved ? 0 : Replacement.proofNanoseconds)
        }
    }

    func tickReplacement() {
        guard isPrimary, settings.restartsBackup, stopping == nil,
            replica.view?.backups.isEmpty == true, !replica.isAdmitting
        else { return }
        if let child = replacement.child {
            replacement.childTicks -= min(1, replacement.childTicks)
            guard replacement.childTicks == 0 else { return }
            // It is stopped, or its disk hangs, or it does not reach this server. Another is started when
            // its end is seen.
            log.warning("the replacement, process \(child), does not join: ending it")
            Processes.signal(child, Signals.kill)
            replacement.childTicks = .max
        } else if now >= replacement.nextSpawn {
            spawnBackup()
        }
    }

    private func spawnBackup() {
        let address = replacementAddress
        // The first backup of a fresh service has nothing to recover from.
        let isFirst = replacement.partner == nil && durable?.isRecovered != true
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
            replacement.child = pid
            replacement.childAddress = address
            replacement.childTicks =
                (delay + Replacement.joinMillisecondsMax) / Settings.tickMilliseconds
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
        guard replacement.failures == 0, told == nil else { return anyPort }
        guard let partner = replacement.partner else {
            return settings.peers.first { $0.host == me.address.host } ?? anyPort
        }
        let isFree = isHere(partner) && replica.isProvedDead(partner.instance)
        return isFree ? partner.address : anyPort
    }

    /// Whether it is, or was, on this host, as it has said itself: a view may be from before the last start
    /// of the machine, which has another number since.
    private func isHere(_ member: Member) -> Bool {
        (knownReplicas[member.instance]?.member ?? member).host == me.host
    }

    /// Where the lost replica had its journal, which makes the replacement that replica again, with
    /// all that it had; where that cannot be used, beside this replica's.
    private var replacementFolder: String? {
        guard let own = settings.dataFolder else { return nil }
        var folders: [String] = []
        if let partner = replacement.partner, isHere(partner),
            let folder = knownReplicas[partner.instance]?.folder
        {
            folders.append(folder)
        }
        for folder in ["\(own)-backup", "\(own)-backup-2"] where !folders.contains(folder) {
            folders.append(folder)
        }
        return folders[replacement.failures % folders.count]
    }

    /// A replica on this disk that nobody needs any more must not keep a port and a folder from
    /// those who start the lost one by hand. And a folder that is there already may be another service's.
    private var folderFlags: [String] {
        guard let folder = replacementFolder, let service else { return [] }
        return ["--data", folder, "--started-by", "\(me.pid)", "--service", "\(service)"]
    }

    private func failSpawn(_ reason: String) {
        replacement.failures += 1
        let delay = min(
            UInt64(500_000_000) << UInt64(min(replacement.failures - 1, 8)), Replacement.delayMax)
        replacement.nextSpawn = now + delay
        log.warning("the backup could not be started: \(reason); again in \(delay / 1_000_000) ms")
    }

    func reapChildren() {
        for child in replacement.members {
            guard let exit = Processes.reap(child) else { continue }
            replacement.members.removeAll { $0 == child }
            if isPrimary, stopping == nil {
                log.info("the backup, process \(child), has ended (\(exit))")
            }
            endWithChildren()
        }
        guard let child = replacement.child, let exit = Processes.reap(child) else { return }
        replacement.child = nil
        endWithChildren()
        guard isPrimary, stopping == nil else { return }
        if replica.view?.backups.isEmpty == true, !replica.isAdmitting {
            failSpawn("process \(child) ended before it joined (\(exit))")
        }
    }

    /// Ends a replacement that has not joined and is not needed.
    func stopReplacement(_ reason: String) {
        guard let child = replacement.child,
            replica.view?.members.contains(where: { $0.pid == UInt64(child) }) != true
        else { return }
        log.info("stopping the replacement, process \(child): \(reason)")
        Processes.signal(child, Signals.terminate)
    }
}
