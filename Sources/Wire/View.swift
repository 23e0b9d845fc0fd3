/// A replica as the others know it.
package struct Member: Hashable, Sendable {
    package var id: ReplicaID
    package var instance: Instance
    /// Where it takes connections, from clients and replicas alike.
    package var address: Address
    /// Equal for replicas between which a process number means the same (one boot of one machine).
    package var host: UInt64
    package var pid: UInt64

    package init(id: ReplicaID, instance: Instance, address: Address, host: UInt64, pid: UInt64) {
        self.id = id
        self.instance = instance
        self.address = address
        self.host = host
        self.pid = pid
    }
}

/// Who is in the service, under one number. Inside a view every op is on every member before it
/// counts, so any member can take over with nothing lost (write-all inside a configuration that
/// others choose: Vertical Paxos, Lamport, Malkhi and Zhou 2009, section 3).
package struct View: Hashable, Sendable {
    package var number: ViewNumber
    package var primary: Member
    package var backups: [Member]
    /// Who decides what the next view is: the members and a few witnesses, ascending, each once.
    package var electorate: [Instance]
    /// Everything through this entry was committed before this view was chosen, so every member has it.
    package var base: LogEnd

    package init(
        number: ViewNumber, primary: Member, backups: [Member], electorate: [Instance],
        base: LogEnd
    ) {
        self.number = number
        self.primary = primary
        self.backups = backups
        self.electorate = electorate
        self.base = base
    }

    package static let backupsMax = 8
    package static let electorsMax = 16

    package var members: [Member] { [primary] + backups }
    package var majority: Int { electorate.count / 2 + 1 }

    package func member(_ instance: Instance) -> Member? {
        if primary.instance == instance { return primary }
        return backups.first { $0.instance == instance }
    }

    package func contains(_ instance: Instance) -> Bool {
        primary.instance == instance || backups.contains { $0.instance == instance }
    }

    /// The electors that are no members.
    package var witnesses: [Instance] { electorate.filter { !contains($0) } }
}

// The text of a view, one line without line end:
//     NUMBER PRIMARY BACKUPS ELECTORS BASE
// where a member is `priority.id.instance.host.pid@HOST:PORT`, lists are parted by commas and an
// empty list is `-`, BASE is VIEW.OP. Instances and hosts are hexadecimal, all else decimal.
extension Member {
    package var text: String {
        "\(id.priority).\(id.id).\(instance).\(String(host, radix: 16)).\(pid)@\(address)"
    }

    package init?(text: some StringProtocol) {
        guard let at = text.firstIndex(of: "@") else { return nil }
        let parts = text[..<at].split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 5, let priority = UInt64(parts[0]), let id = UInt64(parts[1]),
            let instance = Instance(text: String(parts[2])), let host = UInt64(parts[3], radix: 16),
            let pid = UInt64(parts[4]),
            let address = Address(text: String(text[text.index(after: at)...]))
        else { return nil }
        self.init(
            id: ReplicaID(priority: priority, id: id), instance: instance, address: address,
            host: host, pid: pid)
    }
}

extension View {
    package var text: String {
        func list(_ items: [String]) -> String {
            items.isEmpty ? "-" : items.joined(separator: ",")
        }
        let electors = list(electorate.map(\.description))
        return "\(number) \(primary.text) \(list(backups.map(\.text))) \(electors) "
            + "\(base.view).\(base.op)"
    }

    /// Takes only what `text` gives: members of different instances, electors ascending.
    package init?(text: String) {
        let parts = text.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 5, let number = UInt64(parts[0]), number > 0,
            let primary = Member(text: parts[1]),
            // Of all these there is a next one.
            number <= 1 << 62
        else { return nil }
        let base = parts[4].split(separator: ".", omittingEmptySubsequences: false)
            .compactMap { UInt64($0) }.filter { $0 <= 1 << 62 }
        let points = parts[4].utf8.count(where: { $0 == UInt8(ascii: ".") })
        guard base.count == 2, points == 1 else { return nil }
        func list(_ part: Substring) -> [Substring] {
            part == "-" ? [] : part.split(separator: ",")
        }

        var backups: [Member] = []
        for item in list(parts[2]) {
            guard let member = Member(text: item) else { return nil }
            backups.append(member)
        }
        var electorate: [Instance] = []
        for item in list(parts[3]) {
            guard let elector = Instance(text: String(item)) else { return nil }
            if let last = electorate.last, last >= elector { return nil }
            electorate.append(elector)
        }
        self.init(
            number: ViewNumber(number), primary: primary, backups: backups, electorate: electorate,
            base: LogEnd(view: ViewNumber(base[0]), op: OpNumber(base[1])))
        let instances = members.map(\.instance).sorted()
        let areDistinct = zip(instances, instances.dropFirst()).allSatisfy { $0 < $1 }
        guard areDistinct, !electorate.isEmpty, backups.count <= Self.backupsMax,
            electorate.count <= Self.electorsMax
        else { return nil }
    }
}
