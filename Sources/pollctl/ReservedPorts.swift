import Linux
import Wire

/// Free ports of this machine for servers of our own. As long as this lives nobody else is given one,
/// also while a server that had it is dead.
final class ReservedPorts {
    let addresses: [Address]
    private let sockets: [CInt]

    init(_ count: Int) throws(Failure) {
        var sockets: [CInt] = []
        for _ in 0..<count {
            let socket = try io { () throws(SystemError) in try Sockets.reserve(host: "127.0.0.1") }
            sockets.append(socket.release())
        }
        self.sockets = sockets
        addresses = sockets.map { Address(host: "127.0.0.1", port: Sockets.localPort($0)) }
    }

    deinit {
        for socket in sockets { _ = FileDescriptor(owning: socket) }
    }
}
