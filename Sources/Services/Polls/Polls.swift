package import Wire

/// Yes/no votes with numbers from 1 on, their voters, ballots and results.
package struct Polls: StateMachine {
    package enum Effect: Equatable, Sendable {
        case opened(UInt64)
        case closed(UInt64)
    }

    /// What is kept of every vote for ever.
    package struct Record: Equatable, Sendable {
        /// Empty: `Vote` and the number.
        package var question: [UInt8]
        package var yes: UInt32 = 0
        package var no: UInt32 = 0
        package var isOpen = true
    }

    /// What is needed while a vote is open, and for a while afterwards.
    struct BallotBox: Equatable, Sendable {
        var vote: UInt64
        var deadline: UInt64
        /// Nil: anybody may vote.
        var roll: VoterSet?
        var ballots = Ballots()
        var ballotCount = 0
        var isPlanned: Bool
    }

    package static let votersMax = 1_000_000
    package static let nameBytesMax = 64
    package static let questionBytesMax = 4_096
    /// Of all the questions of a plan together.
    package static let questionsBytesMax = 1 << 20
    /// Of the questions of all votes ever opened: alone they do not come near what a new backup can be
    /// sent.
    package static let keptQuestionsBytesMax = 256 << 20
    package static let openMax = 10_000
    /// Ballots of closed votes are kept, so that one that is sent again is answered `OK` again,
    /// until they take more words than this together.
    static let closedWordsMax = 128 << 10

    package private(set) var voters = VoterTable()
    private var joined = VoterSet()
    /// Vote n at n - 1.
    package private(set) var records = Chunked<Record>()
    /// Follows from `records`.
    private var questionBytes = 0
    /// Of the open votes, by ascending number.
    private var boxes: [BallotBox] = []
    /// Of votes closed lately, by ascending number of closing.
    private var closedBoxes: [BallotBox] = []
    private var closedWords = 0
    package private(set) var plan: VotePlan?
    package private(set) var plannedOpened: UInt64 = 0

    package init() {}

    // MARK: Questions

    package var joinedCount: Int { joined.count }
    package var closedCount: Int { records.count - boxes.count }
    package var openVotes: [UInt64] { boxes.map(\.vote) }

    package func voterPlace(_ name: [UInt8]) -> Int? { voters.place(of: name) }
    /// Places of those joined, ascending.
    package var joinedPlaces: [Int] { joined.members }
    package func isJoined(_ place: Int) -> Bool { joined.contains(place) }

    package func record(_ vote: UInt64) -> Record? {
        vote >= 1 && vote <= UInt64(records.count) ? records[Int(vote) - 1] : nil
    }

    package func question(_ vote: UInt64) -> [UInt8] {
        guard let record = record(vote), !record.question.isEmpty else {
            return Array("Vote \(vote)".utf8)
        }
        return record.question
    }

    /// Milliseconds from its opening after which an open vote is to be closed; 0: never.
    package func deadline(_ vote: UInt64) -> UInt64 {
        boxIndex(vote).map { boxes[$0].deadline } ?? 0
    }

    /// Whether an open vote waits for this voter.
    package func isWaiting(_ vote: UInt64, for voter: Int) -> Bool {
        guard let index = boxIndex(vote) else { return false }
        return (boxes[index].roll?.contains(voter) ?? true) && boxes[index].ballots[voter] == nil
    }

    /// Whether a ballot needs not be kept for later: it is counted, or never can be.
    package func isSettled(_ vote: UInt64, _ voter: [UInt8]) -> Bool {
        guard let record = record(vote) else { return false }
        guard record.isOpen, let index = boxIndex(vote) else { return true }
        guard let place = voters.place(of: voter) else { return false }
        return boxes[index].ballots[place] != nil
    }

    /// Of all votes that were ever opened.
    package var ballotTotal: Int {
        var total = 0
        for record in records { total += Int(record.yes) + Int(record.no) }
        return total
    }

    package func ballotCount(_ vote: UInt64) -> Int {
        if let index = boxIndex(vote) { return boxes[index].ballotCount }
        return record(vote).map { Int($0.yes) + Int($0.no) } ?? 0
    }

    /// The terms of the vote that the plan wants opened now; nil while one of its votes is open,
    /// or nobody is there, or it is done.
    package var nextPlanned: VoteTerms? {
        guard let plan, plannedOpened < plan.votes, boxes.count < Self.openMax,
            !boxes.contains(where: \.isPlanned)
        else { return nil }
        let needed = plannedOpened == 0 ? max(1, Int(clamping: plan.voters)) : 1
        guard joined.count >= needed else { return nil }
        let index = Int(plannedOpened)
        let question = index < plan.questions.count ? plan.questions[index] : []
        return VoteTerms(
            question: question, deadline: plan.deadline, planned: plannedOpened + 1)
    }

    /// The place of an open vote's box.
    private func boxIndex(_ vote: UInt64) -> Int? {
        var (low, high) = (0, boxes.count)
        while low < high {
            let middle = (low + high) / 2
            if boxes[middle].vote < vote { low = middle + 1 } else { high = middle }
        }
        return low < boxes.count && boxes[low].vote == vote ? low : nil
    }

    // MARK: Commands

    package mutating func apply(
        _ command: Span<UInt8>, at context: OpContext, into effects: inout [Effect]
    ) -> Reply {
        // The one command that must be fast is decoded without a copy.
        if command.count > 2, command[0] == PollCommand.castTag {
            var position = 1
            do {
                let vote = try VarInt.read(command, &position)
                let voter = try VarInt.read(command, &position)
                guard position == command.count - 1,
                    let choice = Choice(rawValue: command[position])
                else { return Self.malformed }
                return cast(vote, Int(clamping: voter), choice, into: &effects)
            } catch {
                return Self.malformed
            }
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(command.count)
        for index in command.indices { bytes.append(command[index]) }
        do {
            return try apply(PollCommand(decoding: bytes), into: &effects)
        } catch {
            return Self.malformed
        }
    }

    private static let malformed = Reply.error("ERR malformed command")

    private mutating func apply(_ command: PollCommand, into effects: inout [Effect]) -> Reply {
        switch command {
        case .cast(let vote, let voter, let choice):
            return cast(vote, Int(clamping: voter), choice, into: &effects)
        case .castByName(let vote, let name, let choice):
            return castByName(vote, name, choice, into: &effects)
        case .open(let terms): return open(terms, into: &effects)
        case .close(let vote):
            guard record(vote) != nil else { return Self.noSuchVote(vote) }
            if let index = boxIndex(vote) { close(index, into: &effects) }
            return .ok
        case .join(let name):
            guard let place = place(of: name) else { return Self.tooManyVoters }
            joined.insert(place)
            return .ok
        case .leave(let name):
            guard let place = voters.place(of: name), joined.contains(place) else { return .ok }
            leave(place, into: &effects)
            return .ok
        case .plan(let plan):
            if self.plan == nil { self.plan = plan }
            return .ok
        }
    }

    private static func noSuchVote(_ vote: UInt64) -> Reply {
        .error("NOSUCHVOTE there is no vote \(vote)")
    }
    private static let tooManyVoters = Reply.error("FULL no more than \(votersMax) voters")

    private mutating func castByName(
        _ vote: UInt64, _ name: [UInt8], _ choice: Choice, into effects: inout [Effect]
    ) -> Reply {
        if let place = voters.place(of: name) { return cast(vote, place, choice, into: &effects) }
        guard let record = record(vote) else { return Self.noSuchVote(vote) }
        guard record.isOpen, let index = boxIndex(vote) else {
            return .error("CLOSED vote \(vote) is closed")
        }
        guard boxes[index].roll == nil else { return Self.notOnRoll(vote) }
        guard let place = place(of: name) else { return Self.tooManyVoters }
        return cast(vote, place, choice, into: &effects)
    }

    private static func notOnRoll(_ vote: UInt64) -> Reply {
        .error("NOTONROLL this voter had not joined when vote \(vote) was opened")
    }

    private mutating func cast(
        _ vote: UInt64, _ voter: Int, _ choice: Choice, into effects: inout [Effect]
    ) -> Reply {
        guard voter < voters.count else { return .error("NOTONROLL no such voter") }
        guard let index = boxIndex(vote) else {
            guard record(vote) != nil else { return Self.noSuchVote(vote) }
            return repeated(vote, voter, choice)
        }
        if let before = boxes[index].ballots[voter] {
            return before == choice ? .ok : Self.alreadyVoted(vote)
        }
        guard boxes[index].roll?.contains(voter) ?? true else { return Self.notOnRoll(vote) }
        boxes[index].ballots.set(voter, choice)
        boxes[index].ballotCount += 1
        switch choice {
        case .yes: records[Int(vote) - 1].yes += 1
        case .no: records[Int(vote) - 1].no += 1
        }
        closeIfComplete(index, into: &effects)
        return .ok
    }

    /// A ballot for a vote that is closed already.
    private func repeated(_ vote: UInt64, _ voter: Int, _ choice: Choice) -> Reply {
        if let box = closedBoxes.first(where: { $0.vote == vote }), let before = box.ballots[voter]
        {
            return before == choice ? .ok : Self.alreadyVoted(vote)
        }
        return .error("CLOSED vote \(vote) is closed")
    }

    private static func alreadyVoted(_ vote: UInt64) -> Reply {
        .error("ALREADYVOTED this voter has cast another ballot in vote \(vote)")
    }

    private mutating func open(_ terms: VoteTerms, into effects: inout [Effect]) -> Reply {
        if terms.planned > 0 {
            // Two primaries in a row may both have proposed it.
            guard terms.planned == plannedOpened + 1 else { return .ok }
        }
        guard terms.question.count <= Self.questionBytesMax else {
            return .error("ERR question longer than \(Self.questionBytesMax) bytes")
        }
        guard boxes.count < Self.openMax else {
            return .error("FULL \(Self.openMax) votes are open; close some first")
        }
        guard questionBytes + terms.question.count <= Self.keptQuestionsBytesMax else {
            return .error(
                "FULL the questions of all votes have \(questionBytes) bytes; ask without one")
        }
        if terms.planned > 0 { plannedOpened = terms.planned }
        records.append(Record(question: terms.question))
        questionBytes += terms.question.count
        let vote = UInt64(records.count)
        boxes.append(
            BallotBox(
                vote: vote, deadline: terms.deadline, roll: terms.isRollOpen ? nil : joined,
                isPlanned: terms.planned > 0))
        effects.append(.opened(vote))
        return .integer(Int64(vote))
    }

    private mutating func leave(_ voter: Int, into effects: inout [Effect]) {
        joined.remove(voter)
        // Who has left will not vote any more; nobody is to wait for it.
        for index in boxes.indices.reversed() {
            guard boxes[index].roll?.contains(voter) == true, boxes[index].ballots[voter] == nil
            else { continue }
            boxes[index].roll?.remove(voter)
            closeIfComplete(index, into: &effects)
        }
    }

    private mutating func closeIfComplete(_ index: Int, into effects: inout [Effect]) {
        guard let roll = boxes[index].roll, boxes[index].ballotCount >= roll.count else { return }
        close(index, into: &effects)
    }

    private mutating func close(_ index: Int, into effects: inout [Effect]) {
        let box = boxes.remove(at: index)
        records[Int(box.vote) - 1].isOpen = false
        effects.append(.closed(box.vote))
        closedWords += box.ballots.words.count
        closedBoxes.append(box)
        closedBoxes[closedBoxes.count - 1].roll = nil
        var dropped = 0
        while closedWords > Self.closedWordsMax || closedBoxes.count - dropped > 1_024 {
            closedWords -= closedBoxes[dropped].ballots.words.count
            dropped += 1
        }
        closedBoxes.removeFirst(dropped)
    }

    private mutating func place(of name: [UInt8]) -> Int? {
        if let place = voters.place(of: name) { return place }
        guard voters.count < Self.votersMax else { return nil }
        return voters.add(name)
    }
}

// MARK: Snapshots

extension Polls {
    package func snapshot() -> [UInt8] {
        var writer = SnapshotWriter()
        writer.add(voters.count)
        for place in voters.indices { writer.add(voters[place]) }
        joined.write(to: &writer)
        writer.add(records.count)
        for record in records {
            writer.add(record.question)
            writer.add(UInt64(record.yes))
            writer.add(UInt64(record.no))
            writer.add(record.isOpen)
        }
        for list in [boxes, closedBoxes] {
            writer.add(list.count)
            for box in list { box.write(to: &writer) }
        }
        writer.add(plan != nil)
        plan?.write(to: &writer)
        writer.add(plannedOpened)
        return writer.bytes
    }

    package init(snapshot: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(snapshot)
        for _ in 0..<(try reader.count()) {
            let name = try reader.string()
            guard voters.place(of: name) == nil else {
                throw DecodeError("a voter twice in snapshot")
            }
            _ = voters.add(name)
        }
        joined = try VoterSet(from: &reader)
        for _ in 0..<(try reader.count()) {
            var record = Record(question: try reader.string())
            record.yes = UInt32(truncatingIfNeeded: try reader.number())
            record.no = UInt32(truncatingIfNeeded: try reader.number())
            record.isOpen = try reader.flag()
            records.append(record)
            questionBytes += record.question.count
        }
        for _ in 0..<(try reader.count()) { boxes.append(try BallotBox(from: &reader)) }
        for _ in 0..<(try reader.count()) { closedBoxes.append(try BallotBox(from: &reader)) }
        closedWords = closedBoxes.reduce(0) { $0 + $1.ballots.words.count }
        if try reader.flag() { plan = try VotePlan(from: &reader) }
        plannedOpened = try reader.number()
        let areOpen = boxes.allSatisfy { record($0.vote)?.isOpen == true }
        guard reader.isAtEnd, areOpen, records.filter(\.isOpen).count == boxes.count else {
            throw DecodeError("snapshot of polls does not add up")
        }
    }
}

extension Polls.BallotBox {
    fileprivate func write(to writer: inout SnapshotWriter) {
        writer.add(vote)
        writer.add(deadline)
        writer.add(roll != nil)
        roll?.write(to: &writer)
        ballots.write(to: &writer)
        writer.add(ballotCount)
        writer.add(isPlanned)
    }

    fileprivate init(from reader: inout SnapshotReader) throws(DecodeError) {
        vote = try reader.number()
        deadline = try reader.number()
        roll = try reader.flag() ? VoterSet(from: &reader) : nil
        ballots = try Ballots(from: &reader)
        ballotCount = try Int(clamping: reader.number())
        isPlanned = try reader.flag()
    }
}
