import CLinux
import Glibc

/// A refusal by the kernel: which call, on what, and why.
package struct SystemError: Error, Equatable, CustomStringConvertible, Sendable {
    /// The call's name as in its manual page, e.g. `bind`.
    package let call: String
    /// errno as the call left it.
    package let code: CInt
    /// The path, address or process that the call was about; empty where there is none.
    package let subject: String

    package init(_ call: String, _ subject: String = "", code: CInt = errno) {
        self.call = call
        self.code = code
        self.subject = subject
    }

    package var description: String {
        let reason = String(cString: strerror(code))
        return subject.isEmpty ? "\(call): \(reason)" : "\(call) \(subject): \(reason)"
    }

    package var isAddressInUse: Bool { code == EADDRINUSE }
    package var isRefused: Bool { code == ECONNREFUSED }
    /// This machine has no way to addresses of that kind, as none of version 6: that says nothing of
    /// who may be there.
    package var isUnroutable: Bool {
        code == ENETUNREACH || code == EADDRNOTAVAIL || code == EAFNOSUPPORT
    }
    package static var timedOut: CInt { ETIMEDOUT }
    package var isNoSpace: Bool { code == ENOSPC || code == EDQUOT }
    package var isMissing: Bool { code == ENOENT }
    /// Of the opening of a pipe for writing: nobody has it open for reading. So it is of a socket.
    package var isWithoutReader: Bool { code == ENXIO }
    /// A file stands where a folder was expected.
    package var isNoFolder: Bool { code == ENOTDIR }
    /// The disk could not give a file's bytes, as of a sector that has gone bad. Not so if the file
    /// could not be opened.
    package var isUnreadable: Bool { call == "read" && code == EIO }
    package static var noSpace: CInt { ENOSPC }
    package static var tooBig: CInt { EFBIG }
    package static var inputOutput: CInt { EIO }
    package var isOutOfDescriptors: Bool { code == EMFILE || code == ENFILE }
}

/// Repeats `body` while a signal interrupted it; the only place where EINTR is seen.
@inline(__always)
func uninterrupted<Result: SignedInteger>(_ body: () -> Result) -> Result {
    while true {
        let result = body()
        if result != -1 || errno != EINTR { return result }
    }
}
