"""The DNS at the edge against a scripted server: every kind of answer, and every bound on
asking."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    NoAnswer,
    NoData,
    NoSuchName,
    NoSuchTarget,
    Question,
    Resolver,
    TimeExceeded,
    abandon,
)
from dmarc_milter.dns.attempt import Pending
from dmarc_milter.dns.inquiry import Inquiry
from dmarc_milter.dns.resolver import DnsResolver, MessageResolver
from dmarc_milter.process.loop import Loop
from fakes.dns_server import DnsServer

SHORT = 0.4  # seconds; the look-up time-out where a test waits for it


class Clock:
    """A clock for the cache that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def running() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def dns(running: DnsServer) -> DnsServer:
    """An empty zone; a resolver asks it through `ask`."""
    running.replace({})
    running.behaviour, running.delay = "", 0.0
    running.clear()
    return running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def source(dns: DnsServer, clock: Clock, loop: Loop) -> Iterator[DnsResolver]:
    resolver = DnsResolver(loop, [dns.nameserver], timeout=SHORT, clock=clock)
    yield resolver
    resolver.close()


def ask_any(resolver: Resolver, name: str, rdtype: str = "TXT") -> object:
    match rdtype:
        case "TXT":
            return resolver.txt(name)
        case "MX":
            return resolver.mx(name)
        case "PTR":
            return resolver.ptr(name)
        case "A":
            return resolver.addresses(name, "A")
        case _:
            return resolver.addresses(name, "AAAA")


# Answers


RECORDS = {
    "example.org": {
        "TXT": ["v=spf1 -all", ["v=DKIM1; ", "k=rsa"]],
        "A": ["192.0.2.1", "192.0.2.2"],
        "AAAA": ["2001:db8:0:0:1::1"],
        "MX": [[10, "mx.example.org"], [20, "Mx2.Example.ORG"]],
    },
    "null.example": {"MX": [[0, "."]]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["host.example.org."]},
    "raw.example": {"TXT": [b"a\x00\xff\r\nb", ""]},
    "twice.example": {"TXT": ["v=DMARC1", "v=DMARC1"]},
    "odd-mx.example": {"MX": [[10, "a\\b.example.org"], [20, "good.example.org"]]},
    "only-odd-mx.example": {"MX": [[10, "a b.example.org"]]},
    "alias.example": {"CNAME": "example.org"},
    "alone.example": {"CNAME": "example.org", "follow": False},
    "below.ent.example": {"A": ["192.0.2.9"]},
    "*.wild.example": {"TXT": ["any"]},
    "to-nothing.example": {"CNAME": "nothing.invalid"},
    "alone-to-nothing.example": {"CNAME": "nothing.invalid", "follow": False},
    "twice-to-nothing.example": {"CNAME": "alone-to-nothing.example", "follow": False},
    "tree.example": {"DNAME": "other.example"},
    "old-tree.example": {"DNAME": "other.example", "synthesise": False},
    "leaf.other.example": {"TXT": ["leaf"]},
}


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("example.org", "TXT", (b"v=spf1 -all", b"v=DKIM1; k=rsa")),
        ("EXAMPLE.org.", "A", ("192.0.2.1", "192.0.2.2")),
        ("example.org", "AAAA", ("2001:db8::1:0:0:1",)),
        ("example.org", "MX", ((10, "mx.example.org"), (20, "mx2.example.org"))),
        ("null.example", "MX", ((0, ""),)),
        ("1.2.0.192.in-addr.arpa", "PTR", ("host.example.org",)),
        ("raw.example", "TXT", (b"a\x00\xff\r\nb", b"")),
        ("twice.example", "TXT", (b"v=DMARC1",)),
        ("odd-mx.example", "MX", ((20, "good.example.org"),)),
        ("alias.example", "A", ("192.0.2.1", "192.0.2.2")),
        ("alone.example", "TXT", (b"v=spf1 -all", b"v=DKIM1; k=rsa")),
        ("leaf.tree.example", "TXT", (b"leaf",)),
        ("leaf.old-tree.example", "TXT", (b"leaf",)),
        ("x.y.wild.example", "TXT", (b"any",)),
    ],
)
def test_records_come_in_the_form_that_the_core_reads(
    dns: DnsServer, source: DnsResolver, name: str, rdtype: str, expected: object
) -> None:
    """lookup.Resolver: strings joined, addresses as text, host names lower-case without final dot,
    CNAMEs followed."""
    dns.replace(RECORDS)
    assert ask_any(source.for_message(), name, rdtype) == expected


