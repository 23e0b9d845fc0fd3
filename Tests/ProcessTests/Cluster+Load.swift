import Foundation
import Testing

// Voters on a pair that opens votes by itself, while a test disturbs that.
extension Cluster {
    /// Flags of a primary that opens one vote after the other once all of `names` have joined.
    static let autoVotes = ["--voters", "5", "--votes", "1000000", "--interval", "10ms"]

    func startClients(votes: Int = 0) throws {
        for name in Self.names { try client(name, votes: votes) }
    }

    /// `isWatched`: meanwhile all servers are asked whether they lead.
    func waitForVotes(_ count: Int, isWatched: Bool = false) throws {
        _ = try eventually("\(count) results in every log") {
            if isWatched { _ = leader }
            return Self.names.allSatisfy { lines($0).count >= count } ? true : nil
        }
    }

    /// Waits until all go on, ends them in an orderly way and compares what they have. Up to there
    /// each vote must have the ballots of all.
    func endClients() throws {
        let count = (Self.names.map { lines($0).count }.max() ?? 0) + 5
        try waitForVotes(count, isWatched: true)
        for name in Self.names { processes[name]?.terminate() }
        for name in Self.names { #expect(try waitForExit(name) == 0) }
        checkLogs(atLeast: count, ballots: Self.names.count)
    }
}
