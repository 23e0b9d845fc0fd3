import Testing
import Wire

@testable import Client

/// Ballots: to whom they go, and what becomes of the answers.
@Suite struct VoteTests {
    @Test func ballotGoesToBoth() throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        #expect(stage.sent(bob) == ["CAST 1 yes"])
        try stage.reply(bob, .simple("HELD"))
        try stage.ok(ann)
        try stage.result(1)
        stage.write()
        #expect(stage.log == [PollResult(id: 1, yes: 1, no: 0)])
        #expect(stage.shown == "vote 1: 1 yes, 0 no (100 % yes)\n")
        #expect(stage.session.ballots.isEmpty)
        #expect(stage.trouble.isEmpty)
    }

    @Test func unacknowledgedBallotGoesAgainToTheNewPrimary() throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        try stage.vote(2)
        _ = (stage.sent(ann), stage.sent(bob))
        try stage.ok(ann)
        try stage.reply(bob, .simple("HELD"))
        try stage.reply(bob, .simple("HELD"))
        try stage.lose(ann)
        try stage.view(3, bob, nil, from: bob)
        // Join and ballot leave together: nothing waits for a reply in between.
        #expect(stage.sent(bob) == ["JOIN eve 1", "CAST 2 yes"])
        try stage.ok(bob)
        // The new primary may ask for what is on its way already.
        try stage.vote(2, from: bob)
        #expect(stage.sent(bob) == [])
        try stage.ok(bob)
        #expect(stage.session.ballots.map(\.isSettled) == [true, true])
    }

    @Test func hungPrimaryIsNotWaitedFor() throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        _ = stage.sent(bob)
        // Ann's connection still stands and says nothing.
        try stage.view(3, bob, nil, from: bob)
        #expect(stage.sent(bob) == ["JOIN eve 1", "CAST 1 yes"])
        try stage.reply(bob, .simple("HELD"))
        try stage.ok(bob)
        // It is let go of only after a while: it may have to hear from its witnesses.
        #expect(stage.out.close == [])
        stage.wait(5_000)
        #expect(stage.out.close == [try stage.link(ann)])
        #expect(stage.dialed() == [])
    }

    @Test func newBackupGetsWhatIsOpen() throws {
        var stage = Stage()
        try stage.settle()
        try stage.lose(bob)
        try stage.view(3, ann, nil, from: ann)
        try stage.vote(1)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        try stage.view(4, ann, cem, from: ann)
        #expect(stage.sent(ann) == [], "the primary goes on: no new join")
        let view = VoterView(number: ViewNumber(4), primary: ann, backups: [cem])
        try stage.accept(cem, view: view)
        #expect(stage.sent(cem) == ["CAST 1 yes"])
    }

    /// Vote 1 stays open while others close: their results wait, their ballots are done with.
    @Test func ballotsOfClosedVotesAreDropped() throws {
        var stage = Stage()
        try stage.settle()
        for id: Int64 in 1...50 { try stage.vote(id) }
        for id: Int64 in 2...50 { try stage.result(id) }
        #expect(stage.session.ballots.map(\.vote) == [1])
        stage.write()
        #expect(stage.log.isEmpty)
        try stage.result(1)
        stage.write()
        #expect(stage.log.count == 50)
    }

    /// So are those behind the last result that the log is to hold.
    @Test func ballotsBehindTheLastResultAreDropped() throws {
        var stage = Stage(votesMax: 1)
        try stage.settle()
        for id: Int64 in 1...3 { try stage.vote(id) }
        try stage.result(3)
        #expect(stage.session.ballots.map(\.vote) == [1, 2])
    }

    @Test func settledBallotsMakeRoom() throws {
        for isSettled in [true, false] {
            var stage = Stage()
            try stage.settle()
            stage.session.ballots = (1...UInt64(VoterSession.keptMax)).map {
                Ballot(vote: $0, question: "", choice: .yes, isSettled: isSettled)
            }
            _ = stage.sent(ann)
            let next = Int64(VoterSession.keptMax) + 1
            try stage.vote(next)
            #expect(stage.sent(ann).contains("CAST \(next) yes") == isSettled)
            #expect(
                stage.trouble
                    == (isSettled ? [] : ["vote \(next): too many open votes; not voted"]))
            #expect(stage.session.ballots.count == VoterSession.keptMax)
        }
    }

    @Test func onlyAHigherViewIsNews() throws {
        var stage = Stage()
        try stage.settle()
        try stage.view(1, bob, ann, from: bob)
        try stage.view(2, bob, ann, from: bob)
        #expect(stage.sent(bob) == [])
        #expect(stage.session.view?.primary == ann)
    }

    @Test func refusalsThatPassAreTriedAgain() throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        try stage.reply(ann, .error("TRYAGAIN the view is changing"))
        #expect(stage.sent(ann) == [])
        stage.wait(30)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        try stage.reply(ann, .error("BUSY"))
        stage.wait(60)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        #expect(stage.trouble.isEmpty)
    }

    @Test func redirectedJoinFollows() throws {
        var stage = Stage(servers: [ann])
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [])
        try stage.accept(ann, view: view, isPrimary: true)
        #expect(stage.sent(ann) == ["JOIN eve 1"])
        try stage.reply(ann, .error("REDIRECT 127.0.0.1:7002"))
        #expect(stage.dialed() == [bob])
        stage.wait(30)
        #expect(stage.sent(ann) == ["JOIN eve 1"], "and it is asked again")
    }

    @Test(arguments: [
        ("ALREADYVOTED", "vote 1: 'eve' has voted otherwise before; that stands"),
        ("CLOSED", "vote 1 was closed before this ballot was confirmed"),
        ("NOSUCHVOTE", "vote 1: the service does not know this vote"),
        ("NOTONROLL", "vote 1: 'eve' is not on its roll; not counted"),
        ("WHATEVER it is", "vote 1: ballot refused: WHATEVER it is"),
    ])
    func finalRefusalIsToldOnce(code: String, message: String) throws {
        var stage = Stage()
        try stage.settle()
        try stage.vote(1)
        _ = (stage.sent(ann), stage.sent(bob))
        // A backup lags behind: its word is not the last.
        try stage.reply(bob, .error("NOSUCHVOTE"))
        #expect(stage.trouble == [])
        try stage.reply(ann, .error(code))
        #expect(stage.trouble == [message])
        stage.wait(2_000)
        #expect(stage.sent(ann).filter { $0.hasPrefix("CAST") } == [])
    }

    @Test func randomBallotsFollowTheSeed() throws {
        func ballots(_ seed: UInt64) throws -> [String] {
            var stage = Stage(policy: .random(seed: seed))
            try stage.settle()
            for id in 1...40 { try stage.vote(Int64(id)) }
            return stage.sent(ann)
        }
        let seven = try ballots(7)
        #expect(try ballots(7) == seven)
        #expect(try ballots(8) != seven)
        let yes = seven.filter { $0.hasSuffix("yes") }.count
        #expect((10...30).contains(yes))
    }

    @Test func nameInUseEndsTheRun() throws {
        var stage = Stage()
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try stage.accept(ann, view: view, isPrimary: true)
        _ = stage.sent(ann)
        try stage.reply(ann, .error("NAMEINUSE taken"))
        #expect(
            stage.ending
                == .unavailable(
                    "the name 'eve' is in use by another client; choose another one with --name"))
    }

    // MARK: The terminal

    @Test func asksAtTheTerminal() throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        try stage.vote(1)
        try stage.vote(2)
        #expect(stage.shown == "Vote 1: Tea? (yes/no)? ")
        stage.step(.line("perhaps"))
        #expect(stage.sent(ann) == [])
        #expect(stage.shown.hasSuffix("Please answer yes or no.\nVote 1: Tea? (yes/no)? "))
        stage.step(.line(" Y\r"))
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        #expect(stage.shown.hasSuffix("Vote 2: Tea? (yes/no)? "))
        stage.step(.line("NO"))
        #expect(stage.sent(ann) == ["CAST 2 no"])
        #expect(!stage.session.isAsking)
    }

    @Test func voteClosesWhileItIsAsked() throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        try stage.vote(1)
        try stage.result(1, 3, 1)
        #expect(
            stage.shown
                == "Vote 1: Tea? (yes/no)? \nVote 1 has closed.\nvote 1: 3 yes, 1 no (75 % yes)\n")
        stage.step(.line("yes"))
        #expect(stage.sent(ann) == [])
    }

    /// Whether or not the result's turn has come.
    @Test func aClosedVoteIsNotAskedFor() throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        for id: Int64 in 1...3 { try stage.vote(id) }
        try stage.result(2)
        stage.step(.line("yes"))
        #expect(stage.shown == "Vote 1: Tea? (yes/no)? Vote 3: Tea? (yes/no)? ")
        try stage.result(3)
        #expect(stage.shown.hasSuffix("Vote 3: Tea? (yes/no)? \nVote 3 has closed.\n"))
        #expect(!stage.session.isAsking)
    }

    @Test func endOfInputAbstains() throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        try stage.vote(1)
        stage.step(.inputEnded)
        #expect(stage.trouble == ["end of input: abstaining from now on"])
        try stage.vote(2)
        #expect(!stage.session.isAsking)
        #expect(stage.sent(ann) == ["LEAVE"], "no vote is to wait for it")
        try stage.result(1)
        stage.write()
        #expect(stage.log.count == 1)
    }

    /// 1. The last line is a ballot, which must be counted before the voter is off the roll.
    /// 2. Results come to voters only, so it asks for them.
    /// 3. Another primary takes over, whom it tells no name.
    @Test func whoAbstainsIsToldWhatItAsksFor() throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        try stage.vote(1)
        stage.step(.line("yes"))
        stage.step(.inputEnded)
        #expect(stage.sent(ann) == ["CAST 1 yes"])
        try stage.ok(ann)
        #expect(stage.sent(ann) == ["LEAVE"])
        try stage.ok(ann)
        for id: UInt64 in 1...3 {
            stage.wait(1_000)
            #expect(stage.sent(ann) == ["RESULTS \(id)"])
            try stage.reply(
                ann, .array([.array([.integer(Int64(id)), .integer(1), .integer(0)])]))
            stage.write()
        }
        #expect(stage.log.map(\.id) == [1, 2, 3])
        _ = stage.sent(bob)
        try stage.reply(bob, .simple("HELD"))
        try stage.lose(ann)
        try stage.view(3, bob, nil, from: bob)
        #expect(stage.sent(bob) == ["RESULTS 4"])
        try stage.reply(bob, .array([]))
        stage.wait(1_000)
        #expect(stage.sent(bob) == ["RESULTS 4"])
        #expect(stage.trouble.count == 1)
        stage.step(.leave)
        stage.step(.time(stage.now + 1_000))
        #expect(stage.ending == .done)
    }

    /// A LEAVE that may not have been heard is said again, where this voter is known by name.
    @Test(arguments: [true, false]) func leavesTheRollForSure(isLost: Bool) throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        stage.step(.inputEnded)
        #expect(stage.sent(ann) == ["LEAVE"])
        if isLost {
            try stage.lose(ann)
        } else {
            try stage.reply(ann, .error("REDIRECT \(bob)"))
        }
        try stage.view(3, bob, nil, from: bob)
        #expect(stage.sent(bob) == ["JOIN eve 1"])
        try stage.ok(bob)
        #expect(stage.sent(bob) == ["LEAVE"])
        try stage.ok(bob)
        stage.wait(1_000)
        #expect(stage.sent(bob) == ["RESULTS 1"])
    }

    /// The old primary's answer, be it before or after that of the next, is no word of the next.
    @Test(arguments: [true, false]) func aLeaveElsewhereIsNoLeave(isEarly: Bool) throws {
        var stage = Stage(policy: .ask)
        try stage.settle()
        stage.step(.inputEnded)
        #expect(stage.sent(ann) == ["LEAVE"])
        try stage.view(3, bob, ann, from: bob)
        #expect(stage.sent(bob) == ["JOIN eve 1"])
        if isEarly { try stage.ok(ann) }
        try stage.ok(bob)
        #expect(stage.sent(bob) == ["LEAVE"])
        guard !isEarly else { return }
        try stage.ok(ann)
        try stage.reply(bob, .error("TRYAGAIN the view has changed"))
        stage.wait(1_000)
        #expect(stage.sent(bob).contains("JOIN eve 1"), "it is on the roll still")
    }
}
