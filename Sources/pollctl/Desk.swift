import Arguments
import Linux

/// A `reserveclient` at whose prompt we type.
final class Desk {
    let name: String
    private let household: Household
    private let input: Channel
    private let output: String
    private let pid: Int32

    init(_ household: Household, name: String, servers: String) throws(Failure) {
        let output = "\(household.folder)/\(name).answers"
        let channel = try Self.channel()
        let file = try Self.file(output)
        pid = try household.start(
            "reserveclient", ["--servers", servers, "--timeout", "10s"], name: name,
            input: channel.far.raw, output: file.raw)
        (self.household, self.name, self.output) = (household, name, output)
        input = channel
    }

    private static func channel() throws(Failure) -> Channel {
        do throws(SystemError) { return try Channel() } catch { throw Failure(error) }
    }

    private static func file(_ path: String) throws(Failure) -> FileDescriptor {
        do throws(SystemError) {
            return try Files.openForAppending(path)
        } catch { throw Failure(error) }
    }

    /// Types a line and gives the answer, with where it comes from.
    func ask(_ line: String) throws(Failure) -> String {
        let before = try answers().count
        type(line)
        var found: [String] = []
        try household.wait(for: "the answer to '\(line)' at \(name)'s", every: 1) {
            () throws(Failure) in
            if let exit = household.exit(of: pid) {
                throw Failure(
                    "\(name)'s reserveclient ended by itself (\(exit)); see "
                        + "\(household.folder)/\(name).messages")
            }
            found = try answers()
            return found.count > before
        }
        return found[before]
    }

    func quit() { type("quit") }

    /// A reader that is gone is found by its exit.
    private func type(_ line: String) { _ = IO.send(input.near.raw, Array((line + "\n").utf8)) }

    private static let prompt = "Next command: "

    /// The answers so far: each stands between two prompts.
    private func answers() throws(Failure) -> [String] {
        do throws(SystemError) {
            let text = String(decoding: try Files.read(output), as: UTF8.self)
            var parts = Text.split(text, by: Self.prompt)
            guard parts.count > 2 else { return [] }
            parts.removeFirst()
            parts.removeLast()
            return parts.map { $0.last == "\n" ? String($0.dropLast()) : $0 }
        } catch { throw Failure(error) }
    }
}
