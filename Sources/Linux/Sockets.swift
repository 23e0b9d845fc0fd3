import CLinux
import Glibc

/// TCP, never blocking, with no delay, closed on exec.
package enum Sockets {
    /// Listens on `host:port`; port 0 takes any free one (ask `localPort`).
    package static func listen(host: String, port: UInt16, backlog: CInt = 1024)
        throws(SystemError) -> FileDescriptor
    {
        let subject = "\(host):\(port)"
        return try withAddress(host, port, passive: true) {
            (info: addrinfo) throws(SystemError) -> FileDescriptor in
            let socket = try open(info.ai_family, subject)
            setOption(socket.raw, SOL_SOCKET, SO_REUSEADDR, 1)
            guard bind(socket.raw, info.ai_addr, info.ai_addrlen) == 0 else {
                throw SystemError("bind", subject)
            }
            guard Glibc.listen(socket.raw, backlog) == 0 else {
                throw SystemError("listen", subject)
            }
            return socket
        }
    }

    /// A free port of `host`, bound: nobody is given it who asks for any, and who listens as `listen`
    /// does can do so there.
    package static func reserve(host: String) throws(SystemError) -> FileDescriptor {
        try withAddress(host, 0, passive: true) {
            (info: addrinfo) throws(SystemError) -> FileDescriptor in
            let socket = try open(info.ai_family, host)
            setOption(socket.raw, SOL_SOCKET, SO_REUSEADDR, 1)
            guard bind(socket.raw, info.ai_addr, info.ai_addrlen) == 0 else {
                throw SystemError("bind", host)
            }
            return socket
        }
    }

    /// Begins to connect; when the descriptor is writable, `connectError` tells how it went.
    package static func connect(host: String, port: UInt16) throws(SystemError) -> FileDescriptor {
        let subject = "\(host):\(port)"
        return try withAddress(host, port, passive: false) {
            (info: addrinfo) throws(SystemError) -> FileDescriptor in
            let socket = try open(info.ai_family, subject)
            let result = uninterrupted {
                Glibc.connect(socket.raw, info.ai_addr, info.ai_addrlen)
            }
            if result != 0, errno != EINPROGRESS { throw SystemError("connect", subject) }
            return socket
        }
    }

    /// The next waiting connection, or nil when there is none.
    package static func accept(_ listener: CInt) throws(SystemError) -> FileDescriptor? {
        let flags = CInt(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let raw = uninterrupted { clinux_accept4(listener, flags) }
        guard raw >= 0 else {
            switch errno {
            // The last three: the connection died while it waited, which says nothing of the next.
            case EAGAIN, ECONNABORTED, EPROTO, EPERM: return nil
            default: throw SystemError("accept4")
            }
        }
        prepare(raw)
        return FileDescriptor(owning: raw)
    }

    /// nil when the connection stands, else what refused it.
    package static func connectError(_ fd: CInt, _ subject: String) -> SystemError? {
        var code: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length)
        if code != 0 { return SystemError("connect", subject, code: code) }
        // On loopback a connect to a free ephemeral port may meet itself (a simultaneous open).
        let (local, remote) = (name(fd, of: .local), name(fd, of: .remote))
        if local == remote { return SystemError("connect", subject, code: ECONNREFUSED) }
        return nil
    }

    package static func localPort(_ fd: CInt) -> UInt16 { name(fd, of: .local).port }

    private enum End { case local, remote }

    /// The numeric address of one end of a socket.
    private static func name(_ fd: CInt, of end: End) -> Name {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                _ =
                    switch end {
                    case .local: getsockname(fd, address, &length)
                    case .remote: getpeername(fd, address, &length)
                    }
            }
            let raw = UnsafeRawBufferPointer(start: pointer, count: Int(length))
            // The port stands at bytes 2 and 3 in both families, most significant first.
            let port = length >= 4 ? UInt16(raw[2]) << 8 | UInt16(raw[3]) : 0
            return Name(port: port, bytes: Array(raw.prefix(Int(length))))
        }
    }

    private struct Name: Equatable {
        let port: UInt16
        let bytes: [UInt8]
    }

    private static let TCP_NODELAY_OPTION: CInt = 1
    private static let TCP_KEEPIDLE_OPTION: CInt = 4
    private static let TCP_KEEPINTVL_OPTION: CInt = 5
    private static let TCP_KEEPCNT_OPTION: CInt = 6
    private static let TCP_USER_TIMEOUT_OPTION: CInt = 18

    /// Nothing waits for more to be sent. And a machine that has gone without a word (power, a lid that
    /// was closed, a network that drops) is noticed within 20 seconds whether something is on its way to
    /// it or not: by itself TCP takes a quarter of an hour, or never notices.
    private static func prepare(_ fd: CInt) {
        let tcp = CInt(IPPROTO_TCP)
        setOption(fd, tcp, TCP_NODELAY_OPTION, 1)
        setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        setOption(fd, tcp, TCP_KEEPIDLE_OPTION, 5)
        setOption(fd, tcp, TCP_KEEPINTVL_OPTION, 3)
        setOption(fd, tcp, TCP_KEEPCNT_OPTION, 5)
        setPatience(fd, milliseconds: 20_000)
    }

    /// After so long in which what was sent is not acked, or nothing is taken in, a connection is given up.
    package static func setPatience(_ fd: CInt, milliseconds: UInt64) {
        setOption(
            fd, CInt(IPPROTO_TCP), TCP_USER_TIMEOUT_OPTION, CInt(clamping: milliseconds))
    }

    private static func open(_ family: CInt, _ subject: String) throws(SystemError)
        -> FileDescriptor
    {
        let type = CInt(
            SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let raw = socket(family, type, 0)
        guard raw >= 0 else { throw SystemError("socket", subject) }
        prepare(raw)
        return FileDescriptor(owning: raw)
    }

    private static func setOption(_ fd: CInt, _ level: CInt, _ option: CInt, _ value: CInt) {
        var value = value
        setsockopt(fd, level, option, &value, socklen_t(MemoryLayout<CInt>.size))
    }

    private static func withAddress(
        _ host: String, _ port: UInt16, passive: Bool,
        _ body: (addrinfo) throws(SystemError) -> FileDescriptor
    ) throws(SystemError) -> FileDescriptor {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        hints.ai_flags = (passive ? AI_PASSIVE : 0) | AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let result = getaddrinfo(host, String(port), &hints, &list)
        guard result == 0, let first = list else {
            throw SystemError("resolve", "\(host):\(port)", code: EADDRNOTAVAIL)
        }
        defer { freeaddrinfo(first) }
        return try body(first.pointee)
    }
}
