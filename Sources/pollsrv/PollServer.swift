import Arguments
import Linux
import Replication
import Server
import Services
import Storage
import Wire

/// The `pollsrv` program: from arguments to a running server.
enum PollServer {
    private static let flags: [Flag] = [
        Flag("--primary", "start as primary (joins a service that is running already)"),
        Flag("--backup", "start as backup: only ever joins"),
        Flag(
            "--join", value: "HOST:PORT,...",
            "start as backup and join through any of these that answers"),
        Flag(
            "--listen", value: "HOST:PORT",
            default: "127.0.0.1:7002 for --backup and --join, else 127.0.0.1:7001",
            "where to take connections; port 0: any free one"),
        Flag(
            "--advertise", value: "HOST:PORT", default: "the address of --listen",
            "where others reach this server, if that differs (NAT, a container)"),
        Flag("--peer", value: "HOST:PORT", default: "the other of the two", "the other replica"),
        Flag("--id", value: "N", default: "the process number", "rank among equals: higher leads"),
        Flag("--priority", value: "N", default: "0", "ranks before the id"),
        Flag("--heartbeat", value: "DUR", default: "1s", "between heartbeats"),
        Flag("--misses", value: "N", default: "5", "missed heartbeats that mean failed"),
        Flag(
            "--restart-delay", value: "DUR", default: "30s",
            "how long a fresh backup in place of a lost one waits before it joins"),
        Flag("--no-restart", "start no backup in place of a lost one"),
        Flag(
            "--voters", value: "N", default: "1", "open the first vote when N voters have joined"),
        Flag(
            "--votes", value: "N", default: "as many as questions, else 1 with --voters, else 0",
            "how many votes to open; 0: none by itself"),
        Flag("--questions", value: "FILE", default: "\"Vote 17\"", "the questions, one a line"),
        Flag("--interval", value: "DUR", default: "0s", "pause between votes"),
        Flag(
            "--vote-deadline", value: "DUR", default: "0s",
            "when a vote closes in any case; 0s: wait for every joined voter"),
        Flag(
            "--election", value: "sticky|bully", default: "sticky",
            "sticky: two replicas, a primary leads until it fails; bully: a group of up to "
                + "\(View.backupsMax + 1), the highest id leads"),
        Flag(
            "--rooms", value: "FILE", default: "SA318 ME4494 SA314 MC5050 ME4326 SA412",
            "the rooms of a new service, one a line"),
        Flag(
            "--timeslots", value: "FILE", default: "8:30-9:30 and so on to 19:30-21:00",
            "its time slots, one a line"),
        Flag("--days", value: "FILE", default: "Monday to Friday", "its days, one a line"),
        Flag(
            "--reply-delay", value: "MIN-MAX", default: "none",
            "wait so long after each reply, on that connection (100ms-2s)"),
        Flag(
            "--data", value: "DIR", default: "none: in memory",
            "keep a journal here; started again with it this server goes on as the same one"),
        Flag(
            "--sync", value: "always|never", default: "always",
            "with --data: sync before anything is answered, or leave that to the kernel"),
        Flag(
            "--restore", value: "FILE", default: "none",
            "with --primary: begin a new service from a copy that pollctl backup wrote; the folder "
                + "of --data must be empty, and no service be running at --peer"),
        Flag(
            "--segment", value: "MIB", default: "64",
            "with --data: the journal's files have this size in MiB, each reserved at once; after "
                + "half of it a checkpoint is made"),
        Flag("--log-format", value: "text|json", default: "text", "of the messages on stderr"),
        Flag("--test-hooks", "allow pollctl link cut|heal"),
        Flag("--join-after", value: "DUR", default: "0s", hidden: true, "wait before joining"),
        Flag(
            "--advertise-host", value: "HOST", hidden: true,
            "as --advertise, at the port that this server gets"),
        Flag("--started-by", value: "PID", hidden: true, "end with this one until a member"),
        Flag("--service", value: "ID", hidden: true, "what --data must be of, if not blank"),
    ]

    private static let syntax = CommandLineSyntax(
        program: "pollsrv", summary: "one replica of the polling service",
        operands: "--primary|--backup|--join HOST:PORT|--election bully", flags: flags,
        details: """
            Without --data the state is held in memory on both replicas: it survives the loss of
            either, not of both at once. Durations: 250ms, 1s, 2m.
            """,
        example: "pollsrv --primary --voters 5 --votes 20")

