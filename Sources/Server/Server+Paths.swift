import Replication
import Wire

// Over which path messages go to each other replica: the direct connection, or a client.
extension Server {
    /// All that happens to connections between replicas, and what tells of another's life, goes
    /// through here to the core.
    func step(_ event: Paths.Event) {
        var effects: [Paths.Effect] = []
        paths.step(event, into: &effects)
        for effect in effects { carryOut(effect) }
        noteRoutes()
    }

    private func carryOut(_ effect: Paths.Effect) {
        switch effect {
        case .step(let event):
            // Where the other went, a new connection may find out at once.
            if case .linkDown(let instance) = event {
                if knownReplicas[instance]?.isWorthCalling ?? true { joining.nextDial = now }
                calls.hurry()
            }
            step(event)
        case .send(let frame, let via): send(frame, via: via)
        case .closeDirect(let instance):
            guard let link = links[instance] else { return }
            log.detail("the connection to replica \(instance) is silent or of no use: closed")
            links[instance] = nil
            dropUnconfirmed(instance)
            close(link)
        }
    }

    private func send(_ frame: RelayFrame, via: Instance) {
        guard let connection = witnessConnection(via) else { return }
        connection.write { bytes in
            Message.relay(frame).encode(head: "witness", asPush: true, into: &bytes)
        }
        markDirty(connection)
    }

    /// False when there is no path to this replica now. What was sent when a path breaks is sent
    /// again, from the last ack on, when the next one stands.
    func send(_ message: Message, toReplica instance: Instance) -> Bool {
        switch paths.route(to: instance) {
        case .direct:
            guard let link = links[instance] else { return false }
            if cutInstances.contains(instance) { return true }
            link.write { message.encode(head: "PEER", into: &$0) }
            markDirty(link)
        case .relay(let via, let path):
            send(paths.frame(message, to: instance, path: path), via: via)
        case nil: return false
        }
        return true
    }

    /// Tells the paths who is in the view, and to whom this replica makes connections.
    func updatePaths() {
        guard replica.isMember, let view = replica.view else {
            step(.members([], keepsLinksTo: []))
            return
        }
        let others = view.members.map(\.instance).filter { $0 != me.instance }
        step(.members(others, keepsLinksTo: keptMembers.map(\.instance)))
    }

    // MARK: For people

    /// The view's other member: of a group the primary, or the primary's first backup.
    var partner: Member? { partners.first }

    /// The view's other members, the primary first.
    var partners: [Member] {
        guard replica.isMember || replica.status == .learning, let view = replica.view else {
            return []
        }
        return view.members.filter { $0.instance != me.instance }
    }

    private func noteRoutes() {
        let members = partners
        routesSeen.removeAll { seen in !members.contains { $0.instance == seen.instance } }
        for member in members { noteRoute(to: member) }
    }

    private func noteRoute(to member: Member) {
        let index = routesSeen.firstIndex { $0.instance == member.instance }
        let seen = index.map { routesSeen[$0].route }
        guard let route = paths.route(to: member.instance), route != seen else { return }
        let who = "replica \(member.id) at \(member.address)"
        switch (seen, route) {
        case (.relay, .direct): log.info("the direct connection to \(who) is back")
        case (_, .direct): break
        case (.relay, .relay(let via, _)):
            log.detail("what goes to \(who) is relayed by client \(clientName(via)) now")
        case (_, .relay(let via, _)):
            log.info(
                "the direct connection to \(who) is down: client \(clientName(via)) relays what "
                    + "goes there")
        }
        if let index { routesSeen.remove(at: index) }
        routesSeen.append((member.instance, route))
        // Another member's path may go through the same client.
        setRelaying(seen, false)
        for (_, route) in routesSeen { setRelaying(route, true) }
    }

    private func setRelaying(_ route: Paths.Route?, _ isRelaying: Bool) {
        guard case .relay(let via, _) = route else { return }
        guard let connection = witnessConnection(via) else { return }
        // The bound is lower now; what waits has been allowed.
        if connection.isRelaying, !isRelaying { connection.allowWhatIsThere() }
        connection.isRelaying = isRelaying
    }

    /// What a client calls itself is anything; here it is one word.
    private func clientName(_ via: Instance) -> String {
        let name = (witnessConnection(via)?.name ?? "").unicodeScalars.map { scalar in
            (33..<127).contains(scalar.value) ? Character(scalar) : "?"
        }
        return name.isEmpty ? "\(via)" : String(name)
    }

    /// For INFO: `direct`, `relay` or `none`, and who relays.
    var pathWords: (path: String, via: String) {
        switch partner.flatMap({ paths.route(to: $0.instance) }) {
        case .direct: ("direct", "")
        case .relay(let via, _):
            ("relay", clientName(via))
        case nil: ("none", "")
        }
    }
}
