package import Linux
package import Replication
package import Services
package import Wire

/// How a server was started.
package struct Settings: Sendable {
    /// The mode it starts in; later the views decide.
    package var startsAsPrimary: Bool
    package var listen: Address
    /// Where to look for the service: the other replica of a pair, or members of a group. None: it
    /// begins here.
    package var peers: [Address]
    /// What others are told to connect to; nil: where it listens.
    package var advertised: Address?
    /// The same of a replacement, whose port is known only when it listens.
    package var advertisedHost: String?
    package var id: ReplicaID
    package var election = Election.sticky
    package var heartbeatMilliseconds: UInt64 = 1_000
    package var misses: UInt64 = 5
    package var restartDelayMilliseconds: UInt64 = 30_000
    package var restartsBackup = true
    /// How long this process waits before it asks to join.
    package var joinAfterMilliseconds: UInt64 = 0
    /// The process that has started this one in a lost replica's place; until this one is a member
    /// it ends when that one does.
    package var startedBy: Int32?
    package var plan: VotePlan?
    /// What a new service's rooms are; nil: the built-in ones.
    package var catalogue: Catalogue?
    /// Milliseconds to wait after each reply, on that connection alone.
    package var replyDelay: ClosedRange<UInt64>?
    package var hasTestHooks = false
    package var logFormat = MessageLog.Format.text
    package var verbosity = Verbosity.normal
    /// The absolute path of the journal's folder; nil: all is in memory.
    package var dataFolder: String?
    /// Flags that a replacement backup is started with, besides its addresses.
    package var inheritedFlags: [String] = []

    package init(startsAsPrimary: Bool, listen: Address, peers: [Address], id: ReplicaID) {
        self.startsAsPrimary = startsAsPrimary
        self.listen = listen
        self.peers = peers
        self.id = id
    }

    static let tickMilliseconds: UInt64 = 10
    /// How long a client may answer from its cache without a word from the primary.
    static let leaseMilliseconds: UInt64 = 1_000
    static let version = "0.1.0"
    /// Replicas in a view.
    var membersMax: Int {
        switch election {
        case .sticky: 2
        case .bully: View.backupsMax + 1
        }
    }
}
