"""The author of a message: the From corpus (docs/attacks.md, RFC 7489 6.6.1, docs/design.md
Decisions)."""

import email.policy
from email import message_from_bytes
from email.utils import getaddresses, parseaddr

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmarc_milter.core.mail.author import MAX_CANDIDATES, UNREAD, Author, author
from dmarc_milter.core.mail.domain import Domain, parse
from dmarc_milter.core.mail.mailbox_list import MAX_MAILBOXES, MAX_TOKENS
from fakes.growth import is_linear, seconds

LEGIT, ATTACK = "legit.example", "attack.example"

WELL_FORMED = [
    ("FRM-03", b"legit:admin@legit.example;", LEGIT),
    ("FRM-05", b'"x:y" <a@attack.example>', ATTACK),
    ("FRM-06", b"admin(c)@legit.example", LEGIT),
    ("FRM-06", b"admin@legit.example(.attack.example)", LEGIT),
    ("FRM-06", b"admin@(a(b)\\))legit.example", LEGIT),
    ("FRM-06", b"(<x@attack.example>) admin@legit.example (a@attack.example)", LEGIT),
    ("FRM-10", b'"a@attack.example" <admin@legit.example>', LEGIT),
    ("FRM-10", b'"admin@legit.example" <a@attack.example>', ATTACK),
    ("FRM-12", b'"a\\"b"@legit.example', LEGIT),
    ("FRM-12", b'"a>b"@legit.example', LEGIT),
    ("FRM-12", b'"admin@legit.example"@legit.example', LEGIT),
    ("FRM-13", b'"\\"Medtronic, Inc.\\"" <user@legit.example>', LEGIT),
    ("FRM-15", b"Doe, John <john@legit.example>", LEGIT),
    ("FRM-15", b"Doe, John, Jr. <john@legit.example>", LEGIT),
    ("FRM-16", b"<admin@legit.example.>", LEGIT),
    ("FRM-18", b"<root@localhost>", "localhost"),
    ("FRM-20", "<admin@straße.example>".encode(), "xn--strae-oqa.example"),
    ("FRM-24", b"<a@xn--a>", "xn--a"),
    ("FRM-24", b"<a@XN--STRAE-OQA.example>", "xn--strae-oqa.example"),
    ("FRM-25", b"=?utf-8?Q?x=0D=0AFrom:=20admin=40legit.example?= <a@attack.example>", ATTACK),
    ("FRM-25", b"=?utf-8?Q?Doe,_John?= <john@legit.example>", LEGIT),
    ("FRM-27", b"<admin%legit.example@attack.example>", ATTACK),
    ("FRM-27", b"<legit.example!admin@attack.example>", ATTACK),
    ("FRM-29", b"ADMIN@LEGIT.EXAMPLE", LEGIT),
    ("FRM-30", b"{{7*7}} %s%n%x {0.__class__} <${x}`id`@legit.example>", LEGIT),
    ("FRM-33", b"\r\n\t<admin@legit.example>", LEGIT),
    ("FRM-33", b" Some\r\n One\r\n\t<admin@legit.example>\r\n ", LEGIT),
    ("FRM-34", "<用户@legit.example>".encode(), LEGIT),
    ("ESP-14", b"<a@legit.example>, <b@legit.example>", LEGIT),
    ("WL-05", b"=?utf-8?Q?admin=40legit.example?= <a@attack.example>", ATTACK),
    ("WL-09", b"<a@xn--lgit-csa.example>", "xn--lgit-csa.example"),
    ("WL-09", "\u202enimda <a@attack.example>".encode(), ATTACK),
    ("WL-09", "admin@legit.example (\u05d0\u05d1\u200f)".encode(), LEGIT),
    ("FRM-34", "<\u05d0\u05d1\u05d2@legit.example>".encode(), LEGIT),
    ("dots", b"J. R. Doe <john@legit.example>", LEGIT),
    ("8-bit", b"J\xf6hn D\xc3\xb6e <john@legit.example>", LEGIT),
    ("8-bit", b'"\x83\\\x83t" <admin@legit.example>', LEGIT),
    ("8-bit", b'"\\"Andr\xe9\\" X" <admin@legit.example>', LEGIT),
    ("8-bit", '"D\u00f6e \u4e2d\\"x\\"" <admin@legit.example>'.encode(), LEGIT),
    ("same @", b"admin@legit.example <admin@legit.example>", LEGIT),
    ("same @", b"The Admin admin@LEGIT.example <admin@legit.example>", LEGIT),
    ("one domain", b"g1:a@legit.example;, b@legit.example, C <c@LEGIT.example.>", LEGIT),
    ("RFC 5322 4.4 obs-mbox-list", b",<a@legit.example>,,", LEGIT),
    ("RFC 5322 3.4", b"< admin@legit.example >", LEGIT),
    ("dots in a local part", b".a..b.@legit.example", LEGIT),
]

