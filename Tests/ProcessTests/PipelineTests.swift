import Foundation
import Testing

extension ProcessSuite {
    /// Commands that are sent without waiting for the replies to those before them, and connections that
    /// are used for one thing after another.
    @Suite(.serialized) struct Pipelines {
        private func withPair(
            _ body: (_ connect: () throws -> RawClient, Cluster) throws -> Void
        ) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary()
            try cluster.backup()
            try cluster.waitForPair()
            try body({ try RawClient(cluster.ports[0], seconds: 20) }, cluster)
        }

        private func send(_ client: RawClient, _ lines: String...) throws {
            try client.send(Array(lines.map { $0 + "\r\n" }.joined().utf8))
        }

        /// An error has its place behind the replies that are owed, and nothing comes behind it.
        @Test func whatIsNoCommandIsAnsweredInItsPlace() throws {
            try withPair { connect, _ in
                let client = try connect()
                try send(client, "VOTE.OPEN q ROLL open", "PING", "*x", "VOTE.OPEN r")
                #expect(try client.receive() == .number(1))
                #expect(try client.receive() == .text("PONG"))
                guard case .error(let text) = try client.receive() else {
                    Issue.record("no error")
                    return
                }
                #expect(text.hasPrefix("ERR protocol error"))
                #expect(client.isClosed())
                let other = try connect()
                guard case .list(let votes) = try other.ask("VOTE.LIST") else {
                    Issue.record("no list")
                    return
                }
                #expect(votes.count == 1)
            }
        }

        /// Who asks for more than it takes is dropped in the middle, and the others have their turn.
        @Test func aFloodLeavesTheOthersTheirTurn() throws {
            try withPair { connect, cluster in
                let flood = try connect()
                let before = try cluster.info(cluster.ports[0])["view"]
                // A turn's worth, answered with some 200 MB.
                try flood.send(Array(String(repeating: "INFO\r\n", count: 150_000).utf8))
                _ = try cluster.eventually("it to be dropped") {
                    cluster.said("primary", "err").contains("does not read") ? true : nil
                }
                let info = try cluster.info(cluster.ports[0])
                #expect(info["view"] == before)
                // Of the processor, so that a machine that stands still does not count.
                let turn = try #require(info["loop_longest_turn_cpu_us"].flatMap { Int($0) })
                #expect(turn < 1_000_000, "\(turn) us")
            }
        }

        @Test func nothingBehindQuitIsCarriedOut() throws {
            try withPair { connect, _ in
                let client = try connect()
                try send(client, "VOTE.OPEN q ROLL open", "QUIT", "VOTE.OPEN r ROLL open")
                #expect(try client.receive() == .number(1))
                #expect(try client.receive() == .text("OK"))
                #expect(client.isClosed())
                #expect(try connect().ask("VOTE.OPEN s ROLL open") == .number(2))
            }
        }

        /// What is asked is answered as it was then, though it is looked up later.
        @Test(arguments: [true, false]) func aReadDoesNotShowWhatComesBehindIt(isPair: Bool) throws
        {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(Cluster.quick + ["--no-restart"])
            if isPair {
                try cluster.backup()
                try cluster.waitForPair()
            }
            _ = try cluster.eventually("a primary") { cluster.leader }
            let client = try RawClient(cluster.ports[0], seconds: 20)
            let ok = RawClient.Reply.text("OK")
            let free = RawClient.Reply.text("No room reservation found")
            let place = "SA318 8:30-9:30 Monday"
            for vote in 1...20 {
                func list(_ state: String, _ ballots: Int) -> RawClient.Reply {
                    .list([.list([.number(vote), .text("q"), .text(state), .number(ballots)])])
                }
                let call = vote % 2 == 0 ? "" : "CALL closer-\(vote) 1 "
                let exchange: [(command: String, reply: RawClient.Reply)] = [
                    ("VOTE.OPEN q ROLL open", .number(vote)), ("VOTE.RESULT \(vote)", .null),
                    ("VOTE.LIST FROM \(vote)", list("open", 0)),
                    ("VOTE.CAST \(vote) ann yes", ok), ("VOTE.LIST FROM \(vote)", list("open", 1)),
                    (call + "VOTE.CLOSE \(vote)", ok),
                    ("VOTE.RESULT \(vote)", .list([.number(vote), .number(1), .number(0)])),
                    ("VOTE.LIST FROM \(vote)", list("closed", 1)), ("ROOM.CHECK SA318", free),
                    ("ROOM.RESERVE \(place)", .text("Reservation confirmed")),
                    ("ROOM.DELETE \(place)", .text("Deletion confirmed")),
                    ("ROOM.CHECK SA318", free),
                ]
                let lines = exchange.map { $0.command + "\r\n" }.joined()
                try client.send(Array(lines.utf8))
                for (command, reply) in exchange {
                    #expect(try client.receive() == reply, "\(command)")
                }
            }
        }

