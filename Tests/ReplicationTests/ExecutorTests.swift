import Services
import Testing
import Wire

@testable import Replication

@Suite struct ExecutorTests {
    /// In the service that begins with it none of its entries ends the log, whatever their views were.
    @Test func aStateBeginsAServiceWithoutItsView() throws {
        var executor = Executor<ServiceSet>()
        var effects: [ServiceSet.Effect] = []
        executor.execute(PairFixture.entry(1, after: .beginning), effects: &effects) { _, _ in }
        #expect(executor.end == LogEnd(view: PairFixture.view.number, op: OpNumber(1)))
        let hash = executor.hash
        executor.beginService()
        #expect(executor.end == LogEnd(view: ViewNumber(0), op: OpNumber(1)))
        #expect(executor.hash == hash)
        #expect(try Executor<ServiceSet>(snapshot: executor.snapshot()) == executor)
    }
}
