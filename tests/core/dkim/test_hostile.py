"""DKIM against crafted and random input: no exception, no slowness, and dkimpy's own verdict where
dkimpy is right."""

import random
import time

import dkim as dkimpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core import dkim
from dmarc_milter.core.dkim import DkimStatus, signature
from dmarc_milter.core.dkim.header import canonicalize
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import HeaderField, Headers, Message
from fakes.dns_zone import Zone
from fakes.received import NOW, checked, digests
from fakes.signer import Signer, Style, canonical_field, header_fields

LEGIT = Signer("legit.example")
LETTER = b"From: a@legit.example\r\nTo: b@c.example\r\nSubject: x\r\n\r\ntext\r\n"
FORMS = ("simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed")
VALUE = st.text(alphabet="ab \t:;=", max_size=12).map(str.encode)
FOLDED = st.lists(VALUE.filter(lambda part: part.strip() != b""), min_size=1, max_size=3).map(
    b"\r\n ".join
)
NAME = st.sampled_from([b"To", b"to", b"Subject", b"X-A", b"Cc"])
LINE = st.text(alphabet="ab \t.\u00e9", max_size=10).map(str.encode)


def key_of(name: bytes, timeout: int = 5) -> bytes:
    """dkimpy's look-up."""
    return LEGIT.record().encode() if name.rstrip(b".").decode() == LEGIT.key_name else b""


def dkimpy_says(raw: bytes) -> bool:
    try:
        return bool(dkimpy.DKIM(raw).verify(dnsfunc=key_of))
    except dkimpy.DKIMException:
        return False


@settings(deadline=None, max_examples=60)
@given(
    fields=st.lists(st.tuples(NAME, FOLDED), max_size=6),
    lines=st.lists(LINE, max_size=6),
    form=st.sampled_from(FORMS),
    names=st.lists(st.sampled_from(["to", "Subject", "x-a", "cc", "from", "absent"]), max_size=8),
    by_dkimpy=st.booleans(),
)
def test_what_one_signs_the_other_verifies(
    fields: list[tuple[bytes, bytes]],
    lines: list[bytes],
    form: str,
    names: list[str],
    by_dkimpy: bool,
) -> None:
    """Well-formed messages: our fixture's signatures pass here and in dkimpy, dkimpy's pass
    here."""
    header = (
        b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        + b"From: a@legit.example\r\n"
    )
    raw = header + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
    listed = ["from", *(name for name in names if name != "from" or not by_dkimpy)]
    if by_dkimpy:
        c = tuple(part.encode() for part in form.split("/"))
        signed = (
            dkimpy.sign(
                raw,
                b"sel",
                b"legit.example",
                LEGIT.pem,
                canonicalize=c,
                include_headers=[name.encode() for name in listed],
            )
            + raw
        )
        now = NOW.now(NOW.tzinfo)  # dkimpy stamps the time of the day
    else:
        signed, now = LEGIT.sign(raw, c=form, headers=listed), NOW
        assert dkimpy_says(signed)
    assert [str(each.status) for each in checked(signed, Zone(LEGIT.records()), now=now)] == [
        "pass"
    ]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_is_changed_both_reject_or_both_accept(data: st.DataObject) -> None:
    """One octet of a signed message replaced: never a pass here that dkimpy denies, but for clock
    and spelling."""
    raw = LEGIT.sign(LETTER, c=data.draw(st.sampled_from(FORMS)))
    position = data.draw(st.integers(0, len(raw) - 1))
    changed = (
        raw[:position]
        + data.draw(st.sampled_from([b"", b"x", b" ", b"\t", b";", b"=", b"A", b"1"]))
        + raw[position + 1 :]
    )
    if (
        b"\r\n\r\n" not in changed
        or changed.count(b"\r") != raw.count(b"\r")
        or changed.count(b"\n") != raw.count(b"\n")
    ):
        return
    ours = [each.status for each in checked(changed, Zone(LEGIT.records()))]
    if DkimStatus.PASS in ours:
        assert dkimpy_says(changed)


@given(name=NAME, value=FOLDED, mode=st.sampled_from(["simple", "relaxed"]))
def test_header_fields_are_canonicalized_by_the_book(name: bytes, value: bytes, mode: str) -> None:
    """RFC 6376 3.4.1, 3.4.2, against a reading of its own."""
    assert b":".join(canonicalize(HeaderField(name, value), mode)) == canonical_field(
        (name, value), mode
    )  # type: ignore[arg-type]


