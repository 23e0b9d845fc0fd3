import Foundation
import Testing

extension ProcessSuite {
    /// What a server does for caches, seen by clients that say each word themselves.
    @Suite(.serialized) struct Caches {
        /// A pair, and a way to make connections to its primary that speak RESP3.
        private func withPrimary(
            _ flags: [String] = [],
            _ body: (_ connect: () throws -> RawClient, Cluster) throws -> Void
        ) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(Cluster.quick + flags)
            try cluster.backup()
            try cluster.waitForPair()
            let connect = {
                let client = try RawClient(cluster.ports[0])
                _ = try client.ask("HELLO 3")
                return client
            }
            try body(connect, cluster)
        }

        private func send(_ client: RawClient, _ lines: String...) throws {
            try client.send(Array(lines.map { $0 + "\r\n" }.joined().utf8))
        }

        private func cache(_ client: RawClient, _ room: String) throws {
            try send(client, "CLIENT TRACKING ON LEASE", "ROOM.CHECK \(room)")
            #expect(try client.receive() == .number(1_000))
            #expect(try client.receive() == .push([.text("cacheable"), .text(room)]))
            _ = try client.receive()
        }

        private func invalidate(_ room: String) -> RawClient.Reply {
            .push([.text("invalidate"), .list([.text(room)])])
        }

        /// A stock client is told once that all is void, and not that it is told of nothing from then on.
        @Test func whoTracksIsToldAgainWhenItsServerLeadsAgain() throws {
            try withPrimary { connect, cluster in
                let client = try connect()
                #expect(try client.ask("CLIENT TRACKING ON") == .text("OK"))
                for place in [1, 0] {
                    let former = try RawClient(cluster.ports[1 - place])
                    #expect(try former.ask("REPLICA SWITCHOVER") == .text("OK"))
                    _ = try cluster.eventually("the other to lead") {
                        try cluster.info(cluster.ports[place], seconds: 1)["mode"] == "primary"
                            ? true : nil
                    }
                }
                #expect(try client.ask("ROOM.CHECK SA318") == none)
                let writer = try connect()
                _ = try cluster.eventually("the reservation") {
                    try writer.ask("ROOM.RESERVE SA318 \(slot)") == confirmed ? true : nil
                }
                #expect(try client.receive() == invalidate("SA318"))
            }
        }

        private let confirmed = RawClient.Reply.text("Reservation confirmed")
        private let none = RawClient.Reply.text("No room reservation found")
        private let slot = "8:30-9:30 Monday"

        private struct Round {
            let number: Int
            let room: String
            let other: String
        }

        /// A lease lasts a second, and the machine may take more than that for itself where a client has
        /// to be quick. So there are three rounds, with rooms and connections of their own, and one of
        /// them has to come to what `demand` wants. What must be so in any round is expected as usual.
        private func inOneOfThree(_ body: (Round) throws -> Void) throws {
            let rooms = [("SA318", "SA412"), ("ME4494", "SA314"), ("MC5050", "ME4326")]
            var troubles: [String] = []
            for (number, (room, other)) in rooms.enumerated() {
                do {
                    return try body(Round(number: number, room: room, other: other))
                } catch let trouble as Trouble {
                    troubles.append("\(trouble)")
                }
            }
            Issue.record("not so in any round: \(troubles)")
        }

        private func demand(_ found: RawClient.Reply, _ wanted: RawClient.Reply) throws {
            guard found == wanted else { throw Trouble("\(found), not \(wanted)") }
        }

        private func demand(_ isSo: Bool, _ seconds: Double) throws {
            guard isSo else { throw Trouble("\(seconds) s") }
        }

        /// How long `body` takes, in seconds.
        private func seconds(_ body: () throws -> Void) throws -> Double {
            let start = DispatchTime.now().uptimeNanoseconds
            try body()
            return Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
        }

