import Foundation
import Testing

extension ProcessSuite {
    /// What a voter's connection is sent without asking.
    @Suite(.serialized) struct Pushes {
        private func openAndClose(_ votes: ClosedRange<Int>, _ client: RawClient) throws {
            for first in stride(from: votes.lowerBound, through: votes.upperBound, by: 500) {
                let last = min(first + 499, votes.upperBound)
                let lines = (first...last).map { "VOTE.OPEN q ROLL open\r\nVOTE.CLOSE \($0)\r\n" }
                try client.send(Array(lines.joined().utf8))
                for vote in first...last {
                    #expect(try client.receive() == .number(vote))
                    #expect(try client.receive() == .text("OK"))
                }
            }
        }

        /// However many there are, and while more come: each once, in order, on a connection that is read
        /// late.
        @Test func allResultsFromTheOneOnThatIsNamed() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary()
            try cluster.backup()
            try cluster.waitForPair()
            let desk = try RawClient(cluster.ports[0], seconds: 20)
            try openAndClose(1...12_000, desk)
            let voter = try RawClient(cluster.ports[0], seconds: 20)
            _ = try voter.ask("HELLO 3")
            try voter.send(Array("VOTE.JOIN ann FROM 500\r\n".utf8))
            #expect(try voter.receive() == .text("OK"))
            // To say it again without a number takes nothing back. And the votes of these moments, before
            // the first results have been taken, come in their place.
            let lines = (12_001...12_100).map { "VOTE.OPEN q ROLL open\r\nVOTE.CLOSE \($0)\r\n" }
            try voter.send(Array(("VOTE.JOIN ann\r\n" + lines.joined()).utf8))
            var (next, replies) = (500, 0)
            while next <= 12_100 || replies < 201 {
                guard case .push(let items) = try voter.receive() else {
                    replies += 1
                    continue
                }
                if items.first == .text("view") { continue }
                guard items.prefix(4) == [.text("result"), .number(next), .number(0), .number(0)]
                else {
                    Issue.record("\(items) instead of the result of vote \(next)")
                    return
                }
                next += 1
            }
            #expect((next, replies) == (12_101, 201))
            // And then as they come.
            try openAndClose(12_101...12_101, desk)
            guard case .push(let items) = try voter.receive() else {
                Issue.record("no push")
                return
            }
            #expect(items.prefix(2) == [.text("result"), .number(12_101)])
            // Nothing comes behind the answer to QUIT.
            let leaving = try RawClient(cluster.ports[0], seconds: 20)
            _ = try leaving.ask("HELLO 3")
            try leaving.send(Array("VOTE.JOIN bob FROM 1\r\nQUIT\r\n".utf8))
            #expect(try leaving.receive() == .text("OK"))
            var pushes = 0
            while case .push = try leaving.receive() { pushes += 1 }
            #expect(pushes < 12_000)
            #expect(leaving.isClosed())
        }

        /// To who has gone back to RESP2 what a witness is pushed would be the replies to its commands.
        @Test func whoGoesBackToRESP2IsNoWitness() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary()
            try cluster.backup()
            try cluster.waitForPair()
            let clients = try cluster.ports.map { try RawClient($0, seconds: 20) }
            for client in clients {
                _ = try client.ask("HELLO 3")
                #expect(try client.ask("WITNESS OFFER feed") == .text("OK"))
            }
            try cluster.waitForPair(witnesses: 1)
            for client in clients { _ = try client.ask("HELLO 2") }
            _ = try cluster.eventually("a view without it") {
                cluster.leader?["witnesses"] == "0" ? true : nil
            }
            for client in clients {
                try client.send(Array("PING\r\n".utf8))
                #expect(try client.receive() == .text("PONG"))
            }
        }
    }
}
