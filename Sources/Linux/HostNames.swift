import Synchronization

/// Looks host names up on threads of their own, as a name server may take seconds to answer, and
/// keeps what it has said for a while: it may take longer than a try to connect may last, and then
/// serves the next one.
package struct HostNames: ~Copyable {
    package struct Answer: Sendable, Equatable {
        package let host: String
        /// In digits, the preferred one first; none: the name is unknown.
        package let addresses: [String]
    }

    private var lookups: Lookups?
    private var known = KnownHosts()
    /// The names that are being looked up, each by one thread.
    private var asked: [String] = []

    package init() {}

    /// Readable when there are answers; nil: nothing has been asked yet.
    package var fd: CInt? { lookups?.waker.fd.raw }

    /// The addresses of a host, in digits; nil: they are being looked up, and `take` will have them.
    package mutating func addresses(of host: String, now: UInt64) throws(SystemError) -> [String]? {
        if Resolver.isNumeric(host) { return [host] }
        if let found = known.addresses(of: host, now: now) { return found }
        guard !asked.contains(host) else { return nil }
        if lookups == nil { lookups = try Lookups() }
        try lookups?.ask(host)
        asked.append(host)
        return nil
    }

    /// What has been found since it was last taken.
    package mutating func take(now: UInt64) -> [Answer] {
        let answers = lookups?.take() ?? []
        for answer in answers {
            asked.removeAll { $0 == answer.host }
            known.note(answer.host, answer.addresses, now: now)
        }
        return answers
    }

    /// The address of a host that was tried first said nothing for as long as a try lasts: next time it
    /// is the last.
    package mutating func turn(_ host: String) { known.turn(host) }

    private final class Lookups: Sendable {
        private let answers = Mutex<[Answer]>([])
        let waker: Waker

        init() throws(SystemError) { waker = try Waker() }

        func ask(_ host: String) throws(SystemError) {
            try Threads.detach {
                let addresses = Resolver.addresses(of: host)
                self.answers.withLock { $0.append(Answer(host: host, addresses: addresses)) }
                self.waker.wake()
            }
        }

        func take() -> [Answer] {
            waker.drain()
            return answers.withLock { list in
                defer { list = [] }
                return list
            }
        }
    }
}

/// What was found of host names, for a while.
struct KnownHosts {
    private var items: [(host: String, addresses: [String], until: UInt64)] = []

    static let nanosecondsMax: UInt64 = 30_000_000_000

    /// `now`: nanoseconds of any clock that never goes back.
    mutating func note(_ host: String, _ addresses: [String], now: UInt64) {
        items.removeAll { $0.host == host || $0.until <= now }
        guard !addresses.isEmpty else { return }
        items.append((host, addresses, now + Self.nanosecondsMax))
    }

    func addresses(of host: String, now: UInt64) -> [String]? {
        items.first { $0.host == host && now < $0.until }?.addresses
    }

    mutating func turn(_ host: String) {
        guard let index = items.firstIndex(where: { $0.host == host }) else { return }
        items[index].addresses.append(items[index].addresses.removeFirst())
    }
}
