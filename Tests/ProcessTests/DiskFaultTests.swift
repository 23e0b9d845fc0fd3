import Foundation
import Testing

/// A fault that a replica cannot go on with.
struct FatalFault: Sendable, CustomTestStringConvertible {
    let fault: String
    /// The call and file that the last words name.
    let words: String
    /// It strikes only when the next segment is begun.
    var isAtNextSegment = false

    var testDescription: String { fault }

    static let all = [
        FatalFault(fault: "pwrite segment- 0 0 \(FaultDisk.noSpace)", words: "pwrite"),
        FatalFault(fault: "fdatasync segment- 0 0 \(FaultDisk.inputOutput)", words: "fdatasync"),
        FatalFault(
            fault: "fallocate segment-2 0 0 \(FaultDisk.noSpace)", words: "fallocate",
            isAtNextSegment: true),
    ]
}

extension Disks {
    /// Disks that fail while servers run.
    @Suite(.serialized, .enabled(if: FaultDisk.compiler != nil, "it takes a C compiler"))
    struct Faults {
        /// A pair, each on a disk that can fail, in files of 1 MiB.
        private func with(clients: Int = 3, _ body: (DiskPair, [FaultDisk]) throws -> Void) throws {
            let pair = try DiskPair(clients: clients)
            defer { pair.end() }
            let disks = try (0...1).map {
                try FaultDisk(folder: pair.folder($0), home: pair.cluster.folder)
            }
            pair.environments = disks.map(\.environment)
            try body(pair, disks)
        }

        /// What a service is to begin with is said by the flags of its first start, which may end before
        /// that is in the log.
        @Test func theFirstStartIsMadeUpFor() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let folder = cluster.folder.appending(path: "data").path
            let disk = try FaultDisk(folder: folder, home: cluster.folder)
            try Data("attic\n".utf8).write(to: cluster.folder.appending(path: "rooms"))
            let flags = ["--data", folder, "--rooms", "rooms", "--votes", "2", "--no-restart"]
            let arguments =
                ["--primary", "--listen", "127.0.0.1:\(cluster.ports[0])", "--peer", "127.0.0.1:1"]
                + flags
            // The first one is the journal's birth.
            try disk.set(["pwrite segment-1 1 0 \(FaultDisk.inputOutput)"])
            try cluster.start("first", "pollsrv", arguments, environment: disk.environment)
            #expect(try cluster.waitForExit("first") == 74)
            let journal = try cluster.run("pollctl", ["journal", folder])
            #expect(journal.output.contains("last op 0, view 1"), "\(journal)")
            try cluster.start("second", "pollsrv", arguments)
            let client = try cluster.eventually("the server") { () -> RawClient? in
                let client = try RawClient(cluster.ports[0])
                return try client.ask("VOTE.JOIN ann") == .text("OK") ? client : nil
            }
            #expect(try client.ask("ROOM.ROOMS") == .text("attic"))
            for vote in 1...2 {
                _ = try cluster.eventually("vote \(vote)") {
                    try client.ask("VOTE.CAST \(vote) ann yes") == .text("OK") ? true : nil
                }
            }
        }

        /// The disk of `victim` fails: it ends with the right words, the other goes on, nothing that
        /// was acknowledged is lost, and with a good disk it comes back.
        private func fail(_ victim: Int, _ fault: FatalFault, _ pair: DiskPair, _ disk: FaultDisk)
            throws
        {
            try pair.ledger.waitForMore()
            pair.ledger.restartGap()
            try disk.set([fault.fault])
            if fault.isAtNextSegment {
                try Filler.fill(pair) { !disk.hits.isEmpty }
            }
            #expect(try pair.cluster.waitForExit(pair.name(victim)) == 74)
            #expect(disk.hits.count == 1, "a call was made again: \(disk.hits)")
            let said = pair.cluster.said(pair.name(victim), "err").split(separator: "\n")
            let errors = said.filter { $0.contains("error: ") }
            #expect(errors.count == 1, "\(said)")
            #expect(said.last == errors.first, "it went on: \(said)")
            let words = "the journal cannot be written: \(fault.words) \(pair.folder(victim))/"
            #expect(errors.first?.contains(words) == true, "\(errors)")
            try pair.ledger.waitForMore()
            print("\(fault.fault): \(Int(pair.ledger.gap * 1_000)) ms without an acknowledgement")
            if !pair.names.isEmpty { try pair.waitForResults() }
            #expect(try pair.leader() == 1 - victim)
            try pair.check()
            try disk.heal()
            try pair.start(victim, victim == 0 ? "primary" : "backup")
            try pair.checkBoth()
        }

