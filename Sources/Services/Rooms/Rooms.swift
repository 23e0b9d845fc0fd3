package import Wire

/// Which room is reserved at which time of which day.
package struct Rooms: StateMachine {
    package enum Effect: Equatable, Sendable {
        /// A reservation of this room was made or deleted; its place in the catalogue.
        case changed(room: Int)
    }

    package private(set) var catalogue = Catalogue.builtIn
    private var isCatalogueSet = false
    /// A bit for each room, day and slot, in this order of weight.
    private var words: [UInt64] = []
    package private(set) var reservedCount = 0

    package init() { clear() }

    private mutating func clear() {
        let places = catalogue.rooms.count * catalogue.timeslots.count * catalogue.days.count
        words = [UInt64](repeating: 0, count: (places + 63) / 64)
        reservedCount = 0
    }

    // MARK: Questions

    /// The names of one list, one a line.
    package func text(of list: Catalogue.List) -> String {
        catalogue.names(list).map { String(decoding: $0, as: UTF8.self) }.joined(separator: "\n")
    }

    /// The room's reservations, one a line, in the order of days, then slots.
    package func check(_ name: [UInt8]) -> String {
        guard let room = catalogue.room(name) else {
            return "Room \(String(decoding: name, as: UTF8.self)) not a valid room"
        }
        var lines: [String] = []
        let roomText = String(decoding: name, as: UTF8.self)
        for day in catalogue.days.indices {
            for slot in catalogue.timeslots.indices where isReserved(room, slot, day) {
                let slotText = String(decoding: catalogue.timeslots[slot], as: UTF8.self)
                let dayText = String(decoding: catalogue.days[day], as: UTF8.self)
                lines.append("\(roomText) \(slotText) \(dayText)")
            }
        }
        return lines.isEmpty ? "No room reservation found" : lines.joined(separator: "\n")
    }

    package func isReserved(_ room: Int, _ slot: Int, _ day: Int) -> Bool {
        let bit = bit(room, slot, day)
        return words[bit / 64] >> UInt64(bit % 64) & 1 == 1
    }

    private func bit(_ room: Int, _ slot: Int, _ day: Int) -> Int {
        (room * catalogue.days.count + day) * catalogue.timeslots.count + slot
    }

    // MARK: Commands

    package mutating func apply(
        _ command: Span<UInt8>, at context: OpContext, into effects: inout [Effect]
    ) -> Reply {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(command.count)
        for index in command.indices { bytes.append(command[index]) }
        do {
            return try apply(RoomCommand(decoding: bytes), into: &effects)
        } catch {
            return .error("ERR malformed command")
        }
    }

    private mutating func apply(_ command: RoomCommand, into effects: inout [Effect]) -> Reply {
        switch command {
        case .reserve(let place):
            return set(
                true, place, done: "Reservation confirmed", already: "Reservation already exists",
                into: &effects)
        case .delete(let place):
            return set(
                false, place, done: "Deletion confirmed", already: "Reservation did not exist",
                into: &effects)
        case .catalogue(let catalogue):
            // A service's first op; a later one would come from a server that began another.
            guard !isCatalogueSet, reservedCount == 0 else { return .ok }
            self.catalogue = catalogue
            isCatalogueSet = true
            clear()
            return .ok
        }
    }

    private mutating func set(
        _ isReserved: Bool, _ place: RoomPlace, done: String, already: String,
        into effects: inout [Effect]
    ) -> Reply {
        // The replies to calls are kept: none may be as long as somebody likes.
        func invalid(_ name: [UInt8], _ what: String) -> Reply {
            let isLong = name.count > Catalogue.nameBytesMax
            let shown = String(decoding: name.prefix(Catalogue.nameBytesMax), as: UTF8.self)
            return .text("\(shown)\(isLong ? "..." : "") not a valid \(what)")
        }
        guard let room = catalogue.room(place.room) else { return invalid(place.room, "room") }
        guard let slot = catalogue.timeslot(place.timeslot) else {
            return invalid(place.timeslot, "timeslot")
        }
        guard let day = catalogue.day(place.day) else { return invalid(place.day, "day") }
        guard self.isReserved(room, slot, day) != isReserved else { return .text(already) }
        let bit = bit(room, slot, day)
        words[bit / 64] ^= 1 << UInt64(bit % 64)
        reservedCount += isReserved ? 1 : -1
        effects.append(.changed(room: room))
        return .text(done)
    }

    // MARK: Snapshots

    package func snapshot() -> [UInt8] {
        var writer = SnapshotWriter()
        writer.add(isCatalogueSet)
        if isCatalogueSet { catalogue.write(to: &writer) }
        writer.add(words.count)
        for word in words { writer.add(word) }
        return writer.bytes
    }

    package init(snapshot: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(snapshot)
        isCatalogueSet = try reader.flag()
        if isCatalogueSet { catalogue = try Catalogue(from: &reader) }
        clear()
        guard try reader.count() == words.count else {
            throw DecodeError("snapshot of rooms does not fit its catalogue")
        }
        for index in words.indices {
            words[index] = try reader.number()
            reservedCount += words[index].nonzeroBitCount
        }
        let places = catalogue.rooms.count * catalogue.timeslots.count * catalogue.days.count
        guard reader.isAtEnd, places % 64 == 0 || words[words.count - 1] >> UInt64(places % 64) == 0
        else { throw DecodeError("snapshot of rooms does not add up") }
    }
}
