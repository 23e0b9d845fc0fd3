import Simulator
import Testing

/// The checker for linearizability against histories made by hand: what it must take, and what it
/// must not.
@Suite struct HistoryCheckerTests {
    typealias Operation = HistoryChecker.Operation

    private static func write(_ place: Int, _ asked: Int, _ answered: Int?) -> Operation {
        Operation(
            asked: asked, answered: answered, places: [place...place], isWrite: true, name: place)
    }

    private static func read(_ places: ClosedRange<Int>..., asked: Int, answered: Int) -> Operation
    {
        Operation(asked: asked, answered: answered, places: places, isWrite: false, name: 100)
    }

    private static func read(_ places: ClosedRange<Int>, _ asked: Int, _ answered: Int)
        -> Operation
    {
        read(places, asked: asked, answered: answered)
    }

    static let good: [(String, [Operation])] = [
        ("nothing", []),
        ("one after the other", [write(1, 0, 10), read(1...1, 20, 30), write(2, 40, 50)]),
        ("a read beside a write may see it", [write(1, 0, 100), read(1...1, 10, 20)]),
        ("or not see it", [write(1, 0, 100), read(0...0, 10, 20)]),
        ("writes beside each other in either order", [write(2, 0, 100), write(1, 10, 90)]),
        ("a write that was never answered took effect", [write(1, 0, nil), read(1...1, 50, 60)]),
        ("or has not yet", [write(2, 0, nil), read(0...1, 50, 60), write(1, 0, 20)]),
        (
            "reads beside a write in the order old, new",
            [write(1, 0, 100), read(0...0, 10, 20), read(1...1, 30, 40)]
        ),
        (
            "a value that was true before and is again",
            [
                write(1, 0, 10), write(2, 20, 30),
                read(0...0, 2...2, asked: 40, answered: 50),
            ]
        ),
        (
            "a value that holds for long leaves the choice",
            [write(1, 0, 10), write(2, 20, 30), read(1...5, 40, 50), write(3, 60, 70)]
        ),
        (
            "answered at the moment when the next is asked: no order",
            [write(1, 0, 10), read(0...0, 10, 20)]
        ),
    ]

    /// Fifty writes, each read behind it.
    private static var many: [Operation] {
        var history: [Operation] = []
        for place in 1...50 {
            let start = place * 20
            history.append(write(place, start, start + 5))
            history.append(read(place...place, start + 6, start + 9))
        }
        return history
    }

    static let bad: [(String, [Operation])] = [
        ("a read misses a write that was over", [write(1, 0, 10), read(0...0, 20, 30)]),
        (
            "a read goes back behind another's",
            [write(1, 0, 100), read(1...1, 10, 20), read(0...0, 30, 40)]
        ),
        ("writes over in the wrong order", [write(2, 0, 10), write(1, 20, 30)]),
        (
            "a write goes before what was read before it was asked for",
            [write(2, 0, 100), read(2...2, 10, 20), write(1, 30, 40)]
        ),
        (
            "a write was seen before it was asked for",
            [read(1...1, 0, 10), write(1, 20, 30)]
        ),
        ("one stale read among many good ones", many + [read(30...30, 1_100, 1_110)]),
        (
            "between two times at which its value was true",
            [
                write(1, 0, 10), write(2, 11, 200), write(3, 60, 70),
                read(1...1, 20, 30), read(0...0, 3...3, asked: 40, answered: 50),
            ]
        ),
        (
            "late by one write only",
            [write(1, 0, 10), write(2, 11, 20), read(1...1, 21, 30)]
        ),
    ]

    @Test(arguments: good.indices) func takesWhatOneCopyCouldHaveDone(index: Int) {
        let (name, history) = Self.good[index]
        for turn in 0..<max(1, history.count) {
            let turned = Array(history[turn...] + history[..<turn])
            #expect(HistoryChecker.firstMisfit(turned) == nil, "\(name)")
        }
    }

    @Test(arguments: bad.indices) func refusesWhatNoOneCopyCouldHaveDone(index: Int) {
        let (name, history) = Self.bad[index]
        for turn in 0..<max(1, history.count) {
            let turned = Array(history[turn...] + history[..<turn])
            #expect(HistoryChecker.firstMisfit(turned) != nil, "\(name)")
        }
    }

    /// Histories that one copy really made are taken; with one read moved to another value they
    /// are refused exactly if trying all orders finds none.
    @Test func agreesWithTryingAllOrders() {
        var random = SystemRandomNumberGenerator()
        var refused = 0
        for _ in 0..<3_000 {
            var history: [Operation] = []
            for place in 1...3 {
                let asked = Int.random(in: 0...30, using: &random)
                history.append(
                    Self.write(place, asked, asked + Int.random(in: 1...30, using: &random)))
            }
            for _ in 0..<2 {
                let asked = Int.random(in: 0...40, using: &random)
                let value = Int.random(in: 0...3, using: &random)
                // A value that was true twice.
                let again = value < 2 && Bool.random(using: &random) ? value + 2 : value
                let places = again == value ? [value...value] : [value...value, again...again]
                history.append(
                    Operation(
                        asked: asked, answered: asked + Int.random(in: 1...30, using: &random),
                        places: places, isWrite: false, name: 100))
            }
            let isTaken = HistoryChecker.firstMisfit(history) == nil
            if !isTaken { refused += 1 }
            #expect(isTaken == Self.hasOrder(history), "\(history)")
        }
        #expect(refused > 300 && refused < 2_990)
    }

    /// Wing and Gong 1993: is there any order that keeps real time and gives these values?
    private static func hasOrder(_ rest: [Operation], value: Int = 0) -> Bool {
        if rest.isEmpty { return true }
        for (index, next) in rest.enumerated() {
            let comesFirst = rest.allSatisfy { other in
                other == next || (other.answered ?? .max) >= next.asked
            }
            guard comesFirst else { continue }
            let fits =
                next.isWrite
                ? next.places[0].lowerBound == value + 1
                : next.places.contains { $0.contains(value) }
            guard fits else { continue }
            var others = rest
            others.remove(at: index)
            if hasOrder(others, value: next.isWrite ? value + 1 : value) { return true }
        }
        return false
    }
}
