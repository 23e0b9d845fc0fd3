import Services

/// What people can say to the room client.
package enum RoomVerb: String, CaseIterable, Sendable {
    case rooms
    case timeslots
    case days
    case check
    case reserve
    case delete
    case quit

    package static let wrongCountText = "Inaccurate number of parameters"

    /// The answer to what is none of these.
    package static func unknownText(_ word: String) -> String { "\(word): Command unknown" }

    /// How many words must follow.
    private var parameterCount: Int {
        switch self {
        case .rooms, .timeslots, .days, .quit: 0
        case .check: 1
        case .reserve, .delete: 3
        }
    }
}

/// One command that somebody waits for the answer of.
struct RoomTask: Equatable, Sendable {
    /// As the servers take it, without the head of a CALL.
    let words: [String]
    /// nil where no cache can answer.
    let question: RoomCache.Question?
    /// The room of a write; nil for what changes nothing, a write with too few words included.
    let writtenRoom: String?
    let since: UInt64
    /// The write's place in its session; given when it is first sent.
    var sequence: UInt64?
    /// On the connection that stands, without a reply yet.
    var isSent = false
    /// It may have been carried out although no answer came.
    var isUncertain = false
    /// The same, and by the service that is at hand now, not only by one whose place this one took.
    var isUncertainHere = false
    /// After a refusal that may pass: not before this moment.
    var retryAt: UInt64 = 0

    /// nil for `quit`, and for more words than a server takes.
    init?(_ verb: RoomVerb, _ parameters: [String], since: UInt64) {
        let name: String
        let isWrite: Bool
        var question: RoomCache.Question?
        switch verb {
        case .rooms: (name, isWrite, question) = ("ROOM.ROOMS", false, .rooms)
        case .timeslots: (name, isWrite, question) = ("ROOM.TIMESLOTS", false, .timeslots)
        case .days: (name, isWrite, question) = ("ROOM.DAYS", false, .days)
        case .check:
            (name, isWrite) = ("ROOM.CHECK", false)
            question = parameters.first.map { .check(room: $0) }
        case .reserve: (name, isWrite) = ("ROOM.RESERVE", true)
        case .delete: (name, isWrite) = ("ROOM.DELETE", true)
        case .quit: return nil
        }
        guard parameters.count <= Self.parametersMax else { return nil }
        words = [name] + parameters
        // With a wrong number of words it is still for the servers to say so, but there is nothing
        // that could be carried out, so nothing that must not be carried out twice.
        let isWhole = verb.takes(parameters.count)
        self.question = isWhole ? question : nil
        writtenRoom = isWhole && isWrite ? parameters.first : nil
        self.since = since
    }

    /// A server takes 32 words.
    private static let parametersMax = 28
}

extension RoomVerb {
    func takes(_ count: Int) -> Bool { count == parameterCount }
}
