import Foundation
import Testing

extension ProcessSuite {
    /// A program that dies of a defect of ours; these only seem to.
    @Suite(.serialized) struct Defects {
        @Test(arguments: [
            ("pollclient", ["--name", "ann", "--log", "ann.log"]), ("reserveclient", ["rooms"]),
            ("pollctl", ["results", "--timeout", "10m", "--verbose"]),
        ])
        func exitCode(program: String, arguments: [String]) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            let process = try cluster.start(
                "it", program, arguments + ["--servers", "127.0.0.1:1"])
            _ = try cluster.eventually("its word that there is no server") {
                cluster.said("it", "err").isEmpty ? nil : true
            }
            kill(process.processIdentifier, SIGILL)
            #expect(try cluster.waitForExit("it") == 70)
            #expect(process.terminationReason == .exit)
            let words = "\(program): a defect has ended this process"
            #expect(cluster.said("it", "err").contains(words), "\(cluster.words)")
        }
    }
}
