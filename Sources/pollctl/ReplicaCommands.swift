import Arguments
import Client
import Linux
import Wire

/// `switchover`, `stop`, `link` and `promote`: what concerns the replicas themselves. They are
/// sent once, to a server that was looked up first, and what came of them is then looked up too.
struct ReplicaCommands {
    let servers: [Address]
    let milliseconds: UInt64
    /// Says what happens, unless --quiet.
    let say: (String) throws(Failure) -> Void

    private static let askMilliseconds: UInt64 = 1_000
    private static let settleMillisecondsMax: UInt64 = 10_000
    /// Servers that were told to stop, or are told by others, have ended by then, mostly.
    private static let repeatMilliseconds: UInt64 = 1_000

    func switchover() throws(Failure) {
        let before = try primaryWithin()
        guard let backup = before.backup else {
            throw Failure(
                "there is no backup to hand over to (state solo); wait until `pollctl status` "
                    + "shows a pair" + (before.note.isEmpty ? "" : "; \(before.note)"))
        }
        guard !before.isGroup else {
            throw Failure(
                "in this group the highest id leads and would do so again at once; end that server "
                    + "with SIGTERM, or start one with a higher --id")
        }
        let watch = Stopwatch()
        let deadline = Deadline(milliseconds: Self.settleMillisecondsMax)
        try command(["REPLICA", "SWITCHOVER"], at: before.askedAt)
        while true {
            let report = try? ServerReport.of(backup.address, milliseconds: 200)
            if let report, report.isPrimary, report.view > before.view {
                let taken = Text.fixed(watch.milliseconds, 0)
                try say("\(backup.address) is primary now (view \(report.view)), after \(taken) ms")
                return
            }
            guard !deadline.hasPassed else {
                throw Failure(
                    "\(backup.address) has not become primary within "
                        + "\(Self.settleMillisecondsMax / 1_000) s; see `pollctl status`")
            }
            Clock.sleep(nanoseconds: 5_000_000)
        }
    }

    /// Ends both replicas, for good: unlike a kill, it makes no replacement start.
    func stop() throws(Failure) {
        let overview = Overview(servers: servers, milliseconds: min(milliseconds, 2_000))
        // Only a primary ends the others, too. Of two services, or behind a cut link after a promotion
        // by force, there are two.
        let primaries = overview.reports.filter(\.isPrimary)
        let targets = primaries.isEmpty ? overview.reports : primaries
        guard !targets.isEmpty else { throw Failure(overview.complaint) }
        let seats = Self.seats(overview)
        let watch = Stopwatch()
        let refused = tell(targets)
        let refusals = refused.map { $0.text }
        guard refusals.count < targets.count else { throw Failure(Self.lines(refusals)) }
        // A primary that has no path to its backup ends alone. The backup then obeys, too, though
        // maybe not before it misses the primary.
        var waiting = refused.map { $0.report }
        for report in overview.reports
        where !targets.contains(where: { $0.askedAt == report.askedAt }) {
            waiting.append(report)
        }
        let deadline = Deadline(milliseconds: Self.settleMillisecondsMax)
        var pause = Deadline(milliseconds: Self.repeatMilliseconds)
        var left = seats
        var ended: [Seat] = []
        while true {
            var running: [Seat] = []
            for seat in left {
                switch Self.presence(of: seat) {
                case .running: running.append(seat)
                case .ended: ended.append(seat)
                case .unknown: break
                }
            }
            left = running
            if left.isEmpty { break }
            if pause.hasPassed {
                waiting.removeAll { report in
                    !left.contains { $0.address == report.own.address }
                }
                waiting = tell(waiting).map { $0.report }
                pause = Deadline(milliseconds: Self.repeatMilliseconds)
            }
            guard !deadline.hasPassed else {
                let list = left.map { "\($0.address) (pid \($0.pid))" }.joined(separator: ", ")
                throw Failure(
                    Self.lines(
                        refusals + ["still running after 10 s: \(list); end it with kill -9 PID"]))
            }
            Clock.sleep(nanoseconds: 5_000_000)
        }
        // One that hangs would go on as soon as it wakes; that its machine does not answer proves
        // nothing.
        let untold = overview.silent.filter { item in
            !ended.contains { $0.address == item.address }
        }
        let stopped = seats.filter { seat in !untold.contains { $0.address == seat.address } }
        let list = stopped.map { "\($0.address)" }.joined(separator: " and ")
        let words = "stopped \(list) in \(Text.fixed(watch.milliseconds, 0)) ms"
        guard untold.isEmpty else {
            throw Failure(Self.lines([words + "; not told:"] + untold.map { "  \($0.failure)" }))
        }
        try say(words)
    }

    /// Tells all of them to stop, also when one refuses; gives those that do, and their words.
    private func tell(_ targets: [ServerReport]) -> [(report: ServerReport, text: String)] {
        var refusals: [(report: ServerReport, text: String)] = []
        for target in targets {
            do throws(Failure) {
                try command(["REPLICA", "STOP"], at: target.askedAt, mayClose: true)
            } catch {
                refusals.append((report: target, text: error.text))
            }
        }
        return refusals
    }

    private static func lines(_ list: [String]) -> String { list.joined(separator: "\n") }

