import CLinux
import Glibc

package enum Files {
    /// The whole of a file of at most `bytesMax`.
    package static func read(_ path: String, bytesMax: Int = 64 << 20) throws(SystemError)
        -> [UInt8]
    {
        let raw = uninterrupted { clinux_open(path, O_RDONLY | O_CLOEXEC, 0) }
        guard raw >= 0 else { throw SystemError("open", path) }
        let file = FileDescriptor(owning: raw)
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = chunk.withUnsafeMutableBytes { buffer in
                uninterrupted {
                    Glibc.read(file.raw, buffer.baseAddress, buffer.count)
                }
            }
            if count < 0 { throw SystemError("read", path) }
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk[..<count])
            if bytes.count > bytesMax { throw SystemError("read", path, code: EFBIG) }
        }
    }

    /// Opens `path` for appending and reading, creating it (not its folder) where it is missing.
    package static func openForAppending(_ path: String) throws(SystemError) -> FileDescriptor {
        let flags = O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC
        let raw = uninterrupted { clinux_open(path, flags, 0o644) }
        guard raw >= 0 else { throw SystemError("open", path) }
        return FileDescriptor(owning: raw)
    }

    /// Opens a pipe or a device for writing, without ever waiting for whoever reads there. Fails if
    /// that is nobody (`isWithoutReader`).
    package static func openSpecial(_ path: String) throws(SystemError) -> FileDescriptor {
        let raw = uninterrupted { clinux_open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0) }
        guard raw >= 0 else { throw SystemError("open", path) }
        return FileDescriptor(owning: raw)
    }

    package static func truncate(_ fd: CInt, to size: Int, path: String) throws(SystemError) {
        guard uninterrupted({ ftruncate(fd, size) }) == 0 else {
            throw SystemError("ftruncate", path)
        }
    }

    /// Makes a folder; one that is there already is fine.
    package static func makeFolder(_ path: String) throws(SystemError) {
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
            throw SystemError("mkdir", path)
        }
    }

    /// `path` from the root on; nothing has to be there.
    package static func absolute(_ path: String) -> String {
        var text = path
        while text.utf8.count > 1, text.hasSuffix("/") { text.removeLast() }
        guard !text.hasPrefix("/"), let folder = getcwd(nil, 0) else { return text }
        defer { free(folder) }
        return "\(String(cString: folder))/\(text)"
    }

    /// Whether there is something that is neither a plain file nor a folder: a device, a pipe.
    package static func isSpecial(_ path: String) -> Bool {
        guard let kind = fileKind(of: path) else { return false }
        return kind != S_IFREG && kind != S_IFDIR
    }

    package static func isPipe(_ path: String) -> Bool { fileKind(of: path) == S_IFIFO }

    /// nil: there is nothing, or nothing to be known of it.
    private static func fileKind(of path: String) -> mode_t? {
        var status = stat()
        guard fstatat(AT_FDCWD, path, &status, 0) == 0 else { return nil }
        return status.st_mode & S_IFMT
    }

    /// Whether two descriptors are of the same file, pipe or terminal, so that what is written to
    /// one stands between what is written to the other. Other devices, as `/dev/null`, mix nothing.
    package static func areSame(_ one: CInt, _ other: CInt) -> Bool {
        var first = stat()
        var second = stat()
        guard fstat(one, &first) == 0, fstat(other, &second) == 0,
            first.st_dev == second.st_dev, first.st_ino == second.st_ino
        else { return false }
        let kind = first.st_mode & S_IFMT
        return kind == S_IFREG || kind == S_IFIFO || isatty(one) == 1
    }

    package static func exists(_ path: String) -> Bool {
        access(path, F_OK) == 0
    }

    /// Takes the lock of an open file for as long as it is open; false when another has it.
    package static func lock(_ fd: CInt, path: String) throws(SystemError) -> Bool {
        if uninterrupted({ flock(fd, LOCK_EX | LOCK_NB) }) == 0 { return true }
        guard errno == EWOULDBLOCK else { throw SystemError("flock", path) }
        return false
    }
}

package enum Terminal {
    /// To be called first: a program that is started with its input, output or messages closed would
    /// give their numbers to whatever it opens next, and write its messages into that.
    package static func openStandardDescriptors() {
        for number in CInt(0)...2 where clinux_fcntl_int(number, F_GETFD, 0) < 0 {
            // The lowest free number is this one. Results that nobody can get must not seem to have been
            // written.
            _ = uninterrupted { clinux_open("/dev/null", number == 1 ? O_RDONLY : O_RDWR, 0) }
        }
    }

    /// Whether colours may be used on a descriptor: a terminal, and NO_COLOR unset.
    package static func hasColour(_ fd: CInt) -> Bool {
        isatty(fd) == 1 && environment("NO_COLOR") == nil
    }

    package static func isTerminal(_ fd: CInt) -> Bool { isatty(fd) == 1 }

    package static func environment(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        return String(cString: value)
    }

    /// Writes text to standard error; a reader that has gone away is not our trouble.
    package static func message(_ text: String) {
        _ = try? IO.writeAll(2, Array((text + "\n").utf8))
    }

    /// Writes text to standard output, where a reader that has gone away is not our trouble either.
    package static func print(_ text: String) {
        _ = try? write(text)
    }

    /// Writes text to standard output, all of it.
    package static func write(_ text: String) throws(SystemError) {
        try IO.writeAll(1, Array((text + "\n").utf8), subject: "standard output")
    }

    /// Ends the process.
    package static func exit(_ code: CInt) -> Never {
        Glibc.exit(code)
    }

    /// Ends the process without waiting for anything, as for a disk that hangs.
    package static func exitAtOnce(_ code: CInt) -> Never {
        _exit(code)
    }
}
