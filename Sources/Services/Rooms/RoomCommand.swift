package import Wire

/// What can be done to the reservations; a request's command is one of these as bytes.
package enum RoomCommand: Equatable, Sendable {
    case reserve(RoomPlace)
    case delete(RoomPlace)
    /// The catalogue of a service that begins.
    case catalogue(Catalogue)

    /// The lowest tag of a room command; polls have those below.
    static let firstTag: UInt8 = 32
    private static let reserveTag = UInt64(firstTag)
    private static let deleteTag = UInt64(firstTag) + 1
    private static let catalogueTag = UInt64(firstTag) + 2

    package func encode() -> [UInt8] {
        var writer = SnapshotWriter()
        switch self {
        case .reserve(let place):
            writer.add(Self.reserveTag)
            place.write(to: &writer)
        case .delete(let place):
            writer.add(Self.deleteTag)
            place.write(to: &writer)
        case .catalogue(let catalogue):
            writer.add(Self.catalogueTag)
            catalogue.write(to: &writer)
        }
        return writer.bytes
    }

    package init(decoding bytes: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(bytes)
        switch try reader.number() {
        case Self.reserveTag: self = try .reserve(RoomPlace(from: &reader))
        case Self.deleteTag: self = try .delete(RoomPlace(from: &reader))
        case Self.catalogueTag: self = try .catalogue(Catalogue(from: &reader))
        default: throw DecodeError("no room command has this tag")
        }
        guard reader.isAtEnd else { throw DecodeError("bytes behind the command's end") }
    }
}

/// A room at a time of a day, by their names; whether there are such is for `Rooms` to say.
package struct RoomPlace: Equatable, Sendable {
    package var room: [UInt8]
    package var timeslot: [UInt8]
    package var day: [UInt8]

    package init(room: [UInt8], timeslot: [UInt8], day: [UInt8]) {
        self.room = room
        self.timeslot = timeslot
        self.day = day
    }

    func write(to writer: inout SnapshotWriter) {
        writer.add(room)
        writer.add(timeslot)
        writer.add(day)
    }

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        room = try reader.string()
        timeslot = try reader.string()
        day = try reader.string()
    }
}

/// What a client asks of the rooms, as it came: `ROOM.RESERVE SA318 8:30-9:30 Monday`.
package enum RoomRequest: Equatable, Sendable {
    case list(Catalogue.List)
    case check(room: [UInt8])
    case write(RoomCommand)
    case wrongCount

    /// Nil: no verb of the rooms. `verb` is in upper case.
    package init?(verb: String, _ arguments: [[UInt8]]) {
        func isCount(_ count: Int) -> Bool { arguments.count == count }
        func place() -> RoomPlace {
            RoomPlace(room: arguments[0], timeslot: arguments[1], day: arguments[2])
        }
        switch verb {
        case "ROOM.ROOMS": self = isCount(0) ? .list(.rooms) : .wrongCount
        case "ROOM.TIMESLOTS": self = isCount(0) ? .list(.timeslots) : .wrongCount
        case "ROOM.DAYS": self = isCount(0) ? .list(.days) : .wrongCount
        case "ROOM.CHECK": self = isCount(1) ? .check(room: arguments[0]) : .wrongCount
        case "ROOM.RESERVE": self = isCount(3) ? .write(.reserve(place())) : .wrongCount
        case "ROOM.DELETE": self = isCount(3) ? .write(.delete(place())) : .wrongCount
        default: return nil
        }
    }

    package static let wrongCountText = "Inaccurate number of parameters"
}
