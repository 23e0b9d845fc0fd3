import Replication
import Services
import Wire

// Reservations at a replica, and the caches that they wait for; as `Server+Rooms`.
extension Simulation {
    /// A process's clock, for leases. Clocks that differ by more than the eighth that a client
    /// leaves of its lease are beyond what is promised: they go wrong by half as much as ticks do.
    func leaseClock(_ tickTime: Int) -> UInt64 {
        UInt64(now) * 20_000 / UInt64(10_000 + tickTime)
    }

    func answerCheck(_ process: ReplicaProcess, _ waiter: ReplicaProcess.Waiter, _ room: Int) {
        let isBroken = options.breakage == .leaseWhileWriting
        let executed = isBroken ? UInt64.max : process.executor.op.rawValue
        if process.leases.grant(
            UInt64(waiter.connection), room: room, executed: executed,
            at: leaseClock(process.tickTime))
        {
            send(waiter.connection, from: 1, .cacheable(room: room))
        }
        let text = process.executor.service.rooms.check(Catalogue.builtIn.rooms[room])
        answer(process, waiter, .room(text))
    }

    func answerLease(_ process: ReplicaProcess, _ waiter: ReplicaProcess.Waiter) {
        guard connections[waiter.connection].isOpen[1],
            case .renewed = process.leases.renew(
                UInt64(waiter.connection), at: leaseClock(process.tickTime))
        else {
            // No rule of answers is concerned: it says that there is no lease.
            send(waiter.connection, from: 1, .reply(waiter.request, .held))
            return
        }
        answer(process, waiter, .leased)
    }

    func mayWrite(_ process: ReplicaProcess, _ command: RoomCommand, _ id: Int) -> Bool {
        guard let room = Self.room(of: command) else { return true }
        let verdict = process.leases.beginWrite(
            room, by: UInt64(id), at: leaseClock(process.tickTime))
        guard case .wait(let holders) = verdict, options.breakage != .leaseNotAwaited else {
            return true
        }
        for holder in holders {
            coverage.note(.roomInvalidated)
            send(Int(holder), from: 1, .invalidate(room: room))
        }
        return false
    }

    static func room(of command: RoomCommand) -> Int? {
        switch command {
        case .reserve(let place), .delete(let place): Catalogue.builtIn.room(place.room)
        case .catalogue: nil
        }
    }

    func resumeGated(_ process: ReplicaProcess) {
        guard !process.gated.isEmpty else { return }
        let list = process.gated
        process.gated = []
        for (request, connection) in list { onRequest(process, request, connection) }
    }

    func tickRooms(_ process: ReplicaProcess) {
        guard process.face.isPrimary || !process.gated.isEmpty else { return }
        let count = process.gated.count
        process.leases.expire(at: leaseClock(process.tickTime))
        resumeGated(process)
        if process.gated.count < count { coverage.note(.leaseRanOut) }
    }
}
