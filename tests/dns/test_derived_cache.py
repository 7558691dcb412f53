"""What is derived from DNS answers and kept for other messages: the same verdicts, for no longer
than the DNS allows, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core.dmarc.author_policy import published
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.resolver import Kept, LookupFailed, Resolver, derive
from dmarc_milter.core.spf import check
from dmarc_milter.dns.cache import BoundedStore, Derived
from fakes.dns_zone import Zone
from fakes.scripted_dns import Scripted

RECORDS = {
    "plain.example": {
        "TXT": ["v=spf1 include:inner.example ip4:192.0.2.1 -all"],
        "A": ["192.0.2.9"],
    },
    "inner.example": {"TXT": ["v=spf1 mx a:host.example ?all"], "MX": [(10, "host.example")]},
    "host.example": {"A": ["192.0.2.2"]},
    "macro.example": {"TXT": ["v=spf1 exists:%{l}.users.example exists:%{i}.ok.example -all"]},
    "alice.users.example": {"A": ["127.0.0.2"]},
    "helo.example": {"TXT": ["v=spf1 exists:%{h} -all"]},
    "mx.helo.example": {"A": ["127.0.0.2"]},
    "_dmarc.plain.example": {"TXT": ["v=DMARC1; p=reject; sp=none; np=quarantine"]},
    "_dmarc.sub.plain.example": {"TXT": ["v=DMARC1; p=quarantine"]},
    "_dmarc.example": {"TXT": ["v=DMARC1; p=none; psd=y"]},
}
OTHERS = {
    "inner.example": {"TXT": ["v=spf1 +all"]},
    "host.example": {"A": ["192.0.2.1"]},
    "alice.users.example": {},
    "_dmarc.plain.example": {"TXT": ["v=DMARC1; p=none"]},
    "_dmarc.example": {"TXT": ["v=DMARC1; p=none; psd=n"]},
    "plain.example": {"TXT": ["v=spf1 -all"]},
}


def envelope(client: str, sender: str, helo: str) -> Envelope:
    local, _, name = sender.partition("@")
    return Envelope(
        ip_address(client), helo, ReversePath(local, Domain(name)) if name else ReversePath()
    )


CLIENTS = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"])
SENDERS = st.sampled_from(
    [
        "alice@plain.example",
        "bob@plain.example",
        "alice@macro.example",
        "bob@macro.example",
        "a@helo.example",
        "",
    ]
)
HELOS = st.sampled_from(["mx.helo.example", "other.example", "plain.example"])
AUTHORS = st.sampled_from(
    [
        "plain.example",
        "sub.plain.example",
        "gone.plain.example",
        "x.y.z.plain.example",
        "example.org",
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("spf"), st.builds(envelope, CLIENTS, SENDERS, HELOS)),
    st.tuples(st.just("author"), AUTHORS.map(Domain)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 5.0, 31.0, 400.0])),
    st.tuples(st.just("change"), st.sampled_from(sorted(OTHERS))),
    st.tuples(st.just("fail"), st.sampled_from(sorted(RECORDS))),
    st.tuples(st.just("repair"), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(STEPS, min_size=2, max_size=25),
    st.dictionaries(st.sampled_from(sorted(RECORDS)), st.sampled_from([0, 1, 30, 300])),
)
def test_what_is_kept_changes_no_verdict_and_no_count_of_questions(
    steps: list[tuple[str, Any]], ttls: dict[str, int]
) -> None:
    """Differential: with and without derived_cache, any order of messages, changes of the DNS,
    failures and time gives the same."""
    zone = Zone({name: dict(types) for name, types in RECORDS.items()})
    with_them, without = Scripted(zone, ttls), Scripted(zone, ttls, derived_cache=False)
    for what, value in steps:
        match what:
            case "wait":
                with_them.now = without.now = with_them.now + value
            case "change":
                zone.records[value] = {kind: list(values) for kind, values in OTHERS[value].items()}
            case "fail":
                zone.failing.add(value)
            case "repair":
                zone.failing.clear()
            case _:
                ask: Callable[[Resolver], Any] = (
                    (lambda r, v=value: check.check(v, r))
                    if what == "spf"
                    else (lambda r, v=value: published(v, r))
                )
                one, other = with_them.for_message(), without.for_message()
                assert ask(one) == ask(other)
                assert one._asked == other._asked
    assert with_them.sent == without.sent


def test_a_second_message_costs_no_evaluation() -> None:
    """The same client and domain: remembered, for any local part, until the first answer
    expires."""
    resolver = Scripted(Zone(RECORDS), {"host.example": 10})
    first = check.check(
        envelope("192.0.2.2", "alice@plain.example", "h.example"), resolver.for_message()
    )
    again = envelope("192.0.2.2", "bob@plain.example", "other.example")
    assert check.recalled(again, resolver.for_message()) is first
    resolver.now = 10.5
    assert check.recalled(again, resolver.for_message()) is None


@pytest.mark.parametrize("sender", ["alice@macro.example", "a@helo.example"])
def test_a_verdict_about_one_sender_is_no_other_senders(sender: str) -> None:
    """%{l}, %{s} and %{h}: such a result depends on more than client and domain and is not kept."""
    resolver = Scripted(Zone(RECORDS), {})
    one = envelope("192.0.2.2", sender, "mx.helo.example")
    check.check(one, resolver.for_message())
    assert check.recalled(one, resolver.for_message()) is None


def test_a_failure_is_not_kept() -> None:
    """temperror is asked again, however soon."""
    zone = Zone(RECORDS, failing={"inner.example"})
    resolver = Scripted(zone, {})
    one = envelope("192.0.2.2", "alice@plain.example", "h.example")
    assert check.check(one, resolver.for_message()).status == "temperror"
    assert check.recalled(one, resolver.for_message()) is None


def test_a_message_without_room_for_its_questions_does_not_profit() -> None:
    """DNS-04: what others asked must not decide how far a message's budget reaches."""
    resolver = Scripted(Zone(RECORDS), {})
    one = envelope("192.0.2.2", "alice@plain.example", "h.example")
    check.check(one, resolver.for_message())
    assert check.recalled(one, resolver.for_message(max_queries=2)) is None
    assert check.check(one, resolver.for_message(max_queries=2)).status == "permerror"
    assert check.check(one, resolver.for_message()).status == "pass"


