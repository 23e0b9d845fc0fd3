import CLinux
import Glibc

/// A handle on one process, surer than its number, which the kernel may give to another.
package struct ProcessHandle: ~Copyable, Sendable {
    /// Readable when the process has exited.
    package let fd: FileDescriptor
    package let pid: Int32

    /// Nil when there is no such process (any more).
    package init?(pid: Int32) {
        let raw = clinux_pidfd_open(pid)
        guard raw >= 0 else { return nil }
        fd = FileDescriptor(owning: raw)
        self.pid = pid
    }
}

package enum Processes {
    package static var pid: Int32 { getpid() }

    /// The path of this program's own file.
    package static func executablePath() throws(SystemError) -> String {
        // Where another has taken its name since, as a new build does, that one.
        let path = try link("/proc/self/exe")
        return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
    }

    /// Equal in two processes only if a process number means the same to both: one boot of one
    /// machine, one process namespace.
    package static func hostToken() -> UInt64 {
        let boot = (try? Files.read("/proc/sys/kernel/random/boot_id")) ?? []
        let space = (try? link("/proc/self/ns/pid")) ?? ""
        // Who may not read them (a container, a sandbox) must not seem to be where others are that may
        // not either.
        guard !boot.isEmpty, !space.isEmpty else { return Entropy.next() }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in boot + Array(space.utf8) {
            hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
        }
        return hash
    }

    /// Starts `arguments[0]` in a session of its own with these descriptors as its input, output and
    /// messages (nil: nothing, nowhere) and no other one of ours.
    package static func spawn(
        _ arguments: [String], input: CInt? = nil, output: CInt? = nil, errorsTo: CInt?
    ) throws(SystemError) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let streams = [(0, input, O_RDONLY), (1, output, O_WRONLY), (2, errorsTo, O_WRONLY)]
        for (number, source, mode) in streams {
            if let source {
                posix_spawn_file_actions_adddup2(&actions, source, CInt(number))
            } else {
                posix_spawn_file_actions_addopen(&actions, CInt(number), "/dev/null", mode, 0)
            }
        }
        clinux_spawn_close_from(&actions, 3)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, clinux_spawn_flags())
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)

        var pid: Int32 = 0
        var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
        argv.append(nil)
        defer { for pointer in argv { free(pointer) } }
        let result = posix_spawn(&pid, arguments[0], &actions, &attributes, argv, environ)
        guard result == 0 else { throw SystemError("posix_spawn", arguments[0], code: result) }
        return pid
    }

    /// From here on this process is told to end (SIGTERM) when `parent` has ended, or no more so.
    /// False when `parent` is not its parent any more. For the main thread.
    package static func endWithParent(_ parent: Int32) -> Bool {
        _ = clinux_signal_at_parents_end(SIGTERM)
        return getppid() == parent
    }

    package static func outliveParent() { _ = clinux_signal_at_parents_end(0) }

    /// How a child ended; nil while it runs.
    package enum Exit: Equatable, Sendable, CustomStringConvertible {
        case code(CInt)
        case signal(CInt)
        case unknown

        package var description: String {
            switch self {
            case .code(let code): "exit code \(code)"
            case .signal(let signal): "signal \(signal)"
            case .unknown: "nobody knows how"
            }
        }
    }

    package static func reap(_ pid: Int32) -> Exit? {
        var status: CInt = 0
        let result = uninterrupted { waitpid(pid, &status, WNOHANG) }
        // No child of ours any more: somebody else has taken the news of its end.
        if result < 0 { return .unknown }
        guard result == pid else { return nil }
        let signal = status & 0x7f
        return signal == 0 ? .code((status >> 8) & 0xff) : .signal(signal)
    }

    package static func signal(_ pid: Int32, _ number: CInt) {
        _ = kill(pid, number)
    }

    /// Whether a descriptor is a terminal or a plain file: what a process may hand to another
    /// that outlives it without keeping a reader waiting.
    package static func isTerminalOrFile(_ fd: CInt) -> Bool {
        if isatty(fd) == 1 { return true }
        var status = stat()
        return fstat(fd, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    /// Kilobytes of a process in memory, 0 when it is gone.
    package static func residentKilobytes(_ pid: Int32) -> Int {
        guard let bytes = try? Files.read("/proc/\(pid)/status") else { return 0 }
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let text = String(decoding: line, as: UTF8.self)
            if text.hasPrefix("VmRSS:") {
                return Int(text.split(whereSeparator: { $0 == " " || $0 == "\t" })[1]) ?? 0
            }
        }
        return 0
    }

    /// Cores of this machine.
    package static var coreCount: Int { max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN))) }

    /// Raises the limit of open descriptors to what the system allows and gives it.
    package static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return 1024 }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(7), &limit)
        getrlimit(__rlimit_resource_t(7), &limit)
        return Int(min(limit.rlim_cur, 1 << 30))
    }

    private static func link(_ path: String) throws(SystemError) -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink(path, &buffer, buffer.count)
        guard count >= 0 else { throw SystemError("readlink", path) }
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Signals as a descriptor of the event loop, so that no handler ever runs.
package struct SignalQueue: ~Copyable {
    package let fd: FileDescriptor

    /// Blocks `signals` in this thread (and those it starts later) and queues them here. SIGPIPE
    /// is ignored for the whole process.
    package init(_ signals: [CInt]) throws(SystemError) {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        Signals.ignoreBrokenPipes()
        if signals.contains(SIGCHLD) { Signals.noticeChildren() }
        let raw = clinux_signalfd(&set)
        guard raw >= 0 else { throw SystemError("signalfd") }
        fd = FileDescriptor(owning: raw)
    }

    /// The next waiting signal's number.
    package func next() -> CInt? {
        var info = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        let count = uninterrupted { Glibc.read(fd.raw, &info, size) }
        return count == size ? CInt(info.ssi_signo) : nil
    }
}

/// The signals that our programs send and listen to.
package enum Signals {
    /// From here on a file that may not grow (`ulimit -f`) makes the call fail, as a full disk does,
    /// and does not end the process.
    package static func ignoreFileSizeLimit() { _ = Glibc.signal(SIGXFSZ, SIG_IGN) }

    /// From here on to write where nobody reads any more makes the call fail, and does not end the
    /// process.
    package static func ignoreBrokenPipes() { _ = Glibc.signal(SIGPIPE, SIG_IGN) }

    /// Who ignores SIGCHLD has its children's ends go by unseen, and that is inherited.
    package static func noticeChildren() { _ = Glibc.signal(SIGCHLD, SIG_DFL) }

    package static let terminate = SIGTERM
    package static let interrupt = SIGINT
    package static let kill = SIGKILL
    package static let child = SIGCHLD
    package static let hangUp = SIGHUP
    package static let stop = SIGSTOP
    package static let resume = SIGCONT
}
