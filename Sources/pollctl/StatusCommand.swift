import Arguments
import Linux
import Wire

/// `pollctl status`: who leads, who follows, and what they wait for.
struct StatusCommand {
    let servers: [Address]
    let milliseconds: UInt64
    let asJSON: Bool

    func run() throws(Failure) {
        let overview = Overview(servers: servers, milliseconds: min(milliseconds, 2_000))
        guard let primary = overview.primary else {
            if asJSON { try Output.print(Self.json(overview).text) }
            throw Failure(overview.complaint)
        }
        try Output.print(
            asJSON
                ? Self.json(primary, overview).text
                : Self.lines(primary, overview).joined(separator: "\n"))
    }

    static func lines(_ primary: ServerReport, _ overview: Overview) -> [String] {
        let count = primary.members.count
        let state =
            switch primary.isLeading ? primary.string("state") : "waiting" {
            case "waiting" where primary.note.hasPrefix("people"):
                "waiting for people: nothing counts before"
            case "waiting": "waiting for other members: nothing counts before they are back"
            case "pair": "pair: every ballot is on both before it counts"
            case "group": "group of \(count): every ballot is on all \(count) before it counts"
            default: "solo: the primary alone collects ballots"
            }
        var rows = [
            ["service", primary.string("service")],
            ["view", String(primary.view)],
            ["state", state],
            ["primary", seat(primary.primary ?? primary.own)],
            ["backup", primary.backup.map(seat) ?? "none" + restart(primary)],
            ["op", "\(primary.number("op")), committed \(primary.number("commit"))"],
            ["clients", "\(primary.clients), of them \(primary.number("witnesses")) witnesses"],
            ["votes", votes(primary)],
            [
                "heartbeat",
                "every \(primary.number("heartbeat_ms")) ms, "
                    + "\(primary.number("misses")) missed mean failed",
            ],
        ]
        rows.append(["state kept", kept(primary)])
        if primary.isGroup { rows.append(["members", primary.members.joined(separator: ", ")]) }
        if primary.isPair { rows.append(["path", path(primary)]) }
        if primary.string("link") == "cut" {
            rows.append(["direct link", "CUT by the test hook (pollctl link heal)"])
        }
        if !primary.note.isEmpty { rows.append(["waits for", primary.note]) }
        let head = ["", "what each server says of itself:"]
        return Text.table(rows) + head + Text.table(overview.answers.map(Self.row))
    }

    private static func seat(_ seat: Seat) -> String {
        "\(seat.address)  id \(seat.id)  pid \(seat.pid)"
    }

    private static func restart(_ primary: ServerReport) -> String {
        switch primary.string("restart") {
        case "starting": ", a replacement is starting"
        case "waiting": ", a replacement will be started again soon"
        default: ""
        }
    }

    /// How the primary and the backup reach each other.
    private static func path(_ primary: ServerReport) -> String {
        switch primary.string("path") {
        case "direct": "direct"
        case "relay": "relayed by client \(primary.string("path_via")): no direct connection"
        default: "none: the two cannot reach each other"
        }
    }

    private static func votes(_ primary: ServerReport) -> String {
        let shown = primary.votesOpen.prefix(10).map(String.init).joined(separator: ", ")
        let more = primary.votesOpen.count > 10 ? ", …" : ""
        let open = primary.votesOpen.isEmpty ? "none open" : "open: \(shown)\(more)"
        return "\(open); \(primary.votesClosed) closed"
    }

    /// Where the primary keeps the state; each server says it of itself in `--json`.
    private static func kept(_ primary: ServerReport) -> String {
        guard primary.string("durability") == "disk" else { return "in memory alone" }
        let checkpoint = primary.number("checkpoint_op")
        let last = checkpoint > 0 ? "last checkpoint after op \(checkpoint)" : "no checkpoint yet"
        guard primary.string("sync_mode") == "always" else {
            return
                "on disk when the kernel writes it (--sync never): a loss of power loses what was "
                + "answered last; \(last)"
        }
        return "on disk before anything is answered; \(last)"
    }

