import Linux
import Replication
import Services
import Storage
import Wire

// INFO: lines of `key:value`.
extension Server {
    /// What `INFO pollsrv` answers.
    var statusText: String {
        var lines: [(String, String)] = []
        let view = replica.isMember || replica.status == .learning ? replica.view : nil
        let polls = executor.service.polls
        lines.append(("service", service?.description ?? ""))
        let isIn = replica.isMember
        lines.append(("mode", isPrimary ? "primary" : isIn ? "backup" : "joining"))
        lines.append(("view", "\(view?.number.rawValue ?? 0)"))
        lines.append(("id", "\(me.id.id)"))
        lines.append(("instance", "\(me.instance)"))
        lines.append(("address", "\(me.address)"))
        lines.append(("pid", "\(me.pid)"))
        lines.append(("op", "\(replica.op)"))
        lines.append(("commit", "\(replica.commitMin)"))
        for (role, member) in [("primary", view?.primary), ("backup", view?.backups.first)] {
            guard let member else { continue }
            lines.append(("\(role)_id", "\(member.id.id)"))
            lines.append(("\(role)_address", "\(member.address)"))
            lines.append(("\(role)_pid", "\(processNumber(of: member))"))
        }
        let whole = settings.election == .bully ? "group" : "pair"
        let state = view == nil ? "none" : view?.backups.isEmpty == true ? "solo" : whole
        lines.append(("state", state))
        lines.append(("stalled", isStalled ? "1" : "0"))
        let members = view?.members.map { "\($0.id.id)@\($0.address)" } ?? []
        lines.append(("members", members.joined(separator: ",")))
        var clients = 0
        for case let connection? in connections where connection.kind == .client {
            if connection.voterPlace != nil || connection.witness != nil { clients += 1 }
        }
        lines.append(("clients", "\(clients)"))
        lines.append(("connections", "\(connectionCount)"))
        lines.append(("witnesses", "\(view?.witnesses.count ?? 0)"))
        lines.append(("votes_open", polls.openVotes.map(String.init).joined(separator: ",")))
        lines.append(("votes_closed", "\(polls.closedCount)"))
        lines.append(("voters", "\(polls.joinedCount)"))
        lines.append(("held", "\(held.unsettledCount(polls))"))
        // It costs a snapshot, which a large service should not pay for each look.
        if settings.hasTestHooks {
            lines.append(("digest", String(executor.digest, radix: 16)))
        }
        let (path, via) = pathWords
        let isCut = partner.map { cutInstances.contains($0.instance) } ?? false
        lines.append(("link", isCut ? "cut" : path == "relay" ? "none" : path))
        lines.append(("path", path))
        if !via.isEmpty { lines.append(("path_via", via)) }
        lines.append(("rss_kib", "\(Processes.residentKilobytes(Processes.pid))"))
        lines.append(("heartbeat_ms", "\(settings.heartbeatMilliseconds)"))
        lines.append(("misses", "\(settings.misses)"))
        lines.append(("restart", replacement.statusWord))
        lines += loopLines + diskLines
        lines.append(("note", note))
        return lines.map { "\($0.0):\($0.1)\r\n" }.joined()
    }

    /// Of the process that is this member now: what the view names may have ended, and another have gone
    /// on from its disk.
    private func processNumber(of member: Member) -> UInt64 {
        if member.instance == me.instance { return me.pid }
        guard links[member.instance] != nil, let known = knownReplicas[member.instance] else {
            return member.pid
        }
        return known.member.pid
    }

    private var note: String {
        // Of what people must do these are the short words; its messages say more.
        guard isStalled, replica.fork == nil, replica.missing == nil, let stall else {
            return joining.note(replica)
        }
        return stall.reason
    }

    private var diskLines: [(String, String)] {
        guard let durable else { return [("durability", "memory")] }
        let counts = durable.store.counts
        return [
            ("durability", "disk"), ("sync_mode", durable.store.options.durability.rawValue),
            ("journal_syncs", "\(counts.syncs)"),
            ("journal_syncs_of_a_turn_max", "\(durable.syncsOfATurnMax)"),
            ("journal_sync_us", "\(durable.syncNanoseconds / 1_000)"),
            ("journal_writes", "\(counts.writes)"), ("journal_bytes", "\(counts.bytes)"),
            ("journal_segments", "\(counts.segmentsBegun)"),
            ("checkpoints", "\(counts.checkpoints)"),
            ("checkpoint_running", durable.store.isWritingCheckpoint ? "1" : "0"),
            ("checkpoint_ms", "\(durable.checkpointNanoseconds / 1_000_000)"),
            ("checkpoint_op", "\(durable.store.checkpointOp)"),
        ]
    }

    private var loopLines: [(String, String)] {
        let longest = loop.longestMicroseconds(at: Clock.monotonicNanoseconds())
        return [
            ("loop_turns", "\(loop.turns)"), ("loop_longest_turn_us", "\(longest.time)"),
            ("loop_longest_turn_cpu_us", "\(longest.processor)"),
            ("loop_turns_over_10ms", "\(loop.over10Milliseconds)"),
        ]
    }
}
