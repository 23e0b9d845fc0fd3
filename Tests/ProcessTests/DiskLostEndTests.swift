import Foundation
import Testing

extension Disks {
    /// A journal that ends before what it had: what is left is intact, and nothing in it tells.
    @Suite(.serialized) struct LostEnds {
        private struct Line: Decodable {
            let file: String
            let offset: Int
            let bytes: Int
            let kind: String
            let op: UInt64?
        }

        /// Leaves zeros where the last entries stood, as many as there are behind anything else, 40 at
        /// the most.
        private static func loseEnd(of folder: String) throws {
            let process = Process()
            process.executableURL = Cluster.binaries.appending(path: "pollctl")
            process.arguments = ["journal", folder, "--json"]
            let pipe = Pipe()
            process.standardOutput = pipe
            try process.run()
            let text = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            try #require(process.terminationStatus == 0)
            let lines = try text.split(separator: UInt8(ascii: "\n")).map {
                try JSONDecoder().decode(Line.self, from: $0)
            }
            let file = try #require(lines.last).file
            let entries = lines.reversed().prefix { $0.kind == "entry" && $0.file == file }
            let count = min(40, entries.count - 1)
            try #require(count > 3, "\(entries.count) entries at the end")
            let kept = lines[lines.count - 1 - count]
            let path = "\(folder)/\(file)"
            var bytes = try Data(contentsOf: URL(filePath: path))
            let end = kept.offset + kept.bytes
            bytes.replaceSubrange(end..<bytes.count, with: Data(count: bytes.count - end))
            try bytes.write(to: URL(filePath: path))
        }

        /// The power goes for both, and the one that comes back first has less than was acknowledged.
        /// Clients are about, and could elect it. It waits for the other, which leads.
        @Test(arguments: [true, false]) func theShorterIsFirst(wasPrimary: Bool) throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            _ = try pair.cluster.waitForPair(witnesses: 3)
            try pair.ledger.waitForMore(100)
            let leader = try pair.leader()
            let victim = wasPrimary ? leader : 1 - leader
            // Every witness has been told what is committed: 10 ms later, mostly.
            usleep(200_000)
            try pair.kill([0, 1])
            try Self.loseEnd(of: pair.folder(victim))
            try pair.start(victim, "primary")
            let port = pair.cluster.ports[victim]
            _ = try pair.cluster.eventually("it knows", within: 60) {
                pair.cluster.said(pair.name(victim), "err").contains("its disk has lost the end")
                    ? true : nil
            }
            #expect(try pair.cluster.info(port)["stalled"] == "1")
            let results = pair.cluster.lines(pair.names[0]).count
            usleep(500_000)
            #expect(pair.cluster.lines(pair.names[0]).count == results, "it leads with less")
            try pair.start(1 - victim, "backup")
            try pair.checkBoth()
        }

        /// The power goes for both, and one comes back, with all that it had. With the clients that were
        /// there before it goes on alone.
        @Test(arguments: [true, false]) func oneComesBack(wasPrimary: Bool) throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            _ = try pair.cluster.waitForPair(witnesses: 3)
            try pair.ledger.waitForMore()
            let leader = try pair.leader()
            try pair.kill([0, 1])
            try pair.start(wasPrimary ? leader : 1 - leader, "backup")
            try pair.check()
            try pair.start(wasPrimary ? 1 - leader : leader, "primary")
            try pair.checkBoth()
        }
    }
}
