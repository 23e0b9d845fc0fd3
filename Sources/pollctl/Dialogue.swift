import Arguments
import Client
import Linux
import Wire

/// Gets a command carried out by the one server that can: follows redirections, waits while there
/// is no primary, and tries again after a lost connection, until its time is up.
///
/// A command is sent again when its answer was lost, so it must do no harm twice: a question, or a
/// change wrapped in `CALL` with the same client and number.
struct Dialogue {
    private let servers: [Address]
    private let deadline: Deadline
    private let talk: (String) -> Void
    /// Who is asked next, when somebody has named the primary.
    private var preferred: Address?
    private var turn = 0
    private var pauseMilliseconds = Self.pauseMillisecondsMin
    /// Whether somebody may have got the command and not come to answer it.
    private var mayBeDone = false
    /// The last thing that went wrong at each server, for the final message.
    private var troubles: [(address: Address, text: String)] = []

    private static let pauseMillisecondsMin: UInt64 = 20
    private static let pauseMillisecondsMax: UInt64 = 500
    /// Two servers that name each other must not make us spin.
    private static let redirectionsMax = 3

    /// `talk` hears of every trouble on the way, for --verbose.
    init(servers: [Address], milliseconds: UInt64, talk: @escaping (String) -> Void) {
        self.servers = servers
        deadline = Deadline(milliseconds: milliseconds)
        self.talk = talk
    }

    /// The reply to a command; an error reply (but for REDIRECT, TRYAGAIN and BUSY, which pass) is a
    /// `Failure`.
    mutating func ask(_ arguments: [String]) throws(Failure) -> RESPValue {
        var redirections = 0
        var failuresInRow = 0
        repeat {
            let address = preferred ?? servers[turn % servers.count]
            switch attempt(arguments, at: address) {
            case .reply(let value): return value
            case .refused(let text): throw Failure("\(address): \(Self.advice(text))")
            case .redirect(let target):
                preferred = target
                redirections += 1
                if redirections <= Self.redirectionsMax { continue }
                note(address, "sends us on to \(target), which sends us back")
                redirections = 0
            case .trouble(let text):
                note(address, text)
                preferred = nil
                turn += 1
                failuresInRow += 1
                // Each is tried once before the first pause: the other may well answer at once.
                if failuresInRow < servers.count { continue }
                failuresInRow = 0
            }
            pause()
        } while !deadline.hasPassed
        throw Failure(complaint)
    }

    /// A change that must happen once however often it is sent.
    mutating func call(_ command: [String]) throws(Failure) -> RESPValue {
        let client = String(max(Entropy.next() >> 1, 1))
        do throws(Failure) {
            return try ask(["CALL", client, "1"] + command)
        } catch {
            guard mayBeDone, error.status == ExitCode.unavailable.rawValue else { throw error }
            throw Failure(
                error.text + "\nit may have been done all the same: see `pollctl status` before "
                    + "you do it again")
        }
    }

    private enum Outcome {
        case reply(RESPValue)
        case redirect(Address)
        /// It will not do this, now or later.
        case refused(String)
        /// Not now, or not this one.
        case trouble(String)
    }

    private mutating func attempt(_ arguments: [String], at address: Address) -> Outcome {
        // One server that hangs must leave time for the other.
        let share = max(deadline.remainingMilliseconds / 3, 50)
        let reply: RESPValue
        var isOnItsWay = false
        do throws(CommandFailure) {
            var connection = try CommandConnection(to: address, milliseconds: share)
            isOnItsWay = true
            reply = try connection.ask(arguments, milliseconds: share)
        } catch {
            if isOnItsWay { mayBeDone = true }
            return .trouble("\(error)")
        }
        guard case .error(let text) = reply else { return .reply(reply) }
        let words = text.split(separator: " ", maxSplits: 1)
        switch words.first {
        case "REDIRECT":
            guard words.count == 2, let target = Address(text: String(words[1])) else {
                return .trouble("a redirection to nowhere: \(text)")
            }
            return .redirect(target)
        case "BUSY": return .trouble(text)
        case "TRYAGAIN":
            // It was in the log of a primary that leads no more.
            if text.contains("what became of this request") { mayBeDone = true }
            return .trouble(text)
        case .none, .some: return .refused(text)
        }
    }

    private mutating func note(_ address: Address, _ text: String) {
        talk("\(address): \(text)")
        troubles.removeAll { $0.address == address }
        troubles.append((address, text))
    }

    private mutating func pause() {
        let rest = min(pauseMilliseconds, deadline.remainingMilliseconds)
        Clock.sleep(nanoseconds: rest * 1_000_000)
        pauseMilliseconds = min(pauseMilliseconds * 2, Self.pauseMillisecondsMax)
    }

    private var complaint: String {
        let lines = troubles.map { "  \($0.address): \($0.text)" }
        let head = "nobody could do it in the time there was (--timeout):"
        let advice = "is pollsrv running, and are the addresses right? (--servers A,B)"
        return ([head] + lines + [advice]).joined(separator: "\n")
    }

    /// An error reply, with what to do about it where we know.
    static func advice(_ text: String) -> String {
        switch text.split(separator: " ").first {
        case "NOSUCHVOTE": "\(text); `pollctl status` lists the open votes"
        case "NOHOOKS": "\(text); start both servers with --test-hooks"
        case "NOSESSION": "\(text); nothing was done, run the command again"
        case .none, .some: text
        }
    }
}