        @Test(arguments: FatalFault.all, [true, false])
        func theReplicaStepsDown(_ fault: FatalFault, isPrimary: Bool) throws {
            try with { (pair, disks) throws in
                try pair.begin()
                let leader = try pair.leader()
                let victim = isPrimary ? leader : 1 - leader
                try fail(victim, fault, pair, disks[victim])
            }
        }

        /// No client is a witness: the proof that its process has exited is all there is.
        @Test(arguments: [true, false]) func withoutWitnesses(isPrimary: Bool) throws {
            try with(clients: 0) { (pair, disks) throws in
                try pair.begin()
                let leader = try pair.leader()
                let victim = isPrimary ? leader : 1 - leader
                try fail(victim, FatalFault.all[1], pair, disks[victim])
            }
        }

        /// A checkpoint may take long, and on a disk that hangs it has no end.
        @Test func whoLeavesDoesNotWaitForItsCheckpoint() throws {
            try with(clients: 0) { (pair, disks) throws in
                try pair.begin(ledger: false)
                let leader = try pair.leader()
                try disks[1 - leader].set(["pwrite checkpoint- 0 0 sleep:120000"])
                try Filler.fill(pair) { !disks[1 - leader].hits.isEmpty }
                try pair.terminate([1 - leader])
            }
        }

        /// Neither the backup's ack nor the primary's own is there before the sync has ended, nor what
        /// one that is alone has executed.
        @Test(arguments: ["primary", "backup", "alone"])
        func nothingIsSaidBeforeTheSync(who: String) throws {
            try with(clients: 0) { (pair, disks) throws in
                pair.flags += ["--misses", "50"]
                if who == "alone" {
                    try pair.start(0, "primary")
                } else {
                    try pair.begin(ledger: false)
                }
                let leader = try pair.leader()
                let slow = who == "backup" ? 1 - leader : leader
                let client = try RawClient(pair.cluster.ports[leader])
                // Shorter than the silence after which a replica counts as failed.
                let milliseconds = 200
                try disks[slow].set(["fdatasync segment- 0 0 sleep:\(milliseconds)"])
                for number in 1...5 {
                    let began = ContinuousClock.now
                    #expect(try client.ask("VOTE.OPEN v ROLL open") == .number(number))
                    let time = ContinuousClock.now - began
                    #expect(time >= .milliseconds(milliseconds), "vote \(number) after \(time)")
                }
                #expect(disks[slow].hits.count >= 5)
            }
        }

        /// The power fails for both disks: neither says what it cannot keep.
        @Test func bothDisksFail() throws {
            try with { (pair, disks) throws in
                try pair.begin()
                try pair.ledger.waitForMore()
                for disk in disks { try disk.set(["fdatasync segment- 3 0 5"]) }
                for index in 0...1 {
                    #expect(try pair.cluster.waitForExit(pair.name(index)) == 74)
                }
                for disk in disks { try disk.heal() }
                for index in 0...1 { try pair.start(index, "backup") }
                try pair.checkBoth()
            }
        }

