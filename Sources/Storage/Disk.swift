import Journal
package import Linux

/// The file calls that a store makes, so that tests can put a disk of their own in their place.
/// Each throws with the call's name and the path.
package protocol Disk: Sendable {
    func makeFolder(_ path: String) throws(SystemError)
    func list(_ folder: String) throws(SystemError) -> [String]
    /// What was reserved at the file's end and never written may be left out, but for as many zeros
    /// as a record may have bytes.
    func read(_ path: String) throws(SystemError) -> [UInt8]
    /// Locks the folder of this file, which is made and must be writable. What is opened holds the
    /// lock until it is closed; nil when another has it.
    func lock(_ path: String) throws(SystemError) -> OpenFile?
    func create(_ path: String) throws(SystemError) -> OpenFile
    func open(_ path: String) throws(SystemError) -> OpenFile
    /// Reserves the first `bytes` of the file.
    func allocate(_ file: OpenFile, bytes: Int) throws(SystemError)
    /// Writes `bytes` from `start` on; gives how many were taken, which may be fewer.
    func write(_ file: OpenFile, _ bytes: [UInt8], from start: Int, at offset: Int)
        throws(SystemError) -> Int
    func sync(_ file: OpenFile) throws(SystemError)
    func truncate(_ file: OpenFile, to bytes: Int) throws(SystemError)
    func rename(_ old: String, to new: String) throws(SystemError)
    func remove(_ path: String) throws(SystemError)
    /// Makes the names in the folder durable.
    func syncFolder(_ path: String) throws(SystemError)
    func close(_ file: OpenFile)
}

/// A file that was opened. Whoever opened it closes it.
package struct OpenFile: Hashable, Sendable {
    package let handle: Int32
    package let path: String

    package init(handle: Int32, path: String) {
        self.handle = handle
        self.path = path
    }
}

extension Disk {
    /// All of `bytes` at `offset`, in as many writes as the kernel makes of it; gives their number.
    func writeAll(_ file: OpenFile, _ bytes: [UInt8], at offset: Int) throws(SystemError) -> Int {
        var start = 0
        var writes = 0
        while start < bytes.count {
            let count = try write(file, bytes, from: start, at: offset + start)
            // A write that takes nothing and names no reason would be tried for ever.
            if count == 0 { throw SystemError("pwrite", file.path, code: SystemError.noSpace) }
            start += count
            writes += 1
        }
        return writes
    }

    /// Throws when the disk cannot reserve so many bytes; nothing stays of the try.
    func checkRoom(_ folder: String, bytes: Int) throws(SystemError) {
        let path = "\(folder)/room\(Store.besideSuffix)"
        let file = try create(path)
        do throws(SystemError) {
            try allocate(file, bytes: bytes)
        } catch {
            close(file)
            // The first failure is the one to tell of.
            do { try remove(path) } catch {}
            throw error
        }
        close(file)
        try remove(path)
    }

    /// A file that is there under its name with all of its bytes, or not at all: written beside,
    /// made durable, renamed. `size`: reserved, if more than the bytes.
    package func publish(_ folder: String, _ name: String, _ bytes: [UInt8], size: Int = 0)
        throws(SystemError)
    {
        let beside = "\(folder)/\(name)\(Store.besideSuffix)"
        let file = try create(beside)
        do throws(SystemError) {
            if size > bytes.count { try allocate(file, bytes: size) }
            _ = try writeAll(file, bytes, at: 0)
            try sync(file)
        } catch {
            close(file)
            // The first failure is the one to tell of.
            do { try remove(beside) } catch {}
            throw error
        }
        close(file)
        try rename(beside, to: "\(folder)/\(name)")
        try syncFolder(folder)
    }
}

/// The machine's own disk.
package struct LinuxDisk: Disk {
    package init() {}

    package func makeFolder(_ path: String) throws(SystemError) { try Files.makeFolder(path) }
    package func list(_ folder: String) throws(SystemError) -> [String] { try Files.list(folder) }
    package func read(_ path: String) throws(SystemError) -> [UInt8] {
        // A file system that keeps no blocks of zeros would else cut a record that ends with them.
        try Files.readWhole(
            path, slack: RecordFrame.contentBytesMax + RecordFrame.headerBytes)
    }

    package func lock(_ path: String) throws(SystemError) -> OpenFile? {
        let folder = OpenFolder.parent(of: path)
        guard let lock = try Files.lockFolder(folder, isShared: false) else { return nil }
        try Files.touch(path)
        return OpenFile(handle: lock.release(), path: path)
    }

    package func create(_ path: String) throws(SystemError) -> OpenFile {
        OpenFile(handle: try Files.openDurable(path, isNew: true).release(), path: path)
    }

    package func open(_ path: String) throws(SystemError) -> OpenFile {
        OpenFile(handle: try Files.openDurable(path, isNew: false).release(), path: path)
    }

    package func allocate(_ file: OpenFile, bytes: Int) throws(SystemError) {
        try Files.allocate(file.handle, bytes: bytes, path: file.path)
    }

    package func write(_ file: OpenFile, _ bytes: [UInt8], from start: Int, at offset: Int)
        throws(SystemError) -> Int
    {
        try Files.write(file.handle, bytes, from: start, at: offset, path: file.path)
    }

    package func sync(_ file: OpenFile) throws(SystemError) {
        try Files.syncData(file.handle, path: file.path)
    }

    package func truncate(_ file: OpenFile, to bytes: Int) throws(SystemError) {
        try Files.truncate(file.handle, to: bytes, path: file.path)
    }

    package func rename(_ old: String, to new: String) throws(SystemError) {
        try Files.rename(old, to: new)
    }

    package func remove(_ path: String) throws(SystemError) { try Files.remove(path) }
    package func syncFolder(_ path: String) throws(SystemError) { try Files.syncFolder(path) }
    package func close(_ file: OpenFile) { Files.close(file.handle) }
}
