import Client
import Linux
import Wire

/// The client programs of a demonstration, and what stands in their logs.
struct Voters {
    struct Voter {
        let name: String
        let pid: Int32
        let log: String
    }

    static let names = ["ann", "bob", "cem", "dora", "eve"]

    let all: [Voter]
    private let household: Household

    /// Starts five clients that vote at random. `votes`: how many results they wait for, 0: no end.
    init(_ household: Household, pair: LocalPair, votes: Int) throws(Failure) {
        self.household = household
        var all: [Voter] = []
        for (index, name) in Self.names.enumerated() {
            let log = "\(household.folder)/\(name).log"
            let arguments = [
                "--servers", pair.servers, "--name", name, "--vote", "random", "--seed",
                String(index + 1), "--log", log, "--votes", String(votes), "--quiet",
            ]
            let pid = try household.start("pollclient", arguments, name: name)
            all.append(Voter(name: name, pid: pid, log: log))
        }
        self.all = all
    }

    /// The one that is made to vote late.
    var last: Voter { all[all.count - 1] }

    /// A client that ends before its time spoils everything; says which.
    func checkAlive() throws(Failure) {
        for voter in all {
            guard let exit = household.exit(of: voter.pid), exit != .code(0) else { continue }
            throw Failure(
                "the client \(voter.name) ended early (\(exit)); see "
                    + "\(household.folder)/\(voter.name).messages")
        }
    }

    /// Whole lines of a log; what has no line end yet does not count.
    static func lines(of log: String) -> [Substring] {
        guard let bytes = try? Files.read(log) else { return [] }
        let text = String(decoding: bytes, as: UTF8.self)
        guard let end = text.lastIndex(of: "\n") else { return [] }
        return text[..<end].split(separator: "\n", omittingEmptySubsequences: false)
    }

    /// The number of the last vote in a log, 0 for none.
    static func lastVote(in log: String) -> Int {
        lines(of: log).last.flatMap { $0.split(separator: " ").first }.flatMap { Int($0) } ?? 0
    }

    /// The last vote that stands in all logs.
    var lastVoteOfAll: Int { all.map { Self.lastVote(in: $0.log) }.min() ?? 0 }
}

/// `VOTE.LIST`'s word on one vote.
struct VoteState {
    let isOpen: Bool
    let ballots: Int

    /// Nil when it is not (yet) listed or `address` does not answer.
    static func of(_ id: Int, at address: Address) -> Self? {
        guard var connection = try? CommandConnection(to: address, milliseconds: 300),
            let reply = try? connection.ask(["VOTE.LIST"], milliseconds: 300)
        else { return nil }
        for item in reply.items ?? [] {
            guard let fields = item.items, fields.count >= 4, fields[0].number == Int64(id) else {
                continue
            }
            return Self(
                isOpen: fields[2].text == "open", ballots: Int(fields[3].number ?? 0))
        }
        return nil
    }
}
