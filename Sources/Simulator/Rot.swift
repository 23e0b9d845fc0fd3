import Journal
import Storage
import Synchronization
import Wire

// Bytes that were durable and change, of files at rest and of running replicas.
extension Simulation {
    /// Where a change is sure to be rot: what stands there was durable, and something durable that
    /// stands elsewhere proves that. Of a journal's last write nothing does, so a change there looks
    /// like a write that was not finished, and is left out.
    private struct Spot {
        var path: String
        var bytes: [UInt8]
        var proven: Range<Int>
        /// Of a segment's records that are proven to have been durable.
        var records: [Range<Int>] = []
    }

    /// Usually one drive at a time, and not the last copy.
    func rot() {
        guard !(disks.contains(where: \.isDoubtful) || isAnyShort) || random.chance(50),
            let drive = random.element(disks.filter { !$0.isForgetful })
        else { return }
        let isRunning = listening[drive.slot].map { replicas[$0].disk === drive } ?? false
        guard isRunning || mayLose([drive.instance]) else { return }
        let spots = spots(drive)
        guard let any = random.element(spots) else { return }
        var (spot, found) = (any, random.chance(600) ? nil : change(any))
        // Where a record can take another's place is seldom; if nowhere here, it is some bits.
        for other in spots where found == nil {
            found = misplace(other)
            spot = other
        }
        if found == nil {
            spot = any
            found = change(any)
        }
        guard let (offset, new) = found else { return }
        tell { "\(new.count) bytes at \(offset) of \(spot.path) in slot \(drive.slot) rot" }
        coverage.note(isRunning ? .rottenInUse : .rottenAtRest)
        (drive.hasRotted, drive.isDoubtful) = (true, true)
        drive.files.state.withLock { $0.rot(spot.path, at: offset, new) }
    }

    private func spots(_ drive: Drive) -> [Spot] {
        let (names, files) = drive.files.state.withLock { state in
            let names = state.durableNames.filter { $0.hasPrefix("\(Drive.folder)/") }
                .map { String($0.dropFirst(Drive.folder.utf8.count + 1)) }
            return (names, names.map { state.durableBytes("\(Drive.folder)/\($0)") })
        }
        let last = names.compactMap { Survey.number($0, "segment-") }.max()
        var spots: [Spot] = []
        for (name, bytes) in zip(names, files) where !bytes.isEmpty {
            let path = "\(Drive.folder)/\(name)"
            if let number = Survey.number(name, "segment-") {
                if let spot = segment(path, bytes, isLast: number == last) { spots.append(spot) }
            } else if Survey.number(name, "checkpoint-") != nil
                || name == "identity" && random.chance(50)
            {
                spots.append(Spot(path: path, bytes: bytes, proven: 0..<bytes.count))
            }
        }
        return spots
    }

    private func segment(_ path: String, _ bytes: [UInt8], isLast: Bool) -> Spot? {
        do throws(Flaw) {
            var reader = try SegmentReader(bytes)
            var records: [Range<Int>] = []
            while reader.next() != nil { records.append(reader.lastOffset..<reader.offset) }
            guard reader.stop == .end else { return nil }
            let end = isLast ? max(reader.lastDurable, reader.header.born) : reader.offset
            return Spot(
                path: path, bytes: bytes, proven: 0..<end,
                records: records.filter { $0.upperBound <= end })
        } catch {
            return nil
        }
    }

    /// Some bits, or a lost write.
    private func change(_ spot: Spot) -> (Int, [UInt8])? {
        let offset = random.int(0...spot.proven.upperBound - 1)
        if random.chance(500) {
            return (offset, [spot.bytes[offset] ^ UInt8(1 << random.int(0...7))])
        }
        let end = min(offset / 64 * 64 + 64, spot.proven.upperBound)
        let isZero = spot.bytes[offset..<end].allSatisfy { $0 == 0 }
        return isZero ? nil : (offset, [UInt8](repeating: 0, count: end - offset))
    }

    /// Another record of the same length in the place of one. Most of all of what binds a replica,
    /// as no later record need depend on it.
    private func misplace(_ spot: Spot) -> (Int, [UInt8])? {
        let isBinding = random.chance(900)
        var pairs: [(Range<Int>, Range<Int>)] = []
        for place in spot.records where !isBinding || spot.bytes[place.lowerBound + 23] >= 4 {
            for other in spot.records
            where other.count == place.count && other != place
                && spot.bytes[other.lowerBound + 23] == spot.bytes[place.lowerBound + 23]
            {
                pairs.append((place, other))
            }
        }
        // The latest of all is the one that nothing later makes good.
        let latest = pairs.filter { $0.0 == pairs.last?.0 }
        guard let (place, other) = random.element(random.chance(700) ? latest : pairs) else {
            return nil
        }
        coverage.note(.recordMisplaced)
        return (place.lowerBound, Array(spot.bytes[other]))
    }
}
