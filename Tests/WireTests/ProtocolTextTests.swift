import Foundation
import Testing
import Wire

/// The examples in protocol.md, read as a stranger would: what stands there must be what is spoken.
@Suite struct ProtocolTextTests {
    static let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
    static let file = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appending(path: "protocol.md")

    /// The words of each array in the examples, commands and pushes alike.
    static let examples = bytes(in: text).compactMap { bytes -> [[UInt8]]? in
        var parser = CommandParser()
        let command = [UInt8(ascii: "*")] + bytes.dropFirst()
        guard parser.parse(command.span, from: 0, limits: .replica) == .command,
            parser.next == command.count
        else { return nil }
        return parser.ranges.map { Array(command[$0]) }
    }

    /// An example begins on a line with `*` or `>`, behind the speaker's letter if there is one, and
    /// goes on in lines that are set in. Behind two blanks stands a remark.
    static func bytes(in text: String) -> [[UInt8]] {
        var found: [[UInt8]] = []
        var goesOn = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            var rest = line[...]
            if rest.hasPrefix("C  ") || rest.hasPrefix("S  ") { rest = rest.dropFirst(3) }
            let begins = (rest.hasPrefix("*") || rest.hasPrefix(">")) && rest.contains("\\r\\n")
            goesOn = begins || goesOn && line.hasPrefix("   ")
            guard goesOn else { continue }
            if begins { found.append([]) }
            let said = rest.drop { $0 == " " }
            let end = said.firstRange(of: "  ")?.lowerBound ?? said.endIndex
            for word in said[..<end].split(separator: " ") {
                found[found.count - 1] += spelled(word)
            }
        }
        return found
    }

    /// `1f` and `'a'` are a byte each; else what stands there, with CR LF as `\r\n`.
    static func spelled(_ word: Substring) -> [UInt8] {
        let letters = Array(word.utf8)
        if letters.count == 2, let byte = UInt8(word, radix: 16) { return [byte] }
        if letters.count == 3, letters.first == UInt8(ascii: "'"), letters.last == letters.first {
            return [letters[1]]
        }
        return Array(word.replacing("\\r\\n", with: "\r\n").utf8)
    }

    static func words(_ example: [[UInt8]]) -> [String] {
        example.map { String(decoding: $0, as: UTF8.self) }
    }

    /// Replies and pushes with numbers in them are no commands, and stand for themselves.
    @Test func whatReplicasAndWitnessesSayIsUnderstood() throws {
        var kinds: Set<String> = []
        for example in Self.examples {
            let words = Self.words(example)
            guard ["PEER", "WITNESS", "witness"].contains(words[0]), words[1] != "hello",
                words[1] != "OFFER"
            else { continue }
            let message = try Message(fields: Array(example.dropFirst()))
            #expect(message.fields == Array(example.dropFirst()), "\(words)")
            kinds.insert(words[1])
        }
        #expect(kinds == ["seek", "grant", "relay", "prepare", "prepareok"])
    }

    @Test func versionIsTheOneThatIsSpoken() throws {
        let version = "\(Message.protocolVersion)"
        for words in ["Protocol version \(version).", "| VERSION | `\(version)`;"] {
            let isThere = Self.text.contains(words)
            #expect(isThere, "\(words)")
        }
        let hello = try #require(
            Self.examples.map(Self.words).first { $0.starts(with: ["PEER", "hello"]) })
        #expect(hello[2] == version)
        #expect(hello.count == 10)
        #expect(Member(text: hello[5]) != nil)
    }

    @Test func everyMessageIsInTheTable() {
        for message in MessageTests.messages {
            let kind = String(decoding: message.fields[0], as: UTF8.self)
            let isThere = Self.text.contains("\n| `\(kind)` |")
            #expect(isThere, "\(kind)")
        }
    }
}
