import Testing
import Wire

@testable import Client

private let callReserve = "ROOM.RESERVE A 8:30-9:30 Monday"
private let notKnown = "it is not known whether the reservation was carried out"

/// One command after the other, over connections that come and go.
@Suite struct RoomCommandTests {
    @Test func sampleDialogue() throws {
        var stage = RoomStage(source: .terminal)
        try stage.accept(ann)
        #expect(stage.saidAsItStands() == "Next command: ")
        stage.type("rooms")
        #expect(stage.sent() == ["ROOM.ROOMS"])
        #expect(stage.saidAsItStands() == "")
        try stage.reply("A\nB")
        #expect(stage.saidAsItStands() == "(From servers): A\nB\nNext command: ")
        stage.type("rooms")
        #expect(stage.saidAsItStands() == "(From cache): A\nB\nNext command: ")
        stage.type("  ")
        #expect(stage.saidAsItStands() == "Next command: ")
        stage.type("rooms A")
        #expect(stage.sent() == ["ROOM.ROOMS A"])
        try stage.reply("Inaccurate number of parameters")
        #expect(stage.said() == "(From servers): Inaccurate number of parameters\n")
        stage.type("book A")
        #expect(stage.said() == "book: Command unknown\n")
        stage.step(.lineTooLong)
        #expect(stage.trouble == ["a line of more than 4096 bytes is refused"])
        #expect(stage.saidAsItStands() == "Next command: ")
        #expect(stage.sent() == [])
        stage.type("quit\r")
        #expect(stage.saidAsItStands() == "bye\n")
        #expect(stage.ending == .done)
    }

    @Test func endOfInputIsQuit() throws {
        var stage = try RoomStage.settled(source: .terminal)
        stage.step(.inputEnded)
        #expect(stage.saidAsItStands() == "Next command: \nbye\n")
        #expect(stage.ending == .done)
    }

