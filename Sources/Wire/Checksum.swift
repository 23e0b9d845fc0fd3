/// XXH64 (Yann Collet, xxHash, 2012; the specification is `doc/xxhash_spec.md` of
/// github.com/Cyan4973/xxHash, section "XXH64 Algorithm Description"): a 64-bit checksum against
/// accidents of disks, not against anybody's malice.
package enum Checksum {
    private static let prime1: UInt64 = 0x9e37_79b1_85eb_ca87
    private static let prime2: UInt64 = 0xc2b2_ae3d_27d4_eb4f
    private static let prime3: UInt64 = 0x1656_67b1_9e37_79f9
    private static let prime4: UInt64 = 0x85eb_ca77_c2b2_ae63
    private static let prime5: UInt64 = 0x27d4_eb2f_1656_67c5

    package static func of(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
        of(bytes.span, in: bytes.startIndex..<bytes.endIndex, seed: seed)
    }

    /// Of the bytes at `range`. Precondition: the range lies in `bytes`.
    package static func of(_ bytes: Span<UInt8>, in range: Range<Int>, seed: UInt64) -> UInt64 {
        precondition(
            range.lowerBound >= 0 && range.upperBound <= bytes.count,
            "checksum of \(range) in \(bytes.count) bytes")
        var place = range.lowerBound
        let end = range.upperBound
        var hash: UInt64
        if end &- place >= 32 {
            var (a, b) = (seed &+ prime1 &+ prime2, seed &+ prime2)
            var (c, d) = (seed, seed &- prime1)
            while end &- place >= 32 {
                a = round(a, LittleEndian.read64(bytes, at: place))
                b = round(b, LittleEndian.read64(bytes, at: place &+ 8))
                c = round(c, LittleEndian.read64(bytes, at: place &+ 16))
                d = round(d, LittleEndian.read64(bytes, at: place &+ 24))
                place = place &+ 32
            }
            hash = rotate(a, 1) &+ rotate(b, 7) &+ rotate(c, 12) &+ rotate(d, 18)
            for lane in [a, b, c, d] {
                hash = (hash ^ round(0, lane)) &* prime1 &+ prime4
            }
        } else {
            hash = seed &+ prime5
        }
        hash = hash &+ UInt64(end &- range.lowerBound)
        while end &- place >= 8 {
            hash ^= round(0, LittleEndian.read64(bytes, at: place))
            hash = rotate(hash, 27) &* prime1 &+ prime4
            place = place &+ 8
        }
        if end &- place >= 4 {
            hash ^= UInt64(LittleEndian.read32(bytes, at: place)) &* prime1
            hash = rotate(hash, 23) &* prime2 &+ prime3
            place = place &+ 4
        }
        while place < end {
            hash = rotate(hash ^ (UInt64(bytes[place]) &* prime5), 11) &* prime1
            place = place &+ 1
        }
        return avalanche(hash)
    }

    private static func avalanche(_ value: UInt64) -> UInt64 {
        var hash = value
        hash = (hash ^ (hash >> 33)) &* prime2
        hash = (hash ^ (hash >> 29)) &* prime3
        return hash ^ (hash >> 32)
    }

    @inline(__always)
    private static func round(_ lane: UInt64, _ input: UInt64) -> UInt64 {
        rotate(lane &+ input &* prime2, 31) &* prime1
    }

    @inline(__always)
    private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
        value &<< count | value &>> (64 &- count)
    }
}

/// Numbers of fixed width in bytes, the least significant first.
package enum LittleEndian {
    @inline(__always)
    package static func read64(_ bytes: Span<UInt8>, at place: Int) -> UInt64 {
        UInt64(read32(bytes, at: place)) | UInt64(read32(bytes, at: place &+ 4)) &<< 32
    }

    @inline(__always)
    package static func read32(_ bytes: Span<UInt8>, at place: Int) -> UInt32 {
        // One check for all four, so that the compiler joins the loads into one.
        precondition(place >= 0 && place <= bytes.count &- 4, "a number past the end")
        return UInt32(bytes[place]) | UInt32(bytes[place &+ 1]) &<< 8
            | UInt32(bytes[place &+ 2]) &<< 16 | UInt32(bytes[place &+ 3]) &<< 24
    }

    package static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value &>> shift))
        }
    }

    package static func append(_ value: UInt32, to bytes: inout [UInt8]) {
        for shift in stride(from: UInt32(0), to: 32, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value &>> shift))
        }
    }

    package static func put(_ value: UInt64, into bytes: inout [UInt8], at place: Int) {
        for index in 0..<8 {
            bytes[place + index] = UInt8(truncatingIfNeeded: value &>> UInt64(8 * index))
        }
    }

    package static func put(_ value: UInt32, into bytes: inout [UInt8], at place: Int) {
        for index in 0..<4 {
            bytes[place + index] = UInt8(truncatingIfNeeded: value &>> UInt32(8 * index))
        }
    }
}