        @Test func joiningAndLeavingAtOnce() throws {
            try withPair { connect, _ in
                let client = try connect()
                try send(client, "VOTE.JOIN ann", "VOTE.JOIN bob")
                #expect(try client.receive() == .text("OK"))
                #expect(try client.receive().code == "ERR")
                #expect(try connect().ask("VOTE.JOIN bob") == .text("OK"))
                let eve = try connect()
                for ending in ["VOTE.LEAVE", "RESET"] {
                    try send(eve, "VOTE.JOIN eve", ending)
                    #expect(try eve.receive() == .text("OK"))
                    #expect(try eve.receive() == .text(ending == "RESET" ? "RESET" : "OK"))
                    // The name is free, though the connection stands.
                    let other = try connect()
                    #expect(try other.ask("VOTE.JOIN eve") == .text("OK"))
                    #expect(try other.ask("VOTE.LEAVE") == .text("OK"))
                }
                // Who leaves and joins at once is on the roll.
                try send(client, "VOTE.LEAVE", "VOTE.JOIN ann", "VOTE.OPEN q")
                #expect(try client.receive() == .text("OK"))
                #expect(try client.receive() == .text("OK"))
                #expect(try client.receive() == .number(1))
                #expect(try client.ask("VOTE.CAST 1 ann yes") == .text("OK"))
            }
        }

        /// A client's connection that said it was a replica's would stay a voter's for ever.
        @Test func aClientDoesNotTurnIntoAReplica() throws {
            try withPair { connect, cluster in
                let client = try connect()
                #expect(try client.ask("VOTE.JOIN ann") == .text("OK"))
                let member = "0.1.aaaa.1.1@127.0.0.1:1"
                let service = try #require(try cluster.info(cluster.ports[0])["service"])
                try send(client, "PEER hello 6 \(service) joining \(member) - sticky - -")
                let words = "-PEER this connection has been a client's"
                #expect(try client.receive().description.hasPrefix(words))
                #expect(client.isClosed())
                #expect(try connect().ask("VOTE.JOIN ann") == .text("OK"))
                let beating = try connect()
                #expect(try beating.ask("VOTE.JOIN bob") == .text("OK"))
                #expect(try beating.ask("BEAT aaaa").description.hasPrefix(words))
                #expect(beating.isClosed())
            }
        }

        /// What was held up on a connection that its client has replaced comes behind what was said on the
        /// new one.
        @Test func anOfferOnAnOlderConnectionIsTooLate() throws {
            try withPair { connect, _ in
                let (older, newer) = (try connect(), try connect())
                for client in [older, newer] { _ = try client.ask("HELLO 3") }
                #expect(try newer.ask("WITNESS OFFER feed") == .text("OK"))
                #expect(try older.ask("WITNESS OFFER feed") == .text("OK"))
                #expect(try older.ask("WITNESS beat 1 0 0").code == "ERR")
                #expect(try newer.ask("WITNESS beat 1 0 0") == .text("OK"))
                let newest = try connect()
                _ = try newest.ask("HELLO 3")
                #expect(try newest.ask("WITNESS OFFER feed") == .text("OK"))
                #expect(try newer.ask("WITNESS beat 1 0 0").code == "ERR")
                #expect(try newest.ask("WITNESS beat 1 0 0") == .text("OK"))
            }
        }

