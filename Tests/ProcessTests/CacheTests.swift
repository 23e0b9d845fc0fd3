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
            try cluster.primary(flags)
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

        private let confirmed = RawClient.Reply.text("Reservation confirmed")

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
                let (reader, writer, other) = (try connect(), try connect(), try connect())
                try cache(reader, "SA318")
                try send(writer, "ROOM.RESERVE SA318 8:30-9:30 Monday", "PING")
                #expect(try reader.receive() == invalidate("SA318"))
                // Others see it as it was, and nobody may keep that.
                #expect(try other.ask("ROOM.CHECK SA318") == .text("No room reservation found"))
                try send(reader, "ROOM.CHECK SA318")
                #expect(try reader.receive() == .text("No room reservation found"))
                // What waits for nothing does not wait.
                #expect(try other.ask("ROOM.RESERVE SA412 8:30-9:30 Monday") == confirmed)
                try send(reader, "CLIENT TRACKING ACK SA318")
                #expect(try writer.receive() == confirmed)
                #expect(try writer.receive() == .text("PONG"))
                #expect(try reader.receive() == .text("OK"))
                try send(reader, "ROOM.CHECK SA318")
                #expect(try reader.receive() == .push([.text("cacheable"), .text("SA318")]))
                #expect(try reader.receive() == .text("SA318 8:30-9:30 Monday"))
            }
        }

        @Test func aSilentCacheIsWaitedForUntilItsLeaseEnds() throws {
            try withPrimary { connect, _ in
                let (reader, writer) = (try connect(), try connect())
                try cache(reader, "SA318")
                let time = try seconds { () throws in
                    #expect(try writer.ask("ROOM.RESERVE SA318 8:30-9:30 Monday") == confirmed)
                }
                #expect(time > 0.5)
                // The room was not cached by anybody else.
                #expect(
                    try writer.ask("ROOM.DELETE SA318 8:30-9:30 Monday").description
                        == "Deletion confirmed")
            }
        }

        /// A client that renews and renews, and never says that it has dropped the room.
        @Test func whoNeverAcknowledgesIsWaitedForOnceOnly() throws {
            try withPrimary { connect, _ in
                let (reader, writer) = (try connect(), try connect())
                try cache(reader, "SA318")
                try send(writer, "ROOM.RESERVE SA318 8:30-9:30 Monday")
                #expect(try reader.receive() == invalidate("SA318"))
                let time = try seconds { () throws in
                    #expect(try reader.ask("CLIENT TRACKING ON LEASE").code == "BUSY")
                    #expect(try writer.receive() == confirmed)
                }
                #expect(time < 4)
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
            try withPrimary(Cluster.quick + ["--reply-delay", "1s-1s"]) { connect, cluster in
                let (reader, writer) = (try connect(), try RawClient(cluster.ports[0]))
                Thread.sleep(forTimeInterval: 1.1)
                try cache(reader, "SA318")
                let time = try seconds { () throws in
                    try send(writer, "ROOM.RESERVE SA318 8:30-9:30 Monday")
                    #expect(try reader.receive() == invalidate("SA318"))
                    try send(reader, "CLIENT TRACKING ACK SA318")
                    #expect(try writer.receive() == confirmed)
                }
                #expect(time < 0.7)
            }
        }

        /// Each writes what the other has cached.
        @Test func twoThatWaitForEachOtherDoNotWaitForLong() throws {
            try withPrimary { connect, _ in
                let (first, second) = (try connect(), try connect())
                try cache(first, "SA318")
                try cache(second, "SA412")
                let time = try seconds { () throws in
                    try send(first, "ROOM.RESERVE SA412 8:30-9:30 Monday")
                    #expect(try second.receive() == invalidate("SA412"))
                    try send(second, "ROOM.RESERVE SA318 8:30-9:30 Monday")
                    #expect(try first.receive() == invalidate("SA318"))
                    try send(first, "CLIENT TRACKING ACK SA318")
                    try send(second, "CLIENT TRACKING ON LEASE", "CLIENT TRACKING ACK SA412")
                    #expect(try first.receive() == confirmed)
                    #expect(try first.receive() == .text("OK"))
                    #expect(try second.receive() == confirmed)
                    #expect(try second.receive() == .number(1_000))
                    #expect(try second.receive() == .text("OK"))
                }
                #expect(time < 0.5)
            }
        }

        @Test func aTakeOverIsFollowedByTheLengthOfALease() throws {
            try withPrimary { connect, cluster in
                let writer = try connect()
                #expect(try writer.ask("REPLICA SWITCHOVER") == .text("OK"))
                let heir = try RawClient(cluster.ports[1])
                _ = try cluster.eventually("the heir", within: 5) {
                    try heir.ask("ROOM.DAYS").code.isEmpty ? true : nil
                }
                let time = try seconds { () throws in
                    #expect(try heir.ask("ROOM.RESERVE SA318 8:30-9:30 Monday") == confirmed)
                }
                #expect(time > 0.5)
                #expect(try writer.ask("ROOM.CHECK SA318").code == "REDIRECT")
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

        /// The connection that was answered waits, and nobody else.
        @Test func aReplyDelayHoldsUpOneConnection() throws {
            try withPrimary(["--reply-delay", "600ms-700ms"]) { connect, _ in
                let (slow, other) = (try connect(), try connect())
                let time = try seconds { () throws in
                    #expect(try other.ask("PING") == .text("PONG"))
                    // Both have had their hello just now.
                }
                #expect(time > 0.3)
                try send(slow, "PING", "PING")
                #expect(try slow.receive() == .text("PONG"))
                let fresh = try seconds { () throws in
                    let third = try connect()
                    try send(third, "QUIT")
                }
                #expect(fresh < 0.5)
                let second = try seconds { () throws in #expect(try slow.receive() == .text("PONG"))
                }
                #expect(second > 0.3)
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
