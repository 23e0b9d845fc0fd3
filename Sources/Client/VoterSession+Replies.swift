import Replication
import Wire

// What comes from replicas: replies, each to the oldest command without one, and pushes.
extension VoterSession {
    mutating func onReply(_ link: LinkID, _ value: RESPValue, into outbox: inout VoterOutbox) {
        guard let index = index(of: link) else { return }
        hear(index)
        guard !links[index].pending.isEmpty else {
            onMalformed(link, DecodeError("a reply to nothing"), into: &outbox)
            return
        }
        let command = links[index].pending.removeFirst()
        switch command {
        case .hello: onGreeting(index, value, into: &outbox)
        case .offer, .witness:
            // The service can do without this witness.
            if case .error(let text) = value, links[index].service != nil {
                // It has left what its HELLO named: once it is in one again, HELLO has to say so.
                if text.hasPrefix("NOSERVICE ") { links[index].service = nil }
                let address = links[index].aliases[0]
                outbox.notices.append(.detail("\(address): \(command.verb): \(text)"))
            }
        case .join: onJoinReply(index, value, into: &outbox)
        case .cast(let vote, _, _): onCastReply(index, vote, value, into: &outbox)
        case .verify(let from): onVerification(index, from: from, value, into: &outbox)
        case .results: onResults(index, value, into: &outbox)
        case .leave: onLeaveReply(index, value)
        case .ping: break
        }
    }

    mutating func onPush(_ link: LinkID, _ fields: [RESPValue], into outbox: inout VoterOutbox) {
        guard let index = index(of: link) else { return }
        hear(index)
        guard links[index].isOpen, let kind = fields.first?.text else { return }
        // Pushes do not name their service: before HELLO has, they are nobody's.
        guard let theirs = links[index].service, theirs == service else {
            // It may have come into one between its HELLO and the OFFER, which it then took.
            if kind == "view" || kind == "witness" { askAgain(index, into: &outbox) }
            return
        }
        // What is asked for and announced elsewhere than where this voter joins comes again upon the
        // JOIN there. A service that was led on by force may have forgotten it: then it must not
        // come into the log.
        if kind == "vote" || kind == "result", links[index].joining == .none { return }
        do throws(DecodeError) {
            switch kind {
            case "vote": try onVote(index, fields.dropFirst(), into: &outbox)
            case "result":
                accept(try PollResult(push: fields.dropFirst()), into: &outbox)
            case "view": adopt(try VoterView(push: fields.dropFirst()), into: &outbox)
            case "witness":
                var message: [[UInt8]] = []
                for field in fields.dropFirst() {
                    guard let text = field.bytes else { throw DecodeError("bad witness push") }
                    message.append(text)
                }
                guard let from = links[index].instance else { return }
                stepWitness(.message(try Message(fields: message), from: from), into: &outbox)
            // Pushes of other services, or of a newer server.
            default: break
            }
        } catch {
            let address = links[index].aliases[0]
            outbox.notices.append(.detail("\(address): push '\(kind)' ignored: \(error.text)"))
        }
    }

    private mutating func hear(_ index: Int) {
        links[index].heardAt = now
        links[index].pingedAt = nil
    }

    /// Asks a replica that had no service for its name once more.
    mutating func askAgain(_ index: Int, into outbox: inout VoterOutbox) {
        let isAsked = links[index].awaits { command in
            if case .hello = command { true } else { false }
        }
        guard links[index].service == nil, !isAsked else { return }
        send(.hello(name: settings.name), on: index, into: &outbox)
    }

    /// Reads a `-REDIRECT` or the like that may pass: nothing more is asked there for a moment.
    mutating func backOff(_ index: Int, _ refusal: Refusal) {
        if case .redirect(let address?) = refusal, !links[index].aliases.contains(address) {
            hint = address
        }
        let pause = Backoff.pause(first: 20, failures: links[index].retries, &random)
        links[index].retries += 1
        links[index].retryAt = now + pause
    }

    /// Says what a replica answered where no such answer was expected; once per text.
    mutating func report(
        _ index: Int,
        _ command: String,
        _ text: String,
        into outbox: inout VoterOutbox
    ) {
        let address = links[index].aliases[0]
        let message = "\(address): \(command): \(text)"
        guard let place = endpoints.firstIndex(where: { $0.address == address }),
            endpoints[place].reported != message
        else { return }
        endpoints[place].reported = message
        outbox.notices.append(.trouble(message))
    }
}

extension RESPValue {
    /// The content of a string as it came, which need not be text.
    var bytes: [UInt8]? {
        switch self {
        case .bulk(let bytes): bytes
        case .simple(let text): Array(text.utf8)
        case .integer(let value): Array(String(value).utf8)
        case .error, .null, .boolean, .double, .array, .map, .push: nil
        }
    }
}