        /// Pushes are for those who have turned them on, and come behind the answer to that.
        @Test func whatIsOwedHasTheFormOfBefore() throws {
            try withPair { connect, _ in
                let first = try connect()
                #expect(try first.ask("VOTE.JOIN ann") == .text("OK"))
                #expect(try first.ask("VOTE.OPEN q") == .number(1))
                #expect(try first.ask("RESET") == .text("RESET"))
                let client = try connect()
                try send(client, "VOTE.JOIN ann", "HELLO 3", "PING")
                #expect(try client.receive() == .text("OK"))
                guard case .list = try client.receive() else {
                    Issue.record("no answer to HELLO")
                    return
                }
                #expect(try client.receive() == .text("PONG"))
            }
        }

        /// Answers that are known and wait behind others take memory.
        @Test func whoIsOwedMuchIsNotRead() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let flags = ["--heartbeat", "1s", "--misses", "600", "--no-restart"]
            try cluster.primary(flags)
            let backup = try cluster.backup(flags)
            try cluster.waitForPair()
            let client = try RawClient(cluster.ports[0], seconds: 3)
            kill(backup.processIdentifier, SIGSTOP)
            defer { kill(backup.processIdentifier, SIGCONT) }
            try send(client, "VOTE.OPEN q ROLL open")
            // More than the kernel takes for a connection that is not read.
            let echo = "ECHO \(String(repeating: "e", count: 60_000))"
            #expect(throws: Trouble.self) { for _ in 0..<1_000 { try send(client, echo) } }
            kill(backup.processIdentifier, SIGCONT)
            #expect(try client.receive() == .number(1))
        }

        /// One word too many, and nothing is done.
        @Test(arguments: ["REPLICA STOP x", "REPLICA SWITCHOVER x", "VOTE.LEAVE bob", "VIEW x"])
        func surplusWordsAreNotPassedOver(line: String) throws {
            try withPair { connect, _ in
                let client = try connect()
                #expect(try client.ask("VOTE.JOIN ann") == .text("OK"))
                #expect(try client.ask(line).code == "ERR")
                #expect(try client.ask("VOTE.OPEN q") == .number(1))
                #expect(try client.ask("VOTE.CAST 1 ann yes") == .text("OK"))
            }
        }

        @Test func aNameWithoutAVersion() throws {
            try withPair { connect, _ in
                let client = try connect()
                guard case .list = try client.ask("HELLO SETNAME bob") else {
                    Issue.record("no answer to HELLO")
                    return
                }
                #expect(try client.ask("CLIENT GETNAME") == .text("bob"))
            }
        }

        @Test func copiesAreMadeOneAtATime() throws {
            try withPair { connect, _ in
                let client = try connect()
                try send(client, "COPY BEGIN", "COPY END")
                #expect(try client.receive().code == "NOCOPY")
                #expect(try client.receive() == .text("OK"))
                let other = try connect()
                guard case .list = try other.ask("COPY BEGIN") else {
                    Issue.record("the copy that was ended is in the way")
                    return
                }
                #expect(try client.ask("COPY BEGIN").code == "BUSY")
            }
        }

        /// One answer may be larger than what may wait for a connection.
        @Test func aLargeAnswerArrives() throws {
            try withPair { connect, _ in
                let client = try connect()
                let question = String(repeating: "q", count: 4_000)
                let count = 2_000
                for first in stride(from: 0, to: count, by: 100) {
                    try client.send(
                        Array(
                            String(
                                repeating: "VOTE.OPEN \(question) ROLL open\r\n", count: 100
                            ).utf8))
                    for vote in first + 1...first + 100 {
                        #expect(try client.receive() == .number(vote))
                    }
                }
                let reader = try connect()
                try send(reader, "VOTE.LIST COUNT 10000", "PING")
                guard case .list(let votes) = try reader.receive() else {
                    Issue.record("no list")
                    return
                }
                #expect(votes.count == count)
                #expect(try reader.receive() == .text("PONG"))
            }
        }

        /// A primary that waits for its backup has no room for more requests at some time. People must
        /// get at it then, and who has given up must not keep its descriptors.
        @Test func aPrimaryThatWaitsCanBeReached() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let primary = try cluster.primary(Cluster.quick + ["--no-restart"])
            let backup = try cluster.backup(Cluster.quick + ["--no-restart"])
            try cluster.waitForPair()
            let port = cluster.ports[0]
            // On one host and without clients there is no majority without it.
            kill(backup.processIdentifier, SIGSTOP)
            defer { kill(backup.processIdentifier, SIGKILL) }
            _ = try cluster.eventually("a stall") {
                try cluster.info(port)["stalled"] == "1" ? true : nil
            }
            func descriptors() throws -> Int {
                try FileManager.default.contentsOfDirectory(
                    atPath: "/proc/\(primary.processIdentifier)/fd"
                ).count
            }
            // The number of a new connection.
            func number() throws -> Int {
                guard case .number(let number) = try RawClient(port).ask("CLIENT ID") else {
                    throw Trouble("CLIENT ID")
                }
                return number
            }
            let before = try descriptors()
            let first = try number()
            for _ in 0..<50 {
                let client = try RawClient(port)
                try send(client, "VOTE.OPEN q ROLL open")
            }
            // Taken in their order: those before it have been, too.
            _ = try cluster.eventually("all connections to be taken") {
                try number() > first + 50 ? true : nil
            }
            _ = try cluster.eventually("the descriptors of those who have gone") {
                try descriptors() <= before + 3 ? true : nil
            }
            let client = try RawClient(port, seconds: 20)
            let command = "VOTE.OPEN \(String(repeating: "q", count: 4_000)) ROLL open\r\n"
            try client.send(Array(String(repeating: command, count: 300).utf8))
            _ = try cluster.eventually("no room") {
                // Each time another one, as its request would wait.
                let other = try RawClient(port, seconds: 1)
                return (try? other.ask("VOTE.OPEN x ROLL open"))?.code == "BUSY" ? true : nil
            }
            let person = try RawClient(port)
            guard case .text = try person.ask("INFO") else {
                Issue.record("no INFO")
                return
            }
            #expect(try person.ask("REPLICA PROMOTE FORCE") == .text("OK"))
            for _ in 0..<300 {
                guard case .number = try client.receive() else {
                    Issue.record("no vote")
                    return
                }
            }
        }

        /// What a backup holds when it takes over may be more than one entry of the journal can have.
        @Test func manyHeldBallots() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin(ledger: false)
            let leader = try pair.leader()
            let (old, new) = (pair.cluster.ports[leader], pair.cluster.ports[1 - leader])
            #expect(try RawClient(old).ask("VOTE.OPEN q ROLL open") == .number(1))
            let count = 80_000
            let backup = try RawClient(new, seconds: 60)
            let tail = String(repeating: "x", count: 50)
            for first in stride(from: 0, to: count, by: 2_000) {
                let casts = (first..<first + 2_000).map { "VOTE.CAST 1 v\($0)\(tail) yes\r\n" }
                try backup.send(Array(casts.joined().utf8))
                for _ in 0..<2_000 { #expect(try backup.receive() == .text("HELD")) }
            }
            try pair.kill([leader])
            let vote =
                [.number(1), .text("q"), .text("open"), .number(count)]
                as [RawClient.Reply]
            _ = try pair.cluster.eventually("all ballots", within: 60) {
                try? RawClient(new).ask("VOTE.LIST") == .list([.list(vote)]) ? true : nil
            }
        }
    }
}
