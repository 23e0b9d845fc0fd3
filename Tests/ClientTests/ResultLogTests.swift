import Foundation
import Testing

@testable import Client

@Suite struct ResultLogTests {
    private func with(_ content: String?, _ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appending(
            path: "result-log-\(UInt32.random(in: 0 ... .max))"
        ).path
        defer { try? FileManager.default.removeItem(atPath: path) }
        if let content { try content.write(toFile: path, atomically: true, encoding: .utf8) }
        try body(path)
    }

    private func text(_ path: String) throws -> String {
        try String(contentsOfFile: path, encoding: .utf8)
    }

    @Test func appendsLines() throws {
        try with(nil) { (path) throws in
            let log = try ResultLog(path: path)
            #expect(log.append(VoteResult(vote: 1, yes: 2, no: 3)) == nil)
            #expect(log.append(VoteResult(vote: 2, yes: 0, no: 0)) == nil)
            #expect(try text(path) == "1 2 3\n2 0 0\n")
        }
    }

    @Test func resumesBehindATornLine() throws {
        try with("1 2 3\n2 0") { (path) throws in
            let log = try ResultLog(path: path)
            #expect(log.lastLine == VoteResult(vote: 1, yes: 2, no: 3))
            #expect(log.append(VoteResult(vote: 2, yes: 0, no: 1)) == nil)
            #expect(try text(path) == "1 2 3\n2 0 1\n")
        }
    }

    @Test(arguments: ["2 1 1\n", "1 1 1\n1 1 1\n", "1 1\n", "1  1 1\n", "hello\n", "1 1 1\n\n"])
    func refusesWhatIsNoLog(content: String) throws {
        try with(content) { (path) throws in
            #expect(throws: ResultLog.OpenError.self) { try ResultLog(path: path) }
            #expect(try text(path) == content)
        }
    }

    @Test func oneWriterOnly() throws {
        try with(nil) { (path) throws in
            let first = try ResultLog(path: path)
            #expect(throws: ResultLog.OpenError.self) { try ResultLog(path: path) }
            #expect(first.lastLine == nil)
        }
    }
}
