import Linux
import Replication
import Wire

// The services' state for learners. It may be hundreds of megabytes: it is encoded beside the loop
// and sent a piece at a time, as the connection takes them, while requests go on.
extension Server {
    /// Only over a direct connection: a learner is no member, and to members alone is relayed.
    func sendState(to learner: Instance, _ join: JoinID) {
        guard let link = links[learner] else { return }
        transfers.removeAll { $0.learner == learner }
        guard now >= stateTooLargeUntil else {
            close(link)
            return
        }
        do throws(SystemError) {
            let state = try EncodedState.begin(executor, waking: loopWaker) { $0.snapshot() }
            transfers.append(
                StateTransfer(learner: learner, join: join, link: link, state: state))
        } catch {
            // The learner asks again over its next connection.
            log.warning("no state can be sent: \(error)")
            close(link)
        }
    }

    /// At most one piece each, so that a turn stays short.
    func feedTransfers() {
        var index = 0
        while index < transfers.count {
            var transfer = transfers[index]
            let (learner, link) = (transfer.learner, transfer.link)
            // What was begun for a connection or a join that is over ends here.
            guard link.isOpen, links[learner] === link, replica.awaitsState(learner, transfer.join)
            else {
                transfers.remove(at: index)
                continue
            }
            guard transfer.canGoOn, let bytes = transfer.state.result else {
                index += 1
                continue
            }
            guard bytes.count <= Replica.stateBytesMax else {
                // It would be sent for nothing, again and again.
                log.warnOnce(
                    "the state has \(bytes.count) bytes: more than the \(Replica.stateBytesMax) that a "
                        + "replica can be sent, so none can join")
                transfers.remove(at: index)
                stateTooLargeUntil = now + 60_000_000_000
                close(link)
                continue
            }
            let pieces = max(
                1, (bytes.count + StateTransfer.pieceBytes - 1) / StateTransfer.pieceBytes)
            let start = transfer.piecesSent * StateTransfer.pieceBytes
            let piece = Array(bytes[start..<min(bytes.count, start + StateTransfer.pieceBytes)])
            // As it is now: the learner may have heard of it from others, and an older one would show
            // it a primary that does not know it is over.
            // Nor one that this replica itself may not know any more after a loss of power.
            guard let view = replica.view, shownView?.number == view.number else { return }
            let message = Message.state(
                transfer.join, view: view, end: transfer.state.end, hash: transfer.state.hash,
                piece: transfer.piecesSent, pieces: pieces, bytes: piece)
            link.write { message.encode(head: "PEER", into: &$0) }
            markDirty(link)
            transfer.piecesSent += 1
            guard transfer.piecesSent == pieces else {
                transfers[index] = transfer
                index += 1
                continue
            }
            transfers.remove(at: index)
            log.detail("sent \(bytes.count) bytes of state to a learner")
            // Behind the last piece: what the core sends now is to be read after the state. What
            // was committed meanwhile it has kept, or it has the learner ask anew.
            step(.stateSent(to: learner, join: transfer.join, op: transfer.state.end.op))
        }
    }

    /// Whether the next turn has something to send at once.
    var isFeeding: Bool { transfers.contains { $0.canGoOn } }
}