    private static func row(_ address: Address, _ answer: Overview.Answer) -> [String] {
        switch answer {
        case .report(let report):
            let position = "op \(report.number("op")), committed \(report.number("commit"))"
            let memory = Text.mebibytes(kibibytes: report.number("rss_kib"))
            return [
                "  \(address)", report.mode, "view \(report.view)", "pid \(report.pid)", position,
                report.note.isEmpty ? memory : "\(memory)  (\(report.note))",
            ]
        case .failure(let failure): return ["  \(address)", "no answer: \(failure)"]
        }
    }

    /// While nobody leads.
    private static func json(_ overview: Overview) -> JSON {
        .object([
            ("view", .integer(overview.reports.map(\.view).max() ?? 0)),
            ("primary", .null), ("backup", .null), ("state", .string("none")),
            ("servers", .array(overview.answers.map(json))),
        ])
    }

    static func json(_ primary: ServerReport, _ overview: Overview) -> JSON {
        .object([
            ("view", .integer(primary.view)),
            ("primary", json(primary.primary ?? primary.own)),
            ("backup", primary.backup.map(json) ?? .null),
            ("state", .string(primary.string("state"))),
            ("stalled", .bool(primary.isStalled)),
            ("members", .array(primary.members.map(JSON.string))),
            ("op", .integer(primary.number("op"))),
            ("commit", .integer(primary.number("commit"))),
            ("clients", .integer(primary.clients)),
            ("witnesses", .integer(primary.number("witnesses"))),
            (
                "votes",
                .object([
                    ("open", .array(primary.votesOpen.map(JSON.integer))),
                    ("closed", .integer(primary.votesClosed)),
                ])
            ),
            ("service", .string(primary.string("service"))),
            ("link", .string(primary.string("link"))),
            ("path", pathWord(primary).map(JSON.string) ?? .null),
            ("restart", .string(primary.string("restart"))),
            ("heartbeat_ms", .integer(primary.number("heartbeat_ms"))),
            ("misses", .integer(primary.number("misses"))),
            ("durability", .string(primary.string("durability"))),
            ("note", .string(primary.note)),
            ("servers", .array(overview.answers.map(json))),
        ])
    }

    private static func pathWord(_ primary: ServerReport) -> String? {
        let word = primary.string("path")
        return word == "direct" || word == "relay" ? word : nil
    }

    private static func json(_ seat: Seat) -> JSON {
        .object([
            ("id", .string(seat.id)),
            ("address", .string("\(seat.address)")),
            ("pid", .integer(Int(seat.pid))),
        ])
    }

    private static func json(_ address: Address, _ answer: Overview.Answer) -> JSON {
        switch answer {
        case .report(let report):
            .object([
                ("address", .string("\(address)")),
                ("mode", .string(report.mode)),
                ("view", .integer(report.view)),
                ("stalled", .bool(report.isStalled)),
                ("id", .string(report.string("id"))),
                ("instance", .string(report.string("instance"))),
                ("pid", .integer(Int(report.pid))),
                ("op", .integer(report.number("op"))),
                ("commit", .integer(report.number("commit"))),
                ("rss_kib", .integer(report.number("rss_kib"))),
                ("durability", .string(report.string("durability"))),
                (
                    "sync_mode",
                    report.string("sync_mode").isEmpty ? .null : .string(report.string("sync_mode"))
                ),
                ("journal_syncs", .integer(report.number("journal_syncs"))),
                ("journal_bytes", .integer(report.number("journal_bytes"))),
                ("checkpoint_op", .integer(report.number("checkpoint_op"))),
                ("loop_turns", .integer(report.number("loop_turns"))),
                ("loop_longest_turn_us", .integer(report.number("loop_longest_turn_us"))),
                ("note", .string(report.note)),
            ])
        case .failure(let failure):
            .object([
                ("address", .string("\(address)")),
                ("mode", .null),
                ("error", .string("\(failure)")),
            ])
        }
    }
}
