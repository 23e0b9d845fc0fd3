import Journal
import Linux
import Synchronization
import Wire

/// A segment that is being made, maybe beside the caller's loop.
final class SegmentBirth: Sendable {
    let begun: Store.Begun
    private let outcome = Mutex<Result<OpenFile, SystemError>?>(nil)

    init(_ begun: Store.Begun) { self.begun = begun }

    func finish(_ outcome: Result<OpenFile, SystemError>) { self.outcome.withLock { $0 = outcome } }
    var isOver: Bool { outcome.withLock { $0 != nil } }

    func wait() -> Result<OpenFile, SystemError> {
        while true {
            if let result = outcome.withLock({ $0 }) { return result }
            Clock.sleep(nanoseconds: 200_000)
        }
    }
}

extension Store {
    /// Whether the next `sync` would have to wait for a segment that is being made. Until then
    /// nothing is written anywhere: the segment before is durable to its end and gets nothing more.
    package var mustWait: Bool { birth.map { !$0.isOver } ?? false }

    /// Begins the first segment, or another one at once.
    mutating func begin(
        _ identity: Identity, number: UInt64, firstOp: OpNumber, previous: UInt64,
        after last: OpenFile?
    ) throws(SystemError) {
        let work = bear(identity, number, firstOp, previous, after: last)
        work()
        try takeBirth()
    }

    /// Begins the segment behind the last one, which is full.
    mutating func follow(
        _ identity: Identity, number: UInt64, firstOp: OpNumber, previous: UInt64
    ) throws(SystemError) {
        guard let beginBeside = options.beginBeside else {
            return try begin(
                identity, number: number, firstOp: firstOp, previous: previous, after: file)
        }
        beginBeside(bear(identity, number, firstOp, previous, after: file))
    }

    /// From here on records go to the new segment; what is given back makes its file.
    private mutating func bear(
        _ identity: Identity, _ number: UInt64, _ firstOp: OpNumber, _ previous: UInt64,
        after last: OpenFile?
    ) -> @Sendable () -> Void {
        let (header, bytes, writer) = SegmentHeader.birth(
            identity: identity, number: number, firstOp: firstOp, previous: previous,
            salt: options.random(), standing.records)
        let isLastDurable = self.writer.map { $0.durable == $0.offset } ?? true
        let birth = SegmentBirth(
            Begun(number: number, firstOp: firstOp, checksum: header.checksum))
        self.writer = writer
        self.birth = birth
        let (disk, folder, options) = (disk, folder, options)
        return {
            do throws(SystemError) {
                // Whatever the durability: a segment that another follows is durable to its end.
                if let last, !isLastDurable { try disk.sync(last) }
                let name = SegmentHeader.name(number)
                try disk.publish(folder, name, bytes, size: options.segmentBytes)
                birth.finish(.success(try disk.open("\(folder)/\(name)")))
            } catch {
                birth.finish(.failure(error))
            }
            options.onBegun()
        }
    }

    /// Puts the segment that was made in the place of the one before; waits for it if need be.
    mutating func takeBirth() throws(SystemError) {
        guard let birth else { return }
        self.birth = nil
        switch birth.wait() {
        case .success(let new):
            if let file { disk.close(file) }
            file = new
            // Not before it is there: a checkpoint names the segment that replay begins with.
            begun.append(birth.begun)
            counts.segmentsBegun += 1
        case .failure(let error):
            failure = error
            throw error
        }
    }
}

extension Disk {
    func closeNew(_ outcome: Result<OpenFile, SystemError>) {
        if case .success(let file) = outcome { close(file) }
    }
}
