import Replication
import Wire

// Which connections there are: one to each member of the newest view, and to the servers named at
// the start for as long as this voter is joined nowhere.
extension VoterSession {
    private static let dialMillisecondsMax: UInt64 = 2_000
    private static let greetingMillisecondsMax: UInt64 = 5_000
    /// A connection that stood for so long has not failed at once; its end is not held against it.
    private static let steadyMillisecondsMin: UInt64 = 1_000
    /// How long after losing the primary the servers named at the start are left alone: the usual
    /// change of views is over by then.
    private static let graceMilliseconds: UInt64 = 200
    private static let strangerMillisecondsMax: UInt64 = 5_000
    private static let endpointsMax = 64

    // MARK: Events

    mutating func onConnected(_ link: LinkID, into outbox: inout VoterOutbox) {
        guard let index = index(of: link), links[index].phase == .dialing else { return }
        links[index].phase = .greeting
        links[index].since = now
        links[index].heardAt = now
        send(.hello(name: settings.name), on: index, into: &outbox)
    }

    mutating func onClosed(_ link: LinkID, _ reason: String, into outbox: inout VoterOutbox) {
        guard let index = index(of: link) else { return }
        let lost = links[index]
        let address = lost.aliases[0]
        lastFailure = "\(address): \(reason)"
        switch lost.phase {
        case .dialing: outbox.notices.append(.detail("cannot reach \(address): \(reason)"))
        case .greeting:
            outbox.notices.append(.detail("\(address) did not answer HELLO: \(reason)"))
        case .open: outbox.notices.append(.news("connection to \(address) lost: \(reason)"))
        }
        remove(index, into: &outbox)
        if !(lost.isOpen && now - lost.since >= Self.steadyMillisecondsMin) { onFailure(address) }
    }

    mutating func onMalformed(
        _ link: LinkID,
        _ error: DecodeError,
        into outbox: inout VoterOutbox
    ) {
        guard let index = index(of: link) else { return }
        reject(
            index,
            "is not a polling server this client understands: \(error.text)",
            into: &outbox
        )
    }

    /// Takes the answer to HELLO. It may be asked again of a replica that had no service yet.
    mutating func onGreeting(_ link: Int, _ reply: RESPValue, into outbox: inout VoterOutbox) {
        let greeting: Greeting
        do {
            greeting = try Greeting(reply)
        } catch {
            reject(
                link,
                "is not a polling server this client understands: \(error.text)",
                into: &outbox
            )
            return
        }
        if let twin = links.firstIndex(where: {
            $0.isOpen && $0.instance == greeting.instance && $0.id != links[link].id
        }) {
            // The same process under another spelling of its address.
            let spelling = links[link].aliases[0]
            if !links[twin].aliases.contains(spelling) { links[twin].aliases.append(spelling) }
            if links[twin].claim == spelling { links[twin].claim = nil }
            if greeting.service == links[twin].service, let news = greeting.view {
                adopt(news, into: &outbox)
            }
            close(link, into: &outbox)
            return
        }
        let id = links[link].id
        guard isOurs(greeting.service, link, into: &outbox), let index = index(of: id) else {
            return
        }
        open(index, greeting, into: &outbox)
    }

    // MARK: Opening

    private mutating func open(
        _ index: Int,
        _ greeting: Greeting,
        into outbox: inout VoterOutbox
    ) {
        let isNew = !links[index].isOpen
        let isNewHere = greeting.service != nil && links[index].service == nil
        if links[index].service != greeting.service {
            links[index].service = greeting.service
            links[index].retryAt = 0
        }
        links[index].instance = greeting.instance
        if greeting.isPrimary, let address = greeting.view?.primary,
            !links[index].aliases.contains(address)
        {
            links[index].aliases.append(address)
            links[index].claim = address
        }
        if let place = endpoints.firstIndex(where: { $0.address == links[index].aliases[0] }) {
            endpoints[place].failures = 0
            endpoints[place].reported = nil
        }
        mayOweBallots = true
        if isNew {
            links[index].phase = .open
            links[index].since = now
            outbox.notices.append(.detail("connected to \(links[index].aliases[0])"))
            witness.hearingTicksMax = Int(min(greeting.silenceMillisecondsMax / 10, 1 << 20))
        }
        // One that is in no service takes no witness, but says when it has come into one.
        if isNew || isNewHere { send(.offer(instance), on: index, into: &outbox) }
        if isNewHere { stepWitness(.connected(greeting.instance), into: &outbox) }
        if greeting.service != nil, let news = greeting.view { adopt(news, into: &outbox) }
    }

