import Services

/// The reservations once more, as slow and plain as can be.
struct ModelRooms {
    /// In the order in which they were made.
    private var reserved: [RoomPlace] = []
    /// For each room ever written: what a check has shown from each op on.
    private var texts: [(room: [UInt8], since: [(op: Int, text: String)])] = []

    static let nothing = "No room reservation found"

    /// A command of the log. Only built-in names are used.
    mutating func apply(_ command: RoomCommand, at op: Int) -> String {
        switch command {
        case .reserve(let place):
            guard !reserved.contains(place) else { return "Reservation already exists" }
            reserved.append(place)
            note(place.room, at: op)
            return "Reservation confirmed"
        case .delete(let place):
            guard reserved.contains(place) else { return "Reservation did not exist" }
            reserved.removeAll { $0 == place }
            note(place.room, at: op)
            return "Deletion confirmed"
        case .catalogue: return ""
        }
    }

    private mutating func note(_ room: [UInt8], at op: Int) {
        let days = Catalogue.builtIn.days
        let slots = Catalogue.builtIn.timeslots
        var lines: [String] = []
        for day in days {
            for slot in slots
            where reserved.contains(RoomPlace(room: room, timeslot: slot, day: day)) {
                lines.append(
                    [room, slot, day].map { String(decoding: $0, as: UTF8.self) }
                        .joined(separator: " "))
            }
        }
        let text = lines.isEmpty ? Self.nothing : lines.joined(separator: "\n")
        if let index = texts.firstIndex(where: { $0.room == room }) {
            texts[index].since.append((op, text))
        } else {
            texts.append((room, [(0, Self.nothing), (op, text)]))
        }
    }

    func text(of room: [UInt8]) -> String {
        texts.first { $0.room == room }?.since.last?.text ?? Self.nothing
    }

    /// After which ops, up to `last`, a check of the room has shown this.
    func places(of text: String, in room: [UInt8], last: Int) -> [ClosedRange<Int>] {
        guard let since = texts.first(where: { $0.room == room })?.since else {
            return text == Self.nothing ? [0...last] : []
        }
        var places: [ClosedRange<Int>] = []
        for index in since.indices where since[index].text == text {
            let end = index + 1 < since.count ? since[index + 1].op - 1 : last
            places.append(since[index].op...end)
        }
        return places
    }
}
