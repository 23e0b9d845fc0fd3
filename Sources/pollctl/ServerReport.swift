import Client
import Linux
import Wire

/// One replica as a report names it.
struct Seat: Equatable {
    let id: String
    let address: Address
    let pid: Int32
}

/// What one server says of itself and of the service: its `INFO pollsrv`.
struct ServerReport {
    /// Where it was asked, which need not be what it calls itself.
    let askedAt: Address
    /// The same in digits: of a name that has several addresses, the one that answers.
    let reachedAt: Address
    /// The lines `key:value` as they came; looked up, never gone through.
    private let fields: [String: String]

    init(askedAt: Address, reachedAt: Address, text: String) {
        self.askedAt = askedAt
        self.reachedAt = reachedAt
        var fields: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        self.fields = fields
    }

    func string(_ key: String) -> String { fields[key] ?? "" }
    func number(_ key: String) -> Int { Int(string(key)) ?? 0 }

    var isPollsrv: Bool { fields["mode"] != nil }
    var mode: String { string("mode") }
    var isPrimary: Bool { mode == "primary" }
    /// Waits for others, without whom it cannot go on.
    var isStalled: Bool { string("stalled") == "1" }
    var isLeading: Bool { isPrimary && !isStalled }
    var view: Int { number("view") }
    var isPair: Bool { string("state") == "pair" }
    /// One of a group that elects its leader, and not alone in it.
    var isGroup: Bool { string("state") == "group" }
    /// `id@HOST:PORT` of each member, the primary first.
    var members: [String] { string("members").split(separator: ",").map(String.init) }
    var pid: Int32 { Int32(clamping: number("pid")) }
    var clients: Int { number("clients") }
    var votesOpen: [Int] { string("votes_open").split(separator: ",").compactMap { Int($0) } }
    var votesClosed: Int { number("votes_closed") }
    var note: String { string("note") }

    var own: Seat {
        Seat(id: string("id"), address: Address(text: string("address")) ?? askedAt, pid: pid)
    }
    func isSameProcess(as other: Self) -> Bool {
        // Two on copies of one folder have the same instance.
        !string("instance").isEmpty && string("instance") == other.string("instance")
            && pid == other.pid
    }

    var primary: Seat? { seat("primary") }
    var backup: Seat? { seat("backup") }

    private func seat(_ role: String) -> Seat? {
        guard let address = Address(text: string("\(role)_address")) else { return nil }
        let pid = Int32(clamping: number("\(role)_pid"))
        return Seat(id: string("\(role)_id"), address: address, pid: pid)
    }

    /// Asks one server.
    static func of(_ address: Address, milliseconds: UInt64) throws(CommandFailure) -> Self {
        let deadline = Deadline(milliseconds: milliseconds)
        var connection = try CommandConnection(to: address, milliseconds: milliseconds)
        let hello = try connection.ask(
            ["HELLO", "3"], milliseconds: deadline.remainingMilliseconds)
        if case .error(let text) = hello { throw .malformed(address, DecodeError(text)) }
        let reply = try connection.ask(
            ["INFO", "pollsrv"], milliseconds: deadline.remainingMilliseconds)
        let report = Self(
            askedAt: address, reachedAt: Address(host: connection.host, port: address.port),
            text: reply.text ?? "")
        guard report.isPollsrv else {
            let server = hello["server"]?.text ?? "something else"
            throw .malformed(address, DecodeError("it calls itself \(server)"))
        }
        return report
    }
}

/// What all the servers that could be asked said.
struct Overview {
    enum Answer {
        case report(ServerReport)
        case failure(CommandFailure)
    }

    private(set) var answers: [(address: Address, answer: Answer)] = []

    /// Asks `servers`, then those that the answers name as members: an operator need only know one
    /// of them.
    init(servers: [Address], milliseconds: UInt64) {
        var waiting = servers
        while !waiting.isEmpty {
            let address = waiting.removeFirst()
            guard !answers.contains(where: { $0.address == address }), !isKnown(address) else {
                continue
            }
            do throws(CommandFailure) {
                let report = try ServerReport.of(address, milliseconds: milliseconds)
                // Another spelling of where one was asked before.
                guard !reports.contains(where: { $0.isSameProcess(as: report) }) else { continue }
                answers.append((address, .report(report)))
                waiting += [report.primary, report.backup].compactMap { $0?.address }
                waiting += report.members.compactMap { member in
                    Text.from("@", in: member).flatMap { Address(text: String($0.dropFirst())) }
                }
            } catch {
                answers.append((address, .failure(error)))
            }
        }
    }

    var reports: [ServerReport] {
        answers.compactMap { item in
            switch item.answer {
            case .report(let report): report
            case .failure: nil
            }
        }
    }

    /// Who may be there, but gave no report.
    var silent: [(address: Address, failure: CommandFailure)] {
        answers.compactMap { item in
            guard case .failure(let failure) = item.answer, !failure.isRefused else { return nil }
            return (address: item.address, failure: failure)
        }
    }

    /// The one whose word counts. Behind a cut link an old primary may not know yet that it is
    /// none any more; the higher view tells.
    var primary: ServerReport? {
        reports.filter(\.isPrimary).max { $0.view < $1.view }
    }

    /// Why nobody, or no primary, was found.
    var complaint: String {
        let lines = answers.map { item in
            switch item.answer {
            case .report(let report):
                "  \(item.address): \(report.mode), view \(report.view), op \(report.number("op"))"
                    + (report.note.isEmpty ? "" : ", \(report.note)")
            case .failure(let failure): "  \(failure)"
            }
        }
        let head =
            reports.isEmpty
            ? "no server answers:" : "there is no primary now; these are what answers:"
        let advice =
            reports.isEmpty
            ? "is pollsrv running, and are the addresses right? (--servers A,B)"
            : reports.allSatisfy { $0.mode == "joining" && $0.number("op") == 0 }
                ? "they look for a service: has one been begun, and are --peer and --join right?"
                : "a backup takes over by itself when it may; if it waits for one that is gone for good: "
                    + "`pollctl promote`, which says what that risks"
        return ([head] + lines + [advice]).joined(separator: "\n")
    }

    /// Whether a server that has answered goes by this address too (`localhost`, `0.0.0.0`).
    private func isKnown(_ address: Address) -> Bool {
        reports.contains { $0.own.address == address }
    }
}
