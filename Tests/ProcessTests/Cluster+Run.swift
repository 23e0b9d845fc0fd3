import Foundation

/// What came of a program that has run to its end.
struct Outcome: Equatable {
    let status: Int32
    let output: String
    let error: String

    init(_ status: Int32, _ output: String = "", _ error: String = "") {
        self.status = status
        self.output = output
        self.error = error
    }
}

extension Cluster {
    /// Runs a program to its end.
    func run(
        _ program: String, _ arguments: [String], environment: [String: String] = [:],
        within seconds: Double = 60
    ) throws -> Outcome {
        let name = "\(program)-\(UInt32.random(in: 0 ... .max))"
        try start(name, program, arguments, environment: environment)
        let status = try waitForExit(name, within: seconds)
        return Outcome(status, said(name, "out"), said(name, "err"))
    }

    /// Whether this machine and its user can do that.
    static func succeeds(_ command: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = command
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        do { try process.run() } catch { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
