import Foundation
import Journal
import Linux
import Storage
import Testing
import Wire

/// `pollctl journal` as people run it.
@Suite struct JournalCommandTests {
    static let program: URL = {
        for argument in CommandLine.arguments where argument.contains(".xctest") {
            let url = URL(filePath: argument)
            for folder in [url, url.deletingLastPathComponent()] {
                let program = folder.appending(path: "pollctl")
                if FileManager.default.fileExists(atPath: program.path) { return program }
            }
        }
        return URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: ".build/debug/pollctl")
    }()

    private func run(_ arguments: [String]) throws -> (status: Int32, output: String, error: String)
    {
        let process = Process()
        process.executableURL = Self.program
        process.arguments = ["journal"] + arguments
        let (output, error) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = error
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        let complaint = error.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (
            process.terminationStatus, String(decoding: bytes, as: UTF8.self),
            String(decoding: complaint, as: UTF8.self)
        )
    }

    /// A server makes a checkpoint between the listing of its folder and the reading of what was
    /// listed: some of that is gone then.
    @Test func aJournalThatChangesMeanwhile() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "journal-\(UUID())")
            .path
        let gate = folder + "-gate"
        defer { for path in [folder, gate] { try? FileManager.default.removeItem(atPath: path) } }
        var store = try Store(folder: folder, service: nil)
        try store.create(Sample.identity)
        try store.append([.view(Sample.view(2))])
        try store.sync()
        // Newest first is the order of reading: two pipes to hold the program up, and a victim.
        let files = (1...3).map { "\(folder)/checkpoint-\($0)" }
        try Data().write(to: URL(filePath: files[0]))
        for path in files[1...] { #expect(mkfifo(path, 0o600) == 0) }
        #expect(link(files[1], gate) == 0)

        let process = Process()
        // If this process were killed, it would wait at its pipe for ever.
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [
            "timeout", "-s", "KILL", "60", Self.program.path, "journal", folder, "--records",
        ]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        // 1. It is at the first pipe, and so has listed the names.
        var first: Int32 = -1
        while first < 0, process.isRunning {
            first = open(files[2], O_WRONLY | O_NONBLOCK)
            usleep(1_000)
        }
        #expect(first >= 0)
        // 2. They are gone.
        for path in files { #expect(unlink(path) == 0) }
        // 3. It goes on. If it was not at the second pipe yet, it finds none.
        var second: Int32 = -1
        while second < 0, process.isRunning {
            second = open(gate, O_WRONLY | O_NONBLOCK)
            usleep(1_000)
        }
        for fd in [first, second] where fd >= 0 { close(fd) }
        let said = output.fileHandleForReading.readDataToEndOfFile()
        let text = String(decoding: said, as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
        #expect(text.contains("in use by a server"), "\(text)")
        #expect(text.hasSuffix("last op 0, view 2\nintact\n"), "\(text)")
        #expect(text.ranges(of: "segment-1 +104").count == 1, "\(text)")
        try store.sync()
    }

    @Test func intactThenRotten() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "journal-\(UUID())")
            .path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var options = Store.Options()
        options.segmentBytes = 4_096
        do {
            var store = try Store(folder: folder, service: nil, options: options)
            try store.create(Sample.identity)
            try store.append([
                .view(Sample.view(2)),
                .promised(
                    number: ViewNumber(3), Attempt(counter: 1, proposer: Instance(0xa))),
            ])
            for op in 1...30 {
                let entry = Sample.entry(2, OpNumber(UInt64(op)), count: 1, size: 200, fill: 1)
                try store.append([.entry(entry)])
                try store.sync()
            }
            let inUse = try run([folder])
            #expect(inUse.status == 0)
            #expect(inUse.output.contains("in use by a server"))
        }
        let plain = try run([folder])
        #expect(plain.status == 0, "\(plain)")
        #expect(!plain.output.contains("in use"))
        #expect(plain.output.hasSuffix("last op 30, view 2\nintact\n"), "\(plain.output)")
        #expect(plain.output.contains("segment-2"))

        let records = try run([folder, "--records"])
        #expect(
            records.output.contains("segment-1 +104  view  text \(Sample.view(2).text)\n"),
            "\(records.output)")
        let lines = try run([folder, "--json"]).output.split(separator: "\n")
        var ops: [Int] = []
        for line in lines {
            let fields = try #require(
                try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            if fields["kind"] as? String == "entry" { ops.append(fields["op"] as? Int ?? 0) }
        }
        #expect(ops == Array(1...30))

        let path = folder + "/segment-1"
        var bytes = try Files.readWhole(path)
        bytes[1_000] ^= 8
        try Data(bytes).write(to: URL(filePath: path))
        let rotten = try run([folder])
        #expect(rotten.status == 74)
        #expect(rotten.error.hasPrefix("pollctl: \(path), offset 9"), "\(rotten.error)")
        #expect(rotten.error.contains(", op 4: rot"), "\(rotten.error)")
        #expect(try run([folder + "/none"]).status == 74)
        #expect(try run([]).status == 64)
    }
}
