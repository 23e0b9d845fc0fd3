import Foundation
import Testing

/// Something a test waited for did not come, or a program could not be used.
struct Trouble: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Not for what other tests start at this moment: an end that they held open would never be seen as closed.
func tcpSocket() -> Int32 {
    socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
}

/// As `accept`, and as `tcpSocket`.
func acceptedSocket(_ listener: Int32) -> Int32 {
    let fd = accept(listener, nil, nil)
    if fd >= 0 { _ = fcntl(fd, F_SETFD, FD_CLOEXEC) }
    return fd
}

/// Real servers and clients on free ports of this machine, their logs in a folder of their own.
/// `end()` leaves none of them behind, replacements that the servers started included.
final class Cluster {
    let folder: URL
    /// Of the two servers that tests start; a replacement may listen elsewhere.
    let ports: [UInt16]
    private(set) var processes: [String: Process] = [:]
    private var order: [String] = []
    /// Where any replica was ever said to listen, `ports` first.
    private var knownPorts: [UInt16]
    /// Bound to the ports that were given out, so that nobody else gets them until `end()`.
    private var sockets: [Int32]
    private var isEnded = false
    /// The instance that said it was primary, by service and view: for ever the same one.
    private var primaries: [String: String] = [:]

    static let binaries: URL = {
        for argument in CommandLine.arguments where argument.contains(".xctest") {
            let url = URL(filePath: argument)
            for folder in [url, url.deletingLastPathComponent()] {
                if FileManager.default.fileExists(atPath: folder.appending(path: "pollsrv").path) {
                    return folder
                }
            }
        }
        return URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: ".build/debug")
    }()

    init() throws {
        folder = try Home.shared.get().folder.appending(path: "\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        (ports, sockets) = try Self.bind(2)
        knownPorts = ports
    }

    var servers: String { ports.map { "127.0.0.1:\($0)" }.joined(separator: ",") }

    static let quick = ["--heartbeat", "100ms", "--misses", "5", "--restart-delay", "200ms"]

    // MARK: Processes

    @discardableResult
    func start(
        _ name: String, _ program: String, _ arguments: [String], input: String? = nil,
        from source: FileHandle? = nil, environment: [String: String] = [:]
    ) throws -> Process {
        let process = Process()
        process.executableURL =
            program.hasPrefix("/")
            ? URL(filePath: program) : Self.binaries.appending(path: program)
        process.arguments = arguments
        if !environment.isEmpty {
            process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        }
        process.currentDirectoryURL = folder
        process.standardInput = source ?? FileHandle.nullDevice
        if let input {
            let url = folder.appending(path: "\(name).in")
            try Data(input.utf8).write(to: url)
            process.standardInput = try FileHandle(forReadingFrom: url)
        }
        process.standardOutput = try file("\(name).out")
        process.standardError = try file("\(name).err")
        try process.runUnblocked()
        processes[name] = process
        order.append(name)
        return process
    }

    private func file(_ name: String) throws -> FileHandle {
        let path = folder.appending(path: name).path
        if !FileManager.default.fileExists(atPath: path) {
            _ = FileManager.default.createFile(atPath: path, contents: nil)
        }
        guard let handle = FileHandle(forWritingAtPath: path) else { throw Trouble(path) }
        try handle.seekToEnd()
        return handle
    }

    @discardableResult
    func primary(_ flags: [String] = quick) throws -> Process {
        try server("primary", 0, flags)
    }

    @discardableResult
    func backup(_ flags: [String] = quick) throws -> Process {
        try server("backup", 1, flags)
    }

    private func server(_ mode: String, _ index: Int, _ flags: [String]) throws -> Process {
        let (own, peer) = (ports[index], ports[1 - index])
        let addresses = ["--listen", "127.0.0.1:\(own)", "--peer", "127.0.0.1:\(peer)"]
        return try start(mode, "pollsrv", ["--\(mode)"] + addresses + flags)
    }

    static let names = ["ann", "bob", "cem", "dora", "eve"]

    func client(_ name: String, votes: Int = 0, _ flags: [String] = []) throws {
        try start(
            name, "pollclient",
            ["--servers", servers, "--name", name, "--log", log(name), "--votes", "\(votes)"]
                + flags)
    }

    func log(_ name: String) -> String { folder.appending(path: "\(name).log").path }

    func lines(_ name: String) -> [String] {
        let text = (try? String(contentsOfFile: log(name), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map(String.init)
    }

    /// What a program has said, `.out` or `.err`.
    func said(_ name: String, _ suffix: String) -> String {
        let path = folder.appending(path: "\(name).\(suffix)").path
        return (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }

    deinit { if !isEnded { end() } }

    /// Ends all that was started here and all that it started: whoever works in our folder. It is
    /// looked for until there is none, as one that is being killed may just have started another.
    func end() {
        isEnded = true
        for socket in sockets { close(socket) }
        sockets = []
        let deadline = ContinuousClock.now + .seconds(30)
        while ContinuousClock.now < deadline {
            let pids = inhabitants
            if pids.isEmpty { break }
            for pid in pids { kill(pid, SIGKILL) }
            usleep(5_000)
        }
        let left = inhabitants
        #expect(left.isEmpty, "processes that cannot be ended: \(left)")
        try? FileManager.default.removeItem(at: folder)
    }

    /// The processes whose working folder is ours; a zombie has none.
    var inhabitants: [Int32] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { Int32($0) }.filter { pid in
            let link = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "/proc/\(pid)/cwd")
            return link == folder.path
        }
    }

    // MARK: Questions

    /// `INFO pollsrv` as keys and values. Fails the test if two replicas ever say that they are
    /// primary in the same view. `seconds`: how long it may take to answer; 1 for who asks again and
    /// again, maybe one that is stopped.
    func info(_ port: UInt16, seconds: Int = 5) throws -> [String: String] {
        let client = try RawClient(port, seconds: seconds)
        guard case .text(let text) = try client.ask("INFO pollsrv") else { throw Trouble("INFO") }
        var values: [String: String] = [:]
        for line in text.split(separator: "\r\n") {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { values[String(parts[0])] = String(parts[1]) }
        }
        for key in ["primary_address", "backup_address"] {
            let place = self.port(of: values, key)
            if place != 0, !knownPorts.contains(place) { knownPorts.append(place) }
        }
        if values["mode"] == "primary", let instance = values["instance"],
            let view = values["view"], let service = values["service"]
        {
            let known = primaries["\(service) \(view)"]
            #expect(known == nil || known == instance, "two primaries in view \(view)\n\(words)")
            primaries["\(service) \(view)"] = instance
        }
        return values
    }

    /// What the primary with the highest view says; nil while there is none.
    var leader: [String: String]? {
        var best: [String: String]?
        for port in knownPorts {
            guard let info = try? info(port, seconds: 1), info["mode"] == "primary" else {
                continue
            }
            if Int(info["view"] ?? "") ?? 0 > Int(best?["view"] ?? "") ?? 0 { best = info }
        }
        return best
    }

    func port(of info: [String: String], _ key: String = "address") -> UInt16 {
        info[key].flatMap { $0.split(separator: ":").last }.flatMap { UInt16($0) } ?? 0
    }

    @discardableResult
    func waitForPair(witnesses: Int = 0) throws -> [String: String] {
        try eventually("a pair with \(witnesses) witnesses") {
            guard let leader, leader["state"] == "pair",
                Int(leader["witnesses"] ?? "") ?? 0 >= witnesses
            else { return nil }
            return leader
        }
    }

    /// What `look` finds, as soon as it finds something; fails with the servers' words. Whom it asks
    /// may have no answer yet, so a `Trouble` that it throws ends nothing. It looks once more when the
    /// time is over: this process may have stood still for all of it.
    func eventually<Found>(
        _ what: String, within seconds: Double = 20, _ look: () throws -> Found?
    ) throws -> Found {
        let deadline = ContinuousClock.now + .seconds(seconds)
        var last = ""
        var isLate = false
        while true {
            do {
                if let found = try look() { return found }
            } catch let trouble as Trouble {
                last = ", at last \(trouble)"
            }
            if isLate { throw Trouble("waited in vain for \(what)\(last)\n\(words)") }
            usleep(10_000)
            isLate = ContinuousClock.now >= deadline
        }
    }

    /// The ends of all messages.
    var words: String {
        order.map { name in
            let tail = said(name, "err").split(separator: "\n").suffix(25).joined(separator: "\n")
            return "--- \(name)\n\(tail)"
        }.joined(separator: "\n")
    }

    func waitForExit(_ name: String, within seconds: Double = 20) throws -> Int32 {
        guard let process = processes[name] else { throw Trouble("no process \(name)") }
        return try eventually("the end of \(name)", within: seconds) {
            process.isRunning ? nil : process.terminationStatus
        }
    }

    /// Every log holds the votes from 1 on, each once, and is byte for byte a beginning of the
    /// longest. With `ballots`, each of the first `count` votes has that many: none was lost.
    func checkLogs(_ names: [String] = names, atLeast count: Int = 1, ballots: Int? = nil) {
        let logs = names.map { FileManager.default.contents(atPath: log($0)) ?? Data() }
        let longest = logs.max { $0.count < $1.count } ?? Data()
        let lines = String(decoding: longest, as: UTF8.self).split(
            separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.last == "", "a torn last line")
        for (index, line) in lines.dropLast().enumerated() {
            let numbers = line.split(separator: " ").compactMap { Int($0) }
            guard numbers.count == 3, line == "\(index + 1) \(numbers[1]) \(numbers[2])" else {
                Issue.record("gap, repeat or nonsense in line \(index + 1): '\(line)'\n\(words)")
                return
            }
            guard let ballots, index < count else { continue }
            #expect(numbers[1] + numbers[2] == ballots, "ballots lost: '\(line)'\n\(words)")
        }
        for (name, log) in zip(names, logs) {
            let votes = log.count { $0 == 10 }
            #expect(votes >= count, "\(name) has \(votes) results, not \(count)\n\(words)")
            #expect(log.isEmpty || log.last == 10, "the log of \(name) has a torn line")
            #expect(longest.starts(with: log), "the log of \(name) differs\n\(words)")
        }
    }

    /// All clients' logs byte for byte, with the votes 1 to `count`.
    func checkLogsEqual(_ names: [String] = names, count: Int) {
        checkLogs(names, atLeast: count, ballots: names.count)
        for name in names { #expect(lines(name).count == count, "\(name)") }
    }

    /// More ports that nobody uses until `end()`.
    func freePorts(_ count: Int) throws -> [UInt16] {
        let (ports, bound) = try Self.bind(count)
        sockets += bound
        return ports
    }

    /// Sockets bound to free ports. Who lets others use its address, as servers do, can listen there
    /// as long as these do not; nobody is given such a port who asks for any.
    private static func bind(_ count: Int) throws -> (ports: [UInt16], sockets: [Int32]) {
        var sockets: [Int32] = []
        let ports = try (0..<count).map { _ in
            let fd = tcpSocket()
            sockets.append(fd)
            var yes: Int32 = 1
            setsockopt(
                fd, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = inet_addr("127.0.0.1")
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let status = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                    Foundation.bind(fd, raw, length) == 0 ? getsockname(fd, raw, &length) : -1
                }
            }
            guard status == 0 else { throw Trouble("no free port") }
            return UInt16(bigEndian: address.sin_port)
        }
        return (ports, sockets)
    }
}
