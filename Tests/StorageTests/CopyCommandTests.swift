import Foundation
import Journal
import Testing
import Wire

/// `pollctl journal` of a copy of a service.
@Suite struct CopyCommandTests {
    /// Whoever makes a copy up gives it the numbers that he likes.
    @Test func largestNumbers() throws {
        let header = CheckpointHeader(
            copyBy: Sample.identity, op: OpNumber(1 << 63), view: ViewNumber(.max),
            hash: LogHash(5), snapshotBytes: 3, salt: 11)
        let path = FileManager.default.temporaryDirectory.appending(path: "copy-\(UUID())").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(Checkpoint.encode(header, [1, 2, 3])).write(to: URL(filePath: path))
        let process = Process()
        process.executableURL = JournalCommandTests.program
        process.arguments = ["journal", path, "--json"]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        let fields = try #require(try JSONSerialization.jsonObject(with: bytes) as? [String: Any])
        #expect(fields["op"] as? String == "9223372036854775808")
        #expect(fields["view"] as? String == "18446744073709551615")
    }
}
