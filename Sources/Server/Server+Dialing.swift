import Linux
import Replication
import Wire

/// A connection that is to be made, and how far that has come.
struct Dial {
    let address: Address
    let kind: Connection.Kind
    /// In digits: the one that is being tried.
    var host = ""
    /// Those of the same name that are left.
    var rest: ArraySlice<String> = []
    /// At how many of its addresses nobody listens, and how many may be somebody's all the same.
    var refusals = 0
    var silences = 0

    /// Nobody listens at any address that can be reached from here.
    var isRefused: Bool { refusals > 0 && silences == 0 }

    mutating func note(_ error: SystemError) {
        if error.isRefused {
            refusals += 1
        } else if !error.isUnroutable {
            silences += 1
        }
    }
}

// How this server connects to others: names are looked up beside the loop, and the addresses of a name
// are tried one after the other.
extension Server {
    func dial(_ address: Address, kind: Connection.Kind) {
        if case .dialing = kind { joining.dialStarted = now }
        var dial = Dial(address: address, kind: kind)
        do {
            if let hosts = try names.addresses(of: address.host, now: now) {
                dial.rest = hosts[...]
                connect(dial)
                return
            }
            if !areNamesWatched, let fd = names.fd {
                try poller.add(fd)
                areNamesWatched = true
            }
        } catch {
            giveUp(dial, error)
            return
        }
        // Each member is called once at a time, and of probes there is one for each connection lost.
        guard resolving.count < Self.resolvingMax else { return }
        resolving.append(dial)
    }

    private static var resolvingMax: Int { 64 }

    func onNames() {
        for answer in names.take(now: now) {
            let waiting = resolving.filter { $0.address.host == answer.host }
            resolving.removeAll { $0.address.host == answer.host }
            for item in waiting {
                guard !answer.addresses.isEmpty else {
                    let text = "\(answer.host): no such name, or the name server does not answer"
                    log.warnOnce(text)
                    fail(item, text)
                    continue
                }
                var dial = item
                dial.rest = answer.addresses[...]
                connect(dial)
            }
        }
    }

    /// Begins with the next of the addresses that are left, passing over those that fail at once.
    private func connect(_ from: Dial) {
        var dial = from
        var last = SystemError("connect", dial.address.description, code: SystemError.timedOut)
        while let host = dial.rest.popFirst() {
            do {
                let socket = try Sockets.connect(host: host, port: dial.address.port)
                dial.host = host
                guard let connection = add(socket, kind: dial.kind, isConnected: false) else {
                    fail(dial, "no room for another connection")
                    return
                }
                connection.dial = dial
                return
            } catch {
                dial.note(error)
                last = error
            }
        }
        giveUp(dial, last)
    }

    func onDialed(_ connection: Connection) {
        guard var dial = connection.dial else { return }
        if let error = Sockets.connectError(connection.fd.raw, dial.address.description) {
            dial.note(error)
            abandon(connection)
            if dial.rest.isEmpty { giveUp(dial, error) } else { connect(dial) }
            return
        }
        if case .probing(let instance) = dial.kind {
            abandon(connection)
            probes.again(instance, now: now)
            return
        }
        connection.isConnected = true
        connection.wantsWrite = false
        poller.modify(connection.fd.raw, read: true, write: false)
        sendHello(connection)
    }

    /// There is no address left to try.
    private func giveUp(_ dial: Dial, _ error: SystemError) {
        if dial.refusals + dial.silences == 0 || error.isOutOfDescriptors {
            log.warnOnce("\(error)")
        } else {
            log.detail("\(error)")
        }
        fail(dial, "\(error)")
        guard dial.isRefused else { return }
        if case .probing(let instance) = dial.kind {
            step(Paths.Event.refused(instance))
        } else if joining.isDeciding, settings.peers.contains(dial.address) {
            createService("nobody listens at \(dial.address)")
        } else if replica.isMember, let view = replica.view,
            let member = view.members.first(where: { $0.address == dial.address }),
            member.instance != me.instance
        {
            step(Paths.Event.refused(member.instance))
        }
    }

    private func fail(_ dial: Dial, _ reason: String) {
        switch dial.kind {
        case .dialing: failDialing(reason)
        case .probing(let instance): if !dial.isRefused { probes.again(instance, now: now) }
        case .calling(let address): calls.onFailed(address)
        case .client, .link: break
        }
    }

    func onDialFailed(_ address: Address, _ reason: String) {
        log.detail("connection to \(address): \(reason)")
        failDialing("\(address): \(reason)")
    }

    private func failDialing(_ reason: String) {
        joining.dialStarted = nil
        lookInVain(reason)
    }

    /// To be tried again later; for long it is not without a word.
    func lookInVain(_ reason: String) {
        joining.backOff(now)
        joining.lastReason = "waiting for a service; \(reason)"
        let since = joining.vainSince ?? now
        joining.vainSince = since
        if now > since + Joining.vainTimeMax, !joining.isDeciding {
            log.warnOnce("no service has been found (\(reason)); trying again and again")
        }
    }
}
