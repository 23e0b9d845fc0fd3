import Foundation
import Testing

extension ProcessSuite {
    /// Whose place and folder a replacement takes, with `--data`.
    @Suite(.serialized) struct Folders {
        private func flags(_ cluster: Cluster, _ name: String, _ more: [String] = []) -> [String] {
            Cluster.quick + ["--misses", "20", "--data", folder(cluster, name)] + more
        }

        private func folder(_ cluster: Cluster, _ name: String) -> String {
            cluster.folder.appending(path: "below/\(name)").path
        }

        private func kill(_ info: [String: String], _ who: String) throws {
            Foundation.kill(try #require(Int32(info["\(who)_pid"] ?? "")), SIGKILL)
        }

        /// Killed time and again, each comes back as the same replica, with what it had.
        @Test func theLostComeBackAsThemselves() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            // One that stands still for a second is not taken for dead; a primary that comes back takes
            // as long as that to learn that it is out.
            let patient = ["--misses", "20"]
            let votes = ["--voters", "2", "--votes", "100000", "--interval", "5ms"]
            try cluster.primary(flags(cluster, "a", patient + votes))
            try cluster.backup(flags(cluster, "b", patient))
            for name in ["ann", "bob"] { try cluster.client(name) }
            var info = try cluster.waitForPair()
            let ids = [info["primary_id"], info["backup_id"]].compactMap { $0 }.sorted()
            for round in 0..<4 {
                let seen = cluster.lines("ann").count
                _ = try cluster.eventually("results in round \(round)", within: 60) {
                    cluster.lines("ann").count > seen + 5 ? true : nil
                }
                let role = round % 2 == 0 ? "backup" : "primary"
                let killed = info["\(role)_pid"]
                try kill(info, role)
                // A newer view alone may be of other witnesses.
                _ = try cluster.eventually("another in its place", within: 30) { () -> Bool? in
                    guard let new = try? cluster.waitForPair() else { return nil }
                    return [new["primary_pid"], new["backup_pid"]].contains(killed) ? nil : true
                }
                info = try cluster.waitForPair()
                let now = [info["primary_id"], info["backup_id"]].compactMap { $0 }.sorted()
                #expect(now == ids, "in round \(round)")
            }
            for name in ["ann", "bob"] { cluster.processes[name]?.terminate() }
            for name in ["ann", "bob"] { _ = try cluster.waitForExit(name) }
            let (ann, bob) = (cluster.lines("ann"), cluster.lines("bob"))
            let count = min(ann.count, bob.count)
            #expect(count > 20 && ann.prefix(count) == bob.prefix(count))
        }

        /// A folder that is in use, by one that hangs, is left to it.
        @Test func aHungBackupKeepsItsFolder() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(flags(cluster, "a", ["--voters", "1", "--votes", "100000"]))
            let backup = try cluster.backup(flags(cluster, "b"))
            for name in Cluster.names { try cluster.client(name) }
            _ = try cluster.waitForPair(witnesses: 3)
            Foundation.kill(backup.processIdentifier, SIGSTOP)
            defer { Foundation.kill(backup.processIdentifier, SIGCONT) }
            _ = try cluster.eventually("a replacement elsewhere", within: 60) { () -> Bool? in
                let info = try? cluster.info(cluster.ports[0], seconds: 1)
                guard info?["state"] == "pair", let pid = info?["backup_pid"],
                    pid != "\(backup.processIdentifier)"
                else { return nil }
                return true
            }
            let other = folder(cluster, "a-backup")
            #expect(FileManager.default.fileExists(atPath: "\(other)/identity"))
        }

