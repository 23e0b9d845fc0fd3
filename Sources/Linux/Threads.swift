import CLinux
import Glibc
import Synchronization

package enum Threads {
    /// Runs `body` on a thread of its own that nobody waits for.
    package static func detach(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
        final class Box {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        let box = Unmanaged.passRetained(Box(body))
        var thread = pthread_t()
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, 512 << 10)
        pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
        defer { pthread_attr_destroy(&attributes) }
        // Signals are the main thread's: one that does not block them would be ended by them, with
        // the whole process. But not those by which a defect of the thread itself shows.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] {
            sigdelset(&all, number)
        }
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        let result = pthread_create(
            &thread, &attributes,
            { raw in
                guard let raw = raw else { return nil }
                Unmanaged<Box>.fromOpaque(raw).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        guard result == 0 else {
            box.release()
            throw SystemError("pthread_create", code: result)
        }
    }
}

/// A thread that is there before it is needed, and does what it is given in order. To start one
/// takes up to 12 ms when the cores are busy, which is long for whoever must not be held up.
package final class Worker: Sendable {
    private let queue = Queue()

    /// What the thread and its owner share: the thread must not keep the worker alive.
    private final class Queue: Sendable {
        struct State {
            var bodies: [@Sendable () -> Void] = []
            var isOver = false
        }

        let state = Mutex(State())
        /// Counts what has been added; a read waits for that.
        let bell: CInt

        init() { bell = eventfd(0, CInt(EFD_CLOEXEC)) }
        deinit { if bell >= 0 { Glibc.close(bell) } }

        func serve() {
            while true {
                var count: eventfd_t = 0
                // Interrupted: nothing was counted, and nothing is lost by a look.
                _ = eventfd_read(bell, &count)
                let (bodies, isOver) = state.withLock { state in
                    defer { state.bodies = [] }
                    return (state.bodies, state.isOver)
                }
                for body in bodies { body() }
                if isOver { return }
            }
        }
    }

    package init() throws(SystemError) {
        guard queue.bell >= 0 else { throw SystemError("eventfd") }
        try Threads.detach { [queue] in queue.serve() }
    }

    /// What was given to `run` is still done.
    deinit {
        queue.state.withLock { $0.isOver = true }
        _ = eventfd_write(queue.bell, 1)
    }

    package func run(_ body: @escaping @Sendable () -> Void) {
        queue.state.withLock { $0.bodies.append(body) }
        _ = eventfd_write(queue.bell, 1)
    }
}
