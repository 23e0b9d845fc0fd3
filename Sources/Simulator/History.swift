import Replication
import Services
import Wire

/// What the whole run has done and said, as an observer outside would write it down, and the rules
/// that it must obey. Reads what replicas send, execute and answer, and their services' state in the end.
struct History {
    /// A request as a client has made it.
    struct Asked {
        var request: Packet.Request
        var asked: Int
        var answered: Int?
        var answer: Packet.Answer?
    }

    /// What an elector has accepted last.
    struct Accept {
        var elector: Instance
        var what: Accepted
        var view: View { what.view }
    }

    private(set) var asked: [Asked] = []
    /// Views by number, from 1.
    private var views: [View] = []
    /// The newest view that anybody is known to have entered.
    private(set) var newest: View?
    /// The one sequence: entries by their order, and what the model says to each op.
    private(set) var entries: [Entry] = []
    private var entryOfOp: [Int] = []
    private(set) var replies: [Reply] = []
    /// What a read gives after each op; at 0 before any.
    private var readings = [Reading(votes: 0, closed: 0, ballots: 0)]
    private(set) var model = ModelPolls()
    private var rooms = ModelRooms()
    /// Calls that were executed, with what they were answered.
    private var calls: [(call: Packet.Request.Kind, reply: Reply, op: Int)] = []
    /// The highest view in which anything was answered so far.
    private(set) var answeredView = ViewNumber(0)
    /// Who accepted what in the choice of the view after `newest`.
    private(set) var accepts: [Accept] = []
    /// The view before `newest`, as far as it was entered, and who had accepted what after it.
    private(set) var before: (view: View, accepts: [Accept])?
    private var proposals: [(attempt: Attempt, view: View)] = []

    var lastOp: OpNumber { OpNumber(UInt64(replies.count)) }

    // MARK: Requests

    mutating func ask(_ kind: Packet.Request.Kind, at now: Int) -> Packet.Request {
        let request = Packet.Request(number: asked.count, kind: kind)
        asked.append(Asked(request: request, asked: now))
        return request
    }

    mutating func answer(_ number: Int, _ answer: Packet.Answer, at now: Int) throws(Violation) {
        switch answer {
        case .held, .redirect, .tryAgain, .leased: return
        case .reply, .read, .results, .room: break
        }
        guard asked[number].answered == nil else { return }
        asked[number].answered = now
        asked[number].answer = answer
    }

    /// Rule 5. `floor`: the highest view in which anything had been answered when the request came
    /// in: whoever answers it later must be at least there.
    mutating func noteAnswer(of replica: Instance, in view: ViewNumber, floor: ViewNumber)
        throws(Violation)
    {
        guard view >= floor else {
            throw Violation(
                .safety, rule: "two primaries never both answer",
                "replica \(replica) answers in view \(view) what came in after view \(floor) had "
                    + "begun to answer")
        }
        answeredView = max(answeredView, view)
    }

    // MARK: Views

    /// Rule 1.
    mutating func note(_ view: View, entered: Bool) throws(Violation) {
        if let known = views.first(where: { $0.number == view.number }) {
            guard known == view else {
                throw Violation(
                    .safety, rule: "one view per number", "'\(view.text)' and '\(known.text)'")
            }
        } else {
            views.append(view)
        }
        guard view.number > (newest?.number ?? ViewNumber(0)) else { return }
        before = newest.map { ($0, $0.number.next == view.number ? accepts : []) }
        newest = view
        accepts = []
        proposals.removeAll { $0.view.number <= view.number }
    }

    /// Whether the view that is proposed was proposed by another before.
    func isAnothers(_ attempt: Attempt, _ view: View) -> Bool {
        proposals.contains { $0.view == view && $0.attempt.proposer != attempt.proposer }
    }

    /// Keeps who has proposed what.
    mutating func notePropose(_ attempt: Attempt, _ view: View) {
        guard view.number > (newest?.number ?? ViewNumber(0)),
            !proposals.contains(where: { $0.attempt == attempt && $0.view == view })
        else { return }
        proposals.append((attempt, view))
        noteAccept(view.number, attempt, by: attempt.proposer)
    }

