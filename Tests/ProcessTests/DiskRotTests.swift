import Foundation
import Testing

extension Disks {
    /// Bytes that have changed on the disk, or gone, after they had been answered for.
    @Suite(.serialized) struct Rot {
        private func segment(_ folder: String) throws -> String {
            let names = try FileManager.default.contentsOfDirectory(atPath: folder)
            let last = names.filter { $0.hasPrefix("segment-") }.max {
                (Int($0.dropFirst(8)) ?? 0) < (Int($1.dropFirst(8)) ?? 0)
            }
            return "\(folder)/\(try #require(last))"
        }

        /// Flips a bit in the middle of what the last segment holds.
        private func flip(_ folder: String) throws {
            let url = URL(filePath: try segment(folder))
            var bytes = try Data(contentsOf: url)
            let end = try #require(bytes.lastIndex { $0 != 0 })
            bytes[end / 2] ^= 4
            try bytes.write(to: url)
        }

        private func newestCheckpoint(_ folder: String) throws -> String {
            let names = try FileManager.default.contentsOfDirectory(atPath: folder)
            let ops = names.compactMap { name in
                name.hasPrefix("checkpoint-") ? Int(name.dropFirst(11)) : nil
            }
            guard let op = ops.max() else { throw Trouble("no checkpoint in \(folder)") }
            return "\(folder)/checkpoint-\(op)"
        }

        /// Flips a bit in the head of the first segment that the newest checkpoint needs.
        private func flipHead(_ folder: String) throws {
            let checkpoint = try Data(
                contentsOf: URL(filePath: try newestCheckpoint(folder)))
            let number = checkpoint[72..<80].reversed().reduce(0) { $0 << 8 | Int($1) }
            let url = URL(filePath: "\(folder)/segment-\(number)")
            var bytes = try Data(contentsOf: url)
            bytes[50] ^= 4
            try bytes.write(to: url)
        }

        /// The last record of all, of servers that had nothing to do for a moment: what they have
        /// answered for does not pass for a write that never ended.
        @Test func theLastRecord() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin()
            try pair.ledger.waitForMore(5)
            pair.ledger.end()
            let leader = try pair.leader()
            // Their journals end with a mark then, 24 bytes.
            try pair.waitForIdleJournals([0, 1])
            try pair.kill([0, 1])
            let folder = pair.folder(leader)
            let url = URL(filePath: try segment(folder))
            var bytes = try Data(contentsOf: url)
            let end = try #require(bytes.lastIndex { $0 != 0 })
            bytes[end - 30] ^= 1
            try bytes.write(to: url)
            try pair.start(leader, "primary")
            #expect(try pair.cluster.waitForExit(pair.name(leader), within: 30) == 74)
            let said = pair.cluster.said(pair.name(leader), "err")
            #expect(said.contains(": rot: the intact record at"), "\(said)")
        }

        /// Without the other server it is refused, with its place, and nothing is touched; with it the
        /// folder's replica begins anew, and everything is there.
        @Test(arguments: [true, false]) func aFlippedBit(isPrimary: Bool) throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            try pair.ledger.waitForMore(30)
            let leader = try pair.leader()
            let victim = isPrimary ? leader : 1 - leader
            try pair.kill([0, 1])
            let folder = pair.folder(victim)
            try flip(folder)
            let before = try Snapshot(folder)
            try pair.start(victim, "primary")
            #expect(try pair.cluster.waitForExit(pair.name(victim), within: 30) == 74)
            let said = pair.cluster.said(pair.name(victim), "err").split(separator: "\n").last ?? ""
            let place = #/--data .*/segment-1: offset [0-9]+, op [0-9]+: /#
            #expect(said.firstMatch(of: place) != nil, "\(said)")
            #expect(try Snapshot(folder) == before, "something was touched")
            try pair.start(1 - victim, "backup")
            _ = try pair.cluster.eventually("the other to answer") {
                try? pair.cluster.info(pair.cluster.ports[1 - victim])
            }
            try pair.start(victim, "primary")
            try pair.checkBoth()
            #expect(FileManager.default.fileExists(atPath: "\(folder)/aside-1/segment-1"))
            // Later starts are as any other.
            try pair.kill([0, 1])
            for index in 0...1 { try pair.start(index, "backup") }
            try pair.checkBoth()
        }

        /// A replica that has stayed behind may lack what is lost here: the folder's replica begins
        /// anew only for one that is as far as its own journal.
        /// With nothing before the flaw the view stands in the checkpoint, or behind the flaw.
        @Test(arguments: [false, true]) func aPeerThatIsBehind(isInHead: Bool) throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin()
            try pair.ledger.waitForMore(60)
            pair.ledger.end()
            let leader = try pair.leader()
            if isInHead {
                try Filler.fill(pair) { (try? newestCheckpoint(pair.folder(leader))) != nil }
            }
            let info = try pair.cluster.info(pair.cluster.ports[leader])
            let service = try #require(info["service"])
            let view = try #require(info["view"].flatMap { Int($0) })
            #expect(view > 1, "no view is older")
            try pair.kill([0, 1], atOnce: true)
            let folder = pair.folder(leader)
            if isInHead { try flipHead(folder) } else { try flip(folder) }
            let before = try Snapshot(folder)
            func start(_ name: String, besides view: Int) throws -> (Process, FakeServer) {
                let peer = try FakeServer(
                    hello: [("service", "+\(service)"), ("view", ":\(view)")]
                ) { _, _ in "-PEER not now\r\n" }
                let process = try pair.cluster.start(
                    name, "pollsrv",
                    [
                        "--backup", "--listen", "127.0.0.1:\(pair.cluster.ports[leader])",
                        "--peer", "127.0.0.1:\(peer.port)", "--data", folder, "--no-restart",
                    ])
                return (process, peer)
            }

            let (_, older) = try start("refused", besides: view - 1)
            defer { older.stop() }
            #expect(try pair.cluster.waitForExit("refused", within: 30) == 74)
            let said = pair.cluster.said("refused", "err")
            let why = "is in view \(view - 1) only, before view \(view) of this journal"
            #expect(said.contains(why), "\(said)")
            let place = #/--data .*/segment-[0-9]+: offset [0-9]+, op [0-9]+: /#
            #expect(said.split(separator: "\n").last?.firstMatch(of: place) != nil, "\(said)")
            #expect(try Snapshot(folder) == before, "something was touched")

            let (process, same) = try start("renewed", besides: view)
            defer { same.stop() }
            _ = try pair.cluster.eventually("the journal to be put aside") { () -> Bool? in
                #expect(process.isRunning, "\(pair.cluster.words)")
                return pair.cluster.said("renewed", "err").contains("\(folder)/aside-1 now")
                    ? true : nil
            }
            #expect(FileManager.default.fileExists(atPath: "\(folder)/aside-1/segment-1"))
        }
    }
}
