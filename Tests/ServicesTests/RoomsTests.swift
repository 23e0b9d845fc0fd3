import Services
import Testing
import Wire

/// The reservations as a state machine: texts, order, names, snapshots.
@Suite final class RoomsTests {
    private var rooms = Rooms()
    private var effects: [Rooms.Effect] = []

    private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    private static func place(_ words: String) -> RoomPlace {
        let names = words.split(separator: " ").map { bytes(String($0)) }
        return RoomPlace(room: names[0], timeslot: names[1], day: names[2])
    }

    private func apply(_ command: RoomCommand) -> Reply {
        let context = OpContext(view: ViewNumber(1), op: OpNumber(1), time: 0)
        return rooms.apply(command.encode().span, at: context, into: &effects)
    }

    private func reserve(_ words: String) -> Reply { apply(.reserve(Self.place(words))) }
    private func delete(_ words: String) -> Reply { apply(.delete(Self.place(words))) }
    private func check(_ room: String) -> String { rooms.check(Self.bytes(room)) }

    @Test func builtInLists() {
        #expect(rooms.text(of: .rooms) == "SA318\nME4494\nSA314\nMC5050\nME4326\nSA412")
        #expect(rooms.text(of: .days) == "Monday\nTuesday\nWednesday\nThursday\nFriday")
        #expect(
            rooms.text(of: .timeslots)
                == "8:30-9:30\n9:30-10:30\n10:30-11:30\n11:30-12:30\n12:30-13:30\n13:30-14:30\n"
                + "14:30-15:30\n15:30-16:30\n16:30-17:30\n17:30-19:00\n19:30-21:00")
    }

    @Test func reservesOnceAndDeletesOnce() {
        #expect(check("SA318") == "No room reservation found")
        #expect(reserve("SA318 8:30-9:30 Monday") == .text("Reservation confirmed"))
        #expect(reserve("SA318 8:30-9:30 Monday") == .text("Reservation already exists"))
        #expect(effects == [.changed(room: 0)])
        #expect(check("SA318") == "SA318 8:30-9:30 Monday")
        #expect(check("SA314") == "No room reservation found")
        #expect(delete("SA318 8:30-9:30 Monday") == .text("Deletion confirmed"))
        #expect(delete("SA318 8:30-9:30 Monday") == .text("Reservation did not exist"))
        #expect(check("SA318") == "No room reservation found")
        #expect(effects == [.changed(room: 0), .changed(room: 0)])
    }

    @Test func checksInTheOrderOfDaysThenSlots() {
        for words in [
            "ME4326 19:30-21:00 Monday", "ME4326 8:30-9:30 Friday", "ME4326 8:30-9:30 Monday",
            "ME4326 9:30-10:30 Tuesday",
        ] { _ = reserve(words) }
        #expect(
            check("ME4326")
                == "ME4326 8:30-9:30 Monday\nME4326 19:30-21:00 Monday\n"
                + "ME4326 9:30-10:30 Tuesday\nME4326 8:30-9:30 Friday")
    }

    @Test func namesMatchWhole() {
        #expect(check("SA3") == "Room SA3 not a valid room")
        #expect(check("sa318") == "Room sa318 not a valid room")
        #expect(reserve("SA31 8:30-9:30 Monday") == .text("SA31 not a valid room"))
        #expect(reserve("SA318 8:30 Monday") == .text("8:30 not a valid timeslot"))
        #expect(reserve("SA318 8:30-9:30 Mon") == .text("Mon not a valid day"))
        #expect(delete("X Y Z") == .text("X not a valid room"))
        // The replies to calls are kept.
        let long = String(repeating: "x", count: 65)
        #expect(delete("\(long) Y Z") == .text("\(long.dropLast())... not a valid room"))
        #expect(effects.isEmpty)
    }

    @Test func snapshotsCarryEverything() throws {
        let catalogue = try Catalogue(
            rooms: (0..<70).map { Self.bytes("r\($0)") }, timeslots: [Self.bytes("t")],
            days: [Self.bytes("d")])
        #expect(apply(.catalogue(catalogue)) == .ok)
        _ = reserve("r0 t d")
        _ = reserve("r69 t d")
        let copy = try Rooms(snapshot: rooms.snapshot())
        #expect(copy == rooms)
        #expect(copy.check(Self.bytes("r69")) == "r69 t d")
        // One more bit than there are places.
        var snapshot = rooms.snapshot()
        snapshot[snapshot.count - 1] = 0x7f
        #expect(throws: DecodeError.self) { try Rooms(snapshot: snapshot) }
    }

    @Test func catalogueIsSetOnceAndFirst() throws {
        let one = try Catalogue(
            rooms: [Self.bytes("A")], timeslots: [Self.bytes("t")], days: [Self.bytes("d")])
        _ = reserve("SA318 8:30-9:30 Monday")
        _ = apply(.catalogue(one))
        #expect(rooms.text(of: .days).hasPrefix("Monday"))
        rooms = Rooms()
        _ = apply(.catalogue(one))
        #expect(rooms.text(of: .rooms) == "A")
        _ = apply(.catalogue(.builtIn))
        #expect(rooms.text(of: .rooms) == "A")
    }

    @Test(arguments: [
        (["A", "A"], ["t"]), ([], ["t"]), (["A"], []), (["A B"], ["t"]), ([""], ["t"]),
        ([String(repeating: "x", count: 65)], ["t"]),
    ]) func catalogueRefuses(rooms: [String], slots: [String]) {
        #expect(throws: DecodeError.self) {
            try Catalogue(
                rooms: rooms.map(Self.bytes), timeslots: slots.map(Self.bytes),
                days: [Self.bytes("d")])
        }
    }

    @Test func requestsAreToldApart() {
        let room = Self.bytes("A")
        #expect(RoomRequest(verb: "ROOM.ROOMS", []) == .list(.rooms))
        #expect(RoomRequest(verb: "ROOM.ROOMS", [room]) == .wrongCount)
        #expect(RoomRequest(verb: "ROOM.CHECK", [room]) == .check(room: room))
        #expect(RoomRequest(verb: "ROOM.CHECK", []) == .wrongCount)
        #expect(RoomRequest(verb: "ROOM.RESERVE", [room, room]) == .wrongCount)
        #expect(RoomRequest(verb: "ROOM.BURN", [room]) == nil)
    }

    @Test func malformedCommandsChangeNothing() {
        var rooms = Rooms()
        var effects: [Rooms.Effect] = []
        let context = OpContext(view: ViewNumber(1), op: OpNumber(1), time: 0)
        for bytes: [UInt8] in [[32], [32, 1], [33, 0, 0], [40], [34, 0]] {
            let reply = rooms.apply(bytes.span, at: context, into: &effects)
            #expect(reply == .error("ERR malformed command"))
        }
        #expect(rooms == Rooms() && effects.isEmpty)
    }

    @Test func servicesShareOneHistory() throws {
        var services = ServiceSet()
        var effects: [ServiceSet.Effect] = []
        let context = OpContext(view: ViewNumber(1), op: OpNumber(1), time: 0)
        let reserve = RoomCommand.reserve(Self.place("SA318 8:30-9:30 Monday")).encode()
        let open = PollCommand.open(VoteTerms(question: [])).encode()
        _ = services.apply(reserve.span, at: context, into: &effects)
        _ = services.apply(open.span, at: context, into: &effects)
        #expect(effects == [.rooms(.changed(room: 0)), .polls(.opened(1))])
        let copy = try ServiceSet(snapshot: services.snapshot())
        #expect(copy == services && copy.rooms.reservedCount == 1 && copy.polls.openVotes == [1])
    }
}
