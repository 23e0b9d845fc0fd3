import Foundation
import Testing

extension Disks {
    /// Both killed at once while votes, ballots and reservations go on, and started again in any
    /// order and modes. DISK_KILLS=50 for more of it, POLLSRV_TEST_SEED=8841 for another course.
    @Suite(.serialized) struct Kills {
        @Test func bothAreKilledUnderLoad() throws {
            let environment = ProcessInfo.processInfo.environment
            let rounds = environment["DISK_KILLS"].flatMap { Int($0) } ?? 10
            let seed = environment["POLLSRV_TEST_SEED"].flatMap { UInt64($0) } ?? 0x5eed
            var random = Seeded(state: max(1, seed))
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            for round in 1...rounds {
                // Now and then before they have found each other again.
                if Int.random(in: 0..<4, using: &random) > 0 {
                    try pair.ledger.waitForMore()
                    try pair.waitForResults()
                }
                usleep(UInt32.random(in: 0...150_000, using: &random))
                try pair.kill(Bool.random(using: &random) ? [0, 1] : [1, 0])
                var order = [0, 1]
                order.shuffle(using: &random)
                for index in order {
                    try pair.start(index, Bool.random(using: &random) ? "primary" : "backup")
                    usleep(UInt32.random(in: 0...200_000, using: &random))
                }
                // What was acknowledged is compared while the next votes are on.
                if round % 2 == 0 { try pair.check() }
            }
            try pair.checkBoth()
            print("\(rounds) kills of both, \(pair.ledger.count) ballots acknowledged and present")
        }

        /// No life is long enough for a checkpoint, and yet there is one in the end: a journal that only
        /// grew would make each start longer than the one before.
        @Test func manyShortLivesMakeACheckpoint() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            func isThere() throws -> Bool {
                try FileManager.default.contentsOfDirectory(atPath: pair.folder(0))
                    .contains { $0.hasPrefix("checkpoint-") && !$0.hasSuffix(".new") }
            }
            for life in 1...8 {
                try pair.start(0, "primary")
                _ = try pair.cluster.eventually("a primary") {
                    (try? pair.cluster.info(pair.cluster.ports[0], seconds: 1))?["mode"]
                        == "primary"
                        ? true : nil
                }
                if life > 4 {
                    // What the lives before have written is more than half a segment.
                    _ = try pair.cluster.eventually("a checkpoint") { try isThere() ? true : nil }
                } else {
                    var rounds = 0
                    try Filler.fill(pair) {
                        rounds += 1
                        return rounds > 3
                    }
                    if life == 1 { #expect(try !isThere(), "one life is enough") }
                }
                try pair.kill([0])
            }
        }

        /// Their views name the processes before them.
        @Test func whoComesBackIsNamedByItsProcess() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin(ledger: false)
            try pair.kill([0, 1])
            for index in 0...1 { try pair.start(index, "primary") }
            try pair.waitForPair()
            let leader = try pair.leader()
            let pids = [leader, 1 - leader].map { "\(pair.servers[$0]?.processIdentifier ?? 0)" }
            for port in pair.cluster.ports {
                _ = try pair.cluster.eventually("the other's process") {
                    let info = try pair.cluster.info(port)
                    return [info["primary_pid"], info["backup_pid"]] == pids ? true : nil
                }
            }
            let stop = try pair.cluster.run("pollctl", ["stop", "--servers", pair.cluster.servers])
            #expect(stop.status == 0 && stop.output.count { $0 == ":" } == 2, "\(stop)")
        }

        /// It may be the last copy: nobody is to be told that it is empty.
        @Test func whoWaitsForOthersSaysWhatItHas() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            let leader = try pair.leader()
            _ = try pair.cluster.eventually("the clients to be electors") {
                let info = try pair.cluster.info(pair.cluster.ports[leader], seconds: 1)
                return info["witnesses"] == "3" ? true : nil
            }
            let backup = 1 - leader
            try pair.kill([backup])
            _ = try pair.cluster.eventually("the other alone") {
                let info = try? pair.cluster.info(pair.cluster.ports[1 - backup], seconds: 1)
                return info?["state"] == "solo" ? true : nil
            }
            let port = pair.cluster.ports[backup]
            // It hears from the clients that it is out, and is then started once more.
            try pair.kill([1 - backup])
            try pair.start(backup, "backup")
            _ = try pair.cluster.eventually("it to be out") {
                try pair.cluster.info(port, seconds: 1)["mode"] == "joining" ? true : nil
            }
            try pair.kill([backup])
            try pair.start(backup, "backup")
            _ = try pair.cluster.eventually("a word of what it has") {
                pair.cluster.said(pair.name(backup), "err").contains(
                    "others have gone on without it")
                    ? true : nil
            }
            let status = try pair.cluster.run(
                "pollctl", ["status", "--servers", "127.0.0.1:\(port)"])
            #expect(status.status == 69 && status.error.contains("pollctl promote"), "\(status)")
            let force = ["promote", "--force", "--servers", "127.0.0.1:\(port)"]
            #expect(try pair.cluster.run("pollctl", force).status == 0)
        }

        /// One after the other, so that the survivor goes on alone in between, or waits for the
        /// other: whoever is started first alone must not go on without what the other has.
        @Test func oneAfterTheOther() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            for round in 0..<4 {
                try pair.waitForPair()
                try pair.ledger.waitForMore()
                let first = round % 2 == 0 ? try pair.leader() : 1 - (try pair.leader())
                try pair.kill([first])
                // The other has witnesses, so it goes on alone.
                try pair.ledger.waitForMore()
                try pair.kill([1 - first])
                // The one that has been dead longer comes first; it may not lead by itself.
                try pair.start(first, "primary")
                _ = try pair.cluster.eventually("it to wait", within: 60) {
                    let info = try? pair.cluster.info(pair.cluster.ports[first], seconds: 1)
                    return info?["stalled"] == "1" || info?["mode"] == "joining" ? true : nil
                }
                usleep(300_000)
                let before = pair.ledger.count
                usleep(300_000)
                #expect(pair.ledger.count == before, "one that was out of date leads")
                try pair.start(1 - first, "backup")
                try pair.check()
            }
            try pair.checkBoth()
        }
    }
}
