import Journal
import Linux
import Simulator
import Storage
import Synchronization
import Testing
import Wire

/// A life: turns until the power goes, as often as there are budgets; nil when all is well.
private func live(
    seed: Int, budgets: [Int], turns: Int, kills: Bool = false,
    options: Store.Options = Script.options(), isBeside: Bool = false
) -> (complaint: String?, spent: Int, cuts: Int) {
    let disk = SimulatedDisk()
    var script = Script(seed: seed, isKernelSafe: kills)
    var options = options
    if isBeside {
        let beside = Beside()
        options.beginBeside = { beside.take($0) }
        script.beside = beside
    }
    var chance = Generator(seed: seed &* 31 &+ (budgets.first ?? 0))
    var cuts = 0
    for budget in budgets + [Int.max] {
        disk.state.withLock { $0.budget = budget == .max ? nil : budget }
        do {
            var store = try Store(
                folder: "/d", service: nil, disk: disk, options: options)
            if store.identity == nil {
                if script.model.synced > 0 { return ("all is gone", 0, cuts) }
                script.model.records = []
                script.committed = OpNumber(0)
                try store.create(Sample.identity)
            } else {
                let found = try store.resume(isPeerReachable: false)
                switch found.verdict {
                case .useAll: break
                case .cut: cuts += 1
                case .ask, .refuse: return ("\(found.verdict)", 0, cuts)
                }
                guard let recovered = found.recovered, let count = script.model.match(recovered)
                else {
                    let names = disk.state.withLock { $0.names }
                    return (
                        "\(found): of \(script.model.synced)/\(script.model.records) \(names)", 0,
                        cuts
                    )
                }
                script.model.records.removeSubrange(count...)
                script.model.synced = count
                script.committed = max(
                    recovered.op, min(script.committed, recovered.last))
            }
            for _ in 0..<turns { try script.turn(&store) }
        } catch {
            guard disk.state.withLock({ $0.isOff }) else { return ("\(error)", 0, cuts) }
        }
        if budget == .max { break }
        disk.state.withLock { state in
            if kills { state.kill() } else { state.losePower(&chance) }
        }
    }
    return (nil, disk.state.withLock { $0.spent }, cuts)
}

@Suite struct CrashTests {
    @Test(arguments: [false, true]) func everyByteAndCallOfARun(isBeside: Bool) {
        let whole = live(seed: 1, budgets: [], turns: 8, isBeside: isBeside)
        #expect(whole.complaint == nil)
        #expect(whole.spent > 1_000)
        var cuts = 0
        for budget in stride(from: 0, through: whole.spent, by: isBeside ? 3 : 1) {
            for losses in 0..<2 {
                let result = live(
                    seed: 1, budgets: [budget, budget &* 7 % 997 + losses], turns: 8,
                    isBeside: isBeside)
                #expect(result.complaint == nil, "budget \(budget), \(losses)")
                cuts += result.cuts
                if result.complaint != nil { return }
            }
        }
        // Else no write was ever torn and this tests little.
        #expect(cuts > 100)
    }

    @Test func manyLivesOfManySeeds() {
        var cuts = 0
        for seed in 0..<500 {
            var generator = Generator(seed: seed)
            let budgets = (0..<4).map { _ in Int.random(in: 0...3_000, using: &generator) }
            let result = live(
                seed: seed, budgets: budgets, turns: 12, isBeside: seed % 2 == 1)
            #expect(result.complaint == nil, "seed \(seed)")
            cuts += result.cuts
            if result.complaint != nil { return }
        }
        #expect(cuts > 100)
    }

    @Test func killedProcessesLoseNothingThatWasWritten() {
        for seed in 0..<200 {
            var generator = Generator(seed: seed)
            let budgets = (0..<4).map { _ in Int.random(in: 0...3_000, using: &generator) }
            let options = Script.options(seed % 2 == 0 ? .always : .never)
            let result = live(
                seed: seed, budgets: budgets, turns: 12, kills: true, options: options,
                isBeside: seed % 4 >= 2)
            #expect(result.complaint == nil, "seed \(seed)")
        }
    }

    /// What was not synced may go, but never so that the rest is refused.
    @Test func neverSyncedComesBackToAPrefix() {
        for seed in 0..<400 {
            var generator = Generator(seed: seed)
            let budgets = (0..<4).map { _ in Int.random(in: 0...3_000, using: &generator) }
            #expect(
                live(
                    seed: seed, budgets: budgets, turns: 12, options: Script.options(.never),
                    isBeside: seed % 2 == 1
                ).complaint == nil, "seed \(seed)")
        }
    }
}
