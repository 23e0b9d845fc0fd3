import Foundation
import Replication
import Simulator
import Testing

/// Runs of the simulator that mean something.
@Suite struct SeedTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Seeds")

    /// Lines of three words; `#` begins a comment.
    static func lines(_ file: String) -> [[String]] {
        let text = (try? String(contentsOf: folder.appending(path: file), encoding: .utf8)) ?? ""
        return text.components(separatedBy: "\n").map {
            $0.prefix { $0 != "#" }.split(separator: " ").map(String.init)
        }.filter { !$0.isEmpty }
    }

    static let bugs = lines("bugs.txt")
    static let breakages = lines("breakages.txt")

    private static func run(
        _ words: [String], election: Election? = nil, disks: Bool = false, breakage: Breakage?
    ) throws -> Simulation.Outcome {
        let seed = try #require(UInt64(words[1]))
        let shape = Shape(rawValue: words[2])
        #expect(shape != nil || words[2] == "any", "\(words)")
        var options = Simulation.Options(
            seed: seed, shape: shape, election: election, breakage: breakage)
        options.disks = disks
        return Simulation(options).run()
    }

    /// Without any the next test would have nothing to run, and pass.
    @Test func thereAreBugs() { #expect(Self.bugs.count >= 46) }

    @Test(arguments: bugs) func noBugComesBack(words: [String]) throws {
        // Found when there were no groups but sticky ones; or with disks in every run.
        let more = words.count > 3 ? words[3] : nil
        let election = more.flatMap(Election.init(rawValue:))
        #expect(more == nil || more == "disks" || election != nil)
        let outcome = try Self.run(
            words, election: election, disks: more == "disks", breakage: nil)
        #expect(outcome.violation == nil, "\(words): \(outcome.violation?.text ?? "")")
    }

    @Test func everyBreakageHasItsSeed() {
        let named = Set(Self.breakages.map { $0[0] })
        #expect(named == Set(Breakage.allCases.map(\.rawValue)))
        #expect(named.count >= 15)
    }

    /// The checkers are checked: with the mistake the run fails, without it the same run is clean.
    @Test(arguments: breakages) func breakageIsNoticed(words: [String]) throws {
        let breakage = try #require(Breakage(rawValue: words[0]))
        let outcome = try Self.run(words, breakage: breakage)
        let found = outcome.violation?.rule.split(separator: " ").joined(separator: "-")
        #expect(
            found == words[3],
            "find another seed: pollsim --breakage \(words[0]) --survey --seeds 10000 --from 1")
        #expect(try Self.run(words, breakage: nil).violation == nil)
    }

    @Test func oneSeedOneStory() {
        for seed in UInt64(1)...20 {
            let first = Simulation(Simulation.Options(seed: seed)).run()
            let second = Simulation(Simulation.Options(seed: seed)).run()
            #expect(first.digest == second.digest && first.events == second.events)
        }
    }

    /// That trouble really happens, and really matters.
    @Test func aFewSeedsSeeMuchOfEverything() {
        var coverage = Coverage()
        for seed in UInt64(1)...80 {
            let outcome = Simulation(Simulation.Options(seed: seed)).run()
            #expect(outcome.violation == nil, "seed \(seed): \(outcome.violation?.text ?? "")")
            coverage.add(outcome.coverage)
        }
        for item in [
            Coverage.Item.primaryKilled, .backupKilled, .primaryPaused, .linkHeld, .linkReset,
            .clientKilled, .switchover, .primaryTookOver, .handedOver, .learnerAdmitted,
            .memberExcluded, .stepDown, .truncated, .relayUsed, .backToDirect, .callRepeated,
            .heldBallotProposed, .readAnswered, .ambush, .leaderFailed, .electionBegan,
            .electionSummoned, .electionAnswered, .handedOverToHigher, .lowerTookOver,
            .powerCut, .replicaRestarted, .segmentBegun, .checkpointTaken, .checkpointCutShort,
            .writeCutShort, .startCutShort, .writeFailed, .rottenInUse,
        ] {
            #expect(coverage[item] > 0, "\(item.name) never happened")
        }
    }
}
