import Linux

/// Asks for ballots at the terminal, one question at a time, without ever blocking.
struct TerminalBallots {
    struct Answer {
        var vote: UInt64
        var yes: Bool
    }

    private var questions: [VoterSession.Outbox.Question] = []
    private var isAsked = false
    private var input: [UInt8] = []
    /// Whether standard input tells when it can be read; a plain file always can.
    var isPolled = true
    var isReadable = false
    var hasEnded = false
    var hasSaidEnd = false
    var isLeaving = false

    mutating func add(_ list: [VoterSession.Outbox.Question], logged: UInt64) {
        questions += list
        if let first = questions.first, isAsked, first.vote <= logged {
            Terminal.print("\nvote \(first.vote) has closed")
            isAsked = false
        }
        questions.removeAll { $0.vote <= logged }
    }

    /// Reads what was typed and asks what is next.
    mutating func exchange(logged: UInt64) -> [Answer] {
        var answers: [Answer] = []
        if !questions.isEmpty, isReadable || !isPolled { read() }
        while let question = questions.first {
            if hasEnded, !input.contains(10) { break }
            if !isAsked {
                isAsked = true
                prompt("Vote \(question.vote): \(question.text) (yes/no)? ")
            }
            guard let end = input.firstIndex(of: 10) else { break }
            let line = String(decoding: input[..<end], as: UTF8.self).lowercased()
            input.removeFirst(end + 1)
            let word = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "\r" }).first
            switch word {
            case "y", "yes", "n", "no":
                answers.append(Answer(vote: question.vote, yes: word?.first == "y"))
                questions.removeFirst()
                isAsked = false
            default: prompt("Please answer yes or no: ")
            }
        }
        return answers
    }

    private mutating func read() {
        isReadable = false
        guard !hasEnded, input.count < 64 << 10 else { return }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 1)
        defer { buffer.deallocate() }
        switch IO.read(0, into: buffer) {
        case .bytes(let count): input.append(contentsOf: buffer[..<count])
        case .wouldBlock: return
        case .end, .failed: hasEnded = true
        }
    }

    private func prompt(_ text: String) {
        do {
            try IO.writeAll(1, Array(text.utf8))
        } catch {
            Terminal.message("pollclient: standard output: \(error)")
        }
    }
}
