package import Wire

/// Whose journal it is. Nothing of another identity is ever read as one's own.
package struct Identity: Hashable, Sendable, CustomStringConvertible {
    package var service: ServiceID
    package var id: ReplicaID
    /// Kept across restarts: with its journal a replica is the same replica.
    package var instance: Instance

    package init(service: ServiceID, id: ReplicaID, instance: Instance) {
        self.service = service
        self.id = id
        self.instance = instance
    }

    package var description: String { "service \(service), id \(id), instance \(instance)" }

    /// The version of all formats here: of segments, of checkpoints and of the identity's file.
    package static let formatVersion: UInt32 = 4

    /// The file `identity`: lines of text, the last with the XXH64 of those before it.
    package var text: String {
        let head = """
            pollsrv journal \(Self.formatVersion)
            service \(service)
            id \(id.priority) \(id.id)
            instance \(instance)

            """
        return head + "check \(Self.hex(Checksum.of(Array(head.utf8))))\n"
    }

    package init(text: String) throws(DecodeError) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let first = lines.first, first.hasPrefix("pollsrv journal ") else {
            throw DecodeError("not an identity of a journal")
        }
        let version = first.dropFirst("pollsrv journal ".count)
        guard version == "\(Self.formatVersion)" else {
            throw DecodeError(
                "format \(version), of another version of pollsrv: this one reads \(Self.formatVersion)"
            )
        }
        guard lines.count == 6, let service = ServiceID(text: Self.value("service", lines[1])),
            let instance = Instance(text: Self.value("instance", lines[3]))
        else { throw DecodeError("a rotten identity") }
        let ranks = Self.value("id", lines[2]).split(separator: " ")
        guard ranks.count == 2, let priority = UInt64(ranks[0]), let id = UInt64(ranks[1]) else {
            throw DecodeError("a rotten identity")
        }
        self.init(
            service: service, id: ReplicaID(priority: priority, id: id), instance: instance)
        // Also the check and every blank must be as written.
        guard self.text == text else { throw DecodeError("a rotten identity") }
    }

    private static func value(_ key: String, _ line: Substring) -> String {
        line.hasPrefix(key + " ") ? String(line.dropFirst(key.utf8.count + 1)) : ""
    }

    static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}

extension Identity {
    /// As in the headers of segments and checkpoints: 40 bytes.
    func append(to bytes: inout [UInt8]) {
        for value in [service.high, service.low, id.priority, id.id, instance.rawValue] {
            LittleEndian.append(value, to: &bytes)
        }
    }

    init(_ bytes: Span<UInt8>, at place: Int) {
        func number(_ index: Int) -> UInt64 { LittleEndian.read64(bytes, at: place + 8 * index) }
        self.init(
            service: ServiceID(high: number(0), low: number(1)),
            id: ReplicaID(priority: number(2), id: number(3)), instance: Instance(number(4)))
    }
}
