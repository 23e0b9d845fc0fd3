package import Wire

/// How a voter's run ends.
package enum Ending: Equatable, Sendable {
    case done
    /// The service will not have this voter.
    case unavailable(String)
    /// The log cannot be what it must be.
    case io(String)
}

/// A message for people, on standard error.
package enum Notice: Equatable, Sendable {
    /// Something went wrong: always said.
    case trouble(String)
    /// Said unless quiet.
    case news(String)
    /// Said only when verbose.
    case detail(String)
}

/// What the session asks of its shell, to be carried out in the order of the fields.
package struct VoterOutbox: Equatable, Sendable {
    package struct Outgoing: Equatable, Sendable {
        package var link: LinkID
        package var command: VoterCommand

        package init(_ link: LinkID, _ command: VoterCommand) {
            self.link = link
            self.command = command
        }
    }

    package struct Dial: Equatable, Sendable {
        package var link: LinkID
        package var address: Address

        package init(_ link: LinkID, _ address: Address) {
            self.link = link
            self.address = address
        }
    }

    package var send: [Outgoing] = []
    /// Connections, or tries to connect, that are of no use any more; what was sent on them before
    /// should still go out if the kernel takes it at once.
    package var close: [LinkID] = []
    package var dial: [Dial] = []
    /// Results for the log, in order, each to be answered by `logged` or `logFailed`.
    package var append: [PollResult] = []
    /// Text for standard output as it stands, with its line ends.
    package var show: [String] = []
    package var notices: [Notice] = []
    /// Flush and go; nothing follows. But `logFailed` is still taken, and makes it another ending.
    package var ending: Ending?

    package init() {}

    package mutating func removeAll() {
        self = Self()
    }
}
