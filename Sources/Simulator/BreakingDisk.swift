import Journal
import Linux
import Replication
import Storage
import Synchronization
import Wire

/// A disk for a store that makes a deliberate mistake: what the store would then not do, or do
/// otherwise, is left out here, so that the store itself knows of no mistakes.
final class BreakingDisk: Disk {
    static let breakages: [Breakage] = [
        .folderUnsynced, .checkpointBeforeJournal, .sealUnsynced, .chainUnchecked, .syncRetried,
        .tailNotRewritten,
    ]

    private let files: SimulatedDisk
    private let breakage: Breakage
    private let durability: Store.Durability
    /// Handles in the order of their opening, by path.
    private let handles = Mutex<[String: [Int32]]>([:])

    init(_ files: SimulatedDisk, _ breakage: Breakage, _ durability: Store.Durability) {
        self.files = files
        self.breakage = breakage
        self.durability = durability
    }

    private func isSegment(_ path: String) -> Bool {
        path.hasPrefix("\(Drive.folder)/segment-") && !path.hasSuffix(".new")
    }

    func read(_ path: String) throws(SystemError) -> [UInt8] {
        let bytes = try files.read(path)
        guard breakage == .chainUnchecked, isSegment(path) else { return bytes }
        return Self.chained(bytes)
    }

    func open(_ path: String) throws(SystemError) -> OpenFile {
        let file = try files.open(path)
        handles.withLock { $0[path, default: []].append(file.handle) }
        return file
    }

    func close(_ file: OpenFile) {
        handles.withLock { $0[file.path]?.removeAll { $0 == file.handle } }
        files.close(file)
    }

    func write(_ file: OpenFile, _ bytes: [UInt8], from start: Int, at offset: Int)
        throws(SystemError) -> Int
    {
        if breakage == .tailNotRewritten, isSegment(file.path) {
            let seen = files.state.withLock { $0.seenBytes(file.path) }
            let end = offset + bytes.count - start
            if end <= seen.count, seen[offset..<end] == bytes[start...] {
                return bytes.count - start
            }
        }
        return try files.write(file, bytes, from: start, at: offset)
    }

    func sync(_ file: OpenFile) throws(SystemError) {
        // The journal is open already when a checkpoint's writer opens it for this.
        let isBeside = handles.withLock { $0[file.path]?.first } != file.handle
        switch breakage {
        case .checkpointBeforeJournal where isSegment(file.path) && isBeside: return
        case .sealUnsynced where isSegment(file.path) && !isBeside && durability == .never: return
        case .syncRetried:
            do throws(SystemError) {
                try files.sync(file)
            } catch {
                try files.sync(file)
            }
        default: try files.sync(file)
        }
    }

    func syncFolder(_ path: String) throws(SystemError) {
        if breakage != .folderUnsynced { try files.syncFolder(path) }
    }

    func makeFolder(_ path: String) throws(SystemError) { try files.makeFolder(path) }
    func list(_ folder: String) throws(SystemError) -> [String] { try files.list(folder) }
    func lock(_ path: String) throws(SystemError) -> OpenFile? { try files.lock(path) }
    func create(_ path: String) throws(SystemError) -> OpenFile { try files.create(path) }
    func allocate(_ file: OpenFile, bytes: Int) throws(SystemError) {
        try files.allocate(file, bytes: bytes)
    }
    func truncate(_ file: OpenFile, to bytes: Int) throws(SystemError) {
        try files.truncate(file, to: bytes)
    }
    func rename(_ old: String, to new: String) throws(SystemError) {
        try files.rename(old, to: new)
    }
    func remove(_ path: String) throws(SystemError) { try files.remove(path) }

    /// A segment with each record naming the one before it, whichever that is.
    private static func chained(_ segment: [UInt8]) -> [UInt8] {
        var bytes = segment
        let header: SegmentHeader
        do throws(Flaw) { header = try SegmentHeader(segment.span) } catch { return segment }
        var chain = header.checksum
        var place = SegmentHeader.byteCount
        while place + RecordFrame.headerBytes <= bytes.count {
            let length = Int(LittleEndian.read32(bytes.span, at: place + 20) & 0xff_ffff)
            let end = place + RecordFrame.headerBytes + length
            guard end <= bytes.count,
                LittleEndian.read64(bytes.span, at: place)
                    == Checksum.of(bytes.span, in: place + 8..<end, seed: header.salt)
            else { break }
            LittleEndian.put(chain, into: &bytes, at: place + 8)
            chain = Checksum.of(bytes.span, in: place + 8..<end, seed: header.salt)
            LittleEndian.put(chain, into: &bytes, at: place)
            place = end
        }
        return bytes
    }
}
