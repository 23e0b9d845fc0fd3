import Linux

/// What the server tells people, on standard error: a line each.
package struct MessageLog: Sendable {
    package enum Format: Sendable { case text, json }
    package enum Verbosity: Int, Sendable { case quiet, normal, verbose }
    enum Level: String { case detail, info, warning, error }

    let format: Format
    let verbosity: Verbosity
    /// Who speaks: the address this server listens on.
    var address = ""
    var mode = "starting"
    private var lastRepeated = ""

    init(format: Format, verbosity: Verbosity) {
        self.format = format
        self.verbosity = verbosity
    }

    func say(_ level: Level, _ text: String) {
        switch (level, verbosity) {
        case (.detail, .normal), (.detail, .quiet), (.info, .quiet): return
        case (.warning, _), (.error, _), (.info, _), (.detail, .verbose): break
        }
        switch format {
        case .text:
            let mark = level == .error || level == .warning ? "\(level.rawValue): " : ""
            Terminal.message("\(Clock.timeOfDay()) pollsrv \(address) \(mode): \(mark)\(text)")
        case .json:
            Terminal.message(
                "{\"time_ms\":\(Clock.wallMilliseconds()),\"address\":\(quoted(address)),"
                    + "\"mode\":\"\(mode)\",\"level\":\"\(level.rawValue)\","
                    + "\"message\":\(quoted(text))}")
        }
    }

    func info(_ text: String) { say(.info, text) }
    func detail(_ text: String) { say(.detail, text) }
    func warning(_ text: String) { say(.warning, text) }
    func error(_ text: String) { say(.error, text) }

    /// What would otherwise be repeated while its cause lasts.
    mutating func warnOnce(_ text: String) {
        guard text != lastRepeated else { return }
        lastRepeated = text
        warning(text)
    }

    mutating func infoOnce(_ text: String) {
        guard text != lastRepeated else { return }
        lastRepeated = text
        info(text)
    }

    mutating func forgetRepeated() { lastRepeated = "" }

    private func quoted(_ text: String) -> String {
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
