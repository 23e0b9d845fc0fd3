import Testing
import Wire

@testable import Client

/// Results: whatever comes in whatever order, the log gets each once and in order.
@Suite struct ResultTests {
    @Test func duplicatesAreDropped() throws {
        var stage = Stage()
        try stage.settle()
        for id: Int64 in [1, 1, 2, 1, 2, 3] { try stage.result(id) }
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2, 3])
    }

    @Test func gapIsAskedForAndClosed() throws {
        var stage = Stage()
        try stage.settle()
        try stage.result(3)
        try stage.result(2)
        stage.write()
        #expect(stage.log.isEmpty)
        #expect(stage.sent(ann) == [], "it may close by itself")
        stage.wait(20)
        #expect(stage.sent(ann) == ["RESULTS 1"])
        try stage.reply(ann, Self.results(1...3))
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2, 3])
        stage.wait(20_000)
        #expect(!stage.sent(ann).contains { $0.hasPrefix("RESULTS") })
    }

    @Test func fullAnswersAreFollowedUp() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(500)
        #expect(stage.sent(ann) == ["RESULTS 1"], "a JOIN need not bring all")
        try stage.reply(ann, Self.results(1...1_000))
        #expect(stage.sent(ann) == ["RESULTS 1001"])
        try stage.reply(ann, Self.results(1_001...1_007))
        #expect(stage.sent(ann) == [])
        stage.write()
        #expect(stage.log.map(\.id) == Array(1...1_007))
    }

    /// A JOIN brings 10,000 results by itself; on a slow line some come while more are asked for, and
    /// the answer stands behind them all.
    @Test func anAnswerThatWasOvertakenIsFollowedUp() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(500)
        #expect(stage.sent(ann) == ["RESULTS 1"])
        for id in 1...1_500 as ClosedRange<Int64> { try stage.result(id) }
        try stage.reply(ann, Self.results(1...1_000))
        #expect(stage.sent(ann) == ["RESULTS 1501"], "there may be more than were pushed")
        try stage.reply(ann, Self.results(1_501...1_600))
        stage.write()
        #expect(stage.log.map(\.id) == Array(1...1_600))
    }

    /// Vote 1 may be open for days while others close: that is no reason to ask all the time.
    @Test func openVoteIsAskedForLessAndLess() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(500)
        _ = stage.sent(ann)
        try stage.reply(ann, Self.results(2...1_001))
        var questions = 0
        for _ in 0..<60 {
            stage.wait(1_000)
            for command in stage.sent(ann) {
                if command == "RESULTS 1" {
                    questions += 1
                    try stage.reply(ann, Self.results(2...1_001))
                } else {
                    try stage.ok(ann)
                }
            }
        }
        #expect((3...7).contains(questions), "\(questions) in a minute")
        try stage.result(1)
        stage.write()
        #expect(stage.log.map(\.id) == Array(1...1_001))
    }

    @Test func tooManyEarlyResultsAreAskedForLater() throws {
        var stage = Stage()
        try stage.settle()
        let keptMax = Int64(VoterSession.keptMax)
        for id in 2...(keptMax + 50) { try stage.result(id) }
        #expect(stage.session.early.count == VoterSession.keptMax)
        try stage.result(1)
        stage.write()
        #expect(stage.log.map(\.id) == Array(1...UInt64(keptMax)), "as many as may be unwritten")
        #expect(stage.sent(ann).last == "RESULTS 10001", "asked for at once, in order")
    }

    /// 1. The log cannot be written, so a result that is next finds no room and is kept as early.
    /// 2. There is room again, and the result comes again.
    /// 3. The one after the next comes before the next.
    @Test func aResultThatCameAgainIsNotWaitedFor() throws {
        var stage = Stage()
        try stage.settle()
        let keptMax = Int64(VoterSession.keptMax)
        for id in 1...(keptMax + 1) { try stage.result(id) }
        #expect(stage.session.early.map(\.id) == [UInt64(keptMax) + 1])
        stage.write()
        #expect(stage.sent(ann).last == "RESULTS \(keptMax + 1)")
        try stage.reply(ann, Self.results(keptMax + 1...keptMax + 2))
        #expect(stage.session.early.isEmpty)
        try stage.result(keptMax + 4)
        try stage.result(keptMax + 3)
        stage.write()
        #expect(stage.log.count == VoterSession.keptMax + 4)
    }

    private static let four: [(UInt64, UInt64)] = [(1, 0), (3, 1), (0, 2), (2, 3)]

    private static func log(_ tallies: [(UInt64, UInt64)]) -> [PollResult] {
        tallies.enumerated().map { index, tally in
            PollResult(id: UInt64(index) + 1, yes: tally.0, no: tally.1)
        }
    }

    private static func answer(_ results: [PollResult]) -> RESPValue {
        .array(
            results.map { result in
                .array([result.id, result.yes, result.no].map { .integer(Int64($0)) })
            })
    }

    @Test func resumesBehindItsLog() throws {
        var stage = Stage(log: Self.log(Self.four))
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try stage.accept(ann, view: view, isPrimary: true)
        #expect(stage.sent(ann) == ["VERIFY 1"], "no join before the log is known to be ours")
        try stage.reply(ann, .error("TRYAGAIN"))
        stage.wait(30)
        #expect(stage.sent(ann) == ["VERIFY 1"])
        // The service has more by now.
        try stage.reply(ann, Self.answer(Self.log(Self.four + [(9, 9)])))
        #expect(stage.sent(ann) == ["JOIN eve 5"])
        try stage.ok(ann)
        try stage.result(4, 2, 3)
        try stage.result(5)
        stage.write()
        #expect(stage.log.map(\.id) == [5])
    }

    @Test func longLogIsComparedInPages() throws {
        let pageCount = VoterCommand.resultsMax
        let tallies = (0..<2 * pageCount).map { (UInt64($0 % 7), UInt64($0 % 3)) }
        let log = Self.log(tallies)
        for isSame in [true, false] {
            var stage = Stage(log: log)
            let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
            try stage.accept(ann, view: view, isPrimary: true)
            var theirs = log
            if !isSame { theirs[3].yes += 1 }
            for first in [0, pageCount] {
                #expect(stage.sent(ann) == ["VERIFY \(first + 1)"])
                try stage.reply(ann, Self.answer(Array(theirs[first..<first + pageCount])))
            }
            #expect(stage.sent(ann) == (isSame ? ["JOIN eve \(2 * pageCount + 1)"] : []))
            #expect((stage.ending == nil) == isSame)
        }
    }

    /// The last result may well be the same: a restored service counts votes with these numbers anew.
    @Test(arguments: [
        [(1, 0), (3, 1), (0, 2), (2, 2)], [(1, 0), (1, 3), (0, 2), (2, 3)],
        [(1, 0), (3, 1), (0, 2)],
        [],
    ])
    func logOfAnotherServiceIsRefused(theirs: [(UInt64, UInt64)]) throws {
        try expectRefusal(of: Self.answer(Self.log(theirs)))
    }

    @Test func logWithAnOpenVoteIsRefused() throws {
        var results = Self.log(Self.four)
        results.remove(at: 2)
        try expectRefusal(of: Self.answer(results))
    }

    private func expectRefusal(of answer: RESPValue) throws {
        var stage = Stage(log: Self.log(Self.four))
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try stage.accept(ann, view: view, isPrimary: true)
        try stage.reply(ann, answer)
        guard case .io(let text) = stage.ending else {
            Issue.record("\(String(describing: stage.ending))")
            return
        }
        #expect(text.hasPrefix("eve.log cannot be continued: the service has "))
    }

    // MARK: Force

    private static let forced = VoterView(
        number: ViewNumber(1_000_002), primary: bob, backups: [])

    /// Joined at Ann with four results in the log; then Bob alone leads, promoted by force.
    private func stageBeyondForce() throws -> Stage {
        var stage = Stage()
        try stage.settle()
        for result in Self.log(Self.four) {
            try stage.result(Int64(result.id), Int64(result.yes), Int64(result.no))
        }
        stage.write()
        // Of what is lost: an open vote, a result that is early, and one that comes late.
        try stage.vote(5)
        try stage.result(6)
        #expect(stage.sent(bob) == ["CAST 5 yes"])
        try stage.reply(bob, .simple("HELD"))
        _ = stage.sent(ann)
        try stage.view(Int64(Self.forced.number.rawValue), bob, nil, from: bob)
        try stage.result(5)
        try stage.vote(7)
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2, 3, 4])
        #expect(stage.sent(ann) == [])
        #expect(stage.sent(bob) == ["VERIFY 1"], "neither JOIN nor ballot before")
        return stage
    }

    @Test func aServiceBehindTheLogEndsTheRun() throws {
        var stage = try stageBeyondForce()
        try stage.reply(bob, Self.answer(Self.log(Array(Self.four.prefix(2)))))
        guard case .io(let text) = stage.ending else {
            Issue.record("\(String(describing: stage.ending))")
            return
        }
        let words =
            "eve.log cannot be continued: the service has no result of vote 3, but the log has "
            + "those of votes 3 to 4. It is"
        #expect(text.hasPrefix(words), "\(text)")
        #expect(stage.out.append == [])
        // Started again, it says the same.
        var again = Stage(log: Self.log(Self.four))
        try again.accept(bob, view: Self.forced, isPrimary: true)
        try again.reply(bob, Self.answer(Self.log(Array(Self.four.prefix(2)))))
        #expect(again.ending == stage.ending)
    }

    /// Bob has gone on by itself for so long that it has as many results.
    @Test func otherResultsOfTheSameVotesEndTheRun() throws {
        var stage = try stageBeyondForce()
        try stage.reply(bob, Self.answer(Self.log([(1, 0), (3, 1), (0, 3), (2, 3), (1, 1)])))
        guard case .io(let text) = stage.ending else {
            Issue.record("\(String(describing: stage.ending))")
            return
        }
        #expect(text.contains("the service has another result of a vote before 4."), "\(text)")
    }

    @Test func forceThatLostNothingIsGoneOnAfter() throws {
        var stage = try stageBeyondForce()
        try stage.reply(bob, Self.answer(Self.log(Self.four)))
        #expect(stage.sent(bob) == ["JOIN eve 5"])
        try stage.ok(bob)
        try stage.vote(5, from: bob)
        #expect(stage.sent(bob) == ["CAST 5 yes"])
        try stage.result(5, from: bob)
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2, 3, 4, 5], "vote 6 may have another result now")
    }

    /// One that knew an older view only: the number rises by less than a million.
    @Test func forceOfAMemberOfLongAgo() throws {
        var stage = Stage()
        try stage.settle()
        try stage.result(1)
        stage.write()
        try stage.view(90, ann, bob, from: ann)
        _ = stage.sent(ann)
        try stage.view(1_000_002, bob, nil, from: bob)
        #expect(stage.sent(bob) == ["VERIFY 1"])
    }

    @Test func aChangeOfViewsAsksForNoComparison() throws {
        var stage = Stage()
        try stage.settle()
        try stage.result(1)
        stage.write()
        try stage.view(9, bob, ann, from: bob)
        #expect(stage.sent(bob) == ["JOIN eve 2"])
    }

    @Test func fullDiskLosesNothing() throws {
        var stage = Stage()
        try stage.settle()
        try stage.result(1)
        #expect(stage.out.append.map(\.id) == [1])
        stage.out.append = []
        stage.step(.logFailed("write: No space left on device"))
        #expect(stage.trouble.count == 1)
        try stage.vote(2)
        #expect(stage.sent(ann) == ["CAST 2 yes"], "it goes on voting")
        try stage.result(2)
        #expect(stage.out.append == [], "nothing is tried before its time")
        stage.wait(1_000)
        #expect(stage.out.append.map(\.id) == [1, 2])
        stage.out.append = []
        stage.step(.logFailed("write: No space left on device"))
        #expect(stage.trouble.count == 1, "said once")
        stage.wait(1_000)
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2])
        #expect(stage.news.last == "eve.log can be written again")
        try stage.result(3)
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2, 3])
    }

    @Test func unwrittenResultsFailTheRun() throws {
        var stage = Stage()
        try stage.settle()
        try stage.result(1)
        stage.step(.logFailed("write: No space left on device"))
        stage.step(.leave)
        stage.step(.leave)
        #expect(
            stage.ending == .io("1 result from vote 1 on could not be written to eve.log"))
    }

    @Test func endsWhenTheLogHoldsEnough() throws {
        var stage = Stage(votesMax: 2)
        try stage.settle()
        for id: Int64 in 1...3 { try stage.result(id) }
        #expect(stage.ending == nil)
        stage.write()
        #expect(stage.log.map(\.id) == [1, 2], "and no more")
        #expect(stage.sent(ann) == ["LEAVE"])
        #expect(stage.ending == nil)
        try stage.ok(ann)
        #expect(stage.ending == .done)
    }

    @Test func fullLogEndsTheRunAtOnce() throws {
        let stage = Stage(votesMax: 2, log: Self.log([(1, 1), (1, 1)]))
        #expect(stage.ending == .done)
    }

    @Test func summariesReadWell() {
        #expect(
            PollResult(id: 17, yes: 11, no: 9).summary == "vote 17: 11 yes, 9 no (55 % yes)")
        #expect(PollResult(id: 3, yes: 0, no: 0).summary == "vote 3: no ballots")
        #expect(PollResult(id: 3, yes: 2, no: 1).summary == "vote 3: 2 yes, 1 no (67 % yes)")
    }

    private static func results(_ ids: ClosedRange<Int64>) -> RESPValue {
        .array(ids.map { .array([.integer($0), .integer(1), .integer(0)]) })
    }
}