    static func main() {
        Terminal.openStandardDescriptors()
        Signals.ignoreFileSizeLimit()
        CrashNote.install(
            before: "pollsrv: a defect has ended this process (what stands above may say which); "
                + "another replica, if there is one, goes on",
            after: "", exitCode: ExitCode.software.rawValue)
        var format = MessageLog.Format.text
        do {
            switch try syntax.parse(Array(CommandLine.arguments.dropFirst())) {
            case .show(let text): try Terminal.write(text)
            case .run(let arguments):
                format = try logFormat(arguments)
                Terminal.exit(try server(arguments).run().rawValue)
            }
        } catch {
            let (text, code) = words(of: error)
            MessageLog.say(text, isError: true, format: format)
            Terminal.exit(code.rawValue)
        }
    }

    /// Why there is no server, other than by the flags or the system.
    private struct StartError: Error {
        let text: String
        let code: ExitCode
    }

    private static func words(of error: any Error) -> (text: String, code: ExitCode) {
        switch error {
        case let error as UsageError: (error.text, .usage)
        case let error as StartError: (error.text, error.code)
        case let error as RestorationError: ("--restore \(error.text)", .io)
        case let error as StoreError: ("--data \(error)", .io)
        case let error as SystemError: ("\(error)", .io)
        default: ("\(error)", .software)
        }
    }

    /// A replacement with a journal takes the lost replica's folder and port only when its time has
    /// come: whoever starts that one by hand meanwhile finds both free.
    private static func awaitTurn(_ settings: inout Settings) throws {
        guard let parent = settings.startedBy else { return }
        guard Processes.endWithParent(parent) else {
            throw StartError(text: "process \(parent) is over", code: .unavailable)
        }
        Clock.sleep(nanoseconds: settings.joinAfterMilliseconds * 1_000_000)
        settings.joinAfterMilliseconds = 0
    }

    /// Keeps nothing of a state to restore: only the server has it when this returns.
    private static func server(_ arguments: ParsedArguments) throws -> Server {
        var settings = try settings(arguments)
        try awaitTurn(&settings)
        let restoration = try restoration(arguments, settings)
        let durable = try durable(arguments, settings, isNew: restoration != nil)
        return try start(settings, durable, restoration)
    }

    private static func start(
        _ settings: Settings, _ durable: Durable?, _ restoration: Restoration?
    ) throws -> Server {
        do throws(SystemError) {
            return try Server(settings, durable: durable, restoration: restoration)
        } catch {
            guard error.isAddressInUse else { throw error }
            throw StartError(
                text: "\(error): another process listens on \(settings.listen) already, maybe a "
                    + "pollsrv (pollctl status); stop it or give another --listen", code: .io)
        }
    }

    /// What the service is to begin with. The file is read whole before anything else is touched.
    private static func restoration(_ arguments: ParsedArguments, _ settings: Settings) throws
        -> Restoration?
    {
        guard let path = arguments.string("--restore") else { return nil }
        guard settings.startsAsPrimary else {
            throw UsageError(
                "--restore begins a new service and goes with --primary; a backup gets its state "
                    + "from the primary that it joins")
        }
        for name in ["--rooms", "--timeslots", "--days"] where arguments.isSet(name) {
            throw UsageError("\(name) is in the copy already; leave it out with --restore")
        }
        return try Restoration(path: path)
    }

    /// `isNew`: for a new service, whatever the folder has.
    private static func durable(
        _ arguments: ParsedArguments, _ settings: Settings, isNew: Bool
    ) throws -> Durable? {
        let durability = try arguments.choice("--sync", default: "always", of: ["always", "never"])
        guard let folder = arguments.string("--data") else {
            for flag in ["--sync", "--segment"] where arguments.isSet(flag) {
                throw UsageError("\(flag) is of no use without --data")
            }
            return nil
        }
        guard !folder.isEmpty else { throw UsageError("--data: the name of a folder is needed") }
        var options = Store.Options()
        options.segmentBytes =
            try Int(arguments.number("--segment", default: 64, in: 1...1_024)) << 20
        options.durability = durability == "never" ? .never : .always
        if isNew { return try Durable.openBlank(folder: folder, options: options) }
        let wanted = Store.WantedID(
            priority: arguments.isSet("--priority") ? settings.id.priority : nil,
            id: arguments.isSet("--id") ? settings.id.id : nil)
        return try Durable.open(
            folder: folder, service: try service(arguments), id: wanted, options: options,
            peerView: { service in peerView(of: service, settings.peers) },
            say: { MessageLog.say($0, isError: false, format: settings.logFormat) })
    }