    /// Whether a replica of this service may be used. The run belongs to the first service that it
    /// meets. One that has vanished before anything came of it may be given up for another: that is
    /// a pair that was started anew, or two fresh servers that have found each other.
    private mutating func isOurs(
        _ theirs: ServiceID?,
        _ link: Int,
        into outbox: inout VoterOutbox
    ) -> Bool {
        guard let theirs else { return true }
        guard let ours = service, ours != theirs else {
            service = theirs
            return true
        }
        let hasNothing = nextResult == 1 && ballots.isEmpty && early.isEmpty
        guard hasNothing, !links.contains(where: { $0.isOpen && $0.service == ours }) else {
            reject(
                link,
                "serves another service (\(theirs)) than this run's (\(ours)); not used",
                into: &outbox
            )
            return false
        }
        service = theirs
        view = nil
        isOnRoll = false
        // What this witness promised in the old service is forgotten, so it must never appear
        // there again under its old name; and nobody may have that name for it here either.
        let id = links[link].id
        for other in links where other.id != id && other.isOpen {
            if let index = index(of: other.id) { close(index, into: &outbox) }
        }
        instance = Instance(max(1, random.next()))
        witness = Witness(instance: instance, hearingTicksMax: witness.hearingTicksMax)
        outbox.notices.append(.news("the service was started anew (\(theirs))"))
        return true
    }

    // MARK: Views

    /// A view is news only if its number is higher; the same one may come with more backups, as not
    /// everybody names all of a group's.
    mutating func adopt(_ news: VoterView, into outbox: inout VoterOutbox) {
        let number = view?.number ?? ViewNumber(0)
        if news.number == number, let view, news.backups.count > view.backups.count {
            self.view?.backups = news.backups
        }
        guard news.number > number else { return }
        // Where a view was missed another may have led in between, and this one, its backup, has
        // asked for no ballots meanwhile.
        let hasNewPrimary = view?.primary != news.primary || news.number != number.next
        // A view may differ in its witnesses alone, which is nothing to people.
        let words = Self.describe(news)
        outbox.notices.append(view?.members == news.members ? .detail(words) : .news(words))
        if let view, view.isBehindForce(of: news) { doubtResults(into: &outbox) }
        view = news
        hint = nil
        for index in links.indices {
            links[index].retries = 0
            links[index].retryAt = 0
            if hasNewPrimary {
                links[index].joining = .none
                links[index].hasName = false
            }
        }
        if hasNewPrimary { unservedSince = unservedSince ?? now }
        // Ballots go again to all but a primary that goes on: who was no member before may have
        // nothing, and who held them as a backup must now answer for them.
        let kept = hasNewPrimary ? nil : primaryIndex.map { links[$0].id }
        for index in ballots.indices { ballots[index].sentOn.removeAll { $0 != kept } }
        mayOweBallots = true
        for address in news.members {
            // Named in a new view, so alive a moment ago.
            let place = endpoint(address)
            endpoints[place].failures = 0
            endpoints[place].retryAt = 0
        }
        forgetEndpoints()
    }

    private static func describe(_ view: VoterView) -> String {
        let backups = view.backups.map(\.description).joined(separator: ", ")
        return backups.isEmpty
            ? "view \(view.number): \(view.primary) alone collects the ballots"
            : "view \(view.number): primary \(view.primary), backup \(backups)"
    }

    /// The connection to the newest view's primary.
    var primaryIndex: Int? {
        guard let view else { return nil }
        return links.firstIndex { isMember($0) && $0.aliases.contains(view.primary) }
    }

    func isMember(_ link: VoterLink) -> Bool {
        guard let view, link.isOpen, link.service != nil, link.service == service else {
            return false
        }
        return view.members.contains { link.aliases.contains($0) }
    }

    // MARK: The witness

    mutating func stepWitness(_ event: Witness.Event, into outbox: inout VoterOutbox) {
        var answers = Outbox()
        witness.step(event, into: &answers)
        // This witness has no disk, so nothing has to be synced before the second half.
        for envelope in answers.send + answers.sendAfterSync {
            let index = links.firstIndex { $0.isOpen && $0.instance == envelope.to }
            if let index { send(.witness(envelope.message), on: index, into: &outbox) }
        }
    }

    mutating func adoptWitnessView(into outbox: inout VoterOutbox) {
        guard let view = witness.view else { return }
        for member in view.members { dropClaims(of: member) }
        adopt(VoterView(view), into: &outbox)
    }

    /// A connection taken for one to another member would stand for it for ever: that member would
    /// not be dialed, and were it the primary, this voter would ask to join at the wrong place.
    private mutating func dropClaims(of member: Member) {
        for index in links.indices
        where links[index].claim == member.address && links[index].instance != member.instance {
            links[index].claim = nil
            links[index].aliases.removeAll { $0 == member.address }
        }
    }

    // MARK: What is due

