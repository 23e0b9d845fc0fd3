import Linux
import Replication
import Services
import Wire

// The VOTE.* commands.
extension Server {
    /// VOTE.CAST id voter yes|no
    func castCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count == 4, let vote = arguments.number(1),
            let choice = choice(arguments, 3)
        else {
            replyArity(connection, "VOTE.CAST id voter yes|no")
            return
        }
        guard isPrimary else {
            holdBallot(vote, arguments.array(2), choice, connection)
            return
        }
        if let place = connection.voterPlace, isOwnName(arguments, connection) {
            batch.append(
                tag: PollCommand.castTag, vote, UInt64(place), choice.rawValue)
        } else {
            let name = arguments.array(2)
            if let text = nameError(name) {
                replyError(connection, text)
                return
            }
            let command = executor.service.polls.voterPlace(name).map { place in
                PollCommand.cast(vote: vote, voter: UInt64(place), choice: choice)
            }
            batch.append(
                Request(
                    command: (command ?? .castByName(vote: vote, voter: name, choice: choice))
                        .encode()))
        }
        wait(connection, .request)
    }

    private func choice(_ arguments: borrowing CommandArguments, _ index: Int) -> Choice? {
        if arguments.equals(index, "yes") { return .yes }
        return arguments.equals(index, "no") ? .no : nil
    }

    private func isOwnName(_ arguments: borrowing CommandArguments, _ connection: Connection)
        -> Bool
    {
        guard let own = connection.voterName, own.count == arguments.ranges[2].count else {
            return false
        }
        var index = 0
        for position in arguments.ranges[2] {
            if own[index] != arguments.bytes[position] { return false }
            index += 1
        }
        return true
    }

    private func nameError(_ name: [UInt8]) -> String? {
        guard !name.isEmpty, name.count <= Polls.nameBytesMax,
            name.allSatisfy({ $0 > 32 && $0 != 127 })
        else {
            return "ERR a voter's name has 1 to \(Polls.nameBytesMax) bytes and no blanks"
        }
        return nil
    }

    private func holdBallot(
        _ vote: UInt64, _ voter: [UInt8], _ choice: Choice, _ connection: Connection
    ) {
        if let text = nameError(voter) {
            replyError(connection, text)
            return
        }
        guard replica.isMember || replica.status == .learning else {
            replyError(connection, redirectError)
            return
        }
        let isKept = held.keep(
            HeldBallot(vote: vote, voter: voter, choice: choice, era: replica.view?.number.era),
            executor.service.polls)
        if isKept {
            reply(connection) { $0.append(contentsOf: RESP.held) }
        } else {
            replyError(connection, "BUSY too many ballots are held here; the primary takes them")
        }
    }

    /// The command of the log for a verb that changes the polls, from its arguments.
    func pollCommand(_ verb: String, _ arguments: [[UInt8]]) throws(DecodeError) -> PollCommand {
        func number(_ index: Int) -> UInt64? {
            index < arguments.count
                ? UInt64(String(decoding: arguments[index], as: UTF8.self)) : nil
        }
        switch verb {
        case "VOTE.OPEN": return try openCommand(arguments)
        case "VOTE.CLOSE":
            guard arguments.count == 1, let vote = number(0) else {
                throw DecodeError("ERR usage: VOTE.CLOSE id")
            }
            return .close(vote: vote)
        case "VOTE.CAST":
            let word =
                arguments.count == 3
                ? String(decoding: arguments[2], as: UTF8.self).lowercased() : ""
            guard let vote = number(0), word == "yes" || word == "no" else {
                throw DecodeError("ERR usage: VOTE.CAST id voter yes|no")
            }
            if let text = nameError(arguments[1]) { throw DecodeError(text) }
            return .castByName(
                vote: vote, voter: arguments[1], choice: word == "yes" ? .yes : .no)
        default:
            throw DecodeError(
                "ERR CALL takes VOTE.OPEN, VOTE.CLOSE, VOTE.CAST, ROOM.RESERVE and ROOM.DELETE")
        }
    }

    /// question [DEADLINE ms] [ROLL joined|open]
    private func openCommand(_ arguments: [[UInt8]]) throws(DecodeError) -> PollCommand {
        let usage = DecodeError("ERR usage: VOTE.OPEN question [DEADLINE ms] [ROLL joined|open]")
        guard let question = arguments.first, arguments.count % 2 == 1 else { throw usage }
        guard question.count <= Polls.questionBytesMax else {
            throw DecodeError("ERR question longer than \(Polls.questionBytesMax) bytes")
        }
        var terms = VoteTerms(question: question)
        for index in stride(from: 1, to: arguments.count, by: 2) {
            let value = String(decoding: arguments[index + 1], as: UTF8.self)
            switch String(decoding: arguments[index], as: UTF8.self).uppercased() {
            case "DEADLINE":
                guard let deadline = UInt64(value), deadline <= 1 << 40 else { throw usage }
                terms.deadline = deadline
            case "ROLL":
                guard ["joined", "open"].contains(value.lowercased()) else { throw usage }
                terms.isRollOpen = value.lowercased() == "open"
            default: throw usage
            }
        }
        return .open(terms)
    }

    func voteCommand(
        _ verb: String, _ arguments: borrowing CommandArguments, _ connection: Connection
    ) {
        switch verb {
        case "VOTE.JOIN": joinCommand(arguments, connection)
        case "VOTE.LEAVE":
            guard arguments.count == 1 else { return replyArity(connection, "VOTE.LEAVE") }
            leaveCommand(connection)
        case "VOTE.OPEN", "VOTE.CLOSE":
            guard requirePrimary(connection) else { return }
            var words: [[UInt8]] = []
            for index in 1..<arguments.count { words.append(arguments.array(index)) }
            do {
                let command = try pollCommand(verb, words)
                batch.append(Request(command: command.encode()))
                wait(connection, .request)
            } catch {
                replyError(connection, error.text)
            }
        case "VOTE.RESULT", "VOTE.RESULTS", "VOTE.LIST":
            guard let read = read(verb, arguments) else {
                let usage =
                    verb == "VOTE.RESULT"
                    ? "VOTE.RESULT id"
                    : verb == "VOTE.LIST"
                        ? "VOTE.LIST [FROM id] [COUNT n]" : "VOTE.RESULTS from [COUNT n]"
                replyArity(connection, usage)
                return
            }
            guard requirePrimary(connection) else { return }
            wait(connection, .read(read))
        default: unknownCommand(verb, connection)
        }
    }

    private func read(_ verb: String, _ arguments: borrowing CommandArguments) -> Waiter.Read? {
        if verb == "VOTE.RESULT" {
            guard arguments.count == 2, let vote = arguments.number(1) else { return nil }
            return .result(vote)
        }
        let isList = verb == "VOTE.LIST"
        var from: UInt64?
        var count = 1_000
        var index = 1
        if !isList {
            guard arguments.count >= 2, let first = arguments.number(1) else { return nil }
            from = first
            index = 2
        }
        while index < arguments.count {
            guard index + 1 < arguments.count, let value = arguments.number(index + 1) else {
                return nil
            }
            if arguments.equals(index, "count") {
                count = Int(min(value, 10_000))
            } else if isList, arguments.equals(index, "from") {
                from = value
            } else {
                return nil
            }
            index += 2
        }
        guard isList else { return .results(from: from ?? 1, count: count) }
        return .list(from: from, count: count)
    }

    // MARK: Joining

    private func joinCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        let hasFrom = arguments.count == 4 && arguments.equals(2, "from")
        let from = hasFrom ? arguments.number(3) : nil
        guard arguments.count == 2 || (hasFrom && from != nil) else {
            replyArity(connection, "VOTE.JOIN voter [FROM id]")
            return
        }
        let name = arguments.array(1)
        if let text = nameError(name) {
            replyError(connection, text)
            return
        }
        guard requirePrimary(connection) else { return }
        if let own = connection.voterName, own != name {
            let text = String(decoding: own, as: UTF8.self)
            replyError(connection, "ERR this connection has joined as \(text); VOTE.LEAVE first")
            return
        }
        guard !isTaken(name, for: connection) else {
            replyError(connection, Self.takenText(name))
            return
        }
        connection.voterName = name
        if isOnRoll(name) {
            // Nothing to be written: the name is on the roll, only the connection is new.
            wait(connection, .rejoin(voter: name, from: from))
            return
        }
        batch.append(Request(command: PollCommand.join(voter: name).encode()))
        wait(connection, .join(voter: name, from: from))
    }

    /// Whether another connection has joined under this name that this one does not supersede.
    private func isTaken(_ name: [UInt8], for connection: Connection) -> Bool {
        guard let holder = voterConnection(name), holder !== connection else { return false }
        return holder.witness != nil || connection.witness == nil
            || !holder.isSupersededBy(connection)
    }

    private static func takenText(_ name: [UInt8]) -> String {
        "NAMEINUSE another connection has joined as \(String(decoding: name, as: UTF8.self))"
    }

    /// Answers one who joins, now that all before it is executed and the view stands. Two may have asked for
    /// the name at the same moment; and the voter may have been taken off the roll meanwhile, or be about to
    /// be: by what a log had in it that was not executed yet, as one who was away, or at its own wish.
    func completeJoin(_ connection: Connection, _ name: [UInt8], from: UInt64?) {
        let text: String
        if isTaken(name, for: connection) {
            text = Self.takenText(name)
        } else if isOnRoll(name) || connection.voterName != name {
            // The latter has left again, by what came behind on this connection.
            connection.write(RESP.ok)
            admitVoter(connection, name, from: from)
            return
        } else {
            text = "TRYAGAIN the voter has been taken off the roll meanwhile"
        }
        connection.write { RESP.error(text, into: &$0) }
        notJoined(connection, name)
    }

    /// Whether the voter is on the roll, and stays so for all that has been asked for.
    private func isOnRoll(_ name: [UInt8]) -> Bool {
        guard let place = executor.service.polls.voterPlace(name) else { return false }
        let isLeaving = (leavesPending[name] ?? 0) > executor.op.rawValue
        return executor.service.polls.isJoined(place) && !isLeaving
    }

    func voterConnection(_ name: [UInt8]) -> Connection? {
        guard let place = executor.service.polls.voterPlace(name), place < voterConnections.count
        else {
            return nil
        }
        return voterConnections[place]
    }

    /// From here on the connection is the voter's, if it still wants to be; it gets what it missed.
    func admitVoter(_ connection: Connection, _ name: [UInt8], from: UInt64?) {
        guard connection.voterName == name, let place = placeVoter(connection, name) else { return }
        guard connection.version == .resp3 else { return }
        if let from {
            connection.nextPastResult = max(1, from)
            pushPastResults(to: connection)
        }
        for vote in executor.service.polls.openVotes
        where executor.service.polls.isWaiting(vote, for: place) {
            pushVote(vote, to: connection)
        }
    }

    @discardableResult
    func placeVoter(_ connection: Connection, _ name: [UInt8]) -> Int? {
        guard let place = executor.service.polls.voterPlace(name) else { return nil }
        while voterConnections.count <= place { voterConnections.append(nil) }
        if let older = voterConnections[place], older !== connection {
            older.voterPlace = nil
            older.voterName = nil
        }
        voterConnections[place] = connection
        connection.voterPlace = place
        return place
    }

    private func leaveCommand(_ connection: Connection) {
        guard requirePrimary(connection) else { return }
        guard let name = connection.voterName else {
            replyOK(connection)
            return
        }
        // Else it has only asked to be the voter that another is.
        let isOwn = !isTaken(name, for: connection)
        leaveVoter(connection)
        guard isOwn else {
            wait(connection, .bytes(RESP.ok))
            return
        }
        appendLeave(of: name)
        wait(connection, .request)
    }

    /// Until it is executed the voter is not taken for joined without a word in the log.
    func appendLeave(of name: [UInt8]) {
        batch.append(Request(command: PollCommand.leave(voter: name).encode()))
        leavesPending[name] = replica.op.rawValue + UInt64(batch.count)
    }

    /// What it asked for when it joined has come to nothing.
    func notJoined(_ connection: Connection, _ name: [UInt8]) {
        if connection.voterPlace == nil, connection.voterName == name { connection.voterName = nil }
    }

    /// The connection is no voter's any more; the voter stays on the roll.
    func leaveVoter(_ connection: Connection) {
        if let place = connection.voterPlace, voterConnections[place] === connection {
            voterConnections[place] = nil
        }
        connection.voterPlace = nil
        connection.voterName = nil
        connection.nextPastResult = nil
    }

    // MARK: Reads

    func answer(_ read: Waiter.Read, _ connection: Connection) {
        switch read {
        case .rooms(let list): answer(list, connection)
        case .check(let room): answerCheck(room, connection)
        case .lease(let epoch): answerLease(connection, epoch: epoch)
        case .copy(let epoch): answerCopy(connection, epoch: epoch)
        case .result, .results, .list: answerVotes(read, connection)
        }
    }

    private func answerVotes(_ read: Waiter.Read, _ connection: Connection) {
        let polls = executor.service.polls
        connection.write { bytes in
            switch read {
            case .rooms, .check, .lease, .copy: break
            case .result(let vote):
                guard let record = polls.record(vote) else {
                    RESP.error("NOSUCHVOTE there is no vote \(vote)", into: &bytes)
                    return
                }
                if record.isOpen {
                    RESP.null(connection.version, into: &bytes)
                } else {
                    Self.writeResult(vote, record, into: &bytes)
                }
            case .results(let from, let count):
                var votes: [UInt64] = []
                var vote = max(1, from)
                while votes.count < count, let record = polls.record(vote) {
                    if !record.isOpen { votes.append(vote) }
                    vote += 1
                }
                RESP.array(votes.count, into: &bytes)
                for vote in votes {
                    guard let record = polls.record(vote) else { continue }
                    Self.writeResult(vote, record, into: &bytes)
                }
            case .list(let from, let count):
                let recent = UInt64(max(0, polls.records.count - count)) + 1
                let first = max(1, from ?? recent)
                let last = min(UInt64(polls.records.count), first + UInt64(count) - 1)
                RESP.array(first <= last ? Int(last - first + 1) : 0, into: &bytes)
                guard count > 0, first <= last else { return }
                for vote in first...last {
                    RESP.array(4, into: &bytes)
                    RESP.integer(Int64(vote), into: &bytes)
                    RESP.bulk(polls.question(vote), into: &bytes)
                    RESP.bulk(polls.record(vote)?.isOpen == true ? "open" : "closed", into: &bytes)
                    RESP.integer(Int64(polls.ballotCount(vote)), into: &bytes)
                }
            }
        }
    }

    private static func writeResult(
        _ vote: UInt64, _ record: Polls.Record, into bytes: inout [UInt8]
    ) {
        RESP.array(3, into: &bytes)
        RESP.integer(Int64(vote), into: &bytes)
        RESP.integer(Int64(record.yes), into: &bytes)
        RESP.integer(Int64(record.no), into: &bytes)
    }
}

extension Connection {
    /// Whether `newer` is the same client's newer connection: the witness that it offers was this
    /// one's until the newer one took it over.
    func isSupersededBy(_ newer: Connection) -> Bool {
        lastWitness != nil && lastWitness == newer.witness
    }
}
