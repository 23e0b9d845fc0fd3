import Arguments
import Client
import Linux
import Wire

/// A pair of servers of our own on free ports.
struct LocalPair {
    private let places: ReservedPorts
    private let household: Household

    init(_ household: Household) throws(Failure) {
        self.household = household
        places = try ReservedPorts(2)
    }

    var addresses: [Address] { places.addresses }

    var servers: String { addresses.map(\.description).joined(separator: ",") }

    /// Starts one of the two, as `mode` (`primary` or `backup`).
    func start(_ mode: String, _ flags: [String]) throws(Failure) -> Int32 {
        let isFirst = mode == "primary"
        let (own, peer) = (addresses[isFirst ? 0 : 1], addresses[isFirst ? 1 : 0])
        let arguments = ["--\(mode)", "--listen", "\(own)", "--peer", "\(peer)"]
        // One file for all servers: replacements inherit it from the one that starts them.
        return try household.start("pollsrv", arguments + flags, name: "pollsrv")
    }

    /// Starts both and gives the primary's word once they are a pair.
    func startBoth(_ flags: [String]) throws(Failure) -> ServerReport {
        let pids = [try start("primary", flags), try start("backup", flags)]
        return try waitForPair("the two servers to become a pair", pids)
    }

    /// The primary's word once there is a backup. `pids`: those that must not exit meanwhile.
    func waitForPair(_ what: String, _ pids: [Int32] = [], milliseconds: UInt64 = 15_000)
        throws(Failure) -> ServerReport
    {
        var found: ServerReport?
        try household.wait(for: what, milliseconds: milliseconds) { () throws(Failure) in
            for pid in pids {
                guard let exit = household.exit(of: pid) else { continue }
                throw Failure("a server ended by itself (\(exit)); see \(messages)")
            }
            found = primary()
            return found?.isPair ?? false
        }
        guard let found else { throw Failure("no primary", .software) }
        return found
    }

    /// What the primary says; nil while there is none. A server that hangs costs 300 ms.
    func primary() -> ServerReport? {
        var best: ServerReport?
        for address in addresses {
            guard let report = try? ServerReport.of(address, milliseconds: 300),
                report.isPrimary, report.view > (best?.view ?? -1)
            else { continue }
            best = report
        }
        return best
    }

    var messages: String { "\(household.folder)/pollsrv.messages" }
}
