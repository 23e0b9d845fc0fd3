import Foundation

/// A blocking connection that speaks just enough RESP.
final class RawClient {
    indirect enum Reply: Equatable, CustomStringConvertible {
        case text(String)
        case error(String)
        case number(Int)
        case null
        case list([Reply])
        case push([Reply])

        var description: String {
            switch self {
            case .text(let text): text
            case .error(let text): "-\(text)"
            case .number(let number): "\(number)"
            case .null: "null"
            case .list(let items), .push(let items): "\(items)"
            }
        }

        /// The code of an error.
        var code: String {
            guard case .error(let text) = self else { return "" }
            return String(text.prefix { $0 != " " })
        }
    }

    private let fd: Int32
    private var buffer: [UInt8] = []

    init(_ port: UInt16, seconds: Int = 5) throws {
        fd = try Self.connected(port, seconds: seconds)
    }

    static func connected(_ port: UInt16, seconds: Int) throws -> Int32 {
        let fd = tcpSocket()
        var timeout = timeval(tv_sec: seconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, size)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, size)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        address.sin_port = port.bigEndian
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                connect(fd, raw, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else {
            close(fd)
            throw Trouble("connect to \(port): errno \(errno)")
        }
        return fd
    }

    deinit { close(fd) }

    /// Sends an inline command and gives its reply; pushes before it are passed over.
    func ask(_ line: String) throws -> Reply {
        try send(Array((line + "\r\n").utf8))
        while true {
            let reply = try receive()
            if case .push = reply { continue }
            return reply
        }
    }

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { raw in
                Foundation.send(
                    fd, raw.baseAddress?.advanced(by: sent), bytes.count - sent,
                    Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Trouble("send: errno \(errno)") }
            sent += count
        }
    }

    /// The next reply or push.
    func receive() throws -> Reply {
        let line = try line()
        let rest = String(line.dropFirst())
        switch line.first {
        case "+": return .text(rest)
        case "-": return .error(rest)
        case ":": return .number(Int(rest) ?? 0)
        case "_": return .null
        case "$":
            guard let count = Int(rest), count >= 0 else { return .null }
            while buffer.count < count + 2 { try fill() }
            let text = String(decoding: buffer[..<count], as: UTF8.self)
            buffer.removeFirst(count + 2)
            return .text(text)
        case "*", "%", ">":
            let count = (Int(rest) ?? 0) * (line.first == "%" ? 2 : 1)
            var items: [Reply] = []
            for _ in 0..<max(0, count) { items.append(try receive()) }
            return line.first == ">" ? .push(items) : .list(items)
        default: throw Trouble("not RESP: \(line)")
        }
    }

    /// Whether the other end has closed, with nothing left to read.
    func isClosed() -> Bool {
        do {
            try fill()
            return false
        } catch {
            return "\(error)" == "closed"
        }
    }

    private func line() throws -> String {
        while true {
            if let end = buffer.firstIndex(of: 10) {
                let text = String(decoding: buffer[..<(end - 1)], as: UTF8.self)
                buffer.removeFirst(end + 1)
                return text
            }
            try fill()
        }
    }

    private func fill() throws {
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let count = recv(fd, &chunk, chunk.count, 0)
        if count == 0 { throw Trouble("closed") }
        guard count > 0 else {
            throw Trouble(errno == ECONNRESET ? "closed" : "recv: errno \(errno)")
        }
        buffer += chunk[..<count]
    }
}
