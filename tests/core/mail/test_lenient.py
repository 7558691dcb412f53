"""What a reader could see in a From field that is malformed, or only seems well-formed (RFC 9989
11.5, docs/design.md Decisions)."""

from __future__ import annotations

import pytest

from dmarc_milter.core.mail.author import Author, author
from dmarc_milter.core.mail.domain import Domain
from fakes.growth import costs_less, is_linear, seconds

BANK = Domain("bank.example")

ASCII = [
    bytes([octet])
    for octet in range(256)
    if not (chr(octet).isalnum() and octet < 128) and octet not in b"@.-_"
]
SPACES = [
    " ",
    "  ",
    "\t",
    "\r\n ",
    "\n\t",
    "\u00a0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u2029",
    "\u202f",
    "\u205f",
    "\u3000",
    "\u0085",
]
UNSEEN = [
    "\u200b",
    "\u200c",
    "\u200d",
    "\u200e",
    "\u202e",
    "\u2066",
    "\u180e",
    "\ufeff",
    "\u00ad",
    "\u034f",
    "\ufe0f",
    "\U000e0041",
]
SHAPES = [
    "\u2603",
    "\U0001f600",
    "\u0301\u0302",
    "\uff0b",
    "\uff1c",
    "\uff1b",
    "\uff02",
    "\u2044",
    "\u2100",
    "\ufffd",
    "\ue000",
    "\u2260",
]
SPELLED = [
    "%2B",
    "%20",
    "&#43;",
    "&plus;",
    "&nbsp;",
    "&#xA0;",
    "\\+",
    "(c)",
    "()",
    "[]",
    "[x]",
    '"x"',
    '""',
    "<>",
    "><",
    ">>",
    ",,",
    "::",
]
SPELLED += [
    "=?utf-8?Q?=2B?=",
    "=?utf-8?B?Kw==?=",
    "--",
    "..",
    "//",
    "${x}",
    " (c) ",
    "+" * 50,
    "+." * 20,
    "@",
    "@@",
]
ODD = [
    *ASCII,
    *(each.encode() for each in (*SPACES, *UNSEEN, *SHAPES, *SPELLED)),
    b"\xc3",
    b"\xe2\x98",
    b"\xed\xa0\x80",
    b"\xff\xfe",
]

