import Linux

/// What a command was asked for, on standard output.
enum Output {
    /// Writes a line. A full disk, or a reader that has gone away, must not pass for success: who
    /// asked would take what is missing for all there was.
    static func print(_ text: String) throws(Failure) {
        do throws(SystemError) {
            try Terminal.write(text)
        } catch {
            throw Failure(error)
        }
    }

    /// As `print`, for the word that something was done: it is, whether or not that can be said here.
    static func report(_ text: String) throws(Failure) {
        do throws(Failure) {
            try print(text)
        } catch {
            throw Failure("done (\(text)), but: \(error.text)", like: error)
        }
    }
}
