import Foundation
import Testing

extension ProcessSuite {
    /// A `pollclient` whose log is no plain file, is torn or another's, or cannot be written.
    @Suite(.serialized) struct VoterLogs {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        @discardableResult
        private func start(_ cluster: Cluster, _ name: String, _ flags: [String]) throws
            -> Process
        {
            try cluster.start(
                name, "pollclient", ["--servers", cluster.servers, "--name", name] + flags)
        }

        /// What people are shown would stand over the log's lines.
        @Test func standardOutput() throws {
            try with { cluster in
                try cluster.primary(
                    Cluster.quick + ["--no-restart", "--voters", "1", "--votes", "3"])
                let log = ["--log", "/dev/stdout"]
                try start(cluster, "ann", log + ["--vote", "yes", "--votes", "3"])
                #expect(try cluster.waitForExit("ann") == 0, "\(cluster.words)")
                #expect(cluster.said("ann", "out") == "1 1 0\n2 1 0\n3 1 0\n")
                try start(cluster, "bob", log + ["--vote", "ask"])
                #expect(try cluster.waitForExit("bob") == 64)
                #expect(cluster.said("bob", "err").contains("give another --log"))
                #expect(cluster.said("bob", "out") == "")
            }
        }

        /// Messages would be written over the lines, or between them.
        @Test(arguments: ["--log /dev/stdout >all.log 2>&1", "--log all.log 2>>all.log"])
        func fileOfMessages(log: String) throws {
            try with { cluster in
                let program = Cluster.binaries.appending(path: "pollclient").path
                let line = "exec \(program) --servers \(cluster.servers) --name all \(log)"
                try cluster.start("ann", "/bin/sh", ["-c", line])
                #expect(try cluster.waitForExit("ann") == 64)
                let text = cluster.lines("all").joined()
                #expect(text.contains("standard error goes into the same file"), "\(text)")
            }
        }

        /// Nothing stands between the lines of what keeps none.
        @Test func questionsBesideNoLog() throws {
            try with { cluster in
                try cluster.primary(
                    Cluster.quick + ["--no-restart", "--voters", "1", "--votes", "1"])
                let program = Cluster.binaries.appending(path: "pollclient").path
                let voter = "\(program) --servers \(cluster.servers) --name ann --votes 1"
                let line = "yes yes | \(voter) --vote ask --log /dev/null >/dev/null"
                try cluster.start("ann", "/bin/sh", ["-c", line])
                #expect(try cluster.waitForExit("ann") == 0, "\(cluster.words)")
            }
        }

        /// Its reader pauses for ever: this voter votes on, and ends when it is told to.
        @Test func fullPipe() throws {
            try with { cluster in
                let path = cluster.folder.path + "/pipe"
                #expect(mkfifo(path, 0o600) == 0)
                try start(cluster, "early", ["--log", path])
                #expect(try cluster.waitForExit("early") == 74)
                #expect(cluster.said("early", "err").contains("nobody reads there"))

                let reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
                #expect(reader >= 0)
                defer { close(reader) }
                // F_SETPIPE_SZ: of one page, which some hundred lines fill.
                #expect(fcntl(reader, 1_031, 4_096) > 0)
                try cluster.primary(
                    Cluster.quick + ["--no-restart", "--voters", "1", "--votes", "1000000"])
                let ann = try start(cluster, "ann", ["--log", path, "--vote", "yes"])
                _ = try cluster.eventually("a full pipe", within: 60) {
                    cluster.said("ann", "err").contains("results are kept") ? true : nil
                }
                let count = try cluster.info(cluster.ports[0])["votes_closed"]
                _ = try cluster.eventually("more votes") {
                    try cluster.info(cluster.ports[0])["votes_closed"] != count ? true : nil
                }
                ann.terminate()
                #expect(try cluster.waitForExit("ann") == 74)
                #expect(cluster.said("ann", "err").contains("could not be written to \(path)"))
            }
        }

