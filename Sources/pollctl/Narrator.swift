import Linux

/// Tells a person what happens, a line at a time, with the seconds since the beginning.
final class Narrator {
    enum Colour: String {
        case plain = ""
        case good = "32"
        case bad = "31"
        case change = "36"
    }

    private let watch = Stopwatch()
    private let hasColour = Terminal.hasColour(1)
    private let isQuiet: Bool
    /// The first line that could not be written; nothing is said after it.
    private var failure: Failure?

    private static let labelWidth = 10

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    var seconds: Double { watch.seconds }

    /// `  1.25 s  LABEL     text`.
    func say(_ label: String, _ text: String, _ colour: Colour = .plain) {
        guard !isQuiet else { return }
        let time = Text.rightPadded(Text.fixed(watch.seconds, 2), 6)
        let padded = painted(Text.padded(label, Self.labelWidth), colour)
        print("\(time) s  \(padded)\(text)")
    }

    /// Throws when not all could be said. To be asked at the end: what is told of goes on without a
    /// listener, and has to be ended in order.
    func checkSaid() throws(Failure) {
        if let failure { throw failure }
    }

    /// A line of its own, without a time.
    func line(_ text: String = "", _ colour: Colour = .plain) {
        guard !isQuiet else { return }
        print(painted(text, colour))
    }

    private func print(_ text: String) {
        guard failure == nil else { return }
        do throws(Failure) {
            try Output.print(text)
        } catch {
            failure = error
        }
    }

    private func painted(_ text: String, _ colour: Colour) -> String {
        hasColour && colour != .plain ? "\u{1b}[\(colour.rawValue)m\(text)\u{1b}[0m" : text
    }
}