MALFORMED = [
    ("FRM-01", b"", []),
    ("FRM-01", b" ", []),
    ("FRM-01", b"\r\n ", []),
    ("FRM-01", b"<>", []),
    ("FRM-01", b";", []),
    ("FRM-01", b",", []),
    ("FRM-02", b"undisclosed:;", []),
    ("FRM-02", b"g:;", []),
    ("FRM-02", b"a:;" * 5000, []),
    ("FRM-04", b"g:a@attack.example,admin@legit.example;", [ATTACK, LEGIT]),
    ("FRM-04", b"g1:a@attack.example;,g2:b@legit.example;", [ATTACK, LEGIT]),
    ("FRM-05", b"g<:a@attack.example>;", [ATTACK]),
    ("FRM-07", b"admin@legit.example (oops", [LEGIT]),
    ("FRM-07", b"(" * 5000, []),
    ("FRM-07", b"(" * 5000 + b")" * 5000 + b" <a@b>", ["b"]),
    *(
        ("FRM-08", b"alice@legit.example%cbob@attack.example" % each, [LEGIT, ATTACK])
        for each in b')<;(,:"[]'
    ),
    ("FRM-08", b"alice@legit.example.bob@attack.example", ["legit.example.bob", ATTACK]),
    ("FRM-09", b"a@attack.example@legit.example", [ATTACK, LEGIT]),
    ("FRM-09", b"a@legit.example@attack.example", [LEGIT, ATTACK]),
    ("FRM-11", b"admin@legit.example <a@attack.example>", [LEGIT, ATTACK]),
    ("FRM-12", b'"admin@attack.example"@legit.example', [ATTACK, LEGIT]),
    ("FRM-14", b"user@legit.example>", [LEGIT]),
    ("FRM-14", b"<user@legit.example", [LEGIT]),
    ("FRM-14", b"<<user@legit.example>>", [LEGIT]),
    ("FRM-14", b"<a@attack.example> <admin@legit.example>", [ATTACK, LEGIT]),
    ("FRM-15", b"admin@legit.example, John <a@attack.example>", [LEGIT, ATTACK]),
    ("FRM-15", b'"a@attack.example", John <john@legit.example>', [ATTACK, LEGIT]),
    ("FRM-17", b"<admin@.legit.example>", [LEGIT]),
    ("FRM-17", b"<admin@legit..example>", [LEGIT]),
    ("FRM-17", b"<admin@->", []),
    ("FRM-17", b"<admin@" + b"a" * 64 + b".example>", ["example"]),
    ("FRM-17", b"<admin@" + b"abcde." * 43 + b"example>", ["abcde." * 41 + "example"]),
    ("FRM-17", b"<admin@" + b"a." * 127 + b"a>", ["a." * 126 + "a"]),
    ("FRM-18", b"<admin@[192.0.2.1]>", []),
    ("FRM-18", b"<admin@[IPv6:2001:db8::1]>", []),
    ("FRM-18", b"<admin@192.0.2.1>", []),
    ("FRM-19", b"<admin@legit.example attack.example>", [LEGIT, ATTACK]),
    ("FRM-19", b"<admin @ legit . example>", [LEGIT]),
    ("FRM-19", b"<admin@legit\r\n .example>", [LEGIT]),
    ("FRM-21", "<admin@legit。example>".encode(), [LEGIT]),
    ("FRM-21", "<admin@legit．example>".encode(), [LEGIT]),
    ("FRM-21", "<admin@legit｡example>".encode(), [LEGIT]),
    ("FRM-21", "<admin@ｌegit.example>".encode(), [LEGIT]),
    ("FRM-22", "<admin@legit.ex\u200bample>".encode(), ["legit.ex", LEGIT]),
    ("FRM-22", "<admin@legit.ex\u00adample>".encode(), ["legit.ex", LEGIT]),
    ("FRM-22", "<admin@\u202elegit.example>".encode(), [LEGIT]),
    ("FRM-22", "<admin@legit.ex\u034fample>".encode(), ["legit.ex", LEGIT]),
    ("FRM-22", "<admin@legit.ex\ufe0fample>".encode(), ["legit.ex", LEGIT]),
    ("FRM-22", "<\u202emoc.tigel@attack.example>".encode(), [ATTACK]),
    ("FRM-22", '"\u2067moc.tigel"@attack.example'.encode(), [ATTACK]),
    ("FRM-22", "<a(\u202e)@attack.example>".encode(), [ATTACK]),
    ("FRM-23", b"<admin@legit.\xe9xample>", ["legit.xn--xample-9ua", "legit"]),
    ("FRM-23", b"<admin@legit.example\xff>", [LEGIT]),
    ("FRM-23", b"<admin@legit\xff.example>", [LEGIT, "legit"]),
    ("FRM-23", b"<admin@legit\xc0\xaeexample>", [LEGIT]),
    ("FRM-23", b"<admin@legit.example\xef\xbb\xbf>", [LEGIT]),
    ("FRM-23", b"<\xe9@legit.example>", [LEGIT]),
    ("Shift_JIS", b'"\x95\\" <admin@legit.example>" <a@attack.example>', [LEGIT, ATTACK]),
    ("Big5", b"(\xa5\\) <admin@legit.example>) <a@attack.example>", [LEGIT, ATTACK]),
    ("GBK", b'"\x81\\\\" <a@attack.example>, x" <admin@legit.example>', [ATTACK, LEGIT]),
    ("FRM-24", b"<a@xn--zz--.example>", ["xn--zz--.example"]),
    ("FRM-26", b"admin@=?utf-8?Q?legit.example?=", [LEGIT]),
    ("FRM-26", b"<=?utf-8?Q?admin=40legit.example?=>", [LEGIT]),
    ("FRM-26", b"=?utf-8?Q?admin=40legit.example=3E=2C?=@attack.example", [ATTACK, LEGIT]),
    ("FRM-28", b"<mailto:admin@legit.example>", [LEGIT]),
    ("FRM-28", b"a@attack.example; admin@legit.example", [ATTACK, LEGIT]),
    ("FRM-28", b"a@attack.example\tadmin@legit.example", [ATTACK, LEGIT]),
    ("FRM-28", b"a@attack.example\r\n admin@legit.example", [ATTACK, LEGIT]),
    ("FRM-30", b"<admin@${run{/bin/true}}.legit.example>", [LEGIT]),
    ("FRM-30", b"<\\N{x}@legit.example>", [LEGIT]),
    ("FRM-31", b"<a@legit.example\\>", [LEGIT]),
    ("FRM-31", b"<a@legit.example\\.attack.example>", [LEGIT, "legit.example.attack.example"]),
    ("FRM-31", b"<a@legit.example/../>", [LEGIT]),
    ("FRM-31", b"<a@legit.example%2f>", [LEGIT]),
    ("FRM-33", b"a\r\n b" * 900, []),
    ("FRM-33", b"x" * 99000, []),
    (
        "ESP-15",
        b"=?utf-8?B?PGFkbWluQGxlZ2l0LmV4YW1wbGU+?=,<second@attack.example>",
        [ATTACK, LEGIT],
    ),
    ("ESP-15", b"=?utf-8?Q?admin=40legit.example?=, <b@legit.example>", [LEGIT]),
    (
        "ESP-16",
        b"<@attack.example,@any.example:admin@legit.example>",
        [ATTACK, "any.example", LEGIT],
    ),
    ("ESP-16", b"<@legit.example:a@attack.example>", [LEGIT, ATTACK]),
    ("ESP-17", b"<admin@legit.example>\\,<second@attack.example>", [LEGIT, ATTACK]),
    ("ESP-18", b"admin@legit.example,<second@attack.example>", [LEGIT, ATTACK]),
    ("ESP-19", b"<any@attack.example>admin@legit.example", [ATTACK, LEGIT]),
    ("ESP-19", b"<any@attack.example> John", [ATTACK]),
    *(
        ("WL-04", b"<admin@legit.example%c@attack.example>" % each, [LEGIT, ATTACK])
        for each in b"\x00\x01\x7f\x08\x0b\x0c"
    ),
    ("WL-04", b"<admin@legit.example\x80@attack.example>", [LEGIT, ATTACK]),
    ("WL-04", b'"a\x00" <a@attack.example>', [ATTACK]),
    ("HDR-03", b"a@attack.example\r <x@attack.example>", [ATTACK]),
    ("HDR-03", b"John\rFrom: <admin@legit.example>, <a@attack.example>", [LEGIT, ATTACK]),
    ("HDR-03", b'"x\nFrom: admin@legit.example" <a@attack.example>', [LEGIT, ATTACK]),
    ("other ats", "<admin＠legit.example@attack.example>".encode(), [LEGIT, ATTACK]),
    ("glued by some readers", b"a@legit.example via B <b@legit.example>", [LEGIT]),
    ("@ that names nothing", b"Bob @ <b@legit.example>", [LEGIT]),
    ("@ that names another", b"Bob @ Acme <b@legit.example>", ["acme", LEGIT]),
    ("dangling name", b"<a@legit.example>, John", [LEGIT]),
    ("several words", b'"a".b@legit.example', [LEGIT]),
    ("encoded specials", b"=?utf-8?q?<admin@legit.example>?= <a@attack.example>", [LEGIT, ATTACK]),
]


