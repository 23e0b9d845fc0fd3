import Replication
import Services
import Wire

/// A replica's disk, a record being the smallest thing on it. It outlives the process.
final class Disk {
    enum Item {
        case record(Record)
        /// The record of a state that came from another replica, and that state.
        case restored(OpNumber, [UInt8])
        case checkpoint(OpNumber, [UInt8])
    }

    let instance: Instance
    let id: UInt64
    let slot: Int
    private(set) var items: [Item] = []
    /// So many items are safe from a crash; of the others a crash leaves some first ones, or none.
    private(set) var durable = 0
    /// A sync is under way, of so many items.
    var syncing: Int?
    /// Of the instance.
    var starts: UInt64 = 0
    /// The next sync fails, or there is no room for it.
    var isFailing = false
    /// Syncs take long until then.
    var slowUntil = 0
    /// While nothing runs on it: when it is started, at the earliest.
    var restartAt: Int?

    init(instance: Instance, id: UInt64, slot: Int) {
        self.instance = instance
        self.id = id
        self.slot = slot
    }

    var count: Int { items.count }

    func write(_ item: Item) { items.append(item) }

    func synced(_ count: Int) { durable = max(durable, count) }

    /// Gives how many of the items that were not safe are lost.
    func crash(keeping kept: Int) -> Int {
        let lost = items.count - durable - kept
        items.removeLast(lost)
        durable = items.count
        (syncing, isFailing, slowUntil) = (nil, false, 0)
        return lost
    }

    func recover() throws(DecodeError) -> (Recovered, Executor<ServiceSet>) {
        var recovered = Recovered()
        var executor = Executor<ServiceSet>()
        for item in items {
            switch item {
            case .record(let record): try recovered.replay(record)
            case .restored(let op, let snapshot):
                try recovered.replay(.restored(op: op))
                executor = try Executor(snapshot: snapshot)
            case .checkpoint(let op, let snapshot):
                try recovered.take(checkpoint: op)
                executor = try Executor(snapshot: snapshot)
            }
        }
        return (recovered, executor)
    }
}
