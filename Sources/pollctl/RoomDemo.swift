import Arguments
import Client
import Linux
import Wire

/// `pollctl demo rooms`: three servers elect the one with the highest id; two people reserve rooms,
/// one of them from her cache; the leader is killed twice, and what was confirmed stands.
struct RoomDemo {
    private let household: Household
    private let narrator: Narrator
    private let places: ReservedPorts
    private var addresses: [Address] { places.addresses }
    private var servers: [Server] = []

    private struct Server {
        let id: Int
        let address: Address
        let pid: Int32
        var isAlive = true
        /// Lines of its messages that were looked at.
        var linesSeen = 0

        func messages(_ household: Household) -> String {
            "\(household.folder)/server-\(id).messages"
        }
    }

    private static let ids = [41_220, 40_120, 45_000]
    private static let words = [
        "Server ", "is running an election", "Election completed", "Heartbeat to group leader",
    ]

    init(isQuiet: Bool) throws(Failure) {
        household = try Household(purpose: "rooms")
        narrator = Narrator(isQuiet: isQuiet)
        places = try ReservedPorts(Self.ids.count)
    }

    mutating func run() throws(Failure) {
        do throws(Failure) {
            try play()
        } catch {
            household.endAll()
            throw Failure("\(error.text)\nmessages and answers: \(household.folder)", like: error)
        }
    }

    private mutating func play() throws(Failure) {
        for program in ["pollsrv", "reserveclient"] { _ = try household.path(of: program) }
        narrator.line(
            "Three servers form a group; the one with the highest id leads. Two people reserve")
        narrator.line("rooms. The leader is killed twice, and what was confirmed stands.")
        narrator.line("messages and answers: \(household.folder)")
        narrator.line()
        try startServer(0, "begins a group")
        try awaitLeader(0)
        try startServer(1, "joins it; its id is lower")
        try awaitLeader(0, members: 2)
        try startServer(2, "joins it; its id is the highest")
        try awaitLeader(2, members: 3)

        let list = addresses.map(\.description).joined(separator: ",")
        let ann = try Desk(household, name: "ann", servers: list)
        let bob = try Desk(household, name: "bob", servers: list)
        let rooms = "SA318\nME4494\nSA314\nMC5050\nME4326\nSA412"
        try ask(ann, "rooms", .servers, rooms)
        try ask(ann, "rooms", .cache, rooms)
        try ask(ann, "check SA318", .servers, "No room reservation found")
        try ask(ann, "check SA318", .cache, "No room reservation found")
        narrator.say("wait", "a new leader lets the caches run out that it does not know of: 1 s")
        try ask(bob, "reserve SA318 8:30-9:30 Monday", .servers, "Reservation confirmed")
        narrator.say("cache", "ann's cache was told before bob's reservation was made:", .good)
        try ask(ann, "check SA318", .servers, "SA318 8:30-9:30 Monday")
        try ask(ann, "check SA318", .cache, "SA318 8:30-9:30 Monday")

        try killLeader(2, heir: 0, membersLeft: 2)
        try ask(ann, "check SA318", .servers, "SA318 8:30-9:30 Monday")
        narrator.say("wait", "a new leader again: 1 s")
        try ask(ann, "reserve SA412 17:30-19:00 Friday", .servers, "Reservation confirmed")
        try ask(bob, "reserve SA412 17:30-19:00 Friday", .servers, "Reservation already exists")

        try killLeader(0, heir: 1, membersLeft: 1)
        try ask(bob, "check SA412", .servers, "SA412 17:30-19:00 Friday")
        try ask(bob, "delete SA318 8:30-9:30 Monday", .servers, "Deletion confirmed")
        try ask(ann, "check SA318", .servers, "No room reservation found")
        try finish(ann, bob)
    }

    // MARK: Servers

    private mutating func startServer(_ index: Int, _ what: String) throws(Failure) {
        let (id, address) = (Self.ids[index], addresses[index])
        narrator.say("start", "server \(id) on \(address) \(what)")
        var arguments = [
            "--election", "bully", "--listen", "\(address)", "--id", "\(id)", "--heartbeat",
            "200ms",
        ]
        if index > 0 {
            let others = addresses[..<index].map(\.description).joined(separator: ",")
            arguments += ["--join", others]
        }
        let pid = try household.start("pollsrv", arguments, name: "server-\(id)")
        servers.append(Server(id: id, address: address, pid: pid))
    }

    /// Waits until this server leads a group of so many, and tells what they all say of that.
    private mutating func awaitLeader(_ index: Int, members: Int = 1) throws(Failure) {
        let deadline = Deadline(milliseconds: 15_000)
        while true {
            try tellElections()
            for server in servers where server.isAlive {
                guard let exit = household.exit(of: server.pid) else { continue }
                throw Failure("server \(server.id) ended by itself (\(exit))")
            }
            if let report = try? ServerReport.of(addresses[index], milliseconds: 300),
                report.isPrimary, report.members.count == members
            {
                break
            }
            guard !deadline.hasPassed else {
                throw Failure("waited in vain for server \(Self.ids[index]) to lead \(members)")
            }
            try household.pause(milliseconds: 2)
        }
        // The others have the news by now, or in a moment.
        try household.pause(milliseconds: 20)
        try tellElections()
    }

    private mutating func tellElections() throws(Failure) {
        for index in servers.indices {
            let lines = Voters.lines(of: servers[index].messages(household))
            for line in lines.dropFirst(servers[index].linesSeen) {
                guard let word = Self.words.first(where: line.contains),
                    let text = Text.from(word, in: String(line))
                else { continue }
                let said = word.hasPrefix("is ") ? "\(servers[index].id) \(text)" : text
                narrator.say("  \(servers[index].id)", said, .change)
            }
            servers[index].linesSeen = lines.count
        }
    }

    private mutating func killLeader(_ index: Int, heir: Int, membersLeft: Int) throws(Failure) {
        narrator.say("KILL -9", "the leader, server \(Self.ids[index])", .bad)
        servers[index].isAlive = false
        Processes.signal(servers[index].pid, Signals.kill)
        let watch = Stopwatch()
        try awaitLeader(heir, members: membersLeft)
        let time = Text.fixed(watch.milliseconds, 0)
        narrator.say("leader", "server \(Self.ids[heir]) leads, \(time) ms later", .good)
    }

    // MARK: People

    private enum Source: String {
        case servers = "(From servers): "
        case cache = "(From cache): "
    }

    private func ask(_ desk: Desk, _ line: String, _ source: Source, _ expected: String)
        throws(Failure)
    {
        let answer = try desk.ask(line)
        narrator.say("\(desk.name)", "> \(line)")
        for part in Text.split(answer, by: "\n") { narrator.say("", part) }
        guard answer == source.rawValue + expected else {
            throw Failure("'\(line)' should be answered '\(source.rawValue)\(expected)'", .software)
        }
    }

    private mutating func finish(_ ann: Desk, _ bob: Desk) throws(Failure) {
        ann.quit()
        bob.quit()
        let narrator = narrator
        let last = servers.filter(\.isAlive).map(\.address)
        let commands = ReplicaCommands(servers: last, milliseconds: 5_000) {
            narrator.say("stop", $0)
        }
        try commands.stop()
        try household.wait(for: "all processes to end", milliseconds: 3_000) {
            household.isEmpty
        }
        narrator.line()
        let seconds = Text.fixed(narrator.seconds, 1)
        narrator.line(
            "ok: nothing confirmed was lost, nothing reserved twice (\(seconds) s)", .good)
        try narrator.checkSaid()
    }
}