@pytest.mark.parametrize(("row", "value", "domain"), WELL_FORMED)
def test_a_well_formed_field_has_one_domain(row: str, value: bytes, domain: str) -> None:
    """RFC 5322 3.6.2 with the tolerances of docs/design.md."""
    assert author([value]) == Author(Domain(domain)), row


@pytest.mark.parametrize(("row", "value", "domains"), MALFORMED)
def test_a_malformed_field_has_candidates(row: str, value: bytes, domains: list[str]) -> None:
    """RFC 9989 5.3.1: never a domain, but what lenient readers could see, so that the strictest
    policy can be applied."""
    found = author([value])
    assert found.domain is None
    assert found.malformed.isascii()
    assert Domain("ipv6") not in found.candidates, "the tag of an address literal"
    assert set(found.candidates) >= {
        Domain(name) for name in domains if isinstance(parse(name), Domain)
    }, row
    assert not found.more
    assert len(found.candidates) <= len(domains) + 1, (
        "no inventions beyond a cut-off or joined form"
    )


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ("ESP-08", [b"<first@attack.example>", b"<admin@legit.example>"]),
        ("ESP-08 reversed", [b"<admin@legit.example>", b"<first@attack.example>"]),
        (
            "ESP-08 thrice",
            [b"<first@attack.example>", b"<admin@legit.example>", b"<admin@legit.example>"],
        ),
        ("ESP-10", [b"<first@attack.example>", b" <admin@legit.example>"]),
    ],
)
def test_several_from_fields_are_malformed(row: str, fields: list[bytes]) -> None:
    """RFC 5322 3.6: at most one; all their domains are candidates."""
    found = author(fields)
    assert (found.domain, found.malformed) == (None, "several From fields")
    assert set(found.candidates) == {Domain(LEGIT), Domain(ATTACK)}


