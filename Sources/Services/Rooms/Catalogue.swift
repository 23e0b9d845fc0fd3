package import Wire

/// What can be reserved: rooms, time slots and days, each in the order in which answers list them.
package struct Catalogue: Equatable, Sendable {
    package enum List: String, CaseIterable, Sendable {
        case rooms
        case timeslots
        case days
    }

    package let rooms: [[UInt8]]
    package let timeslots: [[UInt8]]
    package let days: [[UInt8]]
    /// Only looked up, never walked.
    private let roomPlaces: [[UInt8]: Int]
    private let timeslotPlaces: [[UInt8]: Int]
    private let dayPlaces: [[UInt8]: Int]

    package static let nameBytesMax = 64
    /// Rooms times slots times days: what the table of reservations holds, a bit each.
    package static let placesMax = 1 << 24
    package static let namesMax = 4_096
    /// An answer to `check` is one reply, and is made in one go.
    package static let answerBytesMax = 1 << 20

    /// Says what is wrong, without naming a file: nil if nothing is.
    package static func problem(with name: [UInt8]) -> String? {
        if name.isEmpty { return "an empty name" }
        guard name.count <= nameBytesMax, name.allSatisfy({ $0 > 32 && $0 != 127 }) else {
            return "a name has 1 to \(nameBytesMax) bytes and no blanks"
        }
        guard String(validating: name, as: UTF8.self) != nil else { return "a name is UTF-8 text" }
        return nil
    }

    package init(
        rooms: [[UInt8]], timeslots: [[UInt8]], days: [[UInt8]]
    ) throws(DecodeError) {
        self.rooms = rooms
        self.timeslots = timeslots
        self.days = days
        roomPlaces = try Self.places(rooms, "room")
        timeslotPlaces = try Self.places(timeslots, "time slot")
        dayPlaces = try Self.places(days, "day")
        // Each count is small enough for the product.
        guard rooms.count * timeslots.count * days.count <= Self.placesMax else {
            throw DecodeError(
                "\(rooms.count) rooms, \(timeslots.count) time slots and \(days.count) days make "
                    + "more than \(Self.placesMax) places")
        }
        let roomBytes = rooms.map(\.count).max() ?? 0
        let slotBytes = timeslots.reduce(0) { $0 + $1.count }
        let dayBytes = days.reduce(0) { $0 + $1.count }
        let answerBytes =
            timeslots.count * days.count * (roomBytes + 3) + days.count * slotBytes
            + timeslots.count * dayBytes
        guard answerBytes <= Self.answerBytesMax else {
            throw DecodeError(
                "a room's reservations could make an answer of \(answerBytes) bytes, more than "
                    + "\(Self.answerBytesMax): fewer days or slots, or shorter names, are needed")
        }
    }

    private static func places(_ names: [[UInt8]], _ what: String) throws(DecodeError)
        -> [[UInt8]: Int]
    {
        guard !names.isEmpty else { throw DecodeError("no \(what)") }
        guard names.count <= namesMax else {
            throw DecodeError("more than \(namesMax) names of a \(what)")
        }
        var places: [[UInt8]: Int] = [:]
        for (place, name) in names.enumerated() {
            if let problem = problem(with: name) { throw DecodeError("\(what): \(problem)") }
            guard places.updateValue(place, forKey: name) == nil else {
                throw DecodeError("\(what) '\(String(decoding: name, as: UTF8.self))' twice")
            }
        }
        return places
    }

    /// What a service has that is not told otherwise.
    package static let builtIn: Catalogue = {
        func names(_ text: String) -> [[UInt8]] {
            text.split(separator: " ").map { Array($0.utf8) }
        }
        let slots = (8..<17).map { "\($0):30-\($0 + 1):30" } + ["17:30-19:00", "19:30-21:00"]
        do throws(DecodeError) {
            return try Catalogue(
                rooms: names("SA318 ME4494 SA314 MC5050 ME4326 SA412"),
                timeslots: slots.map { Array($0.utf8) },
                days: names("Monday Tuesday Wednesday Thursday Friday"))
        } catch {
            preconditionFailure("the built-in catalogue: \(error.text)")
        }
    }()

    package func names(_ list: List) -> [[UInt8]] {
        switch list {
        case .rooms: rooms
        case .timeslots: timeslots
        case .days: days
        }
    }

    /// Names match whole, and in their own case.
    package func room(_ name: [UInt8]) -> Int? { roomPlaces[name] }
    package func timeslot(_ name: [UInt8]) -> Int? { timeslotPlaces[name] }
    package func day(_ name: [UInt8]) -> Int? { dayPlaces[name] }

    func write(to writer: inout SnapshotWriter) {
        for list in [rooms, timeslots, days] {
            writer.add(list.count)
            for name in list { writer.add(name) }
        }
    }

    init(from reader: inout SnapshotReader) throws(DecodeError) {
        func names() throws(DecodeError) -> [[UInt8]] {
            var list: [[UInt8]] = []
            for _ in 0..<(try reader.count()) { list.append(try reader.string()) }
            return list
        }
        try self.init(rooms: names(), timeslots: names(), days: names())
    }
}
