import Foundation
import Testing

extension Disks {
    /// Folders that people or disks have damaged while no server ran.
    @Suite(.serialized) struct Damages {
        private struct Damage: Sendable {
            let name: String
            /// What a start without the other server says if it comes to nothing; empty: it starts. A
            /// checkpoint can be done without, unless it came from the other.
            let refusal: String
            /// Whether it may not go on alone.
            var mustRefuse = false
            let make: @Sendable (String) throws -> Void
        }

        private static func files(_ folder: String, _ prefix: String) -> [String] {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            return names.filter { $0.hasPrefix(prefix) }.sorted {
                (Int($0.dropFirst(prefix.utf8.count)) ?? 0)
                    < (Int($1.dropFirst(prefix.utf8.count)) ?? 0)
            }.map { "\(folder)/\($0)" }
        }

        /// Behind the records of the last segment, whose last one may end with some zeros itself.
        private static func end(of bytes: Data) -> Int {
            (bytes.lastIndex { $0 != 0 } ?? -1) + 64
        }

        private static func change(_ path: String, _ body: (inout Data) -> Void) throws {
            var bytes = try Data(contentsOf: URL(filePath: path))
            body(&bytes)
            try bytes.write(to: URL(filePath: path))
        }

        private static let all = [
            Damage(name: "garbage behind the records", refusal: "") { folder in
                try change(files(folder, "segment-").last ?? "") { bytes in
                    let end = end(of: bytes)
                    bytes.replaceSubrange(end..<end + 40, with: Data(repeating: 0xa5, count: 40))
                }
            },
            Damage(name: "garbage behind the file", refusal: "") { folder in
                try change(files(folder, "segment-").last ?? "") { bytes in
                    bytes.append(Data(repeating: 0x5a, count: 100))
                }
            },
            Damage(name: "the reserved zeros are gone", refusal: "") { folder in
                try change(files(folder, "segment-").last ?? "") { bytes in
                    bytes.removeSubrange(end(of: bytes)...)
                }
            },
            Damage(name: "no lock", refusal: "") { folder in
                try FileManager.default.removeItem(atPath: "\(folder)/lock")
            },
            Damage(name: "the newest checkpoint is gone", refusal: ": offset ") { folder in
                try FileManager.default.removeItem(
                    atPath: files(folder, "checkpoint-").last ?? "")
            },
            Damage(name: "a rotten checkpoint", refusal: ": offset ") { folder in
                try change(files(folder, "checkpoint-").last ?? "") { bytes in
                    bytes[bytes.count / 2] ^= 1
                }
            },
            Damage(
                name: "no identity", refusal: "identity: missing, though there is ",
                mustRefuse: true
            ) { folder in
                try FileManager.default.removeItem(atPath: "\(folder)/identity")
            },
        ]

        /// Both were killed; one is damaged. Alone it goes on or says what is missing; with the other
        /// the pair is whole again, and everything is there.
        @Test func oneIsDamaged() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            try Filler.fill(pair) {
                (0...1).allSatisfy { Self.files(pair.folder($0), "checkpoint-").count == 2 }
            }
            for (number, damage) in Self.all.enumerated() {
                try pair.ledger.waitForMore()
                try pair.kill([0, 1])
                let victim = number % 2
                let folder = pair.folder(victim)
                let copy = "\(folder)-copy"
                try FileManager.default.copyItem(atPath: folder, toPath: copy)
                try damage.make(folder)
                let before = try Snapshot(folder)
                let process = try pair.start(victim, "primary")
                let hasStarted = try pair.cluster.eventually("\(damage.name): a word") {
                    () -> Bool? in
                    if !process.isRunning { return false }
                    return (try? pair.cluster.info(pair.cluster.ports[victim])).map { _ in true }
                }
                if hasStarted {
                    #expect(!damage.mustRefuse, "\(damage.name)\n\(pair.cluster.words)")
                } else {
                    #expect(!damage.refusal.isEmpty, "\(damage.name)\n\(pair.cluster.words)")
                    #expect(try pair.cluster.waitForExit(pair.name(victim)) == 74)
                    let said = pair.cluster.said(pair.name(victim), "err").split(separator: "\n")
                    #expect(said.last?.contains(damage.refusal) == true, "\(said.last ?? "")")
                    #expect(try Snapshot(folder) == before, "\(damage.name): it was touched")
                    try FileManager.default.removeItem(atPath: folder)
                    try FileManager.default.moveItem(atPath: copy, toPath: folder)
                    try pair.start(victim, "backup")
                }
                try? FileManager.default.removeItem(atPath: copy)
                try pair.start(1 - victim, "backup")
                do {
                    try pair.waitForPair()
                    try pair.check()
                } catch {
                    throw Trouble("\(damage.name), server \(victim): \(error)")
                }
            }
            try pair.checkBoth()
        }

