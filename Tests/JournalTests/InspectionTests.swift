import Journal
import Testing
import Wire

@Suite struct InspectionTests {
    /// No store makes it, and the next start does not ask for it; who looks at every byte meets it.
    @Test func aSegmentOfNumberZero() {
        let first = SegmentFile(writes: [[.entry(Sample.entry(1))]])
        let second = SegmentFile(
            number: 2, firstOp: 2, previous: first.chain, writes: [[.entry(Sample.entry(2))]])
        let files = ["segment-0": [], "segment-1": first.bytes, "segment-2": second.bytes]
        let inspection = Inspection(
            identity: Sample.identity, names: files.keys.sorted(), load: { files[$0] ?? [] })
        #expect(inspection.segments.map(\.name) == ["segment-0", "segment-1", "segment-2"])
        #expect(inspection.places.map(\.file) == ["segment-0"])
    }
}
