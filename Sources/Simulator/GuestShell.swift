import Services
import Wire

// Guests: clients that reserve rooms and answer what they can from their caches, as
// `reserveclient` does. One connection at a time is a guest's home: what comes over another it
// does not know, as the real one has no other.
extension Simulation {
    func isGuest(_ client: ClientProcess) -> Bool { Self.guestNames.contains(client.name) }

    func tickGuest(_ client: ClientProcess) {
        dialMissing(client)
        if client.home == nil { findHome(client) }
        let clock = leaseClock(client.tickTime)
        if let moment = client.cache.renewAt, clock >= moment { askLease(client) }
        workAsGuest(client)
    }

    private func findHome(_ client: ClientProcess) {
        guard now >= client.nextRequest else { return }
        let known = client.links.filter { $0.instance != nil }
        let redirected = known.first { $0.slot == client.redirect }
        let primary = client.primary.map { client.links[$0] }
        client.redirect = nil
        let link =
            redirected ?? (random.chance(500) ? primary : nil) ?? random.element(known)
        client.home = link?.connection
    }

    /// A lost connection empties the cache.
    func leaveHome(_ client: ClientProcess) {
        client.home = nil
        client.cache.onDisconnect()
        client.leaseAsked = nil
    }

    // MARK: Requests

    private func askLease(_ client: ClientProcess) {
        guard let home = client.home, client.leaseAsked == nil else { return }
        let request = history.ask(.lease, at: now)
        client.leaseAsked = (request.number, leaseClock(client.tickTime))
        send(home, from: 0, .request(request))
    }

    private func workAsGuest(_ client: ClientProcess) {
        if let request = client.pending {
            guard let home = client.home else { return }
            let patience = isHealed ? 400_000 : mix.guestPatience
            if client.pendingOn == home, now < client.pendingSince + patience { return }
            // A server that is silent for so long is left for another, or called anew: nothing is
            // asked twice on one connection.
            if client.pendingOn == home { drop(client, home) }
            // A read is asked anew, so that it is known when it was asked.
            if case .check = request.kind { client.pending = nil } else { post(client, request) }
            return
        }
        guard !isHealed, now >= client.nextRequest else { return }
        // One mostly looks, another mostly reserves: what the first has cached, the second changes.
        let isReader = client.name == Self.guestNames.lowerBound
        client.nextRequest = now + random.int(500...mix.guestPauseMax * (isReader ? 1 : 3))
        let room = random.chance(960) ? 0 : 1
        if random.chance(isReader ? 980 : 300) {
            check(client, room)
            return
        }
        let catalogue = Catalogue.builtIn
        let place = RoomPlace(
            room: catalogue.rooms[room], timeslot: catalogue.timeslots[random.int(0...1)],
            day: catalogue.days[0])
        client.sequence += 1
        let number = UInt64(client.number) << 8 | UInt64(client.name)
        let command: RoomCommand = random.chance(600) ? .reserve(place) : .delete(place)
        post(
            client,
            history.ask(.write(client: number, sequence: client.sequence, command), at: now))
    }

    private func check(_ client: ClientProcess, _ room: Int) {
        let name = String(decoding: Catalogue.builtIn.rooms[room], as: UTF8.self)
        let clock = leaseClock(client.tickTime)
        if let text = client.cache.lookup(.check(room: name), now: clock) {
            coverage.note(.answeredFromCache)
            let home = client.links.first { $0.connection == client.home }?.instance
            if home != history.newest?.primary.instance { coverage.note(.cacheOutlivesPrimary) }
            let request = history.ask(.check(room: room), at: now)
            check { () throws(Violation) in
                try history.answer(request.number, .room(text), at: now)
            }
            return
        }
        guard client.home != nil else { return }
        if !client.cache.hasLease(now: clock) { askLease(client) }
        post(client, history.ask(.check(room: room), at: now))
    }

    private func post(_ client: ClientProcess, _ request: Packet.Request) {
        client.pending = request
        client.pendingOn = client.home
        client.pendingSince = now
        guard let home = client.home else { return }
        if let name = Self.writtenRoom(request) { client.cache.onWriteSent(room: name) }
        send(home, from: 0, .request(request))
    }

    private static func writtenRoom(_ request: Packet.Request) -> String? {
        guard case .write(_, _, let command) = request.kind, let room = room(of: command) else {
            return nil
        }
        return String(decoding: Catalogue.builtIn.rooms[room], as: UTF8.self)
    }

    // MARK: Packets

    /// False: what all clients do with it is right.
    func receiveAsGuest(_ client: ClientProcess, _ packet: Packet, _ id: Int) -> Bool {
        let isHome = client.home == id
        switch packet {
        case .view(let view):
            guard isHome || client.home == nil else { return true }
            if isHome { client.cache.onView() }
            adopt(client, view)
            if isHome, client.primary.map({ client.links[$0].connection }) != id {
                leaveHome(client)
            }
        case .welcome(_, let view):
            guard isHome || client.home == nil || view == nil else {
                if let index = client.index(id), case .welcome(let instance, _) = packet {
                    client.links[index].instance = instance
                }
                return true
            }
            return false
        case .cacheable(let room):
            if isHome {
                client.cache.onCacheable(
                    String(decoding: Catalogue.builtIn.rooms[room], as: UTF8.self))
            }
        case .invalidate(let room):
            let name = room.map { String(decoding: Catalogue.builtIn.rooms[$0], as: UTF8.self) }
            if isHome { _ = client.cache.onInvalidate(name.map { [$0] }) }
            send(id, from: 0, .request(history.ask(.acknowledge(room: room), at: now)))
        case .reply(let number, let answer): onGuestReply(client, number, answer, isHome: isHome)
        default: return false
        }
        return true
    }

    private func onGuestReply(
        _ client: ClientProcess, _ number: Int, _ answer: Packet.Answer, isHome: Bool
    ) {
        let clock = leaseClock(client.tickTime)
        let isPending = client.pending?.number == number
        let request = isPending ? client.pending : nil
        switch answer {
        case .redirect, .tryAgain:
            if case .redirect(let address) = answer { client.redirect = Int(address.port) }
            client.nextRequest = max(client.nextRequest, now + random.int(2_000...30_000))
            if isHome { leaveHome(client) }
            if isPending, case .check = request?.kind { client.pending = nil }
            return
        case .leased:
            guard isHome, let asked = client.leaseAsked, asked.request == number else { break }
            client.leaseAsked = nil
            if !client.cache.hasLease(now: clock), client.cache.count > 0 {
                coverage.note(.cacheLapsed)
            }
            client.cache.onLease(sentAt: asked.at, length: mix.leaseLength, now: clock)
        case .room(let text):
            guard isHome, case .check(let room) = request?.kind else { break }
            let name = String(decoding: Catalogue.builtIn.rooms[room], as: UTF8.self)
            client.pending = nil
            client.cache.onReply(to: .check(room: name), text: text, now: clock)
            return
        case .held:
            // No lease now.
            if client.leaseAsked?.request == number { client.leaseAsked = nil }
        case .reply, .read, .results: break
        }
        if isHome { client.cache.onReply(to: nil, text: nil, now: clock) }
        guard let request else { return }
        if isHome, let name = Self.writtenRoom(request) {
            client.cache.onWriteAnswered(room: name)
        }
        client.pending = nil
    }
}
