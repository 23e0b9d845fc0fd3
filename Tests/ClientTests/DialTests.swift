import Linux
import Testing
import Wire

@testable import Client

/// A name may have several addresses, and the server listen at one of them.
@Suite final class DialTests {
    private let listener: FileDescriptor
    private let address: Address

    init() throws {
        listener = try Sockets.listen(host: "127.0.0.1", port: 0)
        address = Address(host: "a.name", port: Sockets.localPort(listener.raw))
    }

    /// Nobody listens there at this port.
    private static let refusing = "127.0.0.2"
    /// An address that means nothing without the link it is on.
    private static let failingAtOnce = "fe80::1"

    @Test(arguments: [
        [refusing, "127.0.0.1"], [failingAtOnce, "127.0.0.1"],
        [refusing, failingAtOnce, refusing, "127.0.0.1"],
    ])
    func commandsGoToTheAddressThatAnswers(hosts: [String]) throws {
        let connection = try CommandConnection(to: address, hosts: hosts, milliseconds: 5_000)
        let host = connection.host
        #expect(host == "127.0.0.1")
    }

    @Test func noAddressAnswers() throws {
        #expect(throws: CommandFailure.self) {
            _ = try CommandConnection(
                to: address, hosts: [Self.refusing, Self.refusing], milliseconds: 5_000)
        }
    }

    @Test func voterPassesOverWhatFailsAtOnce() throws {
        let hosts = [Self.refusing, Self.failingAtOnce, Self.failingAtOnce, "127.0.0.1"]
        let connection = try Connection(LinkID(1), address, hosts: hosts)
        #expect(try Self.outcome(of: connection)?.isRefused == true)
        let hasNext = connection.tryNext()
        #expect(hasNext)
        #expect(try Self.outcome(of: connection) == nil)
        #expect(!connection.tryNext())
    }

    /// Two tries at one name, the first given up before the name server has answered.
    @Test func aNameThatIsLookedUpSlowly() throws {
        var links = try LinkSet()
        let place = Address(host: "localhost", port: address.port)
        try links.dial(LinkID(1), place)
        links.forget(LinkID(1))
        try links.dial(LinkID(2), place)
        let start = Clock.monotonicNanoseconds()
        var isConnected = false
        while !isConnected {
            try Self.turn(&links)
            for event in links.takeEvents() {
                guard case .connected(LinkID(2)) = event else {
                    Issue.record("\(event)")
                    return
                }
                isConnected = true
            }
            try #require(Clock.monotonicNanoseconds() - start < 60_000_000_000)
        }
    }

    private static func turn(_ links: inout LinkSet) throws {
        let count = links.wait(milliseconds: 100)
        for index in 0..<count { links.onReady(links.poller.ready(at: index)) }
    }

    private static func outcome(of connection: Connection) throws -> SystemError? {
        var poller = try Poller(eventsPerWaitMax: 1)
        try poller.add(connection.fd, read: false, write: true)
        #expect(poller.wait(milliseconds: 5_000) == 1)
        return Sockets.connectError(connection.fd, "")
    }
}
