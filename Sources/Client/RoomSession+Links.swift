import Services
import Wire

/// The one connection of a room client. Moments are nanoseconds of the session's time.
struct RoomLink: Equatable, Sendable {
    enum Phase: Equatable, Sendable {
        case dialing
        /// Connected; HELLO is not answered yet.
        case greeting
        /// To a primary.
        case open
    }

    /// What a reply that is still to come is about. Replies come in the order of the commands.
    enum Asked: Equatable, Sendable {
        case hello
        case lease(sentAt: UInt64)
        case acknowledgement
        case task
    }

    let id: LinkID
    /// All spellings of the server's address that are known; the first one was dialed.
    var aliases: [Address]
    var phase = Phase.dialing
    /// When the phase began.
    var since: UInt64
    var pending: [Asked] = []
    /// When the oldest of `pending` came to be that.
    var waitingSince: UInt64
    /// How long it may take an open one to answer.
    var silenceMax: UInt64 = 0

    var hasAskedForLease = false

    var isOpen: Bool { phase == .open }

    var awaitsLease: Bool {
        pending.contains { if case .lease = $0 { true } else { false } }
    }
}

// Finding the primary: pass after pass over all servers that were ever named, with growing pauses.
extension RoomSession {
    private static let dialNanosecondsMax: UInt64 = 2_000_000_000
    private static let greetingNanosecondsMax: UInt64 = 2_000_000_000
    private static let knownMax = 64

    mutating func send(_ words: [String], _ asked: RoomLink.Asked, into outbox: inout RoomOutbox) {
        guard let id = link?.id else { return }
        if link?.pending.isEmpty == true { link?.waitingSince = now }
        link?.pending.append(asked)
        outbox.send.append(RoomOutbox.Outgoing(link: id, words: words))
    }

    // MARK: Events

    mutating func onConnected(_ id: LinkID, into outbox: inout RoomOutbox) {
        guard link?.id == id, link?.phase == .dialing else { return }
        link?.phase = .greeting
        link?.since = now
        send(["HELLO", "3"], .hello, into: &outbox)
    }

    mutating func onClosed(_ id: LinkID, _ reason: String, into outbox: inout RoomOutbox) {
        guard link?.id == id else { return }
        drop(reason, into: &outbox)
    }

    mutating func onGreeting(_ reply: RESPValue, into outbox: inout RoomOutbox) {
        guard let dialed = link?.aliases.first else { return }
        let greeting: RoomGreeting
        do {
            greeting = try RoomGreeting(reply)
        } catch {
            complain("is no server this client understands: \(error.text)", into: &outbox)
            return
        }
        if let theirs = greeting.service { adopt(theirs, into: &outbox) }
        if let view, let theirs = greeting.view?.number, theirs < view.number {
            lose("is behind: it knows view \(theirs) only", into: &outbox)
            return
        }
        if let news = greeting.view { adopt(news) }
        if greeting.isPrimary {
            open(greeting, into: &outbox)
        } else if let primary = greeting.view?.primary, primary != dialed {
            follow(primary, "is a backup", into: &outbox)
        } else {
            lose("knows no primary", into: &outbox)
        }
    }

    private mutating func open(_ greeting: RoomGreeting, into outbox: inout RoomOutbox) {
        guard var opened = link else { return }
        opened.phase = .open
        opened.since = now
        if let own = greeting.view?.primary, !opened.aliases.contains(own) {
            opened.aliases.append(own)
        }
        // A write may have to wait for a change of views and then for the end of other clients'
        // leases; a server that is silent for longer than both is asked elsewhere.
        let silence = greeting.silenceMillisecondsMax * 1_000_000
        opened.silenceMax = max(3_000_000_000, 2 * silence)
        link = opened
        queue = []
        tried = []
        leaseRetryAt = 0
        let words = "connected to \(opened.aliases[0]), the primary"
        if reportAt != nil {
            outbox.say.append(.notice(.news(words)))
        } else {
            detail(words, into: &outbox)
        }
    }

    // MARK: Services and views

    private mutating func adopt(_ theirs: String, into outbox: inout RoomOutbox) {
        guard service != theirs else { return }
        defer { service = theirs }
        guard service != nil else { return }
        // A copy of the old service knows its calls: a write that was carried out before the copy
        // was made is answered, not done again, if it comes as it was. One without a number yet
        // begins a session: were its first answer here lost, the next, that the session is not
        // known, would leave open whether it was carried out.
        if task?.sequence == nil { renewSession() }
        view = nil
        task?.isUncertainHere = false
        interject(
            .news("the service was started anew: earlier reservations may be gone"), into: &outbox)
    }