        /// The last result comes in one piece with the word that this voter has left.
        @Test func lastResultOnAFullDisk() throws {
            try with { cluster in
                let service = String(repeating: "5", count: 32)
                let server = try FakeServer(hello: [
                    ("server", "+pollsrv"), ("instance", "+5"), ("service", "+\(service)"),
                    ("view", ":1"), ("primary", "+127.0.0.1:PORT"),
                ]) { _, request in
                    let count = request.split(separator: "\r\n").count { $0.hasPrefix("*") }
                    let replies = String(repeating: "+OK\r\n", count: count)
                    let result = ">5\r\n+result\r\n:1\r\n:1\r\n:0\r\n:1\r\n"
                    return request.contains("VOTE.LEAVE") ? result + replies : replies
                }
                defer { server.stop() }
                let ann = try cluster.start(
                    "ann", "pollclient",
                    [
                        "--servers", "127.0.0.1:\(server.port)", "--name", "ann", "--log",
                        "/dev/full", "--verbose",
                    ])
                _ = try cluster.eventually("a voter that has joined") {
                    cluster.said("ann", "err").contains("joined as ann") ? true : nil
                }
                ann.terminate()
                #expect(try cluster.waitForExit("ann") == 74, "\(cluster.words)")
                let words = "cannot append to /dev/full: write: No space left on device\n"
                #expect(cluster.said("ann", "err").hasSuffix(words), "\(cluster.words)")
            }
        }

        /// It is told that the log cannot be written, as on a full disk, and votes on.
        @Test func aLogThatMayNotGrow() throws {
            try with { cluster in
                try cluster.primary(Cluster.quick + ["--no-restart", "--votes", "0"])
                _ = try cluster.eventually("the primary") { cluster.leader }
                let program = Cluster.binaries.appending(path: "pollclient").path
                let line = "ulimit -f 0; exec \(program) --servers \(cluster.servers) --name ann"
                try cluster.start(
                    "ann", "/bin/sh", ["-c", "(\(line) --log ann.log) 2>&1 >/dev/null | cat >&2"])
                let desk = try RawClient(cluster.ports[0])
                _ = try cluster.eventually("ann") {
                    (try? cluster.info(cluster.ports[0], seconds: 1)["voters"]) == "1" ? true : nil
                }
                for id in 1...2 {
                    #expect(try desk.ask("VOTE.OPEN x") == .number(id))
                    _ = try cluster.eventually("the result of vote \(id)") {
                        if case .list = try desk.ask("VOTE.RESULT \(id)") { true } else { nil }
                    }
                }
                _ = try cluster.eventually("a word about the log") {
                    cluster.said("ann", "err").contains("File too large; results are kept")
                        ? true : nil
                }
            }
        }

        @Test func tornLogIsMended() throws {
            try with { (cluster) throws in
                try cluster.primary(Cluster.quick + ["--voters", "2", "--votes", "8"])
                try cluster.backup()
                for name in ["ann", "bob"] { try cluster.client(name, votes: 8) }
                for name in ["ann", "bob"] { #expect(try cluster.waitForExit(name) == 0) }
                let url = URL(filePath: cluster.log("ann"))
                let whole = try Data(contentsOf: url)
                let torn = [
                    whole + Data("9 3".utf8), whole.dropLast(3), whole.dropLast(1),
                    whole.dropLast(whole.count / 2), Data("1 ".utf8), Data(),
                ]
                for data in torn {
                    try data.write(to: url)
                    try cluster.client("ann", votes: 8)
                    #expect(try cluster.waitForExit("ann") == 0)
                    cluster.checkLogsEqual(["ann", "bob"], count: 8)
                }
                // A log of another service is refused, and left as it is.
                let foreign = Data("1 7 7\n".utf8)
                try foreign.write(to: url)
                try cluster.client("ann", votes: 8)
                #expect(try cluster.waitForExit("ann") == 74)
                #expect(try Data(contentsOf: url) == foreign)
                try Data("2 7 7\n".utf8).write(to: url)
                try cluster.client("ann", votes: 8)
                #expect(try cluster.waitForExit("ann") == 74)
            }
        }
    }
}
