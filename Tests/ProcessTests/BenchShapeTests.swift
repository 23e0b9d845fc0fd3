import Foundation
import Testing

// What `pollctl bench --json` prints: of other types, or with a key less, it is not decoded.

private struct Times: Decodable {
    let p50: Double
    let p99: Double
    let p999: Double

    private enum CodingKeys: String, CodingKey {
        case p50
        case p99
        case p999 = "p99.9"
    }
}

private struct Memory: Decodable {
    let primary: Double
    let backup: Double
}

/// Of one load.
private struct Figures: Decodable {
    let voters: Int
    let pipeline: Int
    let single: Bool
    let votes: Int
    let ballots: Int
    let seconds: Double
    let ballotsPerS: Int
    let ballotUs: Times
    let resultUs: Times
}

/// Beside those of a load, where servers were measured that still run.
private struct Resident: Decodable {
    let rssMib: Memory
}

private struct RelayFigures: Decodable {
    let direct: Figures
    let relay: Figures
    let throughputRatio: Double
    let ballotP50Ratio: Double
}

/// Beside those of a load.
private struct DataFigures: Decodable {
    struct Replica: Decodable {
        let role: String
        let turns: Int
        let syncs: Int
        let writes: Int
        let bytes: Int
    }

    let sync: String
    let ratio: Double
    let memoryBallotsPerS: Int
    let memoryRuns: [Int]
    let dataRuns: [Int]
    let fdatasyncUs: Double
    let replicas: [Replica]
}

private struct FailoverFigures: Decodable {
    struct Parts: Decodable {
        let p50: Double
        let p90: Double
        let max: Double
    }

    let rounds: Int
    let failoverMs: Parts
}

extension ProcessSuite {
    /// What `pollctl bench --json` prints. How fast it was is nothing to a test: the figures are there,
    /// have their types, and go together.
    @Suite(.serialized) struct BenchShapes {
        /// Its output. `look` sees the folder that it ran in, which is gone then.
        private func bench(_ flags: [String], _ look: (URL) throws -> Void = { _ in }) throws
            -> String
        {
            let cluster = try Cluster()
            defer { cluster.end() }
            let seen = try cluster.run(
                "pollctl", ["bench", "--json"] + flags,
                environment: ["TMPDIR": cluster.folder.path])
            try #require(seen.status == 0, "\(seen)")
            #expect(seen.error == "")
            try look(cluster.folder)
            return seen.output
        }

        private func decoded<Shape: Decodable>(_ text: String) throws -> Shape {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode(Shape.self, from: Data(text.utf8))
        }

        private func check(
            _ figures: Figures, voters: Int = 50, pipeline: Int = 1, isSingle: Bool = false
        ) {
            #expect(figures.voters == voters)
            #expect(figures.pipeline == pipeline)
            #expect(figures.single == isSingle)
            #expect(figures.votes > 0)
            #expect(figures.ballots == figures.votes * voters)
            #expect(figures.seconds > 0)
            #expect(figures.ballotsPerS > 0)
            // Each of the two is rounded.
            let product = Double(figures.ballotsPerS) * figures.seconds
            let error = figures.seconds + 0.001 * Double(figures.ballotsPerS)
            #expect(abs(product - Double(figures.ballots)) <= error, "\(figures)")
            for times in [figures.ballotUs, figures.resultUs] {
                #expect(times.p50 > 0, "\(figures)")
                #expect(times.p50 <= times.p99 && times.p99 <= times.p999, "\(figures)")
            }
        }

        private func checkMemory(_ text: String) throws {
            let resident: Resident = try decoded(text)
            let memory = resident.rssMib
            #expect(memory.primary > 0 && memory.backup > 0, "\(text)")
        }

        @Test(arguments: [["--pipeline", "4"], ["--single"]])
        func aPair(flags: [String]) throws {
            let text = try bench(["--secs", "1"] + flags)
            let figures: Figures = try decoded(text)
            let isSingle = flags == ["--single"]
            check(figures, pipeline: isSingle ? 1 : 4, isSingle: isSingle)
            #expect(figures.seconds >= 1)
            try checkMemory(text)
        }

        @Test func overARelay() throws {
            let text = try bench(["--secs", "1", "--relay", "--voters", "10"])
            let figures: RelayFigures = try decoded(text)
            check(figures.direct, voters: 10)
            check(figures.relay, voters: 10)
            #expect(figures.throughputRatio > 0 && figures.ballotP50Ratio > 0, "\(text)")
        }

        /// So many votes instead of a time: it is three runs each, with a journal and without.
        @Test func withJournals() throws {
            let flags = ["--voters", "10", "--votes", "20", "--data", "data"]
            let text = try bench(flags) { folder in
                let left = try FileManager.default.contentsOfDirectory(
                    atPath: folder.appending(path: "data").path)
                #expect(left == [])
            }
            try checkJournals(text)
        }

        /// Then they are in a folder of its own.
        @Test func withJournalsSomewhere() throws {
            let text = try bench(["--data", "-q", "--voters", "10", "--votes", "20"]) { folder in
                let left = try FileManager.default.contentsOfDirectory(atPath: folder.path)
                #expect(!left.contains { $0.hasPrefix("pollsrv-bench-") || $0 == "-q" }, "\(left)")
            }
            try checkJournals(text)
        }

        private func checkJournals(_ text: String) throws {
            let load: Figures = try decoded(text)
            check(load, voters: 10)
            #expect(load.votes == 20)
            try checkMemory(text)
            let figures: DataFigures = try decoded(text)
            #expect(figures.sync == "always")
            #expect(figures.ratio > 0 && figures.fdatasyncUs > 0, "\(text)")
            // The slowest first; what else is told is of the median ones.
            for runs in [figures.memoryRuns, figures.dataRuns] {
                try #require(runs.count == 3, "\(text)")
                #expect(runs[0] > 0 && runs == runs.sorted(), "\(text)")
            }
            #expect(figures.memoryRuns[1] == figures.memoryBallotsPerS, "\(text)")
            #expect(figures.dataRuns[1] == load.ballotsPerS, "\(text)")
            #expect(figures.replicas.map(\.role) == ["primary", "backup"])
            for replica in figures.replicas {
                #expect(replica.syncs > 0 && replica.syncs <= replica.turns, "\(text)")
                #expect(replica.writes > 0 && replica.bytes > 0, "\(text)")
            }
        }

        @Test func failover() throws {
            let text = try bench(["--failover", "1"])
            let figures: FailoverFigures = try decoded(text)
            #expect(figures.rounds == 1)
            let parts = figures.failoverMs
            #expect(parts.p50 > 0)
            // Of one.
            #expect(parts.p50 == parts.p90 && parts.p90 == parts.max, "\(text)")
        }
    }
}