@pytest.mark.parametrize(
    ("name", "rdtype", "failure"),
    [
        ("nothing.invalid", "TXT", NoSuchName),
        ("example.org", "PTR", NoData),
        ("ent.example", "A", NoData),
        ("x.ent.example", "A", NoSuchName),
        ("to-nothing.example", "TXT", NoSuchTarget),
        ("alone-to-nothing.example", "A", NoSuchTarget),
        ("twice-to-nothing.example", "A", NoSuchTarget),
        ("nothing.tree.example", "A", NoSuchTarget),
        ("nothing.old-tree.example", "A", NoSuchTarget),
        ("alias.example", "PTR", NoData),
        ("alone.example", "PTR", NoData),
        ("only-odd-mx.example", "MX", NoData),
    ],
)
def test_absence_says_whether_the_name_exists(
    dns: DnsServer, source: DnsResolver, name: str, rdtype: str, failure: type[NoAnswer]
) -> None:
    """np= depends on it (RFC 9989 4.7); an empty non-terminal exists (RFC 8020), an alias too (RFC
    6604), DNAME's ones included."""
    dns.replace(RECORDS)
    for _ in ("asked", "remembered"):
        with pytest.raises(NoAnswer) as raised:
            ask_any(source.for_message(), name, rdtype)
        assert type(raised.value) is failure


def test_the_target_of_an_alias_does_not_exist_by_itself(
    dns: DnsServer, source: DnsResolver
) -> None:
    """One answer serves both names of a message; each is told apart."""
    dns.replace(RECORDS)
    resolver = source.for_message()
    for name, failure in (
        ("alone-to-nothing.example", NoSuchTarget),
        ("nothing.invalid", NoSuchName),
    ):
        with pytest.raises(NoSuchName) as raised:
            resolver.addresses(name, "A")
        assert type(raised.value) is failure, name


@pytest.mark.parametrize(
    "target", ["key.corp.internal", "localhost", "printer.local", "a.HOME.arpa", "x.onion"]
)
@pytest.mark.parametrize("follow", [True, False])
def test_an_alias_of_a_special_use_name_is_not_followed(
    dns: DnsServer, source: DnsResolver, target: str, follow: bool
) -> None:
    """DMR-18 (RFC 6761, 6762, 7686, 8375): neither asked for, nor believed of a resolver with names
    of its own."""
    dns.put(target.lower(), {"TXT": ["a house's own"]})
    dns.put("middle.example", {"CNAME": target, "follow": follow})
    dns.put("alias.example", {"CNAME": "middle.example", "follow": follow})
    resolver = source.for_message()
    for _ in range(2):
        with pytest.raises(NoSuchTarget):
            resolver.txt("alias.example")
    assert dns.count(target.lower()) == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        "servfail",
        "refused",
        "notimp",
        "formerr",
        "yxdomain",
        "no_question",
        "compression_loop",
        "huge_count",
    ],
)
def test_a_server_that_answers_badly_is_a_failed_look_up_at_once(
    dns: DnsServer, source: DnsResolver, behaviour: str
) -> None:
    """Nothing is known then: temperror, never "no record"."""
    dns.put("bad.example", {"TXT": ["text"], "behaviour": behaviour})
    resolver, began = source.for_message(), time.monotonic()
    with pytest.raises(LookupFailed):
        resolver.txt("bad.example")
    assert source.counters.timeouts == 0
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "behaviour",
    ["silent", "garbage", "empty", "header_only", "wrong_id", "wrong_question", "not_a_response"],
)
def test_what_does_not_answer_the_question_is_ignored_until_the_time_out(
    dns: DnsServer, source: DnsResolver, behaviour: str
) -> None:
    """A forged packet neither answers nor ends a look-up (CVE-2023-29483)."""
    dns.put("bad.example", {"TXT": ["text"], "behaviour": behaviour})
    with pytest.raises(LookupFailed):
        source.for_message().txt("bad.example")
    assert source.counters.timeouts == 1


# Servers that do not know EDNS


NO_EDNS = ["formerr", "notimp", "servfail", "badvers", "header", "cut", "opt"]


