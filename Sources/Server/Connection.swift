import Linux
import Wire

/// One TCP connection: a client's, a replica's, or one that is still being made.
final class Connection {
    enum Kind: Equatable {
        case client
        /// To another replica, once both have said hello.
        case link(Instance)
        /// Being made by this replica, to find or reach the service at this address.
        case dialing(Address)
        /// Being made by this member to another one, or to where one may be.
        case calling(Address)
        /// Being made to see whether anybody listens where this member was.
        case probing(Instance)
    }

    let fd: FileDescriptor
    let number: UInt64
    var kind: Kind
    /// How it was made; nil: by the other end.
    var dial: Dial?
    /// The TCP connection stands (always so for one that was accepted).
    var isConnected: Bool
    private(set) var isOpen = true
    /// To be closed once its output is sent.
    var isClosing = false
    /// To be closed once what is owed has been answered: QUIT was said, or what is no command. Nothing
    /// that comes behind that is carried out.
    var closesWhenAnswered = false

    /// Bytes of a command that is not complete yet.
    var input: [UInt8] = []
    private(set) var output: [UInt8] = []
    private(set) var outputStart = 0
    /// So much may wait, if it is more than the bound, until it has been sent: one answer alone may be
    /// larger.
    private var outputAllowed = 0
    var isInDirtyList = false
    var wantsWrite = false
    /// Reading has stopped until replies have gone out.
    var isPaused = false
    /// It has stopped until all that is owed has gone out.
    var awaitsAll = false
    /// It has stopped until what was asked has been looked up: what comes next may change that.
    var awaitsReads = false

    var version = ProtocolVersion.resp2
    var name = ""
    /// Replies that wait for the log, in the order of their commands.
    var pending = 0
    /// Of those that are known already.
    var pendingBytes = 0
    /// How many of them are looked up only when they go out.
    private(set) var pendingReads = 0
    /// As whom this connection has asked to join, until it leaves.
    var voterName: [UInt8]?
    /// Set once it has joined.
    var voterPlace: Int?
    /// The next vote whose result it is owed as one that had closed before it joined; nil: it has been sent
    /// all of these.
    var nextPastResult: UInt64?
    /// Set once the client has offered itself as a witness.
    var witness: Instance? {
        didSet { if let witness { lastWitness = witness } }
    }
    private(set) var lastWitness: Instance?
    /// Offered itself while this replica was in no service: the next view is pushed to it.
    var awaitsService = false
    /// The client caches answers and is told when they are void.
    var isTracking = false
    /// The reservation that waits for other clients' caches.
    var gate: Gate?
    /// Not read before this moment (monotonic nanoseconds).
    var readAfter: UInt64 = 0
    /// It is in the list of those that wait for that.
    var isDelayed = false
    /// How often tracking was turned off: a lease that was asked for before is not given any more.
    var trackingEpoch: UInt64 = 0
    /// How often COPY END was said: a copy that was asked for before is not made any more.
    var copyEpoch: UInt64 = 0
    /// The client is about to go and is not to be chosen any more.
    var isWitnessLeaving = false
    /// What goes to another replica goes through this client.
    var isRelaying = false

    static let outputBytesMax = 4 << 20
    static let relayOutputBytesMax = 64 << 20
    static let linkOutputBytesMax = 256 << 20
    static let pendingMax = 4_096
    static let witnessPendingMax = 65_536

    init(fd: consuming FileDescriptor, number: UInt64, kind: Kind, isConnected: Bool) {
        self.fd = fd
        self.number = number
        self.kind = kind
        self.isConnected = isConnected
    }

    var isLink: Bool {
        if case .link = kind { return true }
        return false
    }

    var limits: CommandLimits {
        kind != .client ? .replica : witness != nil ? .witness : .client
    }
    /// What comes here may be what requests wait for: acks, grants. It must not wait for them.
    var mustBeRead: Bool { kind != .client || witness != nil }
    var hasManyPending: Bool { pending >= Self.pendingMax || pendingBytes >= Self.outputBytesMax }
    /// With so much owed it is not read until half of that has gone out.
    var isOwedTooMuch: Bool {
        mustBeRead ? pending >= Self.witnessPendingMax : hasManyPending
    }
    var isOwedLess: Bool {
        if awaitsAll { return pending == 0 }
        if awaitsReads, pendingReads > 0 { return false }
        let countMax = mustBeRead ? Self.witnessPendingMax : Self.pendingMax
        return pending < countMax / 2 && (mustBeRead || pendingBytes < Self.outputBytesMax / 2)
    }
    var outputCount: Int { output.count - outputStart }
    var isOutputFull: Bool { !mayHave(outputCount) && outputCount > outputAllowed }

    /// Whether so many bytes may wait for it.
    func mayHave(_ count: Int) -> Bool {
        let bytesMax =
            kind != .client
            ? Self.linkOutputBytesMax : isRelaying ? Self.relayOutputBytesMax : Self.outputBytesMax
        return count <= bytesMax
    }

    /// What waits now, and what is pushed until it has been sent.
    func allowWhatIsThere() { outputAllowed = outputCount + Self.outputBytesMax }

    /// Appends to the output in place.
    @inline(__always)
    func write(_ body: (inout [UInt8]) -> Void) {
        body(&output)
    }

    func write(_ bytes: [UInt8]) { output.append(contentsOf: bytes) }

    /// Sends what the kernel takes; false when the connection is gone.
    func flush() -> Bool {
        while outputStart < output.count {
            switch IO.send(fd.raw, output, from: outputStart) {
            case .bytes(let count): outputStart += count
            case .wouldBlock:
                compact()
                return true
            case .end, .failed: return false
            }
        }
        outputStart = 0
        outputAllowed = 0
        // An idle connection keeps no buffer: there may be thousands.
        output.removeAll(keepingCapacity: output.capacity <= 4_096 && pending > 0)
        return true
    }

    private func compact() {
        guard outputStart > 64 << 10 else { return }
        output.removeFirst(outputStart)
        outputStart = 0
    }

    func owe(_ kind: Waiter.Kind) {
        pending += 1
        switch kind {
        case .bytes(let bytes): pendingBytes += bytes.count
        case .read: pendingReads += 1
        case .request, .join, .rejoin, .reply, .joined: break
        }
    }

    func settle(_ kind: Waiter.Kind) {
        pending -= 1
        switch kind {
        case .bytes(let bytes): pendingBytes -= bytes.count
        case .read: pendingReads -= 1
        case .request, .join, .rejoin, .reply, .joined: break
        }
    }

    func markClosed() { isOpen = false }
}
