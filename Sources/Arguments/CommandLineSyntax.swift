/// One flag of a program.
package struct Flag: Sendable {
    /// With its dashes: `--listen`.
    package var name: String
    /// One letter with its dash, `-q`; nil for most.
    package var short: String?
    /// What its value is called in the usage, e.g. `HOST:PORT`; nil for a switch.
    package var value: String?
    /// Its value if none follows; nil: one must.
    package var bare: String?
    /// What holds when it is not given, for people; nil where nothing does.
    package var defaultText: String?
    package var help: String
    /// Understood but not shown: for other programs of ours.
    package var isHidden: Bool

    package init(
        _ name: String, short: String? = nil, value: String? = nil, bare: String? = nil,
        default defaultText: String? = nil,
        hidden isHidden: Bool = false, _ help: String
    ) {
        self.name = name
        self.short = short
        self.value = value
        self.bare = bare
        self.defaultText = defaultText
        self.isHidden = isHidden
        self.help = help
    }
}

/// A mistake in the arguments; the text names it and says what to do. Exit code 64.
package struct UsageError: Error, Equatable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }
}

/// What a program takes, from which parsing and `--help` follow.
package struct CommandLineSyntax: Sendable {
    package var program: String
    package var summary: String
    /// What stands behind the flags in the usage line, e.g. `COMMAND [ARG...]`.
    package var operands: String
    package var flags: [Flag]
    /// Lines shown below the flags, as they are.
    package var details: String
    package var example: String

    /// The flags that all programs share.
    package static let common: [Flag] = [
        Flag("--help", short: "-h", "show this and exit"),
        Flag("--version", "show the version and exit"),
        Flag("--quiet", short: "-q", "say only what went wrong"),
        Flag("--verbose", short: "-v", "say more"),
    ]

    package static let version = "0.1.0"

    package init(
        program: String, summary: String, operands: String = "", flags: [Flag],
        details: String = "", example: String
    ) {
        self.program = program
        self.summary = summary
        self.operands = operands
        self.flags = flags + Self.common
        self.details = details
        self.example = example
    }

    package enum Parsed: Equatable, Sendable {
        case run(ParsedArguments)
        /// Print this to standard output and exit 0.
        case show(String)
    }

    /// Takes the arguments behind the program's name. Flags and operands may be mixed; behind
    /// `--` all are operands. `--flag=value` and `--flag value` are alike; the last one given wins.
    package func parse(_ arguments: [String]) throws(UsageError) -> Parsed {
        var values: [String: String] = [:]
        var operands: [String] = []
        var index = 0
        var onlyOperands = false
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if onlyOperands || argument == "-" || !argument.hasPrefix("-") {
                operands.append(argument)
                continue
            }
            if argument == "--" {
                onlyOperands = true
                continue
            }
            let parts = argument.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            guard let flag = flags.first(where: { $0.name == name || $0.short == name }) else {
                throw unknown(name)
            }
            let inline = parts.count == 2 ? String(parts[1]) : nil
            guard let metavar = flag.value else {
                if inline != nil { throw UsageError("\(flag.name) takes no value") }
                values[flag.name] = ""
                continue
            }
            if let inline {
                values[flag.name] = inline
            } else if index < arguments.count,
                !arguments[index].hasPrefix(flag.bare == nil ? "--" : "-")
            {
                values[flag.name] = arguments[index]
                index += 1
            } else if let bare = flag.bare {
                values[flag.name] = bare
            } else {
                // A flag in its place was not meant as one, mostly.
                let isFlag = index < arguments.count
                let hint = isFlag ? " (one that begins with -- as \(flag.name)=VALUE)" : ""
                throw UsageError("\(flag.name) needs a value: \(flag.name) \(metavar)\(hint)")
            }
        }
        if values["--help"] != nil { return .show(help) }
        if values["--version"] != nil { return .show("\(program) \(Self.version)") }
        return .run(ParsedArguments(values: values, operands: operands))
    }

    package var help: String {
        var lines = ["\(program): \(summary)", ""]
        lines.append("usage: \(program) [FLAGS]" + (operands.isEmpty ? "" : " \(operands)"))
        lines.append("")
        let shown = flags.filter { !$0.isHidden }
        let heads = shown.map { flag in
            "  " + (flag.short.map { "\($0), " } ?? "") + flag.name
                + (flag.value.map { flag.bare == nil ? " \($0)" : " [\($0)]" } ?? "")
        }
        let width = (heads.map(\.count).max() ?? 0) + 2
        for (head, flag) in zip(heads, shown) {
            let pad = String(repeating: " ", count: width - head.count)
            let suffix = flag.defaultText.map { " (default: \($0))" } ?? ""
            lines.append(head + pad + flag.help + suffix)
        }
        if !details.isEmpty { lines += ["", details] }
        lines += ["", "example: \(example)"]
        return lines.joined(separator: "\n")
    }

    private func unknown(_ name: String) -> UsageError {
        let shown = flags.filter { !$0.isHidden }.map(\.name)
        let nearest = Self.nearest(to: name, among: shown)
        let hint = nearest.map { "; did you mean \($0)?" } ?? ""
        return UsageError("unknown flag \(name)\(hint) (\(program) --help lists all)")
    }

    /// The candidate with the fewest changed letters, in whatever case, if it is near at all.
    package static func nearest(to word: String, among candidates: [String]) -> String? {
        var best: (candidate: String, distance: Int)?
        for candidate in candidates {
            let distance = editDistance(
                Array(word.lowercased().utf8), Array(candidate.lowercased().utf8))
            if best.map({ distance < $0.distance }) ?? true { best = (candidate, distance) }
        }
        guard let best, best.distance <= max(2, word.utf8.count / 2) else { return nil }
        return best.candidate
    }

    private static func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let cost = min(diagonal + (x == y ? 0 : 1), row[j] + 1, row[j + 1] + 1)
                diagonal = row[j + 1]
                row[j + 1] = cost
            }
        }
        return row[b.count]
    }
}
