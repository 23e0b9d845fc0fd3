import Services
import Wire

// What goes to the primary and comes from it: the command, leases, and the cache's pushes.
extension RoomSession {
    /// Without a command for so long, the lease is let lapse.
    private static let useNanosecondsMax: UInt64 = 60_000_000_000
    private static let leaseRetryNanoseconds: UInt64 = 300_000_000
    /// Keys that fit into one command.
    private static let keysMax = 28

    // MARK: Out

    mutating func settleTask(into outbox: inout RoomOutbox) {
        guard var task, !task.isSent, link?.isOpen == true, isDue(at: task.retryAt) else { return }
        if settings.isCaching, case .check = task.question, !cache.hasLease(now: now) {
            askForLease(into: &outbox)
        }
        var words = task.words
        if let room = task.writtenRoom {
            let sequence = task.sequence ?? nextSequence
            task.sequence = sequence
            words = ["CALL", String(client), String(sequence)] + words
            cache.onWriteSent(room: room)
        }
        task.isSent = true
        self.task = task
        send(words, .task, into: &outbox)
        if let link { _ = isDue(at: link.waitingSince + link.silenceMax) }
    }

    mutating func settleLease(into outbox: inout RoomOutbox) {
        guard link?.isOpen == true, let renewAt = cache.renewAt,
            now < lastUse + Self.useNanosecondsMax, cache.hasLease(now: now)
        else { return }
        if isDue(at: renewAt) { askForLease(into: &outbox) }
    }

    private mutating func askForLease(into outbox: inout RoomOutbox) {
        guard link?.awaitsLease == false, isDue(at: leaseRetryAt) else { return }
        link?.hasAskedForLease = true
        send(["CLIENT", "TRACKING", "ON", "LEASE"], .lease(sentAt: now), into: &outbox)
        if let link { _ = isDue(at: link.waitingSince + link.silenceMax) }
    }

    // MARK: Replies

    mutating func onReply(_ id: LinkID, _ value: RESPValue, into outbox: inout RoomOutbox) {
        guard link?.id == id else { return }
        guard link?.pending.isEmpty == false, let asked = link?.pending.removeFirst() else {
            complain("sent a second reply to one request", into: &outbox)
            return
        }
        link?.waitingSince = now
        switch asked {
        case .hello: onGreeting(value, into: &outbox)
        case .acknowledgement:
            cache.onReply(to: nil, text: nil, now: now)
            switch value {
            case .simple, .error: break
            case .bulk, .integer, .null, .boolean, .double, .array, .map, .push:
                complain("sent a reply that fits nothing that was asked", into: &outbox)
            }
        case .lease(let sentAt):
            cache.onReply(to: nil, text: nil, now: now)
            onLeaseReply(value, sentAt: sentAt, into: &outbox)
        case .task: onTaskReply(value, into: &outbox)
        }
    }

    private mutating func onLeaseReply(
        _ value: RESPValue, sentAt: UInt64, into outbox: inout RoomOutbox
    ) {
        switch value {
        case .integer(let milliseconds) where milliseconds >= 0:
            let length = UInt64(min(milliseconds, 3_600_000)) * 1_000_000
            cache.onLease(sentAt: sentAt, length: length, now: now)
        case .error(let text):
            // Answers without a lease are not cached, that is all. If this server leads no more,
            // the command behind it will be told so.
            leaseRetryAt = now + Self.leaseRetryNanoseconds
            outbox.say.append(.notice(.detail("no lease: \(text)")))
        case .integer, .simple, .bulk, .null, .boolean, .double, .array, .map, .push:
            complain("sent a reply that fits nothing that was asked", into: &outbox)
        }
    }

    private mutating func onTaskReply(_ value: RESPValue, into outbox: inout RoomOutbox) {
        guard let task, task.isSent else { return }
        let text = value.text
        if settings.isCaching { cache.onReply(to: task.question, text: text, now: now) }
        if let room = task.writtenRoom { cache.onWriteAnswered(room: room) }
        if let text {
            if task.sequence != nil { nextSequence += 1 }
            failureCount = 0
            failures = []
            reportAt = nil
            complaint = ""
            answer("(From servers): " + text, into: &outbox)
        } else if case .error(let text) = value {
            onRefusal(text, task, into: &outbox)
        } else {
            complain("sent neither a text nor an error", into: &outbox)
        }
    }