    /// Ends connections that do not come about, do not answer, or have fallen silent.
    mutating func settleSilence(into outbox: inout VoterOutbox) {
        // Two hearings: the view changes first if the primary is at fault.
        let quietMax = max(10_000, UInt64(witness.hearingTicksMax) * 20)
        for id in links.map(\.id) {
            guard let index = index(of: id) else { continue }
            let link = links[index]
            switch link.phase {
            case .dialing:
                if isDue(at: link.since + Self.dialMillisecondsMax) {
                    fail(index, "timed out", into: &outbox)
                }
            case .greeting:
                if isDue(at: link.since + Self.greetingMillisecondsMax) {
                    reject(index, "takes connections but does not answer", into: &outbox)
                }
            case .open:
                if let pingedAt = link.pingedAt {
                    if isDue(at: pingedAt + quietMax) { fail(index, "silent", into: &outbox) }
                } else if isDue(at: link.heardAt + quietMax) {
                    links[index].pingedAt = now
                    _ = isDue(at: now + quietMax)
                    if link.pending.isEmpty { send(.ping, on: index, into: &outbox) }
                }
            }
        }
    }

    mutating func settleDials(into outbox: inout VoterOutbox) {
        guard phase == .running else { return }
        for address in wanted() {
            guard !links.contains(where: { $0.aliases.contains(address) }) else { continue }
            let place = endpoint(address)
            guard isDue(at: endpoints[place].retryAt) else { continue }
            lastLink += 1
            let id = LinkID(lastLink)
            links.append(VoterLink(id: id, aliases: [address], since: now, heardAt: now))
            _ = isDue(at: now + Self.dialMillisecondsMax)
            outbox.dial.append(VoterOutbox.Dial(id, address))
        }
    }

    private mutating func wanted() -> [Address] {
        var list = view?.members ?? []
        if let hint, !list.contains(hint) { list.append(hint) }
        guard let unservedSince else { return list }
        let isLost = !links.contains(where: \.isOpen)
        if isLost || isDue(at: unservedSince + Self.graceMilliseconds) {
            for address in settings.servers where !list.contains(address) { list.append(address) }
        }
        return list
    }

    /// Lets go of replicas that are not in the newest view, a while after it has come: one that
    /// was cut off hears from its witnesses on this very connection that it is out.
    mutating func settleStrangers(into outbox: inout VoterOutbox) {
        guard let view else { return }
        let isServed = unservedSince == nil
        for id in links.map(\.id) {
            guard let index = index(of: id) else { continue }
            let isStranger =
                isServed && !view.members.contains { links[index].aliases.contains($0) }
            guard isStranger else {
                links[index].strangerSince = nil
                continue
            }
            let since = links[index].strangerSince ?? now
            links[index].strangerSince = since
            if isDue(at: since + Self.strangerMillisecondsMax) { close(index, into: &outbox) }
        }
    }

    // MARK: Ends

    /// Ends a connection that the shell still has.
    private mutating func close(_ index: Int, into outbox: inout VoterOutbox) {
        outbox.close.append(links[index].id)
        remove(index, into: &outbox)
    }

    /// As `close`, and the address is left alone for a while.
    mutating func fail(_ index: Int, _ reason: String, into outbox: inout VoterOutbox) {
        let id = links[index].id
        outbox.close.append(id)
        onClosed(id, reason, into: &outbox)
    }

    /// As `fail`, for an address where something is wrong that people should know: once.
    private mutating func reject(_ index: Int, _ reason: String, into outbox: inout VoterOutbox) {
        let address = links[index].aliases[0]
        let place = endpoint(address)
        if endpoints[place].reported != reason {
            endpoints[place].reported = reason
            outbox.notices.append(.trouble("\(address) \(reason)"))
        }
        lastFailure = "\(address) \(reason)"
        close(index, into: &outbox)
        onFailure(address)
    }

    private mutating func remove(_ index: Int, into outbox: inout VoterOutbox) {
        let lost = links.remove(at: index)
        for place in ballots.indices { ballots[place].sentOn.removeAll { $0 == lost.id } }
        if lost.joining == .joined { unservedSince = unservedSince ?? now }
        if lost.isOpen, let instance = lost.instance {
            stepWitness(.disconnected(instance), into: &outbox)
        }
    }

    private mutating func onFailure(_ address: Address) {
        let place = endpoint(address)
        let pause = Backoff.pause(first: 50, failures: endpoints[place].failures, &random)
        endpoints[place].retryAt = now + pause
        endpoints[place].failures += 1
    }

    // MARK: Endpoints

    private mutating func endpoint(_ address: Address) -> Int {
        if let place = endpoints.firstIndex(where: { $0.address == address }) { return place }
        endpoints.append(Endpoint(address: address))
        return endpoints.count - 1
    }

    /// Replacements of backups come with ports of their own; those long gone need no memory.
    private mutating func forgetEndpoints() {
        guard endpoints.count > Self.endpointsMax + settings.servers.count else { return }
        let members = view?.members ?? []
        endpoints.removeAll {
            !settings.servers.contains($0.address) && !members.contains($0.address)
        }
    }
}
