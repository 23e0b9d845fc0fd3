import Replication
import Wire

// HELLO, VIEW, and what stock Redis clients send by themselves.
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
        // What is pushed to caches and witnesses would be no replies there.
        if version == .resp2 {
            stopTracking(connection)
            removeWitness(connection)
        }
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
}
