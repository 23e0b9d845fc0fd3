package import Wire

/// All services of one group of replicas: they share one history, and so its log, its client table
/// and its snapshots. A command's first byte says whose it is.
package struct ServiceSet: StateMachine {
    package enum Effect: Equatable, Sendable {
        case polls(Polls.Effect)
        case rooms(Rooms.Effect)
    }

    package private(set) var polls = Polls()
    package private(set) var rooms = Rooms()

    package init() {}

    package mutating func apply(
        _ command: Span<UInt8>, at context: OpContext, into effects: inout [Effect]
    ) -> Reply {
        if command.count > 0, command[0] >= RoomCommand.firstTag {
            var own: [Rooms.Effect] = []
            defer { for effect in own { effects.append(.rooms(effect)) } }
            return rooms.apply(command, at: context, into: &own)
        }
        var own: [Polls.Effect] = []
        defer { for effect in own { effects.append(.polls(effect)) } }
        return polls.apply(command, at: context, into: &own)
    }

    package func snapshot() -> [UInt8] {
        var writer = SnapshotWriter()
        writer.add(polls.snapshot())
        writer.add(rooms.snapshot())
        return writer.bytes
    }

    package init(snapshot: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(snapshot)
        polls = try Polls(snapshot: reader.string())
        rooms = try Rooms(snapshot: reader.string())
        guard reader.isAtEnd else { throw DecodeError("bytes behind the services' snapshot") }
    }
}