HOSTS = [
    "a{}b.bank.example",
    "a{}.bank.example",
    "{}a.bank.example",
    "{}.bank.example",
    "x.a{}b.bank.example",
    "a{}.x{}y.bank.example",
]
HOSTS += ["evil.example{}x.bank.example", "evil.example{}.bank.example"]
FRAMES = ["Bank <service@{}>", "service@{}", "Bank (x) <service@{}>"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("frame", FRAMES)
def test_no_odd_label_hides_the_organization(frame: str, host: str) -> None:
    """Whatever stands in whichever label, the walk from one of the candidates reaches
    bank.example."""
    before, _, after = frame.encode().partition(b"{}")
    for odd in ODD:
        found = author([before + host.encode().replace(b"{}", odd) + after])
        seen = [found.domain] if found.domain else found.candidates
        assert found.more or any(name.is_at_or_below(BANK) for name in seen), (odd, found)
        assert len(seen) <= 8, "a handful of names, not every combination"


ONE_READING = [
    (b"a@a+b.bank.example", ["b.bank.example", "ab.bank.example"]),
    (b"a@a+.b!.bank.example", ["bank.example"]),
    (b"a@evil.example+.bank.example", ["evil.example", "bank.example"]),
    (b"a@ba nk.example", ["nk.example", "bank.example", "ba"]),
    (
        b"a@customer support.bank.example",
        ["support.bank.example", "customersupport.bank.example", "customer"],
    ),
    (b"a@x.-a.bank.example", ["bank.example"]),
    (b"a@" + b"x" * 64 + b".bank.example", ["bank.example"]),
    (b"a@bank.example.1", ["bank.example"]),
    (b"a@a+b", ["a", "b", "ab"]),
    (b"a@[192.0.2.1]", []),
    (b"a@[IPv6:2001:db8::1]", []),
]


@pytest.mark.parametrize(("value", "names"), ONE_READING)
def test_the_lowest_names_of_a_reading(value: bytes, names: list[str]) -> None:
    """Cut at what is odd, joined over white space and split at it; names at or below each other are
    one, the lowest."""
    assert [each.name for each in author([value]).candidates] == names


LEGAL = [
    b'"john smith"@own.example',
    b'"x:y"@own.example',
    b'"a@own.example"@own.example',
    b"(via Foo), a@own.example",
    b"undisclosed:;, a@own.example",
    b'"Bank, Inc." <a@own.example>',
    b'"admin@own.example" <a@own.example>',
    b"!#$%&'*+-/=?^_`{|}~@own.example",
    b"=?utf-8?Q?x@own.example",
    b"Name [US] <a@own.example>",
    b"Name ] <a@own.example>",
    b"Re: Name <a@own.example>",
    b"10:30: Show <a@own.example>",
    b"Doe, John: x <a@own.example>",
    b"Tom &amp; Jo <a@own.example>",
    b"Name,(<a@own.example>)",
    b"Name (<a@own.example>)",
    b"'a@own.example' <a@own.example>",
    b"my_user@my_host.own.example",
    b"bounce+john=other.example@own.example",
    b'"john@other.example" <a@own.example>',
    b'"John <john@other.example>" <a@own.example>',
    b'"\\"john@other.example\\" via X" <a@own.example>',
    b"\"'long.name@other.example' via\r\n Group\" <a@own.example>",
    b"=?utf-8?Q?john=40other.example_via_X?= <a@own.example>",
    b"a@own.example (john@other.example)",
    b'"@home" <a@own.example>',
    b"R&D <a@own.example>",
    b'"a@other.example, b" <a@own.example>',
    b"Foo St. U.S.A. <a@own.example>, Roe, J.R. <b@own.example>",
    '"\u304a\u5ba2\u69d8\uff1a\u30b5\u30dd\u30fc\u30c8\uff08\u682a\uff09" <a@own.example>'.encode(),
]


@pytest.mark.parametrize("value", LEGAL)
def test_an_oddity_without_a_second_author_is_well_formed(value: bytes) -> None:
    """Legal or common, and every common reader shows own.example; what a display name says is
    another matter."""
    found = author([value])
    assert found.domain is not None, found
    assert found.domain.is_at_or_below(Domain("own.example"))


NOT_BORNE = [
    (b"mailto:a@own.example", "open group"),
    (b"x: a@own.example, Foo <b@own.example>", "open group"),
    (b"; Foo <a@own.example>", "semicolon out of place"),
    (b"(<a@own.example>)", "no address"),
    (b"=?utf-8?Q?x?=@own.example", "encoded word in an address"),
    (b"<a@own.example.1>", "number for a top-level domain"),
]


@pytest.mark.parametrize(("value", "reason"), NOT_BORNE)
def test_what_is_borne_has_its_limits(value: bytes, reason: str) -> None:
    """A tolerance is for names, not for addresses."""
    assert author([value]) == Author(None, reason, (Domain("own.example"),))


@pytest.mark.parametrize(
    "address",
    [
        b"<a@own.example.>",
        b"<.a@own.example>",
        b"<a..b@own.example>",
        b"< a@own.example>",
        b"<a@own.example(x)>",
    ],
)
def test_an_address_that_some_readers_do_not_take_leaves_them_the_name(address: bytes) -> None:
    """Python's email.policy and Roundcube look for another one then; without a second domain it is
    as good as any."""
    assert author([b'"Admin" ' + address]).domain == Domain("own.example")
    assert author([b'"admin@legit.example" ' + address]).candidates == (
        Domain("legit.example"),
        Domain("own.example"),
    )


def test_a_long_field_with_a_second_domain_is_not_read_any_further() -> None:
    """A name of four thousand octets with somebody's address in it is nobody's."""
    long = b'"admin@legit.example' + b" x" * 2100 + b'" <a@own.example>'
    assert author([long]).malformed == "readable in several ways"
    assert author([b'"' + b" x" * 2100 + b'" <a@own.example>']).domain == Domain("own.example")


@pytest.mark.parametrize(
    "value",
    [
        b"a@" + b"x+" * 40_000 + b".bank.example",
        b"a@" + b" x" * 40_000 + b" bank.example",
        b"a@" + b"x.y+" * 300 + b"bank.example",
        b", ".join(b"a@+%d.example" % number for number in range(5000)),
    ],
    ids=range(4),
)
def test_more_than_is_looked_at_is_too_many_domains(value: bytes) -> None:
    """A limit is never the sender's advantage: it counts like p=reject."""
    assert author([value]).more
    assert min(seconds(lambda: author([value])) for _ in range(3)) < 0.2


PIECES = [
    b"\xe7",
    b"\\",
    b'\\"',
    b"$",
    b"(",
    b"<",
    b"&#46;",
    b"%2E",
    b"xn--",
    b"\xcc\x81",
    b"=?u?q?",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"% <", b"@x.example>"), (b'!"', b'" <a@x.example>'), (b"a@x.example (", b")")],
)
def test_what_stands_around_does_not_make_it_slow(
    before: bytes, piece: bytes, after: bytes
) -> None:
    """Twice the octets, twice the time, up to where a field is read in every way."""
    assert is_linear(
        lambda value: author([value]),
        lambda size: before + piece * (size // len(piece)) + after,
        size=4000,
    )


def test_labels_that_are_too_long_are_not_put_into_punycode() -> None:
    """RFC 3492: it takes quadratic time, and 64 KiB of such labels took seconds."""
    labels = ("".join(map(chr, range(0x4E00 + n, 0x51E0 + n))) for n in range(20))
    value = "".join(f"@{label}" for label in labels).encode()
    assert costs_less(0.2, lambda: author([value]))
