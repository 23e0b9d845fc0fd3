import Replication
import Services
import Wire

// What is pushed to voters and witnesses: votes, results, views.
extension Server {
    func tell(_ effect: Polls.Effect) {
        driver.note(effect, now: now)
        guard isPrimary else { return }
        switch effect {
        case .opened(let vote):
            log.detail("vote \(vote) opened")
            for (place, connection) in voterConnections.enumerated() {
                guard let connection, connection.version == .resp3,
                    executor.service.polls.isWaiting(vote, for: place)
                else { continue }
                pushVote(vote, to: connection)
            }
        case .closed(let vote):
            guard let record = executor.service.polls.record(vote) else { return }
            log.detail("vote \(vote) closed: \(record.yes) yes, \(record.no) no")
            var bytes: [UInt8] = []
            writeResultPush(vote, record, into: &bytes)
            for case let connection? in voterConnections where connection.version == .resp3 {
                // Else its turn comes, behind those before it.
                if let next = connection.nextPastResult, next <= vote { continue }
                connection.write(bytes)
                markDirty(connection)
            }
        }
    }

    /// Of votes that were opened while another led: who joined here before that and has missed
    /// the change to and fro would not be asked.
    func remindVoters() {
        let open = executor.service.polls.openVotes
        for (place, connection) in voterConnections.enumerated() {
            guard let connection, connection.version == .resp3 else { continue }
            for vote in open where executor.service.polls.isWaiting(vote, for: place) {
                pushVote(vote, to: connection)
            }
        }
    }

    func pushVote(_ vote: UInt64, to connection: Connection) {
        connection.write { bytes in
            RESP.push(4, into: &bytes)
            RESP.bulk("vote", into: &bytes)
            RESP.integer(Int64(vote), into: &bytes)
            RESP.bulk(executor.service.polls.question(vote), into: &bytes)
            RESP.integer(viewNumber, into: &bytes)
        }
        markDirty(connection)
    }

    /// The next few of the results that it is owed. The others when these have gone out, a turn later at
    /// the soonest: there may be millions.
    func pushPastResults(to connection: Connection) {
        guard var vote = connection.nextPastResult else { return }
        guard isPrimary, connection.voterPlace != nil, connection.version == .resp3 else {
            connection.nextPastResult = nil
            return
        }
        let polls = executor.service.polls
        var count = 0
        while count < Self.pastResultsAtOnce, let record = polls.record(vote) {
            if !record.isOpen {
                connection.write { writeResultPush(vote, record, into: &$0) }
                count += 1
            }
            vote += 1
        }
        connection.nextPastResult = polls.record(vote) == nil ? nil : vote
    }

    private static var pastResultsAtOnce: Int { 1_000 }

    private func writeResultPush(
        _ vote: UInt64, _ record: Polls.Record, into bytes: inout [UInt8]
    ) {
        RESP.push(5, into: &bytes)
        RESP.bulk("result", into: &bytes)
        RESP.integer(Int64(vote), into: &bytes)
        RESP.integer(Int64(record.yes), into: &bytes)
        RESP.integer(Int64(record.no), into: &bytes)
        RESP.integer(viewNumber, into: &bytes)
    }

    var viewNumber: Int64 { Int64(replica.view?.number.rawValue ?? 0) }

    /// Tells all who have joined or offered a witness.
    func pushView(_ view: View) {
        for case let connection? in connections where connection.kind == .client {
            guard connection.version == .resp3,
                connection.voterPlace != nil || connection.witness != nil || connection.isTracking
                    || connection.awaitsService
            else { continue }
            connection.awaitsService = false
            connection.write { writeViewPush(view, into: &$0) }
            markDirty(connection)
        }
    }

    private func writeViewPush(_ view: View, into bytes: inout [UInt8]) {
        RESP.push(3 + max(1, view.backups.count), into: &bytes)
        RESP.bulk("view", into: &bytes)
        RESP.integer(Int64(view.number.rawValue), into: &bytes)
        RESP.bulk(view.primary.address.description, into: &bytes)
        if view.backups.isEmpty { RESP.null(.resp3, into: &bytes) }
        // Behind the first those of a group: a client without an electorate's seat learns of them here.
        for backup in view.backups { RESP.bulk(backup.address.description, into: &bytes) }
    }
}
