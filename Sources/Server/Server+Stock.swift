import Linux
import Replication
import Services
import Wire

// HELLO, VIEW, INFO, and what stock Redis clients send by themselves.
extension Server {
    /// Whether the command changes the form of what is sent: what is owed has the old one, and goes first.
    func changesForm(_ bytes: Span<UInt8>, _ connection: Connection) -> Bool {
        let arguments = CommandArguments(bytes: bytes, ranges: parser.ranges)
        if arguments.equals(0, "reset") { return true }
        return arguments.equals(0, "hello") && arguments.count > 1
            && arguments.number(1) != UInt64(connection.version.rawValue)
    }

    /// HELLO [2|3] [SETNAME name]; without a version the one of before stays.
    func helloCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        var index = 1
        var version = connection.version
        if arguments.count > 1, !arguments.equals(1, "setname") {
            guard let number = arguments.number(1),
                let wanted = ProtocolVersion(rawValue: UInt8(clamping: number))
            else {
                replyError(connection, "NOPROTO unsupported protocol version")
                return
            }
            version = wanted
            index = 2
        }
        while index < arguments.count {
            if arguments.equals(index, "setname"), index + 1 < arguments.count {
                connection.name = String(arguments.text(index + 1).prefix(64))
                index += 2
            } else if arguments.equals(index, "auth") {
                replyError(connection, "ERR AUTH is not needed here, and not understood")
                return
            } else {
                replyArity(connection, "HELLO [2|3] [SETNAME name]")
                return
            }
        }
        // Its pushes would be no replies there.
        if version == .resp2 { stopTracking(connection) }
        connection.version = version
        let view = replica.isMember || replica.status == .learning ? shownView : nil
        reply(connection) { bytes in
            RESP.map(13, version, into: &bytes)
            func add(_ key: String, _ value: String?) {
                RESP.bulk(key, into: &bytes)
                if let value {
                    RESP.bulk(value, into: &bytes)
                } else {
                    RESP.null(version, into: &bytes)
                }
            }
            func add(_ key: String, _ value: Int64) {
                RESP.bulk(key, into: &bytes)
                RESP.integer(value, into: &bytes)
            }
            add("server", "pollsrv")
            add("version", Settings.version)
            add("proto", Int64(version.rawValue))
            add("id", Int64(connection.number))
            add("service", service?.description)
            // Of the view that is shown, which the disk may keep behind the newest: a client takes
            // the address of that view's primary for this replica's.
            add("mode", view?.primary.instance == me.instance ? "primary" : "backup")
            add("view", Int64(view?.number.rawValue ?? 0))
            add("primary", view?.primary.address.description)
            add("backup", view?.backups.first?.address.description)
            add("instance", me.instance.description)
            add("heartbeat", Int64(settings.heartbeatMilliseconds))
            add("misses", Int64(settings.misses))
            RESP.bulk("backups", into: &bytes)
            RESP.array(view?.backups.count ?? 0, into: &bytes)
            for backup in view?.backups ?? [] {
                RESP.bulk(backup.address.description, into: &bytes)
            }
        }
    }

    /// [number, primary, backup or null]
    func viewCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count == 1 else { return replyArity(connection, "VIEW") }
        guard let view = shownView, replica.isMember || replica.status == .learning else {
            replyError(connection, redirectError)
            return
        }
        let version = connection.version
        reply(connection) { bytes in
            RESP.array(3, into: &bytes)
            RESP.integer(Int64(view.number.rawValue), into: &bytes)
            RESP.bulk(view.primary.address.description, into: &bytes)
            if let backup = view.backups.first {
                RESP.bulk(backup.address.description, into: &bytes)
            } else {
                RESP.null(version, into: &bytes)
            }
        }
    }

    func stockCommand(
        _ verb: String, _ arguments: borrowing CommandArguments, _ connection: Connection
    ) {
        switch verb {
        case "PING":
            guard arguments.count <= 2 else { return replyArity(connection, "PING [message]") }
            let text = arguments.count > 1 ? arguments.array(1) : nil
            reply(connection) { bytes in
                if let text {
                    RESP.bulk(text, into: &bytes)
                } else {
                    RESP.simple("PONG", into: &bytes)
                }
            }
        case "ECHO":
            guard arguments.count == 2 else { return replyArity(connection, "ECHO message") }
            let text = arguments.array(1)
            reply(connection) { RESP.bulk(text, into: &$0) }
        case "SELECT":
            guard arguments.count == 2, arguments.number(1) == 0 else {
                return replyError(connection, "ERR there is only database 0")
            }
            replyOK(connection)
        case "CLIENT": clientCommand(arguments, connection)
        case "COMMAND":
            let version = connection.version
            let word = arguments.count > 1 ? arguments.word(1) : ""
            reply(connection) { bytes in
                switch word {
                case "COUNT": RESP.integer(0, into: &bytes)
                case "DOCS": RESP.map(0, version, into: &bytes)
                default: RESP.array(0, into: &bytes)
                }
            }
        case "INFO":
            let section = arguments.count > 1 ? arguments.word(1).lowercased() : ""
            let text = section == "pollsrv" ? statusText : "# pollsrv\r\n" + statusText
            reply(connection) { RESP.bulk(text, into: &$0) }
        case "QUIT":
            stopTracking(connection)
            replyOK(connection)
            connection.isClosing = connection.pending == 0
            connection.closesWhenAnswered = true
        case "RESET":
            guard arguments.count == 1 else { return replyArity(connection, "RESET") }
            leaveVoter(connection)
            removeWitness(connection)
            stopTracking(connection)
            loseCopy(connection)
            connection.name = ""
            reply(connection) { RESP.simple("RESET", into: &$0) }
            connection.version = .resp2
        default: unknownCommand(verb.isEmpty ? arguments.text(0) : verb, connection)
        }
    }

    func unknownCommand(_ verb: String, _ connection: Connection) {
        replyError(connection, "ERR unknown command '\(verb.prefix(64))'")
    }

    private func clientCommand(_ arguments: borrowing CommandArguments, _ connection: Connection) {
        guard arguments.count > 1 else {
            return replyArity(connection, "CLIENT ID|SETNAME|GETNAME|SETINFO|TRACKING")
        }
        switch arguments.word(1) {
        case "ID": reply(connection) { RESP.integer(Int64(connection.number), into: &$0) }
        case "SETINFO": replyOK(connection)
        case "SETNAME":
            guard arguments.count == 3 else { return replyArity(connection, "CLIENT SETNAME name") }
            connection.name = String(arguments.text(2).prefix(64))
            replyOK(connection)
        case "TRACKING": trackingCommand(arguments, connection)
        case "GETNAME":
            let name = connection.name
            reply(connection) { RESP.bulk(name, into: &$0) }
        default: replyError(connection, "ERR unknown subcommand of CLIENT")
        }
    }

    /// `key:value` lines: what `INFO pollsrv` answers.
    private var statusText: String {
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
            lines.append(("\(role)_pid", "\(member.pid)"))
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
        lines.append(("held", "\(held.count)"))
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
        lines.append(("restart", restart.statusWord))
        lines += loopLines + diskLines
        lines.append(("note", joining.note(replica)))
        return lines.map { "\($0.0):\($0.1)\r\n" }.joined()
    }
}
