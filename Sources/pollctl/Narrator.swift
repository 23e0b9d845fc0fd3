import Linux

/// Tells a person what happens, a line at a time, with the seconds since the beginning.
struct Narrator {
    enum Colour: String {
        case plain = ""
        case good = "32"
        case bad = "31"
        case change = "36"
    }

    private let watch = Stopwatch()
    private let hasColour = Terminal.hasColour(1)
    private let isQuiet: Bool

    private static let labelWidth = 10

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    var seconds: Double { watch.seconds }

    /// `  1.25 s  LABEL     text`.
    func say(_ label: String, _ text: String, _ colour: Colour = .plain) {
        guard !isQuiet else { return }
        let time = Text.rightPadded(Text.fixed(watch.seconds, 2), 6)
        let padded = painted(Text.padded(label, Self.labelWidth), colour)
        Terminal.print("\(time) s  \(padded)\(text)")
    }

    /// A line of its own, without a time.
    func line(_ text: String = "", _ colour: Colour = .plain) {
        guard !isQuiet else { return }
        Terminal.print(painted(text, colour))
    }

    private func painted(_ text: String, _ colour: Colour) -> String {
        hasColour && colour != .plain ? "\u{1b}[\(colour.rawValue)m\(text)\u{1b}[0m" : text
    }
}
