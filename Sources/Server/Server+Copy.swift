import Journal
import Linux
import Replication
import Services
import Wire

/// A copy of the whole state that an operator is fetching over one connection: a file in the format
/// of checkpoints.
struct ServiceCopy {
    let connection: Connection
    let file: EncodedState
    /// When it was last asked for (monotonic nanoseconds).
    var usedAt: UInt64

    static let pieceBytes = 1 << 20
    /// Nobody keeps the memory, and others from theirs, for longer without asking for a piece.
    static let idleNanosecondsMax: UInt64 = 60_000_000_000
}

// COPY: the state as one file, while the service goes on. One at a time, since each takes as much
// memory as the state.
extension Server {
    func copyCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        let usage = "COPY BEGIN | COPY READ offset | COPY END"
        guard arguments.count >= 2 else {
            replyArity(connection, usage)
            return
        }
        switch (arguments.word(1), arguments.count) {
        case ("BEGIN", 2):
            guard requirePrimary(connection) else { return }
            // As a read: all that was answered before it came is in the copy.
            wait(connection, .read(.copy(epoch: connection.copyEpoch)))
        case ("READ", 3):
            guard let offset = arguments.number(2) else {
                replyArity(connection, usage)
                return
            }
            readCopy(from: offset, connection)
        case ("END", 2):
            loseCopy(connection)
            connection.copyEpoch += 1
            replyOK(connection)
        default: replyArity(connection, usage)
        }
    }

    /// The state of this moment is to be copied.
    func answerCopy(_ connection: Connection, epoch: UInt64) {
        guard epoch == connection.copyEpoch else {
            connection.write { RESP.error("NOCOPY COPY END came before it was made", into: &$0) }
            return
        }
        // One that nobody wants any more is made to its end all the same.
        let isBeingMade = copyBeingMade.map { $0.result == nil } ?? false
        guard !isBeingMade, copy.map({ $0.connection === connection }) ?? true else {
            connection.write {
                RESP.error("BUSY another copy is being made or fetched; try later", into: &$0)
            }
            return
        }
        copy = nil
        guard let service, let view = replica.view else {
            connection.write { RESP.error("TRYAGAIN this replica is in no view", into: &$0) }
            return
        }
        let header = CheckpointHeader(
            copyBy: Identity(service: service, id: me.id, instance: me.instance), op: executor.op,
            view: view.number, hash: executor.hash, salt: Entropy.next())
        do throws(SystemError) {
            let file = try EncodedState.begin(executor, waking: loopWaker) { executor in
                var header = header
                let snapshot = executor.snapshot()
                guard snapshot.count <= CheckpointHeader.snapshotBytesMax else { return [] }
                header.snapshotBytes = snapshot.count
                return Checkpoint.encode(header, snapshot)
            }
            copy = ServiceCopy(connection: connection, file: file, usedAt: now)
            copyBeingMade = file
        } catch {
            connection.write { RESP.error("BUSY no copy can be made now: \(error)", into: &$0) }
            return
        }
        log.info("copying the state after op \(header.op) for connection \(connection.number)")
        connection.write { bytes in
            RESP.array(3, into: &bytes)
            RESP.bulk(service.description, into: &bytes)
            RESP.integer(Int64(header.op.rawValue), into: &bytes)
            RESP.integer(Int64(header.view.rawValue), into: &bytes)
        }
    }

    private func readCopy(from offset: UInt64, _ connection: Connection) {
        guard copy?.connection === connection, let file = copy?.file else {
            replyError(connection, "NOCOPY this connection has no copy; COPY BEGIN makes one")
            return
        }
        // Pieces that wait behind other replies would take their memory a second time.
        guard connection.pending == 0, connection.outputCount < ServiceCopy.pieceBytes else {
            replyError(connection, "BUSY ask for a piece when the replies before it have come")
            return
        }
        copy?.usedAt = now
        guard let bytes = file.result else {
            replyError(connection, "TRYAGAIN the copy is being made")
            return
        }
        guard !bytes.isEmpty else {
            replyError(connection, "NOCOPY the state has more than 4 GiB, which no copy takes")
            return
        }
        let start = Int(min(offset, UInt64(bytes.count)))
        let end = min(bytes.count, start + ServiceCopy.pieceBytes)
        reply(connection) { RESP.bulk(Array(bytes[start..<end]), into: &$0) }
    }

    /// The connection wants its copy no more, or is gone.
    func loseCopy(_ connection: Connection) {
        if copy?.connection === connection { copy = nil }
    }

    func tickCopy() {
        if copyBeingMade?.result != nil { copyBeingMade = nil }
        guard let copy, now > copy.usedAt + ServiceCopy.idleNanosecondsMax else { return }
        log.info("the copy for connection \(copy.connection.number) is not fetched: dropped")
        self.copy = nil
    }
}