    /// Cuts or heals the link between the replicas. Each is told, since none can tell the other.
    func link(_ action: String) throws(Failure) {
        let overview = Overview(servers: servers, milliseconds: min(milliseconds, 2_000))
        guard !overview.reports.isEmpty else { throw Failure(overview.complaint) }
        let state = action == "cut" ? "cut" : "healed"
        for report in overview.reports {
            try command(["LINK", action.uppercased()], at: report.askedAt)
        }
        // Not before: output that fails must leave nobody untold.
        for (address, answer) in overview.answers {
            switch answer {
            case .report(let report): try say("\(address) (\(report.mode)): link \(state)")
            case .failure(let failure): try say("\(address): not told: \(failure)")
            }
        }
    }

    static let promoteWarning = """
        promote --force makes a backup primary on your word alone, without asking anybody whether \
        the old primary is gone. If that one is alive behind a cut link, there are two primaries \
        until it hears of the other, and what it alone has acknowledged since the cut is lost. \
        Make sure that it is dead (kill it, or switch its machine off); then say --force.
        """

    /// Makes the backup at `address`, or the only one that answers, primary.
    func promote(_ address: Address?) throws(Failure) {
        let asked = address.map { [$0] } ?? servers
        let overview = Overview(servers: asked, milliseconds: min(milliseconds, 2_000))
        var candidates = overview.reports.filter { report in
            address.map { $0 == report.askedAt || $0 == report.own.address } ?? !report.isLeading
        }
        // Who is in no view most likely has nothing to lead with.
        let members = candidates.filter { $0.view > 0 }
        if !members.isEmpty { candidates = members }
        guard let backup = candidates.first else {
            if let primary = overview.primary, primary.isLeading {
                throw Failure("\(primary.askedAt) is primary already, and no backup answers")
            }
            throw Failure(overview.complaint)
        }
        if backup.isLeading { throw Failure("\(backup.askedAt) is primary already") }
        guard candidates.count == 1 else {
            let list = candidates.map { "\($0.askedAt)" }.joined(separator: ", ")
            throw Failure("more than one backup answers (\(list)); name one: promote --force A")
        }
        if let primary = overview.primary, primary.isLeading, primary.view >= backup.view {
            throw Failure(
                "the primary \(primary.askedAt) is alive and answers; use `pollctl switchover`")
        }
        try command(["REPLICA", "PROMOTE", "FORCE"], at: backup.askedAt)
        let deadline = Deadline(milliseconds: Self.settleMillisecondsMax)
        while true {
            let report = try? ServerReport.of(backup.askedAt, milliseconds: 200)
            if let report, report.isLeading, report.view > backup.view {
                try say("\(backup.askedAt) is primary now (view \(report.view))")
                return
            }
            guard !deadline.hasPassed else {
                throw Failure("\(backup.askedAt) has not become primary; see `pollctl status`")
            }
            Clock.sleep(nanoseconds: 5_000_000)
        }
    }

    /// The primary, waiting for there being one as long as --timeout allows.
    private func primaryWithin() throws(Failure) -> ServerReport {
        let deadline = Deadline(milliseconds: milliseconds)
        while true {
            let share = max(50, min(Self.askMilliseconds, deadline.remainingMilliseconds))
            let overview = Overview(servers: servers, milliseconds: share)
            if let primary = overview.primary { return primary }
            guard !deadline.hasPassed else { throw Failure(overview.complaint) }
            Clock.sleep(nanoseconds: 50_000_000)
        }
    }

    /// `mayClose`: a server that ends may do so before its answer is out.
    private func command(_ arguments: [String], at address: Address, mayClose: Bool = false)
        throws(Failure)
    {
        let reply: RESPValue
        do throws(CommandFailure) {
            let wait = Self.askMilliseconds
            var connection = try CommandConnection(to: address, milliseconds: wait)
            reply = try connection.ask(arguments, milliseconds: wait)
        } catch {
            if mayClose, error == .closed(address) { return }
            throw Failure("\(error)")
        }
        if case .error(let text) = reply {
            throw Failure("\(address): \(Dialogue.advice(text))")
        }
    }

    /// Everybody who is said to be in the service, each once.
    private static func seats(_ overview: Overview) -> [Seat] {
        // What a server says of itself counts first: others may know its place by a process before it.
        let named = overview.reports.flatMap { [$0.primary, $0.backup].compactMap { $0 } }
        var seats: [Seat] = []
        for seat in overview.reports.map(\.own) + named
        where !seats.contains(where: { $0.address == seat.address }) {
            seats.append(seat)
        }
        return seats
    }

    private enum Presence {
        case running
        case ended
        /// Its machine does not answer.
        case unknown
    }

    /// On this machine a process that is there tells; that it is not there may mean that its number is
    /// one of a container's. Then, and elsewhere, it counts whether anybody still takes connections.
    private static func presence(of seat: Seat) -> Presence {
        let isLocal =
            seat.address.host.hasPrefix("127.") || seat.address.host == "localhost"
            || seat.address.host == "::1"
        if isLocal, seat.pid > 0, ProcessTree.programName(seat.pid) == "pollsrv",
            !ProcessTree.hasExited(seat.pid)
        {
            return .running
        }
        do throws(CommandFailure) {
            _ = try CommandConnection(to: seat.address, milliseconds: 500)
            return .running
        } catch {
            return error.isRefused ? .ended : .unknown
        }
    }
}
