import Journal
import Testing
import Wire

@Suite struct ReplayTests {
    static func view(_ number: UInt64) -> View {
        var generator = Generator(state: number)
        return Sample.view(number, &generator)
    }

    static func attempt(_ counter: UInt64) -> Attempt {
        Attempt(counter: counter, proposer: Instance(1))
    }

    /// Behind view 3, entries 1 to 4, promises and all: what may not follow.
    static let before: [Record] = [
        .view(view(3)), .entry(entry(1, view: 1)), .entry(entry(2, count: 2, view: 3)),
        .entry(entry(4, view: 3)), .promised(number: ViewNumber(4), attempt(5)),
        .accepted(Accepted(attempt: attempt(6), view: view(4))), .proposed(number: ViewNumber(5)),
    ]

    static func entry(_ first: UInt64, count: Int = 1, view: UInt64) -> Entry {
        var batch = Batch()
        for _ in 0..<count { batch.append(Request(command: [1])) }
        return Entry(
            view: ViewNumber(view), first: OpNumber(first), time: 1, batch: batch,
            after: .beginning)
    }

    @Test(arguments: [
        Record.entry(entry(4, view: 3)), .entry(entry(6, view: 3)), .entry(entry(5, view: 2)),
        .truncated(after: OpNumber(5)), .truncated(after: OpNumber(2)),
        .view(view(2)),
        .view(
            View(
                number: ViewNumber(3), primary: view(3).primary, backups: [], electorate: [],
                base: .beginning)),
        .promised(number: ViewNumber(3), attempt(9)), .promised(number: ViewNumber(4), attempt(5)),
        .accepted(Accepted(attempt: attempt(5), view: view(4))),
        .accepted(Accepted(attempt: attempt(9), view: view(3))),
        .proposed(number: ViewNumber(3)), .proposed(number: ViewNumber(4)),
    ]) func contradictionsAreRefused(record: Record) throws {
        var replay = Replay(base: .beginning, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        let standing = replay.standing
        #expect(throws: DecodeError.self) { try replay.take(record) }
        #expect(replay.standing == standing)
    }

    /// Of a state at op 0 only its record tells.
    @Test func aStateIsNotLostWithItsRecord() throws {
        var replay = Replay(base: .beginning, firstOp: OpNumber(1))
        try replay.take(.view(Self.view(3)))
        #expect(try !replay.recovered().hasState)
        var other = replay
        try replay.take(.restored(.beginning, hash: .beginning))
        #expect(try replay.recovered().hasState)
        try other.take(.entry(Self.entry(1, view: 3)))
        #expect(try other.recovered().hasState)
    }

    /// Entries of views before the newest are its primary's as well if that has led all the time.
    @Test func theReignIsNotLostWithTheOrder() throws {
        func reign(_ views: [View]) throws -> ViewNumber {
            var replay = Replay(base: .beginning, firstOp: OpNumber(1))
            try replay.take(.view(views[0]))
            try replay.take(.entry(Self.entry(1, view: views[0].number.rawValue)))
            // The last one twice, as at a segment's beginning.
            for view in views.dropFirst() + views.suffix(1) { try replay.take(.view(view)) }
            return try replay.recovered().reign
        }
        var same = Self.view(4)
        same.primary = Self.view(3).primary
        var later = same
        later.number = ViewNumber(5)
        #expect(try reign([Self.view(3), same, later]) == ViewNumber(3))
        #expect(try reign([Self.view(3), later]) == ViewNumber(5))
        #expect(try reign([Self.view(3), Self.view(4)]) == ViewNumber(4))
    }

    /// A state that no checkpoint has, unless the log goes back to one that there is.
    @Test func stateThatIsMissing() throws {
        var replay = Replay(base: .beginning, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        try replay.take(.restored(LogEnd(view: ViewNumber(1), op: OpNumber(9)), hash: .beginning))
        #expect(replay.stateMissing == OpNumber(9))
        #expect(throws: DecodeError.self) { try replay.recovered() }
        try replay.take(.restored(.beginning, hash: .beginning))
        try replay.take(.entry(Self.entry(1, view: 4)))
        #expect(replay.stateMissing == nil)
        #expect(try replay.recovered().last == OpNumber(1))
    }

    @Test func twoViewsInOneAttemptAreRefused() throws {
        var replay = Replay(base: .beginning, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        var other = Self.view(4)
        other.primary.pid += 1
        #expect(throws: DecodeError.self) {
            try replay.take(.accepted(Accepted(attempt: Self.attempt(6), view: other)))
        }
    }

    @Test func recordsGiveTheReplica() throws {
        var replay = Replay(base: .beginning, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        try replay.take(.truncated(after: OpNumber(3)))
        try replay.take(.entry(Self.entry(4, view: 4)))
        let recovered = try replay.recovered()
        #expect(recovered.entries.map(\.first.rawValue) == [1, 2, 4])
        #expect(recovered.entries.last?.view == ViewNumber(4))
        #expect(recovered.view == Self.view(3))
        #expect(
            recovered.promised
                == Standing.Promise(number: ViewNumber(4), attempt: Self.attempt(6)))
        #expect(recovered.accepted?.view == Self.view(4))
        #expect(recovered.proposed == ViewNumber(5))
        try replay.take(.view(Self.view(4)))
        let later = try replay.recovered()
        #expect(later.promised == nil && later.accepted == nil)
        #expect(later.proposed == ViewNumber(5))
    }

    /// A segment begins with what the records before it came to, which then changes nothing.
    @Test func standingSaidAgainChangesNothing() throws {
        var standing = Standing(op: OpNumber(0))
        for record in Self.before { try standing.apply(record) }
        try standing.apply(.promised(number: ViewNumber(4), Self.attempt(8)))
        let before = standing
        for record in standing.records { try standing.apply(record) }
        #expect(standing == before)
        var fresh = Standing(op: standing.op)
        fresh.lastEntryView = standing.lastEntryView
        fresh.committed = standing.committed
        for record in standing.records { try fresh.apply(record) }
        #expect(fresh == standing)
    }

    @Test func aBaseTakesTheEntriesBehindItAlone() throws {
        let base = Replay.Base(
            op: OpNumber(3), view: ViewNumber(3), hash: .beginning, isReceived: false)
        var replay = Replay(base: base, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        #expect(try replay.recovered().entries.map(\.first.rawValue) == [4])
        // In the middle of an entry.
        var middle = Replay(
            base: Replay.Base(
                op: OpNumber(2), view: ViewNumber(3), hash: .beginning, isReceived: false),
            firstOp: OpNumber(1))
        for record in Self.before { try middle.take(record) }
        #expect(throws: DecodeError.self) { try middle.recovered() }
        // Behind the journal's end.
        var behind = Replay(
            base: Replay.Base(
                op: OpNumber(9), view: ViewNumber(3), hash: .beginning, isReceived: false),
            firstOp: OpNumber(1))
        for record in Self.before { try behind.take(record) }
        #expect(throws: DecodeError.self) { try behind.recovered() }
    }

    /// Behind a state of an older op the log comes to the base again, or goes another way.
    @Test func aBaseCountsWhereTheLogComesToIt() throws {
        let own = (1...4 as ClosedRange<UInt64>).map { Self.entry($0, view: 1) }
        let base = Replay.Base(
            op: OpNumber(4), view: ViewNumber(1), hash: own[3].hash, isReceived: false)
        var replay = Replay(base: base, firstOp: OpNumber(1))
        for entry in own { try replay.take(.entry(entry)) }
        #expect(!replay.isBaseUnused)
        try replay.take(.restored(LogEnd(view: ViewNumber(1), op: OpNumber(2)), hash: .beginning))
        #expect(replay.isBaseUnused)
        var other = replay
        for entry in own[2...] { try replay.take(.entry(entry)) }
        #expect(!replay.isBaseUnused)
        #expect(try replay.recovered().last == OpNumber(4))
        for op in 3...6 as ClosedRange<UInt64> {
            try other.take(.entry(Self.entry(op, view: 2)))
            #expect(other.isBaseUnused)
        }
        // In the middle of an entry.
        var over = other
        try over.take(.restored(LogEnd(view: ViewNumber(1), op: OpNumber(2)), hash: .beginning))
        try over.take(.entry(Self.entry(3, count: 3, view: 2)))
        #expect(over.isBaseUnused)
        // To the very op, with another log's hash, and then its own.
        try other.take(.restored(LogEnd(view: ViewNumber(2), op: OpNumber(4)), hash: LogHash(1)))
        #expect(other.isBaseUnused)
        try other.take(.restored(LogEnd(view: ViewNumber(1), op: OpNumber(4)), hash: base.hash))
        #expect(!other.isBaseUnused)
        // Cut off below it once more.
        var cut = replay
        try cut.take(.truncated(after: OpNumber(3)))
        #expect(cut.isBaseUnused)
    }

    /// A log is set back only from where it has been. What is before a base in its segment need not be
    /// less: that may begin behind it, if the segments that were kept are of a longer log.
    @Test func aBaseThatWasNotMetIsNotLeftBehind() throws {
        let restored = Record.restored(
            LogEnd(view: ViewNumber(1), op: OpNumber(4)), hash: .beginning)
        let own = [Self.entry(5, view: 2), Self.entry(6, view: 2)]
        let base = Replay.Base(
            op: OpNumber(6), view: ViewNumber(2), hash: own[1].hash, isReceived: false)
        for firstOp in [1, 9] as [UInt64] {
            var replay = Replay(base: base, firstOp: OpNumber(firstOp))
            try replay.take(restored)
            try replay.take(.entry(own[0]))
            #expect(!replay.isBaseUnused)
            #expect(throws: DecodeError.self) { try replay.recovered() }
            try replay.take(.entry(own[1]))
            #expect(try replay.recovered().last == OpNumber(6))
            try replay.take(restored)
            #expect(replay.isBaseUnused)
        }
        var behind = Replay(base: base, firstOp: OpNumber(7))
        try behind.take(restored)
        #expect(behind.isBaseUnused)
    }

    @Test func aReceivedStateCountsFromItsRecordOn() throws {
        let base = Replay.Base(
            op: OpNumber(9), view: ViewNumber(3), hash: .beginning, isReceived: true)
        var replay = Replay(base: base, firstOp: OpNumber(1))
        for record in Self.before { try replay.take(record) }
        #expect(replay.isBaseUnused)
        #expect(throws: DecodeError.self) { try replay.recovered() }
        // Not even where the log that it is to replace reaches as far.
        var longer = Replay(
            base: Replay.Base(
                op: OpNumber(3), view: ViewNumber(3), hash: .beginning, isReceived: true),
            firstOp: OpNumber(1))
        for record in Self.before { try longer.take(record) }
        #expect(throws: DecodeError.self) { try longer.recovered() }
        try replay.take(.restored(LogEnd(view: ViewNumber(1), op: OpNumber(9)), hash: .beginning))
        try replay.take(.entry(Self.entry(10, view: 3)))
        #expect(try replay.recovered().entries.map(\.first.rawValue) == [10])
        #expect(!replay.isBaseUnused)
    }
}
