import Foundation

/// A TCP proxy before one server that can spoil what goes through it. It tells the replicas' own
/// connections (which begin with PEER or BEAT) from clients', so that a fault may hit either.
final class Proxy: @unchecked Sendable {
    enum Scope: CaseIterable {
        case link
        case clients
    }

    /// What happens to connections of one kind.
    struct Weather {
        /// Milliseconds; order is kept.
        var delayMax = 0
        /// From the maker of the connection, and to it: kept until the weather changes.
        var holdsForth = false
        var holdsBack = false
        /// New connections are closed at once.
        var refuses = false
    }

    let port: UInt16
    private let target: UInt16
    private let listener: Int32
    private let lock = NSLock()
    private var weathers: [Scope: Weather] = [:]
    private var resets: [Scope] = []
    private var isStopped = false
    private var random: Seeded
    private let done = DispatchSemaphore(value: 0)

    private struct Pipe {
        var from: Int32
        var to: Int32
        var chunks: [(due: UInt64, bytes: [UInt8])] = []
        var count = 0
        var hasEnded = false

        static let bytesMax = 4 << 20
    }

    private struct Pair {
        var scope: Scope?
        var forth: Pipe
        var back: Pipe
        var isOver = false
    }

    init(before target: UInt16, seed: UInt64) throws {
        self.target = target
        random = Seeded(state: seed | 1)
        listener = tcpSocket()
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let fd = listener
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                bind(fd, raw, length) == 0 && listen(fd, 128) == 0
                    ? getsockname(fd, raw, &length) : -1
            }
        }
        guard status == 0 else { throw Trouble("no port for a proxy") }
        port = UInt16(bigEndian: address.sin_port)
        Thread.detachNewThread { [self] in
            run()
            done.signal()
        }
    }

    // MARK: From the test

    func set(_ weather: Weather, _ scopes: [Scope]) {
        lock.withLock { for scope in scopes { weathers[scope] = weather } }
    }

    func reset(_ scopes: [Scope]) { lock.withLock { resets += scopes } }

    func stop() {
        lock.withLock { isStopped = true }
        done.wait()
    }

    // MARK: The thread

    private static func now() -> UInt64 {
        DispatchTime.now().uptimeNanoseconds / 1_000_000
    }

    private func run() {
        var pairs: [Pair] = []
        while true {
            let (isStopped, weathers, resets) = lock.withLock {
                defer { self.resets = [] }
                return (self.isStopped, self.weathers, self.resets)
            }
            if isStopped { break }
            var fds = [pollfd(fd: listener, events: Int16(POLLIN), revents: 0)]
            for pair in pairs {
                for pipe in [pair.forth, pair.back] {
                    let wants = pipe.count < Pipe.bytesMax && !pipe.hasEnded
                    fds.append(
                        pollfd(fd: wants ? pipe.from : -1, events: Int16(POLLIN), revents: 0))
                }
            }
            poll(&fds, nfds_t(fds.count), 3)
            let now = Self.now()
            for index in pairs.indices {
                if let scope = pairs[index].scope, resets.contains(scope) {
                    sever(&pairs[index])
                    continue
                }
                if fds[1 + 2 * index].revents != 0 { read(&pairs[index], isForth: true, weathers) }
                if fds[2 + 2 * index].revents != 0 { read(&pairs[index], isForth: false, weathers) }
                let weather = pairs[index].scope.flatMap { weathers[$0] } ?? Weather()
                if weather.refuses { sever(&pairs[index]) }
                if !weather.holdsForth { write(&pairs[index].forth, now) }
                if !weather.holdsBack { write(&pairs[index].back, now) }
                let (forth, back) = (pairs[index].forth, pairs[index].back)
                // An end goes through like everything else, in its turn.
                if forth.hasEnded && forth.chunks.isEmpty && !weather.holdsForth
                    || back.hasEnded && back.chunks.isEmpty && !weather.holdsBack
                {
                    pairs[index].isOver = true
                }
            }
            for pair in pairs where pair.isOver {
                close(pair.forth.from)
                close(pair.forth.to)
            }
            pairs.removeAll(where: \.isOver)
            if fds[0].revents != 0 { accept(&pairs) }
        }
        for pair in pairs {
            close(pair.forth.from)
            close(pair.forth.to)
        }
        close(listener)
    }

    private func accept(_ pairs: inout [Pair]) {
        let client = acceptedSocket(listener)
        guard client >= 0 else { return }
        // A blocking connect on this machine takes no time.
        guard let server = try? RawClient.connected(target, seconds: 1) else {
            var linger = linger(l_onoff: 1, l_linger: 0)
            setsockopt(
                client, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
            close(client)
            return
        }
        for fd in [client, server] {
            var one: Int32 = 1
            setsockopt(
                fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        }
        pairs.append(
            Pair(
                scope: nil, forth: Pipe(from: client, to: server),
                back: Pipe(from: server, to: client)))
    }

    private func read(_ pair: inout Pair, isForth: Bool, _ weathers: [Scope: Weather]) {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let fd = isForth ? pair.forth.from : pair.back.from
        let count = recv(fd, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else {
            if isForth { pair.forth.hasEnded = true } else { pair.back.hasEnded = true }
            return
        }
        bytes.removeLast(bytes.count - count)
        if pair.scope == nil, isForth {
            let start = String(decoding: bytes.prefix(32), as: UTF8.self).uppercased()
            pair.scope = start.contains("PEER") || start.contains("BEAT") ? .link : .clients
        }
        let delay = pair.scope.flatMap { weathers[$0]?.delayMax } ?? 0
        let wait = delay > 0 ? UInt64(Int.random(in: 0...delay, using: &random)) : 0
        func add(_ pipe: inout Pipe) {
            let due = max(Self.now() + wait, pipe.chunks.last?.due ?? 0)
            pipe.chunks.append((due, bytes))
            pipe.count += count
        }
        if isForth { add(&pair.forth) } else { add(&pair.back) }
    }

    private func write(_ pipe: inout Pipe, _ now: UInt64) {
        while let first = pipe.chunks.first, first.due <= now {
            let count = send(
                pipe.to, first.bytes, first.bytes.count,
                Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            if count < 0, errno == EAGAIN || errno == EINTR { return }
            guard count > 0 else {
                // Nobody is there to take it.
                pipe.chunks = []
                pipe.hasEnded = true
                return
            }
            pipe.count -= count
            guard count == first.bytes.count else {
                pipe.chunks[0].bytes.removeFirst(count)
                return
            }
            pipe.chunks.removeFirst()
        }
    }

    /// Both ends see a reset.
    private func sever(_ pair: inout Pair) {
        var linger = linger(l_onoff: 1, l_linger: 0)
        for fd in [pair.forth.from, pair.forth.to] {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
        }
        pair.isOver = true
    }
}
