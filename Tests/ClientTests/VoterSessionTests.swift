import Testing
import Wire

@testable import Client

/// A session driven by hand: its commands are read as text, its time is set.
struct Script {
    var session: VoterSession
    var outbox = VoterSession.Outbox()
    var now: UInt64 = 1_000

    init(lastLine: VoteResult? = nil, votes: UInt64 = 0) {
        let addresses = [7001, 7002].map { Address(host: "h", port: UInt16($0)) }
        session = VoterSession(
            .init(
                name: "ann", seeds: addresses, policy: .yes, votesWanted: votes,
                instance: Instance(0xa1)), lastLine: lastLine, seed: 1)
        step(nil)
    }

    mutating func step(_ event: VoterSession.Event?, after milliseconds: UInt64 = 0) {
        outbox = VoterSession.Outbox()
        now += milliseconds
        session.step(.time(milliseconds: now), into: &outbox)
        if let event { session.step(event, into: &outbox) }
    }

    /// What was sent, each as `connection: WORDS`.
    var sent: [String] {
        outbox.send.flatMap { send -> [String] in
            var parser = CommandParser()
            var words: [String] = []
            if parser.parse(send.bytes.span, from: 0) == .command {
                words = parser.ranges.map { String(decoding: send.bytes[$0], as: UTF8.self) }
            }
            return ["\(send.connection): \(words.joined(separator: " "))"]
        }
    }

    mutating func receive(_ connection: Int, _ value: RESPValue) {
        step(.received(connection, value))
    }

    mutating func push(_ connection: Int, _ items: RESPValue...) {
        receive(connection, .push(items))
    }

    /// The reply to HELLO of replica n, with replica 1 leading view `view`.
    static func hello(_ replica: Int, view: Int64, service: String = "s") -> RESPValue {
        func text(_ value: String) -> RESPValue { .bulk(Array(value.utf8)) }
        return .map([
            text("server"), text("pollsrv"), text("instance"), text("\(replica)"),
            text("service"), text(service), text("view"), .integer(view), text("primary"),
            text("h:7001"), text("backup"), text("h:7002"), text("heartbeat"), .integer(1_000),
            text("misses"), .integer(5),
        ])
    }

    /// Connected to both, joined at replica 1.
    static func joined(lastLine: VoteResult? = nil, votes: UInt64 = 0) -> Script {
        var script = Script(lastLine: lastLine, votes: votes)
        for connection in 1...2 {
            script.step(.connected(connection))
            script.receive(connection, hello(connection, view: 2))
            script.receive(connection, .simple("OK"))
        }
        if let lastLine {
            let fields = [lastLine.vote, lastLine.yes, lastLine.no].map {
                RESPValue.integer(Int64($0))
            }
            script.receive(1, .array(fields))
        }
        script.receive(1, .simple("OK"))
        return script
    }
}

private func text(_ value: String) -> RESPValue { .bulk(Array(value.utf8)) }

private func result(_ vote: Int64, _ yes: Int64, _ no: Int64) -> RESPValue {
    .push([text("result"), .integer(vote), .integer(yes), .integer(no), .integer(2)])
}

@Suite struct VoterSessionTests {
    @Test func connectsToAllAndJoinsAtThePrimary() {
        var script = Script()
        #expect(script.outbox.dial.map(\.connection) == [1, 2])
        script.step(.connected(1))
        #expect(script.sent == ["1: HELLO 3 SETNAME ann"])
        script.receive(1, Script.hello(1, view: 2))
        #expect(script.sent == ["1: WITNESS OFFER a1", "1: VOTE.JOIN ann FROM 1"])
    }

    @Test func everyBallotGoesToBoth() {
        var script = Script.joined()
        script.push(1, text("vote"), .integer(1), text("q"), .integer(2))
        #expect(script.sent == ["1: VOTE.CAST 1 ann yes", "2: VOTE.CAST 1 ann yes"])
    }

