import Foundation
import Testing

@testable import Linux

/// Whoever reads what a program says may pause for as long as he likes.
@Suite struct SpeakerTests {
    @Test func aPausedReaderHoldsUpNobody() throws {
        let (output, messages) = (Pipe(), Pipe())
        let speaker = try Speaker(
            output: output.fileHandleForWriting.fileDescriptor,
            messages: messages.fileHandleForWriting.fileDescriptor, bytesMax: 200_000)
        // More than the pipe and the queue take, and nobody reads yet.
        let line = String(repeating: "x", count: 99) + "\n"
        for _ in 0..<10_000 { speaker.show(line) }
        #expect(!speaker.finish(milliseconds: 50))
        let reading = Reading(output.fileHandleForReading)
        #expect(speaker.finish(milliseconds: 60_000))
        speaker.show("last\n")
        #expect(speaker.finish(milliseconds: 60_000))
        try output.fileHandleForWriting.close()
        try messages.fileHandleForWriting.close()
        let text = reading.text
        #expect(text.hasSuffix("last\n") && text.utf8.count % 100 == 5)
        #expect((200_000..<400_000).contains(text.utf8.count))
        let said = String(
            decoding: messages.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        // Told of in several pieces, if something was taken in between.
        let omitted = said.split(separator: "\n").map { line in
            #expect(line.hasSuffix(" pieces of text were left out: nobody took them)"))
            return Int(line.dropFirst().prefix { $0.isNumber }) ?? 0
        }
        #expect(omitted.reduce(0, +) == 10_000 - (text.utf8.count - 5) / 100)
    }

    /// Takes all that comes, on a thread of its own.
    private final class Reading: @unchecked Sendable {
        private let done = DispatchSemaphore(value: 0)
        private var data = Data()

        init(_ file: FileHandle) {
            Thread.detachNewThread { [self] in
                data = file.readDataToEndOfFile()
                done.signal()
            }
        }

        var text: String {
            done.wait()
            return String(decoding: data, as: UTF8.self)
        }
    }
}
