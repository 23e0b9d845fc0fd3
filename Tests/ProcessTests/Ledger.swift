import Foundation
import Testing

/// A client that casts ballots and one that reserves rooms, each in a thread of its own, and what
/// they were told is done. Nothing is given up: a request without an answer is sent again, to either
/// server, until it has one. So whenever both are idle it is known exactly what must be there.
final class Ledger: @unchecked Sendable {
    private let ports: [UInt16]
    private let lock = NSCondition()
    /// The vote that is open; 0: none. Others are closed soon: clients log results in order.
    private var vote = 0
    /// In the open vote.
    private var cast: [(voter: String, choice: Bool)] = []
    private var results: [Result] = []
    private var acknowledged = 0
    /// Places by their numbers, which go round: longer than this table is no test.
    private var reserved: [Int] = []
    private var next = 0
    private var wrongs: [String] = []
    private var isHeld = false
    private var isEnding = false
    private var working = 0
    private var threads = 0
    /// When the last ballot was acknowledged, and the longest time between two since `restartGap`.
    private var lastAck = Date()
    private var gapMax = 0.0
    private let caller = UInt64.random(in: 1...(1 << 52))

    private struct Result {
        let vote: Int
        let yes: Int
        let no: Int
    }

    static let roomCount = 200
    private static let ballotsPerVote = 8
    private static let slots = ["8:30-9:30", "9:30-10:30", "10:30-11:30"]
    private static let days = ["Monday", "Tuesday", "Wednesday"]
    private static let placesPerRoom = slots.count * days.count

    init(_ ports: [UInt16]) { self.ports = ports }

    static func room(_ index: Int) -> String { "R\(index)" }

    /// The room, slot and day of a place by its number.
    private static func words(_ place: Int) -> String {
        let rest = place % placesPerRoom
        return "\(room(place / placesPerRoom)) \(slots[rest % slots.count])"
            + " \(days[rest / slots.count])"
    }

    // MARK: Working

    func begin() {
        restartGap()
        var votes = 0
        start { [self] sender in
            let (vote, number) = lock.withLock { (self.vote, cast.count) }
            if vote == 0 {
                // Once each: an open vote that nobody knows of would never be closed.
                let command = "CALL \(caller + 1) \(votes + 1) VOTE.OPEN ledger ROLL open"
                guard let reply = sender.ask(command) else { return }
                votes += 1
                lock.withLock {
                    if case .number(let id) = reply {
                        (self.vote, cast) = (id, [])
                    } else {
                        note(command, reply)
                    }
                }
            } else if number == Self.ballotsPerVote {
                guard let reply = sender.ask("VOTE.CLOSE \(vote)") else { return }
                lock.withLock {
                    if reply != .text("OK") { note("VOTE.CLOSE \(vote)", reply) }
                    let yes = cast.count { $0.choice }
                    results.append(Result(vote: vote, yes: yes, no: cast.count - yes))
                    self.vote = 0
                }
            } else {
                castBallot(number, vote, sender)
            }
        }
        startReserving()
    }

    private func note(_ command: String, _ reply: RawClient.Reply) {
        wrongs.append("\(command): \(reply)")
        isEnding = true
    }

    private func castBallot(_ number: Int, _ vote: Int, _ sender: Sender) {
        let ballot = (voter: "v\(number)", choice: (number + vote) % 3 != 0)
        let command = "VOTE.CAST \(vote) \(ballot.voter) \(ballot.choice ? "yes" : "no")"
        guard let reply = sender.ask(command) else { return }
        lock.withLock {
            if reply != .text("OK") { note(command, reply) }
            cast.append(ballot)
            acknowledged += 1
            gapMax = max(gapMax, -lastAck.timeIntervalSinceNow)
            lastAck = Date()
        }
        // The servers have more to do than this, a debug build most of all.
        usleep(2_000)
    }

    private func startReserving() {
        var sequence = 0
        start { [self] sender in
            sequence += 1
            // Every third call takes an older reservation back, and each when there are many.
            let (oldest, next) = lock.withLock {
                (sequence % 3 == 0 || reserved.count > 300 ? reserved.first : nil, self.next)
            }
            let place = oldest ?? next
            let words = Self.words(place)
            let command =
                oldest == nil ? "ROOM.RESERVE \(words)" : "ROOM.DELETE \(words)"
            let done = oldest == nil ? "Reservation confirmed" : "Deletion confirmed"
            guard let reply = sender.ask("CALL \(caller) \(sequence) \(command)") else { return }
            lock.withLock {
                if reply != .text(done) { note("call \(sequence), \(command)", reply) }
                if oldest == nil {
                    reserved.append(place)
                    self.next = (next + 1) % (Self.roomCount * Self.placesPerRoom)
                } else {
                    reserved.removeFirst()
                }
            }
            usleep(10_000)
        }
    }

    private func start(_ body: @escaping (Sender) -> Void) {
        // Used by the new thread alone.
        nonisolated(unsafe) let body = body
        threads += 1
        let thread = Thread { [self] in
            let sender = Sender(ports) { [self] in lock.withLock { isEnding } }
            while enter() {
                body(sender)
                leave()
            }
            lock.withLock {
                threads -= 1
                lock.broadcast()
            }
        }
        thread.start()
    }

