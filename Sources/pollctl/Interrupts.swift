import Linux

/// Ctrl-C and its like. From its making on they do not end the process: what is to be tidied up looks
/// for them where it can stop.
final class Interrupts {
    private let signals: SignalQueue
    private let consequence: String

    /// `consequence`: what has come of what was begun, for the message.
    init(_ consequence: String) throws(Failure) {
        self.consequence = consequence
        do throws(SystemError) {
            signals = try SignalQueue([Signals.interrupt, Signals.terminate, Signals.hangUp])
        } catch { throw Failure(error) }
    }

    /// Readable when there is one.
    var fd: CInt { signals.fd.raw }

    /// Throws when somebody wants us to end.
    func check() throws(Failure) {
        if let signal = signals.next() { throw .interrupted(by: signal, consequence) }
    }
}
