import CLinux
import Glibc

/// An owned descriptor: closed once, when its owner goes.
package struct FileDescriptor: ~Copyable, Sendable {
    package let raw: CInt

    package init(owning raw: CInt) {
        self.raw = raw
    }

    deinit {
        // close is never repeated on EINTR: on Linux the descriptor is gone either way, and its
        // number may already be somebody else's.
        _ = close(raw)
    }

    /// Another descriptor of the same file.
    package func duplicate() throws(SystemError) -> FileDescriptor {
        let copy = clinux_fcntl_int(raw, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw SystemError("fcntl") }
        return FileDescriptor(owning: copy)
    }

    /// The number that the next one will get, which is the lowest that is free; nil: none is.
    package static var lowestFree: CInt? {
        // Standard input is open, whatever the program was started with.
        let raw = clinux_fcntl_int(0, F_DUPFD_CLOEXEC, 0)
        guard raw >= 0 else { return nil }
        _ = close(raw)
        return raw
    }

    /// Gives the descriptor up without closing it.
    package consuming func release() -> CInt {
        let raw = raw
        discard self
        return raw
    }
}

/// Two descriptors: what is sent into one comes out of the other. Sending to one whose other end is
/// closed is an error, not a signal.
package struct Channel: ~Copyable, Sendable {
    package let near: FileDescriptor
    package let far: FileDescriptor

    package init() throws(SystemError) {
        var ends: [CInt] = [-1, -1]
        let type = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw SystemError("socketpair") }
        near = FileDescriptor(owning: ends[0])
        far = FileDescriptor(owning: ends[1])
    }
}

/// What a read or write that does not block came to.
package enum Transfer: Equatable, Sendable {
    case bytes(Int)
    /// Nothing now; wait for the descriptor to be ready.
    case wouldBlock
    /// The other end has closed its side.
    case end
    /// errno of a connection that is gone.
    case failed(CInt)
}

package enum IO {
    /// Reads at most `buffer.count` bytes.
    package static func read(_ fd: CInt, into buffer: UnsafeMutableRawBufferPointer) -> Transfer {
        let count = uninterrupted {
            Glibc.read(fd, buffer.baseAddress, buffer.count)
        }
        if count > 0 { return .bytes(count) }
        if count == 0 { return .end }
        return errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(errno)
    }

    /// Writes `bytes` from `offset` on; may take fewer than there are. Never raises SIGPIPE.
    package static func send(_ fd: CInt, _ bytes: [UInt8], from offset: Int = 0) -> Transfer {
        let count = bytes.withUnsafeBytes { buffer in
            uninterrupted {
                Glibc.send(
                    fd, buffer.baseAddress.map { $0 + offset }, buffer.count - offset,
                    CInt(MSG_NOSIGNAL))
            }
        }
        if count >= 0 { return .bytes(count) }
        return errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(errno)
    }

    /// Whether a write of so many bytes would not wait for whoever reads them: of a pipe that is
    /// ready, POSIX says, PIPE_BUF bytes. A terminal is ready when there is room for one.
    package static func takes(_ fd: CInt, _ count: Int) -> Bool {
        count <= 4_096 && isatty(fd) == 0 && isReady(fd, milliseconds: 0)
    }

    private static func isReady(_ fd: CInt, milliseconds: CInt) -> Bool {
        var entry = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
        return uninterrupted { poll(&entry, 1, milliseconds) } == 1
    }

    /// Writes all of `bytes` to a file or terminal; waits for room, also where another process that
    /// shares it has made it non-blocking.
    package static func writeAll(
        _ fd: CInt, _ bytes: [UInt8], subject: String = ""
    ) throws(SystemError) {
        var offset = 0
        while offset < bytes.count {
            do throws(SystemError) {
                let count = try writeSome(fd, bytes, from: offset, subject: subject)
                offset += count
            } catch {
                guard error.code == EAGAIN else { throw error }
                _ = isReady(fd, milliseconds: -1)
            }
        }
    }

    /// Writes `bytes` from `offset` on and gives how many were taken, which may be fewer. Of a
    /// descriptor that does not block it is an error that there is no room.
    package static func writeSome(
        _ fd: CInt, _ bytes: [UInt8], from offset: Int, subject: String = ""
    ) throws(SystemError) -> Int {
        let count = bytes.withUnsafeBytes { buffer in
            uninterrupted {
                Glibc.write(fd, buffer.baseAddress.map { $0 + offset }, buffer.count - offset)
            }
        }
        guard count >= 0 else { throw SystemError("write", subject) }
        return count
    }
}
