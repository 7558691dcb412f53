"""SPF records as text: RFC 7208 4.5 (selection), 12 (grammar), and the fences of docs/attacks.md
SPF-08, SPF-09, SPF-14."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail import domain as domains
from dmarc_milter.core.mail.domain import Domain, Malformed, is_special_use
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.record import (
    SpfMacro,
    SpfRecord,
    is_multi_label,
    parse,
    select,
    tokens,
)
from fakes.growth import is_linear, seconds

MAX_TERM = 512


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (b"v=spf1", True),
        (b"v=spf1 -all", True),
        (b"V=SpF1 -all", True),
        (b"v=spf1  ", True),
        (b"v=spf10 -all", False),
        (b"v=spf1\t-all", False),
        (b"v=spf1\n", False),
        (b" v=spf1 -all", False),
        (b"v=spf", False),
        (b"v= spf1 -all", False),
        (b"", False),
        (b"spf2.0/pra -all", False),
    ],
)
def test_a_record_begins_with_the_version_alone(text: bytes, chosen: bool) -> None:
    """RFC 7208 4.5; SPF-07."""
    assert bool(select([b"other", text])) is chosen


VALID = """
all +all -all ?all ~all ALL
a A a:example.com a:example.com. a/24 a//64 a/24//64 a:example.com/0//0 a:foo:bar/baz.example.com
a:foo.example.com/24.com a:.com a:%{d}/24
a:a-b.c-d a:example.xn--zckzah a:_x.example.1x a:example.a1
mx mx/32//128 MX:%{d2}.example.com ptr ptr:example.com
include:example.com include:%{ir}.%{v}._spf.%{d2} exists:%{l1r+-}.%{d} exists:%{S}.example.com
exists:%%.example.com exists:a%_
exists:%{i}.example.com. exists:%{d127} exists:%{d999999999} exists:%{H}.%{p}.x exists:%{o-.+,/_=}
exists:%{dR-}
ip4:192.0.2.1 ip4:192.0.2.1/24 ip4:0.0.0.0/0 ip4:255.255.255.255/32
ip6::: ip6:::1 ip6:2001:db8::/32 ip6:2001:DB8::192.0.2.1/128 ip6:1:2:3:4:5:6:7::
redirect=example.com redirect=%{d}.example.com REDIRECT=example.com exp=example.com foo=bar foo=
a=b foo.bar-baz_1=%{d}%%x
"""
INVALID = """
al all:x all/24 -+all + - :x =x 1x=y _x=y x a, a: a:/24 a:example a:example.123 a:example.com..
a:example.-x a:example.x- a/33 a/024
a//129 a/24/64 a/24//064 a//64/24 a/x a:example.com/ a:exam%ple.com a:%{d a:%{} a:%{z}.com a:%{d1x}
a:%{d-1} a:%{1d} a:%{d}com
a:%{d0} a:%{d00} a:%{d9999999999} a:%(d).com a:example.com% a:%{c}.com a:%{r}.x a:%{T}.x
a:example.%%_
include include: include/24 include:example exists exists: exists:%{d}/24 ptr: ptr/24
ptr:example.com/24 mx: mx:1.2.3.4
ip4 ip4: ip4:192.0.2 ip4:192.0.2.1/ ip4:192.0.2.1/33 ip4:192.0.2.1/01 ip4:192.0.2.01
ip4:192.0.2.256 ip4:192.0.2.1//24 ip4:::1
ip4:192.0.2.1/99999999999999999999 ip6 ip6: ip6:1 ip6:::1/129 ip6:::1/ ip6:::1//64 ip6:fe80::1%eth0
ip6:192.0.2.1 ip6::::
redirect= redirect=example redirect=%{c}.x exp= exp=example exp=%{x} foo=% foo=%{c} foo=%{d0}
prt ip:192.0.2.1 ipv4:192.0.2.1 192.0.2.1 a:192.0.2.1
"""


@pytest.mark.parametrize("term", VALID.split())
def test_terms_by_the_grammar_are_taken(term: str) -> None:
    """RFC 7208 12; macros by 7.1."""
    assert isinstance(parse(b"v=spf1 " + term.encode(), MAX_TERM), SpfRecord)


@pytest.mark.parametrize("term", INVALID.split())
def test_any_other_term_spoils_the_record(term: str) -> None:
    """RFC 7208 4.6: a syntax error anywhere, before anything is evaluated."""
    assert isinstance(parse(b"v=spf1 +all " + term.encode(), MAX_TERM), Malformed)


@pytest.mark.parametrize(
    "text",
    [
        b"v=spf1 a\x00 -all",
        b"v=spf1 a\r\n-all",
        b"v=spf1 \xe4.example",
        b"v=spf1 a:\x7f.com",
        b"v=spf1\x20\x09all",
    ],
)
def test_only_printable_ascii_is_a_record(text: bytes) -> None:
    """SPF-14."""
    assert parse(text, MAX_TERM) == Malformed("character outside printable ASCII")


def test_what_cannot_be_reached_is_gone() -> None:
    """RFC 7208 5.1: terms after all; 6.1: redirect beside all, wherever it stands."""
    record = parse(b"v=spf1 redirect=example.com a -all mx", MAX_TERM)
    assert isinstance(record, SpfRecord)
    assert [each.text for each in record.directives] == ["a", "-all"]
    assert record.redirect == ""


@pytest.mark.parametrize(
    ("extra", "taken"),
    [("redirect=b.example", False), ("exp=b.example", False), ("foo=b foo=c", True)],
)
def test_only_known_modifiers_are_single(extra: str, taken: bool) -> None:
    """RFC 7208 6: redirect and exp at most once, unknown modifiers at will."""
    text = f"v=spf1 exp=a.example Redirect=a.example {extra}".encode()
    assert isinstance(parse(text, MAX_TERM), SpfRecord) is taken


def test_terms_have_a_bound() -> None:
    """SECURITY.md, Limits: 512 octets, and one more is too many."""
    fits = b"a:" + b"x" * (MAX_TERM - 6) + b".com"
    assert isinstance(parse(b"v=spf1 " + fits, MAX_TERM), SpfRecord)
    assert parse(b"v=spf1 " + fits.replace(b"x", b"xx", 1), MAX_TERM) == Malformed("term too long")


def test_macros_are_read_as_written() -> None:
    """RFC 7208 7.1."""
    assert tokens("a%%b%_%-%{Lr+-}.%{d2}") == (
        "a",
        "%",
        "b",
        " ",
        "%20",
        SpfMacro("l", "r+-", True),
        ".",
        SpfMacro("d", "2", False),
    )


REASONS = {
    "character outside printable ASCII",
    "term too long",
    "mechanism unknown or out of form",
    "domain missing",
    "domain does not end in a top-level label",
    "macro not valid",
    "macro letter not allowed here",
    "macro digits out of range",
    "prefix length not valid",
    "ip4 address not valid",
    "ip6 address not valid",
    "redirect= appears twice",
    "exp= appears twice",
}


@given(
    st.binary(max_size=300) | st.text("v=spf1 aAmxptr:%{}d0/24.-+_~?", max_size=80).map(str.encode)
)
def test_any_octets_are_judged(text: bytes) -> None:
    """A record or the reason why not, from this program's own words."""
    found = parse(b"v=spf1 " + text, MAX_TERM)
    assert isinstance(found, SpfRecord) or found.reason in REASONS


