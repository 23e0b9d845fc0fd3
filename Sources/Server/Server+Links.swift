import Arguments
import Linux
import Replication
import Storage
import Wire

/// Why another replica is not to be spoken with.
private struct Objection {
    /// What it is answered, behind the code `PEER`.
    let answer: String
    /// What people are told here.
    let words: String
}

// Connections to other replicas.
extension Server {
    /// What this replica says of itself. Of its views only one of which all is durable is in it.
    private var ownHello: PeerHello {
        let view = shownView
        let status: PeerHello.Status =
            replica.isMember && view != nil
            ? .member : service != nil ? .joining : joining.isDeciding ? .deciding : .fresh
        return PeerHello(
            service: service, status: status, member: me, view: view,
            election: settings.election, folder: settings.dataFolder,
            former: durable?.store.former ?? [])
    }

    func sendHello(_ connection: Connection) {
        // What is said in it has to be durable, and who calls may wait for just that.
        if durable?.isBehind == true { settleDisk() }
        let hello = ownHello
        connection.write { hello.encode(into: &$0) }
        markDirty(connection)
    }

    // MARK: Hello

    /// The first command of a connection that another replica has made.
    func onFirstPeerCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard isFresh(connection) else { return }
        onHello(arguments, connection, answer: true)
    }

    /// Whether nothing is kept of this connection that only a client has; it is closed if not.
    private func isFresh(_ connection: Connection) -> Bool {
        let isFresh =
            connection.pending == 0 && connection.voterName == nil && connection.witness == nil
            && !connection.isTracking && copy?.connection !== connection
        if !isFresh {
            fail(connection, "PEER this connection has been a client's; a replica makes a new one")
        }
        return isFresh
    }

    /// `answer`: the other end has made the connection, and is owed this replica's hello.
    private func onHello(
        _ arguments: borrowing CommandArguments, _ connection: Connection, answer: Bool
    ) {
        let hello: PeerHello
        do {
            hello = try PeerHello(arguments)
        } catch {
            let words = "refused a replica: \(error.text)"
            refuse(connection, Objection(answer: error.text, words: words))
            return
        }
        let instance = hello.member.instance
        if instance == me.instance {
            if answer {
                sendHello(connection)
                connection.isClosing = true
            } else {
                close(connection)
            }
            onOwnInstance(hello.member, wasDialed: !answer)
            return
        }
        if cutInstances.contains(instance) {
            if !isCutSilent { close(connection) }
            return
        }
        // Sent before its end. A newer process of the same instance has another number.
        if replica.isProvedDead(instance), knownReplicas[instance]?.member.pid == hello.member.pid {
            close(connection)
            return
        }
        if let objection = objection(to: hello) {
            refuse(connection, objection)
            return
        }
        if answer { sendHello(connection) }
        register(hello, connection, wasDialed: !answer)
    }

    /// Nil: the two may be members of one view.
    private func objection(to hello: PeerHello) -> Objection? {
        let address = hello.member.address
        if let mine = service, let theirs = hello.service, mine != theirs {
            return Objection(
                answer: "service \(theirs) is not this replica's service \(mine)",
                words: "the replica at \(address) belongs to another service (\(theirs)); "
                    + "this one is in \(mine); stop one of them")
        }
        let (mine, theirs) = (settings.election.rawValue, hello.election.rawValue)
        guard mine != theirs else { return nil }
        return Objection(
            answer: "this server was started with --election \(mine), that one with \(theirs); "
                + "give both the same",
            words: "the replica at \(address) was started with --election \(theirs), this one "
                + "with \(mine): refused")
    }

    /// The connection ends when the other has been told why.
    private func refuse(_ connection: Connection, _ objection: Objection) {
        connection.write { RESP.error("PEER \(objection.answer)", into: &$0) }
        markDirty(connection)
        connection.isClosing = true
        log.warnOnce(objection.words)
    }

    /// Somebody calls itself this replica: this process itself, or one on a copy of its folder. Two of
    /// them might acknowledge different things, so whoever has just come and calls the other ends;
    /// both do if both have.
    private func onOwnInstance(_ member: Member, wasDialed: Bool) {
        if member.pid == me.pid, member.host == me.host {
            log.warnOnce(
                "one address of --peer or --join is this server's own; give the others' alone")
            return
        }
        let text =
            "process \(member.pid) at \(member.address) is this very replica, on a copy of its "
            + "folder; only one of the two may run"
        guard wasDialed, now < startedAt + Self.newcomerNanoseconds else {
            log.warnOnce(text)
            return
        }
        let folder = durable.map { "\($0.store.folder): " } ?? ""
        log.error("\(folder)\(text): remove the copy that has not gone on")
        end(.io)
    }

    static var newcomerNanoseconds: UInt64 { 10_000_000_000 }

    private func register(_ hello: PeerHello, _ connection: Connection, wasDialed: Bool) {
        let instance = hello.member.instance
        switch connection.kind {
        case .dialing: joining.dialStarted = nil
        case .calling(let address): calls.onConnected(address)
        case .client, .link, .probing: break
        }
        connection.kind = .link(instance)
        let older = links[instance]
        links[instance] = connection
        if let older {
            // The newest is the one that surely stands; what was on its way is sent again.
            dropUnconfirmed(instance)
            close(older)
        }
        let silence = settings.heartbeatMilliseconds * settings.misses
        Sockets.setPatience(connection.fd.raw, milliseconds: max(20_000, 2 * silence))
        // The heartbeats are to go where this connection goes.
        updateLinks()
        heartbeats.renew(instance)
        if knownReplicas.count >= KnownReplica.countMax { forgetPassers() }
        knownReplicas[instance] = KnownReplica(
            member: hello.member, folder: hello.folder, service: hello.service,
            isWorthCalling: hello.status == .member || hello.status == .deciding)
        log.detail("connected to replica \(hello.member.id) at \(hello.member.address)")
        watchProcess(hello.member, connection)
        for former in hello.former { endFormer(former, of: hello.member) }
        step(.met(Life(hello.member), knowing: hello.view))
        step(.directUp(instance))
        updateLinks()
        guard connection.isOpen else { return }
        if wasDialed || joining.isDeciding { onServiceHello(hello, connection) }
    }

    /// Of whom is neither connected nor concerned nothing is kept: anybody may call itself a replica.
    private func forgetPassers() {
        func isKept(_ instance: Instance) -> Bool {
            links[instance] != nil || replica.view?.contains(instance) == true
                || replacement.partner?.instance == instance
        }
        knownReplicas = knownReplicas.filter { isKept($0.key) }
        for entry in processes.entries where !isKept(entry.life.instance) {
            if entry.isConfirmed { poller.remove(entry.handle.fd.raw) }
        }
        processes.entries.removeAll { !isKept($0.life.instance) }
    }

    /// Ends the connections to replicas that have not said that they are in this replica's service; to be
    /// called when that becomes known, before anything is said in it. Views do not name their service, and
    /// what comes on a connection is taken for this one's: but the other may be in another, or in none
    /// yet and come into another. Whoever needs the connection makes it anew, with a new hello.
    func dropStrangers() {
        for case let connection? in connections {
            guard case .link(let instance) = connection.kind, links[instance] === connection,
                service == nil || knownReplicas[instance]?.service != service
            else { continue }
            links[instance] = nil
            dropUnconfirmed(instance)
            step(.directDown(instance))
            // Closed when it has taken the hello that may still be owed to it.
            connection.isClosing = true
            markDirty(connection)
        }
    }

    /// A replica that begins anew in the folder of another instance proves that one's end.
    private func endFormer(_ former: Instance, of member: Member) {
        guard former != me.instance, former != member.instance, !replica.isProvedDead(former)
        else { return }
        if replica.view?.contains(former) == true {
            log.info(
                "the replica at \(member.address) could not read what it had on its disk and "
                    + "begins anew")
        }
        if let link = links[former] { close(link) }
        step(Paths.Event.exited(former, nil))
    }

    /// Decides what a hello means for a replica that is in no view.
    private func onServiceHello(_ hello: PeerHello, _ connection: Connection) {
        guard !replica.isMember, replica.status != .learning else { return }
        switch hello.status {
        case .member:
            guard let view = hello.view, let theirs = hello.service else { return }
            joining.delay = Joining.delayMin
            joining.vainSince = nil
            if joining.isDeciding, joining.restoration != nil {
                refuseToRestore(besides: theirs, at: hello.member.address)
                return
            }
            if joining.isDeciding {
                joining.isDeciding = false
                log.info(
                    "a service is running already, led from \(view.primary.address): joining it")
            }
            if view.primary.instance == hello.member.instance {
                guard now >= joining.startAt else { return }
                if service == nil {
                    service = theirs
                    dropStrangers()
                }
                claimFolder(theirs)
                log.mode = "backup"
                joining.joinCount += 1
                joining.seats = view.members
                step(.join(primary: hello.member.instance, JoinID(Entropy.next() >> 2)))
            } else {
                joining.target = view.primary.address
                joining.nextDial = now
            }
        case .deciding:
            if joining.isDeciding,
                (me.id, me.instance) > (hello.member.id, hello.member.instance)
            {
                createService("the replica at \(hello.member.address) has the lower id")
            } else {
                // First: where a connection breaks that was of use it is to look again at once.
                close(connection)
                joining.retrySoon(now)
            }
        case .fresh, .joining:
            if joining.isDeciding, hello.status == .fresh {
                createService("the replica at \(hello.member.address) waits for a primary")
            } else {
                if let view = hello.view, view.primary.address != me.address {
                    joining.target = view.primary.address
                }
                if !joining.isDeciding { close(connection) }
                lookInVain("\(hello.member.address) looks for one as well")
            }
        }
    }

    // MARK: Commands between replicas

    func onReplicaCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.equals(0, "peer"), arguments.count >= 2 else {
            var words: [String] = []
            for index in 0..<arguments.count { words.append(arguments.text(index)) }
            let text = String(words.joined(separator: " ").prefix(200))
            switch connection.kind {
            case .dialing(let address), .calling(let address):
                log.warnOnce("\(address) is no pollsrv that would have us: it answered '\(text)'")
            case .client, .link, .probing:
                log.warning("a replica sent '\(text)'; connection dropped")
            }
            close(connection)
            return
        }
        guard case .link(let instance) = connection.kind else {
            onHello(arguments, connection, answer: false)
            return
        }
        if cutInstances.contains(instance) { return }
        if arguments.equals(1, "ping") || arguments.equals(1, "pong") {
            guard arguments.count == 3 else { return }
            if arguments.equals(1, "ping") {
                let nonce = arguments.text(2)
                connection.write { RESP.command(["PEER", "pong", nonce], into: &$0) }
                markDirty(connection)
            } else {
                confirmProcess(instance, nonce: arguments.number(2) ?? 0)
            }
            return
        }
        // In no service, it takes what it knows of one from hellos alone: a view that is learnt here would
        // be believed in whichever service it comes to be in.
        guard service != nil else { return }
        var fields: [[UInt8]] = []
        for index in 1..<arguments.count { fields.append(arguments.array(index)) }
        do {
            step(.message(try Message(fields: fields), from: instance))
        } catch {
            log.warning("replica \(instance) sent a bad message (\(error.text)); dropped")
            close(connection)
        }
    }

    func onLinkClosed(_ connection: Connection, _ instance: Instance) {
        guard links[instance] === connection else { return }
        links[instance] = nil
        dropUnconfirmed(instance)
        log.detail("connection to replica \(instance) is down")
        step(.directDown(instance))
        // A join that came to nothing has its pause, also when the connection was its end.
        if joining.failures == 0, knownReplicas[instance]?.isWorthCalling ?? true {
            joining.nextDial = now
        }
        // Who keeps the connection dials anyway.
        probes.begin(instance, now: now)
        probe()
    }

    func onFirstBeat(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count == 2, let instance = Instance(text: arguments.text(1)) else {
            replyArity(connection, "BEAT instance")
            return
        }
        guard isFresh(connection) else { return }
        guard !cutInstances.contains(instance) else {
            if !isCutSilent { close(connection) }
            return
        }
        step(.heardDirectly(instance))
        // The descriptor goes to the heartbeat thread; this connection object ends here.
        do {
            let copy = try connection.fd.duplicate()
            close(connection)
            heartbeats.handOver(copy.release(), from: instance)
        } catch {
            log.warnOnce("\(error)")
            close(connection)
        }
    }

    /// Whether this replica, and not the other, makes the connections between the two: a backup
    /// to its primary and to the backups with lower instances.
    func keepsLink(to member: Member) -> Bool {
        guard replica.isMember, let view = replica.view, member.instance != me.instance,
            view.contains(member.instance), !isPrimary
        else { return false }
        return member.instance == view.primary.instance || member.instance < me.instance
    }

    /// To whom this replica makes the connections.
    var keptMembers: [Member] { replica.view?.members.filter { keepsLink(to: $0) } ?? [] }

    /// Whom to dial for heartbeats.
    func updateLinks() {
        heartbeats.setTargets(
            keptMembers.map { member in
                // Where it has answered: a name may have several addresses, and others may be told of
                // one that is of no use here.
                let dial = links[member.instance]?.dial
                return .init(
                    instance: member.instance,
                    address: Address(
                        host: dial?.host ?? member.address.host,
                        port: dial?.address.port ?? member.address.port))
            })
    }

    // MARK: The test hook

    /// Cuts the direct connections and heartbeats between the members of the view as it is; what
    /// clients relay is untouched. One that joins later is not cut off. `isSilent`: as a network
    /// that drops everything, so that neither end is told.
    func setCut(_ cut: Bool, isSilent: Bool) {
        let others = (replica.view?.members.map(\.instance) ?? []).filter { $0 != me.instance }
        cutInstances = cut ? others : []
        isCutSilent = isSilent
        heartbeats.setCut(cutInstances, isSilent: isSilent)
        for instance in cutInstances where !isSilent {
            if let link = links[instance] { close(link) }
        }
        joining.nextDial = now
        let what = cut ? isSilent ? "cut silently" : "cut" : "healed"
        log.warning("the direct link to the other replica is \(what) (test hook)")
    }
}
