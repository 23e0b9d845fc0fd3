import Wire

// Joining, and ballots: each goes to every member of the newest view until the primary has said
// that it is counted everywhere.
extension VoterSession {
    // MARK: Joining

    /// Verifies the log, then joins, at the newest view's primary.
    mutating func settleService(into outbox: inout VoterOutbox) {
        guard phase == .running else { return }
        if let view {
            for index in links.indices where links[index].isOpen && links[index].service == nil {
                guard view.members.contains(where: { links[index].aliases.contains($0) }),
                    isDue(at: links[index].retryAt)
                else { continue }
                backOff(index, .later)
                askAgain(index, into: &outbox)
            }
        }
        guard let index = primaryIndex, isDue(at: links[index].retryAt) else { return }
        if settings.policy == .never {
            // A mere witness is served by being connected.
            if links[index].joining != .joined { onServed(index, "witness of", into: &outbox) }
            return
        }
        switch verification {
        case .needed(let service): verify(index, from: service.nextID, into: &outbox)
        case .done:
            guard !isAbstaining else {
                abstain(index, into: &outbox)
                return
            }
            guard links[index].joining == .none else { return }
            join(index, into: &outbox)
        }
    }

    private mutating func join(_ index: Int, into outbox: inout VoterOutbox) {
        links[index].joining = .asked
        links[index].hasName = true
        isOnRoll = true
        // Ballots without an OK go out right behind it; the replica need not be waited for.
        mayOweBallots = true
        send(.join(name: settings.name, from: nextResult), on: index, into: &outbox)
    }

    /// Nobody is left who could decide, and what was decided is counted.
    var isAbstaining: Bool {
        settings.policy == .ask && hasInputEnded
            && !ballots.contains { $0.choice != nil && !$0.isSettled }
    }

    /// Leaves the roll, as a vote without a deadline would wait for this voter for ever, and goes on
    /// as one who is told no results: it asks for them.
    private mutating func abstain(_ index: Int, into outbox: inout VoterOutbox) {
        guard links[index].joining != .asked else { return }
        // Who leaves is whom the connection has named.
        if isOnRoll, !links[index].hasName {
            join(index, into: &outbox)
            return
        }
        if links[index].joining == .none {
            onServed(index, "results come from", into: &outbox)
            askResults(in: 0)
        }
        guard isOnRoll, !links[index].awaits({ $0 == .leave }) else { return }
        send(.leave, on: index, into: &outbox)
        askResults(in: Self.abstainingMilliseconds)
    }

    /// Until a primary has said that it is done a vote may wait for this voter.
    mutating func onLeaveReply(_ index: Int, _ value: RESPValue) {
        if case .error(let text) = value {
            // The connection names nobody any more.
            links[index].hasName = false
            backOff(index, Refusal(text))
        } else if links[index].hasName {
            // Else it is of a primary that has been replaced: the JOIN at the next one came after it.
            isOnRoll = false
        }
    }

    mutating func onJoinReply(_ index: Int, _ value: RESPValue, into outbox: inout VoterOutbox) {
        guard case .error(let text) = value else {
            // An answer of a primary that has been replaced meanwhile says nothing.
            guard links[index].joining == .asked else { return }
            isOnRoll = true
            onServed(index, "joined as \(settings.name) at", into: &outbox)
            mayOweBallots = true
            // They are pushed, unless it is led by another soon.
            askResults(in: Self.catchUpMilliseconds)
            return
        }
        links[index].joining = .none
        links[index].hasName = false
        let refusal = Refusal(text)
        switch refusal {
        // Whoever has the name now is on the roll for himself.
        case .nameInUse where isAbstaining: isOnRoll = false
        case .nameInUse:
            end(
                .unavailable(
                    "the name '\(settings.name)' is in use by another client; choose another one "
                        + "with --name"
                ),
                into: &outbox
            )
        case .redirect, .later: backOff(index, refusal)
        case .alreadyVoted, .closed, .noSuchVote, .notOnRoll, .other:
            report(index, "VOTE.JOIN", text, into: &outbox)
            backOff(index, refusal)
        }
    }

