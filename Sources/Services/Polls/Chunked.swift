/// A list that grows at its end, in chunks of equal size. A copy shares all chunks with the original,
/// and a change copies one chunk and the list of them: with a million elements microseconds, where an
/// array would be copied whole. Nor does it move its elements when it grows.
package struct Chunked<Element: Equatable & Sendable>: Equatable, Sendable {
    private var chunks: [[Element]] = []
    package private(set) var count = 0

    /// A power of two.
    private static var chunkCount: Int { 1_024 }

    package init() {}

    package mutating func append(_ element: Element) {
        if count % Self.chunkCount == 0 { chunks.append([]) }
        chunks[chunks.count - 1].append(element)
        count += 1
    }

    package subscript(index: Int) -> Element {
        get { chunks[index / Self.chunkCount][index % Self.chunkCount] }
        _modify { yield &chunks[index / Self.chunkCount][index % Self.chunkCount] }
    }
}

extension Chunked: RandomAccessCollection {
    package var startIndex: Int { 0 }
    package var endIndex: Int { count }
}