    @Test func oneCommandFromArguments() throws {
        var stage = RoomStage(source: .arguments(["reserve", "Room 1", "8:30-9:30", "Monday"]))
        try stage.accept(ann)
        #expect(
            stage.sent()
                == ["CALL \(stage.session.client) 1 ROOM.RESERVE Room 1 8:30-9:30 Monday"])
        try stage.reply("Reservation confirmed")
        #expect(stage.saidAsItStands() == "(From servers): Reservation confirmed\n")
        #expect(stage.ending == .done)
    }

    @Test func tooFewWordsForAWriteAreNoCall() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A")
        #expect(stage.sent() == ["ROOM.RESERVE A"])
        try stage.reply("Inaccurate number of parameters")
        stage.type("reserve A 8:30-9:30 Monday")
        #expect(stage.sent() == ["CALL \(stage.session.client) 1 \(callReserve)"])
    }

    // MARK: Finding the primary

    @Test func backupNamesThePrimary() throws {
        var stage = RoomStage(servers: [bob])
        try stage.accept(bob)
        #expect(stage.dialed() == [ann])
    }

    /// A server of which nothing but what the protocol promises is known.
    @Test func barestGreetingWillDo() throws {
        var stage = RoomStage(servers: [ann])
        try stage.accept(
            hello: .map([
                RoomStage.text("proto"), .integer(3), RoomStage.text("mode"),
                RoomStage.text("primary"), RoomStage.text("service"), RoomStage.text("x-y"),
            ]))
        stage.type("rooms")
        #expect(stage.sent() == ["ROOM.ROOMS"])
    }

    @Test func backupsOfTheGreetingAreRemembered() throws {
        var stage = RoomStage(servers: [ann])
        try stage.accept(
            hello: .map([
                RoomStage.text("proto"), .integer(3), RoomStage.text("mode"),
                RoomStage.text("primary"), RoomStage.text("view"), .integer(4),
                RoomStage.text("primary"), RoomStage.text(ann.description),
                RoomStage.text("backup"), RoomStage.text(bob.description),
                RoomStage.text("backups"),
                .array([RoomStage.text(bob.description), RoomStage.text(cem.description)]),
            ]))
        try stage.lose()
        try stage.refuse(bob)
        #expect(stage.dialed() == [cem])
    }

    @Test(arguments: [RESPValue.error("NOAUTH"), .simple("OK"), .map([])])
    func whoGreetsOtherwiseIsNotUsed(hello: RESPValue) throws {
        var stage = RoomStage(servers: [ann])
        try stage.accept(hello: hello)
        #expect(stage.link == nil)
        #expect(stage.trouble.count == 1)
    }

    @Test func redirectIsFollowedWithTheSameCall() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        let call = stage.sent()
        try stage.reply(.error("REDIRECT \(cem)"))
        try stage.accept(cem, primary: cem, backup: nil, view: 3)
        #expect(stage.sent() == call)
        try stage.reply("Reservation confirmed")
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        stage.type("delete A 8:30-9:30 Monday")
        let delete = "ROOM.DELETE A 8:30-9:30 Monday"
        #expect(stage.sent() == ["CALL \(stage.session.client) 2 \(delete)"])
    }

    /// Two servers that name each other do not keep a client running.
    @Test func redirectsToAndFroArePaced() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        let start = stage.now
        var place = ann
        for _ in 0..<12 {
            place = place == ann ? bob : ann
            #expect(stage.sent() == ["ROOM.ROOMS"])
            try stage.reply(.error("REDIRECT \(place)"))
            stage.waitForDial()
            try stage.accept(place, primary: place)
        }
        #expect(stage.now - start > 4_000_000_000)
    }

    @Test func backupsThatNameEachOtherArePaced() throws {
        var stage = RoomStage()
        try stage.accept(ann, primary: bob, backup: ann)
        try stage.accept(bob, primary: ann, backup: bob)
        #expect(stage.dialed() == [])
        stage.wait(30)
        #expect(stage.dialed() == [ann])
    }

    @Test func busyServerIsAskedAgainAfterGrowingPauses() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        var pauses: [Int] = []
        for _ in 0..<9 {
            #expect(stage.sent() == ["ROOM.ROOMS"])
            try stage.reply(.error("BUSY"))
            var count = 0
            while stage.session.task?.isSent == false {
                stage.wait(5)
                count += 5
            }
            pauses.append(count)
        }
        #expect((15...30).contains(pauses[0]))
        #expect((750...1_270).contains(pauses[8]))
        #expect(stage.trouble.count == 1)
    }

    @Test func oldViewIsNotFollowed() throws {
        var stage = try RoomStage.settled()
        try stage.lose()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        try stage.lose()
        stage.waitForDial()
        // Ann still thinks that she leads.
        try stage.accept(ann, view: 2)
        stage.type("rooms")
        #expect(stage.sent() == [])
        #expect(stage.dialed() == [bob])
    }

    // MARK: Lost connections

    @Test func retryIsTheSameCall() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        let call = stage.sent()
        #expect(call == ["CALL \(stage.session.client) 1 \(callReserve)"])
        try stage.lose()
        try stage.refuse(bob)
        try stage.accept(ann)
        #expect(stage.sent() == call)
        try stage.reply(.error("TRYAGAIN no primary is known"))
        stage.waitForDial()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        #expect(stage.sent() == call)
        try stage.reply(.error("BUSY"))
        #expect(stage.sent() == [])
        stage.wait(1_300)
        #expect(stage.sent() == call)
        try stage.reply("Reservation confirmed")
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        stage.type("reserve A 8:30-9:30 Monday")
        #expect(stage.sent() == ["CALL \(stage.session.client) 2 \(callReserve)"])
    }

    @Test func silentServerIsLeft() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        _ = stage.sent()
        stage.wait(9_900)
        #expect(stage.dialed() == [])
        stage.wait(200)
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        #expect(stage.sent() == ["ROOM.ROOMS"])
    }

    @Test func dialAndGreetingHaveAnEnd() throws {
        var stage = RoomStage()
        #expect(stage.dialed() == [ann])
        stage.wait(2_000)
        #expect(stage.dialed() == [bob])
        stage.step(.connected(try #require(stage.session.link?.id)))
        stage.wait(2_000)
        stage.wait(50)
        #expect(stage.dialed() == [ann])
    }

    @Test func noServerIsSaidOnceAndWaitedFor() throws {
        var stage = RoomStage()
        stage.type("rooms")
        var dials: [UInt64] = []
        while stage.now < 41_000_000_000 {
            for address in stage.dialed() {
                if address == ann { dials.append(stage.now) }
                stage.step(
                    .closed(
                        try #require(stage.session.link?.id), reason: "connect: Connection refused")
                )
            }
            stage.wait(10)
        }
        #expect(stage.trouble.count == 1)
        #expect(stage.trouble.first?.contains("\(bob): connect: Connection refused") == true)
        #expect(stage.news.count == 1)
        let gaps = zip(dials, dials.dropFirst()).map { ($1 - $0) / 1_000_000 }
        #expect(gaps.first.map { $0 <= 40 } == true)
        #expect(gaps.dropFirst(8).allSatisfy { (750...1_270).contains($0) })
        stage.waitForDial()
        if stage.session.link?.aliases == [bob] { try stage.refuse(bob) }
        stage.waitForDial()
        try stage.accept(ann)
        #expect(stage.sent() == ["ROOM.ROOMS"])
        try stage.reply("A")
        #expect(stage.said() == "(From servers): A\n")
        #expect(stage.news.last == "connected to \(ann), the primary")
        // Another outage is said again.
        try stage.lose()
        stage.type("rooms")
        for _ in 0..<40 {
            stage.waitForDial()
            try stage.refuse(try #require(stage.session.link?.aliases.first))
        }
        #expect(stage.trouble.count == 2)
    }

    // MARK: Giving up

    @Test func timeoutNamesServersAndDoubt() throws {
        var stage = try RoomStage.settled(timeoutMilliseconds: 500)
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.lose()
        try stage.refuse(bob)
        stage.wait(499)
        #expect(stage.ending == nil)
        stage.wait(1)
        guard case .unavailable(let text) = stage.ending else {
            Issue.record("ending: \(String(describing: stage.ending))")
            return
        }
        #expect(text.hasPrefix("no answer within 500ms"))
        #expect(text.contains("\(ann)") && text.contains("\(bob)"))
        #expect(text.hasSuffix(notKnown))
    }

    @Test func timeoutBeforeSendingLeavesNoDoubt() throws {
        var stage = RoomStage(timeoutMilliseconds: 500)
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.refuse(ann)
        try stage.refuse(bob)
        stage.wait(500)
        guard case .unavailable(let text) = stage.ending else {
            Issue.record("ending: \(String(describing: stage.ending))")
            return
        }
        #expect(text.hasSuffix("; the reservation was not carried out"))
    }

    /// At a terminal the prompt comes back; the write that was given up keeps its number.
    @Test func nextWriteAfterATimeoutHasAnotherSession() throws {
        var stage = try RoomStage.settled(timeoutMilliseconds: 500, source: .terminal)
        let client = stage.session.client
        stage.type("reserve A 8:30-9:30 Monday")
        #expect(stage.sent() == ["CALL \(client) 1 \(callReserve)"])
        _ = stage.saidAsItStands()
        stage.wait(500)
        #expect(stage.ending == nil)
        #expect(stage.trouble.last?.hasSuffix(notKnown) == true)
        #expect(stage.saidAsItStands() == "Next command: ")
        // What the server may still say to it is not taken for the answer to the next.
        #expect(stage.link == nil)
        stage.type("reserve A 8:30-9:30 Monday")
        stage.waitForDial()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        #expect(stage.session.client != client)
        #expect(stage.sent() == ["CALL \(stage.session.client) 1 \(callReserve)"])
    }

    @Test func forgottenSessionBeginsAnewIfNothingWasSentBefore() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.reply("Reservation confirmed")
        let client = stage.session.client
        stage.type("delete A 8:30-9:30 Monday")
        _ = stage.sent()
        try stage.reply(.error("NOSESSION"))
        #expect(stage.session.client != client)
        let delete = "ROOM.DELETE A 8:30-9:30 Monday"
        #expect(stage.sent() == ["CALL \(stage.session.client) 1 \(delete)"])
    }

    @Test(arguments: ["NOSESSION", "SEQUENCE expected 1"])
    func forgottenRetryIsNotTriedAgain(error: String) throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.reply("Reservation confirmed")
        stage.type("reserve A 8:30-9:30 Friday")
        try stage.lose()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        _ = stage.sent()
        try stage.reply(.error(error))
        #expect(!stage.sent().contains { $0.contains("CALL") })
        guard case .unavailable(let text) = stage.ending else {
            Issue.record("ending: \(String(describing: stage.ending))")
            return
        }
        #expect(text.hasSuffix(notKnown))
    }

    @Test func interruption() throws {
        var idle = try RoomStage.settled(source: .terminal)
        idle.step(.leave)
        #expect(idle.ending == .done)
        var waiting = try RoomStage.settled(source: .terminal)
        waiting.type("reserve A 8:30-9:30 Monday")
        waiting.step(.leave)
        #expect(waiting.ending == .unavailable("interrupted; " + notKnown))
    }

    // MARK: Servers that misbehave

    @Test func secondReplyIsAnErrorAndEndsTheConnection() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.reply("Reservation confirmed")
        try stage.reply("Reservation confirmed")
        #expect(
            stage.trouble
                == ["\(ann) sent a second reply to one request; the connection is made anew"])
        #expect(stage.link == nil)
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        stage.wait(50)
        #expect(stage.dialed() == [bob])
    }

    @Test func secondReplyBehindTheLastIsAnError() throws {
        var stage = RoomStage(source: .arguments(["rooms"]))
        try stage.accept(ann)
        let id = try #require(stage.link)
        try stage.reply("A")
        #expect(stage.ending == .done)
        stage.step(.reply(id, .bulk([65])))
        #expect(stage.trouble.count == 1)
    }

    @Test func repliesThatFitNothingEndTheConnection() throws {
        for value in [RESPValue.null, .integer(1), .array([]), .map([])] {
            var stage = try RoomStage.settled()
            stage.type("reserve A 8:30-9:30 Monday")
            let call = stage.sent()
            try stage.reply(value)
            #expect(stage.trouble.count == 1, "\(value)")
            #expect(stage.link == nil)
            stage.waitForDial()
            try stage.accept(bob, primary: bob, backup: nil, view: 3)
            #expect(stage.sent() == call)
        }
    }

    @Test func garbageEndsTheConnection() throws {
        var stage = try RoomStage.settled()
        stage.type("rooms")
        stage.step(.malformed(try #require(stage.link), DecodeError("bad integer")))
        #expect(stage.trouble.first?.contains("does not speak RESP (bad integer)") == true)
        #expect(stage.link == nil)
        stage.waitForDial()
        try stage.accept(bob, primary: bob, backup: nil, view: 3)
        #expect(stage.sent().last == "ROOM.ROOMS")
    }

    /// The same complaint is made once, until a command was answered.
    @Test func complaintsAreNotRepeated() throws {
        var stage = RoomStage(servers: [ann])
        stage.type("rooms")
        for round in 1...6 {
            stage.waitForDial()
            try stage.accept(ann, backup: nil)
            if round == 4 { try stage.reply("A") }
            if round == 5 { stage.type("timeslots") }
            stage.step(.malformed(try #require(stage.link), DecodeError("bad integer")))
        }
        let complaints = stage.trouble.filter { $0.hasPrefix("\(ann) does not") }
        #expect(complaints.count == 2)
    }

    @Test func refusalIsSaid() throws {
        var stage = try RoomStage.settled(source: .terminal)
        stage.type("rooms")
        try stage.reply(.error("ERR unknown command"))
        #expect(stage.trouble == ["the server refuses: ERR unknown command"])
        #expect(stage.session.isAsking)
    }
}