@pytest.mark.parametrize(
    "word", [*NO_EDNS, "ignored", "silent", "garbage", "compression_loop", "huge_count"]
)
def test_a_server_that_does_not_know_edns_is_asked_without_it(
    dns: DnsServer, source: DnsResolver, word: str
) -> None:
    """RFC 6891 6.2.2: whatever it makes of OPT, the plain question gets its answer, a long one over
    TCP (RFC 1035 4.2.1)."""
    dns.replace({"short.example": {"TXT": ["text"]}, "long.example": {"TXT": [b"x" * 700]}})
    dns.behaviour = f"no_edns_{word}"
    assert source.for_message().txt("short.example") == (b"text",)
    assert source.for_message().txt("long.example") == (b"x" * 700,)
    assert (source.counters.failures, source.counters.timeouts) == (0, 0)
    assert [query.transport for query in dns.log if query.name == "long.example"] == ["udp", "tcp"]
    if word != "ignored":
        assert [query.edns for query in dns.log] == [
            True,
            False,
            False,
            False,
        ], "remembered after the first"


def test_what_a_server_does_not_know_is_remembered_for_a_while(
    dns: DnsServer, source: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was replaced by a better one is found out: after that it is asked with OPT
    again."""
    monkeypatch.setattr("dmarc_milter.dns.nameservers.PLAIN", 0.2)
    dns.behaviour = "no_edns_formerr"
    dns.put("*.example", {"TXT": ["text"]})
    source.for_message().txt("a.example")
    source.for_message().txt("b.example")
    time.sleep(0.25)
    dns.behaviour = ""
    source.for_message().txt("c.example")
    assert [query.edns for query in dns.log] == [True, False, False, True]


@pytest.mark.parametrize("word", NO_EDNS)
def test_one_odd_name_takes_edns_from_no_other(
    dns: DnsServer, source: DnsResolver, word: str
) -> None:
    """The reply is about one question, perhaps forged, where the server has shown that it knows
    OPT."""
    dns.replace(
        {
            "good.example": {"TXT": ["text"]},
            "odd.example": {"TXT": ["text"], "behaviour": f"no_edns_{word}"},
        }
    )
    source.for_message().txt("good.example")
    if word == "servfail":  # a server that knows OPT means what it says
        with pytest.raises(LookupFailed):
            source.for_message().txt("odd.example")
        return
    assert source.for_message().txt("odd.example") == (b"text",)
    dns.put("later.example", {"TXT": ["text"]})
    source.for_message().txt("later.example")
    assert [query.edns for query in dns.log] == [True, True, False, True]


@pytest.mark.parametrize("behaviour", ["formerr", "notimp", "no_question"])
def test_an_error_that_stays_without_edns_proves_nothing(
    dns: DnsServer, source: DnsResolver, behaviour: str
) -> None:
    """Only a good answer to the plain question does: two packets, a failed look-up, and OPT for the
    next name."""
    dns.replace(
        {
            "bad.example": {"TXT": ["text"], "behaviour": behaviour},
            "good.example": {"TXT": ["text"]},
        }
    )
    with pytest.raises(LookupFailed):
        source.for_message().txt("bad.example")
    assert source.for_message().txt("good.example") == (b"text",)
    assert [query.edns for query in dns.log] == [True, False, True]


def test_a_forged_error_neither_answers_nor_ends_the_look_up(
    dns: DnsServer, source: DnsResolver
) -> None:
    """Whoever guesses port and identifier gains one more question; with another identifier nothing
    at all (RFC 5452)."""
    dns.put("spoofed.example", {"TXT": ["true"], "behaviour": "forged_formerr"})
    assert source.for_message().txt("spoofed.example") == (b"true",)
    assert [query.edns for query in dns.log] == [True]


def test_a_server_without_edns_is_asked_so_over_tcp_too(
    dns: DnsServer, source: DnsResolver
) -> None:
    """A forwarder that passes truncated answers on and then reads its own TCP queries strictly."""
    dns.put("big.example", {"TXT": [b"x" * 2000], "behaviour": "truncated_formerr"})
    assert source.for_message().txt("big.example") == (b"x" * 2000,)
    assert [(query.transport, query.edns) for query in dns.log] == [
        ("udp", True),
        ("tcp", True),
        ("tcp", False),
    ]


def test_the_right_answer_counts_after_forged_ones(dns: DnsServer, source: DnsResolver) -> None:
    """The same, with the true answer last."""
    dns.put("spoofed.example", {"TXT": ["true"], "behaviour": "spoofed_first"})
    assert source.for_message().txt("spoofed.example") == (b"true",)
    assert source.counters.ignored == 3


@pytest.mark.parametrize("size", [1300, 4000, 60_000])
def test_a_large_answer_comes_over_tcp(dns: DnsServer, source: DnsResolver, size: int) -> None:
    """Truncation, RFC 7766. What is too long for its purpose is for the core to say."""
    dns.put("big.example", {"TXT": [b"x" * size]})
    assert source.for_message().txt("big.example") == (b"x" * size,)
    assert [query.transport for query in dns.log] == ["udp", "tcp"]


@pytest.mark.parametrize(
    "behaviour", ["truncated_reset", "truncated_dribble", "truncated_silent", "truncated_garbage"]
)
def test_a_broken_tcp_answer_is_a_failed_look_up_in_time(
    dns: DnsServer, source: DnsResolver, behaviour: str
) -> None:
    """Also one that would take an hour to arrive."""
    dns.put("big.example", {"TXT": ["text"], "behaviour": behaviour})
    began = time.monotonic()
    with pytest.raises(LookupFailed):
        source.for_message().txt("big.example")
    assert time.monotonic() - began < 5


def test_an_answer_of_more_records_than_anyone_needs_is_a_failure(
    dns: DnsServer, source: DnsResolver
) -> None:
    """512 records are read, thousands are an attack on whoever reads on."""
    dns.replace(
        {
            "many.example": {"TXT": [str(n) for n in range(512)]},
            "flood.example": {"TXT": [str(n) for n in range(1750)]},
        }
    )
    assert len(source.for_message().txt("many.example")) == 512
    with pytest.raises(LookupFailed):
        source.for_message().txt("flood.example")


def chain(length: int, **spec: object) -> dict[str, dict[str, object]]:
    """c0 -> c1 -> ... -> c{length}, the last with a record."""
    zone: dict[str, dict[str, object]] = {
        f"c{n}.example": {"CNAME": f"c{n + 1}.example", **spec} for n in range(length)
    }
    return zone | {f"c{length}.example": {"TXT": ["end"]}}


@pytest.mark.parametrize("follow", [True, False], ids=["in one answer", "one at a time"])
def test_sixteen_aliases_are_followed_and_seventeen_are_not(
    dns: DnsServer, source: DnsResolver, follow: bool
) -> None:
    """Whether the server hands out the whole chain or each link alone."""
    dns.replace(chain(16, follow=follow))
    assert source.for_message().txt("c0.example") == (b"end",)
    dns.replace(chain(17, follow=follow))
    source.cache.clear()
    with pytest.raises(LookupFailed):
        source.for_message().txt("c0.example")


@pytest.mark.parametrize("follow", [True, False], ids=["in one answer", "one at a time"])
@pytest.mark.parametrize("target", ["loop.example", "back.example"])
def test_an_alias_loop_is_a_failure(
    dns: DnsServer, source: DnsResolver, target: str, follow: bool
) -> None:
    """To itself, and in two steps."""
    dns.replace(
        {
            "loop.example": {"CNAME": target, "follow": follow},
            "back.example": {"CNAME": "loop.example", "follow": follow},
        }
    )
    with pytest.raises(LookupFailed):
        source.for_message().txt("loop.example")
    assert dns.count() <= 9


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..example",
        ".example",
        "a\tb.example",
        "a\\046b.example",
        "a\0b.example",
        "*.example",
        "ä.example",
        "\u212aelvin.example",
        "a\r\nb.example",
        "a\x7f.example",
        "x" * 64 + ".example",
        ".".join(["a" * 63] * 4),
    ],
)
def test_a_name_that_cannot_be_asked_is_not_asked(
    dns: DnsServer, source: DnsResolver, name: str
) -> None:
    """It does not exist, and saying so shows none of its octets."""
    resolver = source.for_message()
    resolver.prefetch([Question(name, "TXT")])
    with pytest.raises(NoSuchName) as raised:
        resolver.txt(name)
    assert str(raised.value) == "not a name that can be asked"
    assert dns.queries == []


@pytest.mark.parametrize(
    "name",
    [
        "_dmarc.example",
        "john+tag=x/y.example",
        "a b.example",
        "xn--strae-oqa.example",
        "a" * 63 + ".example",
        "com",
    ],
)
def test_any_other_printable_name_is_asked_as_it_stands(
    dns: DnsServer, source: DnsResolver, name: str
) -> None:
    """Macros of SPF make such names (RFC 7208 7.1); nothing is ever appended, whatever a search
    list says."""
    with pytest.raises(NoSuchName):
        source.for_message().txt(name)
    assert dns.queries == [(name, "TXT")]


# Servers


def test_a_silent_server_costs_one_retry_and_is_then_asked_last(dns: DnsServer) -> None:
    """Until then every look-up would wait for it."""
    dns.put("example.org", {"TXT": ["here"], "ttl": 0})
    with DnsServer() as silent:
        silent.behaviour = "silent"
        source = DnsResolver(Loop(), [silent.nameserver, dns.nameserver], timeout=1.0)
        assert source.for_message().txt("example.org") == (b"here",)
        assert source.for_message().txt("example.org") == (b"here",)
        source.close()
        assert silent.count() == 1


def test_a_server_that_fails_is_followed_by_the_next(dns: DnsServer) -> None:
    """SERVFAIL and REFUSED of one server say nothing about the other; nor does a closed port."""
    dns.put("example.org", {"TXT": ["here"]})
    closed = DnsServer().start()
    closed.stop()
    with DnsServer() as broken:
        broken.behaviour = "servfail"
        source = DnsResolver(Loop(), [closed.nameserver, broken.nameserver, dns.nameserver])
        assert source.for_message().txt("example.org") == (b"here",)
        source.close()
        assert broken.count() == 1


def test_a_late_answer_of_the_first_server_still_counts(dns: DnsServer) -> None:
    """The retry does not hang up on it."""
    dns.put("example.org", {"TXT": ["late"], "delay": 0.6})
    with DnsServer() as silent:
        silent.behaviour = "silent"
        source = DnsResolver(Loop(), [dns.nameserver, silent.nameserver], timeout=1.0)
        assert source.for_message().txt("example.org") == (b"late",)
        source.close()
        assert silent.count() == 1


def test_a_resolver_that_is_down_comes_back_without_a_restart() -> None:
    """Neither a refused port nor an earlier failure sticks."""
    server = DnsServer({"example.org": {"TXT": ["here"]}}).start()
    server.stop()
    source = DnsResolver(Loop(), [server.nameserver])
    with pytest.raises(LookupFailed):
        source.for_message().txt("example.org")
    with server:
        assert source.for_message().txt("example.org") == (b"here",)
    source.close()


def test_the_system_resolvers_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    """Missing, empty or senseless: look-ups fail, and go on once there is a server. Search lists
    are not looked at."""
    path = tmp_path / "resolv.conf"
    source = DnsResolver(Loop(), resolv_conf=path, timeout=SHORT)
    for text in (None, "", "nameserver not-an-address\n", "\xff\n"):
        if text is not None:
            path.write_text(text, encoding="latin-1")
        with pytest.raises(LookupFailed, match="no name server"):
            source.for_message().txt("example.org")
        source._servers._look_again = 0.0
    path.write_text("search example.com\nnameserver 192.0.2.53\nnameserver ::1\n")
    servers = source._servers.current(time.monotonic())
    assert [server.text for server in servers] == ["192.0.2.53:53", "[::1]:53"]
    source.close()


def test_each_query_has_a_port_and_an_identifier_of_its_own(
    dns: DnsServer, source: DnsResolver
) -> None:
    """What a forger has to guess (RFC 5452)."""
    resolver = source.for_message()
    for n in range(60):
        with pytest.raises(NoSuchName):
            resolver.txt(f"n{n}.invalid")
    assert len({query.port for query in dns.log}) > 50
    assert len({query.id for query in dns.log}) > 50


# The cache


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({"TXT": ["x"], "ttl": 300}, 300),
        ({"TXT": ["x"], "ttl": 1}, 1),
        ({"TXT": ["x"], "ttl": 0}, 0),
        ({"TXT": ["x"], "ttl": 0x7FFFFFFF}, 3600),
        ({"TXT": ["x"], "ttl": 0x80000001}, 0),
        ({"A": ["192.0.2.1"], "soa_minimum": 60, "soa_ttl": 30}, 30),
        ({"behaviour": "nxdomain", "soa_minimum": 20, "soa_ttl": 60}, 20),
        ({"behaviour": "nxdomain", "soa_minimum": 0x7FFFFFFF, "soa_ttl": 0x7FFFFFFF}, 300),
        ({"behaviour": "nxdomain", "no_soa": True}, 0),
        ({"behaviour": "servfail"}, 0),
        ({"CNAME": "short.example", "ttl": 300}, 7),
    ],
)
def test_an_answer_is_kept_as_long_as_the_dns_says_within_bounds(
    dns: DnsServer, source: DnsResolver, clock: Clock, spec: dict[str, object], kept: int
) -> None:
    """TTL up to an hour (the lowest of a chain), absences by their SOA up to five minutes (RFC 2308
    5), failures not at all."""
    dns.replace({"short.example": {"TXT": ["end"], "ttl": 7}, "x.example": spec})

    def ask() -> float:
        resolver = source.for_message()
        with contextlib.suppress(NoAnswer, LookupFailed):
            resolver.txt("x.example")
        return resolver.expires

    assert ask() == clock.now + kept
    clock.now += max(kept - 0.5, 0)
    ask()
    assert dns.count("x.example") == (1 if kept else 2)
    clock.now += 0.5
    ask()
    assert dns.count("x.example") == (2 if kept else 3)


def test_within_a_message_an_answer_never_changes(dns: DnsServer, source: DnsResolver) -> None:
    """TTL 0 is fresh for the next message, and the same for this one."""
    dns.put("x.example", {"TXT": ["first"], "ttl": 0})
    resolver = source.for_message()
    assert resolver.txt("x.example") == (b"first",)
    dns.put("x.example", {"TXT": ["second"], "ttl": 0})
    assert resolver.txt("x.example") == (b"first",)
    assert source.for_message().txt("x.example") == (b"second",)


def test_a_fetched_answer_serves_its_message_whatever_its_ttl(
    dns: DnsServer, source: DnsResolver
) -> None:
    """Otherwise TTL 0 would be asked twice."""
    dns.put("x.example", {"TXT": ["text"], "ttl": 0})
    resolver = source.for_message()
    resolver.prefetch([Question("X.example", "TXT")])
    while source._admission.in_flight:
        source.loop.park(0.01)
    assert resolver.txt("x.example") == (b"text",)
    assert dns.count() == 1


def test_the_expiry_is_the_earliest_of_all_answers(
    dns: DnsServer, source: DnsResolver, clock: Clock
) -> None:
    """A share knows that of its own answers alone, remembered ones included."""
    dns.replace(
        {"long.example": {"TXT": ["x"], "ttl": 100}, "short.example": {"TXT": ["x"], "ttl": 10}}
    )
    resolver = source.for_message()
    assert resolver.expires == math.inf
    share = resolver.share(queries=5, seconds=5)
    resolver.txt("short.example")
    share.txt("long.example")
    assert (resolver.expires, share.expires) == (clock.now + 10, clock.now + 100)
    share.txt("short.example")
    assert share.expires == clock.now + 10


# One question at a time


def test_the_same_question_in_flight_is_asked_once(dns: DnsServer, source: DnsResolver) -> None:
    """However many messages want to know."""
    dns.put("x.example", {"TXT": ["text"], "delay": 0.1})
    got: list[tuple[bytes, ...]] = []
    for _ in range(20):
        source.loop.spawn(lambda: got.append(source.for_message().txt("x.example")))
    for _ in range(1000):
        if len(got) < 20:
            source.loop.park(0.01)
    assert got == [(b"text",)] * 20
    assert dns.count() == 1


def test_an_answered_question_is_gone_with_its_message(dns: DnsServer, source: DnsResolver) -> None:
    """Without the cycle collector, which seldom runs: an answer may have 64 KiB, and its sender may
    send any number."""
    dns.put("big.example", {"TXT": ["x" * 3000], "ttl": 0})
    gc.collect()
    gc.disable()
    try:
        before = _questions()
        for name in ("big.example", "none.example") * 3:
            resolver = source.for_message()
            with contextlib.suppress(NoAnswer):
                resolver.txt(name)
            abandon(resolver)
            del resolver
        assert dns.count() >= 6
        assert _questions() == before
    finally:
        gc.enable()


def _questions() -> int:
    return sum(isinstance(each, Pending | Inquiry) for each in gc.get_objects())


def test_prefetched_questions_are_in_flight_together(dns: DnsServer) -> None:
    """Ten answers after half a second each take half a second, not five; asking for them does not
    wait."""
    source = DnsResolver(Loop(), [dns.nameserver])
    dns.put("*.slow.example", {"TXT": ["text"], "delay": 0.5})
    resolver, names = source.for_message(), [f"n{n}.slow.example" for n in range(10)]
    began = time.monotonic()
    resolver.prefetch(Question(name, "TXT") for name in names)
    assert time.monotonic() - began < 2.5
    assert [resolver.txt(name) for name in names] == [(b"text",)] * 10
    assert time.monotonic() - began < 4
    assert dns.count() == 10
    source.close()


def test_prefetching_nonsense_does_no_harm(source: DnsResolver) -> None:
    """It is a hint."""
    resolver = source.for_message()
    resolver.prefetch([Question("x.example", "BOGUS"), None])  # type: ignore[arg-type, list-item]
    with pytest.raises(NoSuchName):
        resolver.txt("x.example")


# Budgets


def test_a_message_asks_no_more_than_its_share_of_questions(
    dns: DnsServer, source: DnsResolver
) -> None:
    """What it has been told stays told; names that cannot be asked are free."""
    dns.put("*.example", {"TXT": ["text"]})
    resolver = source.for_message(max_queries=3)
    for name in ("a.example", "b.example", "b.example", "c.example"):
        assert resolver.txt(name) == (b"text",)
    assert resolver.asked == 3
    with pytest.raises(LimitExceeded):
        resolver.txt("d.example")
    assert resolver.txt("a.example") == (b"text",)
    with pytest.raises(NoSuchName):
        resolver.txt("no\tname")
    assert dns.count() == 3


def test_the_limit_does_not_depend_on_what_is_remembered(
    dns: DnsServer, source: DnsResolver
) -> None:
    """A verdict must be the same with a warm cache."""
    dns.put("*.example", {"TXT": ["text"]})
    for name in ("a.example", "b.example"):
        source.for_message().txt(name)
    resolver = source.for_message(max_queries=1)
    resolver.txt("a.example")
    with pytest.raises(LimitExceeded):
        resolver.txt("b.example")


def test_aliases_followed_and_prefetched_names_count(dns: DnsServer, source: DnsResolver) -> None:
    """Every packet that a message causes is within its limit, else aliases multiply it."""
    dns.replace(chain(4, follow=False) | {"*.other.example": {"TXT": ["text"]}})
    resolver = source.for_message(max_queries=3)
    resolver.prefetch([Question("a.other.example", "TXT")])
    with pytest.raises(LimitExceeded):
        resolver.txt("c0.example")
    resolver.prefetch([Question("b.other.example", "TXT")])
    assert resolver.txt("a.other.example") == (b"text",)
    assert dns.count() == 3


def test_a_share_has_a_limit_of_its_own_and_counts_for_the_whole(
    dns: DnsServer, source: DnsResolver
) -> None:
    """Limits nest; beyond one, what was answered to the message is still to be had."""
    dns.put("*.example", {"TXT": ["text"]})
    resolver = source.for_message(max_queries=4)
    resolver.txt("a.example")
    share = resolver.share(queries=2, seconds=10)
    assert [share.txt(f"{name}.example") for name in "abc"] == [(b"text",)] * 3
    with pytest.raises(LimitExceeded):
        share.txt("d.example")
    assert share.txt("a.example") == (b"text",)
    assert (share.asked, resolver.asked) == (2, 3)
    assert resolver.share(queries=9, seconds=10).share(queries=9, seconds=10).txt("d.example") == (
        b"text",
    )
    with pytest.raises(LimitExceeded):
        resolver.txt("e.example")
    with pytest.raises(LimitExceeded):
        resolver.share(queries=9, seconds=10).txt("f.example")


def test_a_message_waits_no_longer_than_its_seconds(dns: DnsServer) -> None:
    """All its waiting together; afterwards only what is known at once. The answer that took all of
    it is the DNS's failure."""
    source = DnsResolver(Loop(), [dns.nameserver], timeout=10)
    dns.replace({"slow.example": {"behaviour": "silent"}, "known.example": {"TXT": ["text"]}})
    source.for_message().txt("known.example")
    resolver, began = source.for_message(seconds=0.2), time.monotonic()
    for name, kind in (
        ("slow.example", LookupFailed),
        ("slow.example", LookupFailed),
        ("other.example", TimeExceeded),
    ):
        with pytest.raises(LookupFailed) as raised:
            resolver.txt(name)
        assert type(raised.value) is kind, name
    assert time.monotonic() - began < 3
    assert resolver.txt("known.example") == (b"text",)
    source.close()


def test_time_that_passes_without_waiting_is_not_the_messages(
    dns: DnsServer, source: DnsResolver
) -> None:
    """A body that takes a minute to arrive takes nothing from the look-ups at its end; a share's
    seconds run from now."""
    dns.put("*.example", {"TXT": ["text"]})
    resolver = source.for_message(seconds=0.15)
    share = resolver.share(queries=9, seconds=0.15)
    time.sleep(0.2)
    assert resolver.txt("a.example") == (b"text",)
    with pytest.raises(LimitExceeded):
        share.txt("b.example")


def test_a_look_up_fails_after_its_own_time_out(dns: DnsServer, source: DnsResolver) -> None:
    """That is the DNS's failure, not the message's."""
    dns.put("slow.example", {"behaviour": "silent"})
    resolver, began = source.for_message(), time.monotonic()
    with pytest.raises(LookupFailed) as raised:
        resolver.txt("slow.example")
    assert not isinstance(raised.value, LimitExceeded)
    assert SHORT * 0.9 < time.monotonic() - began < 5
    assert dns.count() == 3  # at once, and at each retry


def test_only_a_look_up_that_had_its_time_is_the_failure_of_the_dns(dns: DnsServer) -> None:
    """Where the message's seconds are over before a look-up's own: one in flight for a fifth of
    them has failed, a later one is over the limit, and whoever used up the time with other names
    gains nothing."""
    source = DnsResolver(Loop(), [dns.nameserver], timeout=10)
    dns.behaviour = "silent"
    resolver = source.for_message(seconds=0.5)
    resolver.prefetch([Question("early.example", "TXT")])
    for name in ("first.example", "early.example"):
        with pytest.raises(LookupFailed) as raised:
            resolver.txt(name)
        assert not isinstance(raised.value, LimitExceeded), name
    resolver.prefetch([Question("late.example", "TXT")])
    with pytest.raises(LimitExceeded):
        resolver.txt("late.example")
    source.close()


def test_a_tarpit_of_every_name_ends_in_time(dns: DnsServer, source: DnsResolver) -> None:
    """All in flight at once: one time-out for the lot."""
    dns.behaviour = "silent"
    resolver, began = source.for_message(), time.monotonic()
    names = [f"n{n}.example" for n in range(70)]
    resolver.prefetch(Question(name, "TXT") for name in names)
    for name in names:
        with pytest.raises(LookupFailed):
            resolver.txt(name)
    assert time.monotonic() - began < 10 * SHORT


# Life and death


def wait_until(condition: Callable[[], bool]) -> None:
    """Up to five seconds."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen")


def test_nothing_is_opened_without_a_question_and_nothing_stays_after_close(
    dns: DnsServer, loop: Loop
) -> None:
    """Whatever was in flight fails, and so does everything later. No thread is ever started."""
    gc.collect()
    threads, before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    dns.replace({"slow.example": {"behaviour": "silent"}, "big.example": {"TXT": ["x" * 3000]}})
    source = DnsResolver(loop, [dns.nameserver])
    resolver = source.for_message()
    resolver.prefetch([])
    assert len(os.listdir("/proc/self/fd")) == before
    resolver.txt("big.example")
    resolver.prefetch([Question("slow.example", "TXT")])
    try:  # the server of this test has a thread for each connection over TCP
        wait_until(lambda: threading.active_count() == threads)
    finally:
        source.close()
        source.close()
    with pytest.raises(LookupFailed):
        resolver.txt("slow.example")
    with pytest.raises(LookupFailed):
        source.for_message().txt("other.example")
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_defect_while_reading_fails_one_look_up_only(
    dns: DnsServer,
    source: DnsResolver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop serves every message of the process."""
    dns.replace({"a.example": {"TXT": ["text"]}, "b.example": {"TXT": ["text"]}})
    with monkeypatch.context() as patch:
        patch.setattr("dmarc_milter.dns.client.read_answer", lambda *_: 1 // 0)
        with pytest.raises(LookupFailed):
            source.for_message().txt("a.example")
    assert "ZeroDivisionError" in caplog.text
    assert source.for_message().txt("b.example") == (b"text",)


def test_the_message_resolver_is_what_the_core_asks_for(source: DnsResolver) -> None:
    """Checked by the type checker as well."""
    resolver: Resolver = source.for_message()
    assert isinstance(resolver.share(queries=1, seconds=1), MessageResolver)