    mutating func noteAccept(_ number: ViewNumber, _ attempt: Attempt, by elector: Instance) {
        guard let newest, number == newest.number.next,
            let proposal = proposals.first(where: {
                $0.attempt == attempt && $0.view.number == number
            })
        else { return }
        accepts.removeAll { $0.elector == elector }
        let what = Accepted(attempt: attempt, view: proposal.view)
        accepts.append(Accept(elector: elector, what: what))
    }

    // MARK: The one sequence

    /// Rules 2 and 3: a replica executes `entry` and has given these replies.
    mutating func execute(_ entry: Entry, by replica: Instance, _ answers: [Reply])
        throws(Violation)
    {
        let first = Int(entry.first.rawValue)
        if first > replies.count + 1 {
            throw Violation(
                .safety, rule: "one history",
                "replica \(replica) executes op \(first), but \(replies.count) is the last")
        }
        if first == replies.count + 1 { append(entry) }
        let known = entries[entryOfOp[first - 1]]
        guard known == entry else {
            throw Violation(
                .safety, rule: "one history",
                "replica \(replica) executes ops \(entry.first) to \(entry.last) of view "
                    + "\(entry.view); before they were \(known.first) to \(known.last) of view "
                    + "\(known.view)")
        }
        for (offset, answer) in answers.enumerated() {
            let wanted = replies[first - 1 + offset]
            guard Self.isAlike(answer, wanted) else {
                throw Violation(
                    .safety, rule: "replies as the slow model says",
                    "replica \(replica), op \(first + offset): \(answer), the model says \(wanted)")
            }
        }
    }

    private mutating func append(_ entry: Entry) {
        var reader = BatchReader()
        let bytes = entry.batch.bytes
        while reader.nextValid(bytes.span) {
            entryOfOp.append(entries.count)
            replies.append(model(reader.call, Array(bytes[reader.command])))
            readings.append(model.reading)
        }
        entries.append(entry)
    }

    private mutating func model(_ call: Wire.Request.Call?, _ bytes: [UInt8]) -> Reply {
        let op = replies.count + 1
        guard let call else { return modelApply(bytes, at: op) }
        let name = Packet.Request.Kind.call(client: call.client, sequence: call.sequence)
        if let before = calls.first(where: { $0.call == name }) {
            // Only the last call's reply is kept; a copy of an older one that comes late finds
            // that nobody waits for it.
            let next = Packet.Request.Kind.call(client: call.client, sequence: call.sequence + 1)
            return calls.contains { $0.call == next } ? .error("SEQUENCE") : before.reply
        }
        let reply = modelApply(bytes, at: op)
        calls.append((name, reply, op))
        return reply
    }

    private mutating func modelApply(_ bytes: [UInt8], at op: Int) -> Reply {
        if let command = try? PollCommand(decoding: bytes) { return model.apply(command, at: op) }
        if let command = try? RoomCommand(decoding: bytes) {
            return .text(rooms.apply(command, at: op))
        }
        return .error("ERR")
    }

    /// What a call is known by, whatever it asks for.
    private static func callName(_ kind: Packet.Request.Kind) -> Packet.Request.Kind {
        guard case .write(let client, let sequence, _) = kind else { return kind }
        return .call(client: client, sequence: sequence)
    }

    /// Of errors only the code counts.
    private static func isAlike(_ a: Reply, _ b: Reply) -> Bool {
        switch (a, b) {
        case (.error(let a), .error(let b)): a.prefix { $0 != " " } == b.prefix { $0 != " " }
        default: a == b
        }
    }

    // MARK: At the end

