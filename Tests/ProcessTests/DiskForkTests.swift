import Foundation
import Testing

extension Disks {
    /// A server alone is put back to an older copy of its disk, as a snapshot of its machine would be,
    /// and has answered for more by the time its partner comes.
    @Suite(.serialized) struct Forks {
        private func open(_ pair: DiskPair, _ index: Int, _ titles: [String]) throws {
            for title in titles {
                _ = try pair.cluster.eventually("vote \(title)") { () -> Bool? in
                    let client = try? RawClient(pair.cluster.ports[index])
                    guard case .number = try client?.ask("VOTE.OPEN \(title) ROLL open") else {
                        return nil
                    }
                    return true
                }
            }
        }

        private func votes(_ pair: DiskPair, _ index: Int) -> String {
            "\((try? RawClient(pair.cluster.ports[index]).ask("VOTE.LIST")) ?? .null)"
        }

        /// A pair that has opened some votes; gives where a copy of the first one's folder is, as it was
        /// before the second came.
        private func begin(_ pair: DiskPair) throws -> String {
            let older = pair.folder(0) + ".older"
            try pair.start(0, "primary")
            try open(pair, 0, ["first"])
            try pair.kill([0])
            try FileManager.default.copyItem(atPath: pair.folder(0), toPath: older)
            try pair.start(0, "primary")
            try pair.start(1, "backup")
            try pair.waitForPair()
            return older
        }

        private func goOn(_ pair: DiskPair, with older: String, _ more: Int) throws {
            try FileManager.default.removeItem(atPath: pair.folder(0))
            try FileManager.default.moveItem(atPath: older, toPath: pair.folder(0))
            try pair.start(0, "primary")
            try open(pair, 0, (1...more).map { "alone\($0)" })
        }

        /// `more`: of how many votes the older copy has told its clients. The partner's log is longer
        /// than that, or shorter. `kept`: which of the two people decide for.
        @Test(arguments: zip([1, 5], [1, 0])) func bothWaitForPeople(more: Int, kept: Int) throws {
            let pair = try DiskPair(clients: 0, flags: ["--test-hooks"])
            defer { pair.end() }
            let older = try begin(pair)
            try open(pair, 0, ["both1", "both2", "both3"])
            // Else one would have a moment to lead alone.
            try pair.kill([0, 1], atOnce: true)
            try goOn(pair, with: older, more)
            try pair.start(1, "backup")
            for index in 0...1 {
                _ = try pair.cluster.eventually("server \(index) says so") {
                    let said = pair.cluster.said(pair.name(index), "err")
                    return said.contains("is an older copy that has gone on since") ? true : nil
                }
                let info = try pair.cluster.info(pair.cluster.ports[index])
                #expect(info["stalled"] == "1")
                #expect(info["note"]?.hasPrefix("people: ") == true)
                let answer = try? RawClient(pair.cluster.ports[index]).ask("VOTE.OPEN x ROLL open")
                if case .number? = answer { Issue.record("server \(index) answers") }
            }
            let port = pair.cluster.ports[kept]
            #expect(try RawClient(port).ask("REPLICA PROMOTE FORCE") == .text("OK"))
            try pair.waitForPair()
            try open(pair, kept, ["after"])
            let list = votes(pair, kept)
            #expect(list.contains("first") && list.contains("after"), "\(list)")
            #expect(list.contains("alone1") == (kept == 0), "\(list)")
            #expect(list.contains("both3") == (kept == 1), "\(list)")
            _ = try pair.cluster.eventually("the same state") {
                let digests = try pair.cluster.ports.map { try pair.cluster.info($0)["digest"] }
                return digests[0] != nil && digests[0] == digests[1] ? true : nil
            }
        }

        /// The partner has led alone since, in a view without it: it is not let in, and nothing of what
        /// it has is lost.
        @Test(arguments: [1, 9]) func whoIsLeftOutIsRefused(more: Int) throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            let older = try begin(pair)
            try open(pair, 0, ["both1", "both2", "both3"])
            try pair.kill([0])
            try open(pair, 1, ["partner"])
            try pair.kill([1])
            try goOn(pair, with: older, more)
            try pair.start(1, "backup")
            #expect(try pair.cluster.waitForExit(pair.name(0)) == 69)
            let said = pair.cluster.said(pair.name(0), "err")
            #expect(said.contains("is an older copy that has gone on since"), "\(said)")
            try open(pair, 1, ["after"])
            // Its folder has what it acknowledged, for people to look at.
            try pair.start(0, "primary")
            #expect(try pair.cluster.waitForExit(pair.name(0)) == 69)
            try FileManager.default.removeItem(atPath: pair.folder(0))
            try pair.start(0, "backup")
            try pair.waitForPair()
        }
    }
}
