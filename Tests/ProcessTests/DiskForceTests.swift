import Foundation
import Testing

extension Disks {
    /// A server is promoted by force that lacks results which the clients have logged.
    @Suite(.serialized) struct Forces {
        @Test func clientsAheadOfTheServiceSaySoAndEnd() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin(ledger: false)
            _ = try pair.cluster.waitForPair(witnesses: 3)
            try pair.waitForResults()
            let leader = try pair.leader()
            try pair.kill([1 - leader])
            // The leader goes on alone, by the clients' votes.
            try pair.waitForResults()
            try pair.kill([leader])
            // What the clients were told last they may still be writing.
            var seen: [[String]] = []
            let ahead = try pair.cluster.eventually("the ends of the logs") { () -> [[String]]? in
                let last = seen
                seen = pair.names.map { pair.cluster.lines($0) }
                if seen == last { return seen }
                usleep(200_000)
                return nil
            }
            try pair.start(1 - leader, "primary")
            let port = pair.cluster.ports[1 - leader]
            _ = try pair.cluster.eventually("a promotion") { () -> Bool? in
                (try? RawClient(port).ask("REPLICA PROMOTE FORCE")) == .text("OK") ? true : nil
            }
            for (name, log) in zip(pair.names, ahead) {
                #expect(try pair.cluster.waitForExit(name) == 74)
                #expect(pair.cluster.lines(name) == log, "written on")
            }
            func last(_ name: String) -> String {
                String(pair.cluster.said(name, "err").split(separator: "\n").last ?? "")
            }
            let name = pair.names[0]
            let text = last(name)
            #expect(text.hasPrefix("pollclient: \(pair.cluster.log(name)) cannot be continued: "))
            #expect(text.contains("promote --force"), "\(text)")
            // Started again, it says the same; with another log it has what the service has.
            let flags = ["--servers", "127.0.0.1:\(port)", "--name", "again", "--log"]
            try pair.cluster.start("again", "pollclient", flags + [pair.cluster.log(name)])
            #expect(try pair.cluster.waitForExit("again") == 74)
            #expect(last("again") == text)
            try pair.cluster.start("other", "pollclient", flags + [pair.cluster.log("other")])
            _ = try pair.cluster.eventually("results") {
                pair.cluster.lines("other").isEmpty ? nil : true
            }
            #expect(ahead[0].starts(with: pair.cluster.lines("other")))
        }

        /// The one that comes back has a checkpoint of what was lost, which the new log passes.
        @Test func whatWasLostIsNotStoodOnAgain() throws {
            let pair = try DiskPair(clients: 0, flags: ["--test-hooks"])
            defer { pair.end() }
            try pair.begin(ledger: false)
            let lost = try pair.leader()
            let (lostPort, port) = (pair.cluster.ports[lost], pair.cluster.ports[1 - lost])
            try pair.kill([1 - lost])
            func number(_ port: UInt16, _ key: String) throws -> Int {
                try #require(try pair.cluster.info(port)[key].flatMap { Int($0) })
            }
            try Filler.fill(pair) { (try? number(lostPort, "checkpoint_op")) ?? 0 > 0 }
            let end = try number(lostPort, "op")
            try pair.kill([lost])
            try pair.start(1 - lost, "primary")
            _ = try pair.cluster.eventually("a promotion") { () -> Bool? in
                (try? RawClient(port).ask("REPLICA PROMOTE FORCE")) == .text("OK") ? true : nil
            }
            #expect(try number(port, "op") < end)
            try pair.start(lost, "backup")
            try pair.waitForPair()
            let client = try RawClient(port)
            while try number(port, "op") <= end { _ = try client.ask("VOTE.OPEN x ROLL open") }
            try pair.kill([lost])
            try pair.start(lost, "backup")
            try pair.waitForPair()
            let infos = try pair.cluster.eventually("the same op") { () -> [[String: String]]? in
                let infos = try pair.cluster.ports.map { try pair.cluster.info($0) }
                return infos[0]["commit"] == infos[1]["commit"] ? infos : nil
            }
            #expect(infos[0]["digest"] != nil)
            #expect(infos[0]["digest"] == infos[1]["digest"])
        }
    }
}
