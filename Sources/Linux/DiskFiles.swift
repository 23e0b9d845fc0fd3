import CLinux
import Glibc

/// Calls for files whose content must survive a loss of power. None of them is repeated after a
/// failure, but for EINTR where the call has then done nothing.
extension Files {
    /// Opens for reading and writing. `isNew`: makes an empty file, in place of one that is there.
    package static func openDurable(_ path: String, isNew: Bool) throws(SystemError)
        -> FileDescriptor
    {
        let flags = O_RDWR | O_CLOEXEC | (isNew ? O_CREAT | O_TRUNC : 0)
        let raw = uninterrupted { clinux_open(path, flags, 0o644) }
        guard raw >= 0 else { throw SystemError("open", path) }
        return FileDescriptor(owning: raw)
    }

    /// Makes an empty file; fails if anything has this name.
    package static func createNew(_ path: String) throws(SystemError) -> FileDescriptor {
        let raw = uninterrupted {
            clinux_open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0o644)
        }
        guard raw >= 0 else { throw SystemError("open", path) }
        return FileDescriptor(owning: raw)
    }

    /// Writes `bytes` from `start` on, `bytesMax` of them at most, at `offset` of the file and gives
    /// how many were taken, which may be fewer.
    package static func write(
        _ fd: CInt, _ bytes: [UInt8], from start: Int, bytesMax: Int = .max, at offset: Int,
        path: String
    ) throws(SystemError) -> Int {
        let count = bytes.withUnsafeBytes { buffer in
            uninterrupted {
                pwrite(
                    fd, buffer.baseAddress.map { $0 + start },
                    min(buffer.count - start, bytesMax), offset)
            }
        }
        guard count >= 0 else { throw SystemError("pwrite", path) }
        return count
    }

    /// Makes the file's bytes durable. Not repeated on EINTR either: the kernel may have dropped
    /// what it could not write and would then call the second try a success (Rebello and others,
    /// Can Applications Recover from fsync Failures?, 2020).
    package static func syncData(_ fd: CInt, path: String) throws(SystemError) {
        guard fdatasync(fd) == 0 else { throw SystemError("fdatasync", path) }
    }

    /// Reserves the file's first `bytes`, zeros where nothing was; a file system that cannot is
    /// left alone.
    package static func allocate(_ fd: CInt, bytes: Int, path: String) throws(SystemError) {
        // Not posix_fallocate, which writes zeros itself where the file system cannot reserve.
        guard uninterrupted({ clinux_fallocate(fd, 0, off_t(bytes)) }) != 0 else { return }
        guard errno == EOPNOTSUPP || errno == ENOSYS else { throw SystemError("fallocate", path) }
    }

    package static func rename(_ old: String, to new: String) throws(SystemError) {
        guard Glibc.rename(old, new) == 0 else { throw SystemError("rename", new) }
    }

    /// Removes a file; one that is not there is fine.
    package static func remove(_ path: String) throws(SystemError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw SystemError("unlink", path) }
    }

    /// Removes an empty folder.
    package static func removeFolder(_ path: String) throws(SystemError) {
        guard rmdir(path) == 0 else { throw SystemError("rmdir", path) }
    }

    package static func openFolder(_ path: String) throws(SystemError) -> FileDescriptor {
        let raw = uninterrupted { clinux_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) }
        guard raw >= 0 else { throw SystemError("open", path) }
        return FileDescriptor(owning: raw)
    }

    /// Makes the names in a folder durable.
    package static func syncFolder(_ path: String) throws(SystemError) {
        let folder = try openFolder(path)
        try syncFolder(folder.raw, path: path)
    }

    /// The same of one that is open.
    package static func syncFolder(_ fd: CInt, path: String) throws(SystemError) {
        guard fsync(fd) == 0 else { throw SystemError("fsync", path) }
    }

    /// The names in a folder, sorted, but `.` and `..`.
    package static func list(_ path: String) throws(SystemError) -> [String] {
        guard let folder = opendir(path) else { throw SystemError("opendir", path) }
        defer { closedir(folder) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(folder) else { break }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        guard errno == 0 else { throw SystemError("readdir", path) }
        return names.sorted()
    }

    /// The whole of a file, in one piece of memory of its size. `slack`: of what was reserved at the
    /// file's end and never written, no more than so many zeros.
    package static func readWhole(_ path: String, slack: Int = .max) throws(SystemError) -> [UInt8]
    {
        let raw = uninterrupted { clinux_open(path, O_RDONLY | O_CLOEXEC, 0) }
        guard raw >= 0 else { throw SystemError("open", path) }
        let file = FileDescriptor(owning: raw)
        var status = stat()
        guard fstat(file.raw, &status) == 0 else { throw SystemError("fstat", path) }
        var size = Int(status.st_size)
        if slack < size { size = min(size, dataEnd(file.raw, size: size) + slack) }
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, filled in
            while filled < buffer.count {
                let count = uninterrupted {
                    pread(
                        file.raw, buffer.baseAddress.map { $0 + filled }, buffer.count - filled,
                        filled)
                }
                if count < 0 { failure = SystemError("read", path) }
                if count <= 0 { break }
                filled += count
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Where the file's last hole begins, if it ends with one.
    private static func dataEnd(_ fd: CInt, size: Int) -> Int {
        var end = 0
        while end < size {
            let start = clinux_seek_data(fd, off_t(end))
            if start < 0 { return errno == ENXIO ? end : size }
            let hole = clinux_seek_hole(fd, start)
            guard hole > start else { return size }
            end = Int(hole)
        }
        return size
    }

    /// Opens a folder only to lock it. `isShared`: with any number of others. nil: somebody has a
    /// lock that does not go with this one. Not a file in it: a lock of a file is no obstacle to who
    /// removes the file and makes another.
    package static func lockFolder(_ path: String, isShared: Bool) throws(SystemError)
        -> FileDescriptor?
    {
        let folder = try openFolder(path)
        let kind = isShared ? LOCK_SH : LOCK_EX
        if uninterrupted({ flock(folder.raw, kind | LOCK_NB) }) == 0 { return folder }
        guard errno == EWOULDBLOCK else { throw SystemError("flock", path) }
        return nil
    }

    /// Makes sure of a file that may be written.
    package static func touch(_ path: String) throws(SystemError) {
        let raw = uninterrupted { clinux_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644) }
        guard raw >= 0 else { throw SystemError("open", path) }
        close(raw)
    }

    package static func close(_ raw: CInt) {
        _ = FileDescriptor(owning: raw)
    }
}
