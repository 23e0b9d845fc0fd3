package import Wire

/// What a `RoomSession` asks of its shell, to be carried out in the order of the fields.
package struct RoomOutbox: Equatable, Sendable {
    package struct Outgoing: Equatable, Sendable {
        package let link: LinkID
        /// A command and its arguments.
        package let words: [String]
    }

    package struct Dial: Equatable, Sendable {
        package let link: LinkID
        package let address: Address
    }

    /// For people, in the order in which it is to be read.
    package enum Speech: Equatable, Sendable {
        /// To standard output as it stands, with its line ends if any.
        case output(String)
        case notice(Notice)
    }

    package var send: [Outgoing] = []
    package var close: [LinkID] = []
    package var dial: [Dial] = []
    package var say: [Speech] = []
    /// Nothing follows.
    package var ending: Ending?

    package init() {}
}
