import Journal
package import Linux
package import Wire

extension Store {
    /// Instances that lived in this folder and whose journals were put aside, in the order in which
    /// that happened. None of them can run again: who has the folder's lock is another. One that is
    /// not readable is left out.
    package func formerInstances() throws(SystemError) -> [Instance] {
        let numbers = try disk.list(folder).compactMap { Survey.number($0, "aside-") }.sorted()
        var list: [Instance] = []
        for number in numbers {
            do {
                let bytes = try disk.read("\(folder)/aside-\(number)/identity")
                list.append(try Identity(text: String(decoding: bytes, as: UTF8.self)).instance)
            } catch let error as SystemError where !error.isMissing {
                throw error
            } catch {
                continue
            }
        }
        return list.filter { $0 != identity?.instance }
    }
}
