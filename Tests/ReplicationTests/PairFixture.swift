import Testing
import Wire

@testable import Replication

/// A view of replica 1, its primary, and replica 2, on one host, and either of them as it comes back
/// into that from its disk.
enum PairFixture {
    static func member(_ number: UInt64, pid: UInt64? = nil, host: UInt64 = 1) -> Member {
        Member(
            id: ReplicaID(id: number), instance: Instance(number),
            address: Address(host: "h", port: UInt16(number)), host: host, pid: pid ?? number)
    }

    static let view = View(
        number: ViewNumber(2), primary: member(1), backups: [member(2)],
        electorate: [Instance(1), Instance(2)], base: .beginning)

    static func entry(_ op: UInt64, after parent: LogHash, _ command: UInt8 = 1) -> Entry {
        var batch = Batch()
        batch.append(Request(command: [command]))
        return Entry(view: view.number, first: OpNumber(op), time: op, batch: batch, after: parent)
    }

    /// Replica 1 or 2, back with these entries and connected with the other.
    static func replica(
        _ number: UInt64, _ log: [Entry], election: Election = .sticky, host: UInt64 = 1
    ) throws -> Replica {
        let records = log.map { Record.entry($0) } + [.view(view)]
        var replica = Replica(
            me: member(number, pid: 100 + number, host: host),
            timing: Timing(suspectTicks: 50, beatTicks: 10), membersMax: 2, election: election,
            seed: 1,
            recovered: try Recovered(
                op: OpNumber(0), hash: .beginning, view: ViewNumber(0),
                committed: OpNumber(0), reign: view.number,
                hasState: true, records: records))
        var outbox = Outbox()
        replica.step(.resume, into: &outbox)
        replica.step(.linkUp(Instance(3 - number)), into: &outbox)
        return replica
    }

    /// From the other replica, unless said otherwise.
    static func give(_ message: Message, to replica: inout Replica, from: Instance? = nil) -> Outbox
    {
        var outbox = Outbox()
        let other = Instance(3 - replica.me.instance.rawValue)
        replica.step(.message(message, from: from ?? other), into: &outbox)
        replica.checkInvariants()
        return outbox
    }
}