    @Test func resultsAreLoggedInOrderAndOnce() {
        var script = Script.joined()
        script.receive(1, result(2, 5, 6))
        #expect(script.outbox.results.isEmpty)
        script.receive(1, result(1, 3, 4))
        #expect(script.outbox.results.map(\.line) == ["1 3 4", "2 5 6"])
        script.receive(1, result(1, 3, 4))
        script.receive(1, result(2, 5, 6))
        #expect(script.outbox.results.isEmpty)
    }

    @Test func aGapIsAskedFor() {
        var script = Script.joined()
        script.receive(1, result(3, 1, 0))
        script.step(nil, after: 250)
        #expect(script.sent == ["1: VOTE.RESULTS 1 COUNT 1000"])
        let missed = [[1, 2, 0], [2, 2, 0]].map { row in
            RESPValue.array(row.map { .integer(Int64($0)) })
        }
        script.receive(1, .array(missed))
        #expect(script.outbox.results.map(\.vote) == [1, 2, 3])
    }

    @Test func aNewPrimaryIsJoinedAtOnceAndGetsWhatWasNotAcknowledged() {
        var script = Script.joined()
        script.push(1, text("vote"), .integer(1), text("q"), .integer(2))
        script.receive(2, .simple("HELD"))
        script.push(2, text("view"), .integer(3), text("h:7002"), .null)
        #expect(script.sent == ["2: VOTE.JOIN ann FROM 1"])
        script.receive(2, .simple("OK"))
        #expect(script.sent == ["2: VOTE.CAST 1 ann yes"])
        script.receive(2, .simple("OK"))
        script.push(2, text("view"), .integer(4), text("h:7001"), .null)
        #expect(!script.sent.contains { $0.contains("VOTE.CAST") })
    }

    @Test func anOlderViewIsNoNews() {
        var script = Script.joined()
        script.push(2, text("view"), .integer(2), text("h:7002"), .null)
        #expect(script.sent.isEmpty)
    }

    @Test func aServerOfAnotherServiceIsNotUsed() {
        var script = Script.joined()
        script.step(.disconnected(2, reason: "x"))
        script.step(nil, after: 2_000)
        let connection = script.outbox.dial.first?.connection ?? 0
        script.step(.connected(connection))
        script.receive(connection, Script.hello(2, view: 9, service: "other"))
        #expect(script.outbox.close == [connection])
        #expect(script.outbox.messages.count == 1)
    }

    @Test func aNameInUseEndsTheRun() {
        var script = Script()
        script.step(.connected(1))
        script.receive(1, Script.hello(1, view: 2))
        script.receive(1, .simple("OK"))
        script.receive(1, .error("NAMEINUSE another"))
        #expect(script.outbox.exit == .nameInUse("NAMEINUSE another"))
    }

    @Test func theLogsLastLineIsCheckedFirst() {
        var script = Script(lastLine: VoteResult(vote: 4, yes: 1, no: 1))
        script.step(.connected(1))
        script.receive(1, Script.hello(1, view: 2))
        #expect(script.sent.last == "1: VOTE.RESULT 4")
        script.receive(1, .simple("OK"))
        script.receive(1, .array([.integer(4), .integer(9), .integer(9)]))
        guard case .foreignLog = script.outbox.exit else {
            Issue.record("\(String(describing: script.outbox.exit))")
            return
        }
    }

    @Test func lossIsSaidOnceAndDialedAgainWithBackOff() {
        var script = Script.joined()
        script.step(.disconnected(1, reason: "gone"))
        script.step(.disconnected(2, reason: "gone"))
        #expect(script.outbox.messages.count == 1)
        var dials = 0
        var messages = 0
        for _ in 0..<1_000 {
            script.step(nil, after: 10)
            for dial in script.outbox.dial {
                dials += 1
                script.step(.disconnected(dial.connection, reason: "refused"))
                messages += script.outbox.messages.count
            }
        }
        // Ten seconds, two addresses, at most a second between tries, at least 25 ms.
        #expect(dials > 20 && dials < 80, "\(dials) dials")
        #expect(messages == 0)
    }

    @Test func leavesWhenItHasEnough() {
        var script = Script.joined(votes: 1)
        script.receive(1, result(1, 1, 0))
        #expect(script.sent == ["1: VOTE.LEAVE"])
        #expect(script.outbox.exit == .done)
    }
}
