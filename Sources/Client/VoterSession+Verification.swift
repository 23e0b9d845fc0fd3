import Wire

/// Whether the log that was found belongs to this service. Nothing is voted or written before.
enum Verification: Equatable, Sendable {
    /// All of the log's results are to be compared with the service's, of which some have come. All,
    /// as a service that was restored from a copy has the older ones of a log and other ones since,
    /// and the last may be the same by chance.
    case needed(log: ResultChain, service: ResultChain)
    case done
}

extension VoterSession {
    /// Asks for the next of the service's results. Behind another primary's answers, too: what it
    /// has decided a service keeps.
    mutating func verify(_ index: Int, from next: UInt64, into outbox: inout VoterOutbox) {
        let question = VoterCommand.verify(from: next)
        guard !links[index].awaits({ $0 == question }) else { return }
        send(question, on: index, into: &outbox)
    }

    mutating func onVerification(
        _ index: Int,
        from first: UInt64,
        _ value: RESPValue,
        into outbox: inout VoterOutbox
    ) {
        guard case .needed(let log, var service) = verification, service.nextID == first,
            let last = log.last
        else { return }
        if case .error(let text) = value {
            onResultsRefused(index, text, into: &outbox)
            return
        }
        do throws(DecodeError) {
            guard let items = value.items else { throw DecodeError("an array expected") }
            for item in items where service.nextID <= last.id {
                let result = try PollResult(push: (item.items ?? [])[...])
                guard result.id == service.nextID else { break }
                service.append(result)
            }
        } catch {
            report(index, "VOTE.RESULTS", error.text, into: &outbox)
            backOff(index, .later)
            return
        }
        conclude(log, last, service, isPageWhole: service.nextID - first == pageCount, &outbox)
    }

    private var pageCount: UInt64 { UInt64(VoterCommand.resultsMax) }

    private mutating func conclude(
        _ log: ResultChain,
        _ last: PollResult,
        _ service: ResultChain,
        isPageWhole: Bool,
        _ outbox: inout VoterOutbox
    ) {
        let advice = "\(settings.logPath) is the log of another service; use another --log"
        guard let theirs = service.last, theirs.id == last.id else {
            guard isPageWhole else {
                let text = "the service has no result of vote \(service.nextID), but the log has"
                end(.io("\(text): \(advice)"), into: &outbox)
                return
            }
            verification = .needed(log: log, service: service)
            return
        }
        if service == log {
            verification = .done
        } else if theirs == last {
            end(
                .io("a vote before \(last.id) has another result in the service: \(advice)"),
                into: &outbox
            )
        } else {
            end(
                .io(
                    "vote \(last.id) has \(theirs.yes) yes, \(theirs.no) no in the service but "
                        + "\(last.yes) yes, \(last.no) no in the log: \(advice)"
                ),
                into: &outbox
            )
        }
    }
}
