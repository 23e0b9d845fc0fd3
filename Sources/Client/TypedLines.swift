import Linux

/// Standard input as lines, read without ever keeping the loop waiting.
struct TypedLines {
    static let fd: CInt = 0
    /// How many lines a loop takes at a time, so that signals and the servers' words wait for a
    /// moment only.
    static let linesMax = 64
    /// How often the input is read for one line at a time: of what epoll refuses there may be no
    /// end, and no line in it (`/dev/zero`).
    private static let readsMax = 16

    let isTerminal = Terminal.isTerminal(TypedLines.fd)
    /// What is typed as an answer to what stands at the terminal is read at once and dropped if
    /// nothing was asked; all other input waits until it is asked for.
    private let readsAhead: Bool
    private let lineBytesMax: Int
    private var buffer: [UInt8] = []
    /// The beginning of the line in the buffer was too much and is gone; so goes the rest.
    private var isOverflowing = false
    private var hasEnded = false
    /// Why it has ended before its end.
    private var failure: SystemError?
    private var isWatched = false
    /// Plain files are always ready and refused by epoll.
    private var isPollable = true

    /// Lines of more than `lineBytesMax` bytes, without their end, are not delivered.
    init(readsAhead: Bool, lineBytesMax: Int = 64 << 10) {
        self.readsAhead = readsAhead
        self.lineBytesMax = lineBytesMax
    }

    static func isInput(_ fd: CInt) -> Bool { fd == Self.fd }

    private var hasLine: Bool { buffer.contains(UInt8(ascii: "\n")) }

    /// Watches the input as long as somebody wants to know. True: it need not be waited for, or cannot
    /// be; `next` is to be called at once.
    @discardableResult
    mutating func watch(_ poller: borrowing Poller, isAsking: Bool) -> Bool {
        let isTaken = isAsking || readsAhead
        let isWanted = isPollable && !hasEnded && isTaken
        if isWanted != isWatched {
            if isWanted {
                do {
                    try poller.add(Self.fd)
                    isWatched = true
                } catch {
                    isPollable = false
                }
            } else {
                poller.remove(Self.fd)
                isWatched = false
            }
        }
        return isTaken && (!isPollable || hasEnded || hasLine)
    }

    /// Reads once, unless there is a line already: input that comes faster than it is taken must
    /// not pile up here. To be called when the input is ready.
    mutating func read() {
        guard !hasEnded, !hasLine else { return }
        var chunk = [UInt8](repeating: 0, count: 4096)
        switch chunk.withUnsafeMutableBytes({ IO.read(Self.fd, into: $0) }) {
        case .bytes(let count):
            buffer.append(contentsOf: chunk[..<count])
            if buffer.count > lineBytesMax, !hasLine {
                isOverflowing = true
                buffer.removeAll()
            }
        case .wouldBlock: break
        case .end: hasEnded = true
        case .failed(let code):
            hasEnded = true
            // A terminal that is gone has nothing more to say; of a file there was more.
            if !isTerminal { failure = SystemError("read", "standard input", code: code) }
        }
    }

    enum Next {
        case line(String)
        /// A line that was too long; it is gone.
        case tooLong
        case ended
        /// What came behind the last line end may be half a line; it is gone.
        case failed(SystemError)
        case nothing
    }

    mutating func next() -> Next {
        var readsLeft = Self.readsMax
        while !isPollable, !hasEnded, !hasLine, readsLeft > 0 {
            read()
            readsLeft -= 1
        }
        if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
            defer { buffer.removeFirst(end + 1) }
            return take(buffer[..<end])
        }
        guard hasEnded else { return .nothing }
        if let failure { return .failed(failure) }
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