    /// Rules 3, 4 and 6 over everything that was said.
    func check() throws(Violation) {
        var operations: [HistoryChecker.Operation] = []
        for asked in asked {
            try check(asked)
            switch (asked.request.kind, asked.answer) {
            case (_, .read(let reading)):
                guard let places = places(of: reading) else {
                    throw Violation(
                        .safety, rule: "reads are linearizable",
                        "request \(asked.request.number) read \(reading), which never was")
                }
                operations.append(
                    .init(
                        asked: asked.asked, answered: asked.answered, places: [places],
                        isWrite: false, name: asked.request.number))
            case (.check(let room), .room(let text)):
                let name = Catalogue.builtIn.rooms[room]
                let places = rooms.places(of: text, in: name, last: replies.count)
                guard !places.isEmpty else {
                    throw Violation(
                        .safety, rule: "reads are linearizable",
                        "request \(asked.request.number) read '\(text)', which never was")
                }
                operations.append(
                    .init(
                        asked: asked.asked, answered: asked.answered, places: places,
                        isWrite: false, name: asked.request.number))
            case (.results(let from), .results(let list)):
                guard let places = places(of: list, from: from) else {
                    throw Violation(
                        .safety, rule: "reads are linearizable",
                        "request \(asked.request.number) read results from \(from) on that never "
                            + "were: \(list)")
                }
                operations.append(
                    .init(
                        asked: asked.asked, answered: asked.answered, places: [places],
                        isWrite: false, name: asked.request.number))
            case (.call, .reply(.integer)), (.write, .reply(.text)):
                let name = Self.callName(asked.request.kind)
                guard let op = calls.first(where: { $0.call == name })?.op else {
                    continue
                }
                operations.append(
                    .init(
                        asked: asked.asked, answered: asked.answered, places: [op...op],
                        isWrite: true, name: asked.request.number))
            // These may be done again: to be answered they must have been done by then.
            case (.close(let vote), .reply(.ok)):
                guard let op = model.vote(vote)?.closedAt else { continue }
                operations.append(doneSince(op, asked))
            case (.cast(let vote, let name, _), .reply(.ok)):
                let name = Self.name(name)
                guard let op = model.vote(vote)?.ballots.first(where: { $0.name == name })?.op
                else { continue }
                operations.append(doneSince(op, asked))
            default: continue
            }
        }
        if let (operation, after) = HistoryChecker.firstMisfit(operations) {
            throw Violation(
                .safety, rule: "reads are linearizable",
                "request \(operation.name) fits at \(operation.places) only, but \(after) was over "
                    + "when it was asked")
        }
        try checkBallots()
    }

    /// The places at which a read gives this.
    private func places(of reading: Reading) -> ClosedRange<Int>? {
        func isBefore(_ a: Reading, _ b: Reading) -> Bool {
            (a.votes, a.closed, a.ballots) != (b.votes, b.closed, b.ballots)
                && a.votes <= b.votes && a.closed <= b.closed && a.ballots <= b.ballots
        }
        var (low, high) = (0, readings.count)
        while low < high {
            let middle = (low + high) / 2
            if isBefore(readings[middle], reading) { low = middle + 1 } else { high = middle }
        }
        guard low < readings.count, readings[low] == reading else { return nil }
        var last = low
        while last + 1 < readings.count, readings[last + 1] == reading { last += 1 }
        return low...last
    }

    /// After which ops these are all results from a vote on.
    private func places(of list: [Packet.Result], from: UInt64) -> ClosedRange<Int>? {
        var (first, last) = (0, replies.count)
        var rest = list[...]
        for (index, vote) in model.votes.enumerated().dropFirst(Int(from) - 1) {
            guard let closedAt = vote.closedAt else { continue }
            if let result = rest.first, result.vote == UInt64(index + 1) {
                guard result.yes == vote.tally(.yes), result.no == vote.tally(.no) else {
                    return nil
                }
                rest.removeFirst()
                first = max(first, closedAt)
            } else {
                last = min(last, closedAt - 1)
            }
        }
        return rest.isEmpty && first <= last ? first...last : nil
    }

    private func doneSince(_ op: Int, _ asked: Asked) -> HistoryChecker.Operation {
        .init(
            asked: asked.asked, answered: asked.answered, places: [op...replies.count],
            isWrite: false, name: asked.request.number)
    }

