package import Wire

/// One process of an instance. One that is kept on a disk has several, one after the other.
package struct Life: Equatable, Sendable {
    package let instance: Instance
    let host: UInt64
    let pid: UInt64

    package init(_ member: Member) {
        instance = member.instance
        host = member.host
        pid = member.pid
    }
}

/// Which process of an instance is its newest, and which instances are proved to have none that runs.
///
/// The proof of a process's end is worth something only if that is the newest: a newer one may have
/// taken part in what the older did not. Its own words come in a connection, or in a view that it has
/// proposed or been let into, which may be known before there is any connection.
struct Lives: Equatable, Sendable {
    /// Of each instance the newest that is known of.
    private var newest: [Life] = []
    /// Of each instance the one that has made the newest direct connection.
    private var linked: [Life] = []
    /// Instances of which a view has named another process than that, since the connection was made: it
    /// counts as the newer, and may be the older.
    private(set) var doubted: [Instance] = []
    /// Processes proved dead.
    private var ended: [Life] = []
    /// Instances of which no process can run any more.
    private var over: [Instance] = []
    /// Instances without a process that runs, for all that is known.
    private(set) var exited: [Instance] = []

    private static let countMax = 16

    func haveEnded(_ instance: Instance) -> Bool { exited.contains(instance) }

    /// Where the newest process of a member runs, which may be another place than the view says, and has
    /// another number after each start of its machine.
    func host(of member: Member) -> UInt64 {
        newest.first { $0.instance == member.instance }?.host ?? member.host
    }

    /// A path to it stands.
    mutating func connected(_ instance: Instance) { exited.removeAll { $0 == instance } }

    /// This process has made a direct connection, and knows `view`.
    mutating func met(_ life: Life, knowing view: View? = nil) {
        linked.removeAll { $0.instance == life.instance }
        Self.append(life, to: &linked)
        doubted.removeAll { $0 == life.instance }
        note(life, knowing: view)
    }

    /// What has come on the newest direct connection shows that its process knows `view`. Whether that
    /// gives a meaning to the proof of its end, which had none.
    mutating func spoke(_ instance: Instance, of view: View) -> Bool {
        doubted.removeAll { $0 == instance }
        guard let life = linked.first(where: { $0.instance == instance }) else { return false }
        note(life, knowing: view)
        guard ended.contains(life), !over.contains(instance), !exited.contains(instance) else {
            return false
        }
        Self.append(instance, to: &exited)
        return true
    }

    /// This process is the newest, and knows `view`. If that names another process of the instance, it
    /// is an older one: of those only one at a time can run.
    private mutating func note(_ life: Life, knowing view: View? = nil) {
        newest.removeAll { $0.instance == life.instance }
        Self.append(life, to: &newest)
        guard let named = view?.member(life.instance).map({ Life($0) }), named != life,
            !ended.contains(named)
        else { return }
        Self.append(named, to: &ended)
    }

    /// `life`: nil if no process of the instance can run any more, else which has ended. Whether that
    /// proves something new.
    mutating func end(_ instance: Instance, _ life: Life?) -> Bool {
        if let life {
            if !ended.contains(life) { Self.append(life, to: &ended) }
            let known = newest.first { $0.instance == instance }
            if let known, !ended.contains(known), !over.contains(instance) { return false }
        } else if !over.contains(instance) {
            Self.append(instance, to: &over)
        }
        guard !exited.contains(instance) else { return false }
        Self.append(instance, to: &exited)
        return true
    }

    /// A view names another process than the one before did, or one that was let in: that has acted
    /// since, and is the newest, unless it is known to be over.
    mutating func learn(_ members: [Member], before: View?) {
        for member in members {
            let life = Life(member)
            let known = before?.member(member.instance).map { Life($0) }
            guard known != life, !ended.contains(life) else { continue }
            note(life)
            if !doubted.contains(life.instance),
                linked.contains(where: { $0.instance == life.instance && $0 != life })
            {
                Self.append(life.instance, to: &doubted)
            }
            if !over.contains(life.instance) { exited.removeAll { $0 == member.instance } }
        }
    }

    private static func append<Item>(_ item: Item, to list: inout [Item]) {
        list.append(item)
        if list.count > countMax { list.removeFirst() }
    }
}
