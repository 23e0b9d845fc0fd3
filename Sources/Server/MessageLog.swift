import Linux

/// What the server tells people, on standard error: a line each.
package struct MessageLog: Sendable {
    package enum Format: Sendable { case text, json }
    enum Level: String { case detail, info, warning, error }

    let format: Format
    let verbosity: Verbosity
    private let speaker: Speaker
    /// Who speaks: the address this server listens on.
    var address = ""
    var mode = "starting"
    /// What was said once and is not to be repeated: the last few, as two may take turns.
    private var repeated: [String] = []
    private static let repeatedMax = 8

    init(format: Format, verbosity: Verbosity) throws(SystemError) {
        self.format = format
        self.verbosity = verbosity
        speaker = try Speaker()
    }

    /// Waits until all that was said has been written, but not for long.
    func finish() { speaker.finish() }

    func say(_ level: Level, _ text: String) {
        switch (level, verbosity) {
        case (.detail, .normal), (.detail, .quiet), (.info, .quiet): return
        case (.warning, _), (.error, _), (.info, _), (.detail, .verbose): break
        }
        switch format {
        case .text:
            let mark = level == .error || level == .warning ? "\(level.rawValue): " : ""
            // What came over the network may be in it: it is not to move the cursor.
            let plain = String(
                String.UnicodeScalarView(
                    text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? "?" : $0 }))
            speaker.message("\(Clock.timeOfDay()) pollsrv \(address) \(mode): \(mark)\(plain)")
        case .json: speaker.message(Self.object(level, text, address: address, mode: mode))
        }
    }

    /// For what is to be said before there is a server, or when none came about.
    package static func say(_ text: String, isError: Bool, format: Format) {
        switch format {
        case .text: Terminal.message("pollsrv: \(text)")
        case .json:
            Terminal.message(object(isError ? .error : .info, text, address: "", mode: "starting"))
        }
    }

    private static func object(_ level: Level, _ text: String, address: String, mode: String)
        -> String
    {
        "{\"time_ms\":\(Clock.wallMilliseconds()),\"address\":\(quoted(address)),"
            + "\"mode\":\"\(mode)\",\"level\":\"\(level.rawValue)\",\"message\":\(quoted(text))}"
    }

    func info(_ text: String) { say(.info, text) }
    func detail(_ text: String) { say(.detail, text) }
    func warning(_ text: String) { say(.warning, text) }
    func error(_ text: String) { say(.error, text) }

    /// What would otherwise be repeated while its cause lasts.
    mutating func warnOnce(_ text: String) {
        if isNew(text) { warning(text) }
    }

    mutating func infoOnce(_ text: String) {
        if isNew(text) { info(text) }
    }

    private mutating func isNew(_ text: String) -> Bool {
        guard !repeated.contains(text) else { return false }
        if repeated.count == Self.repeatedMax { repeated.removeFirst() }
        repeated.append(text)
        return true
    }

    mutating func forgetRepeated() { repeated = [] }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 32: result += " "
            case _: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
