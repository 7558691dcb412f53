"""Every parser is linear, and no header block within the limits costs more than 0.2 s of processor
time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dmarc_milter.core import arc
from dmarc_milter.core.actions.plan import Marking, remove_forged
from dmarc_milter.core.authres import field, forgery
from dmarc_milter.core.dkim import DkimOptions, key, prepare, signature, tags
from dmarc_milter.core.dkim.header import canonicalize
from dmarc_milter.core.dmarc import record
from dmarc_milter.core.mail import author, domain, encoded_words, lenient, received
from dmarc_milter.core.mail.header_collector import Collector
from dmarc_milter.core.mail.lenient_lists import STYLES, addresses
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.mail.message import parse as parse_message
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.dns import rdata, wire
from fakes.growth import costs_less, is_linear
from fuzz.through_session import NOBODY, FuzzTransaction, session_envelope

OURS = ["mx.example.com"]
WIDE = DkimOptions(max_field=1 << 20, max_names=1 << 20)


def dns_answer(octets: bytes) -> object:
    question = wire.encode_question(("legit.example", "TXT"))
    assert question
    try:
        return wire.read_answer(
            b"\0\0\x81\x80\0\1\x03\xff\0\0\0\0" + question + octets, question, "TXT"
        )
    except (rdata.MalformedAnswer, wire.ServerRefused):
        return None


PARSERS: dict[str, Callable[[bytes], object]] = {
    "From": lambda value: author.author([value]),
    "lenient From": lambda value: lenient.domains([value], 4),
    "lenient lists": lambda value: [
        list(addresses(value[: len(value) // 16].decode("latin-1"), style)) for style in STYLES
    ],
    "encoded words": lambda value: encoded_words.decode_open_words(
        encoded_words.decode_words(value.decode("latin-1"))
    ),
    "path": reverse_path,
    "domain": domain.parse,
    "DKIM tags": tags.parse,
    "DKIM field": lambda value: signature.parse(value, WIDE),
    "ARC message signature": lambda value: signature.parse(value, WIDE, of_arc=True),
    "key record": key.parse,
    "DMARC record": record.parse,
    "report addresses": lambda value: record.parse(b"v=DMARC1; p=none; rua=" + value),
    "Authentication-Results": field.parse,
    "whose Authentication-Results": lambda value: forgery.may_be_taken_for_ours(value, OURS),
    "Received": received.parse,
    "SPF record": lambda value: spf_record.parse(b"v=spf1 " + value, 512),
    "SPF record without a bound": lambda value: spf_record.parse(b"v=spf1 " + value, 1 << 20),
    "relaxed header": lambda value: canonicalize(HeaderField(b"X", value), "relaxed"),
    "message file": parse_message,
    "DNS answer": dns_answer,
}
PIECES = [
    b" ",
    b"\r\n ",
    b";",
    b"=",
    b"a=b;",
    b"(",
    b"()",
    b'"',
    b'"a" ',
    b"\\",
    b"<",
    b"@",
    b"a@b.c,",
    b".",
    b"a.",
    b"%",
    b"%{",
    b"%{l}",
]
PIECES += [
    b"a:",
    b",",
    b"x",
    b"\xff",
    b"\xc3\xa9",
    b"\x00",
    b"=?a?q?b?= ",
    b"from:",
    b"mailto:a@b.c!1,",
    b"[1] ",
    b"from x by y ",
    b"/",
    b"!",
    b"@a+",
    b"@a+b.c ",
    b"@ a",
    b"a>,",
    b"(a@b",
    b"&#64;",
    b"%40",
    b"=?a?q?",
    b"a:b;",
]


@pytest.mark.parametrize("piece", PIECES, ids=repr)
@pytest.mark.parametrize("parser", PARSERS)
def test_a_parser_is_linear(parser: str, piece: bytes) -> None:
    """time(2n) / time(n) under 2.6 at 64 KB, whatever is repeated."""
    assert is_linear(PARSERS[parser], lambda size: (piece * size)[:size])


# --- header blocks

BLOCK = 250_000
"""Octets: what fits into limits.header_bytes with the fields that every message has."""


def many(name: bytes, value: bytes) -> list[HeaderField]:
    """As many fields as the limits allow."""
    return [HeaderField(name, value)] * min(990, BLOCK // (len(name) + len(value) + 3))


def numbered(name: bytes, value: bytes) -> list[HeaderField]:
    """The same, each one different: %d in the value is its number."""
    return [
        HeaderField(name, value % number)
        for number in range(min(990, BLOCK // (len(name) + len(value) + 6)))
    ]


DKIM = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=s%d.example; s=sel; h=from:to; bh=AAAA; b=AAAA"
LONG_DKIM = (
    b" v=1; a=rsa-sha256; c=relaxed/simple; d=legit.example; s=sel; h=from"
    + b":x" * 255
    + b"; bh=AAAA; z="
    + b"z" * 15_000
    + b"; b=AAAA"
)
FOLDED_DKIM = (
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=legit.example; s=sel; h=from; bh=AAAA; b="
    + b"\r\n A" * 4000
)
SPACED_DKIM = (
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=legit.example; s=sel; h=from"
    + b" " * 15_000
    + b":to; bh=AAAA; b=AAAA"
)


def blocks() -> Iterator[tuple[str, list[HeaderField]]]:
    """Header blocks that an attacker would try."""
    yield "signatures", numbered(b"DKIM-Signature", DKIM)
    yield "long signatures", many(b"DKIM-Signature", LONG_DKIM)
    yield "folded signatures", many(b"DKIM-Signature", FOLDED_DKIM)
    yield "spaced signatures", many(b"DKIM-Signature", SPACED_DKIM)
    yield (
        "one name in h=, many fields",
        [
            *many(b"X", b" y"),
            HeaderField(b"DKIM-Signature", LONG_DKIM),
        ],
    )
    yield "results", many(b"Authentication-Results", b" mx.example.com; dmarc=pass")
    yield "long results", many(b"Authentication-Results", b" " + b"(" * 100_000)
    yield (
        "results of others",
        numbered(
            b"Authentication-Results", b" mx%d.example.org; " + b"dkim=pass (a(b)) header.d=x; " * 7
        ),
    )
    yield "From", many(b"From", b" " + b"a@b.c, " * 17_000)
    yield "many From", numbered(b"From", b" a@d%d.example")
    yield "From of odd labels", numbered(b"From", b' "a@b.c" <x@%d+' + b"a+b." * 50 + b"c>")
    yield (
        "From of second addresses",
        [HeaderField(b"From", b' "a@b.c, \\" <d@e.f> (g@h.i" (\r\n j@k.l)' * 40 + b" <x@y.z>")],
    )
    yield "From of comments", many(b"From", b" " + b"(" * 100_000)
    yield (
        "Received",
        numbered(
            b"Received",
            b" from a%d (b [192.0.2.1]) by c with SMTP id 1 for <v@example.com>; Thu, 1 Oct 2026"
            b" 10:00:00 +0000",
        ),
    )
    for count in (50, 330):
        names = (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
        sets = [
            (
                name,
                b" i=%d; a=rsa-sha256; cv=pass; d=x%d.example; s=s; h=from; bh=AAAA; b=AAAA"
                % (n, n),
            )
            for n in range(1, count)
            for name in names
        ]
        yield f"{count} ARC sets", [HeaderField(*each) for each in sets]
    aar = [
        HeaderField(
            b"ARC-Authentication-Results", b" i=1; x; " + b"dmarc=pass (x) header.from=a; " * 500
        )
    ]
    yield "long ARC results", aar * 15


BLOCKS = dict(blocks())


@pytest.mark.parametrize("name", BLOCKS)
def test_a_header_block_costs_little(name: str) -> None:
    """docs/attacks.md DOS-04: collected, planned, judged and stripped in less than 0.2 s of
    processor time, verification without keys."""
    fields = [*BLOCKS[name], HeaderField(b"To", b" <v@example.com>")]
    if b"From" not in {each.name for each in fields}:
        fields.append(HeaderField(b"From", b" <admin@legit.example>"))

    def judge() -> None:
        collector = Collector(256 * 1024, 1000, {})
        for each in fields:
            collector.add(each.name, each.value)
        work = FuzzTransaction(session_envelope())
        work.headers(collector.headers())
        work.body(b"Hello.\r\n")
        work.finish(session_envelope(), NOBODY, keep_results=False)

    assert costs_less(0.2, judge)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_header_block_is_planned_in_linear_time(name: str) -> None:
    """Twice as many fields cost at most 2.6 times as much, up to the limits and beyond."""

    def work(count: bytes) -> None:
        fields = (BLOCKS[name] * 4)[: len(count)]
        headers = Headers(fields)
        prepare(headers, [])
        arc.prepare(headers)
        remove_forged(headers, Marking("mx.example.com"))

    assert is_linear(work, lambda size: b"x" * (size * len(BLOCKS[name]) // 65536))
