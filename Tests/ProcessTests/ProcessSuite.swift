import Testing

/// What uses real processes, one after the other, but for `Disks`, which has a row of its own beside
/// this one. Two at a time are what two cores are enough for: they wait more than they compute.
@Suite(.serialized) struct ProcessSuite {}
