import Linux

/// Standard input as lines, read without ever keeping the loop waiting.
struct TypedLines {
    static let fd: CInt = 0

    let isTerminal = Terminal.isTerminal(TypedLines.fd)
    /// What is typed as an answer to what stands at the terminal is read at once and dropped if
    /// nothing was asked; all other input waits until it is asked for.
    private let readsAhead: Bool
    private let lineBytesMax: Int
    private var buffer: [UInt8] = []
    /// The beginning of the line in the buffer was too much and is gone; so goes the rest.
    private var isOverflowing = false
    private var hasEnded = false
    private var isWatched = false
    /// Plain files are always ready and refused by epoll.
    private var isPollable = true

    /// Lines of more than `lineBytesMax` bytes, without their end, are not delivered.
    init(readsAhead: Bool, lineBytesMax: Int = 64 << 10) {
        self.readsAhead = readsAhead
        self.lineBytesMax = lineBytesMax
    }

    static func isInput(_ fd: CInt) -> Bool { fd == Self.fd }

    /// Watches the input as long as somebody wants to know. True: it has just shown that it cannot be
    /// waited for, and can be read now.
    @discardableResult
    mutating func watch(_ poller: borrowing Poller, isAsking: Bool) -> Bool {
        let isWanted = isPollable && !hasEnded && (isAsking || readsAhead)
        guard isWanted != isWatched else { return false }
        if isWanted {
            do {
                try poller.add(Self.fd)
            } catch {
                isPollable = false
                return true
            }
        } else {
            poller.remove(Self.fd)
        }
        isWatched = isWanted
        return false
    }

    /// Reads once; to be called when the input is ready.
    mutating func read() {
        guard !hasEnded else { return }
        var chunk = [UInt8](repeating: 0, count: 4096)
        switch chunk.withUnsafeMutableBytes({ IO.read(Self.fd, into: $0) }) {
        case .bytes(let count):
            buffer.append(contentsOf: chunk[..<count])
            if buffer.count > lineBytesMax, !buffer.contains(UInt8(ascii: "\n")) {
                isOverflowing = true
                buffer.removeAll()
            }
        case .wouldBlock: break
        // A terminal that is gone, or standard input closed from the start.
        case .end, .failed: hasEnded = true
        }
    }

    enum Next {
        case line(String)
        /// A line that was too long; it is gone.
        case tooLong
        case ended
        case nothing
    }

    mutating func next() -> Next {
        while !isPollable, !hasEnded, !buffer.contains(UInt8(ascii: "\n")) { read() }
        if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
            defer { buffer.removeFirst(end + 1) }
            return take(buffer[..<end])
        }
        guard hasEnded else { return .nothing }
        guard !buffer.isEmpty || isOverflowing else { return .ended }
        // The last line of a file need not have an end.
        defer { buffer = [] }
        return take(buffer[...])
    }

    private mutating func take(_ line: ArraySlice<UInt8>) -> Next {
        let isTooLong = isOverflowing || line.count > lineBytesMax
        isOverflowing = false
        return isTooLong ? .tooLong : .line(String(decoding: line, as: UTF8.self))
    }
}