        /// While a replacement waits for its time, folder and port are free for the lost one.
        @Test func whoeverStartsTheLostOneByHandIsFirst() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let slow = ["--restart-delay", "60s"]
            try cluster.primary(flags(cluster, "a", slow))
            let backup = try cluster.backup(flags(cluster, "b", slow))
            let id = try cluster.waitForPair()["backup_id"]
            Foundation.kill(backup.processIdentifier, SIGKILL)
            backup.waitUntilExit()
            _ = try cluster.eventually("a replacement", within: 30) {
                try? cluster.info(cluster.ports[0])["restart"] == "starting" ? true : nil
            }
            let again = try cluster.backup(flags(cluster, "b", slow))
            let info = try cluster.waitForPair()
            #expect(info["backup_id"] == id)
            #expect(info["backup_pid"] == "\(again.processIdentifier)")
            _ = try cluster.eventually("the end of the replacement", within: 30) {
                try? cluster.info(cluster.ports[0])["restart"] == "none" ? true : nil
            }
        }

        /// One of two machines is gone for good after both were down: the one that is left, whichever it
        /// is, waits, and leads on an operator's word.
        @Test(arguments: [0, 1]) func theOneThatIsLeft(survivor: Int) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let more = ["--no-restart"]
            try cluster.primary(flags(cluster, "a", more))
            try cluster.backup(flags(cluster, "b", more))
            _ = try cluster.waitForPair()
            let vote = try RawClient(cluster.ports[0]).ask("VOTE.OPEN Tea? ROLL open")
            #expect(vote == .number(1))
            // The one that is left first, so that the other cannot leave it the lead.
            for name in survivor == 0 ? ["primary", "backup"] : ["backup", "primary"] {
                let process = try #require(cluster.processes[name])
                Foundation.kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()
            }
            if survivor == 0 {
                try cluster.primary(flags(cluster, "a", more))
            } else {
                try cluster.backup(flags(cluster, "b", more))
            }
            let port = cluster.ports[survivor]
            _ = try cluster.eventually("it to wait", within: 60) {
                try? cluster.info(port)["stalled"] == "1" ? true : nil
            }
            let promote = try cluster.start(
                "promote", "pollctl", ["promote", "--force", "--servers", "127.0.0.1:\(port)"])
            promote.waitUntilExit()
            #expect(promote.terminationStatus == 0, "\(cluster.said("promote", "err"))")
            let info = try cluster.info(port)
            #expect(info["mode"] == "primary" && info["state"] == "solo" && info["stalled"] == "0")
            #expect(info["votes_open"] == "1")
            // The other was found after all.
            if survivor == 0 {
                try cluster.backup(flags(cluster, "b", more))
            } else {
                try cluster.primary(flags(cluster, "a", more))
            }
            let pair = try cluster.waitForPair()
            #expect(cluster.port(of: pair, "primary_address") == port)
        }

        /// `DIR-backup` may be there already: of a service whose other folder was removed.
        @Test func anotherServicesFolderIsPassedOver() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            // Alone in its last view it would lead again, under the address of the other server.
            let old = try cluster.primary(flags(cluster, "a-backup", ["--no-restart"]))
            _ = try cluster.eventually("the old service") { cluster.leader }
            Foundation.kill(old.processIdentifier, SIGKILL)
            old.waitUntilExit()
            try cluster.primary(flags(cluster, "a"))
            let info = try cluster.waitForPair()
            let backup = try cluster.info(cluster.port(of: info, "backup_address"))
            #expect(info["service"] != nil && info["service"] == backup["service"])
            #expect(cluster.said("primary", "err").contains("a-backup-2"), "\(cluster.words)")
            #expect(cluster.said("primary", "err").contains("a-backup: of service"))
        }

        /// The id is made up where only the priority is given; the folder keeps it.
        @Test func theSamePriorityFindsItsFolder() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            var ids: [String?] = []
            for _ in 0..<2 {
                let server = try cluster.primary(
                    flags(cluster, "a", ["--no-restart", "--priority", "5"]))
                _ = try cluster.eventually("it to lead") { cluster.leader }
                ids.append(try cluster.info(cluster.ports[0])["id"])
                Foundation.kill(server.processIdentifier, SIGKILL)
                server.waitUntilExit()
            }
            #expect(ids[0] != nil && ids[0] == ids[1])
            try cluster.primary(flags(cluster, "a", ["--priority", "6"]))
            #expect(try cluster.waitForExit("primary") == 74)
            #expect(cluster.said("primary", "err").contains("(priority 5), not"))
        }

        /// Neither one that leads, which would give up its backup, nor one that has nothing to lead with.
        @Test func nobodyElseIsPromoted() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let promote = "REPLICA PROMOTE FORCE"
            try cluster.backup(Cluster.quick + ["--no-restart"])
            let fresh = try cluster.eventually("the backup") { try? RawClient(cluster.ports[1]) }
            #expect(try fresh.ask(promote).description.contains("it has no state of the service"))
            try cluster.primary(Cluster.quick + ["--no-restart"])
            let pair = try cluster.waitForPair()
            let leads = "-ERR it leads already"
            #expect(try RawClient(cluster.ports[0]).ask(promote).description == leads)
            let after = try cluster.waitForPair()
            #expect(after["view"] == pair["view"] && after["backup_pid"] == pair["backup_pid"])
            let backup = try #require(cluster.processes["backup"])
            Foundation.kill(backup.processIdentifier, SIGKILL)
            _ = try cluster.eventually("the primary to be alone") {
                cluster.leader?["state"] == "solo" ? true : nil
            }
            #expect(try RawClient(cluster.ports[0]).ask(promote).description == leads)
        }

        /// SIGTERM, with threads beside the loop: the primary hands over and exits 0, so does the other.
        @Test func terminatedServersLeaveInOrder() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let more = ["--no-restart"]
            let primary = try cluster.primary(flags(cluster, "a", more))
            let backup = try cluster.backup(flags(cluster, "b", more))
            _ = try cluster.waitForPair()
            for process in [primary, backup] {
                process.terminate()
                process.waitUntilExit()
                #expect(process.terminationReason == .exit && process.terminationStatus == 0)
            }
        }

        /// One whose primary has ended before it could ask to be told of that.
        @Test func aReplacementThatComesTooLateEnds() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            // Not the one that starts it.
            let late = try cluster.start(
                "late", "pollsrv",
                [
                    "--backup", "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:1", "--started-by",
                    "2147483647", "--join-after", "60s", "--data", folder(cluster, "b"),
                ])
            #expect(try cluster.waitForExit("late") == 69)
            #expect(late.terminationReason == .exit)
            let said = cluster.said("late", "err")
            #expect(said == "pollsrv: process 2147483647 is over\n")
            #expect(!FileManager.default.fileExists(atPath: folder(cluster, "b")))
        }

        /// A replacement that has not joined ends with its primary.
        @Test func noReplacementIsLeftBehind() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let slow = ["--restart-delay", "60s"]
            let primary = try cluster.primary(flags(cluster, "a", slow))
            let backup = try cluster.backup(flags(cluster, "b", slow))
            _ = try cluster.waitForPair()
            Foundation.kill(backup.processIdentifier, SIGKILL)
            backup.waitUntilExit()
            let words = "started a backup, process "
            let said: String = try cluster.eventually("a replacement", within: 30) {
                let text = cluster.said("primary", "err")
                return text.contains(words) ? text : nil
            }
            let tail = try #require(said.components(separatedBy: words).last)
            let child = try #require(Int32(tail.prefix { $0.isNumber }))
            #expect(Foundation.kill(child, 0) == 0)
            Foundation.kill(primary.processIdentifier, SIGKILL)
            primary.waitUntilExit()
            _ = try cluster.eventually("the end of process \(child)", within: 30) { () -> Bool? in
                let state = try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)
                return state?.contains(") Z ") ?? true ? true : nil
            }
        }
    }
}
