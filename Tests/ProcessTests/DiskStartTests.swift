import Foundation
import Testing

extension Disks {
    /// Folders that a server cannot or may not use: it says which and why, soon, exits 74, and
    /// leaves what it found as it was.
    @Suite(.serialized) struct Starts {
        private func with(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try body(cluster)
        }

        private func path(_ cluster: Cluster) -> String {
            cluster.folder.appending(path: "data").path
        }

        private func flags(_ cluster: Cluster, _ more: [String] = []) -> [String] {
            [
                "--primary", "--listen", "127.0.0.1:\(cluster.ports[0])", "--peer", "127.0.0.1:1",
                "--data", path(cluster),
            ] + more
        }

        /// A server's folder, with a vote in it; nobody uses it any more.
        private func makeFolder(_ cluster: Cluster) throws {
            let process = try cluster.start("maker", "pollsrv", flags(cluster))
            let question = "before" + String(repeating: "!", count: 1_000)
            _ = try cluster.eventually("a vote") {
                try? RawClient(cluster.ports[0]).ask("VOTE.OPEN \(question) ROLL open")
                    == .number(1)
                    ? true : nil
            }
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }

        /// A start that comes to nothing. `prefix`: a command that runs the server.
        private func refuse(
            _ cluster: Cluster, _ words: String, prefix: [String] = [], _ more: [String] = []
        ) throws {
            let before = try? Snapshot(path(cluster))
            let server = Cluster.binaries.appending(path: "pollsrv").path
            let name = "refused\(cluster.processes.count)"
            let command = prefix + [server] + flags(cluster, more)
            try cluster.start(name, "/usr/bin/env", command)
            let code = try cluster.waitForExit(name, within: 10)
            let said = cluster.said(name, "err")
            #expect(code == 74, "\(said)")
            #expect(said.hasPrefix("pollsrv: --data "), "\(said)")
            #expect(said.contains(words), "\(said)")
            #expect(said.split(separator: "\n").count == 1, "\(said)")
            #expect((try? Snapshot(path(cluster))) == before, "something was touched")
        }

        /// Who runs servers in these tests has all rights where that is root.
        private static let asNobody =
            getuid() == 0
            ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : []

        /// Not where they, or what they load, stand in root's own folder.
        private static let canRunAsNobody = Cluster.succeeds(
            asNobody + [Cluster.binaries.appending(path: "pollsrv").path, "--version"])

        private func setMode(_ mode: Int, _ path: String) throws {
            try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        }

