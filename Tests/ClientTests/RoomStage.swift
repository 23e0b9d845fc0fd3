import Testing
import Wire

@testable import Client

/// A room session and everything around it: the test plays the servers, the person and the clock.
struct RoomStage {
    var session: RoomSession
    private var out = RoomOutbox()
    private(set) var link: LinkID?
    /// On standard output since it was last asked for.
    private var shown = ""
    private(set) var trouble: [String] = []
    private(set) var news: [String] = []
    private(set) var ending: Ending?
    private(set) var now: UInt64 = 1_000_000_000

    init(
        servers: [Address] = [ann, bob], isCaching: Bool = true, timeoutMilliseconds: UInt64 = 0,
        source: RoomSession.Source = .stream
    ) {
        session = RoomSession(
            settings: RoomSession.Settings(
                servers: servers, isCaching: isCaching, timeout: timeoutMilliseconds * 1_000_000,
                source: source),
            seed: 7)
        step(.time(now))
    }

    mutating func step(_ event: RoomSession.Event) {
        session.step(event, into: &out)
        for speech in out.say {
            switch speech {
            case .output(let text): shown += text
            case .notice(.trouble(let text)): trouble.append(text)
            case .notice(.news(let text)): news.append(text)
            case .notice(.detail): break
            }
        }
        out.say = []
        if let link, out.close.contains(link) { self.link = nil }
        out.close = []
        ending = ending ?? out.ending
    }

    mutating func wait(_ milliseconds: UInt64) {
        now += milliseconds * 1_000_000
        step(.time(now))
    }

    mutating func type(_ line: String) { step(.line(line)) }

    /// What came to standard output since it was last asked for, without prompts.
    mutating func said() -> String {
        defer { shown = "" }
        return shown.split(separator: RoomSession.prompt).joined()
    }

    mutating func saidAsItStands() -> String {
        defer { shown = "" }
        return shown
    }

    // MARK: Connections

    /// Addresses dialed since it was last asked for.
    mutating func dialed() -> [Address] {
        defer { out.dial = [] }
        return out.dial.map(\.address)
    }

    /// Waits until an address is dialed.
    mutating func waitForDial() {
        while out.dial.isEmpty { wait(10) }
    }

    /// Answers the dial of an address and its HELLO.
    mutating func accept(
        _ address: Address, primary: Address = ann, backup: Address? = bob, view: UInt64 = 2,
        service: ServiceID? = ours, isPrimary: Bool? = nil
    ) throws {
        try #require(out.dial.last?.address == address)
        let news = VoterView(
            number: ViewNumber(view), primary: primary, backups: backup.map { [$0] } ?? [])
        try accept(
            hello: Stage.hello(
                view: news, isPrimary: isPrimary ?? (address == primary),
                instance: UInt64(address.port), service: service))
    }

    /// Answers the dial that is under way, and its HELLO.
    mutating func accept(hello: RESPValue) throws {
        let dial = try #require(out.dial.last)
        out.dial = []
        out.send = []
        link = dial.link
        step(.connected(dial.link))
        #expect(sent() == ["HELLO 3"])
        step(.reply(dial.link, hello))
    }

    mutating func refuse(_ address: Address) throws {
        let dial = try #require(out.dial.last)
        try #require(dial.address == address)
        out.dial = []
        step(.closed(dial.link, reason: "connect: Connection refused"))
    }

    mutating func lose() throws {
        let id = try #require(link)
        link = nil
        step(.closed(id, reason: "closed by the server"))
    }

    // MARK: Commands

    /// Commands sent since it was last asked for, or since the last connection was accepted.
    mutating func sent() -> [String] {
        defer { out.send = [] }
        return out.send.map { $0.words.joined(separator: " ") }
    }

    mutating func reply(_ value: RESPValue) throws { step(.reply(try #require(link), value)) }
    mutating func reply(_ text: String) throws { try reply(.bulk(Array(text.utf8))) }
    mutating func lease(_ milliseconds: Int64 = 1_000) throws {
        try reply(.integer(milliseconds))
    }

    mutating func push(_ kind: String, _ fields: RESPValue...) throws {
        step(.push(try #require(link), [.bulk(Array(kind.utf8))] + fields))
    }

    mutating func cacheable(_ room: String) throws { try push("cacheable", Self.text(room)) }

    mutating func invalidate(_ rooms: [String]?) throws {
        try push("invalidate", rooms.map { .array($0.map(Self.text)) } ?? .null)
    }

    mutating func view(_ number: Int64, _ primary: Address, _ backup: Address?) throws {
        try push(
            "view", .integer(number), Self.text(primary.description),
            backup.map { Self.text($0.description) } ?? .null)
    }

    static func text(_ text: String) -> RESPValue { .bulk(Array(text.utf8)) }

    // MARK: Scenes

    /// Ann leads and is connected to.
    static func settled(
        isCaching: Bool = true, timeoutMilliseconds: UInt64 = 0,
        source: RoomSession.Source = .stream
    ) throws -> RoomStage {
        var stage = RoomStage(
            isCaching: isCaching, timeoutMilliseconds: timeoutMilliseconds, source: source)
        try stage.accept(ann)
        return stage
    }

    /// Asks for A under a new lease and gets a cacheable answer.
    mutating func cacheA(_ text: String = "old") throws {
        (out.send, shown) = ([], "")
        type("check A")
        #expect(sent() == ["CLIENT TRACKING ON LEASE", "ROOM.CHECK A"])
        try lease()
        try cacheable("A")
        try reply(text)
        #expect(said() == "(From servers): \(text)\n")
        type("check A")
        #expect(said() == "(From cache): \(text)\n")
        #expect(sent() == [])
    }
}