def test_identical_from_fields_are_malformed() -> None:
    """ESP-08: even identical twice."""
    assert author([b"<admin@legit.example>"] * 2) == Author(
        None, "several From fields", (Domain(LEGIT),)
    )


def test_no_from_field_is_malformed() -> None:
    """ESP-09, -11, -12, -13, FRM-01: Sender and Resent-From are never the author (RFC 9989 4.2)."""
    assert author([]) == Author(None, "no From field")


@pytest.mark.parametrize(
    "fields",
    [
        [b"<a@attack.example>", UNREAD],
        [UNREAD, b"<a@attack.example>"],
        [UNREAD, b"<a@attack.example>", UNREAD],
    ],
)
def test_a_field_that_was_not_kept_may_name_anyone(fields: list[bytes]) -> None:
    """HDR-05: a From field pushed out of the limits counts like domains too many, so that none is
    hidden there."""
    assert author(fields) == Author(
        None, "From field beyond the limits", (Domain(ATTACK),), more=True
    )
    assert author([UNREAD]) == Author(None, "From field beyond the limits", more=True)


def test_sixteen_candidates_and_more() -> None:
    """FRM-32: the seventeenth name is counted, not named; of how many organizations they are the
    evaluation says."""
    many = b", ".join(b"a@d%d.example" % number for number in range(MAX_CANDIDATES + 1))
    assert author([many]) == Author(
        None,
        "several domains",
        tuple(Domain(f"d{n}.example") for n in range(MAX_CANDIDATES)),
        more=True,
    )
    assert not author([many.rpartition(b",")[0]]).more


