import Arguments
package import Journal
import Linux
import Replication
import Services
import Storage
import Wire

/// Why a service cannot begin from a file; the text names it and says what is wrong.
package struct RestorationError: Error, Sendable {
    package let text: String
}

/// The state that a new service begins with: a copy of another's.
package struct Restoration: Sendable {
    let path: String
    /// Whose copy it is, and of which op.
    package let header: CheckpointHeader
    let snapshot: [UInt8]
    private(set) var executor: Executor<ServiceSet>

    /// Reads a file that `pollctl backup` wrote; a checkpoint of a journal will do, too.
    package init(path: String) throws(RestorationError) {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try Files.readWhole(path)
        } catch {
            throw RestorationError(text: "\(error)")
        }
        guard Checkpoint.isMeant(bytes) else {
            throw RestorationError(
                text: "\(path): not a copy of a service; `pollctl backup` writes one")
        }
        let checkpoint: Checkpoint
        do throws(Flaw) {
            checkpoint = try Checkpoint(bytes)
        } catch {
            throw RestorationError(
                text: "\(path), offset \(error.offset): \(error.reason); take another copy")
        }
        do throws(DecodeError) {
            executor = try Executor(snapshot: checkpoint.snapshot)
        } catch {
            throw RestorationError(
                text: "\(path): intact, but not a state that this program reads: \(error.text)")
        }
        guard checkpoint.header.op.rawValue > 0 else {
            throw RestorationError(
                text: "\(path): the copy of a service in which nothing has happened; begin one "
                    + "without --restore")
        }
        guard executor.op == checkpoint.header.op else {
            throw RestorationError(
                text: "\(path): of op \(checkpoint.header.op), but its state of \(executor.op)")
        }
        executor.beginService()
        self.path = path
        header = checkpoint.header
        snapshot = executor.snapshot()
    }
}

extension Server {
    /// Takes the state over for the new service; with a disk it is durable when this returns, and
    /// counts when the core's record of it is.
    func adopt(_ restoration: Restoration) {
        log.info(
            "its state is that of service \(restoration.header.identity.service) after op "
                + "\(restoration.header.op), from \(restoration.path)")
        executor = restoration.executor
        if let durable {
            do throws(SystemError) {
                // In this service no entry ends with that op, and so none in any view.
                try durable.store.receive(
                    op: restoration.header.op, view: ViewNumber(0), hash: executor.hash,
                    snapshot: restoration.snapshot)
            } catch {
                failDisk(error)
            }
        }
        restartClocks()
    }

    /// There is a service already, which would be joined without `--restore`.
    func refuseToRestore(besides running: ServiceID?, at address: Address) {
        let name = running.map { "service \($0)" } ?? "a service"
        log.error(
            "\(name) is running at \(address): nothing is restored besides it; stop it first, or "
                + "start without --restore to join it")
        end(.unavailable)
    }
}
