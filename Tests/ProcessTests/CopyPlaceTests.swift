import Foundation
import Testing

extension ProcessSuite {
    /// Where `pollctl backup` is to put the copy.
    @Suite(.serialized) struct CopyPlaces {
        /// So many openings go well there: a folder may be one to write in, but not to be opened.
        @Test(
            .enabled(if: FaultDisk.compiler != nil, "it takes a C compiler"), arguments: 0...2)
        func aWholeCopyOrNone(opened: Int) throws {
            let cluster = try Cluster()
            defer { cluster.end() }
            try cluster.primary(Cluster.quick + ["--no-restart"])
            _ = try cluster.eventually("the primary") { cluster.leader }
            let folder = cluster.folder.path + "/copies"
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: false)
            let disk = try FaultDisk(folder: folder, home: cluster.folder)
            try disk.set(["open * \(opened) 0 \(EACCES)"])
            try cluster.start(
                "copying", "pollctl", ["backup", folder + "/copy", "--servers", cluster.servers],
                environment: disk.environment)
            let status = try cluster.waitForExit("copying", within: 60)
            #expect(status == (opened < 2 ? 74 : 0), "\(cluster.words)")
            let names = try FileManager.default.contentsOfDirectory(atPath: folder)
            #expect(names == (status == 0 ? ["copy"] : []))
        }
    }
}