    mutating func adopt(_ news: VoterView) {
        if let view, news.number < view.number { return }
        view = news
        var list: [Address] = []
        for address in news.members + known where !list.contains(address) { list.append(address) }
        known = Array(list.prefix(Self.knownMax))
    }

    // MARK: Passes

    /// Asks another server than the one that stands, on that one's advice.
    mutating func follow(_ address: Address, _ reason: String, into outbox: inout RoomOutbox) {
        let wasOpen = link?.isOpen ?? false
        if wasOpen {
            lose(reason, into: &outbox)
            // Another pass, but not back to this one first.
            queue = candidates().filter { $0 != address }
            queue.insert(address, at: 0)
        } else if !tried.contains(address) {
            queue.removeAll { $0 == address }
            queue.insert(address, at: 0)
            lose(reason, into: &outbox)
        } else {
            lose(reason, into: &outbox)
        }
    }

    private func candidates() -> [Address] {
        var list: [Address] = []
        for address in known + settings.servers where !list.contains(address) {
            list.append(address)
        }
        return list
    }

    mutating func settleDial(into outbox: inout RoomOutbox) {
        guard link == nil else { return }
        if tried.isEmpty {
            guard isDue(at: retryAt) else { return }
            if queue.isEmpty { queue = candidates() }
        }
        guard !queue.isEmpty else { return }
        let address = queue.removeFirst()
        tried.append(address)
        lastLink += 1
        let id = LinkID(lastLink)
        link = RoomLink(id: id, aliases: [address], since: now, waitingSince: now)
        _ = isDue(at: now + Self.dialNanosecondsMax)
        outbox.dial.append(RoomOutbox.Dial(link: id, address: address))
    }

    mutating func settleSilence(into outbox: inout RoomOutbox) {
        guard let link else { return }
        switch link.phase {
        case .dialing:
            if isDue(at: link.since + Self.dialNanosecondsMax) {
                lose("timed out", into: &outbox)
            }
        case .greeting:
            if isDue(at: link.since + Self.greetingNanosecondsMax) {
                lose("takes connections but does not answer", into: &outbox)
            }
        case .open:
            guard !link.pending.isEmpty else { return }
            if isDue(at: link.waitingSince + link.silenceMax) {
                lose("does not answer", into: &outbox)
            }
        }
    }

    // MARK: Ends

    /// As `lose`, for something that people should know.
    mutating func complain(_ words: String, into outbox: inout RoomOutbox) {
        guard let address = link?.aliases.first else { return }
        let text = "\(address) \(words)"
        if complaint != text {
            complaint = text
            interject(.trouble(text + "; the connection is made anew"), into: &outbox)
        }
        failureCount += 1
        lose(words, into: &outbox)
    }

    /// Ends the connection that the shell still has.
    mutating func lose(_ reason: String, into outbox: inout RoomOutbox) {
        guard let id = link?.id else { return }
        stopTracking(into: &outbox)
        outbox.close.append(id)
        drop(reason, into: &outbox)
    }

    /// A server that only saw the connection end would let reservations wait for the end of the
    /// lease: whoever cached may answer from the cache until then.
    func stopTracking(into outbox: inout RoomOutbox) {
        guard let link, link.isOpen, link.hasAskedForLease else { return }
        let words = ["CLIENT", "TRACKING", "OFF"]
        outbox.send.append(RoomOutbox.Outgoing(link: link.id, words: words))
    }

    /// Forgets the connection and what was on its way; tries another server now or later.
    private mutating func drop(_ reason: String, into outbox: inout RoomOutbox) {
        guard let lost = link else { return }
        let address = lost.aliases[0]
        link = nil
        failures.removeAll { $0.address == address }
        failures.append(Failure(address: address, reason: reason))
        if failures.count > Self.knownMax { failures.removeFirst() }
        detail("\(address): \(reason)", into: &outbox)
        cache.onDisconnect()
        if task?.isSent == true {
            task?.isSent = false
            task?.isUncertain = true
            task?.isUncertainHere = true
        }
        if lost.isOpen {
            // Whoever is next is likelier to lead than the one that was just lost.
            known = known.filter { $0 != address } + known.filter { $0 == address }
            queue = []
            tried = []
            retryAt = failureCount == 0 ? now : now + pause()
            failureCount += 1
        } else if queue.isEmpty {
            tried = []
            retryAt = now + pause()
            failureCount += 1
        }
    }

    mutating func pause() -> UInt64 {
        Backoff.pause(first: 20, failures: failureCount, &random) * 1_000_000
    }

    private func detail(_ text: String, into outbox: inout RoomOutbox) {
        // At a prompt it would stand in the middle of what somebody types.
        if task != nil || settings.source != .terminal {
            outbox.say.append(.notice(.detail(text)))
        }
    }
}