    private static func service(_ arguments: ParsedArguments) throws -> ServiceID? {
        guard let text = arguments.string("--service") else { return nil }
        guard let service = ServiceID(text: text) else {
            throw UsageError("--service '\(text)': 32 hexadecimal digits are needed")
        }
        return service
    }

    /// The others may have been started at the same moment.
    private static func peerView(of service: ServiceID, _ peers: [Address]) -> ViewNumber? {
        for attempt in 1...10 {
            let views = peers.compactMap {
                PeerProbe.view(of: service, at: $0, milliseconds: 1_000)
            }
            if let newest = views.max() { return newest }
            if attempt < 10 { Clock.sleep(nanoseconds: 300_000_000) }
        }
        return nil
    }

    private static func settings(_ arguments: ParsedArguments) throws -> Settings {
        if let operand = arguments.operands.first {
            throw UsageError("unexpected argument '\(operand)' (pollsrv --help shows the usage)")
        }
        let election = try election(arguments)
        let isPrimary = try startsAsPrimary(arguments, election)
        let listen = try arguments.address(
            "--listen", default: "127.0.0.1:\(isPrimary ? 7001 : 7002)")
        // Of the two usual addresses the other one, whichever this is.
        let isHere = listen.host == "127.0.0.1"
        let isFirst =
            isPrimary ? !(isHere && listen.port == 7002) : isHere && listen.port == 7001
        let id = try arguments.number(
            "--id", default: UInt64(Processes.pid), in: 0...UInt64(1) << 53)
        let priority = try arguments.number("--priority", default: 0, in: 0...1 << 31)
        var settings = Settings(
            startsAsPrimary: isPrimary, listen: Address(host: listen.host, port: listen.port),
            peers: try peers(arguments, election, defaultPort: isFirst ? 7002 : 7001),
            id: ReplicaID(priority: priority, id: id))
        if listen.port != 0, !settings.peers.isEmpty,
            settings.peers.allSatisfy({ $0 == settings.listen })
        {
            throw UsageError(
                "\(settings.listen) is this server's own address: \(arguments.isSet("--join") ? "--join" : "--peer") "
                    + "says where another is")
        }
        if arguments.isSet("--advertise") {
            let told = try arguments.address("--advertise", default: "")
            guard told.port != 0 else {
                throw UsageError("--advertise: port 0 is nowhere; give the port that others reach")
            }
            settings.advertised = Address(host: told.host, port: told.port)
        }
        settings.advertisedHost = try arguments.host("--advertise-host")
        try checkReach(settings)
        settings.heartbeatMilliseconds = try arguments.milliseconds(
            "--heartbeat", default: 1_000, in: 10...3_600_000)
        settings.misses = try arguments.number("--misses", default: 5, in: 1...1_000)
        settings.restartDelayMilliseconds = try arguments.milliseconds(
            "--restart-delay", default: 30_000)
        settings.joinAfterMilliseconds = try arguments.milliseconds("--join-after", default: 0)
        settings.election = election
        // A group has no number of members that would have to be kept up.
        settings.restartsBackup = election == .sticky && !arguments.isSet("--no-restart")
        settings.dataFolder = arguments.string("--data").map { Files.absolute($0) }
        if arguments.isSet("--started-by") {
            settings.startedBy = Int32(
                clamping: try arguments.number("--started-by", default: 0, in: 1...1 << 31))
        }
        settings.hasTestHooks = arguments.isSet("--test-hooks")
        settings.logFormat = try logFormat(arguments)
        if arguments.isSet("--quiet") { settings.verbosity = .quiet }
        if arguments.isSet("--verbose") { settings.verbosity = .verbose }
        settings.plan = try plan(arguments)
        settings.catalogue = try LineFiles.catalogue(arguments)
        settings.replyDelay = try LineFiles.delays("--reply-delay", arguments)
        settings.inheritedFlags = inheritedFlags(arguments)
        return settings
    }