        /// The one before it and the journal behind that make up for it, and it is said, also when
        /// the journal has a torn tail besides.
        @Test(arguments: [false, true]) func theNewestCheckpointIsRotten(isTorn: Bool) throws {
            let pair = try DiskPair(clients: 0, flags: ["--test-hooks"])
            defer { pair.end() }
            let (folder, port) = (pair.folder(0), pair.cluster.ports[0])
            // Of a primary without open votes.
            func digest() throws -> String {
                try pair.cluster.eventually("the end of all votes", within: 60) {
                    guard let info = try? pair.cluster.info(port), info["mode"] == "primary",
                        info["votes_open"] == "", info["op"] == info["commit"]
                    else { return nil }
                    return info["digest"]
                }
            }
            try pair.start(0, "primary")
            // Both its own: none was received when it joined.
            try Filler.fill(pair) { Self.files(folder, "checkpoint-").count == 2 }
            let before = try digest()
            try pair.waitForIdleJournals([0])
            try pair.kill([0])
            let checkpoints = Self.files(folder, "checkpoint-")
            let newest = try #require(checkpoints.last)
            try #require(checkpoints.count == 2 && !newest.hasSuffix(".new"))
            try Self.change(newest) { $0[$0.count / 2] ^= 1 }
            if isTorn {
                // In the mark behind the last record.
                try Self.change(Self.files(folder, "segment-").last ?? "") { bytes in
                    bytes.removeSubrange((bytes.lastIndex { $0 != 0 } ?? 0)...)
                }
            }
            try pair.start(0, "primary")
            #expect(try digest() == before)
            let said = pair.cluster.said(pair.name(0), "err")
            #expect(said.contains("\(newest) is rotten (offset "), "\(said)")
            #expect(said.contains("; cut there") == isTorn, "\(said)")
        }

        /// As the disk would be if the power failed in the middle, but worse: the files are from
        /// different moments. A server that is started on it goes on or refuses, in words. The pair is not there
        /// then: two of one replica may not run.
        @Test func copiesOfARunningFolder() throws {
            let pair = try DiskPair()
            defer { pair.end() }
            try pair.begin()
            let ports = try pair.cluster.freePorts(8)
            var copies: [String] = []
            for number in 0..<8 {
                try Filler.fill(pair, during: 0.15)
                let copy = pair.cluster.folder.appending(path: "copy\(number)").path
                let process = Process()
                process.executableURL = URL(filePath: "/bin/cp")
                process.arguments = ["-r", pair.folder(number % 2), copy]
                process.standardError = FileHandle.nullDevice
                try process.run()
                // It goes on meanwhile.
                try Filler.fill(pair, during: 0.05)
                process.waitUntilExit()
                // Some files may go while it copies. Without this one it would be no replica's folder, in
                // which any server starts.
                try #require(FileManager.default.fileExists(atPath: "\(copy)/identity"))
                copies.append(copy)
            }
            try pair.kill([0, 1], atOnce: true)
            // Nobody waits for them one by one.
            let servers = try copies.enumerated().map { number, copy in
                try pair.cluster.start(
                    "copy\(number)", "pollsrv",
                    [
                        "--backup", "--listen", "127.0.0.1:\(ports[number])", "--peer",
                        "127.0.0.1:1", "--data", copy, "--no-restart",
                    ])
            }
            for (server, port) in zip(servers, ports) {
                _ = try pair.cluster.eventually("a start or a refusal", within: 60) { () -> Bool? in
                    if server.isRunning {
                        return (try? pair.cluster.info(port)).map { _ in true }
                    }
                    #expect(server.terminationReason == .exit, "\(pair.cluster.words)")
                    #expect(server.terminationStatus == 74, "\(pair.cluster.words)")
                    return true
                }
            }
            for server in servers where server.isRunning { server.terminate() }
            for server in servers {
                server.waitUntilExit()
                #expect(server.terminationReason == .exit, "\(pair.cluster.words)")
            }
            for index in 0...1 { try pair.start(index, "backup") }
            try pair.checkBoth()
        }

