import Replication
import Testing
import Wire

private let one = Instance(1)
private let two = Instance(2)
private let ann = Instance(0xa)
private let bob = Instance(0xb)
private let cem = Instance(0xc)

/// One replica's paths and, as words, what they asked for since they were last asked.
private struct Desk {
    var paths: Paths
    var words: [String] = []

    /// Replica 1 leads; replica 2 follows and makes the connections. Default times: a heartbeat
    /// every 100 ticks, failed after 500.
    init(_ me: Instance, keeps: Bool, witnesses: [Instance]) {
        paths = Paths(me: me, timing: Timing(suspectTicks: 500, beatTicks: 100))
        let other = me == one ? two : one
        tell(.members([other], keepsLinksTo: keeps ? [other] : []))
        tell(.directUp(other))
        for witness in witnesses { tell(.witnessUp(witness)) }
        words = []
    }

    static func primary(_ witnesses: Instance...) -> Self {
        Self(one, keeps: false, witnesses: witnesses)
    }
    static func backup(_ witnesses: Instance...) -> Self {
        Self(two, keeps: true, witnesses: witnesses)
    }

    mutating func tell(_ event: Paths.Event) {
        var effects: [Paths.Effect] = []
        paths.step(event, into: &effects)
        words += effects.map(Self.text)
    }

    /// What an event brings.
    mutating func told(_ event: Paths.Event) -> [String] {
        words = []
        tell(event)
        return words
    }

    /// A frame from the other replica through a client.
    mutating func got(_ path: UInt64, _ body: RelayFrame.Body, via: Instance = ann) -> [String] {
        words = []
        take(path, body, via: via)
        return words
    }

    mutating func take(_ path: UInt64, _ body: RelayFrame.Body, via: Instance = ann) {
        let (from, to) = paths.me == one ? (two, one) : (one, two)
        tell(.frame(RelayFrame(from: from, to: to, path: path, body), via: via))
    }

    /// Ticks, without the beats that they bring.
    mutating func wait(_ ticks: Int, _ meanwhile: (inout Self) -> Void = { _ in }) -> [String] {
        words = []
        for _ in 0..<ticks {
            tell(.tick)
            meanwhile(&self)
        }
        return words.filter { !$0.contains("beat") && !$0.contains("heard") }
    }

    var route: Paths.Route? { paths.route(to: paths.me == one ? two : one) }

    static func text(_ effect: Paths.Effect) -> String {
        switch effect {
        case .step(.linkUp(let other)): return "up \(other)"
        case .step(.linkDown(let other)): return "down \(other)"
        case .step(.heard(let other)): return "heard \(other)"
        case .step(.refused(let other)): return "refused \(other)"
        case .step(.exited(let other, _)): return "exited \(other)"
        case .step(.relayed(let message, let from)):
            let fields = message.fields.map { String(decoding: $0, as: UTF8.self) }
            return "from \(from): \(fields.joined(separator: " "))"
        case .step(let event): return "\(event)"
        case .send(let frame, let via):
            let body =
                switch frame.body {
                case .open: "open"
                case .accept: "accept"
                case .data: "data"
                case .beat: "beat"
                case .close: "close"
                }
            return "via \(via): \(body) \(frame.path)"
        case .closeDirect(let other): return "close direct \(other)"
        }
    }
}

private let hello = RelayFrame.Body.data(
    Message.commit(view: ViewNumber(3), commitMax: OpNumber(7), hash: .beginning).fields)

/// Each rule of the paths as a short story. Numbers of paths: 3, 5, … are opened by replica 2.
@Suite struct PathsTests {
    // MARK: The direct connection fails

    @Test func backupOpensThroughTheFirstClient() {
        var backup = Desk.backup(ann, bob)
        #expect(backup.told(.directDown(one)) == ["down 1", "via a: open 3"])
        #expect(backup.route == nil)
        #expect(backup.got(3, .accept) == ["up 1", "heard 1"])
        #expect(backup.route == .relay(via: ann, path: 3))
        #expect(backup.got(3, hello) == ["from 1: commit 3 7 0"])
    }

    @Test func primaryWaitsForTheBackupAndAccepts() {
        var primary = Desk.primary(ann, bob)
        #expect(primary.told(.directDown(two)) == ["down 2"])
        #expect(primary.got(3, .open) == ["via a: accept 3", "up 2", "heard 2"])
        #expect(primary.route == .relay(via: ann, path: 3))
        #expect(primary.got(3, hello) == ["from 2: commit 3 7 0"])
    }

