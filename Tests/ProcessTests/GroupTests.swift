import Foundation
import Testing

/// A group of servers that the one with the highest id leads, on ports of its own.
final class ServerGroup {
    let cluster: Cluster
    /// By id.
    private(set) var ports: [Int: UInt16] = [:]

    init(_ cluster: Cluster, ids: [Int]) throws {
        self.cluster = cluster
        for (id, port) in zip(ids, try cluster.freePorts(ids.count)) { ports[id] = port }
    }

    var addresses: String {
        ports.values.sorted().map { "127.0.0.1:\($0)" }.joined(separator: ",")
    }

    /// The first begins the group; the others join through any member that answers. By default a
    /// member that stands still for half a second is not taken for dead, or the stories would differ.
    @discardableResult
    func start(_ id: Int, isFirst: Bool = false, misses: Int = 30, _ flags: [String] = []) throws
        -> Process
    {
        let join = isFirst ? [] : ["--join", addresses]
        return try cluster.start(
            "s\(id)", "pollsrv",
            ["--listen", "127.0.0.1:\(port(id))", "--id", "\(id)", "--election", "bully"]
                + ["--heartbeat", "100ms", "--misses", "\(misses)"] + join + flags)
    }

    func port(_ id: Int) -> UInt16 { ports[id] ?? 0 }

    func kill(_ id: Int, _ signal: Int32 = SIGKILL) {
        guard let process = cluster.processes["s\(id)"] else { return }
        Foundation.kill(process.processIdentifier, signal)
    }

    /// The lines on stderr that hold `words`, from the first on.
    func lines(_ id: Int, _ words: String) -> [String] {
        cluster.said("s\(id)", "err").split(separator: "\n").map(String.init)
            .filter { $0.contains(words) }
    }

    /// Waits until `id` leads a view of exactly `members`.
    func waitFor(leader id: Int, members: Int, within seconds: Double = 60) throws {
        _ = try cluster.eventually("\(id) to lead \(members)", within: seconds) { () -> Bool? in
            guard let info = try? cluster.info(port(id), seconds: 1), info["mode"] == "primary",
                info["members"]?.split(separator: ",").count == members
            else { return nil }
            return true
        }
    }

    /// The parts of a server's stderr in which it speaks of elections, in order.
    func story(_ id: Int) -> [String] {
        cluster.said("s\(id)", "err").split(separator: "\n").compactMap { line in
            let words = ["Server ", "is running an election", "Election completed", "Heartbeat to"]
            guard words.contains(where: { line.contains($0) }),
                let colon = line.range(of: "primary: ") ?? line.range(of: "backup: ")
            else { return nil }
            return String(line[colon.upperBound...])
        }
    }
}

extension ProcessSuite {
    @Suite(.serialized) struct Groups {
        private func with(_ ids: [Int], _ body: (Cluster, ServerGroup) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster, ServerGroup(cluster, ids: ids))
        }

        private static let votes = ["--voters", "2", "--votes", "1000000", "--interval", "5ms"]
        private static let voters = ["ann", "bob"]

        private func startVoters(_ cluster: Cluster, _ group: ServerGroup) throws {
            for name in Self.voters {
                try cluster.start(
                    name, "pollclient",
                    ["--servers", group.addresses, "--name", name, "--log", cluster.log(name)])
            }
        }

        private func waitForVotes(_ cluster: Cluster, more: Int = 10) throws {
            let count = (Self.voters.map { cluster.lines($0).count }.max() ?? 0) + more
            _ = try cluster.eventually("\(count) results in every log") {
                Self.voters.allSatisfy { cluster.lines($0).count >= count } ? true : nil
            }
        }

