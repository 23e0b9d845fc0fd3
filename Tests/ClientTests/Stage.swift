import Replication
import Testing
import Wire

@testable import Client

let ann = Address(host: "127.0.0.1", port: 7001)
let bob = Address(host: "127.0.0.1", port: 7002)
let cem = Address(host: "127.0.0.1", port: 7003)
let ours = ServiceID(high: 1, low: 2)

/// A session and everything around it: the test plays the servers, the log and the clock.
struct Stage {
    var session: VoterSession
    var out = VoterOutbox()
    /// The connections that stand, by address.
    private var links: [(address: Address, link: LinkID)] = []
    /// What went out since it was last asked for.
    private(set) var log: [PollResult] = []
    private(set) var shown = ""
    private(set) var trouble: [String] = []
    private(set) var news: [String] = []
    private(set) var ending: Ending?
    private(set) var now: UInt64 = 1_000

    init(
        servers: [Address] = [ann, bob], policy: VotePolicy = .always(.yes), votesMax: UInt64 = 0,
        log: [PollResult] = []
    ) {
        var found = ResultChain()
        for result in log { found.append(result) }
        session = VoterSession(
            settings: VoterSession.Settings(
                name: "eve", servers: servers, policy: policy, votesMax: votesMax,
                logPath: "eve.log"),
            instance: Instance(0xeee), seed: 7, log: found)
        step(.time(now))
    }

    mutating func step(_ event: VoterSession.Event) {
        session.step(event, into: &out)
        shown += out.show.joined()
        for notice in out.notices {
            switch notice {
            case .trouble(let text): trouble.append(text)
            case .news(let text): news.append(text)
            case .detail: break
            }
        }
        (out.show, out.notices) = ([], [])
        ending = ending ?? out.ending
    }

    mutating func wait(_ milliseconds: UInt64) {
        now += milliseconds
        step(.time(now))
    }

    /// What the session has asked to be appended, reported as written.
    mutating func write() {
        let results = out.append
        out.append = []
        log += results
        if let last = results.last { step(.logged(through: last.id)) }
    }

    // MARK: Connections

    /// Addresses dialed since it was last asked for.
    mutating func dialed() -> [Address] {
        defer { out.dial = [] }
        return out.dial.map(\.address)
    }

    /// Answers the dial of an address and its HELLO.
    mutating func accept(
        _ address: Address, view: VoterView? = nil, isPrimary: Bool = false,
        instance: UInt64? = nil, service: ServiceID? = ours
    ) throws {
        let dial = try #require(out.dial.last { $0.address == address })
        out.dial.removeAll { $0.address == address }
        links.removeAll { $0.address == address }
        links.append((address, dial.link))
        step(.connected(dial.link))
        #expect(sent(address) == ["HELLO eve"])
        let hello = Self.hello(
            view: view, isPrimary: isPrimary, instance: instance ?? UInt64(address.port),
            service: service)
        step(.reply(dial.link, hello))
    }

    static func hello(
        view: VoterView?, isPrimary: Bool, instance: UInt64, service: ServiceID?
    ) -> RESPValue {
        func text(_ value: String?) -> RESPValue { value.map { .bulk(Array($0.utf8)) } ?? .null }
        return .map([
            text("server"), text("pollsrv"), text("proto"), .integer(3),
            text("service"), text(service?.description),
            text("mode"), text(isPrimary ? "primary" : "backup"),
            text("view"), .integer(Int64(view?.number.rawValue ?? 0)),
            text("primary"), text(view?.primary.description),
            text("backup"), text(view?.backups.first?.description),
            text("instance"), text(Instance(instance).description),
            text("heartbeat"), .integer(1_000), text("misses"), .integer(5),
        ])
    }

    mutating func refuse(_ address: Address) throws {
        let dial = try #require(out.dial.last { $0.address == address })
        out.dial.removeAll { $0.address == address }
        step(.closed(dial.link, reason: "connect: Connection refused"))
    }

