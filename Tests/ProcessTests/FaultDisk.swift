import Foundation

/// A disk that fails on demand under the folder of one server: `Shim/faultdisk.c`, built and loaded
/// into it. What a fault looks like is told there.
struct FaultDisk {
    private let control: URL
    let environment: [String: String]

    static let noSpace = ENOSPC
    static let inputOutput = EIO

    /// nil: there is none on the PATH.
    static let compiler: String? = {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        for name in ["clang", "cc", "gcc"] {
            for folder in path.split(separator: ":") {
                let program = "\(folder)/\(name)"
                if FileManager.default.isExecutableFile(atPath: program) { return program }
            }
        }
        return nil
    }()

    /// `folder`: as the server is given it. The files are put into `home`.
    init(folder: String, home: URL) throws {
        let name = URL(filePath: folder).lastPathComponent
        control = home.appending(path: "\(name).faults")
        let library = home.appending(path: "faultdisk.so").path
        if !FileManager.default.fileExists(atPath: library) {
            let source = URL(filePath: #filePath).deletingLastPathComponent()
                .appending(path: "Shim/faultdisk.c").path
            try Self.build(source, library)
        }
        environment = [
            "LD_PRELOAD": library, "FAULTDISK_FOLDER": folder, "FAULTDISK_CONTROL": control.path,
        ]
    }

    private static func build(_ source: String, _ library: String) throws {
        guard let compiler else { throw Trouble("no C compiler") }
        let process = Process()
        process.executableURL = URL(filePath: compiler)
        process.arguments = [
            "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o", library, source,
            "-ldl", "-lpthread",
        ]
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Trouble("\(source) does not compile") }
    }

    /// From the next call on.
    func set(_ faults: [String]) throws {
        try Data((faults.joined(separator: "\n") + "\n").utf8).write(to: control, options: .atomic)
    }

    func heal() throws { try set([]) }

    /// The calls that a fault struck, with their paths.
    var hits: [String] {
        let text = try? String(contentsOfFile: control.path + ".hits", encoding: .utf8)
        return (text ?? "").split(separator: "\n").map(String.init)
    }

    func forgetHits() { unlink(control.path + ".hits") }
}
