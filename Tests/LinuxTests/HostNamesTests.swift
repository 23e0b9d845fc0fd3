import Testing

@testable import Linux

@Suite struct HostNamesTests {
    /// An answer that comes when nobody waits for it any more serves the next who asks.
    @Test func anAnswerIsKept() throws {
        var names = HostNames()
        let digits = try names.addresses(of: "127.0.0.1", now: 0)
        #expect(digits == ["127.0.0.1"])
        let before = try names.addresses(of: "localhost", now: 0)
        let again = try names.addresses(of: "localhost", now: 0)
        #expect(before == nil && again == nil, "asked, and not asked twice")
        let fd = names.fd
        var poller = try Poller(eventsPerWaitMax: 1)
        try poller.add(try #require(fd))
        let count = poller.wait(milliseconds: 60_000)
        let answers = names.take(now: 1)
        #expect(count == 1 && answers.map(\.host) == ["localhost"])
        let known = try names.addresses(of: "localhost", now: 2)
        #expect(known == answers.first?.addresses)
        let more = poller.wait(milliseconds: 0)
        #expect(more == 0)
    }

    /// Behind a firewall that drops, the first address says nothing: it must not be the only one tried.
    @Test func aSilentAddressIsTriedLast() {
        var hosts = KnownHosts()
        hosts.note("a", ["1", "2", "3"], now: 5)
        hosts.turn("a")
        #expect(hosts.addresses(of: "a", now: 6) == ["2", "3", "1"])
        #expect(hosts.addresses(of: "b", now: 6) == nil)
        #expect(hosts.addresses(of: "a", now: 5 + KnownHosts.nanosecondsMax) == nil)
        hosts.note("a", [], now: 7)
        #expect(hosts.addresses(of: "a", now: 7) == nil)
    }
}
