import Synchronization

/// Writes to standard output and standard error, if need be on a thread of its own: a reader that
/// pauses (a full pipe, Ctrl-S at the terminal) must not hold up an event loop, nor keep it from
/// being told to end. What it does not take for long is left out, and how much is said later. Into
/// files, and into pipes that are read, text is written at once.
package final class Speaker: Sendable {
    private struct State {
        /// On their way.
        var bytes = 0
        /// Left out since something was last taken.
        var omitted = 0
    }

    private let state = Mutex(State())
    private let worker: Worker
    private let bytesMax: Int
    private let output: CInt
    private let messages: CInt

    /// `output`, `messages`: standard output and standard error.
    package init(output: CInt = 1, messages: CInt = 2, bytesMax: Int = 1 << 20) throws(SystemError)
    {
        worker = try Worker()
        (self.output, self.messages, self.bytesMax) = (output, messages, bytesMax)
    }

    /// Results and prompts, with their line ends.
    package func show(_ text: String) { write(output, text) }

    /// A line to people.
    package func message(_ text: String) { write(messages, text + "\n") }

    private func write(_ fd: CInt, _ text: String) {
        let bytes = Array(text.utf8)
        if state.withLock({ $0.bytes == 0 && $0.omitted == 0 }), IO.takes(fd, bytes.count) {
            try? IO.writeAll(fd, bytes)
            return
        }
        let omitted: Int? = state.withLock { state in
            guard state.bytes + bytes.count <= bytesMax else {
                state.omitted += 1
                return nil
            }
            state.bytes += bytes.count
            defer { state.omitted = 0 }
            return state.omitted
        }
        guard let omitted else { return }
        worker.run { [self] in
            // A reader that has gone away, or a full disk behind it, is not our trouble.
            if omitted > 0 {
                let note = "(\(omitted) pieces of text were left out: nobody took them)\n"
                try? IO.writeAll(messages, Array(note.utf8))
            }
            try? IO.writeAll(fd, bytes)
            state.withLock { $0.bytes -= bytes.count }
        }
    }

    /// Waits until all has been written, but not for long. False: somebody still does not read.
    @discardableResult
    package func finish(milliseconds: UInt64 = 1_000) -> Bool {
        let deadline = Clock.monotonicNanoseconds() + milliseconds * 1_000_000
        while state.withLock({ $0.bytes > 0 }) {
            guard Clock.monotonicNanoseconds() < deadline else { return false }
            Clock.sleep(nanoseconds: 1_000_000)
        }
        return true
    }
}
