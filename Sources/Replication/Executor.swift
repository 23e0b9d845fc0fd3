package import Wire

/// The replicated state: a service and the client table. Executes the log's entries in order.
package struct Executor<Service: StateMachine>: Equatable, Sendable {
    package private(set) var service: Service
    package private(set) var sessions = Sessions()
    /// The last op that was executed.
    package private(set) var op = OpNumber(0)
    /// Of the log through `op`.
    package private(set) var hash = LogHash.beginning
    /// Of the entry that ends with `op`; 0: there is none.
    package private(set) var view = ViewNumber(0)

    /// Of the log so far.
    package var end: LogEnd { LogEnd(view: view, op: op) }

    package init() {
        service = Service()
    }

    /// Executes one entry; `onReply` gets each request's answer in the order of their ops.
    ///
    /// Precondition: the entry follows `op`, and its batch was validated when it was decoded.
    package mutating func execute(
        _ entry: Entry, effects: inout [Service.Effect], onReply: (OpNumber, Reply) -> Void
    ) {
        precondition(entry.first == op.next, "executing \(entry.first) after \(op)")
        var reader = BatchReader()
        let bytes = entry.batch.bytes.span
        while reader.nextValid(bytes) {
            op = op.next
            let context = OpContext(view: entry.view, op: op, time: entry.time)
            let command = bytes.extracting(reader.command)
            guard let call = reader.call else {
                onReply(op, service.apply(command, at: context, into: &effects))
                continue
            }
            switch sessions.verdict(on: call) {
            case .answer(let reply): onReply(op, reply)
            case .execute:
                let reply = service.apply(command, at: context, into: &effects)
                sessions.record(call, reply, at: op)
                onReply(op, reply)
            }
        }
        precondition(op == entry.last, "entry to \(entry.last) ended at \(op)")
        (hash, view) = (entry.hash, entry.view)
    }

    /// The state begins another service, which has other views: of its entries none ends here.
    package mutating func beginService() { view = ViewNumber(0) }

    /// For `Breakage.forgottenSessions`.
    package mutating func forgetSessions() { sessions.removeAll() }

    package func snapshot() -> [UInt8] {
        var writer = SnapshotWriter()
        writer.add(op.rawValue)
        writer.add(hash.rawValue)
        writer.add(view.rawValue)
        sessions.write(to: &writer)
        writer.add(service.snapshot())
        return writer.bytes
    }

    package init(snapshot: [UInt8]) throws(DecodeError) {
        var reader = SnapshotReader(snapshot)
        op = try OpNumber(reader.number())
        hash = try LogHash(reader.number())
        view = try ViewNumber(reader.number())
        sessions = try Sessions(from: &reader)
        service = try Service(snapshot: reader.string())
        guard reader.isAtEnd else { throw DecodeError("bytes behind the snapshot's end") }
    }

    /// Equal on two replicas that have executed the same ops.
    package var digest: UInt64 { Digest.of(snapshot()) }
}
