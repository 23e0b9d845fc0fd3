import Foundation
import Testing

/// A `reserveclient` at whose prompt the test types.
private final class Desk {
    private let cluster: Cluster
    private let name: String
    private let input = Pipe()
    private var answered = 0

    init(_ cluster: Cluster, _ name: String, _ flags: [String] = [], servers: String? = nil) throws
    {
        self.cluster = cluster
        self.name = name
        try cluster.start(
            name, "reserveclient", ["--servers", servers ?? cluster.servers] + flags,
            from: input.fileHandleForReading)
        try input.fileHandleForReading.close()
    }

    static let prompt = "Next command: "

    /// Types a line without waiting for what comes of it.
    func type(_ line: String) throws {
        try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
    }

    /// The answer to the oldest command that was not asked for yet, without its line end.
    func answer(within seconds: Double = 20) throws -> String {
        let parts = try cluster.eventually("an answer to \(name)", within: seconds) {
            let parts = cluster.said(name, "out").components(separatedBy: Self.prompt)
            // The first is before the first prompt; what stands behind the last is not whole.
            return parts.count > answered + 2 ? parts : nil
        }
        answered += 1
        return parts[answered].trimmingCharacters(in: .newlines)
    }

    func ask(_ line: String) throws -> String {
        try type(line)
        return try answer()
    }

    /// The same, again if the answer was not from the cache: its lease of a second may be over before
    /// the machine comes to ask.
    func askCache(_ line: String) throws -> String {
        var answer = ""
        for _ in 1...3 {
            answer = try ask(line)
            if answer.hasPrefix("(From cache): ") { break }
        }
        return answer
    }

    func hangUp() throws { try input.fileHandleForWriting.close() }

    var words: String { cluster.said(name, "err") }
}

private let rooms = "SA318\nME4494\nSA314\nMC5050\nME4326\nSA412"
private let slot = "8:30-9:30 Monday"
private let none = "No room reservation found"

extension ProcessSuite {
    @Suite(.serialized) struct RoomClients {
        private func withPair(_ body: (Cluster) throws -> Void) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary()
            try cluster.backup()
            try cluster.waitForPair()
            try body(cluster)
        }

