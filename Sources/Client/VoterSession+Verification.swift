import Wire

/// Whether the service has the results of the log. Nothing is voted or written before.
enum Verification: Equatable, Sendable {
    /// All of the log's results are to be compared with the service's, of which some have come. All,
    /// as a service that was restored from a copy, or led on by force, has the older ones of a log
    /// and other ones since, and the last may be the same by chance.
    case needed(service: ResultChain)
    case done
}

extension VoterSession {
    /// Somebody was promoted by force, who may lack what this voter has been told.
    mutating func doubtResults(into outbox: inout VoterOutbox) {
        // What is still true of them comes again with the next JOIN.
        early = []
        ballots = []
        breakPrompt(into: &outbox)
        if accepted.last != nil { verification = .needed(service: ResultChain()) }
    }

    /// Asks for the next of the service's results.
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
        // One that leads no more may answer with what the service has forgotten.
        guard index == primaryIndex, case .needed(var service) = verification,
            service.nextID == first, let last = accepted.last
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
        conclude(last, service, isPageWhole: service.nextID - first == pageCount, &outbox)
    }

    private var pageCount: UInt64 { UInt64(VoterCommand.resultsMax) }

    private mutating func conclude(
        _ last: PollResult,
        _ service: ResultChain,
        isPageWhole: Bool,
        _ outbox: inout VoterOutbox
    ) {
        guard let theirs = service.last, theirs.id == last.id else {
            guard isPageWhole else {
                let first = service.nextID
                let rest = first == last.id ? "" : " those of votes \(first) to \(last.id)"
                refuseLog("has no result of vote \(first), but the log has\(rest)", into: &outbox)
                return
            }
            verification = .needed(service: service)
            return
        }
        if service == accepted {
            verification = .done
        } else if theirs == last {
            refuseLog("has another result of a vote before \(last.id)", into: &outbox)
        } else {
            refuseLog(
                "has \(theirs.yes) yes, \(theirs.no) no of vote \(last.id), but the log has "
                    + "\(last.yes) yes, \(last.no) no",
                into: &outbox
            )
        }
    }

    /// Ends the run: going on would leave the log with lines that no other log has, or with two for
    /// one vote.
    private mutating func refuseLog(_ what: String, into outbox: inout VoterOutbox) {
        let text = """
            \(settings.logPath) cannot be continued: the service \(what). It is the log of another \
            service, or this service has lost results: a server without them was promoted (pollctl \
            promote --force), or it was begun from a copy. The log is left as it is; use another \
            --log, into which all results that the service has are written
            """
        end(.io(text), into: &outbox)
    }
}