SPOILED = st.sampled_from(
    ["", "", "", "(c)", "(a(b))", "\u200b", "\u034f", "\x00", "\x7f", "\\", "\udcff"]
)
STOPPED = st.sampled_from([".", "\u3002", "\uff0e", "(c).", ". ", ".\r\n "])
LETTERS = st.tuples(
    *(
        (
            STOPPED
            if c == "."
            else st.tuples(st.sampled_from([c, c.upper(), chr(ord(c) + 0xFEE0)]), SPOILED).map(
                "".join
            )
        )
        for c in LEGIT
    )
)


@settings(deadline=None)  # the machine may be busy
@given(
    LETTERS.map("".join),
    st.sampled_from(["a@%s", "<a@%s>", "a@%s x", '"x" <a@%s', "a@attack.example, <b@%s>"]),
)
def test_a_spoiled_name_is_still_seen(name: str, frame: str) -> None:
    """FRM-19 to FRM-23, WL-04 combined: whatever spoils a name, what it was made of is among the
    candidates, or too many are."""
    found = author([(frame % name).encode("utf-8", "surrogateescape")])
    assert Domain(LEGIT) in {found.domain, *found.candidates} or found.more


def test_so_many_words_and_no_more() -> None:
    """Lists and names are bounded at their limit; beyond it nothing is read any further."""
    assert author([b", ".join([b"a@legit.example"] * MAX_MAILBOXES)]).domain == Domain(LEGIT)
    assert author([b", ".join([b"a@legit.example"] * (MAX_MAILBOXES + 1))]) == Author(
        None, "too many mailboxes", (Domain(LEGIT),)
    )
    longest = b"a " * ((MAX_TOKENS - 5) // 2) + b" <a@legit.example>"
    assert author([longest]).domain == Domain(LEGIT)
    assert author([b"a b " + longest]) == Author(None, "too many words", (Domain(LEGIT),))


HUGE = [
    b"@" * 100_000,
    b"a@b.(x)" * 20_000,
    b", ".join(b"a@d%d.example" % number for number in range(10_000)),
    b"a@b.c," * 17_000,
    b'"a" ' * 25_000,
    b"=?utf-8?q?a?= " * 7_000,
    b"a." * 50_000,
    b"@\xc3\xa9%d" * 25_000,
    b"".join(b"@\xcc\xa7%d\xcc\x81." % number for number in range(12_000)),
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: repr(value[:12]))
def test_a_huge_field_is_malformed_in_no_time(value: bytes) -> None:
    """FRM-32: under 0.5 s, at most so many names to look up."""
    found = author([value])
    assert found.malformed
    assert len(found.candidates) <= MAX_CANDIDATES
    assert min(seconds(lambda: author([value])) for _ in range(3)) < 0.5


GROWING = [
    b"(",
    b"()",
    b"(a",
    b'"',
    b'"\\',
    b'"a" ',
    b"<",
    b"<>",
    b"[",
    b"[]",
    b"\\",
    b"@",
    b"@(",
    b"@(a",
    b"@ ",
    b"@a. ",
    b"@a (b)",
    b"@\xc3\xa9",
    b"=",
    b"=?",
    b"=?a?q?",
    b"=?a?q?b?= ",
    b"?= ",
    b"=?u?b?QA==?=",
    b"a:;",
    b"a@b.c,",
    b"a,",
    b"\r\n ",
    b" ",
    b"a",
    b"\xff",
    b"\xcc\x81",
]


@pytest.mark.parametrize("piece", GROWING)
def test_the_from_parser_is_linear(piece: bytes) -> None:
    """Twice the octets, at most 2.6 times the time (CVE of the standard library's quadratic
    parser)."""
    assert is_linear(lambda value: author([value]), lambda size: (piece * size)[:size])


@pytest.mark.parametrize("piece", [b"(", b'"', b"\\", b"@", b"=?a?q?b?=", b" "])
def test_the_from_parser_is_linear_after_an_address(piece: bytes) -> None:
    """The same, past what already made the field malformed."""
    assert is_linear(
        lambda value: author([value]), lambda size: (b"a@legit.example a@b " + piece * size)[:size]
    )


# --- against the standard library's readers

SPLINTERS = [
    b"a",
    b"b.c",
    b"legit.example",
    b"attack.example",
    b"@",
    b"@legit.example",
    b"a@legit.example",
    b"b@attack.example",
    b"<",
    b">",
    b"<a@legit.example>",
    b"<b@attack.example>",
    b",",
    b";",
    b":",
    b".",
    b" ",
    b"\t",
    b"\r\n ",
    b"(",
    b")",
    b"(c)",
    b'"',
    b'"q"',
    b"\\",
    b"[",
    b"]",
    b"=?utf-8?q?x?=",
    b"=?utf-8?q?a=40attack.example?=",
    b"=?utf-8?q?,?=",
    b"\xc3\xa9",
    b"\xe9",
    b"\x00",
    b"g:",
    b"%",
    b"!",
]


def domains_by_policy(value: bytes) -> set[str]:
    """What email.policy.default sees; nothing when it fails."""
    try:
        field = message_from_bytes(b"From: " + value + b"\r\n\r\n", policy=email.policy.default)[
            "from"
        ]
        return {each.domain.lower() for each in field.addresses if each.domain}
    except Exception:  # its parser has many ways to fail
        return set()


def domains_by_utils(value: bytes) -> set[str]:
    """What email.utils sees, first address and all of them, on the unfolded text."""
    text = value.decode("utf-8", "surrogateescape").replace("\r\n", "")
    try:
        found = [parseaddr(text), *getaddresses([text])]
    except (RecursionError, IndexError):
        return set()
    return {address.rpartition("@")[2].lower() for _, address in found if "@" in address}


def seen_by_others(value: bytes) -> set[str]:
    """The names in our spelling; text that is no name as it is."""
    names = domains_by_policy(value) | domains_by_utils(value)
    return {
        (
            found.name
            if isinstance(found := parse(name.encode("utf-8", "surrogateescape")), Domain)
            else name
        )
        for name in names
    }


HARMLESS = (b'"', b"(", b"\\")
"""Quoted strings and comments hold what they like; some versions of email.utils read quoted-pairs
and comments inside addr-specs in their own way. Such fields are compared by the tables above and by
the next test."""


@given(
    st.lists(
        st.sampled_from([each for each in SPLINTERS if not any(odd in each for odd in HARMLESS)]),
        max_size=9,
    ).map(b"".join)
)
@example(b"a@legit.example,")
@example(b"Doe, J <a@legit.example>")
@example(b"a@legit.example <a@legit.example>")
def test_a_well_formed_domain_is_what_every_other_reader_sees(value: bytes) -> None:
    """Where email.utils or email.policy see another domain, the field is malformed."""
    found = author([value])
    if found.domain:
        assert seen_by_others(value) <= {found.domain.name}


@given(st.lists(st.sampled_from(SPLINTERS), max_size=9).map(b"".join))
def test_what_others_see_is_ours_or_a_candidate(value: bytes) -> None:
    """No other reader's domain is overlooked, unless it stands in a comment or quotation of a
    well-formed field."""
    found = author([value])
    mine = {found.domain, *found.candidates}
    for name in seen_by_others(value):
        other = parse(name)
        if isinstance(other, Domain) and not found.more and "." in other.name:
            assert (
                other in mine
                or (found.domain and any(odd in value for odd in HARMLESS))
                or _reassembled(other.name, value)
            )


def _reassembled(name: str, value: bytes) -> bool:
    """Readers that drop quotes, spaces or brackets glue names together that stand nowhere; nobody
    can show those."""
    return name.encode() not in value.lower()


@given(st.binary(max_size=200) | st.lists(st.sampled_from(SPLINTERS), max_size=12).map(b"".join))
def test_any_octets_give_an_author(value: bytes) -> None:
    """Never both a domain and a complaint, never neither; no exception escapes."""
    for found in (author([value]), author([value, value])):
        assert bool(found.domain) != bool(found.malformed)
        assert len(found.candidates) <= MAX_CANDIDATES
        assert not (found.domain and found.candidates)
