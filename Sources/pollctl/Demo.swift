import Arguments
import Linux

/// `pollctl demo`: the whole promise in a few seconds. A pair of servers, five voters, twenty
/// votes; the primary is killed in the middle of a vote, later the backup; at the end all five
/// logs must be equal, complete and free of duplicates.
struct Demo {
    private let household: Household
    private let pair: LocalPair
    private let narrator: Narrator
    private var voters: Voters?
    /// Votes up to this one have been shown.
    private var shownVote = 0
    /// Whether the last voter is made to wait, which keeps the present vote open.
    private var isHolding = false

    static let votes = 20
    /// The primary is killed in the vote after this one.
    private static let votesBeforeFirstKill = 5
    /// Should the pair not be whole again by then, the next vote is kept open until it is.
    private static let voteToHoldForReplacement = 13
    private static let voteToHoldForLastReplacement = 18
    private static let serverFlags = [
        "--heartbeat", "250ms", "--misses", "4", "--restart-delay", "500ms", "--voters", "5",
        "--votes", String(votes), "--interval", "250ms",
    ]

    init(isQuiet: Bool) throws(Failure) {
        household = try Household(purpose: "demo")
        pair = try LocalPair(household)
        narrator = Narrator(isQuiet: isQuiet)
    }

    mutating func run() throws(Failure) {
        do throws(Failure) {
            try play()
        } catch {
            household.endAll()
            throw Failure("\(error.text)\nlogs and messages: \(household.folder)", like: error)
        }
    }

    private mutating func play() throws(Failure) {
        _ = try household.path(of: "pollsrv")
        _ = try household.path(of: "pollclient")
        narrator.line("Two servers collect the ballots of five voters, in twenty votes. Each")
        narrator.line("server is killed once. No result may get lost, come twice or differ.")
        narrator.line("logs and the servers' messages: \(household.folder)")
        narrator.line()
        try begin()
        try follow("votes to be held") { $0.shownVote >= Self.votesBeforeFirstKill }
        try killPrimary()
        try awaitReplacement("a new backup to join", holdAfter: Self.voteToHoldForReplacement)
        try killBackup()
        try awaitReplacement("a new backup to join", holdAfter: Self.voteToHoldForLastReplacement)
        try finish()
    }

    private mutating func begin() throws(Failure) {
        narrator.say("start", "two servers: a primary on \(pair.addresses[0]), which leads,")
        narrator.say("", "and a backup on \(pair.addresses[1]), which knows all it knows")
        let report = try pair.startBoth(Self.serverFlags)
        narrator.say("pair", "they have found each other (view \(report.view))", .good)
        let names = Voters.names.joined(separator: ", ")
        narrator.say("voters", "five start: \(names); each sends every ballot to both servers")
        voters = try Voters(household, pair: pair, votes: Self.votes)
    }

    private mutating func killPrimary() throws(Failure) {
        guard let voters, let victim = pair.primary() else { throw noPrimary }
        hold(true)
        narrator.say(
            "pause", "\(voters.last.name) thinks a little longer: the next vote stays open")
        let vote = try voteWithoutLast(at: victim)
        let watch = Stopwatch()
        Processes.signal(victim.pid, Signals.kill)
        hold(false)
        narrator.say(
            "KILL -9", "the primary (pid \(victim.pid)), in the middle of vote \(vote):", .bad)
        narrator.say("", "it has 4 of the 5 ballots and no result yet")
        var takenOver: Double?
        var done: Double?
        try household.wait(for: "the result of vote \(vote) after the kill", every: 1) {
            () throws(Failure) in
            try voters.checkAlive()
            if done == nil, voters.lastVoteOfAll >= vote { done = watch.milliseconds }
            if takenOver == nil, let heir = pair.primary(), heir.pid != victim.pid {
                takenOver = watch.milliseconds
                let text = "the backup (pid \(heir.pid)) is primary now, view \(heir.view)"
                narrator.say("takeover", text, .change)
            }
            return done != nil && takenOver != nil
        }
        showVotes()
        let taken = Text.fixed(done ?? 0, 0)
        let text = "vote \(vote) stands in all five logs \(taken) ms after the kill"
        narrator.say("kept", "\(text), the 4 ballots included", .good)
        narrator.say("solo", "the new primary collects alone and has started a new backup")
    }

    private mutating func killBackup() throws(Failure) {
        guard let report = pair.primary(), let backup = report.backup else { throw noPrimary }
        let before = shownVote
        Processes.signal(backup.pid, Signals.kill)
        narrator.say("KILL -9", "the backup (pid \(backup.pid))", .bad)
        try follow("votes to go on without a backup") { $0.shownVote >= before + 2 }
        narrator.say("goes on", "votes \(before + 1) and \(before + 2) came all the same", .good)
    }

