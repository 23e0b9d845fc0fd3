import Glibc
import Testing

@testable import Linux

@Suite struct SocketsTests {
    /// Neither end waits for ever for a machine that has gone without a word.
    @Test func whoVanishesIsNoticed() throws {
        let listener = try Sockets.listen(host: "127.0.0.1", port: 0)
        let port = Sockets.localPort(listener.raw)
        let dialed = try Sockets.connect(host: "127.0.0.1", port: port)
        var poller = try Poller(eventsPerWaitMax: 1)
        try poller.add(listener.raw)
        let count = poller.wait(milliseconds: 60_000)
        #expect(count == 1)
        let accepted = try Sockets.accept(listener.raw)?.release() ?? -1
        defer { close(accepted) }
        for fd in [dialed.raw, accepted] {
            #expect(Self.option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1)
            #expect(Self.option(fd, CInt(IPPROTO_TCP), 18) == 20_000)
        }
        Sockets.setPatience(accepted, milliseconds: 60_000)
        #expect(Self.option(accepted, CInt(IPPROTO_TCP), 18) == 60_000)
    }

    /// The port is ours: who asks for any gets another, and who listens there can.
    @Test func aReservedPort() throws {
        let place = try Sockets.reserve(host: "127.0.0.1")
        let port = Sockets.localPort(place.raw)
        let listener = try Sockets.listen(host: "127.0.0.1", port: port)
        #expect(Sockets.localPort(listener.raw) == port)
    }

    private static func option(_ fd: CInt, _ level: CInt, _ name: CInt) -> CInt {
        var value: CInt = -1
        var length = socklen_t(MemoryLayout<CInt>.size)
        getsockopt(fd, level, name, &value, &length)
        return value
    }
}
