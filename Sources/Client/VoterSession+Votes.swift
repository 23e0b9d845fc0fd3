import Replication
import Wire

/// Puts results into the order of their votes.
struct ResultOrder: Equatable, Sendable {
    /// Of later votes than the next to be logged; ascending.
    private(set) var waiting: [VoteResult] = []

    static let waitingMax = 10_000

    /// False when there is no room; it can be asked for again.
    mutating func keep(_ result: VoteResult) -> Bool {
        let index = waiting.firstIndex { $0.vote >= result.vote } ?? waiting.count
        if index < waiting.count, waiting[index].vote == result.vote { return true }
        guard waiting.count < Self.waitingMax else { return false }
        waiting.insert(result, at: index)
        return true
    }

    mutating func take(_ vote: UInt64) -> VoteResult? {
        while let first = waiting.first, first.vote <= vote {
            waiting.removeFirst()
            if first.vote == vote { return first }
        }
        return nil
    }
}

// Joining, voting, results.
extension VoterSession {
    mutating func join(_ index: Int, into outbox: inout Outbox) {
        connections[index].join = .asked
        if let lastLine {
            send(index, ["VOTE.RESULT", "\(lastLine.vote)"], .check, into: &outbox)
            return
        }
        let from = "\(logged + 1)"
        send(index, ["VOTE.JOIN", settings.name, "FROM", from], .join, into: &outbox)
    }

    // MARK: Replies

    mutating func onReply(_ index: Int, _ value: RESPValue, into outbox: inout Outbox) {
        guard !connections[index].expected.isEmpty else {
            if case .error(let text) = value {
                outbox.messages.append("\(connections[index].address) says: \(text)")
            }
            return
        }
        let expected = connections[index].expected.removeFirst()
        switch expected {
        case .hello: onHello(index, value, into: &outbox)
        case .join: onJoinReply(index, value, into: &outbox)
        case .cast(let vote): onCastReply(index, vote, value, into: &outbox)
        case .results: onResultsReply(value, into: &outbox)
        case .check: onCheckReply(index, value, into: &outbox)
        case .ignored: return
        }
    }

    private static func code(_ value: RESPValue) -> String? {
        guard case .error(let text) = value else { return nil }
        return String(text.prefix { $0 != " " })
    }

    private mutating func onJoinReply(
        _ index: Int, _ value: RESPValue, into outbox: inout Outbox
    ) {
        guard let code = Self.code(value) else {
            connections[index].join = .done
            // Results of another service would continue this log with other votes.
            service = service ?? connections[index].service
            askResultsAt = now + 500
            if !hasEverAnswered {
                hasEverAnswered = true
                outbox.messages.append(
                    "joined as \(settings.name) at \(connections[index].address)")
            }
            resend(into: &outbox)
            return
        }
        connections[index].join = .none
        joinRetryAt = now + 50
        guard case .error(let text) = value else { return }
        switch code {
        case "REDIRECT", "TRYAGAIN": return
        case "NAMEINUSE": outbox.exit = .nameInUse(text)
        default:
            joinRetryAt = now + 1_000
            outbox.messages.append("\(connections[index].address) refuses the join: \(text)")
        }
    }

    /// Whether the service has the same result as the log's last line.
    private mutating func onCheckReply(
        _ index: Int, _ value: RESPValue, into outbox: inout Outbox
    ) {
        connections[index].join = .none
        guard let lastLine else { return }
        if let items = value.items, items.count == 3, items[0].number == Int64(lastLine.vote),
            items[1].number == Int64(lastLine.yes), items[2].number == Int64(lastLine.no)
        {
            self.lastLine = nil
            return
        }
        switch Self.code(value) {
        case "REDIRECT", "TRYAGAIN", "BUSY": joinRetryAt = now + 50
        default:
            outbox.exit = .foreignLog(
                "its last line is '\(lastLine.line)', which is not this service's result of vote "
                    + "\(lastLine.vote): the log is of another service; give another --log")
        }
    }

    private mutating func onCastReply(
        _ index: Int, _ vote: UInt64, _ value: RESPValue, into outbox: inout Outbox
    ) {
        guard let place = ballots.firstIndex(where: { $0.vote == vote }) else { return }
        guard let code = Self.code(value) else {
            if value.text == "OK" { ballots[place].isAcknowledged = true }
            return
        }
        guard case .error(let text) = value else { return }
        switch code {
        case "REDIRECT": return
        case "TRYAGAIN", "BUSY": resendAt = min(resendAt, now + 100)
        case "CLOSED": ballots[place].isAcknowledged = true
        default:
            ballots[place].isAcknowledged = true
            outbox.messages.append("vote \(vote): \(text)")
        }
    }

    private mutating func onResultsReply(_ value: RESPValue, into outbox: inout Outbox) {
        guard let items = value.items else {
            askResultsAt = min(askResultsAt, now + 200)
            return
        }
        let before = logged
        for item in items {
            guard let fields = item.items, let result = Self.result(fields[...]) else { continue }
            onResult(result, into: &outbox)
        }
        // A full answer: there is more.
        if items.count >= Self.resultsPage, logged > before { askResults(into: &outbox) }
    }

    private static let resultsPage = 1_000

