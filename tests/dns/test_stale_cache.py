"""Good answers past their time: used only while the DNS fails (RFC 8767), and not to be flushed by
whoever sends much mail."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from dmarc_milter.core.resolver import Kept as Derived
from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    NoData,
    NoSuchName,
    Shortage,
    derive,
    stale_answers,
)
from dmarc_milter.dns.answer import Answer, failed
from dmarc_milter.dns.resolver import CacheLimits, DnsResolver
from dmarc_milter.dns.stale_cache import SETTLED, StaleCache
from dmarc_milter.process.loop import Loop
from fakes.dns_server import DnsServer

HOUR = 3600.0
DAY = 24 * HOUR
POLICY, KEY = "_dmarc.legit.example", "sel._domainkey.legit.example"
RECORD = "v=DMARC1; p=reject"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def dns(running: DnsServer) -> DnsServer:
    running.replace(
        {
            POLICY: {"TXT": [RECORD], "ttl": 60},
            KEY: {"TXT": ["v=DKIM1; p=AAAA"], "ttl": 60},
            "legit.example": {"TXT": ["x"]},
        }
    )
    running.behaviour, running.delay = "", 0.0
    running.clear()
    return running


@pytest.fixture
def source(dns: DnsServer, clock: Clock) -> Iterator[DnsResolver]:
    resolver = DnsResolver(
        Loop(), [dns.nameserver], timeout=0.4, memory=CacheLimits(stale_seconds=DAY), clock=clock
    )
    yield resolver
    resolver.close()


@pytest.mark.parametrize(
    "behaviour", ["servfail", "refused", "silent", "garbage", "truncated_reset", "formerr"]
)
@pytest.mark.parametrize("name", [POLICY, KEY])
def test_a_failing_name_says_what_it_last_said(
    dns: DnsServer, source: DnsResolver, clock: Clock, name: str, behaviour: str
) -> None:
    """A policy and a DKIM key, whatever kind of failure; it is told with its age."""
    said = source.for_message().txt(name)
    dns.behaviour = behaviour
    clock.now += 5 * HOUR
    resolver = source.for_message()
    assert resolver.txt(name) == said
    assert stale_answers(resolver) == ((name, 5 * HOUR),)
    assert source.counters.stale == 1


def test_it_is_used_for_the_hours_given_and_no_longer(
    dns: DnsServer, source: DnsResolver, clock: Clock
) -> None:
    """TTL 60: until a day after that."""
    source.for_message().txt(POLICY)
    dns.behaviour = "servfail"
    clock.now += DAY + 59
    assert source.for_message().txt(POLICY)
    clock.now += 1
    with pytest.raises(LookupFailed):
        source.for_message().txt(POLICY)


def test_the_dns_is_asked_each_time_and_believed_at_once(
    dns: DnsServer, source: DnsResolver, clock: Clock
) -> None:
    """Nothing that rests on an old answer outlives its message."""
    source.for_message().txt(POLICY)
    dns.behaviour = "servfail"
    clock.now += HOUR
    for _ in range(2):
        dns.clear()
        resolver = source.for_message()
        assert derive(resolver, "policy", lambda scope: Derived(scope.txt(POLICY), keep=True)) == (
            RECORD.encode(),
        )
        assert dns.count(POLICY) == 1
    dns.behaviour = ""
    dns.put(POLICY, {"TXT": ["v=DMARC1; p=none"], "ttl": 60})
    resolver = source.for_message()
    assert derive(resolver, "policy", lambda scope: Derived(scope.txt(POLICY), keep=True)) == (
        b"v=DMARC1; p=none",
    )
    assert stale_answers(resolver) == ()


@pytest.mark.parametrize(
    ("spec", "failure"),
    [
        ({"behaviour": "nxdomain", "no_soa": True}, NoSuchName),
        ({"TXT": [], "no_soa": True}, NoData),
    ],
)
def test_a_name_that_said_no_is_not_revived(
    dns: DnsServer,
    source: DnsResolver,
    clock: Clock,
    spec: dict[str, object],
    failure: type[Exception],
) -> None:
    """A record that its owner withdrew stays withdrawn, also when the DNS fails later."""
    source.for_message().txt(POLICY)
    clock.now += HOUR
    dns.put(POLICY, spec)
    for _ in range(2):
        with pytest.raises(failure):
            source.for_message().txt(POLICY)
    dns.behaviour = "servfail"
    with pytest.raises(LookupFailed):
        source.for_message().txt(POLICY)


@pytest.mark.parametrize("name", ["legit.example", "x._report._dmarc.legit.example"])
def test_other_records_have_their_time_and_no_more(
    dns: DnsServer, source: DnsResolver, clock: Clock, name: str
) -> None:
    """An SPF record that fails is temperror."""
    dns.put(name, {"TXT": ["x"], "ttl": 60})
    source.for_message().txt(name)
    dns.behaviour = "servfail"
    clock.now += HOUR
    with pytest.raises(LookupFailed):
        source.for_message().txt(name)


def test_an_answer_with_no_time_at_all_is_not_kept(dns: DnsServer, source: DnsResolver) -> None:
    """TTL 0 is for one message (RFC 1035 3.2.1, RFC 8767 4)."""
    dns.put(POLICY, {"TXT": [RECORD], "ttl": 0})
    source.for_message().txt(POLICY)
    dns.behaviour = "servfail"
    with pytest.raises(LookupFailed):
        source.for_message().txt(POLICY)


def test_what_was_replaced_is_not_revived_even_if_its_successor_may_not_be_kept(
    dns: DnsServer, source: DnsResolver, clock: Clock
) -> None:
    """A key that is revoked with TTL 0 (RFC 6376 3.6.1: an empty p=) stays revoked. The same record
    in its last second teaches nothing."""
    for text, revived in (("v=DKIM1; p=AAAA", True), ("v=DKIM1; p=", False)):
        source.for_message().txt(KEY)
        clock.now += HOUR
        dns.put(KEY, {"TXT": [text], "ttl": 0})
        assert source.for_message().txt(KEY) == (text.encode(),)
        dns.put(KEY, {"behaviour": "servfail"})
        if revived:
            assert source.for_message().txt(KEY) == (text.encode(),)
        else:
            with pytest.raises(LookupFailed):
                source.for_message().txt(KEY)
        dns.put(KEY, {"TXT": ["v=DKIM1; p=AAAA"], "ttl": 60})


def test_a_messages_own_limit_is_no_failure_of_the_dns(
    dns: DnsServer, source: DnsResolver, clock: Clock
) -> None:
    """Whoever uses up his questions gets no old answer for it."""
    source.for_message().txt(POLICY)
    clock.now += HOUR
    resolver = source.for_message(max_queries=1)
    resolver.txt("legit.example")
    with pytest.raises(LimitExceeded):
        resolver.txt(POLICY)


def test_our_own_shortage_is_no_failure_of_the_dns(
    source: DnsResolver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DNS was not even asked: the message waits (451 4.3.2), and gets no old answer."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    source.for_message().txt(POLICY)
    clock.now += HOUR
    with monkeypatch.context() as patch:
        patch.setattr("dmarc_milter.dns.attempt.socket.socket", refuse)
        resolver = source.for_message()
        with pytest.raises(Shortage):
            resolver.txt(POLICY)
        assert stale_answers(resolver) == ()


def test_a_closed_port_is_a_failure_of_the_dns(dns: DnsServer, clock: Clock) -> None:
    """The resolver on this host is down."""
    source = DnsResolver(
        Loop(), [dns.nameserver], timeout=0.4, memory=CacheLimits(stale_seconds=DAY), clock=clock
    )
    said = source.for_message().txt(POLICY)
    clock.now += HOUR
    dns.stop()
    try:
        assert source.for_message().txt(POLICY) == said
    finally:
        source.close()
        dns.start()


@pytest.mark.parametrize("follow", [True, False], ids=["in one answer", "one at a time"])
def test_the_end_of_an_alias_is_kept_under_its_own_name(
    dns: DnsServer, source: DnsResolver, clock: Clock, follow: bool
) -> None:
    """Keys often stand behind a CNAME to the provider's zone."""
    dns.replace(
        {
            KEY: {"CNAME": "key.provider.example", "follow": follow},
            "key.provider.example": {"TXT": ["v=DKIM1; p=AAAA"]},
        }
    )
    said = source.for_message().txt(KEY)
    dns.put("key.provider.example", {"behaviour": "servfail"})
    clock.now += HOUR
    assert source.for_message().txt(KEY) == said


