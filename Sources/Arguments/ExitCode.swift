/// The exit codes of all programs, from BSD's sysexits.
package enum ExitCode: Int32, Sendable {
    case ok = 0
    /// Wrong arguments.
    case usage = 64
    /// No server, or one that cannot do it.
    case unavailable = 69
    /// A defect of ours.
    case software = 70
    /// A file, a folder, a port, a terminal.
    case io = 74
}
