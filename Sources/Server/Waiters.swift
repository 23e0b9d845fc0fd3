import Services
import Wire

/// A reply that a connection is owed and that waits for the log.
struct Waiter {
    enum Kind {
        /// The request at `op`; its reply comes when it is executed.
        case request
        /// As `request`, for a voter who joins: results from the given vote on follow the reply.
        case join(voter: [UInt8], from: UInt64?)
        /// A voter who is on the roll already joins on another connection: nothing is written, but
        /// as for a read the view must stand.
        case rejoin(voter: [UInt8], from: UInt64?)
        /// A request that has been executed.
        case reply(Reply)
        case joined(Reply, voter: [UInt8], from: UInt64?)
        case read(Read)
        /// A reply that is known but must not overtake those before it.
        case bytes([UInt8])
    }

    enum Read {
        case result(UInt64)
        case results(from: UInt64, count: Int)
        /// `from` nil: the last ones.
        case list(from: UInt64?, count: Int)
        case rooms(Catalogue.List)
        case check(room: [UInt8])
        /// CLIENT TRACKING ON LEASE
        case lease(epoch: UInt64)
        /// COPY BEGIN
        case copy(epoch: UInt64)
    }

    var connection: Connection
    /// The log must be executed through this op.
    var op: UInt64
    /// The members must have confirmed this probe; 0: none.
    var probe: UInt64
    var kind: Kind
}

/// First in, first out: replies leave in the order of the log, and so of each connection.
struct Waiters {
    private var items: [Waiter] = []
    private var head = 0
    /// The first item whose request may not have been executed yet.
    private var cursor = 0

    static let countMax = 1_000_000

    var count: Int { items.count - head }

    mutating func append(_ waiter: Waiter) { items.append(waiter) }

    /// The reply to `op` has come. Gives the connection when nothing stands before it, so that it
    /// may be answered at once.
    mutating func answer(_ op: UInt64, _ reply: Reply) -> Connection? {
        while cursor < items.count, items[cursor].op <= op {
            if items[cursor].op == op {
                switch items[cursor].kind {
                case .request:
                    if cursor == head {
                        let connection = items[cursor].connection
                        head += 1
                        cursor += 1
                        return connection
                    }
                    items[cursor].kind = .reply(reply)
                    cursor += 1
                    return nil
                case .join(let voter, let from):
                    items[cursor].kind = .joined(reply, voter: voter, from: from)
                    cursor += 1
                    return nil
                case .rejoin, .reply, .joined, .read, .bytes: break
                }
            }
            cursor += 1
        }
        return nil
    }

    /// The next reply that may leave.
    mutating func next(executed: UInt64, probe: UInt64) -> Waiter? {
        guard head < items.count, items[head].op <= executed, items[head].probe <= probe else {
            return nil
        }
        head += 1
        cursor = max(cursor, head)
        return items[head - 1]
    }

    /// Takes out all, in order.
    mutating func removeAll() -> [Waiter] {
        defer {
            items = []
            head = 0
            cursor = 0
        }
        return Array(items[head...])
    }

    /// Nobody is there any more to be told.
    mutating func removeClosed() {
        let done = items[head..<max(head, cursor)].count { $0.connection.isOpen }
        items = items[head...].filter { $0.connection.isOpen }
        (head, cursor) = (0, done)
    }

    /// Lets go of those that `next` has given, and of their connections. To be called when it is not
    /// asked any more for a while. What is moved for that is less than what has been given.
    mutating func trim() {
        if head == items.count {
            items.removeAll(keepingCapacity: items.capacity <= 65_536)
            (head, cursor) = (0, 0)
        } else if 2 * head > items.count {
            items.removeFirst(head)
            cursor -= head
            head = 0
        }
    }
}
