import Linux
package import Wire

/// Asks another server something before this one runs, and waits for it.
package enum PeerProbe {
    /// The number of the view that the server at `address` is in; nil: nobody answers within
    /// `milliseconds`, or one of another service, or one that is in no view.
    package static func view(of service: ServiceID, at address: Address, milliseconds: UInt64)
        -> ViewNumber?
    {
        let deadline = Clock.monotonicNanoseconds() + milliseconds * 1_000_000
        let hosts =
            Resolver.isNumeric(address.host) ? [address.host] : Resolver.addresses(of: address.host)
        for (index, host) in hosts.enumerated() {
            // One that is silent leaves time for the others.
            let now = Clock.monotonicNanoseconds()
            let share = deadline > now ? (deadline - now) / UInt64(hosts.count - index) : 0
            let place = Address(host: host, port: address.port)
            guard let reply = try? hello(place, now + share),
                reply["service"]?.text == service.description, let number = reply["view"]?.number,
                number > 0
            else { continue }
            return ViewNumber(UInt64(number))
        }
        return nil
    }

    private static func hello(_ address: Address, _ deadline: UInt64) throws -> RESPValue? {
        let socket = try Sockets.connect(host: address.host, port: address.port)
        var poller = try Poller()
        try poller.add(socket.raw, read: false, write: true)
        guard wait(&poller, deadline), Sockets.connectError(socket.raw, "") == nil else {
            return nil
        }
        var hello: [UInt8] = []
        RESP.command(["HELLO"], into: &hello)
        guard case .bytes(hello.count) = IO.send(socket.raw, hello) else { return nil }
        poller.modify(socket.raw, read: true, write: false)
        var reply: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer { chunk.deallocate() }
        while wait(&poller, deadline) {
            guard case .bytes(let count) = IO.read(socket.raw, into: chunk) else {
                return nil
            }
            reply += chunk[..<count]
            if let (value, _) = try RESPValue.parse(reply.span, from: 0) { return value }
            guard reply.count < 64 << 10 else { return nil }
        }
        return nil
    }

    private static func wait(_ poller: inout Poller, _ deadline: UInt64) -> Bool {
        let now = Clock.monotonicNanoseconds()
        guard now < deadline else { return false }
        return poller.wait(milliseconds: CInt((deadline - now + 999_999) / 1_000_000)) > 0
    }
}