def test_nothing_is_kept_where_that_is_off(dns: DnsServer, clock: Clock) -> None:
    """stale_hours = 0, or no cache at all."""
    for memory in (
        CacheLimits(stale_seconds=0),
        CacheLimits(entries=0, stale_seconds=DAY),
        CacheLimits(octets=0, stale_seconds=DAY),
    ):
        dns.behaviour = ""
        source = DnsResolver(Loop(), [dns.nameserver], timeout=0.4, memory=memory, clock=clock)
        source.for_message().txt(POLICY)
        dns.behaviour = "servfail"
        clock.now += HOUR
        with pytest.raises(LookupFailed):
            source.for_message().txt(POLICY)
        assert (len(source.reserve), source.reserve.size) == (0, 0)
        source.close()


# What leaves first


def answer(now: float, size: int = 20) -> Answer:
    made = Answer((b"x" * size,), ttl=60)
    made.expires = now + 60
    return made


def held(reserve: StaleCache, name: str, now: float = 0.0) -> bool:
    return reserve.find((f"_dmarc.{name}", "TXT"), now) is not None


def hold(reserve: StaleCache, name: str, now: float = 0.0) -> None:
    reserve.hold((f"_dmarc.{name}", "TXT"), answer(now), now)


def test_an_attackers_names_drive_out_only_each_other() -> None:
    """A hundred thousand names below one domain; the policy that mail brought once stays."""
    reserve = StaleCache(CacheLimits(entries=1000, stale_seconds=DAY))
    hold(reserve, "legit.example")
    for number in range(100_000):
        hold(reserve, f"n{number}.attack.example")
    assert held(reserve, "legit.example")
    assert len(reserve) <= 1000


