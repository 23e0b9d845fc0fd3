import Replication
import Storage
import Wire

/// What a replica says of itself when a connection between two is made:
/// `PEER hello VERSION SERVICE STATUS MEMBER VIEW ELECTION FOLDER FORMER`, `-` for what there is
/// none of.
struct PeerHello {
    enum Status: String {
        /// A backup in no service yet.
        case fresh
        /// Started as primary and finding out whether there is a service already.
        case deciding
        /// Asking to be let in, or out of the view.
        case joining
        case member
    }

    var service: ServiceID?
    var status: Status
    var member: Member
    var view: View?
    /// Whether a group elects its highest, or two take turns: all members must do the same.
    var election: Election
    /// The absolute path of its journal's folder, on its host; nil: all is in memory.
    var folder: String?
    /// The instances that it was before its records could not be read. They are over.
    var former: [Instance]

    func encode(into bytes: inout [UInt8]) {
        let former = former.map(\.description).joined(separator: ",")
        RESP.command(
            [
                "PEER", "hello", "\(Message.protocolVersion)", service?.description ?? "-",
                status.rawValue, member.text, view?.text ?? "-", election.rawValue,
                folder ?? "-", former.isEmpty ? "-" : former,
            ], into: &bytes)
    }

    init(
        service: ServiceID?, status: Status, member: Member, view: View?, election: Election,
        folder: String?, former: [Instance]
    ) {
        self.service = service
        self.status = status
        self.member = member
        self.view = view
        self.election = election
        self.folder = folder
        self.former = former
    }

    init(_ arguments: borrowing CommandArguments) throws(DecodeError) {
        guard arguments.count >= 3, arguments.equals(1, "hello") else {
            throw DecodeError("a replica begins with PEER hello")
        }
        guard arguments.number(2) == UInt64(Message.protocolVersion) else {
            throw DecodeError(
                "protocol version \(arguments.text(2)), this replica speaks "
                    + "\(Message.protocolVersion); run the same pollsrv on both sides")
        }
        guard arguments.count == 10, let status = Status(rawValue: arguments.text(4)),
            let member = Member(text: arguments.text(5)),
            let election = Election(rawValue: arguments.text(7)),
            let former = Self.former(arguments.text(9))
        else { throw DecodeError("malformed PEER hello") }
        self.status = status
        self.member = member
        self.election = election
        self.former = former
        service = ServiceID(text: arguments.text(3))
        view = View(text: arguments.text(6))
        let path = arguments.text(8)
        folder = path.hasPrefix("/") ? path : nil
    }

    private static func former(_ text: String) -> [Instance]? {
        guard text != "-" else { return [] }
        var list: [Instance] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let instance = Instance(text: String(part)), list.count < Store.formerMax else {
                return nil
            }
            list.append(instance)
        }
        return list
    }
}

/// Another replica, as it has said what it is.
struct KnownReplica {
    var member: Member
    var folder: String?
    /// As its newest hello said; it may have come into one since.
    var service: ServiceID?
    /// Whether it was in a view, or about to begin a service: then its loss is worth looking at at
    /// once. Two who wait for others would else call each other without a pause.
    var isWorthCalling: Bool

    /// With more, those who have gone are forgotten.
    static let countMax = 64
}
