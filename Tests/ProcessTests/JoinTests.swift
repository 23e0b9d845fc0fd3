import Foundation
import Synchronization
import Testing

/// What a primary does with a server that wants to join and is not let in.
enum JoinRefusal: CaseIterable {
    case hello, state, end
}

extension ProcessSuite {
    @Suite(.serialized) struct Joins {
        /// The arguments of commands, as RESP arrays of bulk strings: every other line.
        private static func words(_ request: String) -> [String] {
            let lines = request.split(separator: "\r\n").map(String.init)
            return lines.filter { !$0.hasPrefix("*") && !$0.hasPrefix("$") }
        }

        private static func command(_ words: [String]) -> String {
            "*\(words.count)\r\n" + words.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
        }

        /// Each costs the primary a state, or at least a connection: they may not come as fast as the
        /// server can.
        @Test(arguments: JoinRefusal.allCases) func backOff(_ refusal: JoinRefusal) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let joins = Mutex(0)
            // On another host, so that nobody looks for its process.
            let member = "0.1.aaaa.1.1@127.0.0.1:\(cluster.ports[0])"
            let view = "1 \(member) - aaaa"
            let server = try FakeServer { _, request in
                let words = Self.words(request)
                if words.starts(with: ["PEER", "hello"]) {
                    guard refusal != .hello else {
                        joins.withLock { $0 += 1 }
                        return "-PEER not you\r\n"
                    }
                    let service = String(repeating: "5", count: 32)
                    return Self.command(
                        ["PEER", "hello", words[2], service, "member", member, view, "sticky"]
                            + ["-", "-"])
                }
                guard let place = words.firstIndex(of: "join"), place + 1 < words.count else {
                    return ""
                }
                joins.withLock { $0 += 1 }
                guard refusal == .state else { return nil }
                // The second piece comes first.
                return Self.command(["PEER", "state", words[place + 1], "5", "1", "2", view, "x"])
            }
            defer { server.stop() }
            try cluster.start(
                "joiner", "pollsrv",
                [
                    "--backup", "--listen", "127.0.0.1:\(cluster.ports[1])", "--peer",
                    "127.0.0.1:\(server.port)", "--heartbeat", "1s",
                ])
            _ = try cluster.eventually("a join") { joins.withLock { $0 } > 0 ? true : nil }
            sleep(4)
            let count = joins.withLock { $0 }
            // 20 ms doubling to 1 s; without a pause it would be hundreds.
            #expect((4...30).contains(count), "\(count) joins in 4 s\n\(cluster.words)")
            #expect(cluster.processes["joiner"]?.isRunning == true)
        }
    }
}