    private mutating func onRefusal(
        _ text: String, _ task: RoomTask, into outbox: inout RoomOutbox
    ) {
        switch text.prefix(while: { $0 != " " }) {
        case "REDIRECT":
            self.task?.isSent = false
            if case .redirect(let address?) = Refusal(text) {
                follow(address, "is a backup", into: &outbox)
            } else {
                lose(text, into: &outbox)
            }
        case "BUSY":
            self.task?.isSent = false
            let retryAt = now + pause()
            self.task?.retryAt = retryAt
            failureCount += 1
            noteRefusal(text)
        case "TRYAGAIN":
            // Left as sent: it may be in the log of one that had to stop leading meanwhile.
            failureCount += 1
            lose(text, into: &outbox)
        case "NOSESSION", "SEQUENCE":
            self.task?.isSent = false
            let mayStartAnew = !task.isUncertainHere && task.sequence != 1
            guard mayStartAnew else {
                giveUp("the servers have forgotten this client (\(text))", into: &outbox)
                return
            }
            // Sent here once, and refused: in this service nothing was carried out, so another number
            // is no second try.
            renewSession()
            self.task?.sequence = nil
            self.task?.isUncertain = false
        default:
            self.task?.isSent = false
            giveUp("the server refuses: \(text)", into: &outbox)
        }
    }

    private mutating func noteRefusal(_ text: String) {
        guard let address = link?.aliases.first else { return }
        failures.removeAll { $0.address == address }
        failures.append(Failure(address: address, reason: text))
    }

    // MARK: Pushes

    mutating func onPush(_ id: LinkID, _ fields: [RESPValue], into outbox: inout RoomOutbox) {
        guard link?.id == id, link?.isOpen == true, let kind = fields.first?.text else { return }
        do throws(DecodeError) {
            switch kind {
            case "cacheable":
                guard fields.count == 2, let key = fields[1].text else {
                    throw DecodeError("bad push 'cacheable'")
                }
                cache.onCacheable(key)
            case "invalidate": try onInvalidate(fields, into: &outbox)
            case "view": onView(try VoterView(push: fields.dropFirst()), into: &outbox)
            // Pushes of other services, or of a newer server.
            default: break
            }
        } catch {
            complain("sent what this client does not understand: \(error.text)", into: &outbox)
        }
    }

    private mutating func onInvalidate(
        _ fields: [RESPValue], into outbox: inout RoomOutbox
    ) throws(DecodeError) {
        guard fields.count == 2 else { throw DecodeError("bad push 'invalidate'") }
        var keys: [String]?
        if fields[1] != .null {
            var list: [String] = []
            for item in fields[1].items ?? [] {
                guard let key = item.text else { throw DecodeError("bad push 'invalidate'") }
                list.append(key)
            }
            // Without a key the acknowledgement would be one of everything.
            guard !list.isEmpty else { throw DecodeError("push 'invalidate' of nothing") }
            keys = list
        }
        let acknowledged = cache.onInvalidate(keys)
        let head = ["CLIENT", "TRACKING", "ACK"]
        guard !acknowledged.isEmpty else {
            send(head, .acknowledgement, into: &outbox)
            return
        }
        for start in stride(from: 0, to: acknowledged.count, by: Self.keysMax) {
            let part = acknowledged[start..<min(start + Self.keysMax, acknowledged.count)]
            send(head + part, .acknowledgement, into: &outbox)
        }
    }

    private mutating func onView(_ news: VoterView, into outbox: inout RoomOutbox) {
        cache.onView()
        adopt(news)
        guard let link, !link.aliases.contains(news.primary) else { return }
        follow(news.primary, "does not lead view \(news.number)", into: &outbox)
    }
}
