import Foundation
import Testing

/// Something a test waited for did not come, or a program could not be used.
struct Trouble: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Real servers and clients on free ports of this machine, their logs in a folder of their own.
/// `end()` leaves none of them behind, replacements that the servers started included.
final class Cluster {
    let folder: URL
    let ports: [UInt16]
    private(set) var processes: [String: Process] = [:]
    private var order: [String] = []

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
        folder = FileManager.default.temporaryDirectory.appending(
            path: "pollsrv-test-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        ports = try Self.freePorts(2)
    }

    var servers: String { ports.map { "127.0.0.1:\($0)" }.joined(separator: ",") }

    static let quick = ["--heartbeat", "100ms", "--misses", "5", "--restart-delay", "200ms"]

    // MARK: Processes

    @discardableResult
    func start(_ name: String, _ program: String, _ arguments: [String]) throws -> Process {
        let process = Process()
        process.executableURL = Self.binaries.appending(path: program)
        process.arguments = arguments
        process.currentDirectoryURL = folder
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try file("\(name).out")
        process.standardError = try file("\(name).err")
        try process.run()
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

    func client(_ name: String, votes: Int = 0) throws {
        try start(
            name, "pollclient",
            ["--servers", servers, "--name", name, "--log", log(name), "--votes", "\(votes)"])
    }

    func log(_ name: String) -> String { folder.appending(path: "\(name).log").path }

    func lines(_ name: String) -> [String] {
        let text = (try? String(contentsOfFile: log(name), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map(String.init)
    }

    /// Ends all that was started here and all that it started, by process number.
    func end() {
        var pids = processes.values.filter(\.isRunning).map(\.processIdentifier)
        for port in ports {
            guard let info = try? info(port) else { continue }
            for key in ["pid", "primary_pid", "backup_pid"] {
                if let pid = info[key].flatMap({ Int32($0) }), pid > 1 { pids.append(pid) }
            }
        }
        for pid in pids { kill(pid, SIGCONT) }
        for pid in pids { kill(pid, SIGKILL) }
        // A replacement that was just being started names this cluster's port as its peer.
        for pid in Self.children(naming: ports) { kill(pid, SIGKILL) }
        try? FileManager.default.removeItem(at: folder)
    }

    /// pollsrv processes whose arguments hold one of our ports.
    private static func children(naming ports: [UInt16]) -> [Int32] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { Int32($0) }.filter { pid in
            guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") else {
                return false
            }
            let text = String(decoding: data, as: UTF8.self)
            return text.contains("pollsrv")
                && ports.contains { text.contains("127.0.0.1:\($0)\0") }
        }
    }

    // MARK: Questions

    /// `INFO pollsrv` as keys and values.
    func info(_ port: UInt16) throws -> [String: String] {
        let client = try RawClient(port)
        guard case .text(let text) = try client.ask("INFO pollsrv") else { throw Trouble("INFO") }
        var values: [String: String] = [:]
        for line in text.split(separator: "\r\n") {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { values[String(parts[0])] = String(parts[1]) }
        }
        return values
    }

    /// What the primary with the highest view says; nil while there is none.
    var leader: [String: String]? {
        var best: [String: String]?
        for port in ports {
            guard let info = try? info(port), info["mode"] == "primary" else { continue }
            if Int(info["view"] ?? "") ?? 0 > Int(best?["view"] ?? "") ?? 0 { best = info }
        }
        return best
    }

    func port(of info: [String: String]) -> UInt16 {
        info["address"].flatMap { $0.split(separator: ":").last }.flatMap { UInt16($0) } ?? 0
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

    /// What `look` finds, as soon as it finds something; fails with the servers' words.
    func eventually<Found>(
        _ what: String, within seconds: Double = 20, _ look: () throws -> Found?
    ) throws -> Found {
        let deadline = Date().addingTimeInterval(seconds)
        while Date() < deadline {
            if let found = try look() { return found }
            usleep(10_000)
        }
        throw Trouble("waited in vain for \(what)\n\(words)")
    }

    /// The ends of all messages.
    var words: String {
        order.map { name in
            let path = folder.appending(path: "\(name).err").path
            let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            let tail = text.split(separator: "\n").suffix(25).joined(separator: "\n")
            return "--- \(name)\n\(tail)"
        }.joined(separator: "\n")
    }

    func waitForExit(_ name: String, within seconds: Double = 20) throws -> Int32 {
        guard let process = processes[name] else { throw Trouble("no process \(name)") }
        return try eventually("the end of \(name)", within: seconds) {
            process.isRunning ? nil : process.terminationStatus
        }
    }

    /// Every log holds the votes from 1 on, each once, and is a beginning of the longest.
    func checkLogs(_ names: [String] = names, atLeast count: Int = 1) throws {
        let logs = names.map { lines($0) }
        let longest = logs.max { $0.count < $1.count } ?? []
        let votes = longest.map { Int($0.split(separator: " ")[0]) ?? 0 }
        #expect(votes == Array(1...max(1, votes.count)), "gap or repeat")
        for (name, log) in zip(names, logs) {
            #expect(log.count >= count, "\(name) has \(log.count) results, expected \(count)")
            #expect(log == Array(longest.prefix(log.count)), "the log of \(name) differs")
        }
    }

    /// All clients' logs byte for byte.
    func checkLogsEqual(_ names: [String] = names, count: Int) throws {
        let first = FileManager.default.contents(atPath: log(names[0]))
        for name in names {
            #expect(FileManager.default.contents(atPath: log(name)) == first, "\(name) differs")
        }
        try checkLogs(names, atLeast: count)
        #expect(lines(names[0]).count == count)
    }

    static func freePorts(_ count: Int) throws -> [UInt16] {
        var sockets: [Int32] = []
        defer { for fd in sockets { close(fd) } }
        return try (0..<count).map { _ in
            let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            sockets.append(fd)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = inet_addr("127.0.0.1")
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let status = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                    bind(fd, raw, length) == 0 ? getsockname(fd, raw, &length) : -1
                }
            }
            guard status == 0 else { throw Trouble("no free port") }
            return UInt16(bigEndian: address.sin_port)
        }
    }
}
