package import Wire

/// The members of a view as voters see them: who collects the ballots.
package struct VoterView: Equatable, Sendable {
    package var number: ViewNumber
    package var primary: Address
    package var backups: [Address]

    package init(number: ViewNumber, primary: Address, backups: [Address]) {
        self.number = number
        self.primary = primary
        self.backups = backups
    }

    package init(_ view: View) {
        self.init(
            number: view.number,
            primary: view.primary.address,
            backups: view.backups.map(\.address)
        )
    }

    /// Takes the fields behind the kind of a `view` push: number, primary, backup or null, and the
    /// further backups of a group.
    package init(push fields: ArraySlice<RESPValue>) throws(DecodeError) {
        let fields = Array(fields)
        guard fields.count >= 3, let number = fields[0].number, number > 0,
            let primary = fields[1].text.flatMap({ Address(text: $0) })
        else { throw DecodeError("bad view push") }
        self.init(
            number: ViewNumber(UInt64(number)),
            primary: primary,
            backups: try Greeting.addresses(fields[2...])
        )
    }

    package var members: [Address] { [primary] + backups }

    /// Whether somebody has been promoted by force after this view, up to the view `later`. As whoever
    /// was promoted may have known an older view than this one only, the eras are compared and not
    /// the difference.
    func isBehindForce(of later: Self) -> Bool {
        number.era != later.number.era
    }
}

/// A replica's answer to HELLO.
package struct Greeting: Equatable, Sendable {
    /// nil while the replica has not joined a service.
    package var service: ServiceID?
    package var isPrimary: Bool
    /// nil while the replica knows of none.
    package var view: VoterView?
    package var instance: Instance
    package var heartbeatMilliseconds: UInt64
    package var misses: UInt64

    package init(
        service: ServiceID?,
        isPrimary: Bool,
        view: VoterView?,
        instance: Instance,
        heartbeatMilliseconds: UInt64 = 1_000,
        misses: UInt64 = 5
    ) {
        self.service = service
        self.isPrimary = isPrimary
        self.view = view
        self.instance = instance
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.misses = misses
    }

    package init(_ reply: RESPValue) throws(DecodeError) {
        if case .error(let text) = reply { throw DecodeError("it answers HELLO with: \(text)") }
        guard let server = reply["server"]?.text else {
            throw DecodeError("its answer to HELLO names no server")
        }
        guard server == "pollsrv" else { throw DecodeError("it is '\(server.prefix(64))'") }
        guard reply["proto"]?.number == 3 else { throw DecodeError("it does not speak RESP3") }
        guard let instance = reply["instance"]?.text.flatMap({ Instance(text: $0) }) else {
            throw DecodeError("its answer to HELLO has no instance")
        }
        self.instance = instance
        service = try Self.optional(reply["service"], "service") { ServiceID(text: $0) }
        isPrimary = reply["mode"]?.text == "primary"

        let primary = try Self.optional(reply["primary"], "primary") { Address(text: $0) }
        // All of a group's, or else the one.
        let backups = try Self.addresses(
            reply["backups"]?.items?[...] ?? [reply["backup"] ?? .null])
        let number = reply["view"]?.number ?? 0
        if let primary, number > 0 {
            view = VoterView(
                number: ViewNumber(UInt64(number)),
                primary: primary,
                backups: backups
            )
        }
        let day: Int64 = 86_400_000
        heartbeatMilliseconds = UInt64(min(max(reply["heartbeat"]?.number ?? 1_000, 1), day))
        misses = UInt64(min(max(reply["misses"]?.number ?? 5, 1), 1_000))
    }

    /// How long a primary may be silent before it counts as failed.
    package var silenceMillisecondsMax: UInt64 { heartbeatMilliseconds * misses }

    /// The addresses of backups; those that are null are none.
    static func addresses(_ fields: ArraySlice<RESPValue>) throws(DecodeError) -> [Address] {
        var list: [Address] = []
        for field in fields {
            if let one = try optional(field, "backup", { Address(text: $0) }) { list.append(one) }
        }
        return list
    }

    /// nil for a null or a missing field; a field that is there must be right.
    static func optional<Value>(
        _ field: RESPValue?,
        _ name: String,
        _ parse: (String) -> Value?
    ) throws(DecodeError) -> Value? {
        guard let field, field != .null else { return nil }
        guard let value = field.text.flatMap(parse) else {
            throw DecodeError("bad \(name) in its answer to HELLO")
        }
        return value
    }
}
