import CLinux
import Glibc

/// Everything that this process has started, itself or through others.
package enum ProcessTree {
    /// From now on a descendant whose parent dies becomes our child, so it is still found, and
    /// reaped by us: whoever kills a server would otherwise lose sight of the server's own child.
    package static func adoptOrphans() {
        _ = clinux_become_subreaper()
    }

    /// Takes the exit of any child, orphans that became ours included; nil when none has exited.
    package static func reapAny() -> (pid: Int32, exit: Processes.Exit)? {
        var status: CInt = 0
        let pid = waitpid(-1, &status, WNOHANG)
        guard pid > 0 else { return nil }
        let signal = status & 0x7f
        return (pid, signal == 0 ? .code((status >> 8) & 0xff) : .signal(signal))
    }

    /// All processes below this one, those that have exited but are not reaped included.
    package static func descendants() -> [Int32] {
        let pairs = all()
        var found: [Int32] = []
        var generation = [getpid()]
        while !generation.isEmpty {
            generation = pairs.filter { generation.contains($0.parent) }.map(\.pid)
            found += generation
        }
        return found
    }

    /// Whether a process, ours or not, has ended, be it reaped or not.
    package static func hasExited(_ pid: Int32) -> Bool {
        guard let handle = ProcessHandle(pid: pid) else { return true }
        var entry = pollfd(fd: handle.fd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) > 0
    }

    /// Processor time in user and kernel so far, in ticks of 10 ms; nil when it is gone. The tick
    /// is the kernel's USER_HZ, which is 100 wherever Linux shows it to programs.
    package static func processorTicks(_ pid: Int32) -> UInt64? {
        guard let fields = statistics(pid), fields.count > 12, let user = UInt64(fields[11]),
            let system = UInt64(fields[12])
        else { return nil }
        return user + system
    }

    /// The name of the program that a process runs, at most 15 characters.
    package static func programName(_ pid: Int32) -> String? {
        guard let bytes = try? Files.read("/proc/\(pid)/comm") else { return nil }
        return String(decoding: bytes.prefix { $0 != 10 }, as: UTF8.self)
    }

    private static func all() -> [(pid: Int32, parent: Int32)] {
        guard let folder = opendir("/proc") else { return [] }
        defer { closedir(folder) }
        var pairs: [(pid: Int32, parent: Int32)] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let pid = Int32(name), let fields = statistics(pid), fields.count > 1,
                let parent = Int32(fields[1])
            else { continue }
            pairs.append((pid, parent))
        }
        return pairs
    }

    /// The fields of `/proc/PID/stat` behind the name: state, parent, ….
    private static func statistics(_ pid: Int32) -> [Substring]? {
        guard let bytes = try? Files.read("/proc/\(pid)/stat") else { return nil }
        let line = String(decoding: bytes, as: UTF8.self)
        // The name may itself hold blanks and brackets; the last bracket ends it.
        guard let bracket = line.lastIndex(of: ")") else { return nil }
        return line[line.index(after: bracket)...].split(separator: " ")
    }
}
