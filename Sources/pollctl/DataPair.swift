import Arguments
import Client
import Linux
import Wire

/// A pair of servers of our own, with journals in a folder or in memory. Their folders are blank
/// before and gone afterwards.
final class DataPair {
    static let roles = ["primary", "backup"]

    let primary: ServerReport
    private let pair: LocalPair
    private let household: Household
    private let path: String?

    /// The folder in which a pair may be started: neither replica's is there, or it is empty.
    static func blank(_ folder: String) throws(Failure) -> String {
        let path = Files.absolute(folder)
        for role in roles where Files.exists("\(path)/\(role)") {
            let names: [String]
            do throws(SystemError) {
                names = try Files.list("\(path)/\(role)")
            } catch { throw Failure(error) }
            guard names.isEmpty else {
                throw Failure("\(path)/\(role) is there and not empty; give another folder", .io)
            }
        }
        do throws(SystemError) { try Files.makeFolder(path) } catch { throw Failure(error) }
        return path
    }

    /// `path`: as `blank` gave it; nil: in memory.
    init(_ household: Household, _ path: String?, sync: String) throws(Failure) {
        self.household = household
        self.path = path
        pair = try LocalPair(household)
        var pids: [Int32] = []
        do throws(Failure) {
            for role in Self.roles {
                var flags = ["--quiet", "--no-restart"]
                if let path { flags += ["--data", "\(path)/\(role)", "--sync", sync] }
                pids.append(try pair.start(role, flags))
            }
            primary = try pair.waitForPair("the two servers to become a pair", pids)
        } catch {
            Self.end(household, path)
            throw error
        }
    }

    var messages: String { pair.messages }

    /// The primary's, then the backup's.
    func reports() throws(Failure) -> [ServerReport] {
        var list: [ServerReport] = []
        for address in pair.addresses {
            do throws(CommandFailure) {
                list.append(try ServerReport.of(address, milliseconds: 5_000))
            } catch {
                throw Failure("\(error)")
            }
        }
        return list.sorted { $0.isPrimary && !$1.isPrimary }
    }

    func end() { Self.end(household, path) }

    private static func end(_ household: Household, _ path: String?) {
        household.endAll()
        guard let path else { return }
        for role in roles {
            guard let names = try? Files.list("\(path)/\(role)") else { continue }
            for name in names { try? Files.remove("\(path)/\(role)/\(name)") }
            try? Files.removeFolder("\(path)/\(role)")
        }
    }
}
