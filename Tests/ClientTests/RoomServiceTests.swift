import Testing
import Wire

@testable import Client

private let callReserve = "ROOM.RESERVE A 8:30-9:30 Monday"
private let notKnown = "it is not known whether the reservation was carried out"

/// Another service in the place of the one that was used: a copy of it, or one with no past.
@Suite struct RoomServiceTests {
    private static let other = ServiceID(high: 9, low: 9)

    /// A write has been sent, and the other service has come instead of its answer. `number`: the
    /// write's in its session.
    private func moved(number: Int = 1) throws -> (stage: RoomStage, call: [String]) {
        var stage = try RoomStage.settled()
        for _ in 1..<number {
            stage.type("reserve A 8:30-9:30 Monday")
            try stage.reply("Reservation confirmed")
        }
        _ = (stage.sent(), stage.said())
        stage.type("reserve A 8:30-9:30 Monday")
        let call = stage.sent()
        #expect(call == ["CALL \(stage.session.client) \(number) \(callReserve)"])
        try stage.lose()
        try stage.refuse(bob)
        try stage.accept(ann, view: 1, service: Self.other)
        return (stage, call)
    }

    /// It may be a copy in which the reservation has been made: then this call is known there.
    @Test(arguments: [1, 2]) func unansweredCallIsSentAsItWas(number: Int) throws {
        let (begun, call) = try moved(number: number)
        var stage = begun
        #expect(stage.news == ["the service was started anew: earlier reservations may be gone"])
        #expect(stage.sent() == call)
        try stage.reply("Reservation confirmed")
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        stage.type("reserve A 8:30-9:30 Monday")
        #expect(stage.sent() == ["CALL \(stage.session.client) \(number + 1) \(callReserve)"])
    }

    /// A service with no past, or a copy from before this session's last calls.
    @Test(arguments: ["NOSESSION", "SEQUENCE expected 2"])
    func unknownSessionIsFollowedByANewOne(error: String) throws {
        let (begun, call) = try moved(number: 3)
        var stage = begun
        #expect(stage.sent() == call)
        let client = stage.session.client
        try stage.reply(.error(error))
        #expect(stage.session.client != client)
        #expect(stage.sent() == ["CALL \(stage.session.client) 1 \(callReserve)"])
        try stage.reply("Reservation confirmed")
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        #expect(stage.trouble == [] && stage.ending == nil)
    }

    /// What was answered by the old service leaves nothing in doubt in the new one. A write that is
    /// new to both comes as the first of a session: sent twice it is still known.
    @Test(arguments: [true, false]) func idleSessionIsFollowedByANewOne(isTyped: Bool) throws {
        var stage = try RoomStage.settled()
        let client = stage.session.client
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.reply("Reservation confirmed")
        try stage.lose()
        // Maybe before the new service is known, but not sent to the old one.
        if isTyped { stage.type("reserve A 8:30-9:30 Monday") }
        try stage.refuse(bob)
        try stage.accept(ann, view: 1, service: Self.other)
        if !isTyped { stage.type("reserve A 8:30-9:30 Monday") }
        #expect(stage.session.client != client)
        let call = ["CALL \(stage.session.client) 1 \(callReserve)"]
        #expect(stage.sent() == call)
        try stage.lose()
        stage.waitForDial()
        try stage.accept(bob, primary: bob, backup: nil, view: 3, service: Self.other)
        #expect(stage.sent() == call)
        _ = stage.said()
        try stage.reply("Reservation confirmed")
        #expect(stage.said() == "(From servers): Reservation confirmed\n")
        #expect(stage.trouble == [] && stage.ending == nil)
    }

    /// Sent twice to the same service: the first of the two may have been carried out.
    @Test func lostHereTooItIsNotTriedUnderAnotherNumber() throws {
        let (begun, call) = try moved(number: 2)
        var stage = begun
        #expect(stage.sent() == call)
        try stage.lose()
        stage.waitForDial()
        try stage.accept(bob, primary: bob, backup: nil, view: 3, service: Self.other)
        #expect(stage.sent() == call)
        try stage.reply(.error("NOSESSION"))
        #expect(stage.sent() == [])
        guard case .unavailable(let text) = stage.ending else {
            Issue.record("ending: \(String(describing: stage.ending))")
            return
        }
        #expect(text.hasSuffix(notKnown))
    }

    /// The new service has a primary that nobody reaches yet.
    @Test func doubtStaysUntilItIsAnswered() throws {
        var stage = try RoomStage.settled()
        stage.type("reserve A 8:30-9:30 Monday")
        try stage.lose()
        try stage.refuse(bob)
        try stage.accept(ann, primary: bob, backup: ann, view: 1, service: Self.other)
        stage.step(.leave)
        #expect(stage.ending == .unavailable("interrupted; " + notKnown))
    }
}