def test_many_domains_of_one_wave_do_not_drive_out_those_that_mail_keeps_coming_from() -> None:
    """A domain whose record was fetched twice, ten minutes apart, is settled: newcomers make room
    for it."""
    reserve = StaleCache(CacheLimits(entries=1000, stale_seconds=DAY))
    for now in (0.0, SETTLED):
        for number in range(500):
            hold(reserve, f"settled{number}.example", now)
    for number in range(50_000):
        hold(reserve, f"attack{number}.example", SETTLED + 1)
    assert all(held(reserve, f"settled{number}.example", SETTLED + 2) for number in range(500))
    assert len(reserve) <= 1000


def test_memory_is_bounded_in_octets() -> None:
    """Records of 4 KiB, and one that is too large for the whole."""
    reserve = StaleCache(CacheLimits(entries=100_000, octets=1 << 20, stale_seconds=DAY))
    for number in range(1000):
        reserve.hold((f"_dmarc.n{number}.example", "TXT"), answer(0.0, 4096), 0.0)
    assert 0 < reserve.size <= 1 << 19
    reserve.hold(("_dmarc.big.example", "TXT"), answer(0.0, 1 << 19), 0.0)
    assert not held(reserve, "big.example")


def test_dropping_everything_leaves_nothing_behind() -> None:
    """Every answer that was held and then denied: no octet and no name is left over."""
    reserve = StaleCache(CacheLimits(entries=50, stale_seconds=DAY))
    names = [f"n{number}.d{number % 7}.example" for number in range(200)]
    for name in names:
        hold(reserve, name)
    for name in names:
        reserve.hold((f"_dmarc.{name}", "TXT"), Answer(failure=NoData), 0.0)
    assert (len(reserve), reserve.size) == (0, 0)


def test_a_failure_teaches_nothing() -> None:
    """It neither ends nor renews what is held."""
    reserve = StaleCache(CacheLimits(stale_seconds=DAY))
    hold(reserve, "legit.example")
    assert failed("x").failure is LookupFailed
    assert held(reserve, "legit.example", DAY)
    assert not held(reserve, "legit.example", DAY + 60)