        @Test func sampleDialogue() throws {
            try withPair { cluster in
                let desk = try Desk(cluster, "desk")
                #expect(try desk.ask("rooms") == "(From servers): \(rooms)")
                #expect(try desk.ask("rooms") == "(From cache): \(rooms)")
                #expect(try desk.ask("check SA318") == "(From servers): \(none)")
                #expect(try desk.askCache("check SA318") == "(From cache): \(none)")
                #expect(
                    try desk.ask("reserve SA318 \(slot)") == "(From servers): Reservation confirmed"
                )
                #expect(try desk.ask("check SA318") == "(From servers): SA318 \(slot)")
                #expect(try desk.askCache("check SA318") == "(From cache): SA318 \(slot)")
                #expect(
                    try desk.ask("reserve SA318 \(slot)")
                        == "(From servers): Reservation already exists")
                #expect(
                    try desk.ask("delete SA318 \(slot)") == "(From servers): Deletion confirmed")
                #expect(
                    try desk.ask("delete SA318 \(slot)")
                        == "(From servers): Reservation did not exist")
                #expect(
                    try desk.ask("reserve SA3 \(slot)") == "(From servers): SA3 not a valid room")
                #expect(
                    try desk.ask("reserve SA318 8:30 Monday")
                        == "(From servers): 8:30 not a valid timeslot")
                #expect(try desk.ask("check A") == "(From servers): Room A not a valid room")
                #expect(
                    try desk.ask("reserve SA318")
                        == "(From servers): Inaccurate number of parameters")
                #expect(try desk.ask("book SA318") == "book: Command unknown")
                try desk.type("quit")
                #expect(try cluster.waitForExit("desk") == 0)
                #expect(cluster.said("desk", "out").hasSuffix("Next command: bye\n"))
                #expect(desk.words == "")
            }
        }

        @Test func reservationInvalidatesTheOthersCache() throws {
            try withPair { cluster in
                let (ann, bob) = (try Desk(cluster, "ann"), try Desk(cluster, "bob"))
                var times: [Duration] = []
                for round in 1...6 {
                    let isReserving = round % 2 == 1
                    let (before, after) =
                        isReserving ? (none, "ME4494 \(slot)") : ("ME4494 \(slot)", none)
                    _ = try ann.ask("check ME4494")
                    #expect(try ann.askCache("check ME4494") == "(From cache): \(before)")
                    let begin = ContinuousClock.now
                    let answer = try bob.ask("\(isReserving ? "reserve" : "delete") ME4494 \(slot)")
                    #expect(
                        answer.hasSuffix(
                            isReserving ? "Reservation confirmed" : "Deletion confirmed"))
                    times.append(ContinuousClock.now - begin)
                    #expect(try ann.ask("check ME4494") == "(From servers): \(after)")
                }
                // Ann's client acknowledged; the end of its lease would have taken a second.
                #expect(times.contains { $0 < .milliseconds(600) }, "\(times)")
                #expect(times.allSatisfy { $0 < .seconds(15) }, "\(times)")
                let cem = try Desk(cluster, "cem", ["--no-cache"])
                for _ in 1...2 {
                    #expect(try cem.ask("check ME4494") == "(From servers): \(none)")
                }
            }
        }

        @Test func aClientThatHasLeftIsNotWaitedFor() throws {
            try withPair { cluster in
                let bob = try Desk(cluster, "bob")
                var times: [Duration] = []
                // Once is enough: the machine may take more than the rest of a lease for itself.
                for room in ["ME4494", "SA318", "SA314"] {
                    let ann = try Desk(cluster, "ann-\(room)")
                    _ = try ann.ask("check \(room)")
                    #expect(try ann.askCache("check \(room)") == "(From cache): \(none)")
                    try ann.type("quit")
                    #expect(try cluster.waitForExit("ann-\(room)") == 0)
                    let begin = ContinuousClock.now
                    let answer = try bob.ask("reserve \(room) \(slot)")
                    #expect(answer == "(From servers): Reservation confirmed")
                    times.append(ContinuousClock.now - begin)
                    if times.contains(where: { $0 < .milliseconds(600) }) { return }
                }
                Issue.record("\(times)")
            }
        }

        /// A client that is stopped cannot acknowledge: its lease is waited for, and then its cache
        /// is void.
        @Test func stoppedClientHoldsNobodyUpForLong() throws {
            try withPair { cluster in
                let (ann, bob) = (try Desk(cluster, "ann"), try Desk(cluster, "bob"))
                _ = try ann.ask("check ME4494")
                #expect(try ann.askCache("check ME4494") == "(From cache): \(none)")
                let pid = try #require(cluster.processes["ann"]?.processIdentifier)
                kill(pid, SIGSTOP)
                let begin = ContinuousClock.now
                #expect(
                    try bob.ask("reserve ME4494 \(slot)") == "(From servers): Reservation confirmed"
                )
                #expect(ContinuousClock.now - begin < .seconds(15))
                try ann.type("check ME4494")
                kill(pid, SIGCONT)
                #expect(try ann.answer() == "(From servers): ME4494 \(slot)")
            }
        }

        @Test func clientStartedBeforeTheServers() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            // It knows of the backup only.
            let desk = try Desk(cluster, "desk", servers: "127.0.0.1:\(cluster.ports[1])")
            try desk.type("reserve SA318 \(slot)")
            _ = try cluster.eventually("the client's complaint") {
                desk.words.contains("no server can answer now") ? true : nil
            }
            #expect(desk.words.contains("127.0.0.1:\(cluster.ports[1])"))
            try cluster.primary()
            try cluster.backup()
            #expect(try desk.answer() == "(From servers): Reservation confirmed")
            #expect(try desk.ask("check SA318") == "(From servers): SA318 \(slot)")
            #expect(desk.words.components(separatedBy: "no server").count == 2)
            try desk.hangUp()
            #expect(try cluster.waitForExit("desk") == 0)
            #expect(cluster.said("desk", "out").hasSuffix("Next command: bye\n"))
        }

        @Test func timeoutEndsAScript() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let flags = ["--servers", cluster.servers, "--timeout", "1s"]
            try cluster.start(
                "script", "reserveclient", flags, input: "reserve SA318 \(slot)\nrooms\n")
            #expect(try cluster.waitForExit("script") == 69)
            for port in cluster.ports {
                #expect(cluster.said("script", "err").contains("127.0.0.1:\(port)"))
            }
            #expect(cluster.said("script", "err").contains("the reservation was not carried out"))
            try cluster.start("one", "reserveclient", flags + ["rooms"])
            #expect(try cluster.waitForExit("one") == 69)
            #expect(cluster.said("one", "out") == "")
        }

        @Test func commandsOnInputAndAsArguments() throws {
            try withPair { cluster in
                let servers = ["--servers", cluster.servers]
                // CRLF, an empty line, a line that is too long, and a last one without its end.
                let long = String(repeating: "x", count: 5_000)
                try cluster.start(
                    "script", "reserveclient", servers,
                    input: "days\r\n\n\(long)\nreserve SA412 \(slot)\ncheck SA412")
                #expect(try cluster.waitForExit("script") == 0)
                let prompt = "Next command: "
                #expect(
                    cluster.said("script", "out")
                        == [
                            "", "(From servers): Monday\nTuesday\nWednesday\nThursday\nFriday\n",
                            "", "", "(From servers): Reservation confirmed\n",
                            "(From servers): SA412 \(slot)\n", "bye\n",
                        ].joined(separator: prompt))
                #expect(
                    cluster.said("script", "err")
                        == "reserveclient: a line of more than 4096 bytes is refused\n")

                func one(_ words: [String], _ code: Int32, _ text: String) throws {
                    let name = "one-\(words.joined(separator: "-"))".replacing("/", with: "")
                    try cluster.start(name, "reserveclient", servers + words)
                    #expect(try cluster.waitForExit(name) == code)
                    #expect(cluster.said(name, "out") == text)
                }
                try one(["check", "SA412"], 0, "(From servers): SA412 \(slot)\n")
                try one(
                    ["delete", "SA412", "8:30-9:30", "Monday"], 0,
                    "(From servers): Deletion confirmed\n")
                try one(["check"], 0, "(From servers): Inaccurate number of parameters\n")
                try one(["quit"], 0, "bye\n")
                try one(["chek", "SA412"], 64, "chek: Command unknown\n")
                #expect(cluster.said("one-chek-SA412", "err").contains("did you mean check?"))
            }
        }

        /// The primary is killed between two commands, and in the middle of one.
        @Test func goesOnAtTheBackup() throws {
            try withPair { cluster in
                let desk = try Desk(cluster, "desk")
                for round in 1...4 {
                    let day = ["Monday", "Tuesday", "Wednesday", "Thursday"][round - 1]
                    let leader = try cluster.waitForPair()
                    _ = try desk.ask("check SA314")
                    let before = try desk.askCache("check SA314")
                    #expect(before.hasPrefix("(From cache): "))
                    let pid = try #require(leader["primary_pid"].flatMap { Int32($0) })
                    let request = "reserve SA314 19:30-21:00 \(day)"
                    if round % 2 == 0 { try desk.type(request) }
                    kill(pid, SIGKILL)
                    if round % 2 == 1 { try desk.type(request) }
                    #expect(try desk.answer() == "(From servers): Reservation confirmed")
                    let after = try desk.ask("check SA314")
                    #expect(after.hasPrefix("(From servers): "))
                    #expect(after.components(separatedBy: "\n").count == round)
                }
            }
        }

        @Test func secondReplyIsAnError() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let server = try FakeServer { _, request in
                request.contains("ROOM.ROOMS") ? "$1\r\nA\r\n$1\r\nA\r\n" : "$1\r\nB\r\n"
            }
            defer { server.stop() }
            let desk = try Desk(cluster, "desk", servers: "127.0.0.1:\(server.port)")
            #expect(try desk.ask("rooms") == "(From servers): A")
            // On a new connection, so that no answer is taken for another's.
            #expect(try desk.ask("days") == "(From servers): B")
            let words =
                "reserveclient: 127.0.0.1:\(server.port) sent a second reply to one request; "
                + "the connection is made anew\n"
            #expect(desk.words.contains(words), "\(desk.words)")
            #expect(desk.words.components(separatedBy: "second reply").count == 2)
        }

        @Test func nonsenseIsAnErrorAndTriedAgain() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let server = try FakeServer { number, _ in
                number < 3 ? "HTTP/1.1 400 Bad Request\r\n\r\n" : "$1\r\nA\r\n"
            }
            defer { server.stop() }
            let flags = ["--servers", "127.0.0.1:\(server.port)"]
            try cluster.start("one", "reserveclient", flags + ["rooms"])
            #expect(try cluster.waitForExit("one") == 0)
            #expect(cluster.said("one", "out") == "(From servers): A\n")
            #expect(cluster.said("one", "err").contains("does not speak RESP"))
        }

        /// Twenty clients want the same fifty slots in the same order while leaders are killed.
        @Test func racingReservationsAreConfirmedOnce() throws {
            try withPair { cluster in
                let hours = [
                    "8:30-9:30", "9:30-10:30", "10:30-11:30", "11:30-12:30", "12:30-13:30",
                ]
                let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
                var wishes: [String] = []
                for room in ["SA318", "MC5050"] {
                    for day in days { wishes += hours.map { "\(room) \($0) \(day)" } }
                }
                let desks = try (1...20).map { try Desk(cluster, "client\($0)") }
                for part in 0..<5 {
                    let wanted = wishes[part * 10..<(part + 1) * 10]
                    let leader = try cluster.waitForPair()
                    let pid = try #require(leader["primary_pid"].flatMap { Int32($0) })
                    let script = wanted.map { "reserve \($0)" }.joined(separator: "\n")
                    for (index, desk) in desks.enumerated() {
                        // The first ones are at it already.
                        if index == 10 { kill(pid, SIGKILL) }
                        try desk.type(script)
                    }
                    for wish in wanted {
                        let answers = try desks.map { try $0.answer() }
                        let confirmed = answers.count { $0.hasSuffix("Reservation confirmed") }
                        let refused = answers.count { $0.hasSuffix("Reservation already exists") }
                        #expect(confirmed == 1, "\(wish)")
                        #expect(refused == desks.count - 1, "\(wish)")
                    }
                }
            }
        }

        @Test func interruptEndsIt() throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let desk = try Desk(cluster, "desk")
            // Before that it has not come to say what a signal means.
            _ = try cluster.eventually("a prompt") {
                cluster.said("desk", "out").contains(Desk.prompt) ? true : nil
            }
            cluster.processes["desk"]?.interrupt()
            #expect(try cluster.waitForExit("desk") == 0)
            #expect(desk.words == "")
        }
    }
}
