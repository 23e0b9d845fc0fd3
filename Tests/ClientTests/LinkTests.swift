import Testing
import Wire

@testable import Client

/// Connections: whom the voter dials, when again, and whom it does not trust.
@Suite struct LinkTests {
    private let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])

    @Test func oneLiveServerIsEnough() throws {
        var stage = Stage(servers: [cem, bob])
        #expect(Set(stage.out.dial.map(\.address)) == [cem, bob])
        try stage.refuse(cem)
        try stage.accept(bob, view: view)
        #expect(stage.dialed() == [ann], "the backup names the primary")
    }

    /// In a group the first backup is not all of them.
    @Test func allOfAGroupAreDialed() throws {
        var stage = Stage()
        try stage.settle()
        let fields = [RESPValue.bulk(Array("view".utf8)), .integer(3)]
        let members = [ann, bob, cem].map { RESPValue.bulk(Array($0.description.utf8)) }
        try stage.push(ann, fields + members)
        #expect(stage.dialed() == [cem])
        stage.wait(10_000)
        #expect(!stage.out.close.contains(try stage.link(bob)))
    }

    @Test func seedsAreLeftAloneOnceJoined() throws {
        var stage = Stage(servers: [cem, ann, bob])
        try stage.settle()
        try stage.refuse(cem)
        stage.wait(10_000)
        #expect(stage.dialed() == [])
    }

    @Test func backsOffAndSaysSoOnce() throws {
        var stage = Stage(servers: [ann])
        var pauses: [UInt64] = []
        var last = stage.now
        while pauses.count < 10 {
            if stage.out.dial.isEmpty {
                stage.wait(1)
                continue
            }
            pauses.append(stage.now - last)
            last = stage.now
            try stage.refuse(ann)
        }
        // The first was at once; then 50 ms doubling to 1 s, give or take a quarter.
        for (index, pause) in pauses.dropFirst().enumerated() {
            let full = min(1_000, UInt64(50) << UInt64(index))
            #expect((full * 3 / 4...full * 5 / 4 + 1).contains(pause), "\(index): \(pause)")
        }
        #expect(
            stage.trouble == [
                "no server answers (127.0.0.1:7001: connect: Connection refused); trying on"
            ])
        while stage.out.dial.isEmpty { stage.wait(1) }
        try stage.accept(
            ann, view: VoterView(number: ViewNumber(1), primary: ann, backups: []), isPrimary: true)
        try stage.ok(ann)
        #expect(stage.news.last == "127.0.0.1:7001 answers; joined again")
        #expect(stage.trouble.count == 1)
    }

    @Test func steadyConnectionIsDialedAgainAtOnce() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(2_000)
        try stage.lose(bob)
        #expect(stage.dialed() == [bob])
    }

    @Test func twoSpellingsAreOneReplica() throws {
        let alias = Address(host: "localhost", port: 7001)
        var stage = Stage(servers: [alias])
        try stage.accept(alias, view: view, isPrimary: true, instance: 1)
        #expect(stage.sent(alias) == ["JOIN eve 1"])
        #expect(stage.dialed() == [bob], "its own word tells where the primary is")
        // A backup is found out by its instance.
        var other = Stage(servers: [Address(host: "localhost", port: 7002), ann])
        let named = Address(host: "localhost", port: 7002)
        try other.accept(ann, view: view, isPrimary: true)
        try other.accept(named, view: view, instance: 2)
        try other.accept(bob, view: view, instance: 2)
        #expect(other.out.close == [try other.link(bob)])
        try other.ok(ann)
        try other.vote(1)
        #expect(other.sent(named) == ["CAST 1 yes"])
        other.wait(20_000)
        #expect(other.dialed() == [], "and is not dialed again")
    }

    /// 1. Bob says that it is the primary, and names Ann's address as the primary's.
    /// 2. The view comes with the instances: that address is another replica's.
    @Test func aReplicaIsNotTakenForAnother() throws {
        var stage = Stage()
        try stage.accept(bob, view: view, isPrimary: true, instance: 2)
        try stage.refuse(ann)
        try stage.witnessView(3, primary: (ann, 1), backup: (bob, 2), from: bob)
        let view = VoterView(number: ViewNumber(3), primary: ann, backups: [bob])
        try stage.accept(ann, view: view, isPrimary: true, instance: 1)
        #expect(stage.sent(ann) == ["JOIN eve 1"])
    }

    /// What a dial has shown is no mere word, whatever a view says: it would be dialed for ever.
    @Test func aDialIsBelievedMoreThanAView() throws {
        let named = Address(host: "localhost", port: 7001)
        var stage = Stage(servers: [named, ann])
        let alone = VoterView(number: ViewNumber(2), primary: ann, backups: [])
        try stage.accept(named, view: alone, isPrimary: true, instance: 1)
        try stage.accept(ann, view: alone, isPrimary: true, instance: 1)
        try stage.witnessView(3, primary: (ann, 9), backup: nil, from: named)
        stage.wait(1_000)
        #expect(stage.dialed() == [])
    }

    @Test func anotherServiceIsReportedOnceAndNotUsed() throws {
        var stage = Stage(servers: [ann, bob, cem])
        try stage.settle()
        try stage.result(1)
        stage.write()
        let theirs = ServiceID(high: 9, low: 9)
        let newer = VoterView(number: ViewNumber(9), primary: cem, backups: [])
        try stage.accept(cem, view: newer, isPrimary: true, service: theirs)
        let message =
            "127.0.0.1:7003 serves another service (\(theirs)) than this run's (\(ours)); not used"
        #expect(stage.trouble == [message])
        #expect(stage.out.close == [try stage.link(cem)])
        #expect(stage.session.view?.primary == ann)
        try stage.lose(ann)
        try stage.lose(bob)
        for _ in 0..<200 {
            stage.wait(20)
            for address in [ann, bob]
            where stage.out.dial.contains(where: { $0.address == address }) {
                try stage.refuse(address)
            }
            guard stage.out.dial.contains(where: { $0.address == cem }) else { continue }
            try stage.accept(cem, view: newer, isPrimary: true, service: theirs)
        }
        #expect(stage.trouble.filter { $0 == message }.count == 1)
        #expect(!stage.sent(cem).contains { $0.hasPrefix("JOIN") })
    }

    @Test func emptyServiceMayBeStartedAnew() throws {
        var stage = Stage()
        try stage.settle()
        try stage.lose(ann)
        try stage.lose(bob)
        let theirs = ServiceID(high: 9, low: 9)
        let fresh = VoterView(number: ViewNumber(1), primary: ann, backups: [])
        stage.wait(100)
        try stage.accept(ann, view: fresh, isPrimary: true, service: theirs)
        #expect(stage.sent(ann) == ["JOIN eve 1"])
        #expect(stage.session.instance != Instance(0xeee), "its old promises are not kept there")
    }

    @Test func whatIsNoPollingServerIsReportedOnce() throws {
        var stage = Stage(servers: [ann])
        for _ in 0..<100 {
            stage.wait(20)
            guard let dial = stage.out.dial.last else { continue }
            stage.out.dial = []
            stage.step(.connected(dial.link))
            stage.step(.malformed(dial.link, DecodeError("no RESP type begins with byte 72")))
        }
        #expect(
            stage.trouble.first
                == "127.0.0.1:7001 is not a polling server this client understands: no RESP type "
                + "begins with byte 72")
        #expect(stage.trouble.count == 2, "once, and once that there is none: \(stage.trouble)")
    }

    /// A web server's page may come without the line end that RESP waits for.
    @Test func foreignBytesAreKnownAtTheFirst() {
        #expect(throws: DecodeError("no RESP type begins with byte 60")) {
            _ = try RESPValue.parse(Array("<!DOCTYPE HTML>\n".utf8).span, from: 0)
        }
    }

    @Test func serverWithoutServiceIsAskedAgain() throws {
        var stage = Stage()
        try stage.accept(bob, service: nil)
        #expect(stage.sent(bob) == [])
        try stage.accept(ann, view: view, isPrimary: true)
        try stage.view(2, ann, bob, from: bob)
        #expect(stage.sent(bob) == ["HELLO eve"])
        let hello = Stage.hello(view: view, isPrimary: false, instance: 7_002, service: ours)
        try stage.reply(bob, hello)
        try stage.ok(ann)
        try stage.vote(1)
        #expect(stage.sent(bob) == ["CAST 1 yes"])
    }

    /// The words of the witness that have gone out to an address, OFFERs with their instance; forgets what
    /// was sent there.
    private func witnessWords(_ stage: inout Stage, _ address: Address) throws -> [String] {
        let link = try stage.link(address)
        let words = stage.out.send.filter { $0.link == link }.compactMap { item -> String? in
            switch item.command {
            case .offer(let instance): "offer \(instance)"
            case .witness(let message):
                message.fields.first.map { String(decoding: $0, as: UTF8.self) }
            case .hello, .join, .cast, .verify, .results, .leave, .ping: nil
            }
        }
        _ = stage.sent(address)
        return words
    }

    /// Bob is a member of the view that this client knows, but of which service is not known yet.
    @Test func theWitnessTellsNothingToAServerWithoutService() throws {
        var stage = Stage()
        try stage.accept(ann, view: view, isPrimary: true)
        try stage.ok(ann)
        try stage.accept(bob, service: nil)
        // Which is refused, but has the server say when it has come into one.
        #expect(try witnessWords(&stage, bob) == ["offer eee"])
        try stage.witnessView(3, primary: (ann, 7_001), backup: (bob, 7_002), from: ann)
        stage.wait(4_000)
        #expect(try witnessWords(&stage, bob) == [])
        try stage.view(3, ann, bob, from: bob)
        let hello = Stage.hello(
            view: VoterView(number: ViewNumber(3), primary: ann, backups: [bob]), isPrimary: false,
            instance: 7_002, service: ours)
        try stage.reply(bob, hello)
        #expect(try witnessWords(&stage, bob) == ["offer eee"])
        stage.wait(4_000)
        #expect(try witnessWords(&stage, bob) == ["view"])
    }

    /// Between its HELLO and the OFFER it has come into one, and takes the offer.
    @Test func aWordToTheWitnessTellsOfAService() throws {
        var stage = Stage()
        try stage.accept(bob, service: nil)
        try stage.witnessView(2, primary: (ann, 7_001), backup: (bob, 7_002), from: bob)
        #expect(stage.sent(bob) == ["HELLO eve"])
        let hello = Stage.hello(view: view, isPrimary: false, instance: 7_002, service: ours)
        try stage.reply(bob, hello)
        #expect(try witnessWords(&stage, bob) == ["offer eee"])
    }

    /// The connection was made before the server was in any service; then it is in another than the
    /// client's, of which nothing has come: the client goes over, as another witness.
    @Test func aServiceBegunAnewIsOfferedANewWitness() throws {
        var stage = Stage()
        try stage.accept(ann, view: view, isPrimary: true)
        try stage.accept(bob, service: nil)
        try stage.lose(ann)
        let theirs = ServiceID(high: 9, low: 9)
        let fresh = VoterView(number: ViewNumber(2), primary: bob, backups: [ann])
        try stage.view(2, bob, ann, from: bob)
        #expect(stage.sent(bob) == ["HELLO eve"])
        let hello = Stage.hello(view: fresh, isPrimary: true, instance: 7_002, service: theirs)
        try stage.reply(bob, hello)
        let instance = stage.session.instance
        #expect(instance != Instance(0xeee))
        #expect(try witnessWords(&stage, bob) == ["offer \(instance)"])
        // And bob counts as connected: what is relayed to it goes there.
        stage.wait(200)
        try stage.accept(ann, view: fresh, instance: 7_001, service: theirs)
        let frame = RelayFrame(from: Instance(7_001), to: Instance(7_002), path: 3, .open)
        let fields = Message.relay(frame).fields.map { RESPValue.bulk($0) }
        try stage.push(ann, [.bulk(Array("witness".utf8))] + fields)
        #expect(try witnessWords(&stage, bob) == ["relay"])
    }

    @Test func silentServerIsPingedAndDropped() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(500)
        _ = stage.sent(ann)
        try stage.reply(ann, .array([]))
        stage.wait(10_000)
        #expect(stage.sent(ann) == ["PING"])
        try stage.reply(ann, .simple("PONG"))
        stage.wait(10_000)
        #expect(stage.sent(ann) == ["PING"])
        stage.wait(10_000)
        #expect(stage.out.close.contains(try stage.link(ann)))
    }

    @Test func nothingIsDueWhileAllIsWell() throws {
        var stage = Stage()
        try stage.settle()
        stage.wait(500)
        try stage.reply(ann, .array([]))
        let wakeAt = try #require(stage.session.wakeAt)
        #expect(wakeAt >= stage.now + 9_000, "an idle voter sleeps")
    }
}
