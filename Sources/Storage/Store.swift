package import Journal
package import Linux
package import Wire

/// Why a store cannot be used.
package enum StoreError: Error, Equatable, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// It was found as it may not be used; `reason` says what to do.
    case refused(path: String, reason: String)

    package var description: String {
        switch self {
        case .system(let error): error.description
        case .refused(let path, let reason): "\(path): \(reason)"
        }
    }
}

/// A replica's journal and checkpoints in one folder, which no other process uses meanwhile:
///
///     lock            held as long as the store is open
///     identity        whose it is
///     segment-N       records; only the last one grows
///     checkpoint-OP   the services' state after this op; the last two are kept
///     aside-N/        what could not be used, left for people to look at
///
/// Opened, it is either blank (`identity` nil: `create`) or has been looked through (`resume`);
/// then records are appended and made durable by `sync`, once for each turn of the caller's loop.
///
/// After a write or sync has failed nothing more is done: what the kernel could not write it may
/// have dropped, so a later sync that succeeds would prove nothing. Every further call that would write
/// or sync throws the same error. What is on the disk is what the next start finds.
package struct Store: ~Copyable {
    package enum Durability: String, Sendable {
        /// `sync` returns when everything appended is on the disk.
        case always
        /// `sync` hands it to the kernel. The journal is made durable before a checkpoint counts
        /// and before a new segment is begun, so that every end of it is a torn tail.
        case never
    }

    package struct Options: Sendable {
        /// A segment that has reached this is the last one no more. It is reserved at once.
        package var segmentBytes = 64 << 20
        package var durability = Durability.always
        /// Where checkpoints are written: runs the work beside the caller's loop.
        package var runBeside:
            @Sendable (@escaping @Sendable () -> Void) throws(SystemError) -> Void =
                {
                    (work: @escaping @Sendable () -> Void) throws(SystemError) in
                    try Threads.detach(work)
                }
        /// Where a segment that follows another is made: runs the work beside the caller's loop, and
        /// not behind a checkpoint. nil: it is made at once, in `append`.
        package var beginBeside: (@Sendable (@escaping @Sendable () -> Void) -> Void)?
        /// Called there when `mustWait` has ended.
        package var onBegun: @Sendable () -> Void = {}
        package var random: @Sendable () -> UInt64 = { Entropy.next() }

        package init() {}
    }

    package struct Counts: Hashable, Sendable {
        package var records = 0
        /// Of the journal: fdatasync calls by `sync`.
        package var syncs = 0
        package var writes = 0
        package var bytes = 0
        package var segmentsBegun = 0
        package var checkpoints = 0
    }

    /// What an operator has said of a replica's id; nil: what it is already.
    package struct WantedID: Equatable, Sendable {
        package var priority: UInt64?
        package var id: UInt64?

        package init(priority: UInt64? = nil, id: UInt64? = nil) {
            self.priority = priority
            self.id = id
        }

        func isMet(by given: ReplicaID) -> Bool {
            (id ?? given.id) == given.id && (priority ?? given.priority) == given.priority
        }

        /// As it would be called instead of `given`.
        func description(insteadOf given: ReplicaID) -> String {
            ReplicaID(priority: priority ?? given.priority, id: id ?? given.id).description
        }
    }

    /// What `resume` came to.
    package struct Resumption: Sendable {
        package let verdict: Verdict
        /// What the replica was; with `.ask` and a new instance, what is left of that.
        package let recovered: Recovered?
    }

    /// A segment as far as checkpoints have to know it.
    struct Begun: Sendable {
        let number: UInt64
        let firstOp: OpNumber
        let checksum: UInt64
    }

    /// More than one comes only of a disk that rots again and again.
    package static let formerMax = 16
    static let besideSuffix = ".new"

    package let folder: String
    package let options: Options
    /// nil: the folder is blank.
    package internal(set) var identity: Identity?
    /// The instances that the folder's replica was before its records could not be read, as far as
    /// they have been put aside. No process of them can be running: it would need this folder.
    package private(set) var former: [Instance] = []
    /// The newest folder in which something was put aside; nil: there is none.
    package private(set) var aside: String?
    /// What opening found; nil when the folder is blank, and once `resume` has given it away.
    package private(set) var survey: Survey?
    package internal(set) var counts = Counts()
    /// Set by the first write or sync that failed.
    package internal(set) var failure: SystemError?
    let disk: any Disk
    private let lock: OpenFile
    /// The last segment, and what goes into it. Both nil until the store may be appended to.
    var file: OpenFile?
    var writer: SegmentWriter?
    var standing = Standing(op: OpNumber(0))
    /// The log's end at the last `sync`.
    var syncedOp = OpNumber(0)
    /// Ascending; the last one is `file`.
    var begun: [Begun] = []
    /// Intact ones that were put to use, newest first.
    var checkpoints: [CheckpointHeader] = []
    var job: CheckpointJob?
    /// The segment that is being made, if one is: what is appended meanwhile waits for it.
    var birth: SegmentBirth?

    /// Opens the folder, which is made where it is missing, and looks through what is in it.
    /// `service`, `id`: what it must be of, as far as they are given.
    ///
    /// Throws: the folder or a file cannot be read or made; another process uses it; it is of
    /// another service, replica or format.
    package init(
        folder: String, service: ServiceID?, id: WantedID = WantedID(),
        disk: any Disk = LinuxDisk(), options: Options = Options()
    ) throws(StoreError) {
        self.folder = folder
        self.disk = disk
        self.options = options
        let opened: OpenFolder
        do throws(SystemError) {
            opened = try OpenFolder(folder, disk)
        } catch {
            throw .system(error)
        }
        guard let lock = opened.lock else {
            throw .refused(path: folder, reason: "in use by another process, which holds its lock")
        }
        do throws(StoreError) {
            (identity, survey) = try Self.look(folder, disk, opened.names, service, id)
            if identity == nil { try Self.settle(folder, disk, opened.names) }
            former = Self.former(folder, disk, opened.names)
            aside = Self.aside(folder, opened.names)
        } catch {
            disk.close(lock)
            throw error
        }
        self.lock = lock
    }

    deinit {
        waitForCheckpoint()
        if let birth { disk.closeNew(birth.wait()) }
        if let file { disk.close(file) }
        disk.close(lock)
    }

    // MARK: Beginning

    /// Makes the journal of a replica in a blank folder. `records`: what it is bound to from the
    /// beginning; there is no journal of this identity without them.
    ///
    /// Precondition: none of them is an entry.
    package mutating func create(_ identity: Identity, _ records: [Record] = []) throws(SystemError)
    {
        precondition(self.identity == nil, "\(folder) has an identity")
        for record in records {
            do {
                try standing.apply(record)
            } catch {
                preconditionFailure("a journal would begin with a contradiction: \(error.text)")
            }
        }
        precondition(standing.op == OpNumber(0), "a journal would begin with entries")
        try guarded { store throws(SystemError) in
            // The identity last: without it the folder is blank.
            try store.begin(identity, number: 1, firstOp: OpNumber(1), previous: 0, after: nil)
            let text = Array(identity.text.utf8)
            try store.disk.publish(store.folder, "identity", text)
            store.identity = identity
        }
    }

    /// Goes on where the journal ends, as the verdict over what was found has it: a torn tail is
    /// cut, what may be in the kernel's memory alone is made durable. Throws when the verdict is to
    /// refuse. After a verdict to go on as a new instance, `renew` has to follow.
    package mutating func resume(isPeerReachable: Bool) throws(StoreError) -> Resumption {
        guard let survey else { preconditionFailure("\(folder) is blank") }
        precondition(writer == nil, "resumed twice")
        let verdict = survey.verdict(isPeerReachable: isPeerReachable)
        switch verdict {
        case .refuse(let place, let advice):
            throw .refused(
                path: "\(folder)/\(place.file)",
                reason: "offset \(place.offset), op \(place.op): \(place.flaw.reason); \(advice)")
        case .ask(_, keepsInstance: false): break
        case .useAll, .cut, .ask(_, keepsInstance: true):
            do throws(SystemError) {
                try guarded { store throws(SystemError) in try store.goOn(survey) }
            } catch {
                throw .system(error)
            }
        }
        self.survey = nil
        return Resumption(verdict: verdict, recovered: survey.recovered)
    }

    /// Begins anew as another instance, with nothing: what is in the folder goes into a folder
    /// `aside-N` in it, whose path is given.
    package mutating func renew(_ identity: Identity) throws(SystemError) -> String {
        precondition(writer == nil && self.identity != nil, "only instead of going on")
        precondition(identity.instance != self.identity?.instance, "the same instance again")
        var path = ""
        try guarded { store throws(SystemError) in
            try store.removeUnfinished()
            // A disk that has no room for the new journal keeps the old one where it is: once that is
            // aside and nothing in its place, the folder is blank.
            try store.disk.checkRoom(store.folder, bytes: store.options.segmentBytes)
            let names = try store.disk.list(store.folder)
            var number = 1
            while names.contains("aside-\(number)") { number += 1 }
            path = "\(store.folder)/aside-\(number)"
            try store.disk.makeFolder(path)
            // One by one: if only the end of the journal were gone with the power, the rest would
            // pass for a whole one. So its beginning goes first, which is missed; the identity last,
            // as it makes the others count.
            for name in Self.inOrderOfRenewal(names) {
                try store.disk.rename("\(store.folder)/\(name)", to: "\(path)/\(name)")
                try store.disk.syncFolder(path)
                try store.disk.syncFolder(store.folder)
            }
            try store.disk.rename("\(store.folder)/identity", to: "\(path)/identity")
            try store.disk.syncFolder(path)
            try store.disk.syncFolder(store.folder)
        }
        if let old = self.identity {
            former = former.suffix(Self.formerMax - 1) + [old.instance]
        }
        aside = path
        self.identity = nil
        try create(identity)
        return path
    }

    /// What is put aside of these: segments by their numbers, then the rest of what is the journal's.
    /// Anything else stays: `lost+found` and what is mounted here could not be moved, ever.
    private static func inOrderOfRenewal(_ names: [String]) -> [String] {
        let numbers = names.compactMap { Survey.number($0, "segment-") }.sorted()
        let segments = numbers.map { SegmentHeader.name($0) }
        return segments + names.filter { isJournal($0) && !segments.contains($0) }
    }

    /// Whether a file of this name in the folder is a segment or a checkpoint, or was to be one.
    static func isJournal(_ name: String) -> Bool {
        name.hasPrefix("segment-") || name.hasPrefix("checkpoint-")
    }

    // MARK: Appending

    /// Takes records for the next `sync`. Begins a new segment first where the last one is full,
    /// which takes two syncs of its own, beside the caller if `beginBeside` says so.
    ///
    /// Precondition: no record contradicts those before it; a state that `restored` speaks of has
    /// been given to `receive`.
    package mutating func append(_ records: [Record]) throws(SystemError) {
        if let failure { throw failure }
        guard let last = begun.last, let identity, var writer else {
            preconditionFailure("append before create or resume")
        }
        if writer.pending.isEmpty, writer.offset >= options.segmentBytes, !records.isEmpty,
            birth == nil
        {
            try guarded { store throws(SystemError) in
                try store.follow(
                    identity, number: last.number + 1, firstOp: store.standing.op.next,
                    previous: writer.chain)
            }
            guard let new = self.writer else { preconditionFailure("no segment was begun") }
            writer = new
        }
        // Moved out and back: with two owners the buffer would be copied.
        self.writer = nil
        for record in records {
            if case .restored(let end, let hash) = record {
                // Later ones may be another log's. The next checkpoint that is made removes them.
                checkpoints.removeAll { $0.op > end.op }
                let isThere = checkpoints.first.map { $0.op == end.op && $0.hash == hash }
                precondition(isThere == true, "restored \(end.op) without a checkpoint")
            }
            do {
                try standing.apply(record)
            } catch {
                preconditionFailure("the journal is given a contradiction: \(error.text)")
            }
            writer.append(record)
        }
        counts.records += records.count
        self.writer = writer
    }

    /// Writes what was appended and, unless `--sync never`, makes it durable: one write and one
    /// fdatasync. Does nothing when nothing was appended. Waits while `mustWait`.
    package mutating func sync() throws(SystemError) {
        if let failure { throw failure }
        try takeBirth()
        guard let file, let isPending = writer.map({ !$0.pending.isEmpty }), isPending else {
            return
        }
        try guarded { store throws(SystemError) in
            try store.write(file)
            guard store.options.durability == .always else { return }
            try store.disk.sync(file)
            store.writer?.onSynced()
            store.counts.syncs += 1
        }
        syncedOp = standing.op
    }

    /// Writes down, and makes durable, that everything so far is durable. Without it rot in the last
    /// write could not be told from a write that never ended: so this is for when no other comes
    /// soon, which would say the same. One write, one fdatasync, or nothing if that has been said.
    package mutating func mark() throws(SystemError) {
        guard canMark else { return }
        writer?.appendMark()
        try sync()
    }

    /// Whether `mark` would do anything.
    package var canMark: Bool {
        guard failure == nil, birth == nil, options.durability == .always, let writer else {
            return false
        }
        return writer.pending.isEmpty && writer.durable == writer.offset && !writer.isMarked
    }

    package var isWritingCheckpoint: Bool { job != nil }

    /// Of the newest checkpoint; 0 when there is none.
    package var checkpointOp: OpNumber { checkpoints.first?.op ?? OpNumber(0) }

    /// Whether something was appended that `sync` has not seen.
    package var isPending: Bool { writer.map { !$0.pending.isEmpty } ?? false }

    /// Runs `body` once: a failure of it is the last thing that the store does.
    mutating func guarded(_ body: (inout Store) throws(SystemError) -> Void) throws(SystemError) {
        if let failure { throw failure }
        do throws(SystemError) {
            try body(&self)
        } catch {
            failure = error
            throw error
        }
    }

    private mutating func write(_ file: OpenFile) throws(SystemError) {
        guard let writer else { return }
        counts.writes += try disk.writeAll(file, writer.pending, at: writer.offset)
        counts.bytes += writer.pending.count
        self.writer?.onWritten()
    }

    private mutating func goOn(_ survey: Survey) throws(SystemError) {
        guard let tail = survey.tail else { preconditionFailure("a journal without an end") }
        let path = "\(folder)/\(SegmentHeader.name(tail.header.number))"
        // Before anything is changed; what is not to be kept of it is not written again.
        let last = Array(try disk.read(path)[tail.lastDurable..<tail.offset])
        let file = try disk.open(path)
        self.file = file
        if survey.place != nil {
            try disk.truncate(file, to: tail.offset)
        }
        try removeUnfinished()
        try disk.allocate(file, bytes: options.segmentBytes)
        // If its sync failed, the kernel may show these bytes and never write them: only bytes that
        // are written again are sure to be tried again.
        _ = try disk.writeAll(file, last, at: tail.lastDurable)
        try disk.sync(file)
        writer = SegmentWriter(
            salt: tail.header.salt, chain: tail.chain, offset: tail.offset, durable: tail.offset)
        standing = survey.standing
        syncedOp = standing.op
        begun = survey.segments.map {
            Begun(
                number: $0.header.number, firstOp: $0.header.firstOp, checksum: $0.header.checksum)
        }
        checkpoints = survey.checkpoints.filter { !$0.isUnused }.compactMap(\.header)
        try disk.syncFolder(folder)
        for report in survey.checkpoints where report.isUnused {
            try disk.remove("\(folder)/\(report.name)")
        }
    }

    /// What a process that ended in the middle of writing it has left behind. It may be what takes the room
    /// that is needed now.
    private func removeUnfinished() throws(SystemError) {
        for name in try disk.list(folder) where name.hasSuffix(Self.besideSuffix) {
            let isOurs = ["identity", "room"].contains(name.dropLast(Self.besideSuffix.count))
            if isOurs || Self.isJournal(name) { try disk.remove("\(folder)/\(name)") }
        }
    }
}
