/// What is to happen, by time; what is due at the same moment comes in the order in which it was
/// put in. A binary heap of small keys; the events themselves stay where they are.
struct EventQueue {
    private struct Key {
        var time: Int
        var order: Int
        var slot: Int
    }

    private var heap: [Key] = []
    private var events: [Event?] = []
    private var free: [Int] = []
    private var order = 0

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
        heap.append(Key(time: time, order: order, slot: slot))
        var child = heap.count - 1
        let key = heap[child]
        while child > 0 {
            let parent = (child - 1) / 2
            guard isBefore(key, heap[parent]) else { break }
            heap[child] = heap[parent]
            child = parent
        }
        heap[child] = key
    }

    mutating func pop() -> (time: Int, event: Event)? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        if !heap.isEmpty {
            var parent = 0
            while true {
                var child = 2 * parent + 1
                guard child < heap.count else { break }
                if child + 1 < heap.count, isBefore(heap[child + 1], heap[child]) { child += 1 }
                guard isBefore(heap[child], last) else { break }
                heap[parent] = heap[child]
                parent = child
            }
            heap[parent] = last
        }
        guard let event = events[first.slot] else { preconditionFailure("an event twice") }
        events[first.slot] = nil
        free.append(first.slot)
        return (first.time, event)
    }

    private func isBefore(_ a: Key, _ b: Key) -> Bool {
        a.time != b.time ? a.time < b.time : a.order < b.order
    }
}
