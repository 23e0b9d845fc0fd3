import Foundation
import Testing

extension Disks {
    /// Servers that have run out of something that is not the disk's.
    @Suite(.serialized) struct Limits {
        /// Clients connect to both replicas. More of them than descriptors must not keep either from
        /// opening its next segment, which would end both at the same moment.
        @Test func moreConnectionsThanDescriptors() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            let limit = 96
            pair.prefix = ["sh", "-c", "ulimit -n \(limit) && exec \"$@\"", "sh"]
            try pair.begin(ledger: false)
            let leader = try pair.leader()
            let client = try RawClient(pair.cluster.ports[leader], seconds: 20)
            #expect(try client.ask("PING") == .text("PONG"))
            var idle = try pair.cluster.ports.flatMap { port in
                try (0..<2 * limit).map { _ in try RawClient(port) }
            }
            for index in 0...1 {
                let words = "warning: out of descriptors (limit \(limit)): new connections wait"
                _ = try pair.cluster.eventually("a warning of server \(index)") {
                    pair.cluster.said(pair.name(index), "err").contains(words) ? true : nil
                }
            }
            // From one segment to the next, twice, with checkpoints.
            let question = String(repeating: "why ", count: 1_000)
            let command = "VOTE.OPEN \"\(question)\" DEADLINE 50 ROLL open\r\n"
            _ = try pair.cluster.eventually("a third segment in both folders", within: 60) {
                try client.send(Array(String(repeating: command, count: 16).utf8))
                for _ in 0..<16 {
                    guard case .number = try client.receive() else { throw Trouble("not opened") }
                }
                return (0...1).allSatisfy { index in
                    FileManager.default.fileExists(atPath: "\(pair.folder(index))/segment-3")
                } ? true : nil
            }
            for index in 0...1 {
                #expect(try #require(pair.servers[index]).isRunning, "\(pair.cluster.words)")
            }
            // Who has waited gets in as soon as others have gone.
            #expect(idle.count == 4 * limit)
            idle = []
            try pair.waitForPair()
        }
    }
}
