package import Linux
package import Storage
package import Synchronization

/// A disk in memory that can lose its power: what was not synced is then lost, torn or kept in any
/// combination of sectors and names, as a seed decides.
package final class SimulatedDisk: Disk {
    package enum Call: Hashable, Sendable {
        case create, allocate, write, sync, rename, remove, syncFolder, list, read
    }

    private enum Change: Sendable {
        case bytes(at: Int, [UInt8])
        case truncated(Int)
        case reserved(Int)
    }

    private struct Node: Sendable {
        /// As programs see it.
        var seen: [UInt8] = []
        /// As a loss of power would leave it at the least.
        var durable: [UInt8] = []
        var pending: [Change] = []
        /// Programs see what is neither durable nor pending.
        var isForgotten = false
    }

    private struct NameChange: Sendable {
        let folder: String
        /// Names and what they stand for from then on; nil: nothing.
        let names: [(name: String, node: Int?)]
    }

    package struct State: Sendable {
        private var nodes: [Node] = []
        private var seen: [String: Int] = [:]
        private var durable: [String: Int] = [:]
        private var changes: [NameChange] = []
        private var handles: [Int32: Int] = [:]
        private var locks: [String: Int32] = [:]
        private var nextHandle: Int32 = 3
        /// Bytes and calls until the power goes.
        package var budget: Int?
        package var isOff = false
        package private(set) var spent = 0
        /// The calls that fail: the how-manieth of its kind, from 1, and with which errno.
        package var faults: [Call: (number: Int, code: Int32)] = [:]
        /// Every write takes this many bytes at most.
        package var writeMax = Int.max
        /// No file can become longer.
        package var isFull = false
        package private(set) var counts: [Call: Int] = [:]

        fileprivate mutating func spend(_ units: Int) -> Int {
            if isOff { return 0 }
            guard let budget else {
                spent += units
                return units
            }
            let taken = min(units, budget)
            self.budget = budget - taken
            spent += taken
            if taken < units { isOff = true }
            return taken
        }

        fileprivate mutating func begin(_ call: Call, _ path: String) throws(SystemError) {
            counts[call, default: 0] += 1
            guard spend(1) == 1 else { throw Self.off(path) }
            if let fault = faults[call], fault.number == counts[call] {
                // A failed sync: the kernel calls the pages clean, shows them, and forgets them.
                if call == .sync, let node = seen[path] {
                    nodes[node].pending = []
                    nodes[node].isForgotten = true
                }
                throw SystemError("\(call)", path, code: fault.code)
            }
        }

        private static func off(_ path: String) -> SystemError {
            SystemError("off", path, code: SystemError.inputOutput)
        }

        /// The next call of this kind fails.
        mutating func fail(_ call: Call, _ code: Int32) {
            faults[call] = (counts[call, default: 0] + 1, code)
        }

        fileprivate mutating func node(_ file: OpenFile) -> Int { handles[file.handle] ?? 0 }

        fileprivate mutating func open(_ path: String, isNew: Bool) throws(SystemError) -> OpenFile
        {
            let node: Int
            if isNew {
                try begin(.create, path)
                if let old = seen[path] {
                    change(old, .truncated(0))
                    node = old
                } else {
                    node = nodes.count
                    nodes.append(Node())
                    rename([(path, node)], in: path)
                }
            } else {
                guard let old = seen[path] else { throw SystemError("open", path, code: 2) }
                node = old
            }
            nextHandle += 1
            handles[nextHandle] = node
            return OpenFile(handle: nextHandle, path: path)
        }

        private mutating func rename(_ names: [(String, Int?)], in path: String) {
            for (name, node) in names { seen[name] = node }
            changes.append(NameChange(folder: parent(path), names: names))
        }

        private func parent(_ path: String) -> String {
            String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        }

        private mutating func change(_ node: Int, _ change: Change) {
            Self.apply(change, to: &nodes[node].seen)
            nodes[node].pending.append(change)
        }

        private static func apply(_ change: Change, to bytes: inout [UInt8]) {
            func grow(_ count: Int) {
                guard bytes.count < count else { return }
                if bytes.isEmpty {
                    bytes = [UInt8](repeating: 0, count: count)
                } else {
                    bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
                }
            }
            switch change {
            case .bytes(let at, let new):
                if bytes.isEmpty, at == 0 {
                    bytes = new
                    return
                }
                grow(at + new.count)
                bytes.replaceSubrange(at..<at + new.count, with: new)
            case .truncated(let count): bytes.removeSubrange(min(count, bytes.count)...)
            case .reserved(let count): grow(count)
            }
        }

        fileprivate mutating func lock(_ path: String) -> OpenFile? {
            if locks[path] != nil { return nil }
            nextHandle += 1
            locks[path] = nextHandle
            return OpenFile(handle: nextHandle, path: path)
        }

        fileprivate mutating func close(_ file: OpenFile) {
            handles[file.handle] = nil
            if locks[file.path] == file.handle { locks[file.path] = nil }
        }

        fileprivate mutating func write(
            _ file: OpenFile, _ bytes: ArraySlice<UInt8>, at offset: Int
        )
            throws(SystemError) -> Int
        {
            try begin(.write, file.path)
            let node = node(file)
            let room = isFull ? max(0, nodes[node].seen.count - offset) : .max
            let wanted = bytes.prefix(min(writeMax, room))
            if wanted.isEmpty, !bytes.isEmpty {
                throw SystemError("write", file.path, code: SystemError.noSpace)
            }
            let taken = spend(wanted.count)
            change(node, .bytes(at: offset, Array(wanted.prefix(taken))))
            if isOff { throw Self.off(file.path) }
            return taken
        }

        fileprivate mutating func sync(_ file: OpenFile) throws(SystemError) {
            try begin(.sync, file.path)
            let node = node(file)
            for change in nodes[node].pending { Self.apply(change, to: &nodes[node].durable) }
            nodes[node].pending = []
        }

        fileprivate mutating func allocate(_ file: OpenFile, _ count: Int) throws(SystemError) {
            try begin(.allocate, file.path)
            let node = node(file)
            guard nodes[node].seen.count < count else { return }
            if isFull { throw SystemError("allocate", file.path, code: SystemError.noSpace) }
            change(node, .reserved(count))
        }

        fileprivate mutating func truncate(_ file: OpenFile, _ count: Int) throws(SystemError) {
            try begin(.allocate, file.path)
            change(node(file), .truncated(count))
        }

        fileprivate mutating func rename(_ old: String, _ new: String) throws(SystemError) {
            try begin(.rename, new)
            guard let node = seen[old] else { throw SystemError("rename", new, code: 2) }
            if parent(old) == parent(new) {
                rename([(old, nil), (new, node)], in: new)
            } else {
                rename([(new, node)], in: new)
                rename([(old, nil)], in: old)
            }
        }

        fileprivate mutating func remove(_ path: String) throws(SystemError) {
            try begin(.remove, path)
            rename([(path, nil)], in: path)
        }

        fileprivate mutating func syncFolder(_ path: String) throws(SystemError) {
            try begin(.syncFolder, path)
            for change in changes where change.folder == path {
                for (name, node) in change.names { durable[name] = node }
            }
            changes.removeAll { $0.folder == path }
        }

        fileprivate mutating func list(_ folder: String) throws(SystemError) -> [String] {
            try begin(.list, folder)
            let prefix = folder + "/"
            let below = seen.keys.filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count) }
            return Set(below.map { String($0.prefix { $0 != "/" }) }).sorted()
        }

        fileprivate mutating func read(_ path: String) throws(SystemError) -> [UInt8] {
            try begin(.read, path)
            guard let node = seen[path] else { throw SystemError("open", path, code: 2) }
            return nodes[node].seen
        }

        /// The process has ended; the kernel goes on.
        package mutating func kill() {
            handles = [:]
            locks = [:]
            faults = [:]
            counts = [:]
            (isOff, budget, writeMax, spent) = (false, nil, .max, 0)
        }

        /// The power has gone and come back.
        package mutating func losePower(_ generator: inout some RandomNumberGenerator) {
            kill()
            // None, all, or each sector and name by itself.
            let mood = Int.random(in: 0..<6, using: &generator)
            func isKept(_ generator: inout some RandomNumberGenerator) -> Bool {
                mood == 0 ? false : mood == 1 ? true : Bool.random(using: &generator)
            }
            for node in nodes.indices where !nodes[node].pending.isEmpty || nodes[node].isForgotten
            {
                for change in nodes[node].pending {
                    guard case .bytes(let at, let bytes) = change else {
                        if isKept(&generator) { Self.apply(change, to: &nodes[node].durable) }
                        continue
                    }
                    // Sectors of 64 bytes, small enough for the tests' records to span several.
                    var start = 0
                    while start < bytes.count {
                        let end = min(bytes.count, (at + start) / 64 * 64 + 64 - at)
                        var kept = end
                        if mood == 5, Int.random(in: 0..<4, using: &generator) == 0 {
                            kept = Int.random(in: start...end, using: &generator)
                        }
                        if isKept(&generator), kept > start {
                            let piece = Change.bytes(
                                at: at + start, Array(bytes[start..<kept]))
                            Self.apply(piece, to: &nodes[node].durable)
                        }
                        start = end
                    }
                }
                nodes[node].pending = []
                nodes[node].isForgotten = false
                nodes[node].seen = nodes[node].durable
            }
            for change in changes where isKept(&generator) {
                for (name, node) in change.names { durable[name] = node }
            }
            changes = []
            seen = durable
        }

        /// Changes a file behind everybody's back.
        package mutating func spoil(_ path: String, _ body: (inout [UInt8]) -> Void) {
            guard let node = seen[path] else { return }
            body(&nodes[node].seen)
            nodes[node].durable = nodes[node].seen
        }

        package mutating func take(_ path: String) {
            seen[path] = nil
            durable[path] = nil
        }

        package var names: [String] { seen.keys.sorted() }

        /// What a loss of power would leave under each name at the least, by name.
        var durableNames: [String] { durable.keys.sorted() }
        func durableBytes(_ path: String) -> [UInt8] {
            durable[path].map { nodes[$0].durable } ?? []
        }
        func seenBytes(_ path: String) -> [UInt8] { seen[path].map { nodes[$0].seen } ?? [] }
        /// Whether a loss of power would change nothing, whatever is made of the durable bytes before: a
        /// write of the same bytes once more would bring them back.
        var isDurable: Bool {
            durable == seen
                && durable.values.allSatisfy {
                    nodes[$0].durable == nodes[$0].seen && nodes[$0].pending.isEmpty
                }
        }

        /// Bytes that are durable become others, for programs and on the disk.
        mutating func rot(_ path: String, at offset: Int, _ bytes: [UInt8]) {
            guard let node = durable[path] else { return }
            let change = Change.bytes(at: offset, bytes)
            Self.apply(change, to: &nodes[node].durable)
            if offset + bytes.count <= nodes[node].seen.count {
                Self.apply(change, to: &nodes[node].seen)
            }
        }
    }

    package let state = Mutex(State())

    package init() {}

    package func makeFolder(_ path: String) throws(SystemError) {}
    package func list(_ folder: String) throws(SystemError) -> [String] {
        try state.withLock { s throws(SystemError) in try s.list(folder) }
    }
    package func read(_ path: String) throws(SystemError) -> [UInt8] {
        try state.withLock { s throws(SystemError) in try s.read(path) }
    }
    package func lock(_ path: String) throws(SystemError) -> OpenFile? {
        state.withLock { $0.lock(path) }
    }
    package func create(_ path: String) throws(SystemError) -> OpenFile {
        try state.withLock { s throws(SystemError) in try s.open(path, isNew: true) }
    }
    package func open(_ path: String) throws(SystemError) -> OpenFile {
        try state.withLock { s throws(SystemError) in try s.open(path, isNew: false) }
    }
    package func allocate(_ file: OpenFile, bytes: Int) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.allocate(file, bytes) }
    }
    package func write(_ file: OpenFile, _ bytes: [UInt8], from start: Int, at offset: Int)
        throws(SystemError) -> Int
    {
        try state.withLock { s throws(SystemError) in
            try s.write(file, bytes[start...], at: offset)
        }
    }
    package func sync(_ file: OpenFile) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.sync(file) }
    }
    package func truncate(_ file: OpenFile, to bytes: Int) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.truncate(file, bytes) }
    }
    package func rename(_ old: String, to new: String) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.rename(old, new) }
    }
    package func remove(_ path: String) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.remove(path) }
    }
    package func syncFolder(_ path: String) throws(SystemError) {
        try state.withLock { s throws(SystemError) in try s.syncFolder(path) }
    }
    package func close(_ file: OpenFile) { state.withLock { $0.close(file) } }
}
