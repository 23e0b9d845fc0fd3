import Services
import Testing
import Wire

@testable import Client

/// When a room client answers by itself, and what it owes the server for it.
@Suite struct RoomCachingTests {
    @Test func invalidationIsAcknowledgedAtOnce() throws {
        var stage = try RoomStage.settled(source: .terminal)
        try stage.cacheA()
        // While somebody may be typing.
        try stage.invalidate(["A", "B"])
        #expect(stage.sent() == ["CLIENT TRACKING ACK A B"])
        try stage.reply(.simple("OK"))
        #expect(stage.said() == "")
        stage.type("check A")
        #expect(stage.sent() == ["ROOM.CHECK A"])
        // What comes behind on the wire is good.
        try stage.cacheable("A")
        try stage.reply("new")
        stage.type("check A")
        #expect(stage.said() == "(From servers): new\n(From cache): new\n")
    }

    @Test func invalidationOfAll() throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        try stage.invalidate(nil)
        #expect(stage.sent() == ["CLIENT TRACKING ACK"])
        try stage.reply(.simple("OK"))
        stage.type("check A")
        #expect(stage.sent() == ["ROOM.CHECK A"])
    }

    @Test func manyKeysNeedManyAcknowledgements() throws {
        var stage = try RoomStage.settled()
        let keys = (1...60).map { "R\($0)" }
        try stage.invalidate(keys)
        let sent = stage.sent()
        #expect(sent.count == 3)
        #expect(sent.allSatisfy { $0.split(separator: " ").count <= 32 })
        #expect(sent.flatMap { $0.split(separator: " ").dropFirst(3).map(String.init) } == keys)
        for _ in sent { try stage.reply(.simple("OK")) }
        #expect(stage.trouble == [])
    }

    /// What came before it is void, and it does not spoil the answer that comes behind it.
    @Test func invalidationBetweenQuestionAndAnswer() throws {
        var stage = try RoomStage.settled()
        stage.type("check A")
        try stage.lease()
        try stage.invalidate(["A"])
        try stage.cacheable("A")
        try stage.reply("new")
        _ = stage.said()
        stage.type("check A")
        #expect(stage.said() == "(From cache): new\n")
        #expect(stage.sent().last == "CLIENT TRACKING ACK A")
    }

    @Test func whatIsNotAnnouncedIsNotCached() throws {
        var stage = try RoomStage.settled()
        for _ in 0..<2 {
            stage.type("check X")
            #expect(stage.sent().contains("ROOM.CHECK X"))
            if stage.session.link?.awaitsLease == true { try stage.lease() }
            try stage.reply("Room X not a valid room")
        }
    }

    // MARK: Leases

    @Test func leaseIsRenewedWhileItIsOfUse() throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        var renewals = 0
        for tick in 0..<12_000 {
            if tick == 5_000 {
                _ = stage.said()
                stage.type("check A")
                #expect(stage.said() == "(From cache): old\n")
            }
            stage.wait(10)
            for command in stage.sent() {
                #expect(command == "CLIENT TRACKING ON LEASE")
                renewals += 1
                try stage.lease()
            }
        }
        // Every third of a second until a minute after the last use.
        #expect((310...335).contains(renewals))
        // Then it was let lapse.
        stage.type("check A")
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
    }

    @Test func lapsedLeaseEmptiesTheCache() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        try stage.reply("A")
        _ = stage.sent()
        try stage.cacheA()
        // The renewal gets no answer.
        stage.wait(400)
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE"])
        stage.wait(474)
        _ = stage.said()
        stage.type("check A")
        #expect(stage.said() == "(From cache): old\n")
        stage.wait(1)
        stage.type("check A")
        // One lease is on its way already.
        #expect(stage.sent() == ["ROOM.CHECK A"])
        try stage.lease()
        try stage.cacheable("A")
        try stage.reply("new")
        #expect(stage.said() == "(From servers): new\n")
        stage.type("check A")
        stage.type("rooms")
        #expect(stage.said() == "(From cache): new\n(From cache): A\n")
        // Counted from when it was asked for, which is long ago.
        stage.wait(399)
        stage.type("check A")
        #expect(stage.said() == "(From cache): new\n")
        stage.wait(1)
        stage.type("check A")
        #expect(stage.said() == "")
    }

    @Test func refusedLeaseIsNotInsistedOn() throws {
        var stage = try RoomStage.settled()
        stage.type("check A")
        _ = stage.sent()
        try stage.reply(.error("BUSY too many"))
        try stage.reply("old")
        #expect(stage.said() == "(From servers): old\n")
        stage.type("check A")
        #expect(stage.sent() == ["ROOM.CHECK A"])
        try stage.reply("old")
        stage.wait(300)
        stage.type("check A")
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
    }

    @Test func leavingReturnsTheLease() throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        stage.type("quit")
        #expect(stage.sent() == ["CLIENT TRACKING OFF"])
    }

    @Test func withoutCacheNothingIsPromised() throws {
        var stage = try RoomStage.settled(isCaching: false)
        for line in ["rooms", "rooms", "check A", "check A"] {
            stage.type(line)
            #expect(stage.sent() == [line == "rooms" ? "ROOM.ROOMS" : "ROOM.CHECK A"])
            try stage.reply("A")
            #expect(stage.said() == "(From servers): A\n")
        }
    }

    // MARK: What empties it

    @Test func ownWriteDropsItsRoom() throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        stage.type("reserve A 8:30-9:30 Monday")
        #expect(stage.session.cache.count == 0)
        try stage.reply("Reservation confirmed")
        _ = stage.sent()
        stage.type("check A")
        #expect(stage.sent() == ["ROOM.CHECK A"])
        // After the answer to the write it may be cached again.
        try stage.cacheable("A")
        try stage.reply("new")
        _ = stage.said()
        stage.type("check A")
        #expect(stage.said() == "(From cache): new\n")
    }

    @Test func newViewEmptiesIt() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        try stage.reply("A")
        _ = stage.sent()
        try stage.cacheA()
        try stage.view(3, ann, nil)
        #expect(stage.dialed() == [])
        _ = stage.said()
        stage.type("rooms")
        #expect(stage.sent() == ["ROOM.ROOMS"])
        try stage.reply("A")
        stage.type("check A")
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
    }

    @Test func newPrimaryIsGoneTo() throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        try stage.view(3, bob, nil)
        #expect(stage.link == nil)
        _ = stage.sent()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        stage.type("check A")
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
    }

    /// The write goes to the new primary as the same CALL.
    @Test func newPrimaryGetsTheWriteThatWaits() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        let call = stage.sent()
        try stage.view(3, bob, nil)
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        #expect(stage.sent() == call)
    }

    @Test func lostConnectionEmptiesIt() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        try stage.reply("A")
        _ = stage.sent()
        try stage.cacheA()
        try stage.lose()
        try stage.refuse(bob)
        try stage.accept(ann)
        stage.type("rooms")
        #expect(stage.sent() == ["ROOM.ROOMS"])
        try stage.reply("A")
        stage.type("check A")
        #expect(stage.sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
    }

    @Test(arguments: [RESPValue.array([]), .array([.integer(1)]), .integer(1)])
    func badInvalidationEndsTheConnection(field: RESPValue) throws {
        var stage = try RoomStage.settled()
        try stage.cacheA()
        try stage.push("invalidate", field)
        #expect(stage.link == nil)
        #expect(stage.session.cache.count == 0)
        #expect(stage.trouble.count == 1)
    }
}
