"""What SPF asks leaves while the message arrives, each question as soon as the answer before it is
there; nothing of it changes a verdict."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address

import pytest

from dmarc_milter.core import budget
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.resolver import Resolver, abandon
from dmarc_milter.core.spf import record
from dmarc_milter.core.spf.check import SpfStatus, check
from dmarc_milter.core.spf.early import MAX_EXCHANGES
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.waiting import EventLoop
from dmarc_milter.process.loop import Loop
from dmarc_milter.session.early_spf import EarlySpf
from fakes import openspf
from fakes.daemon import wait_for
from fakes.dns_server import DnsServer
from fakes.dns_zone import Zone
from fakes.scripted_dns import Scripted

CHAIN = {
    "plain.example": {"TXT": ["v=spf1 include:one.example mx -all"], "MX": [[10, "in.example"]]},
    "one.example": {"TXT": ["v=spf1 include:two.example ?all"]},
    "two.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 ?all"]},
    "in.example": {"A": ["192.0.2.1"]},
}
WHOLE = {
    ("plain.example", "TXT"),
    ("one.example", "TXT"),
    ("plain.example", "MX"),
    ("two.example", "TXT"),
    ("in.example", "A"),
}


def envelope(domain: str = "plain.example") -> Envelope:
    sender = ReversePath("a", Domain(domain))
    return Envelope(ip_address("192.0.2.1"), "mail.plain.example", sender)


QUERIES = budget.spf_early_queries(budget.MESSAGE_QUERIES)


def begun(
    sender: Envelope, resolver: Resolver, loop: EventLoop, queries: int = QUERIES
) -> EarlySpf:
    assert isinstance(loop, Loop)
    return EarlySpf(sender, resolver, SpfOptions(), loop, nullcontext, queries)


def test_each_question_leaves_when_the_answer_before_it_has_come() -> None:
    """Record, includes and exchanges, what these include, addresses: all before the check begins,
    which then asks nothing more (RFC 7208 4.6.4)."""
    loop = Loop()
    with DnsServer(CHAIN) as dns:
        dns.delay = 0.02
        source = DnsResolver(loop, [dns.nameserver])
        resolver = source.for_message()
        early = begun(envelope(), resolver, loop)
        assert wait_for(lambda: bool(loop.turn(0.01)) or set(dns.queries) == WHOLE)
        assert check(envelope(), resolver).status is SpfStatus.PASS
        assert sorted(dns.queries) == sorted(WHOLE)
        early.end()
        source.close()


def test_nothing_more_is_asked_for_a_message_that_has_ended() -> None:
    """Its answers still come, and lead to no further question."""
    loop = Loop()
    with DnsServer(CHAIN) as dns:
        dns.delay = 0.02
        source = DnsResolver(loop, [dns.nameserver])
        resolver = source.for_message()
        begun(envelope(), resolver, loop).end()
        other = source.for_message()
        assert other.txt("plain.example")
        assert other.txt("two.example")
        assert set(dns.queries) == {("plain.example", "TXT"), ("two.example", "TXT")}
        source.close()


def test_a_message_that_ends_before_an_answer_leaves_nothing_behind() -> None:
    """Its header may be large: it is gone at once, not when the collector comes by."""

    class Message:
        def __init__(self) -> None:
            self.header = bytes(1024)
            self.resolver = source.for_message()
            self.early = EarlySpf(
                envelope(), self.resolver, SpfOptions(), loop, self.blamed, QUERIES
            )

        def blamed(self) -> nullcontext[None]:
            return nullcontext()

    loop = Loop()
    with DnsServer() as dns:
        dns.behaviour = "silent"
        source = DnsResolver(loop, [dns.nameserver])
        message = Message()
        seen = weakref.ref(message)
        gc.disable()
        try:
            message.early.end()
            abandon(message.resolver)
            del message
            assert seen() is None
        finally:
            gc.enable()
            source.close()


def test_the_result_is_the_same_with_early_questions_and_without() -> None:
    """The whole openspf suite."""
    for name, case, data in openspf.suite():
        results = []
        for early in (False, True):
            source = Scripted(openspf.zone(data), {})
            resolver, sender = source.for_message(), openspf.envelope(case)
            if early:
                begun(sender, resolver, source.loop)
            results.append(check(sender, resolver))
            source.close()
        assert results[0] == results[1], name


def test_a_record_is_read_while_its_message_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the worker die of it, it is known by whose mail (crash_guard.py)."""
    blamed: list[bool] = []

    @contextmanager
    def blame() -> Iterator[None]:
        blamed.append(True)
        yield
        blamed.pop()

    read: list[bool] = []
    parse = record.parse
    monkeypatch.setattr(record, "parse", lambda *of: read.append(bool(blamed)) or parse(*of))
    source = Scripted(Zone(CHAIN), {})
    assert isinstance(source.loop, Loop)
    EarlySpf(envelope(), source.for_message(), SpfOptions(), source.loop, blame, QUERIES)
    assert read
    assert all(read)


MANY = " ".join(f"include:i{number}.example" for number in range(60))
TREE = {f"i{number}.example": {"TXT": [f"v=spf1 {MANY} mx -all"]} for number in range(60)}
EXCHANGES = {
    "MX": [(number, f"x{number}.example") for number in range(60)],
}


@pytest.mark.parametrize(
    "zone",
    [
        TREE | {"plain.example": {"TXT": [f"v=spf1 {MANY} -all"]}},
        TREE | {"plain.example": {"TXT": [f"v=spf1 mx {MANY} -all"], **EXCHANGES}},
        {"plain.example": {"TXT": ["v=spf1 include:plain.example mx mx -all"], **EXCHANGES}},
        {"plain.example": {"TXT": ["v=spf1 redirect=plain.example"]}},
    ],
)
def test_a_record_that_leads_everywhere_is_followed_for_ten_terms(zone: dict[str, object]) -> None:
    """RFC 7208 4.6.4: ten, and the addresses of a few exchanges. All of them count for the
    message."""
    source = Scripted(Zone(zone), {})
    resolver = source.for_message()
    begun(envelope(), resolver, source.loop)
    assert 1 <= len(source.sent) <= 1 + budget.SPF_TERMS + MAX_EXCHANGES
    assert resolver.asked == len(source.sent)


@pytest.mark.parametrize(
    ("message", "early"), [(4, 16), (160, 4), (20, budget.spf_early_queries(20))]
)
def test_early_questions_have_a_limit_and_so_has_the_message(message: int, early: int) -> None:
    """What is beyond it is left out: the policy and the keys are asked for later, and must not
    lack."""
    source = Scripted(Zone(TREE | {"plain.example": {"TXT": [f"v=spf1 {MANY} -all"]}}), {})
    begun(envelope(), source.for_message(max_queries=message), source.loop, early)
    assert len(source.sent) == min(message, early)
