import Foundation

/// A relaying client as a stranger would write it from protocol.md alone: it copies what comes as
/// `witness relay` on one connection to the other as `WITNESS relay`, and looks at no more of it
/// than whom it is for. The caller may send commands of its own in between.
final class StrangersRelay: @unchecked Sendable {
    private struct End {
        let fd: Int32
        let instance: [UInt8]
    }

    private var ends: [End] = []
    /// Commands are written whole, one at a time.
    private let writing = NSLock()
    private let counting = NSLock()
    /// Replies on each connection that begin with `+`, `-` or `:`.
    private var counts: [[UInt8: Int]] = [[:], [:]]

    init(_ ports: [UInt16], instance: String) throws {
        for port in ports {
            let fd = try RawClient.connected(port, seconds: 60)
            var reader = Reader(fd: fd)
            Self.write(fd, ["HELLO", "3", "SETNAME", "stranger"].map { Array($0.utf8) })
            guard case .items(let hello) = try reader.value(),
                let key = hello.firstIndex(of: .bytes(Array("instance".utf8))),
                case .bytes(let replica) = hello[key + 1]
            else { throw Trouble("HELLO") }
            Self.write(fd, ["WITNESS", "OFFER", instance].map { Array($0.utf8) })
            ends.append(End(fd: fd, instance: replica))
        }
        for index in ends.indices {
            Thread.detachNewThread { [self] in
                var reader = Reader(fd: ends[index].fd)
                while let value = try? reader.value() { take(value, from: index) }
            }
        }
    }

    deinit { for end in ends { close(end.fd) } }

    /// Ends both connections.
    func hangUp() { for end in ends { shutdown(end.fd, Int32(SHUT_RDWR)) } }

    func count(_ type: Character, at index: Int) -> Int {
        counting.withLock { counts[index][type.asciiValue ?? 0] ?? 0 }
    }

    func send(_ bytes: [UInt8], to index: Int) {
        writing.withLock { Self.write(ends[index].fd, bytes) }
    }

    private func take(_ value: Value, from index: Int) {
        switch value {
        case .reply(let type): counting.withLock { counts[index][type, default: 0] += 1 }
        case .items(let items):
            let words = Array("witness".utf8)
            guard items.count > 4, items[0] == .bytes(words),
                items[1] == .bytes(Array("relay".utf8)),
                let other = ends.firstIndex(where: { items[3] == .bytes($0.instance) })
            else { return }
            let fields = items.dropFirst().map { item -> [UInt8] in
                if case .bytes(let bytes) = item { bytes } else { [] }
            }
            writing.withLock { Self.write(ends[other].fd, [Array("WITNESS".utf8)] + fields) }
        case .bytes: return
        }
    }

    private static func write(_ fd: Int32, _ command: [[UInt8]]) {
        var bytes = Array("*\(command.count)\r\n".utf8)
        for field in command {
            bytes += Array("$\(field.count)\r\n".utf8) + field + [13, 10]
        }
        write(fd, bytes)
    }

    private static func write(_ fd: Int32, _ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { raw in
                Foundation.send(
                    fd, raw.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL)
                )
            }
            guard count > 0 else { return }
            sent += count
        }
    }

    private indirect enum Value: Equatable {
        case reply(UInt8)
        case bytes([UInt8])
        case items([Value])
    }

    private struct Reader {
        let fd: Int32
        var buffer: [UInt8] = []
        var start = 0

        init(fd: Int32) { self.fd = fd }

        mutating func value() throws -> Value {
            let line = try line()
            let count = Int(String(decoding: line.dropFirst(), as: UTF8.self)) ?? 0
            switch line.first {
            case UInt8(ascii: "$"):
                guard count >= 0 else { return .bytes([]) }
                while buffer.count - start < count + 2 { try fill() }
                defer { start += count + 2 }
                return .bytes(Array(buffer[start..<start + count]))
            case UInt8(ascii: "*"), UInt8(ascii: ">"), UInt8(ascii: "%"):
                let total = line.first == UInt8(ascii: "%") ? 2 * count : count
                var items: [Value] = []
                for _ in 0..<max(0, total) { items.append(try value()) }
                return .items(items)
            default: return .reply(line.first ?? 0)
            }
        }

        private mutating func line() throws -> [UInt8] {
            while true {
                if let end = buffer[start...].firstIndex(of: 10) {
                    defer { start = end + 1 }
                    return Array(buffer[start..<end - 1])
                }
                try fill()
            }
        }

        private mutating func fill() throws {
            if start > 0 {
                buffer.removeFirst(start)
                start = 0
            }
            var chunk = [UInt8](repeating: 0, count: 1 << 16)
            let count = recv(fd, &chunk, chunk.count, 0)
            guard count > 0 else { throw Trouble("closed") }
            buffer += chunk[..<count]
        }
    }
}
