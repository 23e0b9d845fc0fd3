import CLinux
import Glibc

/// An epoll set, level-triggered, keyed by descriptor.
package struct Poller: ~Copyable {
    /// What one descriptor is ready for.
    package struct Ready: Sendable {
        package let fd: CInt
        package let mask: UInt32

        package var canRead: Bool {
            mask & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue | EPOLLRDHUP.rawValue)
                != 0
        }
        /// Both directions have ended, or it has failed: told whatever was asked for.
        package var isBroken: Bool { mask & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 }
        package var canWrite: Bool {
            mask & (EPOLLOUT.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
        }
    }

    private let epoll: FileDescriptor
    private let events: UnsafeMutableBufferPointer<epoll_event>
    private var readyCount: CInt = 0

    package init(eventsPerWaitMax: Int = 512) throws(SystemError) {
        let raw = epoll_create1(CInt(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw SystemError("epoll_create1") }
        epoll = FileDescriptor(owning: raw)
        events = .allocate(capacity: eventsPerWaitMax)
        events.initialize(repeating: epoll_event())
    }

    deinit {
        events.deallocate()
    }

    package static func mask(read: Bool, write: Bool) -> UInt32 {
        (read ? EPOLLIN.rawValue | EPOLLRDHUP.rawValue : 0) | (write ? EPOLLOUT.rawValue : 0)
    }

    package func add(_ fd: CInt, read: Bool = true, write: Bool = false) throws(SystemError) {
        let mask = Self.mask(read: read, write: write)
        guard clinux_epoll_ctl(epoll.raw, EPOLL_CTL_ADD, fd, mask) == 0 else {
            throw SystemError("epoll_ctl", "descriptor \(fd)")
        }
    }

    package func modify(_ fd: CInt, read: Bool, write: Bool) {
        let mask = Self.mask(read: read, write: write)
        let result = clinux_epoll_ctl(epoll.raw, EPOLL_CTL_MOD, fd, mask)
        precondition(result == 0, "epoll_ctl MOD of \(fd): errno \(errno)")
    }

    package func remove(_ fd: CInt) {
        _ = clinux_epoll_ctl(epoll.raw, EPOLL_CTL_DEL, fd, 0)
    }

    /// Waits at most `milliseconds` (-1: for ever) and gives how many descriptors are ready; read
    /// them with `ready(at:)`. A signal's interruption counts as none.
    package mutating func wait(milliseconds: CInt) -> Int {
        readyCount = epoll_wait(
            epoll.raw, events.baseAddress, CInt(events.count), milliseconds)
        if readyCount < 0 {
            precondition(errno == EINTR, "epoll_wait: errno \(errno)")
            readyCount = 0
        }
        return Int(readyCount)
    }

    package func ready(at index: Int) -> Ready {
        precondition(index < Int(readyCount), "ready(at: \(index)) of \(readyCount)")
        return Ready(
            fd: clinux_event_fd(events.baseAddress, CInt(index)),
            mask: clinux_event_mask(events.baseAddress, CInt(index)))
    }
}

/// A descriptor with which one thread wakes another's `Poller`.
package struct Waker: ~Copyable, Sendable {
    package let fd: FileDescriptor

    package init() throws(SystemError) {
        let raw = eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK))
        guard raw >= 0 else { throw SystemError("eventfd") }
        fd = FileDescriptor(owning: raw)
    }

    package func wake() {
        _ = eventfd_write(fd.raw, 1)
    }

    package func drain() {
        var count: eventfd_t = 0
        _ = eventfd_read(fd.raw, &count)
    }
}
