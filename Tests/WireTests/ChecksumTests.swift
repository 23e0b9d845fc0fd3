import Wire
import Testing

@Suite struct ChecksumTests {
    /// By the reference implementation (xxhash 0.8 by its Python binding).
    @Test func vectors() {
        let count = (0...255).map { UInt8($0) }
        let cases: [([UInt8], UInt64, UInt64)] = [
            ([], 0, 0xef46_db37_51d8_e999),
            (Array("a".utf8), 0, 0xd24e_c4f1_a98c_6e5b),
            (Array("abc".utf8), 0, 0x44bc_2cf5_ad77_0999),
            (Array("Nobody inspects the spammish repetition".utf8), 0, 0xfbce_a83c_8a37_8bf1),
            (count, 0, 0x1fac_be84_06cd_904b),
            (count, 0x9e37_79b9_7f4a_7c15, 0xcc29_7fef_2bb4_8bbf),
            (Array(count[..<31]), 7, 0x0bdb_bcae_ad6c_6e56),
            (Array(count[..<32]), 7, 0xa597_2d57_c4ae_a230),
            (Array(count[..<100]), 1, 0x3d19_a3a2_098a_7023),
        ]
        for (bytes, seed, expected) in cases {
            #expect(Checksum.of(bytes, seed: seed) == expected, "\(bytes.count) bytes")
        }
    }

    /// The entry in protocol.md, "Messages"; by the reference implementation, too.
    @Test func hashOfAnEntry() throws {
        let bytes: [UInt8] = [0, 7, 2, 1, 3] + Array("ann".utf8) + [2]
        let shown = try Batch(decoding: bytes, count: 1)
        let entry = Entry(
            view: ViewNumber(2), first: OpNumber(2), time: 1_795_232_293_572, batch: shown,
            after: LogHash(1))
        #expect(entry.hash == LogHash(13_527_413_826_009_398_257))
        #expect(entry.follows(LogHash(1)))
        #expect(!entry.follows(.beginning))
        var later = entry
        later.time += 1
        #expect(!later.follows(LogHash(1)))
    }
}
