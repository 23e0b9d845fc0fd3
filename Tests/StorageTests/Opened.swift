import Journal
import Simulator
import Storage
import Wire

struct Opened: ~Copyable {
    var store: Store
    let recovered: Recovered?
}

/// Opens `/d`, begun or resumed.
func open(_ disk: SimulatedDisk, options: Store.Options = Script.options()) throws -> Opened {
    var store = try Store(folder: "/d", service: nil, disk: disk, options: options)
    if store.identity == nil {
        try store.create(Sample.identity)
        return Opened(store: store, recovered: nil)
    }
    let found = try store.resume(isPeerReachable: false)
    return Opened(store: store, recovered: found.recovered)
}

func entry(_ op: UInt64, size: Int = 30) -> Record {
    .entry(Sample.entry(1, OpNumber(op), count: 1, size: size, fill: UInt8(op & 0xff)))
}
