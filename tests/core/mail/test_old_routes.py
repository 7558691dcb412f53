"""a%b and b!a, which Sendmail rewrites to a@b (ruleset 3 of its proto.m4; RFC 1123 5.2.16 for the %
hack)."""

from __future__ import annotations

import pytest

from dmarc_milter.core.mail.author import author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.old_routes import old_routes
from fakes.growth import is_linear

LEGIT = ("legit.example",)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b" <admin%legit.example>", LEGIT),
        (b" admin%legit.example", LEGIT),
        (b" Bank <admin%legit.example>", LEGIT),
        (b" <admin%attack.example%legit.example>", LEGIT),
        (b" <legit.example!admin>", LEGIT),
        (b" <legit.example!relay!admin>", LEGIT),
        (b" legit.example!admin (Bank)", LEGIT),
        (b" a@attack.example, admin%legit.example", LEGIT),
        (b" LEGIT.example.!admin", LEGIT),
        (b" <admin@attack.example%legit.example>", ()),
        (b' "admin%legit.example"', ()),
        (b" (admin%legit.example)", ()),
        (b" 50%off", ()),
        (b" Wow!", ()),
        (b" me!you", ()),
        (b" legit.example!", LEGIT),
        (b" %", ()),
        (b" !", ()),
        (b" \xff!\x00%", ()),
    ],
)
def test_where_an_old_route_leads(value: bytes, names: tuple[str, ...]) -> None:
    """MTA-10: one before the first !, else behind the last %; what has an @ of its own is left to
    the other readings."""
    assert old_routes([value]) == (tuple(map(Domain, names)), False)


@pytest.mark.parametrize(
    "value", [b" <admin%legit.example>", b" <legit.example!admin>", b" Bank <legit.example!a!b>"]
)
def test_it_is_a_candidate_of_a_malformed_from(value: bytes) -> None:
    """MTA-10: so that the policy of the domain which readers will see is asked for (malformed_from
    = strictest)."""
    found = author([value])
    assert found.domain is None
    assert Domain("legit.example") in found.candidates


@pytest.mark.parametrize(
    "value",
    [
        b" <user%other.example@own.example>",
        b" <other.example!user@own.example>",
        b" 50%off.example! <a@own.example>",
    ],
)
def test_a_well_formed_address_stays_what_it_is(value: bytes) -> None:
    """RFC 5322 3.2.3: % and ! are atext; with an @ Sendmail leaves them alone."""
    assert author([value]).domain == Domain("own.example")


@pytest.mark.parametrize("piece", [b"a%", b"a!b ", b"%", b'"', b"(", b"a%b.example,", b'\\"'])
def test_it_takes_linear_time(piece: bytes) -> None:
    """What an attacker repeats."""
    assert is_linear(
        lambda value: old_routes([value]),
        lambda size: b'"%' + piece * (size // len(piece)),
        size=3500,
    )


@pytest.mark.parametrize("odd", [b"\xe7", b"$", b"\\", b'a"', "é☃".encode()])
def test_a_long_word_before_an_at_takes_linear_time(odd: bytes) -> None:
    """The fuzz found one of 8 KiB that took 0.7 s: a word may have begun at each odd character."""
    assert is_linear(
        lambda value: old_routes([value]),
        lambda size: b"% <" + odd * (size // len(odd)) + b"@x.example>",
        size=3500,
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b"a@b$c%legit.example", LEGIT),
        (b"a@b.c%legit.example", ()),
        (b"@$$a%legit.example", LEGIT),
        (b"@$a%legit.example@x.example", ()),
    ],
)
def test_behind_an_at_a_route_begins_at_the_first_odd_character(
    value: bytes, names: tuple[str, ...]
) -> None:
    """MTA-10: and where another @ follows, the other readings have it."""
    assert old_routes([value]) == (tuple(map(Domain, names)), False)


def test_an_old_route_at_the_end_of_a_long_field_is_seen() -> None:
    """MTA-10: what stands before it may be as long as the sender likes."""
    found = author([b" (" + b"x" * 20_000 + b") <admin%legit.example>"])
    assert Domain("legit.example") in found.candidates


def test_more_old_routes_than_are_looked_at_are_too_many_domains() -> None:
    """A limit is never the sender's advantage: `more` refuses as more than four domains do."""
    words = b" ".join(b"%d%%x.%d" % (number, number) for number in range(101))
    found = author([b" " + words + b" admin%legit.example"])
    assert found.more
    assert not author([b" 50%off.example " * 200 + b"admin%legit.example"]).more
