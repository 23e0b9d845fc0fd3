import Replication
import Services
import Wire

/// One of the two kinds of processes, by its place in the run's list. A restart is a new process.
enum Process: Equatable {
    case replica(Int)
    case client(Int)
}

/// An end of a connection: 0 made it, 1 took it.
typealias Side = Int

enum Event {
    case tick(Int)
    case clientTick(Int)
    /// A replica's loop turn with requests comes to its end.
    case turn(Int)
    case arrive(Packet, connection: Int, side: Side)
    case closed(connection: Int, side: Side)
    /// The try to connect has failed; `refused`: nobody listens there.
    case dialFailed(Process, slot: Int, refused: Bool)
    /// Process `of` has ended, which `to` is told.
    case exited(of: Int, to: Int)
    /// The time of a sync is over, of so many items.
    case synced(Int, count: Int)
    case checkpointWritten(Int)
    case voteDecided(client: Int, vote: UInt64)
    /// Nil: one is drawn. `of`: a replica that it concerns.
    case fault(Fault?, of: Int?)
    /// The replica whose disk is in this slot.
    case restart(slot: Int)
    case mend(Int)
    /// Put in for the same moment: what else comes at that comes behind what has been kept back.
    case resume(Process)
    case keep
    case heal
}

/// What travels on a connection.
enum Packet {
    // Between replicas.
    indirect case hello(Hello)
    indirect case helloAnswer(Hello)
    indirect case peer(Message)
    case beat
    // Client to replica.
    case offer(Instance)
    case request(Request)
    // Either way.
    indirect case witness(Message)
    // Replica to client.
    indirect case welcome(Instance, View?)
    indirect case reply(Int, Answer)
    case vote(UInt64)
    case result(UInt64, yes: UInt32, no: UInt32)
    indirect case view(View)
    /// The next answer on this connection may be kept.
    case cacheable(room: Int)
    /// Nil: all rooms.
    case invalidate(room: Int?)

    struct Hello {
        var member: Member
        var isMember: Bool
        var view: View?
        /// Who it was before it lost parts of its journal: they can never come back.
        var formerly: [Instance]
    }

    /// What a client asks of a replica; its number names it for the whole run.
    struct Request {
        enum Kind: Equatable {
            case join(name: Int, from: UInt64)
            case leave(name: Int)
            case cast(vote: UInt64, name: Int, choice: Choice)
            case call(client: UInt64, sequence: UInt64)
            case close(vote: UInt64)
            /// How many votes there are, how many are closed, and ballots in all.
            case read
            case results(from: UInt64)
            /// A room's reservations; the room by its place in the catalogue.
            case check(room: Int)
            indirect case write(client: UInt64, sequence: UInt64, RoomCommand)
            /// A lease for the connection's cache, anew or for longer.
            case lease
            /// The client has dropped the room from its cache; nil: all. Without an answer.
            case acknowledge(room: Int?)
        }
        var number: Int
        var kind: Kind
    }

    enum Answer: Equatable {
        case reply(Reply)
        case held
        case redirect(Address)
        case tryAgain
        case read(Reading)
        case results([Result])
        case room(String)
        case leased
    }

    struct Result: Equatable {
        var vote: UInt64
        var yes: UInt32
        var no: UInt32
    }
}

/// What a read gives: it grows with every op that changes anything, so that it tells between which
/// two ops it was taken.
struct Reading: Equatable {
    var votes: Int
    var closed: Int
    var ballots: Int
}
