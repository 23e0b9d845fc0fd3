/// The flags and operands of one call. The readers throw a `UsageError` that names the flag.
package struct ParsedArguments: Equatable, Sendable {
    private let values: [String: String]
    package let operands: [String]

    init(values: [String: String], operands: [String]) {
        self.values = values
        self.operands = operands
    }

    package func isSet(_ flag: String) -> Bool { values[flag] != nil }

    package func string(_ flag: String) -> String? { values[flag] }

    package func number(_ flag: String, default fallback: UInt64, in range: ClosedRange<UInt64>)
        throws(UsageError) -> UInt64
    {
        guard let text = values[flag] else { return fallback }
        guard let value = UInt64(text), range.contains(value) else {
            throw UsageError(
                "\(flag) '\(text)': a whole number from \(range.lowerBound) to "
                    + "\(range.upperBound) is needed")
        }
        return value
    }

    /// Milliseconds, from `250ms`, `1s` or `2m`.
    package func milliseconds(
        _ flag: String, default fallback: UInt64, in range: ClosedRange<UInt64> = 0...86_400_000
    ) throws(UsageError) -> UInt64 {
        guard let text = values[flag] else { return fallback }
        guard let value = Self.milliseconds(text) else {
            throw UsageError("\(flag) '\(text)': a duration such as 250ms, 1s or 2m is needed")
        }
        guard range.contains(value) else {
            throw UsageError(
                "\(flag) '\(text)': must be from \(range.lowerBound)ms to \(range.upperBound)ms")
        }
        return value
    }

    package static func milliseconds(_ text: String) -> UInt64? {
        let units: [(suffix: String, factor: UInt64)] = [("ms", 1), ("s", 1_000), ("m", 60_000)]
        for (suffix, factor) in units where text.hasSuffix(suffix) {
            guard let value = UInt64(text.dropLast(suffix.count)), value <= 1 << 40 else {
                return nil
            }
            return value * factor
        }
        return nil
    }

    /// One of `choices`.
    package func choice(_ flag: String, default fallback: String, of choices: [String])
        throws(UsageError) -> String
    {
        guard let text = values[flag] else { return fallback }
        guard choices.contains(text) else {
            let list = choices.joined(separator: ", ")
            throw UsageError("\(flag) '\(text)': must be one of \(list)")
        }
        return text
    }

    /// `HOST:PORT`, as it is written; a pair of host and port.
    package func address(_ flag: String, default fallback: String) throws(UsageError)
        -> (host: String, port: UInt16)
    {
        let text = values[flag] ?? fallback
        guard let address = Self.address(text) else {
            throw UsageError("\(flag) '\(text)': an address HOST:PORT is needed (\(Self.hostRule))")
        }
        return address
    }

    package func host(_ flag: String) throws(UsageError) -> String? {
        guard let text = values[flag] else { return nil }
        guard Self.isHost(text) else {
            throw UsageError("\(flag) '\(text)': a host is needed (\(Self.hostRule))")
        }
        return text
    }

    /// What can be told to others: addresses stand in lists and in lines.
    private static func isHost(_ text: String) -> Bool {
        (1...255).contains(text.utf8.count)
            && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ",") }
    }

    private static let hostRule =
        "HOST: 1 to 255 printable ASCII characters without blank and comma"

    /// `HOST:PORT,HOST:PORT…`, at least one.
    package func addresses(_ flag: String, default fallback: String) throws(UsageError)
        -> [(host: String, port: UInt16)]
    {
        let text = values[flag] ?? fallback
        var list: [(host: String, port: UInt16)] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let address = Self.address(String(part)), list.count < 64 else {
                throw UsageError(
                    "\(flag) '\(text)': addresses HOST:PORT,HOST:PORT are needed (\(Self.hostRule))"
                )
            }
            list.append(address)
        }
        return list
    }

    private static func address(_ text: String) -> (host: String, port: UInt16)? {
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...])
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        return isHost(String(host)) ? (String(host), port) : nil
    }
}
