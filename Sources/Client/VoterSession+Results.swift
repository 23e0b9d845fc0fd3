import Wire

extension PollResult {
    /// Takes id, yes and no, as a `result` push (which a view follows) and the replies have them.
    init(push fields: ArraySlice<RESPValue>) throws(DecodeError) {
        let numbers = fields.prefix(3).compactMap(\.number)
        guard numbers.count == 3, numbers[0] > 0, numbers[1] >= 0, numbers[2] >= 0 else {
            throw DecodeError("bad result")
        }
        self.init(id: UInt64(numbers[0]), yes: UInt64(numbers[1]), no: UInt64(numbers[2]))
    }
}

// Results: whatever their order and number on arrival, each is accepted once, in order, and held
// until it is in the log.
extension VoterSession {
    /// How long a gap may close by itself.
    private static let gapMillisecondsMax: UInt64 = 20
    /// How long the results that follow a JOIN by themselves may take.
    static let catchUpMilliseconds: UInt64 = 500
    /// How often one who is told no results asks for them.
    static let abstainingMilliseconds: UInt64 = 1_000
    private static let againMillisecondsMax: UInt64 = 16_000
    private static let retryLogMilliseconds: UInt64 = 1_000

    // MARK: Accepting

    mutating func accept(_ result: PollResult, into outbox: inout VoterOutbox) {
        guard result.id >= nextResult else { return }
        dropBallot(of: result.id, into: &outbox)
        if settings.votesMax > 0, result.id > settings.votesMax { return }
        guard result.id == nextResult, unwritten.count < Self.keptMax else {
            keep(result)
            return
        }
        // With no room left, later ones may have been turned away.
        if early.count == Self.keptMax { askResults(in: 0) }
        take(result, into: &outbox)
        var ready = 0
        while ready < early.count, early[ready].id <= nextResult {
            // One that was kept for want of room may have come again since, and been taken.
            if early[ready].id == nextResult {
                guard unwritten.count < Self.keptMax else { break }
                take(early[ready], into: &outbox)
            }
            ready += 1
        }
        early.removeFirst(ready)
        askAgainMilliseconds = 1_000
    }

    /// The vote has closed, though its result may have to wait for those before it: as long as one
    /// vote is open, which may be for ever, the ballots of all later ones would pile up.
    private mutating func dropBallot(of vote: UInt64, into outbox: inout VoterOutbox) {
        guard let place = ballots.firstIndex(where: { $0.vote >= vote }),
            ballots[place].vote == vote
        else { return }
        ballots.remove(at: place)
        guard promptedVote == vote else { return }
        breakPrompt(into: &outbox)
        outbox.show.append("Vote \(vote) has closed.\n")
    }

    private mutating func keep(_ result: PollResult) {
        if early.isEmpty { askResults(in: Self.gapMillisecondsMax) }
        // The service keeps what finds no room here; it is asked for when its turn comes.
        let place = early.firstIndex { $0.id >= result.id } ?? early.count
        if place < early.count, early[place].id == result.id { return }
        if early.count == Self.keptMax {
            guard place < early.count else { return }
            early.removeLast()
        }
        early.insert(result, at: place)
    }

    private mutating func take(_ result: PollResult, into outbox: inout VoterOutbox) {
        accepted.append(result)
        unwritten.append(result)
        guard settings.showsResults else { return }
        breakPrompt(into: &outbox)
        outbox.show.append(result.summary + "\n")
    }

    // MARK: Asking for what is missing

    mutating func askResults(in milliseconds: UInt64) {
        askResultsAt = min(askResultsAt ?? .max, now + milliseconds)
    }

    mutating func settleResults(into outbox: inout VoterOutbox) {
        guard phase == .running, let moment = askResultsAt, unwritten.count < Self.keptMax,
            isDue(at: moment), let index = primaryIndex, links[index].joining == .joined,
            isDue(at: links[index].retryAt)
        else { return }
        let isAsked = links[index].awaits { command in
            if case .results = command { true } else { false }
        }
        guard !isAsked else { return }
        askResultsAt = nil
        send(.results(from: nextResult), on: index, into: &outbox)
    }

    mutating func onResultsRefused(_ index: Int, _ text: String, into outbox: inout VoterOutbox) {
        let refusal = Refusal(text)
        switch refusal {
        case .redirect, .later: break
        case .alreadyVoted, .closed, .noSuchVote, .notOnRoll, .nameInUse, .other:
            report(index, "VOTE.RESULTS", text, into: &outbox)
        }
        backOff(index, refusal)
    }

    mutating func onResults(_ index: Int, _ value: RESPValue, into outbox: inout VoterOutbox) {
        if case .error(let text) = value {
            onResultsRefused(index, text, into: &outbox)
            askResults(in: 0)
            return
        }
        // As with pushes: joined again, it asks again.
        guard links[index].joining != .none, links[index].service == service,
            let items = value.items
        else { return }
        let before = nextResult
        var last: UInt64 = 0
        for item in items {
            do {
                let result = try PollResult(push: (item.items ?? [])[...])
                last = result.id
                accept(result, into: &outbox)
            } catch {
                report(index, "VOTE.RESULTS", error.text, into: &outbox)
                return
            }
        }
        links[index].retries = 0
        // What is pushed may have overtaken the whole answer: there is more behind that all the same.
        if items.count >= VoterCommand.resultsMax, nextResult > before || last < nextResult {
            askResults(in: 0)
        } else if isAbstaining {
            askResults(in: Self.abstainingMilliseconds)
        } else if !early.isEmpty {
            // Votes close in any order: what is missing may be open for days, and is pushed then.
            askResults(in: askAgainMilliseconds)
            askAgainMilliseconds = min(askAgainMilliseconds * 2, Self.againMillisecondsMax)
        }
    }

    // MARK: The log

    mutating func settleLog(into outbox: inout VoterOutbox) {
        if let retryLogAt {
            guard offered == 0, isDue(at: retryLogAt) else { return }
        }
        guard offered < unwritten.count else { return }
        outbox.append += unwritten[offered...]
        offered = unwritten.count
    }

    mutating func onLogged(through id: UInt64, into outbox: inout VoterOutbox) {
        let count = unwritten.prefix { $0.id <= id }.count
        guard count > 0 else { return }
        unwritten.removeFirst(count)
        offered = max(0, offered - count)
        if retryLogAt != nil {
            retryLogAt = nil
            outbox.notices.append(.news("\(settings.logPath) can be written again"))
        }
        // There is room again for what may have been turned away.
        if early.first?.id == nextResult { askResults(in: 0) }
        if settings.votesMax > 0, id >= settings.votesMax { onLeave(into: &outbox) }
    }

    mutating func onLogFailed(_ reason: String, into outbox: inout VoterOutbox) {
        offered = 0
        if retryLogAt == nil {
            outbox.notices.append(
                .trouble(
                    "\(reason); results are kept and written again each second until it works"
                )
            )
        }
        retryLogAt = now + Self.retryLogMilliseconds
    }
}
