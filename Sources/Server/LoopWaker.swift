import Linux

/// Wakes the loop when a thread beside it has something for it.
final class LoopWaker: Sendable {
    private let waker: Waker

    init() throws(SystemError) { waker = try Waker() }

    var fd: CInt { waker.fd.raw }
    func wake() { waker.wake() }
    func drain() { waker.drain() }
}
