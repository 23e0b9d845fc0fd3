import Foundation
import Testing

/// The program `pollsim` itself, from outside.
@Suite struct PollsimTests {
    static let program = Bundle.main.bundleURL.deletingLastPathComponent()
        .appending(path: "pollsim")

    private static func run(_ arguments: [String]) throws -> (code: Int32, out: String, err: String)
    {
        let process = Process()
        process.executableURL = URL(filePath: locate())
        process.arguments = arguments
        let (out, err) = (Pipe(), Pipe())
        process.standardOutput = out
        process.standardError = err
        try process.run()
        let output = out.fileHandleForReading.readDataToEndOfFile()
        let errors = err.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (
            process.terminationStatus, String(decoding: output, as: UTF8.self),
            String(decoding: errors, as: UTF8.self)
        )
    }

    private static func locate() -> String {
        // Beside the test bundle, wherever the build put that.
        var folder = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
        for _ in 0..<4 {
            let candidate = folder.appending(path: "pollsim").path
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
            folder = folder.deletingLastPathComponent()
        }
        return program.path
    }

    @Test func twoProcessesTellTheSameStory() throws {
        let first = try Self.run(["--seed", "7", "--verbose"])
        let second = try Self.run(["--seed", "7", "--verbose"])
        #expect(first.code == 0 && first.out == second.out)
        #expect(first.out.contains("digest") && first.out.count > 10_000)
    }

    @Test func commitHashIsASeed() throws {
        let hash = "0123456789abcdef0123456789abcdef01234567"
        let result = try Self.run(["--seed", hash, "--quiet"])
        #expect(result.code == 0 && result.out.contains("seed 5124095576030430:"), "\(result)")
    }

    @Test func manySeedsAndASummary() throws {
        let result = try Self.run(["--seeds", "130", "--from", "1", "--threads", "2"])
        #expect(result.code == 0)
        #expect(result.out.contains("130 seeds from 1 in ") && result.out.contains("primaryKilled"))
    }

    @Test func failureNamesSeedRuleAndCommand() throws {
        let broken = ["--breakage", "noWriteAll", "--from", "2", "--seeds", "500"]
        let result = try Self.run(broken)
        #expect(result.code == 1, "a safety rule: \(result.err.suffix(300))")
        #expect(result.err.contains("breaks 'one history'"))
        let command = try #require(result.err.components(separatedBy: "repeat with: pollsim ").last)
        let again = try Self.run(
            command.split(whereSeparator: \.isWhitespace).map(String.init) + ["-q"])
        #expect(again.code == 1 && again.err.contains("breaks 'one history'"))
        let lines = result.err.components(separatedBy: "\n").filter { $0.contains(" ms  ") }
        #expect(lines.count == 30)
    }

    @Test func noProgressHasItsOwnExitCode() throws {
        let result = try Self.run(["--breakage", "highestIgnored", "--from", "1", "--seeds", "64"])
        #expect(result.code == 2)
    }

    @Test(arguments: [
        ["--seed", "x"], ["--sed", "1"], ["--minutes", "0s x"], ["--shape", "ring"],
    ])
    func wrongArgumentsAreNamed(arguments: [String]) throws {
        let result = try Self.run(arguments)
        #expect(result.code == 64 && result.err.contains(arguments[0]), "\(result)")
    }
}
