import CLinux
import Glibc

package enum Resolver {
    /// Whether `host` is an address in digits, which resolves without asking anybody.
    package static func isNumeric(_ host: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1
    }

    /// All addresses of a host, in digits, in the order of preference; empty when there are none.
    /// Asks the network and may take seconds.
    package static func addresses(of host: String) -> [String] {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, nil, &hints, &list) == 0, let first = list else { return [] }
        defer { freeaddrinfo(first) }
        var result: [String] = []
        var next: UnsafeMutablePointer<addrinfo>? = first
        while let info = next {
            var digits = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let length = socklen_t(digits.count)
            let code = getnameinfo(
                info.pointee.ai_addr,
                info.pointee.ai_addrlen,
                &digits,
                length,
                nil,
                0,
                NI_NUMERICHOST
            )
            if code == 0 {
                let bytes = digits.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
                result.append(String(decoding: bytes, as: UTF8.self))
            }
            next = info.pointee.ai_next
        }
        return result
    }
}

extension Files {
    /// Whether a descriptor is a plain file, no device, pipe or folder.
    package static func isRegular(_ fd: CInt) -> Bool {
        var status = stat()
        return fstat(fd, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }
}
