import Wire

/// A member's tries to connect to others. Each address has a back-off of its own: one that does not
/// answer delays none of the others.
struct Calls {
    private struct Call {
        var address: Address
        var startedAt: UInt64?
        var next: UInt64 = 0
        var delay = Joining.delayMin
    }

    private var calls: [Call] = []

    /// Those of `addresses` that are to be called now. Up to half of a pause is left to chance, so
    /// that two who call each other at the same moment do not go on doing so.
    mutating func due(_ addresses: [Address], _ now: UInt64, jitter: UInt64) -> [Address] {
        calls.removeAll { $0.startedAt == nil && !addresses.contains($0.address) }
        for address in addresses where !calls.contains(where: { $0.address == address }) {
            calls.append(Call(address: address))
        }
        var list: [Address] = []
        for index in calls.indices {
            let call = calls[index]
            guard call.startedAt == nil, now >= call.next else { continue }
            calls[index].startedAt = now
            calls[index].next = now + call.delay + jitter % (call.delay / 2)
            calls[index].delay = min(call.delay * 2, Joining.delayMax)
            list.append(call.address)
        }
        return list
    }

    /// Those that have not come to a connection in time.
    func overdue(_ now: UInt64) -> [Address] {
        calls.filter { call in call.startedAt.map { now > $0 + Joining.dialTimeMax } ?? false }
            .map(\.address)
    }

    mutating func onFailed(_ address: Address) {
        for index in calls.indices where calls[index].address == address {
            calls[index].startedAt = nil
        }
    }

    mutating func onConnected(_ address: Address) { calls.removeAll { $0.address == address } }

    /// Where a connection has just broken a new one may find out at once.
    mutating func hurry() {
        for index in calls.indices { calls[index].next = 0 }
    }
}
