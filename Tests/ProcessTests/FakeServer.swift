import Foundation

/// A server that says to HELLO that it is a primary, and to all else what a test wants.
final class FakeServer: Sendable {
    let port: UInt16
    private let listener: Int32

    /// `answer` gives the bytes for what came in on the connection of this number, from 1 on; nil:
    /// the connection is closed. `more`: what HELLO is told beside the mode, as RESP; PORT in it is
    /// this server's own.
    init(
        hello more: [(key: String, value: String)] = [("view", ":1")],
        _ answer: @escaping @Sendable (Int, String) -> String?
    ) throws {
        let listener = tcpSocket()
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                bind(listener, raw, length) == 0 && listen(listener, 16) == 0
                    ? getsockname(listener, raw, &length) : -1
            }
        }
        guard status == 0 else { throw Trouble("no port for a server") }
        self.listener = listener
        port = UInt16(bigEndian: address.sin_port)
        let hello = Self.hello(more).replacing("PORT", with: "\(port)")
        Thread.detachNewThread {
            var count = 0
            while true {
                let fd = acceptedSocket(listener)
                guard fd >= 0 else { return }
                count += 1
                let number = count
                Thread.detachNewThread {
                    Self.serve(fd) { $0.contains("HELLO") ? hello : answer(number, $0) }
                }
            }
        }
    }

    /// Takes no more connections.
    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
    }

    /// The arguments of commands that are RESP arrays of bulk strings, all in a row.
    static func words(_ request: String) -> [String] {
        let lines = request.split(separator: "\r\n").map(String.init)
        return lines.filter { !$0.hasPrefix("*") && !$0.hasPrefix("$") }
    }

    static func command(_ words: [String]) -> String {
        "*\(words.count)\r\n" + words.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
    }

    private static func hello(_ more: [(key: String, value: String)]) -> String {
        let fields = [("proto", ":3"), ("mode", "+primary")] + more
        return "%\(fields.count)\r\n"
            + fields.map { key, value in "+\(key)\r\n\(value)\r\n" }.joined()
    }

    private static func serve(_ fd: Int32, _ answer: (String) -> String?) {
        defer { close(fd) }
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(fd, &chunk, chunk.count, 0)
            guard count > 0 else { return }
            let text = String(decoding: chunk[..<count], as: UTF8.self)
            guard let bytes = answer(text).map({ Array($0.utf8) }) else { return }
            guard send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { return }
        }
    }
}
