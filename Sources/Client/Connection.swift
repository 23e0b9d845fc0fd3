import Linux
import Wire

/// One TCP connection of a client and the bytes on their way through it.
final class Connection {
    let id: LinkID
    let address: Address
    private(set) var socket: FileDescriptor
    /// Addresses of the host that are left to be tried, the next one last.
    private var candidates: [String]
    var isConnected = false
    /// Whether the poller is to tell when there is room for output.
    var isWatchedForOutput = false
    private var input: [UInt8] = []
    private var taken = 0
    private var output: [UInt8] = []
    private var sent = 0

    /// A replica that takes in nothing for so long is as good as gone. It is room for all that
    /// another replica may send it through this client at once.
    static let outputBytesMax = 64 << 20

    enum Flow: Equatable {
        case open
        case ended(reason: String)
    }

    /// Begins to connect to the first of `hosts`.
    init(_ id: LinkID, _ address: Address, hosts: [String]) throws(SystemError) {
        self.id = id
        self.address = address
        candidates = Array(hosts.dropFirst().reversed())
        socket = try Sockets.connect(host: hosts.first ?? address.host, port: address.port)
    }

    var fd: CInt { socket.raw }
    var hasOutput: Bool { sent < output.count }

    /// Turns to the next of the host's addresses after one has failed, passing over those that fail
    /// at once, as one of a family that this machine has no route for; false: there is none.
    func tryNext() -> Bool {
        while let host = candidates.popLast() {
            do {
                socket = try Sockets.connect(host: host, port: address.port)
                return true
            } catch {}
        }
        return false
    }

    func enqueue(_ encode: (inout [UInt8]) -> Void) {
        encode(&output)
    }

    /// Hands the kernel what it takes.
    func flush() -> Flow {
        while sent < output.count {
            switch IO.send(fd, output, from: sent) {
            case .bytes(let count): sent += count
            case .wouldBlock:
                guard output.count - sent <= Self.outputBytesMax else {
                    return .ended(reason: "it does not take in what is sent")
                }
                if sent > 64 << 10 {
                    output.removeFirst(sent)
                    sent = 0
                }
                return .open
            case .end: return .ended(reason: "closed by the server")
            case .failed(let code):
                return .ended(reason: SystemError("send", code: code).description)
            }
        }
        output.removeAll(keepingCapacity: output.capacity <= 4096)
        sent = 0
        return .open
    }

    /// Takes in what has come, `chunk` by `chunk` (one for all connections: most have nothing
    /// waiting), at most so much a turn that the others get theirs.
    func receive(_ chunk: inout [UInt8]) -> Flow {
        for _ in 0..<16 {
            switch chunk.withUnsafeMutableBytes({ IO.read(fd, into: $0) }) {
            case .bytes(let count):
                input.append(contentsOf: chunk[..<count])
                if count < chunk.count { return .open }
            case .wouldBlock: return .open
            case .end: return .ended(reason: "closed by the server")
            case .failed(let code):
                return .ended(reason: SystemError("read", code: code).description)
            }
        }
        return .open
    }

    /// The next value that has come as a whole.
    func next() throws(DecodeError) -> RESPValue? {
        guard taken < input.count else { return nil }
        if let (value, end) = try Self.first(input, from: taken) {
            taken = end
            if taken == input.count {
                input.removeAll(keepingCapacity: input.capacity <= 4096)
                taken = 0
            }
            return value
        }
        input.removeFirst(taken)
        taken = 0
        if input.count > RESPValue.bytesMax {
            throw DecodeError("an answer of more than \(RESPValue.bytesMax) bytes")
        }
        return nil
    }

    private static func first(_ bytes: [UInt8], from start: Int) throws(DecodeError)
        -> (value: RESPValue, next: Int)?
    {
        try RESPValue.parse(bytes.span, from: start)
    }
}