        /// A kernel may take fewer bytes than it is given, and nobody must notice.
        @Test func shortWrites() throws {
            try with { (pair, disks) throws in
                for disk in disks { try disk.set(["pwrite * 0 0 short:13"]) }
                try pair.begin()
                try pair.ledger.waitForMore(50)
                #expect(disks.allSatisfy { $0.hits.count > 50 })
                // A kill between two pieces would leave a torn tail, which is rightly cut.
                for disk in disks { try disk.heal() }
                try pair.ledger.waitForMore()
                try pair.kill([0, 1])
                for disk in disks { try disk.set(["read * 0 0 short:13"]) }
                for index in 0...1 { try pair.start(index, "backup") }
                try pair.checkBoth()
                for disk in disks { #expect(disk.hits.contains { $0.hasPrefix("read ") }) }
                for index in 0...1 {
                    #expect(!pair.cluster.said(pair.name(index), "err").contains("cut there"))
                }
            }
        }

        /// Said, and tried again; the journal keeps everything meanwhile.
        @Test func noCheckpointCanBeWritten() throws {
            try with { (pair, disks) throws in
                try pair.begin()
                for disk in disks { try disk.set(["pwrite checkpoint- 0 0 28"]) }
                // The backup has one from when it joined.
                let before = (0...1).map { checkpoints(pair, $0) }
                try Filler.fill(pair) { disks.allSatisfy { $0.hits.count >= 2 } }
                for index in 0...1 {
                    let tries = disks[index].hits.count
                    let said = try pair.cluster.eventually("\(tries) warnings") { () -> Int? in
                        let said = pair.cluster.said(pair.name(index), "err")
                            .split(separator: "\n")
                            .count { $0.contains("warning: no checkpoint could be made: pwrite ") }
                        return said >= tries ? said : nil
                    }
                    #expect(said <= disks[index].hits.count, "said more often than tried")
                    #expect(checkpoints(pair, index) == before[index])
                }
                try pair.check()
                for disk in disks { try disk.heal() }
                try Filler.fill(pair) {
                    (0...1).allSatisfy { index in
                        checkpoints(pair, index).count == 2
                            && !names(pair, index).contains("segment-1")
                    }
                }
                try pair.kill([0, 1])
                for index in 0...1 { try pair.start(index, "backup") }
                try pair.checkBoth()
            }
        }

        /// Not a torn tail, not an empty folder: files that cannot be opened, or not for now.
        @Test func unreadableAtTheStart() throws {
            try with { (pair, disks) throws in
                try pair.begin()
                try Filler.fill(pair) { !checkpoints(pair, 1).isEmpty }
                try pair.kill([1])
                let before = try Snapshot(pair.folder(1))
                for (call, name, code) in [
                    ("open", "segment-", EIO), ("open", "checkpoint-", EMFILE),
                    ("open", "identity", EIO), ("read", "segment-", ENOMEM),
                    ("read", "identity", EIO),
                ] {
                    try disks[1].set(["\(call) \(name) 0 1 \(code)"])
                    try pair.start(1, "backup")
                    #expect(try pair.cluster.waitForExit(pair.name(1)) == 74)
                    let last = pair.cluster.said(pair.name(1), "err").split(separator: "\n").last
                    let words = "pollsrv: --data \(call) \(pair.folder(1))/\(name)"
                    #expect(last?.hasPrefix(words) == true, "\(last ?? "")")
                }
                #expect(try Snapshot(pair.folder(1)) == before)
                try disks[1].heal()
                try pair.start(1, "backup")
                try pair.checkBoth()
            }
        }

        /// What the disk cannot give of a segment or checkpoint is as good as rotten: made up for by the
        /// rest of the journal or by the other replica, and refused without that.
        @Test func unreadableSectors() throws {
            try with { (pair, disks) throws in
                try pair.begin()
                try Filler.fill(pair) { checkpoints(pair, 1).count == 2 }
                try pair.waitForResults()
                try pair.kill([1])
                let folder = pair.folder(1)
                let newest = checkpoints(pair, 1).compactMap { Int($0.dropFirst(11)) }.max() ?? 0
                let name = "checkpoint-\(newest)"
                try disks[1].set(["read \(name) 0 0 \(FaultDisk.inputOutput)"])
                try pair.start(1, "backup")
                try pair.checkBoth()
                let said = pair.cluster.said(pair.name(1), "err")
                let words = "\(folder)/\(name) is rotten (offset 0: read: Input/output error); the "
                #expect(said.contains(words), "\(said)")

                try pair.kill([1])
                try disks[1].set(["read segment- 0 0 \(FaultDisk.inputOutput)"])
                try pair.start(1, "backup")
                try pair.checkBoth()
                #expect(names(pair, 1).contains("aside-1"))

                try pair.kill([0, 1])
                let before = try Snapshot(folder)
                try pair.start(1, "backup")
                #expect(try pair.cluster.waitForExit(pair.name(1), within: 30) == 74)
                let last = pair.cluster.said(pair.name(1), "err").split(separator: "\n").last ?? ""
                #expect(last.contains("--data \(folder)/segment-"), "\(last)")
                #expect(last.contains("Input/output error"), "\(last)")
                #expect(try Snapshot(folder) == before, "something was touched")
                try disks[1].heal()
                for index in 0...1 { try pair.start(index, "backup") }
                try pair.checkBoth()
            }
        }

        /// The disk is full when a rotten journal is to be begun anew. Before anything is moved that
        /// changes nothing; if it comes out later the folder is left blank, and is not taken for one in
        /// which a service may begin.
        @Test func aRenewalThatFails() throws {
            try with(clients: 0) { (pair, disks) throws in
                try pair.begin(ledger: false)
                let leader = try pair.leader()
                let client = try RawClient(pair.cluster.ports[leader])
                for number in 1...5 {
                    #expect(try client.ask("VOTE.OPEN v ROLL open") == .number(number))
                }
                // Their journals end with a mark, behind which nothing looks torn.
                try pair.waitForIdleJournals([0, 1])
                let service = try pair.cluster.info(pair.cluster.ports[leader])["service"]
                try pair.kill([leader])
                let folder = pair.folder(leader)
                let url = URL(filePath: "\(folder)/segment-1")
                var bytes = try Data(contentsOf: url)
                bytes[(try #require(bytes.lastIndex { $0 != 0 })) / 2] ^= 4
                try bytes.write(to: url)

                let found = try Snapshot(folder)
                try disks[leader].set(["fallocate * 0 0 \(FaultDisk.noSpace)"])
                try pair.start(leader, "primary")
                #expect(try pair.cluster.waitForExit(pair.name(leader), within: 30) == 74)
                #expect(try Snapshot(folder) == found, "something was touched")

                try disks[leader].set(["fallocate * 1 0 \(FaultDisk.noSpace)"])
                try pair.start(leader, "primary")
                #expect(try pair.cluster.waitForExit(pair.name(leader), within: 30) == 74)
                let words = "fallocate \(folder)/segment-1.new: No space left on device"
                #expect(pair.cluster.said(pair.name(leader), "err").contains(words))
                #expect(!names(pair, leader).contains("identity"))

                try pair.kill([1 - leader])
                try disks[leader].heal()
                let before = pair.cluster.said(pair.name(leader), "err").utf8.count
                try pair.start(leader, "primary")
                // Longer than a primary waits for an answer before it begins a service.
                sleep(5)
                let all = pair.cluster.said(pair.name(leader), "err")
                let said = String(decoding: Array(all.utf8.dropFirst(before)), as: UTF8.self)
                #expect(!said.contains("beginning a new service"), "\(said)")
                #expect(said.contains("put aside as \(folder)/aside-1"), "\(said)")
                #expect(!names(pair, leader).contains("identity"))
                try pair.start(1 - leader, "backup")
                try pair.waitForPair()
                let again = try pair.cluster.info(pair.cluster.ports[leader])["service"]
                #expect(service != nil && again == service)
            }
        }

        /// While what it has to say of the requests before waits for the disk.
        @Test func aPrimaryThatIsOutAnswersInOrder() throws {
            try with(clients: 0) { pair, disks in
                try pair.begin(ledger: false)
                let leader = try pair.leader()
                let client = try RawClient(pair.cluster.ports[leader], seconds: 30)
                #expect(try client.ask("PING") == .text("PONG"))
                // The first for so long that the other leads by then.
                try disks[leader].set([
                    "fdatasync segment- 0 1 sleep:10000", "fdatasync segment- 0 0 sleep:1000",
                ])
                try client.send(Array("VOTE.OPEN q ROLL open\r\n".utf8))
                // It hangs in the request's sync.
                _ = try pair.cluster.eventually("the sync") {
                    disks[leader].hits.isEmpty ? nil : true
                }
                let other = try RawClient(pair.cluster.ports[1 - leader])
                #expect(try other.ask("REPLICA PROMOTE FORCE") == .text("OK"))
                try client.send(Array("PING\r\n".utf8))
                #expect(try client.receive().code == "TRYAGAIN")
                #expect(try client.receive() == .text("PONG"))
            }
        }

        private func checkpoints(_ pair: DiskPair, _ index: Int) -> Set<String> {
            Set(names(pair, index).filter { $0.hasPrefix("checkpoint-") && !$0.hasSuffix(".new") })
        }

        private func names(_ pair: DiskPair, _ index: Int) -> [String] {
            (try? FileManager.default.contentsOfDirectory(atPath: pair.folder(index))) ?? []
        }
    }
}
