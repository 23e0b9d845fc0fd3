package import Wire

/// The client table: what each session's last call was answered, so that a call that is sent
/// again is not executed again (Viewstamped Replication Revisited, section 4.1; RIFL). Part of the
/// replicated state.
package struct Sessions: Equatable, Sendable {
    private struct Session: Equatable, Sendable {
        var client: UInt64
        var sequence: UInt64
        var reply: Reply
        var op: OpNumber
    }

    package static let countMax = 65_536

    private var sessions: [Session] = []
    /// Places in `sessions`; only looked up, never walked.
    private var places: [UInt64: Int] = [:]

    package init() {}

    package var count: Int { sessions.count }

    package enum Verdict: Equatable, Sendable {
        case execute
        case answer(Reply)
    }

    /// What is to be done with a call. Its first sequence is 1; a client's number is chosen at
    /// random and never used again. A first call that is sent again when its session has been
    /// forgotten is executed again: `countMax * 3 / 4` others have begun in between.
    package func verdict(on call: Request.Call) -> Verdict {
        guard let place = places[call.client] else {
            if call.sequence == 1 { return .execute }
            return .answer(.error("NOSESSION client \(call.client) is not known; begin with 1"))
        }
        let session = sessions[place]
        if call.sequence == session.sequence { return .answer(session.reply) }
        if call.sequence == session.sequence + 1 { return .execute }
        return .answer(.error("SEQUENCE expected \(session.sequence + 1)"))
    }

    package mutating func record(_ call: Request.Call, _ reply: Reply, at op: OpNumber) {
        let session = Session(
            client: call.client, sequence: call.sequence, reply: reply, op: op)
        if let place = places[call.client] {
            sessions[place] = session
            return
        }
        if sessions.count == Self.countMax { forgetOldest() }
        places[call.client] = sessions.count
        sessions.append(session)
    }

    /// Forgets the quarter that has been silent longest.
    private mutating func forgetOldest() {
        sessions.sort { $0.op < $1.op }
        sessions.removeFirst(Self.countMax / 4)
        places = [:]
        for (place, session) in sessions.enumerated() { places[session.client] = place }
    }

    package mutating func removeAll() { self = Sessions() }

    package func write(to writer: inout SnapshotWriter) {
        writer.add(sessions.count)
        for session in sessions {
            writer.add(session.client)
            writer.add(session.sequence)
            writer.add(session.op.rawValue)
            switch session.reply {
            case .ok: writer.add(0)
            case .integer(let value):
                writer.add(1)
                writer.add(UInt64(bitPattern: value))
            case .error(let text):
                writer.add(2)
                writer.add(Array(text.utf8))
            case .text(let text):
                writer.add(3)
                writer.add(Array(text.utf8))
            }
        }
    }

    package init(from reader: inout SnapshotReader) throws(DecodeError) {
        for _ in 0..<(try reader.count()) {
            let client = try reader.number()
            let sequence = try reader.number()
            let op = try OpNumber(reader.number())
            let reply: Reply
            switch try reader.number() {
            case 0: reply = .ok
            case 1: reply = try .integer(Int64(bitPattern: reader.number()))
            case 2: reply = try .error(String(decoding: reader.string(), as: UTF8.self))
            case 3: reply = try .text(String(decoding: reader.string(), as: UTF8.self))
            default: throw DecodeError("bad reply in snapshot")
            }
            guard places.updateValue(sessions.count, forKey: client) == nil else {
                throw DecodeError("a session twice in snapshot")
            }
            sessions.append(
                Session(client: client, sequence: sequence, reply: reply, op: op))
        }
    }
}
