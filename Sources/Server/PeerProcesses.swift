import Linux
import Replication
import Wire

/// Handles on the processes of replicas on this host. A handle counts only once its process has
/// answered over the link after the handle was opened: until then the number may be another's.
struct PeerProcesses {
    final class Entry {
        let life: Life
        let handle: ProcessHandle
        let nonce: UInt64
        var isConfirmed = false

        init(_ member: Member, handle: consuming ProcessHandle, nonce: UInt64) {
            life = Life(member)
            self.handle = handle
            self.nonce = nonce
        }
    }

    var entries: [Entry] = []

    func owns(_ fd: CInt) -> Bool {
        entries.contains { $0.isConfirmed && $0.handle.fd.raw == fd }
    }
}

// What their processes' ends tell of other replicas.
extension Server {
    func watchProcess(_ member: Member, _ connection: Connection) {
        guard member.host == me.host, member.pid != me.pid,
            !processes.entries.contains(where: { $0.life == Life(member) }),
            let handle = ProcessHandle(pid: Int32(clamping: member.pid))
        else { return }
        let nonce = Entropy.next() >> 2
        processes.entries.append(
            PeerProcesses.Entry(member, handle: handle, nonce: nonce))
        connection.write { RESP.command(["PEER", "ping", "\(nonce)"], into: &$0) }
        markDirty(connection)
    }

    func confirmProcess(_ instance: Instance, nonce: UInt64) {
        guard
            let entry = processes.entries.first(where: {
                $0.life.instance == instance && $0.nonce == nonce && !$0.isConfirmed
            })
        else { return }
        do {
            try poller.add(entry.handle.fd.raw)
            entry.isConfirmed = true
        } catch {
            log.warnOnce("\(error)")
        }
    }

    func dropUnconfirmed(_ instance: Instance) {
        processes.entries.removeAll { $0.life.instance == instance && !$0.isConfirmed }
    }

    func onProcessExit(_ fd: CInt) {
        guard let entry = processes.entries.first(where: { $0.handle.fd.raw == fd }) else { return }
        poller.remove(fd)
        processes.entries.removeAll { $0 === entry }
        let instance = entry.life.instance
        let peer = knownReplicas[instance]
        let who = peer.map { "\($0.member.id) at \($0.member.address)" } ?? "\(instance)"
        log.info("the process of replica \(who) has exited")
        if let peer, Life(peer.member) != entry.life {
            // A newer one of the same instance is connected, or was.
            step(Replica.Event.exited(instance, entry.life))
        } else {
            step(Paths.Event.exited(instance, entry.life))
        }
    }
}
