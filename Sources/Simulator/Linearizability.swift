/// Whether a recorded history could have come from one copy of the data that does one thing at a
/// time, each between the moment when it was asked for and the moment when it was answered
/// (Herlihy and Wing, Linearizability, 1990).
///
/// In general that is hard to decide (Gibbons and Korach 1997); here every write's place in the
/// one sequence is known, and every read tells by its value between which writes it may have been
/// taken.
/// Then it is enough to go through the operations in the order in which they were asked for and to
/// give each read the earliest place that is left to it: an earlier place never stands in the way
/// of anything that comes after.
package struct HistoryChecker {
    /// One operation that was answered, or a write that took effect.
    package struct Operation: Equatable, Sendable {
        /// Moments of one clock.
        package var asked: Int
        /// Nil: never answered.
        package var answered: Int?
        /// The places that fit, ascending, at least one: of a write its own, of a read those at
        /// which its value was true.
        package var places: [ClosedRange<Int>]
        package var isWrite: Bool
        /// For messages.
        package var name: Int

        package init(
            asked: Int, answered: Int?, places: [ClosedRange<Int>], isWrite: Bool, name: Int
        ) {
            precondition(!places.isEmpty, "operation \(name) fits nowhere")
            self.asked = asked
            self.answered = answered
            self.places = places
            self.isWrite = isWrite
            self.name = name
        }

        var first: Int { places[0].lowerBound }

        /// The earliest place that is not before `floor`.
        func earliest(from floor: Int) -> Int? {
            places.first { $0.upperBound >= floor }.map { max(floor, $0.lowerBound) }
        }
    }

    /// Gives the first operation that fits nowhere, and the place that it would have had to follow.
    package static func firstMisfit(_ operations: [Operation]) -> (Operation, after: Int)? {
        let byAsking = operations.sorted {
            ($0.asked, $0.first, $0.name) < ($1.asked, $1.first, $1.name)
        }
        // Answered operations by the time of their answers, with the places they were given.
        var waiting: [(answered: Int, place: Int)] = []
        var floor = 0
        for operation in byAsking {
            var kept = 0
            for index in waiting.indices {
                if waiting[index].answered < operation.asked {
                    floor = max(floor, waiting[index].place)
                } else {
                    waiting[kept] = waiting[index]
                    kept += 1
                }
            }
            waiting.removeLast(waiting.count - kept)
            // A write must come behind everything that was over before it was asked for.
            guard let place = operation.earliest(from: operation.isWrite ? floor + 1 : floor) else {
                return (operation, floor)
            }
            if let answered = operation.answered { waiting.append((answered, place)) }
        }
        return nil
    }
}
