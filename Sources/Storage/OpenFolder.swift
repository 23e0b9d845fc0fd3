import Journal
import Linux
import Wire

/// A folder that exists and whose lock was tried.
struct OpenFolder {
    /// nil: another has it.
    let lock: OpenFile?
    let names: [String]

    init(_ folder: String, _ disk: any Disk) throws(SystemError) {
        do throws(SystemError) {
            _ = try disk.list(folder)
        } catch {
            guard error.isMissing else { throw error }
            try Self.make(folder, disk)
        }
        lock = try disk.lock("\(folder)/lock")
        guard let lock else {
            names = []
            return
        }
        do throws(SystemError) {
            names = try disk.list(folder)
        } catch {
            disk.close(lock)
            throw error
        }
    }

    /// With those above it that are missing.
    private static func make(_ folder: String, _ disk: any Disk) throws(SystemError) {
        let parent = parent(of: folder)
        do throws(SystemError) {
            try disk.makeFolder(folder)
        } catch {
            guard error.isMissing, parent != folder else { throw error }
            try make(parent, disk)
            try disk.makeFolder(folder)
        }
        // A folder whose name is lost with the power takes everything in it along.
        try disk.syncFolder(parent)
    }

    static func parent(of path: String) -> String {
        var rest = path[...]
        while rest.count > 1, rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let slash = rest.lastIndex(of: "/") else { return "." }
        return slash == rest.startIndex ? "/" : String(rest[..<slash])
    }
}

extension Store {
    /// Whose the folder is and what is in it; nils when it is blank.
    static func look(
        _ folder: String, _ disk: any Disk, _ names: [String], _ service: ServiceID?,
        _ id: WantedID
    ) throws(StoreError) -> (Identity?, Survey?) {
        guard names.contains("identity") else {
            try checkBlank(folder, disk, names)
            return (nil, nil)
        }
        let path = "\(folder)/identity"
        let text = try system { () throws(SystemError) in
            String(decoding: try disk.read(path), as: UTF8.self)
        }
        let identity: Identity
        do throws(DecodeError) {
            identity = try Identity(text: text)
        } catch {
            let advice = "put the right file back, or start in an empty folder and join"
            throw .refused(path: path, reason: "\(error.text); \(advice)")
        }
        if let service, service != identity.service {
            throw .refused(
                path: folder, reason: "of service \(identity.service), not of \(service)")
        }
        guard id.isMet(by: identity.id) else {
            let wanted = id.description(insteadOf: identity.id)
            throw .refused(
                path: folder, reason: "of the replica with id \(identity.id), not \(wanted)")
        }
        let survey = try system { () throws(SystemError) in
            try Survey(
                identity: identity, names: names,
                load: { name throws(SystemError) in try disk.read("\(folder)/\(name)") },
                // As good as rotten, and mended like that. Any other failure may pass by itself.
                unreadable: { error in
                    error.isUnreadable ? SystemError(error.call, code: error.code).description : nil
                }
            )
        }
        return (identity, survey)
    }

    /// A process may have ended just when it had put the last file aside: the folder is blank, and
    /// might not be after a loss of power, when another replica has long begun in it.
    static func settle(_ folder: String, _ disk: any Disk, _ names: [String]) throws(StoreError) {
        let numbers = names.compactMap { Survey.number($0, "aside-") }
        guard let last = numbers.max() else { return }
        try system { () throws(SystemError) in
            try disk.syncFolder("\(folder)/aside-\(last)")
            try disk.syncFolder(folder)
        }
    }

    /// The newest folder with what was put aside.
    static func aside(_ folder: String, _ names: [String]) -> String? {
        names.compactMap { Survey.number($0, "aside-") }.max().map { "\(folder)/aside-\($0)" }
    }

    /// Whose the records are that were put aside.
    static func former(_ folder: String, _ disk: any Disk, _ names: [String]) -> [Instance] {
        let numbers = names.compactMap { Survey.number($0, "aside-") }.sorted()
        return numbers.suffix(formerMax).compactMap { number in
            // One that cannot be read says nothing, and is of no other use.
            guard let bytes = try? disk.read("\(folder)/aside-\(number)/identity") else {
                return nil
            }
            return try? Identity(text: String(decoding: bytes, as: UTF8.self)).instance
        }
    }

    /// Without an identity there may be no more than a first segment as it was born: the process
    /// ended while it made the journal, and nobody had heard of it yet.
    private static func checkBlank(_ folder: String, _ disk: any Disk, _ names: [String])
        throws(StoreError)
    {
        let first = SegmentHeader.name(1)
        for name in names where isJournal(name) {
            if name.hasSuffix(besideSuffix) { continue }
            var isEmpty = false
            if name == first {
                let bytes = try system { () throws(SystemError) in
                    try disk.read("\(folder)/\(name)")
                }
                isEmpty = isNewborn(bytes)
            }
            guard isEmpty else {
                throw .refused(
                    path: "\(folder)/identity",
                    reason: "missing, though there is \(name); put it back, or start in an empty "
                        + "folder and join")
            }
        }
    }

    private static func isNewborn(_ bytes: [UInt8]) -> Bool {
        do throws(Flaw) {
            let header = try SegmentHeader(bytes.span)
            return bytes.dropFirst(header.born).allSatisfy { $0 == 0 }
        } catch {
            return false
        }
    }

    private static func system<Result>(_ body: () throws(SystemError) -> Result)
        throws(StoreError) -> Result
    {
        do throws(SystemError) {
            return try body()
        } catch {
            throw .system(error)
        }
    }
}
