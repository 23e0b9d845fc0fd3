package import Linux
package import Wire

/// Why a command got no reply.
package enum CommandFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// The connection was not made, or broke.
    case system(SystemError)
    /// No answer in time: the server hangs, or is overloaded.
    case timedOut(Address)
    /// The server closed the connection before it answered.
    case closed(Address)
    /// Whoever answered does not speak RESP.
    case malformed(Address, DecodeError)

    /// Nobody is there.
    package var isRefused: Bool {
        switch self {
        case .system(let error): error.isRefused
        case .timedOut, .closed, .malformed: false
        }
    }

    package var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .timedOut(let address): "\(address) does not answer"
        case .closed(let address): "\(address) closed the connection without an answer"
        case .malformed(let address, let error):
            "\(address) does not speak RESP (\(error.text)): is it pollsrv?"
        }
    }
}

/// A connection that asks one thing at a time and waits for the answer: for tools and tests. A
/// voter, which must hear pushes at any time, needs an event loop instead.
package struct CommandConnection: ~Copyable {
    package let address: Address
    /// The one of the host's addresses, in digits, at which it was reached.
    package let host: String
    /// What the server said unasked while a reply was awaited, oldest first.
    package private(set) var pushes: [RESPValue] = []

    /// A reader that never takes the pushes must not grow for ever; the oldest go first.
    private static let pushesMax = 4096

    private let socket: FileDescriptor
    private var poller: Poller
    /// Received and not yet taken as a value.
    private var input: [UInt8] = []
    private var chunk = [UInt8](repeating: 0, count: 64 << 10)

    /// Connects, in at most `milliseconds`; a name's addresses are tried one after the other.
    package init(to address: Address, milliseconds: UInt64) throws(CommandFailure) {
        let isNumeric = Resolver.isNumeric(address.host)
        let hosts = isNumeric ? [] : Resolver.addresses(of: address.host)
        // A name that is unknown fails again, and with the reason.
        try self.init(
            to: address, hosts: hosts.isEmpty ? [address.host] : hosts,
            milliseconds: milliseconds)
    }

    /// Precondition: there are hosts.
    init(to address: Address, hosts: [String], milliseconds: UInt64) throws(CommandFailure) {
        let reached = try Self.connect(to: address, hosts, by: Self.deadline(milliseconds))
        poller = try Self.poller(of: reached.socket)
        self.address = address
        host = reached.host
        socket = reached.socket
    }

    private struct Reached: ~Copyable {
        let host: String
        let socket: FileDescriptor
    }

    private static func connect(to address: Address, _ hosts: [String], by deadline: UInt64)
        throws(CommandFailure) -> Reached
    {
        for (index, host) in hosts.dropLast().enumerated() {
            // One that says nothing must leave time for the others.
            let now = Clock.monotonicNanoseconds()
            let share = now + (max(now, deadline) - now) / UInt64(hosts.count - index)
            do throws(CommandFailure) {
                let socket = try connect(to: address, at: host, by: share)
                return Reached(host: host, socket: socket)
            } catch {}
        }
        let last = hosts[hosts.count - 1]
        return Reached(host: last, socket: try connect(to: address, at: last, by: deadline))
    }

    private static func connect(to address: Address, at host: String, by deadline: UInt64)
        throws(CommandFailure) -> FileDescriptor
    {
        let socket: FileDescriptor
        do throws(SystemError) {
            socket = try Sockets.connect(host: host, port: address.port)
        } catch { throw .system(error) }
        var poller = try Self.poller(of: socket)
        while poller.wait(milliseconds: Self.rest(deadline)) == 0 {
            guard Clock.monotonicNanoseconds() < deadline else { throw .timedOut(address) }
        }
        if let error = Sockets.connectError(socket.raw, "\(address)") { throw .system(error) }
        return socket
    }

    private static func poller(of socket: borrowing FileDescriptor) throws(CommandFailure)
        -> Poller
    {
        do throws(SystemError) {
            let poller = try Poller(eventsPerWaitMax: 1)
            try poller.add(socket.raw, read: false, write: true)
            return poller
        } catch { throw .system(error) }
    }

    /// Sends a command and waits for its reply, in all at most `milliseconds`. An error reply is a
    /// reply. After a thrown failure the connection is of no more use.
    package mutating func ask(_ arguments: [String], milliseconds: UInt64) throws(CommandFailure)
        -> RESPValue
    {
        let deadline = Self.deadline(milliseconds)
        var output: [UInt8] = []
        RESP.command(arguments, into: &output)
        try send(output, by: deadline)
        return try reply(by: deadline)
    }

    /// Sends all commands at once and waits for their replies, which come in the same order; in all at
    /// most `milliseconds`.
    package mutating func ask(all commands: [[String]], milliseconds: UInt64)
        throws(CommandFailure) -> [RESPValue]
    {
        let deadline = Self.deadline(milliseconds)
        var output: [UInt8] = []
        for command in commands { RESP.command(command, into: &output) }
        try send(output, by: deadline)
        var replies: [RESPValue] = []
        for _ in commands { replies.append(try reply(by: deadline)) }
        return replies
    }

    /// Gives the pushes that have come and forgets them.
    package mutating func takePushes() -> [RESPValue] {
        defer { pushes = [] }
        return pushes
    }

    private mutating func send(_ output: [UInt8], by deadline: UInt64) throws(CommandFailure) {
        var sent = 0
        while sent < output.count {
            switch IO.send(socket.raw, output, from: sent) {
            case .bytes(let count): sent += count
            case .wouldBlock:
                poller.modify(socket.raw, read: false, write: true)
                try wait(by: deadline)
            case .end: throw .closed(address)
            case .failed(let code): throw .system(SystemError("send", "\(address)", code: code))
            }
        }
    }

    private mutating func reply(by deadline: UInt64) throws(CommandFailure) -> RESPValue {
        poller.modify(socket.raw, read: true, write: false)
        while true {
            while let value = try takeValue() {
                guard case .push = value else { return value }
                if pushes.count == Self.pushesMax { pushes.removeFirst() }
                pushes.append(value)
            }
            let transfer = chunk.withUnsafeMutableBytes { IO.read(socket.raw, into: $0) }
            switch transfer {
            case .bytes(let count): input.append(contentsOf: chunk[..<count])
            case .wouldBlock: try wait(by: deadline)
            case .end: throw .closed(address)
            case .failed(let code): throw .system(SystemError("read", "\(address)", code: code))
            }
        }
    }

    private mutating func takeValue() throws(CommandFailure) -> RESPValue? {
        do throws(DecodeError) {
            guard let (value, next) = try RESPValue.parse(input.span, from: 0) else { return nil }
            input.removeFirst(next)
            return value
        } catch { throw .malformed(address, error) }
    }

    private mutating func wait(by deadline: UInt64) throws(CommandFailure) {
        guard Clock.monotonicNanoseconds() < deadline else { throw .timedOut(address) }
        _ = poller.wait(milliseconds: Self.rest(deadline))
    }

    private static func deadline(_ milliseconds: UInt64) -> UInt64 {
        Clock.monotonicNanoseconds() + milliseconds * 1_000_000
    }

    /// Rounded up: a wait of 0 would spin through the last millisecond.
    private static func rest(_ deadline: UInt64) -> CInt {
        let now = Clock.monotonicNanoseconds()
        return deadline > now ? CInt(clamping: (deadline - now + 999_999) / 1_000_000) : 0
    }
}