    private func enter() -> Bool {
        lock.withLock {
            while isHeld, !isEnding { lock.wait() }
            working += isEnding ? 0 : 1
            return !isEnding
        }
    }

    private func leave() {
        lock.withLock {
            working -= 1
            lock.broadcast()
        }
    }

    func end() {
        lock.withLock {
            isEnding = true
            lock.broadcast()
            let deadline = Date().addingTimeInterval(30)
            while threads > 0, lock.wait(until: deadline) {}
        }
    }

    // MARK: Judging

    var count: Int { lock.withLock { acknowledged } }

    func restartGap() { lock.withLock { (lastAck, gapMax) = (Date(), 0) } }

    /// The longest time without an acknowledged ballot, in seconds.
    var gap: Double { lock.withLock { gapMax } }

    /// Waits until more was acknowledged.
    func waitForMore(_ more: Int = 5, within seconds: Double = 60) throws {
        let wanted = count + more
        let deadline = ContinuousClock.now + .seconds(seconds)
        while count < wanted {
            guard ContinuousClock.now < deadline else {
                throw Trouble("no ballot is acknowledged any more; \(lock.withLock { wrongs })")
            }
            usleep(5_000)
        }
    }

    /// Holds the clients and compares with what the primary says.
    func check(_ primary: () throws -> UInt16) throws {
        try lock.withLock {
            isHeld = true
            let deadline = Date().addingTimeInterval(60)
            while working > 0 {
                guard lock.wait(until: deadline) else { throw Trouble("a request is not answered") }
            }
        }
        defer {
            lock.withLock {
                isHeld = false
                lastAck = Date()
                lock.broadcast()
            }
        }
        #expect(wrongs == [])
        var last: any Error = Trouble("never tried")
        // The primary may change while it is asked.
        for _ in 0..<20 {
            do {
                return try compare(RawClient(primary(), seconds: 10))
            } catch {
                last = error
                usleep(200_000)
            }
        }
        throw last
    }

    private func compare(_ client: RawClient) throws {
        if vote != 0 { try compareOpen(client) }
        for result in results {
            let reply = try answer(client, "VOTE.RESULT \(result.vote)")
            guard case .list(let items) = reply, items.count == 3,
                case .number(let no) = items[2]
            else { throw Trouble("VOTE.RESULT: \(reply)") }
            #expect(items[1] == .number(result.yes), "yes ballots of vote \(result.vote)")
            #expect(no >= result.no, "no ballots of vote \(result.vote)")
        }
        try compareRooms(client)
    }

    private func compareOpen(_ client: RawClient) throws {
        for ballot in cast {
            // One that is there cannot be cast otherwise; that it may be cast again proves nothing.
            let other = "VOTE.CAST \(vote) \(ballot.voter) \(ballot.choice ? "no" : "yes")"
            let reply = try client.ask(other)
            if ["REDIRECT", "TRYAGAIN"].contains(reply.code) { throw Trouble("\(reply)") }
            #expect(reply.code == "ALREADYVOTED", "the ballot of \(ballot.voter): \(reply)")
        }
    }

    private func compareRooms(_ client: RawClient) throws {
        let sets = Dictionary(grouping: reserved) { $0 / Self.placesPerRoom }
        for room in 0..<Self.roomCount {
            let places = (sets[room] ?? []).map(Self.words)
            let reply = try answer(client, "ROOM.CHECK \(Self.room(room))")
            guard case .text(let text) = reply else { throw Trouble("\(reply)") }
            let lines = text.split(separator: "\n").map(String.init)
            let found = places.isEmpty ? [] : lines.sorted()
            #expect(found == places.sorted(), "room \(room): \(text)")
            if places.isEmpty { #expect(text == "No room reservation found", "room \(room)") }
        }
    }

    private func answer(_ client: RawClient, _ command: String) throws -> RawClient.Reply {
        let reply = try client.ask(command)
        if case .error(let text) = reply { throw Trouble("\(command): \(text)") }
        return reply
    }
}

/// Asks until there is an answer that stands.
private final class Sender {
    private let ports: [UInt16]
    private let isEnding: () -> Bool
    private var index = 0
    private var client: RawClient?

    init(_ ports: [UInt16], _ isEnding: @escaping () -> Bool) {
        self.ports = ports
        self.isEnding = isEnding
    }

    /// nil: given up, as the test is over.
    func ask(_ command: String) -> RawClient.Reply? {
        while !isEnding() {
            do {
                let client = try client ?? RawClient(ports[index], seconds: 2)
                self.client = client
                let reply = try client.ask(command)
                // HELD is no promise of the pair.
                if !["REDIRECT", "TRYAGAIN", "BUSY"].contains(reply.code), reply != .text("HELD") {
                    return reply
                }
            } catch {}
            client = nil
            index = (index + 1) % ports.count
            usleep(5_000)
        }
        return nil
    }
}
