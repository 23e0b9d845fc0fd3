import Linux
import Storage

/// What the loop's helpers share with it.
final class Helpers: Sendable {
    /// One for checkpoints, which take long; one for segments, for which requests wait.
    let checkpoints: Worker
    let segments: Worker
    let waker: LoopWaker

    static func start() throws(StoreError) -> Helpers {
        do throws(SystemError) {
            return try Helpers()
        } catch {
            throw .system(error)
        }
    }

    private init() throws(SystemError) {
        checkpoints = try Worker()
        segments = try Worker()
        waker = try LoopWaker()
    }

    /// As `options`, with what takes long done beside the loop.
    func serve(_ options: Store.Options) -> Store.Options {
        var options = options
        let (checkpoints, segments) = (checkpoints, segments)
        options.runBeside = { (work: @escaping @Sendable () -> Void) throws(SystemError) in
            checkpoints.run(work)
        }
        options.beginBeside = { segments.run($0) }
        options.onBegun = { [self] in waker.wake() }
        return options
    }
}
