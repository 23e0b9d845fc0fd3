import Replication
import Testing
import Wire

@testable import Client

/// What a client passes on between two servers that have lost their direct connection.
@Suite struct RelayTests {
    private let atAnn = Instance(UInt64(ann.port))
    private let atBob = Instance(UInt64(bob.port))

    private func frame(_ body: RelayFrame.Body, path: UInt64 = 3) -> RelayFrame {
        RelayFrame(from: atAnn, to: atBob, path: path, body)
    }

    private func push(_ frame: RelayFrame) -> [RESPValue] {
        [.bulk(Array("witness".utf8))] + Message.relay(frame).fields.map { .bulk($0) }
    }

    /// Frames sent to an address since it was last asked for.
    private func frames(_ stage: inout Stage, to address: Address) throws -> [RelayFrame] {
        let link = try stage.link(address)
        let mine = stage.out.send.filter { $0.link == link }
        stage.out.send.removeAll { $0.link == link }
        return mine.compactMap { item in
            if case .witness(.relay(let frame)) = item.command { frame } else { nil }
        }
    }

    private func settled() throws -> Stage {
        var stage = Stage()
        try stage.settle()
        _ = try frames(&stage, to: ann)
        _ = try frames(&stage, to: bob)
        return stage
    }

    @Test func framesArePassedOnInOrder() throws {
        var stage = try settled()
        let sent = [
            frame(.open), frame(.data([Array("commit".utf8), Array("3".utf8)])), frame(.beat),
            frame(.data([[0, 13, 10, 255]])), frame(.close),
        ]
        for frame in sent { try stage.push(ann, push(frame)) }
        #expect(try frames(&stage, to: bob) == sent)
        #expect(try frames(&stage, to: ann) == [])
    }

    @Test func voteBetweenFramesIsCastAtOnce() throws {
        var stage = try settled()
        try stage.push(ann, push(frame(.data([[1]]))))
        try stage.vote(1)
        try stage.push(ann, push(frame(.data([[2]]))))
        let kinds = stage.out.send.filter { $0.link == (try? stage.link(bob)) }.map { item in
            switch item.command {
            case .cast: "cast"
            case .witness: "frame"
            case .hello, .offer, .join, .verify, .results, .leave, .ping: "other"
            }
        }
        #expect(kinds == ["frame", "cast", "frame"])
    }

    @Test func whoCannotBeReachedIsNamed() throws {
        var stage = try settled()
        try stage.lose(bob)
        // All paths to Bob, without being asked; then each that is tried. What ends or is only a
        // sign of life wants no answer.
        let end = RelayFrame(from: atBob, to: atAnn, path: 0, .close)
        #expect(try frames(&stage, to: ann) == [end])
        try stage.push(ann, push(frame(.open)))
        try stage.push(ann, push(frame(.beat)))
        try stage.push(ann, push(frame(.close)))
        let answer = RelayFrame(from: atBob, to: atAnn, path: 3, .close)
        #expect(try frames(&stage, to: ann) == [answer])
    }

    /// Within one turn of the client's loop the connection may end and come again.
    @Test func nothingOvertakesTheNewsOfALostConnection() throws {
        var stage = try settled()
        try stage.push(ann, push(frame(.data([[1]]))))
        try stage.lose(bob)
        try stage.push(ann, push(frame(.data([[2]]))))
        stage.wait(2_000)
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try stage.accept(bob, view: view)
        try stage.push(ann, push(frame(.data([[3]]))))
        let ends = [UInt64(0), 3].map { RelayFrame(from: atBob, to: atAnn, path: $0, .close) }
        #expect(try frames(&stage, to: ann) == ends)
        // The new connection is offered before anything comes over it: what was on the old one
        // is lost, and the replica knows.
        let link = try stage.link(bob)
        let first = try #require(stage.out.send.first { $0.link == link })
        #expect(first.command == .offer(Instance(0xeee)))
        #expect(try frames(&stage, to: bob) == [frame(.data([[3]]))])
    }

    @Test func forgedSenderIsDropped() throws {
        var stage = try settled()
        try stage.push(bob, push(frame(.open)))
        #expect(try frames(&stage, to: bob) == [])
        #expect(try frames(&stage, to: ann) == [])
    }

    @Test func whatWasPassedOnIsNotKept() throws {
        var stage = try settled()
        try stage.push(ann, push(frame(.data([[UInt8](repeating: 7, count: 1 << 20)]))))
        let link = try stage.link(bob)
        let pending = try #require(stage.session.links.first { $0.id == link }).pending
        #expect(pending.last == .witness(.relay(frame(.beat, path: 0))))
    }

    @Test func mereWitnessRelaysAndJoinsNowhere() throws {
        var stage = Stage(policy: .never)
        let view = VoterView(number: ViewNumber(2), primary: ann, backups: [bob])
        try stage.accept(ann, view: view, isPrimary: true)
        try stage.accept(bob, view: view)
        #expect(stage.sent(ann) == [] && stage.sent(bob) == [])
        try stage.push(ann, push(frame(.open)))
        #expect(try frames(&stage, to: bob) == [frame(.open)])
        try stage.vote(1)
        try stage.result(1)
        #expect(stage.sent(ann) == [] && stage.sent(bob) == [])
        // Served, so there is nothing to complain of.
        stage.wait(5_000)
        #expect(stage.trouble == [])
    }
}
