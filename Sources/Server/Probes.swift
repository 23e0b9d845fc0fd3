import Replication
import Wire

/// Members whose connection has broken, and is for them to make again. Whether anybody listens where they were
/// tells a crash from a hiccup; but a process that is killed may take connections for some milliseconds more,
/// since the kernel closes one socket after the other. So it is asked again, until there is a connection or
/// the member counts as failed.
struct Probes {
    private struct Probe {
        var member: Instance
        /// Nil while one is on its way.
        var next: UInt64?
        var delay: UInt64
    }

    private var probes: [Probe] = []

    static let delayMin: UInt64 = 20_000_000
    static let delayMax: UInt64 = 1_000_000_000

    /// To be asked at once: the connection has just broken.
    mutating func begin(_ member: Instance, now: UInt64) {
        probes.removeAll { $0.member == member }
        probes.append(Probe(member: member, next: now, delay: Self.delayMin))
    }

    /// Somebody listened there, or nobody answered.
    mutating func again(_ member: Instance, now: UInt64) {
        for index in probes.indices where probes[index].member == member {
            probes[index].next = now + probes[index].delay
            probes[index].delay = min(2 * probes[index].delay, Self.delayMax)
        }
    }

    mutating func forget(unless isOpen: (Instance) -> Bool) {
        probes.removeAll { !isOpen($0.member) }
    }

    /// Those who are to be asked now.
    mutating func due(_ now: UInt64) -> [Instance] {
        var list: [Instance] = []
        for index in probes.indices {
            guard let next = probes[index].next, now >= next else { continue }
            probes[index].next = nil
            list.append(probes[index].member)
        }
        return list
    }
}

extension Server {
    /// Asks whether anybody listens where members were.
    func probe() {
        probes.forget { instance in
            guard let member = replica.view?.member(instance) else { return false }
            return links[instance] == nil && !cutInstances.contains(instance)
                && !keepsLink(to: member) && !replica.hasFailed(instance)
        }
        for instance in probes.due(now) {
            guard let member = replica.view?.member(instance) else { continue }
            dial(member.address, kind: .probing(instance))
        }
    }
}