    private mutating func onServed(
        _ index: Int,
        _ what: String,
        into outbox: inout VoterOutbox
    ) {
        let address = links[index].aliases[0]
        links[index].joining = .joined
        links[index].retries = 0
        unservedSince = nil
        if unservedReport != nil {
            outbox.notices.append(.news("\(address) answers; joined again"))
        } else {
            outbox.notices.append(.detail("\(what) \(address)"))
        }
        unservedReport = nil
    }

    // MARK: Votes

    mutating func onVote(
        _ index: Int,
        _ fields: ArraySlice<RESPValue>,
        into outbox: inout VoterOutbox
    ) throws(DecodeError) {
        let fields = Array(fields)
        guard fields.count >= 2, let number = fields[0].number, number > 0,
            let question = fields[1].text
        else { throw DecodeError("bad vote push") }
        let vote = UInt64(number)
        guard phase == .running, vote >= nextResult, !early.contains(where: { $0.id == vote })
        else { return }
        let place = ballots.firstIndex { $0.vote >= vote } ?? ballots.count
        if place < ballots.count, ballots[place].vote == vote {
            askedAgain(place, on: index)
            return
        }
        guard ballots.count < Self.keptMax || forgetSettled() else {
            outbox.notices.append(.trouble("vote \(vote): too many open votes; not voted"))
            return
        }
        let ballot = Ballot(vote: vote, question: Self.printable(question))
        let end = ballots.firstIndex { $0.vote >= vote } ?? ballots.count
        ballots.insert(ballot, at: end)
        decide(end, into: &outbox)
    }

    /// Makes room for a ballot. The oldest that is settled most likely is of a vote that has closed
    /// while nobody could tell; should it be asked for all the same, it is decided anew.
    private mutating func forgetSettled() -> Bool {
        guard let place = ballots.firstIndex(where: \.isSettled) else { return false }
        ballots.remove(at: place)
        return true
    }

    /// The primary asks for a ballot that is decided: it has not counted it. Unless the ballot is
    /// still on its way there, it goes again.
    private mutating func askedAgain(_ place: Int, on index: Int) {
        let vote = ballots[place].vote
        let isOnItsWay = links[index].awaits { command in
            if case .cast(vote, _, _) = command { true } else { false }
        }
        guard !isOnItsWay, ballots[place].choice != nil else { return }
        ballots[place].isSettled = false
        let id = links[index].id
        ballots[place].sentOn.removeAll { $0 == id }
        mayOweBallots = true
    }

    private mutating func decide(_ place: Int, into outbox: inout VoterOutbox) {
        switch settings.policy {
        case .always(let choice): ballots[place].choice = choice
        case .random(let seed):
            var random = SplitMix64(seed: seed ^ (ballots[place].vote &* 0x9e6c_63d0_876a_3f35))
            ballots[place].choice = random.next() & 1 == 0 ? .yes : .no
        case .ask, .never: return
        }
        send(place, into: &outbox)
    }

    /// Sends a decided ballot wherever it is owed.
    mutating func send(_ place: Int, into outbox: inout VoterOutbox) {
        guard let choice = ballots[place].choice, !ballots[place].isSettled,
            let primary = primaryIndex
        else { return }
        let vote = ballots[place].vote
        for index in links.indices where isMember(links[index]) {
            let id = links[index].id
            guard !ballots[place].sentOn.contains(id) else { continue }
            // To the primary behind the JOIN, as it may know nothing of this voter before.
            let mayGo = index != primary || links[index].joining != .none
            guard mayGo, isDue(at: links[index].retryAt) else {
                mayOweBallots = true
                continue
            }
            ballots[place].sentOn.append(id)
            send(
                .cast(vote: vote, name: settings.name, choice),
                on: index,
                into: &outbox
            )
        }
    }

