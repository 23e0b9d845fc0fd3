import Foundation

/// The folder below which all that the tests of this process start has its working folder. When this
/// process ends, however it does, nothing is left of either: a shell waits at a pipe that only this
/// process holds.
final class Home: Sendable {
    static let shared = Result { try Home() }

    let folder: URL
    private let pipe = Pipe()

    private init() throws {
        let name = "pollsrv-tests-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        let url = FileManager.default.temporaryDirectory.appending(path: name)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        folder = url.resolvingSymlinksInPath()
        let guardian = Process()
        guardian.executableURL = URL(filePath: "/bin/sh")
        guardian.arguments = ["-c", Self.script, "sh", folder.path]
        guardian.currentDirectoryURL = URL(filePath: "/")
        guardian.standardInput = pipe
        // Else who waits for the end of what the tests print would wait for this, too.
        guardian.standardOutput = FileHandle.nullDevice
        guardian.standardError = FileHandle.nullDevice
        try guardian.runUnblocked()
    }

    /// Who is being killed may just have started another; so it looks until there is none.
    private static let script = #"""
        cat >/dev/null
        n=0
        while [ $n -lt 200 ]; do
            left=
            for link in /proc/[0-9]*/cwd; do
                case "$(readlink "$link")" in
                    "$1"/*) left=1; pid=${link#/proc/}; kill -KILL "${pid%/cwd}" ;;
                esac
            done 2>/dev/null
            [ "$left" ] || break
            n=$((n + 1))
            sleep 0.05
        done
        # A test that has failed may have left folders that not even their owner may change.
        chmod -R u+rwX "$1"
        rm -rf "$1"
        """#
}

extension Process {
    /// With no signal blocked, as a shell would: the threads of tests block most, and what they start
    /// would inherit that.
    func runUnblocked() throws {
        var (none, before) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try run()
    }
}