TAGS = ("v", "a", "b", "bh", "c", "d", "h", "i", "l", "q", "s", "t", "x", "z")


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(TAGS),
        st.none() | st.text(max_size=20) | st.text(alphabet="019=:@./ -_\t\0", max_size=20),
        max_size=4,
    ),
    st.sampled_from([Style(), Style(separator=";", lead=""), Style(equals=" =\r\n ")]),
)
def test_no_value_of_any_tag_raises(tags: dict[str, str | None], style: Style) -> None:
    """SECURITY.md, Defects of the libraries: a value in, a word out; what is printed is valid or
    empty."""
    for each in checked(LEGIT.sign(LETTER, tags=tags, style=style), Zone(LEGIT.records())):
        assert each.status in DkimStatus
        assert all(
            " " <= char <= "~"
            for char in each.selector + each.identifier + each.signature + each.reason
        )


@given(st.binary(max_size=120))
def test_no_field_raises(value: bytes) -> None:
    """Any octets as the field's value."""
    found = signature.parse(value)
    assert found.error or (found.domain and found.octets)


def test_a_thousand_mutations_raise_nothing() -> None:
    """SECURITY.md, Defects of the libraries: octets of a right field flipped at random."""
    chance = random.Random(6376)
    name, value = LEGIT.field(LETTER)
    for _ in range(1000):
        octets = bytearray(value)
        for _ in range(chance.randint(1, 4)):
            octets[chance.randrange(len(octets))] = chance.choice(
                b"\x00\t\r\n ;=:@.A0\xff" + bytes([chance.randrange(256)])
            )
        fields = [HeaderField(name, bytes(octets)), *header_fields(LETTER)[0]]
        plan = dkim.prepare(Headers(fields), [Domain("legit.example")])
        message = Message(Headers(fields), Author(None), digests(b"text\r\n", plan.body_hashes))
        (result,) = dkim.verify(message, plan, Zone(LEGIT.records()), now=NOW)
        unchanged = bytes(octets).split() == value.split()
        assert unchanged or result.status is not DkimStatus.PASS, octets


def cost(fields: list[HeaderField]) -> float:
    """CPU seconds of planning and verifying a message with these fields on top."""
    headers = Headers([*fields, *header_fields(LETTER)[0]])
    begun = time.process_time()
    plan = dkim.prepare(headers, [Domain("legit.example")])
    message = Message(headers, Author(None), digests(b"text\r\n", plan.body_hashes))
    dkim.verify(message, plan, Zone(LEGIT.records()), now=NOW)
    return time.process_time() - begun


def signed_with(value: bytes) -> HeaderField:
    """A DKIM-Signature field that parses as far as `value` lets it."""
    _, good = LEGIT.field(LETTER, c="simple/simple")
    return HeaderField(b"DKIM-Signature", good.replace(b"; b=", b"; " + value + b"; b="))


@pytest.mark.parametrize(
    "value",
    [
        b"b=A" + b" " * 100_000 + b"!",
        b"h=from" + b" " * 100_000 + b"to",
        b"b" + b"\r\n " * 30_000,
        b"z=" + b"\r\n b" * 20_000,
        b"z=" + b";b\r\n =" * 10_000,
        b"z=" + b" \r\n" * 25_000 + b" ",
        b"y=" + b" b=" * 5_000,
        b"h=" + b":" * 100_000,
        b"h=" + b"a:" * 50_000,
        b"d=" + b"a." * 50_000,
        b"s=" + b"a." * 50_000,
        b"i=" + b"@" * 100_000,
        b"x=" + b"9" * 100_000,
        b"l=" + b"9" * 100_000,
        b";" * 100_000,
        b"a=" * 50_000,
        "d=\u00e4\u00f6.".encode() * 20_000,
    ],
    ids=lambda value: f"{value[:12]!r} {len(value)}",
)
@pytest.mark.parametrize("within", [False, True])
def test_no_field_is_slow(value: bytes, within: bool) -> None:
    """DOS-04, SECURITY.md, Defects of the libraries: under 0.2 s each, beyond the limit of a field
    and just within it."""
    assert cost([signed_with(value[:15_000] if within else value)] * 10) < 0.2


def test_no_header_block_within_limits_is_slow() -> None:
    """Ten signatures over 256 names each, a thousand fields, 256 KiB: under 0.2 s."""
    names = [f"n{count}" for count in range(255)]
    fields = [HeaderField(name.encode(), b" \t x" * 50) for name in names * 3]
    raw = LETTER
    for count in range(10):
        chance = random.Random(count)
        raw = LEGIT.sign(raw, headers=["from", *chance.sample(names, 255)], c="relaxed/relaxed")
    assert cost([*fields, *header_fields(raw)[0][:10]]) < 0.3
    assert (
        cost(
            [HeaderField(b"x", b"\r\n a" * 60_000)]
            + [
                HeaderField(*LEGIT.field(LETTER, headers=["from", *["x"] * n]))
                for n in range(1, 11)
            ]
        )
        < 0.3
    )