        /// Somebody has filled the second server's folder with a copy of the first one's. `isAlone`: the
        /// first was alone in its view, so that each of the two could go on without anybody.
        @Test(arguments: [(true, true), (true, false), (false, true)])
        func theSameReplicaTwice(isAlone: Bool, atOnce: Bool) throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin()
            try pair.ledger.waitForMore()
            if isAlone {
                try pair.kill([1])
                try pair.ledger.waitForMore()
            }
            try pair.kill([0] + (isAlone ? [] : [1]))
            let own = "\(pair.folder(1))-own"
            try FileManager.default.moveItem(atPath: pair.folder(1), toPath: own)
            try FileManager.default.copyItem(atPath: pair.folder(0), toPath: pair.folder(1))
            try pair.start(0, "primary")
            if !atOnce { try pair.ledger.waitForMore() }
            try pair.start(1, "primary")
            let ended = try pair.cluster.eventually("the end of one") {
                (0...1).filter { pair.servers[$0]?.isRunning == false }.last
            }
            if !atOnce { #expect(ended == 1, "the one that was there first has gone") }
            #expect(try pair.cluster.waitForExit(pair.name(ended)) == 74)
            let said = pair.cluster.said(pair.name(ended), "err")
            #expect(said.contains("\(pair.folder(ended)): process "), "\(said)")
            #expect(said.contains("is this very replica, on a copy of its folder"), "\(said)")
            // What the other has, if it still runs, is what counts now.
            try pair.kill([0, 1])
            if ended == 0 {
                try FileManager.default.removeItem(atPath: pair.folder(0))
                try FileManager.default.moveItem(atPath: pair.folder(1), toPath: pair.folder(0))
            } else {
                try FileManager.default.removeItem(atPath: pair.folder(1))
            }
            try FileManager.default.moveItem(atPath: own, toPath: pair.folder(1))
            for index in 0...1 { try pair.start(index, "backup") }
            try pair.checkBoth()
        }

        /// One that was alone in its view acknowledges nothing while it may be a copy of one that runs:
        /// here that one takes a moment to say so.
        @Test func nothingIsAcknowledgedBeforeACopyIsRuledOut() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            let (cluster, port) = (pair.cluster, pair.cluster.ports[0])
            try pair.start(0, "primary")
            _ = try cluster.eventually("a vote") {
                let client = try? RawClient(port)
                return try? client?.ask("VOTE.OPEN before ROLL open") == .number(1) ? true : nil
            }
            try pair.kill([0])
            let original = try FakeServer { _, request in
                var words = FakeServer.words(request)
                guard words.starts(with: ["PEER", "hello"]), words.count > 5 else { return "" }
                usleep(700_000)
                // The same replica and instance, but another process of another host.
                let at = words[5].firstIndex(of: "@") ?? words[5].endIndex
                let parts = words[5][..<at].split(separator: ".")
                words[5] = parts.prefix(3).joined(separator: ".") + ".1.1" + words[5][at...]
                return FakeServer.command(words)
            }
            defer { original.stop() }
            let began = ContinuousClock.now
            try cluster.start(
                "copy", "pollsrv",
                [
                    "--primary", "--listen", "127.0.0.1:\(port)", "--peer",
                    "127.0.0.1:\(original.port)", "--data", pair.folder(0), "--no-restart",
                ])
            let client = try cluster.eventually("the copy to listen") { try? RawClient(port) }
            let reply = try? client.ask("VOTE.OPEN after ROLL open")
            let time = ContinuousClock.now - began
            // One that does not answer is not waited for for ever; this process may have stood still.
            if case .number? = reply {
                #expect(time >= .seconds(2), "acknowledged after \(time)")
            } else {
                #expect(reply == nil || reply?.code == "TRYAGAIN", "\(reply ?? .null)")
            }
            #expect(try cluster.waitForExit("copy") == 74)
            let said = cluster.said("copy", "err")
            #expect(said.contains("is this very replica, on a copy of its folder"), "\(said)")
        }

        /// Nobody else gets into a folder in use, also where somebody has removed the lock's file.
        @Test func theLockIsRemovedWhileItRuns() throws {
            let pair = try DiskPair(clients: 0)
            defer { pair.end() }
            try pair.begin()
            try FileManager.default.removeItem(atPath: "\(pair.folder(0))/lock")
            try pair.cluster.start(
                "second", "pollsrv",
                [
                    "--backup", "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:1", "--data",
                    pair.folder(0),
                ])
            #expect(try pair.cluster.waitForExit("second", within: 10) == 74)
            let said = pair.cluster.said("second", "err")
            #expect(said.contains("\(pair.folder(0)): in use by another process"), "\(said)")
            try pair.check()
        }
    }
}
