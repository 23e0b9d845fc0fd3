/// Which form of the protocol a connection speaks; it begins in 2.
package enum ProtocolVersion: UInt8, Sendable {
    case resp2 = 2
    case resp3 = 3
}

/// Appends RESP to a buffer.
package enum RESP {
    package static let ok: [UInt8] = Array("+OK\r\n".utf8)
    package static let held: [UInt8] = Array("+HELD\r\n".utf8)

    package static func simple(_ text: String, into bytes: inout [UInt8]) {
        line(UInt8(ascii: "+"), text, into: &bytes)
    }

    /// `text` is `CODE words for people`.
    package static func error(_ text: String, into bytes: inout [UInt8]) {
        line(UInt8(ascii: "-"), text, into: &bytes)
    }

    package static func integer(_ value: Int64, into bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: ":"))
        if value < 0 { bytes.append(UInt8(ascii: "-")) }
        digits(value.magnitude, into: &bytes)
        lineEnd(into: &bytes)
    }

    package static func bulk(_ text: String, into bytes: inout [UInt8]) {
        header(UInt8(ascii: "$"), text.utf8.count, into: &bytes)
        bytes.append(contentsOf: text.utf8)
        lineEnd(into: &bytes)
    }

    package static func bulk(_ content: [UInt8], into bytes: inout [UInt8]) {
        header(UInt8(ascii: "$"), content.count, into: &bytes)
        bytes.append(contentsOf: content)
        lineEnd(into: &bytes)
    }

    package static func null(_ version: ProtocolVersion, into bytes: inout [UInt8]) {
        switch version {
        case .resp2: bytes.append(contentsOf: "$-1\r\n".utf8)
        case .resp3: bytes.append(contentsOf: "_\r\n".utf8)
        }
    }

    package static func array(_ count: Int, into bytes: inout [UInt8]) {
        header(UInt8(ascii: "*"), count, into: &bytes)
    }

    package static func push(_ count: Int, into bytes: inout [UInt8]) {
        header(UInt8(ascii: ">"), count, into: &bytes)
    }

    /// In RESP2 a map is an array of its keys and values in turn.
    package static func map(_ count: Int, _ version: ProtocolVersion, into bytes: inout [UInt8]) {
        switch version {
        case .resp2: header(UInt8(ascii: "*"), count * 2, into: &bytes)
        case .resp3: header(UInt8(ascii: "%"), count, into: &bytes)
        }
    }

    /// A command as clients send it.
    package static func command(_ arguments: [String], into bytes: inout [UInt8]) {
        array(arguments.count, into: &bytes)
        for argument in arguments { bulk(argument, into: &bytes) }
    }

    package static func digits(_ value: UInt64, into bytes: inout [UInt8]) {
        if value < 10 {
            bytes.append(48 + UInt8(truncatingIfNeeded: value))
            return
        }
        let start = bytes.count
        var rest = value
        while rest > 0 {
            bytes.append(48 + UInt8(truncatingIfNeeded: rest % 10))
            rest /= 10
        }
        bytes[start...].reverse()
    }

    private static func header(_ type: UInt8, _ count: Int, into bytes: inout [UInt8]) {
        bytes.append(type)
        digits(UInt64(count), into: &bytes)
        lineEnd(into: &bytes)
    }

    private static func line(_ type: UInt8, _ text: String, into bytes: inout [UInt8]) {
        bytes.append(type)
        // A line end inside would end the reply early and put the stream out of step.
        for byte in text.utf8 { bytes.append(byte == 13 || byte == 10 ? 32 : byte) }
        lineEnd(into: &bytes)
    }

    private static func lineEnd(into bytes: inout [UInt8]) {
        bytes.append(13)
        bytes.append(10)
    }
}