    mutating func askResults(into outbox: inout Outbox) {
        guard let index = primaryIndex, connections[index].join == .done else { return }
        guard !connections[index].expected.contains(.results) else { return }
        let words = ["VOTE.RESULTS", "\(logged + 1)", "COUNT", "\(Self.resultsPage)"]
        send(index, words, .results, into: &outbox)
    }

    // MARK: Pushes

    mutating func onPush(_ index: Int, _ items: [RESPValue], into outbox: inout Outbox) {
        guard let kind = items.first?.text else { return }
        switch kind {
        case "vote":
            guard items.count >= 3, let vote = items[1].number, vote > 0,
                let question = items[2].text
            else { return }
            onVote(UInt64(vote), question, into: &outbox)
        case "result":
            guard let result = Self.result(items[1...]) else { return }
            onResult(result, into: &outbox)
        case "view":
            guard items.count >= 4 else { return }
            learnView(items[1].number, items[2].text, items[3].text, into: &outbox)
        case "witness": onWitnessPush(index, items, into: &outbox)
        default: return
        }
    }

    private mutating func onWitnessPush(
        _ index: Int, _ items: [RESPValue], into outbox: inout Outbox
    ) {
        guard let from = connections[index].instance else { return }
        var fields: [[UInt8]] = []
        for item in items.dropFirst() {
            guard case .bulk(let bytes) = item else { return }
            fields.append(bytes)
        }
        do {
            let message = try Message(fields: fields)
            stepWitness(.message(message, from: from), into: &outbox)
        } catch {
            outbox.messages.append("\(connections[index].address) sent nonsense: \(error.text)")
        }
    }

    private static func result(_ items: ArraySlice<RESPValue>) -> VoteResult? {
        let numbers = items.prefix(3).compactMap(\.number)
        guard numbers.count == 3, numbers.allSatisfy({ $0 >= 0 }), numbers[0] > 0 else {
            return nil
        }
        return VoteResult(
            vote: UInt64(numbers[0]), yes: UInt64(numbers[1]), no: UInt64(numbers[2]))
    }

    // MARK: Ballots

    private mutating func onVote(_ vote: UInt64, _ question: String, into outbox: inout Outbox) {
        guard vote > logged, leavingSince == nil else { return }
        if let known = ballots.first(where: { $0.vote == vote }) {
            // Asked again: the ballot did not arrive, or its answer did not.
            if let primaryIndex { cast(known, on: primaryIndex, into: &outbox) }
            return
        }
        guard ballots.count < Self.ballotsMax else { return }
        var ballot = Ballot(vote: vote)
        switch settings.policy {
        case .yes: ballot.yes = true
        case .no: ballot.yes = false
        case .random(let seed): ballot.yes = Self.coin(seed, vote)
        case .ask: outbox.questions.append(.init(vote: vote, text: question))
        }
        ballots.append(ballot)
        castEverywhere(ballot, into: &outbox)
    }

    mutating func onAnswer(_ vote: UInt64, _ yes: Bool, into outbox: inout Outbox) {
        guard let place = ballots.firstIndex(where: { $0.vote == vote }),
            ballots[place].yes == nil
        else { return }
        ballots[place].yes = yes
        castEverywhere(ballots[place], into: &outbox)
    }

    /// One bit from a seed and a number (splitmix64, Steele and others 2014).
    private static func coin(_ seed: UInt64, _ vote: UInt64) -> Bool {
        var value = seed &+ vote &* 0x9e37_79b9_7f4a_7c15
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return (value ^ value >> 31) & 1 == 1
    }

    /// To every replica: if one dies, another has the ballot.
    private mutating func castEverywhere(_ ballot: Ballot, into outbox: inout Outbox) {
        for index in connections.indices where connections[index].instance != nil {
            cast(ballot, on: index, into: &outbox)
        }
    }

    mutating func cast(_ ballot: Ballot, on index: Int, into outbox: inout Outbox) {
        guard let yes = ballot.yes else { return }
        let words = ["VOTE.CAST", "\(ballot.vote)", settings.name, yes ? "yes" : "no"]
        send(index, words, .cast(ballot.vote), into: &outbox)
    }

    mutating func resend(into outbox: inout Outbox) {
        guard let index = primaryIndex, connections[index].join == .done else { return }
        for ballot in ballots where !ballot.isAcknowledged {
            cast(ballot, on: index, into: &outbox)
        }
    }

    // MARK: Results

    mutating func onResult(_ result: VoteResult, into outbox: inout Outbox) {
        guard result.vote > logged else { return }
        guard result.vote == logged + 1 else {
            _ = results.keep(result)
            // The one before may still be open, or have been missed.
            askResultsAt = min(askResultsAt, now + 200)
            return
        }
        log(result, into: &outbox)
        while let next = results.take(logged + 1) { log(next, into: &outbox) }
        if !results.waiting.isEmpty { askResultsAt = min(askResultsAt, now + 1_000) }
        leaveIfDone(into: &outbox)
    }

    private mutating func log(_ result: VoteResult, into outbox: inout Outbox) {
        let isWanted = settings.votesWanted == 0 || logged < settings.votesWanted
        logged = result.vote
        ballots.removeAll { $0.vote <= result.vote }
        if isWanted { outbox.results.append(result) }
    }
}
