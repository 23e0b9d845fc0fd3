import Foundation
import Testing

/// Stories of the core, each a file of Tests/Traces: comments (`#`), commands, `----`, and the
/// whole output of the commands. `REWRITE=1 swift test --filter TraceTests` writes the outputs
/// anew; the difference is the review.
@Suite struct TraceTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Traces")

    static var names: [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".txt") }.sorted()
    }

    @Test func thereAreTraces() { #expect(Self.names.count >= 59) }

    @Test(arguments: names) func trace(name: String) throws {
        let url = Self.folder.appending(path: name)
        let before = try String(contentsOf: url, encoding: .utf8)
        let after = Self.replay(before)
        if ProcessInfo.processInfo.environment["REWRITE"] != nil {
            try after.write(to: url, atomically: true, encoding: .utf8)
        } else {
            #expect(after == before, "\(name): REWRITE=1 shows the difference")
        }
        #expect(!after.contains("TWO HISTORIES"))
    }

    /// The text with each block's output as it is now.
    static func replay(_ text: String) -> String {
        var world = World()
        var result: [String] = []
        var output: [String] = []
        var isOutput = false
        for line in text.components(separatedBy: "\n") {
            if line == "----" {
                isOutput = true
                result += ["----"] + output
                output = []
            } else if line.isEmpty {
                isOutput = false
                result.append(line)
            } else if !isOutput {
                result.append(line)
                if !line.hasPrefix("#") { output += world.run(line) }
            }
        }
        return result.joined(separator: "\n")
    }
}
