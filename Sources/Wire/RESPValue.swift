/// A reply or push, RESP2 and RESP3.
package indirect enum RESPValue: Equatable, Sendable {
    case simple(String)
    case error(String)
    case integer(Int64)
    case bulk([UInt8])
    case null
    case boolean(Bool)
    case double(Double)
    case array([RESPValue])
    /// Keys and values in turn.
    case map([RESPValue])
    case push([RESPValue])

    package static let depthMax = 16
    package static let itemsMax = 1 << 20
    package static let bytesMax = 64 << 20
    private static let types = Array("+-:(_#,$=!*%~>".utf8)

    /// The text of a simple or bulk string.
    package var text: String? {
        switch self {
        case .simple(let text): text
        case .bulk(let bytes): String(decoding: bytes, as: UTF8.self)
        case .error, .integer, .null, .boolean, .double, .array, .map, .push: nil
        }
    }

    /// A number, also when it came as a string.
    package var number: Int64? {
        switch self {
        case .integer(let value): value
        case .simple, .bulk: text.flatMap { Int64($0) }
        case .error, .null, .boolean, .double, .array, .map, .push: nil
        }
    }

    package var items: [RESPValue]? {
        switch self {
        case .array(let items), .map(let items), .push(let items): items
        case .simple, .error, .integer, .bulk, .null, .boolean, .double: nil
        }
    }

    /// The value of a key of a map (or of a RESP2 array of keys and values).
    package subscript(_ key: String) -> RESPValue? {
        guard let items else { return nil }
        for index in stride(from: 0, to: items.count - 1, by: 2) where items[index].text == key {
            return items[index + 1]
        }
        return nil
    }

    /// Takes one value from the front of `bytes[start...]`; nil when it is not all there yet.
    package static func parse(_ bytes: Span<UInt8>, from start: Int) throws(DecodeError)
        -> (value: RESPValue, next: Int)?
    {
        var position = start
        guard let value = try parse(bytes, &position, depth: 0) else { return nil }
        return (value, position)
    }

    private static func parse(_ bytes: Span<UInt8>, _ position: inout Int, depth: Int)
        throws(DecodeError) -> RESPValue?
    {
        guard depth < depthMax else { throw DecodeError("nested more than \(depthMax) deep") }
        guard position < bytes.count else { return nil }
        let type = bytes[position]
        // Known at the first byte: what is no RESP may never send a line end to wait for.
        guard Self.types.contains(type) else {
            throw DecodeError("no RESP type begins with byte \(type)")
        }
        guard let line = try Self.line(bytes, position + 1) else { return nil }
        position = line.next
        switch type {
        case UInt8(ascii: "+"): return .simple(line.text)
        case UInt8(ascii: "-"): return .error(line.text)
        case UInt8(ascii: ":"), UInt8(ascii: "("):
            guard let value = Int64(line.text) else { throw DecodeError("bad integer") }
            return .integer(value)
        case UInt8(ascii: "_"): return .null
        case UInt8(ascii: "#"): return .boolean(line.text == "t")
        case UInt8(ascii: ","):
            guard let value = Double(line.text) else { throw DecodeError("bad double") }
            return .double(value)
        case UInt8(ascii: "$"), UInt8(ascii: "="), UInt8(ascii: "!"):
            return try string(bytes, &position, type: type, length: line.text)
        case UInt8(ascii: "*"), UInt8(ascii: "%"), UInt8(ascii: "~"), UInt8(ascii: ">"):
            return try aggregate(bytes, &position, type: type, count: line.text, depth: depth)
        default: throw DecodeError("no RESP type begins with byte \(type)")
        }
    }

    private static func string(
        _ bytes: Span<UInt8>, _ position: inout Int, type: UInt8, length: String
    ) throws(DecodeError) -> RESPValue? {
        guard let length = Int(length), length >= -1, length <= bytesMax else {
            throw DecodeError("bad string length")
        }
        if length == -1 { return .null }
        guard position + length + 2 <= bytes.count else { return nil }
        var content: [UInt8] = []
        content.reserveCapacity(length)
        for index in position..<position + length { content.append(bytes[index]) }
        position += length + 2
        switch type {
        case UInt8(ascii: "!"): return .error(String(decoding: content, as: UTF8.self))
        case UInt8(ascii: "="): return .bulk(Array(content.dropFirst(4)))
        default: return .bulk(content)
        }
    }

    private static func aggregate(
        _ bytes: Span<UInt8>, _ position: inout Int, type: UInt8, count: String, depth: Int
    ) throws(DecodeError) -> RESPValue? {
        guard let count = Int(count), count >= -1, count <= itemsMax else {
            throw DecodeError("bad number of items")
        }
        if count == -1 { return .null }
        let total = type == UInt8(ascii: "%") ? count * 2 : count
        var items: [RESPValue] = []
        // Not reserved from the announced count: it is the sender's word alone.
        for _ in 0..<total {
            guard let item = try parse(bytes, &position, depth: depth + 1) else { return nil }
            items.append(item)
        }
        switch type {
        case UInt8(ascii: "%"): return .map(items)
        case UInt8(ascii: ">"): return .push(items)
        default: return .array(items)
        }
    }

    private static func line(_ bytes: Span<UInt8>, _ start: Int) throws(DecodeError)
        -> (text: String, next: Int)?
    {
        let lengthMax = 64 << 10
        var end = start
        while end < bytes.count, bytes[end] != 13 {
            guard end - start < lengthMax else { throw DecodeError("line too long") }
            end += 1
        }
        guard end + 1 < bytes.count else { return nil }
        guard bytes[end + 1] == 10 else { throw DecodeError("CR without LF") }
        var content: [UInt8] = []
        content.reserveCapacity(end - start)
        for index in start..<end { content.append(bytes[index]) }
        return (String(decoding: content, as: UTF8.self), end + 2)
    }
}
