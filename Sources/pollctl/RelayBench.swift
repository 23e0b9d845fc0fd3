import Arguments
import Client
import Linux
import Wire

/// `pollctl bench --relay`: the same load over the direct link and, that cut, over a client that
/// is connected to both servers. The clients that relay are real ones, which do not vote.
struct RelayBench {
    let load: Load
    let isJSON: Bool

    private static let relays = 3

    func run() throws(Failure) {
        try Household.measure(purpose: "relay", run)
    }

    private func run(_ household: Household) throws(Failure) {
        let pair = try LocalPair(household)
        _ = try pair.startBoth(["--quiet", "--test-hooks"])
        for number in 1...Self.relays {
            let arguments = [
                "--servers", pair.servers, "--name", "relay-\(number)", "--vote", "never",
                "--quiet",
            ]
            _ = try household.start("pollclient", arguments, name: "relay-\(number)")
        }
        let direct = try measure(household, pair, over: "direct")
        let replicas = ReplicaCommands(servers: pair.addresses, milliseconds: 2_000) { _ in }
        try replicas.link("cut")
        let relay = try measure(household, pair, over: "relay")
        try show(direct, relay)
    }

    private func measure(_ household: Household, _ pair: LocalPair, over path: String)
        throws(Failure) -> Generator
    {
        var found: ServerReport?
        try household.wait(for: "the path to be \(path)") {
            found = pair.primary()
            return found?.string("path") == path && found?.number("witnesses") == Self.relays
        }
        guard let found else { throw Failure("no primary", .software) }
        let generator = try Generator(load, found, household.interrupts)
        try generator.join()
        try generator.run()
        let after = pair.primary()
        guard after?.view == found.view, after?.string("path") == path else {
            throw Failure("the view or the path has changed meanwhile; see \(pair.messages)")
        }
        generator.hangUp()
        return generator
    }

    private func show(_ direct: Generator, _ relay: Generator) throws(Failure) {
        let ratio = relay.ballotsPerSecond / direct.ballotsPerSecond
        let times = [direct, relay].map { $0.ballotTimes.microseconds(part: 0.5) }
        if isJSON {
            try Output.print(
                JSON.object([
                    ("direct", direct.figures()), ("relay", relay.figures()),
                    ("throughput_ratio", .number(ratio, digits: 3)),
                    ("ballot_p50_ratio", .number(times[1] / max(1, times[0]), digits: 2)),
                ]).text)
            return
        }
        try Output.print("\(load.voters) voters, \(load.pipeline) in flight each")
        for (name, generator) in [("direct link", direct), ("over a relay", relay)] {
            let rate = Text.grouped(UInt64(generator.ballotsPerSecond))
            try Output.print("  \(name): \(rate) ballots/s")
            try Output.print("    ballot to OK:   \(generator.ballotTimes.text)")
            try Output.print("    vote to result: \(generator.resultTimes.text)")
        }
        try Output.print(
            "  over a relay, \(Text.fixed(ratio * 100, 0)) % of the ballots; the median ballot takes "
                + "\(Text.fixed(times[1] / max(1, times[0]), 1)) times as long")
    }
}
