/// How much a program says on standard error.
package enum Verbosity: Sendable {
    case quiet
    case normal
    case verbose
}
