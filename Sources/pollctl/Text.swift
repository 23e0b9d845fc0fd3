/// Numbers and columns for people.
enum Text {
    /// With so many digits behind the point: `12.30`.
    static func fixed(_ value: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let scaled = UInt64((value.magnitude * scale).rounded())
        let whole = scaled / UInt64(scale)
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard digits > 0 else { return "\(sign)\(whole)" }
        let part = String(scaled % UInt64(scale))
        return "\(sign)\(whole)." + String(repeating: "0", count: digits - part.count) + part
    }

    /// `12,345`.
    static func grouped(_ value: UInt64) -> String {
        let digits = Array(String(value))
        var text = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text += "," }
            text.append(digit)
        }
        return text
    }

    /// The parts between the places where `separator` stands, of which there is one more.
    static func split(_ text: String, by separator: String) -> [String] {
        var parts: [String] = []
        var rest = text[...]
        while let place = rest.firstRange(of: separator) {
            parts.append(String(rest[..<place.lowerBound]))
            rest = rest[place.upperBound...]
        }
        return parts + [String(rest)]
    }

    /// What of `text` begins with `word`; nil when that is not in it.
    static func from(_ word: String, in text: String) -> String? {
        text.firstRange(of: word).map { String(text[$0.lowerBound...]) }
    }

    static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    static func rightPadded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    static func count(_ number: Int, _ singular: String) -> String {
        number == 1 ? "1 \(singular)" : "\(number) \(singular)s"
    }

    static func mebibytes(kibibytes: Int) -> String {
        fixed(Double(kibibytes) / 1_024, 1) + " MiB"
    }

    /// Lines up the cells of all rows; two blanks between columns.
    static func table(_ rows: [[String]]) -> [String] {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        return rows.map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let isLast = column == row.count - 1
                line += isLast ? cell : padded(cell, widths[column] + 2)
            }
            return line
        }
    }
}

/// JSON for output. Keys stay in the order in which they are written.
indirect enum JSON {
    case null
    case bool(Bool)
    case integer(Int)
    /// So many digits behind the point.
    case number(Double, digits: Int)
    case string(String)
    case array([JSON])
    case object([(key: String, value: JSON)])

    /// Over 2^53 a string: programs that read JSON would round it.
    static func whole(_ value: UInt64) -> Self {
        value < 1 << 53 ? .integer(Int(value)) : .string("\(value)")
    }

    var text: String {
        switch self {
        case .null: "null"
        case .bool(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .number(let value, let digits): value.isFinite ? Text.fixed(value, digits) : "null"
        case .string(let value): Self.quoted(value)
        case .array(let items): "[" + items.map(\.text).joined(separator: ",") + "]"
        case .object(let fields):
            "{"
                + fields.map { "\(Self.quoted($0.key)):\($0.value.text)" }.joined(separator: ",")
                + "}"
        }
    }

    private static func quoted(_ value: String) -> String {
        var text = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\t": text += "\\t"
            case _ where scalar.value < 32 || scalar.value == 127:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}
