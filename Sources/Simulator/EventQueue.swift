/// What is to happen, by time; what is due at the same moment comes in the order in which it was
/// put in. A binary heap of small keys; the events themselves stay where they are.
struct EventQueue {
    private struct Key {
        /// The time, and behind it the place in the order in which they came.
        var rank: UInt64
        var slot: Int
    }

    private var heap: [Key] = []
    private var events: [Event?] = []
    private var free: [Int] = []
    private var order: UInt64 = 0
    /// Of the event that was taken last.
    private(set) var time = 0

    /// Enough for 16 million events in all, of 12 days.
    private static let orderBits: UInt64 = 24

    var count: Int { heap.count }

    mutating func push(_ event: Event, at time: Int) {
        let slot: Int
        if let last = free.popLast() {
            slot = last
            events[slot] = event
        } else {
            slot = events.count
            events.append(event)
        }
        order += 1
        precondition(
            order >> Self.orderBits == 0 && time >= 0 && time < 1 << (64 - Self.orderBits),
            "event \(order) at \(time)")
        let key = Key(rank: UInt64(time) << Self.orderBits | order, slot: slot)
        heap.append(key)
        // One owner for the whole way, instead of a question for it at each step.
        var heap = self.heap.mutableSpan
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard key.rank < heap[parent].rank else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = key
    }

    /// Takes the next event, whose moment is `time` from then on.
    mutating func pop() -> Event? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        if !heap.isEmpty { sink(last) }
        var event: Event?
        swap(&event, &events[first.slot])
        precondition(event != nil, "an event twice")
        free.append(first.slot)
        time = Int(first.rank >> Self.orderBits)
        return event
    }

    /// Puts the key in from the top, whose place is free.
    private mutating func sink(_ key: Key) {
        var heap = self.heap.mutableSpan
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].rank < heap[child].rank { child += 1 }
            guard heap[child].rank < key.rank else { break }
            heap[parent] = heap[child]
            parent = child
        }
        heap[parent] = key
    }
}