    /// Waits until there is a pair, showing votes. So that there is something left to vote on
    /// afterwards, even on a slow machine, a vote is kept open from a certain one on.
    private mutating func awaitReplacement(_ what: String, holdAfter vote: Int) throws(Failure) {
        var lastLook = Stopwatch()
        var found: ServerReport?
        try follow(what) { demo in
            if !demo.isHolding, demo.shownVote >= vote { demo.hold(true) }
            guard lastLook.milliseconds > 20 else { return false }
            lastLook = Stopwatch()
            found = demo.pair.primary()
            return found?.isPair ?? false
        }
        hold(false)
        guard let found, let backup = found.backup else { throw noPrimary }
        let text = "a new backup (pid \(backup.pid)) has joined, view \(found.view):"
        narrator.say("pair", text, .good)
        narrator.say("", "every ballot goes to both servers again")
    }

    private mutating func finish() throws(Failure) {
        guard let voters else { throw noPrimary }
        try follow("all twenty votes", milliseconds: 30_000) { $0.shownVote >= Self.votes }
        try household.wait(for: "the voters to end") { () throws(Failure) in
            try voters.checkAlive()
            return voters.all.allSatisfy { household.exit(of: $0.pid) == .code(0) }
        }
        narrator.say("voters", "all five have all results and have ended")
        try LogCheck(voters).run()
        narrator.say("logs", "equal byte for byte; votes 1 to \(Self.votes), each once", .good)
        let narrator = narrator
        let commands = ReplicaCommands(servers: pair.addresses, milliseconds: 5_000) {
            narrator.say("stop", $0)
        }
        try commands.stop()
        try household.wait(for: "all processes to end", milliseconds: 3_000) {
            household.isEmpty
        }
        narrator.line()
        narrator.line("the last five results (vote, yes, no), the same in every log:")
        for line in Voters.lines(of: voters.last.log).suffix(5) { narrator.line("  \(line)") }
        narrator.line("logs: " + voters.all.map(\.log).joined(separator: " "))
        let seconds = Text.fixed(narrator.seconds, 1)
        narrator.line("ok: nothing lost, nothing twice, nothing different (\(seconds) s)", .good)
        try narrator.checkSaid()
    }

    /// Goes on showing votes until `isDone`.
    private mutating func follow(
        _ what: String, milliseconds: UInt64 = 15_000, _ isDone: (inout Self) -> Bool
    ) throws(Failure) {
        let deadline = Deadline(milliseconds: milliseconds)
        while true {
            try voters?.checkAlive()
            showVotes()
            if isDone(&self) { return }
            guard !deadline.hasPassed else { throw Failure("waited in vain for \(what)") }
            try household.pause(milliseconds: 2)
        }
    }

    /// Shows the votes whose result has come to stand in all logs since the last call.
    private mutating func showVotes() {
        guard let voters else { return }
        let last = voters.lastVoteOfAll
        guard last > shownVote else { return }
        for line in Voters.lines(of: voters.last.log) {
            let fields = line.split(separator: " ").compactMap { Int($0) }
            guard fields.count == 3, fields[0] > shownVote, fields[0] <= last else { continue }
            narrator.say("vote \(fields[0])", "\(fields[1]) yes, \(fields[2]) no")
        }
        shownVote = last
    }

    /// The open vote in which all but the last voter have voted, once there is one.
    private func voteWithoutLast(at primary: ServerReport) throws(Failure) -> Int {
        var found: Int?
        try household.wait(for: "a vote with 4 ballots in it", every: 1) { () throws(Failure) in
            guard let report = try? ServerReport.of(primary.askedAt, milliseconds: 300) else {
                return false
            }
            found = report.votesOpen.first { vote in
                VoteState.of(vote, at: primary.askedAt)?.ballots == Voters.names.count - 1
            }
            return found != nil
        }
        guard let found else { throw noPrimary }
        return found
    }

    private mutating func hold(_ on: Bool) {
        guard let voters, on != isHolding else { return }
        isHolding = on
        Processes.signal(voters.last.pid, on ? Signals.stop : Signals.resume)
    }

    private var noPrimary: Failure { Failure("no server says that it is the primary") }
}

/// What the logs must hold at the end.
struct LogCheck {
    private let voters: Voters

    init(_ voters: Voters) { self.voters = voters }

    func run() throws(Failure) {
        let first = voters.all[0]
        let expected = try bytes(of: first)
        for voter in voters.all.dropFirst() {
            let found = try bytes(of: voter)
            guard found == expected else {
                throw Failure("the logs differ: \(first.log) and \(voter.log)", .software)
            }
        }
        let votes = Voters.lines(of: first.log).map { line in
            line.split(separator: " ").first.flatMap { Int($0) } ?? 0
        }
        guard votes == Array(1...Demo.votes) else {
            let list = votes.map(String.init).joined(separator: " ")
            throw Failure("\(first.log) should hold votes 1 to 20, but has: \(list)", .software)
        }
    }

    private func bytes(of voter: Voters.Voter) throws(Failure) -> [UInt8] {
        do throws(SystemError) {
            return try Files.read(voter.log)
        } catch { throw Failure(error) }
    }
}