    /// What a replica has in the end is what the models have, by which the replies were judged.
    func check(_ service: ServiceSet, of replica: Instance) throws(Violation) {
        func differs(_ what: String) -> Violation {
            Violation(
                .safety, rule: "the state in the end as the slow model says",
                "replica \(replica): \(what)")
        }
        let polls = service.polls
        guard polls.records.count == model.votes.count else {
            throw differs("\(polls.records.count) votes, not \(model.votes.count)")
        }
        for (index, vote) in model.votes.enumerated() {
            let record = polls.records[index]
            guard record.isOpen == vote.isOpen, record.yes == vote.tally(.yes),
                record.no == vote.tally(.no)
            else { throw differs("vote \(index + 1) is \(record)") }
        }
        let joined = polls.joinedPlaces.map { polls.voters[$0] }
        guard Set(joined) == Set(model.joined), joined.count == model.joined.count else {
            throw differs("\(joined.count) voters on the roll, not \(model.joined.count)")
        }
        for name in Catalogue.builtIn.rooms {
            let text = service.rooms.check(name)
            guard rooms.text(of: name) == text else { throw differs("a room shows '\(text)'") }
        }
    }

    /// Rule 3: what was acknowledged is in the one sequence, with that answer.
    private func check(_ asked: Asked) throws(Violation) {
        guard case .reply(let reply) = asked.answer else { return }
        func lost(_ why: String) -> Violation {
            Violation(
                .safety, rule: "no acknowledged op lost",
                "request \(asked.request.number) (\(asked.request.kind)) was answered \(reply): "
                    + why)
        }
        switch (asked.request.kind, reply) {
        case (_, .error("LOST")): throw lost("it was executed without an answer")
        case (.cast(let vote, let name, let choice), .ok):
            guard model.vote(vote)?.choice(of: Self.name(name)) == choice else {
                throw lost("the ballot is not counted")
            }
        case (.call, .integer), (.write, .text):
            let name = Self.callName(asked.request.kind)
            guard calls.contains(where: { $0.call == name && $0.reply == reply })
            else { throw lost("it was executed never, or with another outcome") }
        case (.close(let vote), .ok):
            guard model.vote(vote)?.isOpen == false else { throw lost("the vote is open") }
        default: return
        }
    }

    /// Rule 4: every ballot is one that its voter has decided on.
    private func checkBallots() throws(Violation) {
        func key(_ vote: UInt64, _ name: [UInt8], _ choice: Choice) -> UInt64 {
            vote << 16 | UInt64(Self.number(name) ?? 0xff) << 1 | (choice == .yes ? 1 : 0)
        }
        var sent: Set<UInt64> = []
        for asked in asked {
            guard case .cast(let vote, let name, let choice) = asked.request.kind else { continue }
            sent.insert(key(vote, Self.name(name), choice))
        }
        for (index, vote) in model.votes.enumerated() {
            for ballot in vote.ballots {
                let isSent = sent.contains(key(UInt64(index + 1), ballot.name, ballot.choice))
                guard isSent else {
                    throw Violation(
                        .safety, rule: "tally = the ballots cast",
                        "vote \(index + 1) counts \(ballot.choice) of "
                            + "'\(String(decoding: ballot.name, as: UTF8.self))'")
                }
            }
        }
    }

    /// Rule 4: a client's log so far.
    func check(log: [Packet.Result], of client: String) throws(Violation) {
        for (index, line) in log.enumerated() {
            guard line.vote == UInt64(index + 1), let vote = model.vote(line.vote), !vote.isOpen,
                line.yes == vote.tally(.yes), line.no == vote.tally(.no)
            else {
                throw Violation(
                    .safety, rule: "client logs complete, without duplicate, true",
                    "\(client) has logged '\(line.vote) \(line.yes) \(line.no)' as line \(index + 1)"
                )
            }
        }
    }

    static func name(_ number: Int) -> [UInt8] { [UInt8(ascii: "v"), UInt8(48 + number)] }
    static func number(_ name: [UInt8]) -> Int? { name.count == 2 ? Int(name[1]) - 48 : nil }
}

/// A rule that a run has broken.
package struct Violation: Error, Sendable {
    package enum Kind: Sendable { case safety, liveness }

    package var kind: Kind
    package var rule: String
    package var text: String

    init(_ kind: Kind, rule: String, _ text: String) {
        self.kind = kind
        self.rule = rule
        self.text = text
    }
}