    /// Others connect to what this server says of itself. One that listens everywhere has not said
    /// where that is: on another machine `0.0.0.0` is that machine.
    private static func checkReach(_ settings: Settings) throws(UsageError) {
        let here = ["0.0.0.0", "::", "localhost", "::1"]
        guard ["0.0.0.0", "::"].contains(settings.listen.host), settings.advertised == nil,
            settings.advertisedHost == nil,
            let far = settings.peers.first(where: {
                !here.contains($0.host) && !$0.host.hasPrefix("127.")
            })
        else { return }
        throw UsageError(
            "--listen \(settings.listen) is no address by which \(far) could reach this server: say "
                + "which is, --advertise HOST:PORT")
    }

    private static func logFormat(_ arguments: ParsedArguments) throws(UsageError)
        -> MessageLog.Format
    {
        let name = try arguments.choice("--log-format", default: "text", of: ["text", "json"])
        return name == "json" ? .json : .text
    }

    private static func election(_ arguments: ParsedArguments) throws(UsageError) -> Election {
        let name = try arguments.choice(
            "--election", default: Election.sticky.rawValue,
            of: Election.allCases.map(\.rawValue))
        return Election(rawValue: name) ?? .sticky
    }

    private static func startsAsPrimary(_ arguments: ParsedArguments, _ election: Election)
        throws(UsageError) -> Bool
    {
        let isPrimary = arguments.isSet("--primary")
        if arguments.isSet("--join") {
            if isPrimary {
                throw UsageError("--join makes this server a backup; leave --primary out")
            }
            if arguments.isSet("--peer") {
                throw UsageError("--join and --peer both say whom to look for; give one of them")
            }
            return false
        }
        if arguments.isSet("--backup") {
            if isPrimary { throw UsageError("give --primary or --backup, not both") }
            return false
        }
        if isPrimary { return true }
        guard election == .bully else {
            throw UsageError("one of --primary, --backup, --join and --election bully is needed")
        }
        if arguments.isSet("--peer") {
            throw UsageError("with --peer say --primary or --backup, or use --join")
        }
        return true
    }

    /// Where to look for the service; none for a server that begins a group.
    private static func peers(
        _ arguments: ParsedArguments, _ election: Election, defaultPort: Int
    ) throws(UsageError) -> [Address] {
        if arguments.isSet("--join") {
            return try arguments.addresses("--join", default: "").map {
                Address(host: $0.host, port: $0.port)
            }
        }
        let isPair = arguments.isSet("--primary") || arguments.isSet("--backup")
        guard isPair || arguments.isSet("--peer") || election == .sticky else { return [] }
        let peer = try arguments.address("--peer", default: "127.0.0.1:\(defaultPort)")
        return [Address(host: peer.host, port: peer.port)]
    }

    /// What a replacement backup is started with, so that it can take over in every respect. The
    /// plan of votes is in the replicated state.
    private static func inheritedFlags(_ arguments: ParsedArguments) -> [String] {
        var list: [String] = []
        let inherited = [
            "--heartbeat", "--misses", "--restart-delay", "--log-format", "--reply-delay", "--sync",
            "--segment",
        ]
        for name in inherited {
            if let value = arguments.string(name) { list += [name, value] }
        }
        for name in ["--no-restart", "--test-hooks", "--quiet", "--verbose"]
        where arguments.isSet(name) {
            list.append(name)
        }
        return list
    }

    private static func plan(_ arguments: ParsedArguments) throws -> VotePlan? {
        let questions = try LineFiles.questions(arguments)
        let fallback = questions.isEmpty ? (arguments.isSet("--voters") ? 1 : 0) : questions.count
        let votes = try arguments.number(
            "--votes", default: UInt64(fallback), in: 0...1_000_000_000)
        let plan = try VotePlan(
            voters: arguments.number("--voters", default: 1, in: 1...1_000_000), votes: votes,
            interval: arguments.milliseconds("--interval", default: 0),
            deadline: arguments.milliseconds("--vote-deadline", default: 0),
            questions: questions)
        return votes > 0 ? plan : nil
    }
}
