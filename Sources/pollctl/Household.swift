import Arguments
import Client
import Linux

/// The processes of a demonstration or a measurement. It starts them, waits with an ear for
/// Ctrl-C, and leaves none of them behind, however it ends: also not those that a server has
/// started in its turn.
final class Household {
    /// Where logs and the servers' messages go.
    let folder: String
    private let programs: String
    let interrupts: Interrupts
    private var poller: Poller
    private var exits: [(pid: Int32, exit: Processes.Exit)] = []
    /// What was below us before we started anything (the children of a shell that became us).
    private let strangers: [Int32]

    init(purpose: String) throws(Failure) {
        Signals.noticeChildren()
        interrupts = try Interrupts("everything that was started has been ended")
        do throws(SystemError) {
            programs = Self.folder(of: try Processes.executablePath())
            poller = try Poller(eventsPerWaitMax: 4)
            try poller.add(interrupts.fd)
            let base = Terminal.environment("TMPDIR") ?? "/tmp"
            let token = String(Entropy.next() & 0xffff_ffff, radix: 16)
            folder = "\(base)/pollsrv-\(purpose)-\(token)"
            try Files.makeFolder(folder)
        } catch { throw Failure(error) }
        strangers = ProcessTree.descendants()
        ProcessTree.adoptOrphans()
    }

    /// Carries out a measurement with processes of its own. What they had to say is of use only when
    /// it has failed.
    static func measure(purpose: String, _ body: (Household) throws(Failure) -> Void)
        throws(Failure)
    {
        let household = try Household(purpose: purpose)
        do throws(Failure) {
            try body(household)
        } catch {
            household.endAll()
            guard !error.isInterruption else {
                household.removeFolder()
                throw error
            }
            throw Failure("\(error.text)\nmessages: \(household.folder)", like: error)
        }
        household.endAll()
        household.removeFolder()
    }

    private func removeFolder() {
        guard let names = try? Files.list(folder) else { return }
        for name in names { try? Files.remove("\(folder)/\(name)") }
        try? Files.removeFolder(folder)
    }

    /// A program of ours, which stands beside this one.
    func path(of program: String) throws(Failure) -> String {
        let path = "\(programs)/\(program)"
        guard Files.exists(path) else {
            throw Failure(
                "\(path) is missing; build it: swift build -c release --product \(program)", .io)
        }
        return path
    }

    /// Starts a program; its messages go to `name.messages` in the folder.
    func start(
        _ program: String, _ arguments: [String], name: String, input: CInt? = nil,
        output: CInt? = nil
    ) throws(Failure) -> Int32 {
        let path = try path(of: program)
        do throws(SystemError) {
            let messages = try Files.openForAppending("\(folder)/\(name).messages")
            return try Processes.spawn(
                [path] + arguments, input: input, output: output, errorsTo: messages.raw)
        } catch { throw Failure(error) }
    }

    /// How a process that was started here ended; nil while it runs.
    func exit(of pid: Int32) -> Processes.Exit? {
        reap()
        return exits.last { $0.pid == pid }?.exit
    }

    /// Waits, but not through a Ctrl-C.
    func pause(milliseconds: CInt) throws(Failure) {
        _ = poller.wait(milliseconds: milliseconds)
        try checkInterrupt()
        reap()
    }

    /// Throws when somebody wants us to end.
    func checkInterrupt() throws(Failure) { try interrupts.check() }

    /// Waits until `isDone`, looking every few milliseconds; `what` names it when it does not come.
    func wait(
        for what: String, milliseconds: UInt64 = 10_000, every: CInt = 5,
        _ isDone: () throws(Failure) -> Bool
    ) throws(Failure) {
        let deadline = Deadline(milliseconds: milliseconds)
        while try !isDone() {
            guard !deadline.hasPassed else {
                throw Failure("waited \(milliseconds / 1_000) s in vain for this: \(what)")
            }
            try pause(milliseconds: every)
        }
    }

    /// Whether nothing that we started runs any more.
    var isEmpty: Bool {
        reap()
        return ProcessTree.descendants().allSatisfy(strangers.contains)
    }

    /// Ends everything that is left and gives its process numbers.
    @discardableResult
    func endAll() -> [Int32] {
        var ended: [Int32] = []
        let deadline = Deadline(milliseconds: 3_000)
        // Again and again: a server may start a child between our look and its end.
        while !deadline.hasPassed {
            reap()
            let living = ProcessTree.descendants().filter { !strangers.contains($0) }
            if living.isEmpty { break }
            for pid in living {
                if !ended.contains(pid), !ProcessTree.hasExited(pid) { ended.append(pid) }
                Processes.signal(pid, Signals.kill)
            }
            Clock.sleep(nanoseconds: 2_000_000)
        }
        return ended
    }

    private func reap() {
        while let exited = ProcessTree.reapAny() { exits.append(exited) }
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return String(path[..<slash])
    }
}