        @Test func lowerIDJoins() throws {
            try with([20, 10]) { (cluster, group) throws in
                try group.start(20, isFirst: true, misses: 40)
                try group.waitFor(leader: 20, members: 1)
                #expect(
                    group.story(20) == [
                        "Server 20 started", "20 is running an election initiated by 0",
                        "Election completed. Group Leader: 20",
                    ])
                try group.start(10, misses: 40)
                try group.waitFor(leader: 20, members: 2)
                _ = try cluster.eventually("10 to know its leader") {
                    group.story(10).count == 3 ? true : nil
                }
                // Longer than heartbeat x misses.
                usleep(4_500_000)
                #expect(
                    group.story(10) == [
                        "Server 10 started", "10 is running an election initiated by 0",
                        "Election completed. Group Leader: 20",
                    ])
                #expect(group.story(20).count == 3)
                try group.waitFor(leader: 20, members: 2)
            }
        }

        /// Under load: no vote is lost or doubled by the hand-over.
        @Test func highestIDJoins() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(10, isFirst: true, Self.votes)
                try group.waitFor(leader: 10, members: 1)
                try startVoters(cluster, group)
                try waitForVotes(cluster)
                try group.start(30)
                try group.waitFor(leader: 30, members: 2)
                try waitForVotes(cluster)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                try waitForVotes(cluster)
                let leader = "Election completed. Group Leader: "
                #expect(group.story(10).suffix(2) == [leader + "10", leader + "30"])
                #expect(group.story(30).suffix(2) == [leader + "10", leader + "30"])
                #expect(group.story(20).last == leader + "30")
                for name in Self.voters { cluster.processes[name]?.terminate() }
                for name in Self.voters { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogs(Self.voters, atLeast: 30, ballots: Self.voters.count)
            }
        }

        /// 20 leads next. If it stands still for 50 ms just then, 10 may lead for a moment and hand over,
        /// which is in order, but not each time.
        @Test func leaderIsKilled() throws {
            var stories: [String] = []
            for _ in 1...3 {
                guard let other = try killLeader() else { return }
                stories.append(other)
            }
            Issue.record("10 led each time\n\(stories.joined(separator: "\n"))")
        }

        /// What was said, if it was more than that 20 leads now.
        private func killLeader() throws -> String? {
            var said: String?
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(30, isFirst: true, misses: 600, Self.votes)
                try group.start(10, misses: 600)
                try group.start(20, misses: 600)
                try group.waitFor(leader: 30, members: 3)
                try startVoters(cluster, group)
                try waitForVotes(cluster)
                let before = ContinuousClock.now
                group.kill(30)
                try group.waitFor(leader: 20, members: 2)
                // By proof of its end, not by silence: that would take a minute.
                #expect(ContinuousClock.now - before < .seconds(30))
                try waitForVotes(cluster)
                var isShort = true
                for id in [10, 20] {
                    let story = group.story(id).suffix(3)
                    isShort = isShort && story.first == "Heartbeat to group leader 30 failed"
                    #expect(story.last == "Election completed. Group Leader: 20")
                    #expect(group.lines(id, "Heartbeat to group leader").count == 1)
                }
                let elections = [
                    group.lines(10, "10 is running an election initiated by 0"),
                    group.lines(20, "20 is running an election initiated by"),
                ]
                isShort = isShort && elections.allSatisfy { $0.count == 2 }
                isShort = isShort && group.lines(10, "mode is now primary").isEmpty
                if !isShort { said = "\(group.story(10))\n\(group.story(20))" }
                for name in Self.voters { cluster.processes[name]?.terminate() }
                for name in Self.voters { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogs(Self.voters, atLeast: 20, ballots: Self.voters.count)
            }
            return said
        }

        /// Every member knows at once; the leader drops it, and there is nothing to elect.
        @Test func backupIsKilled() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                // Its silence would take a minute.
                try group.start(30, isFirst: true, misses: 600)
                try group.start(10, misses: 600)
                try group.start(20, misses: 600)
                try group.waitFor(leader: 30, members: 3)
                for id in [10, 20, 30] {
                    _ = try cluster.eventually("two links at \(id)") {
                        try cluster.info(group.port(id))["connections"] == "3" ? true : nil
                    }
                }
                _ = try cluster.eventually("20 to know of 10") {
                    group.lines(20, "backup 10 at").isEmpty ? nil : true
                }
                let stories = [20, 30].map { group.story($0) }
                group.kill(10)
                try group.waitFor(leader: 30, members: 2, within: 30)
                _ = try cluster.eventually("30 to know", within: 30) {
                    group.lines(30, "the process of replica 10 ").isEmpty ? nil : true
                }
                _ = try cluster.eventually("20 to know", within: 30) { () -> Bool? in
                    // The leader may have told it before it has seen for itself.
                    let hasSeen = !group.lines(20, "the process of replica 10 ").isEmpty
                    let view = group.lines(20, ": view ").last ?? ""
                    return hasSeen || !view.contains("backup 10 at") ? true : nil
                }
                #expect([20, 30].map { group.story($0) } == stories)
            }
        }

        /// Each with each, by a link and by heartbeats; and none of it is made again and again.
        @Test func allAreConnected() throws {
            try with([20, 10, 40, 30]) { (cluster, group) throws in
                try group.start(20, isFirst: true, misses: 40)
                for id in [10, 40, 30] { try group.start(id, misses: 40) }
                try group.waitFor(leader: 40, members: 4)
                for id in [10, 20, 30, 40] {
                    // Three links, and the one that asks; the heartbeats' are not counted.
                    _ = try cluster.eventually("three links at \(id)") {
                        try cluster.info(group.port(id))["connections"] == "4" ? true : nil
                    }
                }
                let clients = try group.ports.values.map { try RawClient($0) }
                let before = try clients.map { try $0.ask("CLIENT ID") }
                usleep(1_700_000)
                for (port, number) in zip(group.ports.values, before) {
                    guard case .number(let last) = number else { throw Trouble("\(number)") }
                    #expect(try RawClient(port).ask("CLIENT ID") == .number(last + 1))
                }
                // Longer than heartbeat x misses: the backups have heard each other, or the next view
                // would leave some out.
                let view = try cluster.info(group.port(40))["view"].flatMap { Int($0) } ?? 0
                group.kill(40)
                try group.waitFor(leader: 30, members: 3)
                #expect(try cluster.info(group.port(30))["view"] == "\(view + 1)")
            }
        }

        /// Without any client to witness, on one host.
        @Test func fourOfFiveAreKilled() throws {
            let ids = [30, 10, 50, 20, 40]
            try with(ids) { (cluster, group) throws in
                try group.start(30, isFirst: true)
                try group.waitFor(leader: 30, members: 1)
                for id in ids.dropFirst() { try group.start(id) }
                try group.waitFor(leader: 50, members: 5)
                var alive = ids.sorted()
                var opened = 0
                while let leader = alive.popLast() {
                    try group.waitFor(leader: leader, members: alive.count + 1)
                    opened += 1
                    let client = try RawClient(group.port(leader))
                    #expect(try client.ask("VOTE.OPEN q\(opened) ROLL open") == .number(opened))
                    if alive.isEmpty {
                        let list = "\(try client.ask("VOTE.LIST COUNT 100"))"
                        for number in 1...5 { #expect(list.contains("q\(number)"), "\(list)") }
                    } else {
                        group.kill(leader)
                    }
                }
                #expect(opened == 5)
            }
        }

        /// Two of three at once: the last one cannot know what they may have decided without it.
        @Test func twoOfThreeAtOnceIsTooMuch() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(30, isFirst: true)
                try group.start(10)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                let view = try cluster.info(group.port(30))["view"].flatMap { Int($0) } ?? 0
                _ = try cluster.eventually("10 to be in view \(view)") {
                    try cluster.info(group.port(10))["view"] == "\(view)" ? true : nil
                }
                // None sees another's end.
                for id in [10, 20, 30] { group.kill(id, SIGSTOP) }
                group.kill(30)
                group.kill(20)
                group.kill(10, SIGCONT)
                _ = try cluster.eventually("10 to say what it waits for") {
                    let words = "view \(view + 1) needs 2 of 3 electors, 1 answered"
                    return group.lines(10, words).isEmpty ? nil : true
                }
                usleep(500_000)
                #expect(try cluster.info(group.port(10))["mode"] == "backup")
            }
        }

        @Test func stoppedMembersComeBack() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(30, isFirst: true)
                try group.start(10)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                group.kill(10, SIGSTOP)
                try group.waitFor(leader: 30, members: 2)
                // Nobody else has missed a heartbeat for it.
                #expect(group.lines(20, "Heartbeat to group leader").isEmpty)
                group.kill(10, SIGCONT)
                try group.waitFor(leader: 30, members: 3)
                group.kill(30, SIGSTOP)
                try group.waitFor(leader: 20, members: 2)
                let client = try RawClient(group.port(20))
                #expect(try client.ask("VOTE.OPEN meanwhile ROLL open") == .number(1))
                group.kill(30, SIGCONT)
                try group.waitFor(leader: 30, members: 3)
                let list = try RawClient(group.port(30)).ask("VOTE.LIST COUNT 100")
                #expect("\(list)".contains("meanwhile"))
                #expect(group.lines(30, "Group Leader: 20").count == 1)
                #expect(group.story(30).last == "Election completed. Group Leader: 30")
            }
        }

        /// It has no path to the leader, and one to another.
        @Test func whoIsStoppedAloneEndsNobodyElse() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(30, isFirst: true, ["--test-hooks"])
                try group.start(10)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                let client = try RawClient(group.port(10))
                #expect(try client.ask("REPLICA STOP").code == "REDIRECT")
                // The two backups are connected, too.
                _ = try cluster.eventually("two links at 10, its client and who asks") {
                    try cluster.info(group.port(10))["connections"] == "4" ? true : nil
                }
                #expect(try RawClient(group.port(30)).ask("LINK CUT") == .text("OK"))
                _ = try cluster.eventually("10 to be on its own") {
                    try client.ask("REPLICA STOP") == .text("OK") ? true : nil
                }
                #expect(try cluster.waitForExit("s10") == 0)
                usleep(300_000)
                #expect(cluster.processes["s20"]?.isRunning == true, "\(cluster.words)")
                #expect(try RawClient(group.port(30)).ask("LINK HEAL") == .text("OK"))
                try group.waitFor(leader: 30, members: 2)
            }
        }

        /// A replica that does not lead the service says that it is being ended.
        @Test func onlyTheLeaderEndsTheService() throws {
            try with([10]) { (cluster, group) throws in
                try group.start(10, isFirst: true)
                try group.waitFor(leader: 10, members: 1)
                let service = try #require(try cluster.info(group.port(10))["service"])
                let other = try RawClient(group.port(10))
                let hello = [
                    "PEER", "hello", "6", service, "joining", "0.1.aaaa.1.1@127.0.0.1:1", "-",
                    "bully", "-", "-",
                ]
                try other.send(Array(FakeServer.command(hello).utf8))
                // Who is not taken for a replica could not end anything in any case.
                let answer = try other.receive()
                guard case .list(let words) = answer, words.first == .text("PEER") else {
                    throw Trouble("\(answer)")
                }
                try other.send(Array(FakeServer.command(["PEER", "stop"]).utf8))
                usleep(300_000)
                #expect(cluster.processes["s10"]?.isRunning == true, "\(cluster.words)")
                try group.waitFor(leader: 10, members: 1)
            }
        }

        /// The leader that ends in an orderly way is not handed the service back.
        @Test func leaderLeaves() throws {
            try with([10, 20, 30]) { (cluster, group) throws in
                try group.start(30, isFirst: true, Self.votes)
                try group.start(10)
                try group.start(20)
                try group.waitFor(leader: 30, members: 3)
                try startVoters(cluster, group)
                try waitForVotes(cluster)
                let leader = try #require(cluster.processes["s30"])
                leader.terminate()
                #expect(try cluster.waitForExit("s30") == 0)
                // It had not to wait for the time after which it would end in any case.
                #expect(group.lines(30, "without having been let go").isEmpty)
                try group.waitFor(leader: 20, members: 2)
                #expect(group.lines(20, "Group Leader: 20").count == 1)
                try waitForVotes(cluster)
                // It comes back with the command line that it had joined by.
                try group.start(30)
                try group.waitFor(leader: 30, members: 3)
                try waitForVotes(cluster)
                for name in Self.voters { cluster.processes[name]?.terminate() }
                for name in Self.voters { #expect(try cluster.waitForExit(name) == 0) }
                cluster.checkLogs(Self.voters, atLeast: 20, ballots: Self.voters.count)
            }
        }

        @Test func tenthIsRefused() throws {
            let ids = Array(1...10)
            try with(ids) { (cluster, group) throws in
                try group.start(1, isFirst: true)
                for id in ids[1..<9] { try group.start(id) }
                try group.waitFor(leader: 9, members: 9)
                try group.start(10)
                #expect(try cluster.waitForExit("s10") == 69)
                let words = "cannot join: all 9 places of the group are taken"
                #expect(group.lines(10, words).count == 1)
            }
        }

        /// The first hands over to the second, which is leaving as well.
        @Test(arguments: [[10, 20, 30], [20, 30]]) func twoLeaveAtOnce(ids: [Int]) throws {
            try with(ids) { (cluster, group) throws in
                try group.start(30, isFirst: true)
                for id in ids.dropLast() { try group.start(id) }
                try group.waitFor(leader: 30, members: ids.count)
                let client = try RawClient(group.port(30))
                #expect(try client.ask("VOTE.OPEN before ROLL open") == .number(1))
                group.kill(30, SIGTERM)
                group.kill(20, SIGTERM)
                for name in ["s20", "s30"] {
                    #expect(try cluster.waitForExit(name) == 0)
                }
                let whole = cluster.said("s20", "err") + cluster.said("s30", "err")
                #expect(!whole.contains("without having been let go"))
                guard ids.contains(10) else { return }
                try group.waitFor(leader: 10, members: 1)
                let list = try RawClient(group.port(10)).ask("VOTE.LIST COUNT 10")
                #expect("\(list)".contains("before"))
            }
        }

        /// The members that its folder names are asked, where the command line names none.
        @Test func theFirstOneComesBackAfterItHasLeft() throws {
            try with([10, 20]) { cluster, group in
                let data = ["--data", cluster.folder.appending(path: "first").path]
                let first = try group.start(20, isFirst: true, data)
                try group.waitFor(leader: 20, members: 1)
                try group.start(10)
                try group.waitFor(leader: 20, members: 2)
                first.terminate()
                #expect(try cluster.waitForExit("s20") == 0)
                try group.waitFor(leader: 10, members: 1)
                try group.start(20, isFirst: true, data)
                try group.waitFor(leader: 20, members: 2)
            }
        }

        @Test(arguments: [
            ("--primary --join 127.0.0.1:1", "--join makes this server a backup"),
            ("--join 127.0.0.1:1 --peer 127.0.0.1:2", "give one of them"),
            ("--join 127.0.0.1", "addresses HOST:PORT,HOST:PORT are needed"),
            ("--election bully --peer 127.0.0.1:1", "say --primary or --backup, or use --join"),
            ("--election ring", "must be one of sticky, bully"),
            ("--primary --backup", "not both"),
            ("--primary --advertise a:1,b:2", "without blank and comma"),
            ("--primary --advertise b\u{fc}cher:1", "printable ASCII"),
            ("--id 7", "one of --primary, --backup, --join and --election bully is needed"),
        ]) func wrongFlags(flags: String, words: String) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.start("s", "pollsrv", flags.split(separator: " ").map(String.init))
            #expect(try cluster.waitForExit("s") == 64)
            #expect(cluster.said("s", "err").contains(words), "\(cluster.words)")
        }
    }
}