    mutating func settleBallots(into outbox: inout VoterOutbox) {
        guard mayOweBallots, case .done = verification else { return }
        mayOweBallots = false
        for place in ballots.indices { send(place, into: &outbox) }
        for id in links.map(\.id) {
            guard let index = index(of: id), links[index].pending.count > Self.pendingMax else {
                continue
            }
            fail(index, "answers nothing", into: &outbox)
        }
    }

    mutating func onCastReply(
        _ index: Int,
        _ vote: UInt64,
        _ value: RESPValue,
        into outbox: inout VoterOutbox
    ) {
        guard let place = ballots.firstIndex(where: { $0.vote == vote }) else { return }
        guard case .error(let text) = value else {
            // HELD binds the backup alone: should the whole view be lost with it, or should it be
            // put out of the view, the ballot goes again.
            if value.text == "OK" { ballots[place].isSettled = true }
            return
        }
        let refusal = Refusal(text)
        switch refusal {
        case .redirect, .later:
            let id = links[index].id
            ballots[place].sentOn.removeAll { $0 == id }
            mayOweBallots = true
            backOff(index, refusal)
            return
        case .alreadyVoted, .closed, .noSuchVote, .notOnRoll, .nameInUse, .other: break
        }
        // A backup lags behind, so what it says of a vote may be out of date: only the primary's
        // word ends a ballot.
        guard index == primaryIndex, !ballots[place].isSettled else { return }
        ballots[place].isSettled = true
        switch refusal {
        case .alreadyVoted:
            outbox.notices.append(
                .trouble("vote \(vote): '\(settings.name)' has voted otherwise before; that stands")
            )
        case .closed:
            outbox.notices.append(
                .trouble("vote \(vote) was closed before this ballot was confirmed")
            )
        case .noSuchVote:
            outbox.notices.append(.trouble("vote \(vote): the service does not know this vote"))
        case .notOnRoll:
            outbox.notices.append(
                .trouble("vote \(vote): '\(settings.name)' is not on its roll; not counted")
            )
        case .redirect, .later, .nameInUse, .other:
            outbox.notices.append(.trouble("vote \(vote): ballot refused: \(text)"))
        }
    }

    // MARK: The terminal

    /// Shows the prompt of the oldest vote that waits for a decision.
    mutating func settlePrompt(into outbox: inout VoterOutbox) {
        guard settings.policy == .ask, phase == .running, !hasInputEnded, promptedVote == nil,
            let ballot = ballots.first(where: { $0.choice == nil })
        else { return }
        promptedVote = ballot.vote
        outbox.show.append("Vote \(ballot.vote): \(ballot.question) (yes/no)? ")
    }

    mutating func onLine(_ line: String, into outbox: inout VoterOutbox) {
        guard let vote = promptedVote,
            let place = ballots.firstIndex(where: { $0.vote == vote && $0.choice == nil })
        else { return }
        if !settings.isInputEchoed { outbox.show.append(Self.printable(line) + "\n") }
        promptedVote = nil
        guard let choice = Choice(typed: line) else {
            outbox.show.append("Please answer yes or no.\n")
            return
        }
        ballots[place].choice = choice
        mayOweBallots = true
    }

    mutating func onInputEnded(into outbox: inout VoterOutbox) {
        guard settings.policy == .ask, !hasInputEnded else { return }
        hasInputEnded = true
        breakPrompt(into: &outbox)
        outbox.notices.append(.trouble("end of input: abstaining from now on"))
    }

    /// Ends the line that a prompt stands on; the prompt comes again if it is still wanted.
    mutating func breakPrompt(into outbox: inout VoterOutbox) {
        guard promptedVote != nil else { return }
        promptedVote = nil
        outbox.show.append("\n")
    }

    /// Text of somebody else, made harmless to a terminal.
    private static func printable(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let isControl = scalar.value < 32 || (127..<160).contains(scalar.value)
            result.unicodeScalars.append(isControl ? " " : scalar)
        }
        return result
    }
}
