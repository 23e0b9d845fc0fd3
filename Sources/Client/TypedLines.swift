import Linux

/// Standard input as lines, read without ever keeping the loop waiting. What is typed at a terminal
/// is an answer to what stands there, so it is read at once and dropped if nothing was asked; a
/// file or pipe waits until it is asked for.
struct TypedLines {
    private static let fd: CInt = 0
    private static let lineBytesMax = 64 << 10

    let isTerminal = Terminal.isTerminal(TypedLines.fd)
    private var buffer: [UInt8] = []
    private var hasEnded = false
    private var isWatched = false
    /// Plain files are always ready and refused by epoll.
    private var isPollable = true

    static func isInput(_ fd: CInt) -> Bool { fd == Self.fd }

    /// Watches the input as long as somebody wants to know.
    mutating func watch(_ poller: borrowing Poller, isAsking: Bool) {
        let isWanted = isPollable && !hasEnded && (isAsking || isTerminal)
        guard isWanted != isWatched else { return }
        if isWanted {
            do {
                try poller.add(Self.fd)
            } catch {
                isPollable = false
                return
            }
        } else {
            poller.remove(Self.fd)
        }
        isWatched = isWanted
    }

    /// Reads once; to be called when the input is ready.
    mutating func read() {
        guard !hasEnded else { return }
        var chunk = [UInt8](repeating: 0, count: 4096)
        switch chunk.withUnsafeMutableBytes({ IO.read(Self.fd, into: $0) }) {
        case .bytes(let count):
            buffer.append(contentsOf: chunk[..<count])
            if buffer.count > Self.lineBytesMax, !buffer.contains(UInt8(ascii: "\n")) {
                buffer.removeAll()
            }
        case .wouldBlock: break
        // A terminal that is gone, or standard input closed from the start.
        case .end, .failed: hasEnded = true
        }
    }

    enum Next {
        case line(String)
        case ended
        case nothing
    }

    mutating func next() -> Next {
        while !isPollable, !hasEnded, !buffer.contains(UInt8(ascii: "\n")) { read() }
        if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
            let line = String(decoding: buffer[..<end], as: UTF8.self)
            buffer.removeFirst(end + 1)
            return .line(line)
        }
        guard hasEnded else { return .nothing }
        guard !buffer.isEmpty else { return .ended }
        // The last line of a file need not have an end.
        let line = String(decoding: buffer, as: UTF8.self)
        buffer = []
        return .line(line)
    }
}
