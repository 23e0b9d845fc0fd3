import Linux
import Synchronization

/// Looks host names up on threads of their own, as a name server may take seconds to answer.
final class Resolution: Sendable {
    struct Answer: Sendable {
        let link: LinkID
        /// In digits, the preferred one first; none: the name is unknown.
        let hosts: [String]
    }

    private let answers = Mutex<[Answer]>([])
    private let waker: Waker

    init() throws(SystemError) {
        waker = try Waker()
    }

    /// Readable when there are answers.
    var fd: CInt { waker.fd.raw }

    func ask(_ host: String, for link: LinkID) throws(SystemError) {
        try Threads.detach {
            let hosts = Resolver.addresses(of: host)
            self.answers.withLock { $0.append(Answer(link: link, hosts: hosts)) }
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