GROWING: dict[str, Callable[[int], bytes]] = {
    "toplabel": lambda n: b"a:x." + b"a" * n + b"!",
    "dots after a macro": lambda n: b"exists:%{d}" + b"." * n,
    "escapes and dots": lambda n: b"exists:%%" + b".a" * (n // 2),
    "modifiers": lambda n: b"x=y " * (n // 4),
    "addresses": lambda n: b"ip4:1.2.3.4 " * (n // 12),
    "digits": lambda n: b"exists:%{l" + b"9" * n + b"r}",
    "prefix digits": lambda n: b"ip4:1.1.1.1/" + b"9" * n,
    "macros": lambda n: b"exists:" + b"%{d}" * (n // 4),
    "open macro": lambda n: b"exists:" + b"%{d" * (n // 3),
    "slashes": lambda n: b"a" + b"/1" * (n // 2),
    "colons": lambda n: b"ip6:" + b":" * n,
    "spaces": lambda n: b" " * n,
    "modifier name": lambda n: b"x" * n + b"!",
}


@pytest.mark.parametrize("shape", GROWING)
def test_time_grows_with_the_size_alone(shape: str) -> None:
    """SPF-09, without a limit on terms, and 64 KiB in less than 0.2 s."""

    def judge(text: bytes) -> None:
        spf_record.parse.cache_clear()
        parse(text, 1 << 20)

    def make(size: int) -> bytes:
        return b"v=spf1 " + GROWING[shape](size)

    assert is_linear(judge, make)
    assert min(seconds(lambda: judge(make(65536))) for _ in range(3)) < 0.2


@given(
    st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9_.\\-]{1,70}(\.test|\.Local)?", fullmatch=True)
)
def test_a_domain_is_all_that_spf_asks_of_a_name_but_its_labels(text: str) -> None:
    """RFC 7208 4.3: what check_host() looks at is whether there are two labels, and that they are
    in the DNS."""
    found = domains.parse(text)
    if isinstance(found, Domain):
        assert is_multi_label(found.name) == ("." in found.name and not is_special_use(found.name))
