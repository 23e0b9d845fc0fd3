import Replication
import Services
import Testing
import Wire

@testable import Simulator

/// The state in the end is judged by the plain models, not only by the other replicas.
@Suite struct FinalStateTests {
    private static let place = RoomPlace(
        room: Catalogue.builtIn.rooms[0], timeslot: Catalogue.builtIn.timeslots[0],
        day: Catalogue.builtIn.days[0])

    /// A run in which these were executed by a replica that has what they lead to.
    private func executed(_ commands: [[UInt8]]) throws -> (History, Executor<ServiceSet>) {
        var (history, executor) = (History(), Executor<ServiceSet>())
        var batch = Batch()
        for command in commands { batch.append(Request(command: command)) }
        let entry = Entry(
            view: ViewNumber(1), first: OpNumber(1), time: 1, batch: batch, after: .beginning)
        var replies: [Reply] = []
        var effects: [ServiceSet.Effect] = []
        executor.execute(entry, effects: &effects) { _, reply in replies.append(reply) }
        try history.execute(entry, by: Instance(1), replies)
        return (history, executor)
    }

    @Test(arguments: [
        [PollCommand.join(voter: [1, 2]).encode()],
        [PollCommand.open(VoteTerms(question: [])).encode()],
        [RoomCommand.reserve(place).encode()],
    ])
    func whatIsMissingIsNoticed(commands: [[UInt8]]) throws {
        let (history, executor) = try executed(commands)
        try history.check(executor.service, of: Instance(1))
        #expect(throws: Violation.self) { try history.check(ServiceSet(), of: Instance(1)) }
    }

    /// The last of the commands has been lost.
    @Test(arguments: [
        PollCommand.castByName(vote: 1, voter: [1, 2], choice: .yes), .close(vote: 1),
    ])
    func aVoteWithoutItsEndIsNoticed(last: PollCommand) throws {
        let terms = VoteTerms(question: [], isRollOpen: true)
        let (history, whole) = try executed([PollCommand.open(terms).encode(), last.encode()])
        let (_, short) = try executed([PollCommand.open(terms).encode()])
        try history.check(whole.service, of: Instance(1))
        #expect(throws: Violation.self) { try history.check(short.service, of: Instance(1)) }
    }
}