def test_what_a_limit_cut_short_is_not_kept() -> None:
    """A share that ran out says nothing about the next message."""
    resolver = Scripted(Zone(RECORDS), {})

    def work(scope: Resolver) -> Kept:
        try:
            scope.share(queries=0, seconds=1.0).txt("plain.example")
        except LookupFailed:
            return Kept("cut short", keep=True)
        return Kept("found", keep=True)

    assert derive(resolver.for_message(), "key", work) == "cut short"
    assert len(resolver.derived_cache) == 0


def test_an_outer_conclusion_ends_with_the_inner_one_it_used() -> None:
    """Nested: what a remembered part rests on, the whole rests on."""
    resolver = Scripted(Zone(RECORDS), {"host.example": 5})

    def inner(scope: Resolver) -> Kept:
        return Kept(scope.addresses("host.example", "A"), keep=True)

    def outer(scope: Resolver) -> Kept:
        return Kept((derive(scope, "inner", inner), scope.txt("plain.example")), keep=True)

    derive(resolver.for_message(), "inner", inner)
    derive(resolver.for_message(), "outer", outer)
    assert resolver.derived("outer") is not None
    resolver.now = 5.5
    assert resolver.derived("outer") is None


def test_conclusions_are_bounded() -> None:
    """DMR-16: a sender with endless names only makes older ones go, by number and by size."""
    store: BoundedStore[int, Derived] = BoundedStore(entries=100, octets=200_000)
    for number in range(1000):
        store.keep(number, Derived(None, frozenset(), 1e9, 100), 0.0)
    assert len(store) == 100
    for number in range(1000):
        store.keep(number, Derived(None, frozenset(), 1e9, 50_000), 0.0)
    assert store.size <= 200_000
