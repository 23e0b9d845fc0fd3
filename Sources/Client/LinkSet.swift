import Linux
import Wire

/// The connections of a client's event loop, watched by one poller together with whatever else the
/// loop waits for. What happens to them is collected as events, in the order in which it happened.
struct LinkSet: ~Copyable {
    enum Event {
        case connected(LinkID)
        /// The connection, or the try to make one, has ended by itself.
        case closed(LinkID, reason: String)
        /// What came in is no RESP.
        case malformed(LinkID, DecodeError)
        case reply(LinkID, RESPValue)
        case push(LinkID, [RESPValue])
    }

    private(set) var poller: Poller
    private var connections: [Connection] = []
    private var names = HostNames()
    private var areNamesWatched = false
    /// The addresses of connections whose host is being looked up.
    private var resolving: [(link: LinkID, address: Address)] = []
    private var events: [Event] = []
    private var chunk = [UInt8](repeating: 0, count: 16 << 10)

    init() throws(SystemError) {
        poller = try Poller(eventsPerWaitMax: 32)
    }

    /// As `Poller.wait`; each of the ready descriptors that is not the caller's own goes to
    /// `onReady`.
    mutating func wait(milliseconds: CInt) -> Int { poller.wait(milliseconds: milliseconds) }

    mutating func takeEvents() -> [Event] {
        defer { events.removeAll() }
        return events
    }

    static func reason(_ error: SystemError) -> String {
        SystemError(error.call, code: error.code).description
    }

    // MARK: In

    mutating func onReady(_ ready: Poller.Ready) {
        if ready.fd == names.fd {
            for answer in names.take(now: Clock.monotonicNanoseconds()) { onResolved(answer) }
        } else if let connection = connections.first(where: { $0.fd == ready.fd }) {
            if !connection.isConnected {
                onDialed(connection)
            } else {
                onReady(connection, ready)
            }
        }
    }

    private mutating func onDialed(_ connection: Connection) {
        if let error = Sockets.connectError(connection.fd, "") {
            guard connection.tryNext() else {
                drop(connection, Self.reason(error))
                return
            }
            do {
                try poller.add(connection.fd, read: false, write: true)
            } catch {
                drop(connection, Self.reason(error))
            }
            return
        }
        connection.isConnected = true
        poller.modify(connection.fd, read: true, write: false)
        events.append(.connected(connection.id))
    }

    private mutating func onReady(_ connection: Connection, _ ready: Poller.Ready) {
        if ready.canRead {
            let flow = connection.receive(&chunk)
            do {
                // What came before the end still counts.
                while let value = try connection.next() {
                    if case .push(let fields) = value {
                        events.append(.push(connection.id, fields))
                    } else {
                        events.append(.reply(connection.id, value))
                    }
                }
            } catch {
                events.append(.malformed(connection.id, error))
                return
            }
            if case .ended(let reason) = flow {
                drop(connection, reason)
                return
            }
        }
        if ready.canWrite { flush(connection) }
    }

    /// Forgets a connection that has ended by itself.
    private mutating func drop(_ connection: Connection, _ reason: String) {
        forget(connection.id)
        events.append(.closed(connection.id, reason: reason))
    }

    // MARK: Out

    /// Appends to what goes out on a connection; nothing if it is gone.
    func enqueue(_ link: LinkID, _ encode: (inout [UInt8]) -> Void) {
        connections.first { $0.id == link }?.enqueue(encode)
    }

    /// Hands the kernel what it takes.
    mutating func flush() {
        for connection in connections where connection.hasOutput { flush(connection) }
    }

    private mutating func flush(_ connection: Connection) {
        guard connection.isConnected else { return }
        switch connection.flush() {
        case .open:
            guard connection.isWatchedForOutput != connection.hasOutput else { return }
            connection.isWatchedForOutput = connection.hasOutput
            poller.modify(connection.fd, read: true, write: connection.hasOutput)
        case .ended(let reason): drop(connection, reason)
        }
    }

    /// Ends a connection, or the try to make one, without an event.
    mutating func forget(_ id: LinkID) {
        resolving.removeAll { $0.link == id }
        guard let index = connections.firstIndex(where: { $0.id == id }) else { return }
        let connection = connections.remove(at: index)
        poller.remove(connection.fd)
        if !connection.isConnected { names.turn(connection.address.host) }
    }

    // MARK: Dialing

    mutating func dial(_ link: LinkID, _ address: Address) throws(SystemError) {
        let found: [String]?
        do {
            found = try names.addresses(of: address.host, now: Clock.monotonicNanoseconds())
        } catch {
            events.append(.closed(link, reason: Self.reason(error)))
            return
        }
        if let found {
            begin(link, address, hosts: found)
            return
        }
        resolving.append((link, address))
        guard !areNamesWatched, let fd = names.fd else { return }
        try poller.add(fd)
        areNamesWatched = true
    }

    private mutating func onResolved(_ answer: HostNames.Answer) {
        let waiting = resolving.filter { $0.address.host == answer.host }
        resolving.removeAll { $0.address.host == answer.host }
        for item in waiting {
            if answer.addresses.isEmpty {
                events.append(.closed(item.link, reason: "unknown host"))
            } else {
                begin(item.link, item.address, hosts: answer.addresses)
            }
        }
    }

    /// Begins to connect; on this very host that may fail at once.
    private mutating func begin(_ link: LinkID, _ address: Address, hosts: [String]) {
        var rest = hosts[...]
        while !rest.isEmpty {
            do {
                let connection = try Connection(link, address, hosts: Array(rest))
                try poller.add(connection.fd, read: false, write: true)
                connections.append(connection)
                return
            } catch {
                rest = rest.dropFirst()
                if rest.isEmpty { events.append(.closed(link, reason: Self.reason(error))) }
            }
        }
    }
}