        @Test(.enabled(if: canRunAsNobody, "it takes servers that anybody may run"))
        func missingRights() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try setMode(0o555, cluster.folder.path)
                try refuse(cluster, "mkdir \(data): Permission denied", prefix: Self.asNobody)
                try setMode(0o755, cluster.folder.path)
                try FileManager.default.createDirectory(
                    atPath: data, withIntermediateDirectories: false)
                try setMode(0o555, data)
                try refuse(cluster, "open \(data)/lock: Permission denied", prefix: Self.asNobody)
                try setMode(0o755, data)
                try makeFolder(cluster)
                try setMode(0o000, data)
                try refuse(cluster, "opendir \(data): Permission denied", prefix: Self.asNobody)
                try setMode(0o755, data)
                try setMode(0o666, "\(data)/lock")
                for name in ["identity", "segment-1"] {
                    try setMode(0o000, "\(data)/\(name)")
                    let words = "open \(data)/\(name): Permission denied"
                    try refuse(cluster, words, prefix: Self.asNobody)
                    try setMode(0o444, "\(data)/\(name)")
                }
                // It may be read, but not gone on with.
                let words = "open \(data)/segment-1: Permission denied"
                try refuse(cluster, words, prefix: Self.asNobody)
            }
        }

        private static let canMount = Cluster.succeeds([
            "unshare", "-m", "mount", "-t", "tmpfs", "none", "/tmp",
        ])

        /// In a space of mounts of its own, which ends with the server.
        private func mounting(_ mount: String) -> [String] {
            ["unshare", "-m", "sh", "-c", "\(mount) && exec \"$@\"", "sh"]
        }

        @Test(.enabled(if: canMount, "it takes the right to mount")) func readOnly() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try FileManager.default.createDirectory(
                    atPath: data, withIntermediateDirectories: false)
                let bind = "mount --bind '\(data)' '\(data)' && mount -o remount,ro,bind '\(data)'"
                let words = "open \(data)/lock: Read-only file system"
                try refuse(cluster, words, prefix: mounting(bind))
                try makeFolder(cluster)
                try refuse(cluster, words, prefix: mounting(bind))
            }
        }

        /// A fresh folder is made when the service begins, so it says so a little later, in the
        /// words of a journal that cannot be written.
        @Test(.enabled(if: canMount, "it takes the right to mount")) func noSpace() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try FileManager.default.createDirectory(
                    atPath: data, withIntermediateDirectories: false)
                let small = "mount -t tmpfs -o size=1m none '\(data)'"
                let server = Cluster.binaries.appending(path: "pollsrv").path
                try cluster.start(
                    "small", "/usr/bin/env", mounting(small) + [server] + flags(cluster))
                #expect(try cluster.waitForExit("small", within: 10) == 74)
                let said = cluster.said("small", "err")
                let words = "fallocate \(data)/segment-1.new: No space left on device"
                #expect(said.contains(words), "\(said)")
            }
        }

        /// The folder of a restored service is made in the same moment.
        @Test(.enabled(if: canMount, "it takes the right to mount")) func noSpaceForACopy() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try makeFolder(cluster)
                let copy = cluster.folder.appending(path: "copy").path
                try cluster.start("copied", "pollsrv", flags(cluster))
                _ = try cluster.eventually("a copy") { () -> Bool? in
                    let servers = "127.0.0.1:\(cluster.ports[0])"
                    let name = "copying\(cluster.processes.count)"
                    try cluster.start(name, "pollctl", ["backup", copy, "--servers", servers])
                    return try cluster.waitForExit(name) == 0 ? true : nil
                }
                let process = try #require(cluster.processes["copied"])
                kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()

                let small = "mount -t tmpfs -o size=1m none '\(data)'"
                let server = Cluster.binaries.appending(path: "pollsrv").path
                try cluster.start(
                    "small", "/usr/bin/env",
                    mounting(small) + [server] + flags(cluster, ["--restore", copy]))
                #expect(try cluster.waitForExit("small", within: 10) == 74)
                let ended = try #require(cluster.processes["small"])
                #expect(ended.terminationReason == .exit, "ended by a signal")
                let said = cluster.said("small", "err")
                let words = "fallocate \(data)/segment-1.new: No space left on device"
                #expect(said.contains(words), "\(said)")
            }
        }

        /// The bound of a file's size, and its signal, are no space like any other.
        @Test func fileSizeLimit() throws {
            try with { (cluster) throws in
                let server = Cluster.binaries.appending(path: "pollsrv").path
                try cluster.start(
                    "limited", "/usr/bin/env",
                    ["sh", "-c", "ulimit -f 1024 && exec \"$@\"", "sh", server] + flags(cluster))
                #expect(try cluster.waitForExit("limited", within: 10) == 74)
                let process = try #require(cluster.processes["limited"])
                #expect(process.terminationReason == .exit, "ended by a signal")
                let said = cluster.said("limited", "err")
                let words = "fallocate \(path(cluster))/segment-1.new: File too large"
                #expect(said.contains(words), "\(said)")
                try makeFolder(cluster)
                let limit = ["sh", "-c", "ulimit -f 1 && exec \"$@\"", "sh"]
                try refuse(
                    cluster, "pwrite \(path(cluster))/segment-1: File too large", prefix: limit)
            }
        }

        @Test func notAFolder() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try Data("no folder".utf8).write(to: URL(filePath: data))
                try refuse(cluster, "opendir \(data): Not a directory")
                #expect(FileManager.default.contents(atPath: data) == Data("no folder".utf8))
                try FileManager.default.removeItem(atPath: data)
                try FileManager.default.createSymbolicLink(
                    atPath: data, withDestinationPath: "\(data)-away")
                try refuse(cluster, "open \(data): No such file or directory")
            }
        }

        @Test func notItsOwn() throws {
            try with { (cluster) throws in
                let data = path(cluster)
                try makeFolder(cluster)
                try refuse(cluster, "\(data): of the replica with id", ["--id", "4711"])
                let identity = try String(contentsOfFile: "\(data)/identity", encoding: .utf8)
                let other = identity.replacing("pollsrv journal ", with: "pollsrv journal 9")
                try Data(other.utf8).write(to: URL(filePath: "\(data)/identity"))
                try refuse(cluster, "\(data)/identity: ")
                try Data("nonsense".utf8).write(to: URL(filePath: "\(data)/identity"))
                try refuse(cluster, "\(data)/identity: ")
                try FileManager.default.removeItem(atPath: "\(data)/identity")
                try refuse(cluster, "\(data)/identity: missing, though there is segment-1")
                try Data(identity.utf8).write(to: URL(filePath: "\(data)/identity"))
                try cluster.start("right", "pollsrv", flags(cluster))
                _ = try cluster.eventually("the vote again") {
                    let list = try? RawClient(cluster.ports[0]).ask("VOTE.LIST")
                    return "\(list ?? .null)".contains("before") ? true : nil
                }
                try refuse(cluster, "\(data): in use by another process")
            }
        }

        @Test func usage() throws {
            try with { (cluster) throws in
                for (number, (flags, words)) in [
                    (["--sync", "never"], "--sync is of no use without --data"),
                    (["--segment", "8"], "--segment is of no use without --data"),
                    (["--data", ""], "--data: the name of a folder is needed"),
                    (["--data", "x", "--sync", "maybe"], "--sync"),
                    (["--data", "x", "--segment", "0"], "--segment"),
                ].enumerated() {
                    try cluster.start("usage\(number)", "pollsrv", ["--primary"] + flags)
                    #expect(try cluster.waitForExit("usage\(number)", within: 10) == 64)
                    let said = cluster.said("usage\(number)", "err")
                    #expect(said.contains(words), "\(said)")
                    #expect(
                        !FileManager.default.fileExists(
                            atPath: cluster.folder.appending(path: "x").path))
                }
            }
        }
    }
}