    func link(_ address: Address) throws -> LinkID {
        try #require(links.last { $0.address == address }).link
    }

    mutating func lose(_ address: Address) throws {
        step(.closed(try link(address), reason: "closed by the server"))
    }

    // MARK: Commands

    /// Commands sent to an address since it was last asked for, in short. OFFERs and other words
    /// of the witness are answered and left out.
    mutating func sent(_ address: Address) -> [String] {
        guard let link = try? link(address) else { return [] }
        let mine = out.send.filter { $0.link == link }
        out.send.removeAll { $0.link == link }
        return mine.compactMap { item in
            switch item.command {
            case .hello(let name): "HELLO \(name)"
            case .offer, .witness: nil
            case .join(let name, let from): "JOIN \(name) \(from)"
            case .cast(let vote, _, let choice): "CAST \(vote) \(choice)"
            case .verify(let from): "VERIFY \(from)"
            case .results(let from): "RESULTS \(from)"
            case .leave: "LEAVE"
            case .ping: "PING"
            }
        }
    }

    /// Answers the oldest command that waits at an address; those of the witness by OK before it.
    mutating func reply(_ address: Address, _ value: RESPValue) throws {
        let link = try link(address)
        while let command = session.links.first(where: { $0.id == link })?.pending.first {
            switch command {
            case .offer, .witness: step(.reply(link, .simple("OK")))
            case .hello, .join, .cast, .verify, .results, .leave, .ping:
                step(.reply(link, value))
                return
            }
        }
        Issue.record("nothing waits for a reply of \(address)")
    }

    mutating func ok(_ address: Address) throws { try reply(address, .simple("OK")) }

    // MARK: Pushes

    mutating func push(_ address: Address, _ fields: [RESPValue]) throws {
        step(.push(try link(address), fields))
    }

    mutating func vote(_ id: Int64, from address: Address = ann) throws {
        let question = RESPValue.bulk(Array("Tea?".utf8))
        try push(address, [.bulk(Array("vote".utf8)), .integer(id), question, .integer(1)])
    }

    mutating func result(
        _ id: Int64, _ yes: Int64 = 1, _ no: Int64 = 0, from address: Address = ann
    )
        throws
    {
        let numbers = [id, yes, no, 1].map { RESPValue.integer($0) }
        try push(address, [.bulk(Array("result".utf8))] + numbers)
    }

    mutating func view(
        _ number: Int64, _ primary: Address, _ backup: Address?, from address: Address
    ) throws {
        func text(_ value: Address?) -> RESPValue {
            value.map { .bulk(Array($0.description.utf8)) } ?? .null
        }
        try push(
            address, [.bulk(Array("view".utf8)), .integer(number), text(primary), text(backup)])
    }

    /// The view as witnesses are told it, with the replicas' instances.
    mutating func witnessView(
        _ number: UInt64, primary: (Address, UInt64), backup: (Address, UInt64)?,
        from address: Address
    ) throws {
        func member(_ address: Address, _ instance: UInt64) -> Member {
            Member(
                id: ReplicaID(priority: 0, id: instance), instance: Instance(instance),
                address: address, host: 1, pid: instance)
        }
        let members = [primary] + (backup.map { [$0] } ?? [])
        let view = View(
            number: ViewNumber(number), primary: member(primary.0, primary.1),
            backups: members.dropFirst().map { member($0.0, $0.1) },
            electorate: members.map { Instance($0.1) }.sorted(), base: .beginning)
        let fields = Message.view(view).fields.map { RESPValue.bulk($0) }
        try push(address, [.bulk(Array("witness".utf8))] + fields)
    }

    /// Ann leads, Bob follows, in view 2; joined at Ann.
    mutating func settle(from next: UInt64 = 1) throws {
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try accept(ann, view: view, isPrimary: true)
        try accept(bob, view: view)
        #expect(sent(ann) == ["JOIN eve \(next)"])
        try ok(ann)
    }
}
