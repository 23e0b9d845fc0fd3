import Glibc
import Linux
import Testing

@testable import Client

/// The log file, for real.
@Suite final class LogTests {
    /// A path that is not there yet.
    private let path = "/tmp/pollclient-test-\(Entropy.next()).log"

    deinit { unlink(path) }

    private func write(_ text: String) throws {
        let file = try Files.openForAppending(path)
        try Files.truncate(file.raw, to: 0, path: path)
        try IO.writeAll(file.raw, Array(text.utf8))
    }

    private func content() throws -> String {
        String(decoding: try Files.read(path), as: UTF8.self)
    }

    /// What opening the log says; the log is closed again.
    private func open() -> Result<PollResult?, ResultLog.Refusal> {
        do throws(ResultLog.Refusal) {
            let log = try ResultLog(path: path)
            return .success(log.found.last)
        } catch {
            return .failure(error)
        }
    }

    @Test func appendsAndResumes() throws {
        do {
            var log = try ResultLog(path: path)
            let found = log.found.last
            #expect(found == nil)
            try log.append(PollResult(id: 1, yes: 3, no: 2))
            try log.append(PollResult(id: 2, yes: 0, no: 0))
        }
        #expect(try content() == "1 3 2\n2 0 0\n")
        var log = try ResultLog(path: path)
        let (found, wasTorn) = (log.found.last, log.wasTorn)
        #expect(found == PollResult(id: 2, yes: 0, no: 0))
        #expect(!wasTorn)
        try log.append(PollResult(id: 3, yes: 1, no: 1))
        #expect(try content() == "1 3 2\n2 0 0\n3 1 1\n")
    }

    @Test(arguments: ["2", "2 ", "2 1", "2 1 0", "\0\0\0\0"])
    func tornLineIsCutOff(tail: String) throws {
        try write("1 3 2\n" + tail)
        var log = try ResultLog(path: path)
        let (found, wasTorn) = (log.found.last, log.wasTorn)
        #expect(wasTorn)
        #expect(found?.id == 1)
        #expect(try content() == "1 3 2\n")
        try log.append(PollResult(id: 2, yes: 1, no: 0))
        #expect(try content() == "1 3 2\n2 1 0\n")
    }

    @Test func tornFirstLineLeavesAnEmptyLog() throws {
        try write("1 3")
        #expect(open() == .success(nil))
        #expect(try content() == "")
    }

    @Test(arguments: [
        ("2 1 1\n", 1), ("1 1 1\n3 1 1\n", 2), ("1 1 1\n1 1 1\n", 2), ("1 1\n", 1),
        ("1 1 1 1\n", 1), ("1  1 1\n", 1), ("1 1 1 \n", 1), ("01 1 1\n", 1), ("1 -1 1\n", 1),
        ("1 1 1\n\n2 1 1\n", 2), ("1 1 1\r\n", 1), ("Dear diary", 1), ("\n", 1),
        ("1 99999999999999999999 1\n", 1),
    ])
    func whatIsNoLogIsRefusedAndKept(text: String, line: Int) throws {
        try write(text)
        let refusal = "\(path):\(line): not the log of a voter: '\(line) YES NO' expected"
        #expect(open() == .failure(ResultLog.Refusal(text: refusal)))
        #expect(try content() == text)
    }

    @Test func longTextWithoutLinesIsRefused() throws {
        let text = "1 1 1\n" + String(repeating: "2", count: 100)
        try write(text)
        guard case .failure = open() else {
            Issue.record("taken")
            return
        }
        #expect(try content() == text)
    }

    @Test func oneClientALog() throws {
        let log = try ResultLog(path: path)
        #expect(open() == .failure(ResultLog.Refusal(text: "\(path) is in use by another client")))
        // Keeps it open until here.
        let found = log.found.last
        #expect(found == nil)
    }

    /// A file system without locks, say: another client has nothing to do with it.
    @Test func onlyAnotherClientsLockIsOne() {
        #expect(throws: SystemError("flock", "a.log", code: EBADF)) {
            _ = try Files.lock(-1, path: "a.log")
        }
    }

    @Test func unwritablePathIsNamed() {
        let text =
            "open /nowhere/at.log: No such file or directory; --log FILE puts the results elsewhere, "
            + "into a folder that exists"
        #expect(throws: ResultLog.Refusal(text: text)) {
            _ = try ResultLog(path: "/nowhere/at.log")
        }
    }

    @Test func fullDiskIsReported() throws {
        var log = try ResultLog(path: "/dev/full")
        var code: CInt?
        do {
            try log.append(PollResult(id: 1, yes: 1, no: 1))
        } catch {
            code = error.code
        }
        #expect(code == 28, "ENOSPC")
    }

    /// Text that is shown stands between a log's lines where both are the same, but not in devices
    /// that keep nothing.
    @Test func onlyWhatMixesIsTheSame() throws {
        let file = try Files.openForAppending(path).release()
        let again = try Files.openForAppending(path).release()
        let null = [Glibc.open("/dev/null", O_WRONLY), Glibc.open("/dev/null", O_WRONLY)]
        var ends: [CInt] = [-1, -1]
        #expect(pipe(&ends) == 0)
        defer { for fd in [file, again] + null + ends { close(fd) } }
        let areSame = [
            Files.areSame(file, again), Files.areSame(ends[0], ends[1]),
            Files.areSame(file, ends[1]), Files.areSame(null[0], null[1]),
        ]
        #expect(areSame == [true, true, false, false])
    }

    /// It has no reader either, but none can be started.
    @Test func socketIsNotTakenForAPipe() throws {
        let socket = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { place in
            place.copyBytes(from: Array(path.utf8).prefix(place.count - 1))
        }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                bind(socket, raw, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(status == 0)
        guard case .failure(let refusal) = open() else {
            Issue.record("opened")
            return
        }
        #expect(refusal.text.contains("elsewhere"), "\(refusal.text)")
    }

    /// Nobody waits for its reader; what it had no room for is written once it has.
    @Test func pipeIsNotWaitedFor() throws {
        #expect(mkfifo(path, 0o600) == 0)
        guard case .failure(let refusal) = open() else {
            Issue.record("opened without a reader")
            return
        }
        #expect(refusal.text.contains("nobody reads there"), "\(refusal.text)")
        let reader = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        defer { close(reader) }
        var log = try ResultLog(path: path)
        var written: UInt64 = 0
        var code: CInt?
        do {
            while written < 100_000 {
                try log.append(PollResult(id: written + 1, yes: 1, no: 0))
                written += 1
            }
        } catch {
            code = error.code
        }
        #expect(code == EAGAIN && written > 0)

        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        var text: [UInt8] = []
        while case .bytes(let count) = chunk.withUnsafeMutableBytes({ IO.read(reader, into: $0) }) {
            text += chunk[..<count]
        }
        let lines = (1...written).map { "\($0) 1 0\n" }.joined()
        #expect(text == Array(lines.utf8))
        try log.append(PollResult(id: written + 1, yes: 1, no: 0))
    }

    @Test func scannerTakesPiecesOfAnySize() throws {
        let bytes = Array("1 2 3\n2 30 4\n3 0 0\n4 1".utf8)
        for size in 1...bytes.count {
            var scanner = LogScanner()
            for start in stride(from: 0, to: bytes.count, by: size) {
                try scanner.feed(bytes[start..<min(start + size, bytes.count)])
            }
            #expect(scanner.last == PollResult(id: 3, yes: 0, no: 0))
            #expect(scanner.tail == Array("4 1".utf8))
            #expect(scanner.wholeBytes == UInt64(bytes.count - 3))
        }
    }
}