    @Test func withoutClientsThereIsNoPath() {
        var backup = Desk.backup()
        #expect(backup.told(.directDown(one)) == ["down 1"])
        #expect(backup.told(.witnessUp(bob)) == ["via b: open 3"])
    }

    @Test func clientThatDoesNotReachTheOtherSaysSo() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        #expect(backup.got(3, .close) == ["via b: open 5"])
        // All have said so: a pause, and all are asked again.
        #expect(backup.got(5, .close, via: bob) == [])
        #expect(backup.wait(9) == [])
        #expect(backup.wait(1) == ["via a: open 7"])
    }

    @Test func clientThatDoesNotAnswerIsPassedOver() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        #expect(backup.wait(10) == ["via a: close 3", "via b: open 5"])
        // The answer comes too late; the other end is told.
        #expect(backup.got(3, .accept) == ["via a: close 3"])
        #expect(backup.got(5, .accept, via: bob) == ["up 1", "heard 1"])
    }

    /// Each round in which nobody has answered in time gives them twice as long, until there is a path.
    @Test func clientsFarAwayAreGivenTime() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        var path: UInt64 = 3
        for round in 0..<7 {
            let patience = 10 << min(round, 4)
            #expect(backup.wait(patience - 1) == [], "round \(round)")
            #expect(backup.wait(1) == ["via a: close \(path)"], "round \(round)")
            path += 2
            #expect(backup.wait(10) == ["via a: open \(path)"])
        }
        #expect(backup.got(path, .accept) == ["up 1", "heard 1"])
        #expect(backup.got(path, .close) == ["down 1", "via a: open \(path + 2)"])
        #expect(backup.wait(10) == ["via a: close \(path + 2)"])
    }

    @Test func otherEndMayKnowFirst() {
        var primary = Desk.primary(ann)
        // Some time after the connection came up, so it is not the backup's being late.
        _ = primary.wait(10)
        #expect(
            primary.got(3, .open) == [
                "close direct 2", "down 2", "via a: accept 3", "up 2", "heard 2",
            ])
        #expect(primary.told(.directDown(two)) == [])
        #expect(primary.route == .relay(via: ann, path: 3))
    }

    // MARK: It comes back

    @Test func directConnectionTakesOver() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.told(.directUp(one)) == ["via a: close 3", "down 1", "up 1"])
        #expect(backup.route == .direct)
        // What the other end sent before it knew: the log's order is not to be mixed.
        #expect(backup.got(3, hello) == ["via a: close 3"])
        #expect(backup.got(3, .close) == [])
        #expect(backup.route == .direct)
    }

    @Test func directConnectionEndsAnOpening() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        #expect(backup.told(.directUp(one)) == ["via a: close 3", "up 1"])
        #expect(backup.got(3, .accept) == ["via a: close 3"])
        #expect(backup.route == .direct)
    }

    /// The primary closes the relay when it has the backup's hello; the backup, that has not seen
    /// the primary's yet, asks for another path.
    @Test func openThatCrossesTheHelloIsTurnedAway() {
        var primary = Desk.primary(ann, bob)
        primary.tell(.directDown(two))
        _ = primary.got(3, .open)
        #expect(primary.told(.directUp(two)) == ["via a: close 3", "down 2", "up 2"])
        #expect(primary.got(5, .open, via: bob) == ["via b: close 5"])
        #expect(primary.route == .direct)
        // But one whose connection was lost again is heard.
        _ = primary.wait(10)
        #expect(primary.got(7, .open).contains("via a: accept 7"))
    }

    @Test func newerDirectConnectionTakesTheOldersPlace() {
        var primary = Desk.primary(ann)
        #expect(primary.told(.directUp(two)) == ["down 2", "up 2"])
    }

    // MARK: Paths die

    @Test func closeBySomeoneElseOpensTheNext() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.got(3, .close) == ["down 1", "via b: open 5"])
        // The client's own word, when it loses the other replica, ends all paths through it.
        _ = backup.got(5, .accept, via: bob)
        #expect(backup.got(0, .close, via: bob) == ["down 1", "via a: open 7"])
        #expect(backup.got(0, .close) == ["via b: open 9"])
    }

    @Test func clientGoes() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.told(.witnessDown(ann)) == ["down 1", "via b: open 5"])
        #expect(backup.told(.witnessDown(bob)) == [])
        #expect(backup.told(.witnessUp(cem)) == [])
        #expect(backup.wait(10) == ["via c: open 7"])
        #expect(backup.got(7, .accept, via: cem) == ["up 1", "heard 1"])
    }

    @Test func clientsNewerConnectionDropsWhatWasOnTheOlder() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.told(.witnessUp(ann)) == ["down 1", "via a: open 5"])
        #expect(backup.got(3, hello) == ["via a: close 3"])
        #expect(backup.got(5, .accept) == ["up 1", "heard 1"])
    }

    @Test func laterOpenReplacesAPathAndAnEarlierOneComesTooLate() {
        var primary = Desk.primary(ann, bob)
        primary.tell(.directDown(two))
        _ = primary.got(3, .open)
        #expect(
            primary.got(7, .open, via: bob) == ["down 2", "via b: accept 7", "up 2", "heard 2"])
        #expect(primary.got(5, .open) == [])
        #expect(primary.got(3, hello) == ["via a: close 3"])
        #expect(primary.got(3, .close) == [])
        #expect(primary.route == .relay(via: bob, path: 7))
    }

    /// A client that is stopped: its connections stand, but nothing comes.
    @Test func silentRelayIsGivenUp() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        // Beats through others tell that the replica is alive, not that this path is.
        let quiet = backup.wait(50) { $0.take(0, .beat, via: bob) }
        #expect(quiet == [])
        #expect(backup.wait(1) == ["via a: close 3", "down 1", "via b: open 5"])
    }

    @Test func beatsKeepARelay() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        var beats = 0
        for _ in 0..<200 {
            beats += backup.told(.tick).count { $0 == "via a: beat 3" }
            if beats.isMultiple(of: 4) { #expect(backup.got(3, .beat) == ["heard 1"]) }
        }
        #expect(beats == 20)
        #expect(backup.route == .relay(via: ann, path: 3))
    }

    @Test func beatOnAPathThatHasEndedIsAnswered() {
        var primary = Desk.primary(ann)
        #expect(primary.got(3, .beat) == ["via a: close 3", "heard 2"])
        #expect(primary.got(0, .beat) == ["heard 2"])
    }

    @Test func silentDirectConnectionIsGivenUpWhileClientsBringBeats() {
        var backup = Desk.backup(ann)
        #expect(backup.wait(250) { $0.take(0, .beat) } == [])
        let lost = backup.wait(1) { $0.take(0, .beat) }
        #expect(lost == ["close direct 1", "down 1", "via a: open 3"])
    }

    @Test func silentReplicaIsLeftToTheHeartbeats() {
        var backup = Desk.backup(ann)
        #expect(backup.wait(1_000) == [])
        #expect(backup.route == .direct)
    }

    @Test func heartbeatsKeepTheDirectConnection() {
        var backup = Desk.backup(ann)
        let quiet = backup.wait(1_000) { backup in
            backup.take(0, .beat)
            backup.tell(.heardDirectly(one))
        }
        #expect(quiet == [])
    }

    @Test func nonsenseEndsThePath() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(
            backup.got(3, .data([Array("x".utf8)])) == [
                "via a: close 3", "down 1", "via a: open 5",
            ]
        )
    }

    // MARK: Both open

    @Test func whenBothOpenTheLowersPathIsTaken() {
        var (lower, higher) = (Desk.primary(ann), Desk.backup(ann))
        lower.tell(.directDown(two))
        #expect(lower.told(.refused(two)) == ["via a: open 2"])
        #expect(higher.told(.directDown(one)) == ["down 1", "via a: open 3"])
        #expect(lower.got(3, .open) == ["via a: close 3"])
        #expect(
            higher.got(2, .open) == ["via a: close 3", "via a: accept 2", "up 1", "heard 1"])
        #expect(higher.got(3, .close) == [])
        #expect(lower.got(3, .close) == [])
        #expect(lower.got(2, .accept) == ["up 2", "heard 2"])
        #expect(higher.route == lower.route)
    }

    // MARK: Refused and exited

    @Test func refusalIsToldAtOnceWithoutClients() {
        var primary = Desk.primary()
        primary.tell(.directDown(two))
        #expect(primary.told(.refused(two)) == ["refused 2"])
    }

    @Test func refusalIsToldWhenNoClientReachesTheOther() {
        var primary = Desk.primary(ann, bob)
        primary.tell(.directDown(two))
        #expect(primary.told(.refused(two)) == ["via a: open 2"])
        #expect(primary.got(2, .close) == ["via b: open 4"])
        #expect(primary.got(4, .close, via: bob) == ["refused 2"])
    }

    @Test func refusalIsNotToldWhileAClientProvesTheOtherAlive() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        #expect(backup.told(.refused(one)) == [])
        #expect(backup.got(3, .close) == ["via b: open 5"])
        #expect(backup.got(5, .accept, via: bob) == ["up 1", "heard 1"])
        #expect(backup.wait(40) == [])
        // Refused anew, by what keeps the direct connection down; then the relay fails, too.
        #expect(backup.told(.refused(one)) == [])
        #expect(backup.got(0, .close, via: bob) == ["down 1", "via a: open 7"])
        #expect(backup.got(0, .close) == ["via b: open 9"])
        #expect(backup.got(0, .close, via: bob) == ["refused 1"])
    }

    @Test func threeClientsAreWitnessesEnoughOfARefusal() {
        var backup = Desk.backup(ann, bob, cem, Instance(0xd), Instance(0xe))
        backup.tell(.directDown(one))
        backup.tell(.refused(one))
        #expect(backup.got(3, .close) == ["via b: open 5"])
        #expect(backup.got(5, .close, via: bob) == ["via c: open 7"])
        #expect(backup.got(7, .close, via: cem) == ["via d: open 9", "refused 1"])
    }

    @Test func exitEndsEverything() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.told(.exited(one, nil)) == ["down 1", "exited 1"])
        #expect(backup.got(3, hello) == ["via a: close 3"])
        #expect(backup.wait(200) == [])
    }

    /// A dead process named in a later view: what a client still brings of it is no new life.
    @Test func theDeadDoNotComeBackThroughAClient() {
        var primary = Desk.primary(ann)
        #expect(primary.told(.exited(two, nil)) == ["down 2", "exited 2"])
        #expect(primary.told(.members([two], keepsLinksTo: [])) == [])
        #expect(primary.got(3, .open) == ["via a: close 3"])
        #expect(primary.told(.refused(two)) == ["refused 2"])
        // A newer process of the same instance.
        #expect(primary.told(.directUp(two)) == ["up 2"])
        #expect(primary.told(.directDown(two)) == ["down 2"])
        #expect(primary.got(5, .open) == ["via a: accept 5", "up 2", "heard 2"])
    }

    // MARK: Members

    @Test func onlyMembersAreRelayedTo() {
        var backup = Desk.backup(ann)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        #expect(backup.told(.members([], keepsLinksTo: [])) == ["via a: close 3", "down 1"])
        #expect(backup.got(5, .open) == ["via a: close 5"])
        #expect(backup.wait(200) == [])
        // Joining goes over direct connections.
        #expect(backup.told(.directUp(one)) == ["up 1"])
        #expect(backup.told(.directDown(one)) == ["down 1"])
    }

    @Test func partsMayChangeOverARelay() {
        var backup = Desk.backup(ann, bob)
        backup.tell(.directDown(one))
        _ = backup.got(3, .accept)
        // It leads now: the other makes the connections, and opens the paths.
        #expect(backup.told(.members([one], keepsLinksTo: [])) == [])
        #expect(backup.route == .relay(via: ann, path: 3))
        #expect(backup.got(0, .close) == ["down 1"])
        #expect(backup.got(2, .open, via: bob) == ["via b: accept 2", "up 1", "heard 1"])
    }

    @Test func framesForOthersAreNotTaken() {
        var backup = Desk.backup(ann)
        let wrong = RelayFrame(from: one, to: Instance(9), path: 3, .beat)
        #expect(backup.told(.frame(wrong, via: ann)) == [])
        let own = RelayFrame(from: two, to: two, path: 3, .beat)
        #expect(backup.told(.frame(own, via: ann)) == [])
        // A client that is not connected here, by now.
        #expect(backup.got(0, .beat, via: cem) == [])
    }
}
