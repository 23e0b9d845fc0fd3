import Linux
import Replication
import Services
import Synchronization
import Wire

/// The services' state as it was at `end`, being turned into bytes on a thread of its own while
/// the loop goes on. The thread has a copy of the state: a value that shares its memory with the
/// loop's until either changes a part of it.
final class EncodedState: Sendable {
    let end: LogEnd
    /// Of the log through that.
    let hash: LogHash
    private let bytes = Mutex<[UInt8]?>(nil)

    private init(end: LogEnd, hash: LogHash) { (self.end, self.hash) = (end, hash) }

    /// nil while it is being made.
    var result: [UInt8]? { bytes.withLock { $0 } }

    /// Throws: no thread can be started.
    static func begin(
        _ executor: Executor<ServiceSet>, waking waker: LoopWaker,
        encode: @escaping @Sendable (Executor<ServiceSet>) -> [UInt8]
    ) throws(SystemError) -> EncodedState {
        let state = EncodedState(end: executor.end, hash: executor.hash)
        try Threads.detach {
            let bytes = encode(executor)
            state.bytes.withLock { $0 = bytes }
            waker.wake()
        }
        return state
    }
}

/// A state on its way to a learner.
struct StateTransfer {
    let learner: Instance
    let join: JoinID
    /// The only connection that it may go over: one that breaks may have lost a piece.
    let link: Connection
    let state: EncodedState
    var piecesSent = 0

    static let pieceBytes = 1 << 20

    /// Whether there is a next piece, and room for it in the link's output.
    var canGoOn: Bool { state.result != nil && link.outputCount < Self.pieceBytes }
}
