import Wire

/// What a room client needs of a server's answer to HELLO. It asks for less than a voter
/// (`Greeting`), which is an elector too: what `protocol.md` promises to all clients is enough.
struct RoomGreeting: Equatable, Sendable {
    var isPrimary: Bool
    /// The name of the service, whatever it looks like; nil while the server has joined none.
    var service: String?
    /// nil while the server knows of none.
    var view: VoterView?
    /// How long a primary may be silent before it counts as failed.
    var silenceMillisecondsMax: UInt64

    init(_ reply: RESPValue) throws(DecodeError) {
        if case .error(let text) = reply { throw DecodeError("it answers HELLO with: \(text)") }
        guard reply["proto"]?.number == 3 else { throw DecodeError("it does not speak RESP3") }
        guard let mode = reply["mode"]?.text else {
            throw DecodeError("its answer to HELLO has no mode: is it pollsrv?")
        }
        isPrimary = mode == "primary"
        service = reply["service"]?.text

        let primary = try Greeting.optional(reply["primary"], "primary") { Address(text: $0) }
        let backup = try Greeting.optional(reply["backup"], "backup") { Address(text: $0) }
        var backups = backup.map { [$0] } ?? []
        for item in reply["backups"]?.items ?? [] {
            let address = try Greeting.optional(item, "backups") { Address(text: $0) }
            if let address, !backups.contains(address) { backups.append(address) }
        }
        if let primary, let number = reply["view"]?.number, number > 0 {
            view = VoterView(
                number: ViewNumber(UInt64(number)), primary: primary, backups: backups)
        }
        let heartbeat = min(max(reply["heartbeat"]?.number ?? 1_000, 1), 86_400_000)
        let misses = min(max(reply["misses"]?.number ?? 5, 1), 1_000)
        silenceMillisecondsMax = UInt64(heartbeat * misses)
    }
}