        /// Its first life has given leases that the second knows nothing of.
        @Test func aRestartedPrimaryWaitsForItsOwnLeases() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.start(0, "primary")
            let port = pair.cluster.ports[0]
            func client() throws -> RawClient {
                try pair.cluster.eventually("the primary") {
                    guard try pair.leader() == 0, let client = try? RawClient(port) else {
                        return nil
                    }
                    _ = try client.ask("HELLO 3")
                    return client
                }
            }
            let room = Ledger.room(0)
            try cache(try client(), room)
            try pair.kill([0])
            let start = DispatchTime.now().uptimeNanoseconds
            try pair.start(0, "primary")
            #expect(try client().ask("ROOM.RESERVE \(room) 8:30-9:30 Monday") == confirmed)
            #expect(DispatchTime.now().uptimeNanoseconds - start >= 1_000_000_000)
        }

        @Test func aReservationWaitsForTheCache() throws {
            try withPrimary { connect, _ in
                try inOneOfThree { round in
                    let (reader, writer, other) = (try connect(), try connect(), try connect())
                    let room = round.room
                    try cache(reader, room)
                    try send(writer, "ROOM.RESERVE \(room) \(slot)", "PING")
                    try demand(reader.receive(), invalidate(room))
                    // Others see it as it was, and nobody may keep that.
                    try demand(other.ask("ROOM.CHECK \(room)"), none)
                    try send(reader, "ROOM.CHECK \(room)")
                    try demand(reader.receive(), none)
                    // What waits for nothing does not wait.
                    #expect(try other.ask("ROOM.RESERVE \(round.other) \(slot)") == confirmed)
                    try send(reader, "CLIENT TRACKING ACK \(room)")
                    #expect(try writer.receive() == confirmed)
                    #expect(try writer.receive() == .text("PONG"))
                    #expect(try reader.receive() == .text("OK"))
                    try send(reader, "ROOM.CHECK \(room)")
                    try demand(reader.receive(), .push([.text("cacheable"), .text(room)]))
                    #expect(try reader.receive() == .text("\(room) \(slot)"))
                }
            }
        }

        @Test func nonsenseBehindAWaitingReservationWaitsToo() throws {
            try withPrimary { connect, _ in
                let (reader, writer) = (try connect(), try connect())
                try cache(reader, "SA318")
                try send(writer, "ROOM.RESERVE SA318 \(slot)", "*x")
                #expect(try writer.receive() == confirmed)
                let error = try writer.receive().description
                #expect(error.hasPrefix("-ERR protocol error"), "\(error)")
                #expect(writer.isClosed())
            }
        }

        @Test func aSilentCacheIsWaitedForUntilItsLeaseEnds() throws {
            try withPrimary { connect, _ in
                try inOneOfThree { round in
                    let (reader, writer) = (try connect(), try connect())
                    try cache(reader, round.room)
                    let time = try seconds { () throws in
                        #expect(try writer.ask("ROOM.RESERVE \(round.room) \(slot)") == confirmed)
                    }
                    // The room was not cached by anybody else.
                    #expect(
                        try writer.ask("ROOM.DELETE \(round.room) \(slot)")
                            == .text("Deletion confirmed"))
                    try demand(time > 0.5, time)
                }
            }
        }

        /// A client that renews and renews, and never says that it has dropped the room.
        @Test func whoNeverAcknowledgesIsWaitedForOnceOnly() throws {
            try withPrimary { connect, _ in
                try inOneOfThree { round in
                    let (reader, writer) = (try connect(), try connect())
                    try cache(reader, round.room)
                    try send(writer, "ROOM.RESERVE \(round.room) \(slot)")
                    try demand(reader.receive(), invalidate(round.room))
                    let time = try seconds { () throws in
                        let code = try reader.ask("CLIENT TRACKING ON LEASE").code
                        guard code == "BUSY" else { throw Trouble("the lease is renewed: \(code)") }
                        #expect(try writer.receive() == confirmed)
                    }
                    try demand(time < 4, time)
                }
            }
        }

        /// What tracked before is told nothing more: RESP2 has no pushes.
        @Test func trackingEndsWithItsProtocol() throws {
            try withPrimary { connect, _ in
                for ending in ["HELLO 2", "RESET", "CLIENT TRACKING OFF"] {
                    let client = try connect()
                    try send(client, "CLIENT TRACKING ON LEASE", ending)
                    _ = try client.receive()
                    _ = try client.receive()
                    #expect(
                        try client.ask("ROOM.CHECK SA318") == .text("No room reservation found"))
                    try send(client, "ROOM.CHECK SA318")
                    #expect(
                        try client.receive() == .text("No room reservation found"), "\(ending)")
                }
            }
        }

        /// Delayed itself, a client still lets others go on.
        @Test func aReplyDelayHoldsUpNoAcknowledgement() throws {
            try withPrimary(["--reply-delay", "1s-1s"]) { connect, cluster in
                try inOneOfThree { round in
                    let (reader, writer) = (try connect(), try RawClient(cluster.ports[0]))
                    Thread.sleep(forTimeInterval: 1.1)
                    try cache(reader, round.room)
                    let time = try seconds { () throws in
                        try send(writer, "ROOM.RESERVE \(round.room) \(slot)")
                        try demand(reader.receive(), invalidate(round.room))
                        try send(reader, "CLIENT TRACKING ACK \(round.room)")
                        #expect(try writer.receive() == confirmed)
                    }
                    try demand(time < 0.7, time)
                }
            }
        }

        /// Each writes what the other has cached.
        @Test func twoThatWaitForEachOtherDoNotWaitForLong() throws {
            try withPrimary { connect, _ in
                try inOneOfThree { round in
                    let (first, second) = (try connect(), try connect())
                    let (one, two) = (round.room, round.other)
                    try cache(first, one)
                    try cache(second, two)
                    let time = try seconds { () throws in
                        try send(first, "ROOM.RESERVE \(two) \(slot)")
                        try demand(second.receive(), invalidate(two))
                        try send(second, "ROOM.RESERVE \(one) \(slot)")
                        try demand(first.receive(), invalidate(one))
                        try send(first, "CLIENT TRACKING ACK \(one)")
                        try send(second, "CLIENT TRACKING ON LEASE", "CLIENT TRACKING ACK \(two)")
                        try demand(first.receive(), confirmed)
                        try demand(first.receive(), .text("OK"))
                        try demand(second.receive(), confirmed)
                        try demand(second.receive(), .number(1_000))
                        try demand(second.receive(), .text("OK"))
                    }
                    try demand(time < 0.5, time)
                }
            }
        }

        @Test func aTakeOverIsFollowedByTheLengthOfALease() throws {
            try withPrimary { _, cluster in
                try inOneOfThree { round in
                    try cluster.waitForPair()
                    let old = round.number % 2
                    let writer = try RawClient(cluster.ports[old])
                    #expect(try writer.ask("REPLICA SWITCHOVER") == .text("OK"))
                    let heir = try RawClient(cluster.ports[1 - old])
                    _ = try cluster.eventually("the heir") {
                        try heir.ask("ROOM.DAYS").code.isEmpty ? true : nil
                    }
                    let time = try seconds { () throws in
                        #expect(try heir.ask("ROOM.RESERVE \(round.room) \(slot)") == confirmed)
                    }
                    #expect(try writer.ask("ROOM.CHECK \(round.room)").code == "REDIRECT")
                    try demand(time > 0.5, time)
                }
            }
        }

        @Test func aStockClientIsToldAfterwards() throws {
            try withPrimary { connect, _ in
                let (reader, writer) = (try connect(), try connect())
                #expect(try reader.ask("CLIENT TRACKING ON") == .text("OK"))
                #expect(try reader.ask("ROOM.CHECK SA318") == .text("No room reservation found"))
                #expect(try writer.ask("ROOM.RESERVE SA318 8:30-9:30 Monday") == confirmed)
                #expect(try reader.receive() == invalidate("SA318"))
                #expect(try reader.ask("CLIENT TRACKING OFF") == .text("OK"))
            }
        }

        /// As by Redis, also of its own changes: it need not look at what it sends.
        @Test(arguments: ["", "CALL 7 1 "]) func aStockClientIsToldOfItsOwnChange(call: String)
            throws
        {
            try withPrimary { connect, _ in
                let (client, other) = (try connect(), try connect())
                #expect(try client.ask("CLIENT TRACKING ON") == .text("OK"))
                #expect(try client.ask("ROOM.CHECK SA318") == .text("No room reservation found"))
                try send(client, call + "ROOM.RESERVE SA318 8:30-9:30 Monday", "PING")
                var heard: [RawClient.Reply] = []
                while heard.last != .text("PONG") { heard.append(try client.receive()) }
                #expect(
                    heard.contains(confirmed) && heard.contains(invalidate("SA318")), "\(heard)")
                #expect(heard.count == 3, "\(heard)")
                _ = try client.ask("ROOM.CHECK SA318")
                #expect(try other.ask("ROOM.RESERVE SA318 9:30-10:30 Monday") == confirmed)
                #expect(try client.receive() == invalidate("SA318"))
            }
        }

        /// The connection that was answered waits, and nobody else.
        @Test func aReplyDelayHoldsUpOneConnection() throws {
            try withPrimary(["--reply-delay", "600ms-700ms"]) { connect, _ in
                try inOneOfThree { _ in
                    let (slow, other) = (try connect(), try connect())
                    let time = try seconds { () throws in
                        #expect(try other.ask("PING") == .text("PONG"))
                    }
                    // Both have had their hello just now.
                    try demand(time > 0.3, time)
                    try send(slow, "PING", "PING")
                    #expect(try slow.receive() == .text("PONG"))
                    let fresh = try seconds { () throws in
                        let third = try connect()
                        try send(third, "QUIT")
                    }
                    try demand(fresh < 0.5, fresh)
                    let second = try seconds { () throws in
                        #expect(try slow.receive() == .text("PONG"))
                    }
                    try demand(second > 0.3, second)
                }
            }
        }

        @Test func wrongUseIsNamed() throws {
            try withPrimary { connect, cluster in
                let client = try connect()
                #expect(try client.ask("CLIENT TRACKING").code == "ERR")
                #expect(try client.ask("CLIENT TRACKING MAYBE").code == "ERR")
                #expect(try client.ask("CALL 7 1 ROOM.CHECK SA318").code == "ERR")
                #expect(
                    try client.ask("CALL 7 1 ROOM.RESERVE SA318").description
                        == "Inaccurate number of parameters")
                #expect(try client.ask("CALL 7 1 ROOM.RESERVE SA318 8:30-9:30 Friday") == confirmed)
                #expect(try client.ask("CALL 7 1 ROOM.RESERVE SA318 8:30-9:30 Friday") == confirmed)
                let plain = try RawClient(cluster.ports[0])
                #expect(try plain.ask("CLIENT TRACKING ON").code == "ERR")
                let backup = try RawClient(cluster.ports[1])
                _ = try backup.ask("HELLO 3")
                #expect(try backup.ask("CLIENT TRACKING ON LEASE").code == "REDIRECT")
                #expect(try backup.ask("ROOM.CHECK SA318").code == "REDIRECT")
            }
        }
    }
}
