import Foundation

/// Fills journals quickly: votes with long questions, which close by their deadlines.
enum Filler {
    static func fill(_ pair: DiskPair, during seconds: Double) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        try fill(pair) { ContinuousClock.now >= end }
    }

    /// Goes on until `isEnough`, whoever leads.
    static func fill(_ pair: DiskPair, within seconds: Double = 60, until isEnough: () -> Bool)
        throws
    {
        let question = String(repeating: "why ", count: 1_000)
        let command = "VOTE.OPEN \"\(question)\" DEADLINE 50 ROLL open\r\n"
        let deadline = ContinuousClock.now + .seconds(seconds)
        while !isEnough() {
            guard ContinuousClock.now < deadline else {
                throw Trouble("not filled\n\(pair.cluster.words)")
            }
            for port in pair.cluster.ports {
                do {
                    let client = try RawClient(port)
                    try client.send(Array(String(repeating: command, count: 16).utf8))
                    for _ in 0..<16 { _ = try client.receive() }
                } catch {
                    // It may have ended just now, which the caller looks for.
                }
            }
            usleep(1_000)
        }
    }
}

/// A folder's names, and the bytes of its files.
struct Snapshot: Equatable {
    private var files: [String: Data?] = [:]

    init(_ folder: String) throws {
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder) {
            files[name] = .some(FileManager.default.contents(atPath: "\(folder)/\(name)"))
        }
    }
}
