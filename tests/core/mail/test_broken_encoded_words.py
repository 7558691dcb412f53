"""Encoded words that each reader decodes in its own way (RFC 2047, docs/attacks.md FRM-90)."""

from __future__ import annotations

import pytest

from dmarc_milter.core.mail.author import author
from dmarc_milter.core.mail.broken_encoded_words import BROKEN_WORD, hide_somebody
from dmarc_milter.core.mail.domain import Domain
from fakes.growth import is_linear

Q, B = b"admin=40legit=2Eexample", b"YWRtaW5AbGVnaXQuZXhhbXBsZQ=="
SPLIT = [b"()", b"(x)", b'"', b'""', b"\x01", b"\x00", b"<>", b" ", b"\xe2\x80\x8b", b"\xff", b";"]
TORN = [
    b"=??Q?" + Q + b"?=",
    b"=?utf-8@?Q?" + Q + b"?=",
    b"=?nonsense?B?" + B + b"?=",
    b"=?utf-8?Q?" + Q,
    b"=?utf-8?B?" + B,
    b"=?utf-8?Q?admin= 40legit=2Eexample?=",
    b"=?utf-8?B?YWRtaW5AbGVnaXQuZXhhbXBsZQ?=",
    b"=?utf-8?Q?=FFadmin=40legit=2Eexample?=",
    b"=?utf-8?Q?admin@le=67it=2Eexam()ple?=",
    b"=?utf-7?Q?admin@legit.ex\xe3\x80\x82ample?=",
    b"=?utf-8?Q?admin@leg\xffit.example?=",
    b"=?utf-8?Q?admin@leg\x01it.example?=",
    b"<admin@le=?utf-8?Q?=67()it?=.example>",
    *(b"=?ut" + each + b"f-8?Q?" + Q + b"?=" for each in SPLIT),
    *(b"=?utf-8" + each + b"?B?" + B + b"?=" for each in SPLIT),
    *(b"=?utf-8?Q?ad" + each + b"min=40legit=2Eexample?=" for each in SPLIT),
    *(b"=?utf-8?B?" + B[:9] + each + B[9:] + b"?=" for each in (*SPLIT, b"=", b"!", b"-", b"_")),
]


@pytest.mark.parametrize("word", TORN)
@pytest.mark.parametrize(
    "field", [b"%s, <a@b c>", b"<mailto:%s>, a@b.example", b"a@b.example x %s;"]
)
def test_a_broken_word_that_hides_an_address_may_name_anybody(word: bytes, field: bytes) -> None:
    """FRM-90 to 93: in a malformed From readers skip what is odd in the word, stop at it, or leave
    it as it is, so no list of candidates is whole."""
    found = author([field % word])
    assert found.domain is None
    assert found.more


@pytest.mark.parametrize(
    "value",
    [
        b"=?utf-8?Q?" + Q + b"?=, <a@b c>",
        b"=?utf-8?B?" + B + b"?= <a@b.example> x",
        b"=?iso-8859-1?Q?M=FCller?= <a@b c>",
        b"=?utf-8?Q?Doe, John= at Bank?= <a@b c>",
        b"=?x-unknown?B?Sm9o bi=BEb2U?= <a@b.example> x",
        b"=?utf-8?Q?R_@_D?= <a@b.example> x",
        b"=?utf-8?Q?R @ D <a@b.example> x",
        b"!#$%&'*+-/=?^_`{|}~@b.example x",
        b"=?gb2312?B?1cXI/Q==?= <a@b c>",
    ],
)
def test_a_whole_word_or_one_that_hides_nobody_is_read(value: bytes) -> None:
    """Every reader decodes the first alike; in the second no address can appear."""
    found = author([value])
    assert found.malformed not in ("", BROKEN_WORD)
    assert not found.more


def test_the_candidates_are_known_as_far_as_they_can_be() -> None:
    """Logs and reports name them."""
    found = author([b"=?utf-8@?Q?admin=40legit.example?= , John <john@legit.example>"])
    assert found.malformed == BROKEN_WORD
    assert Domain("legit.example") in found.candidates


@pytest.mark.parametrize("piece", TORN[:10])
def test_it_takes_linear_time(piece: bytes) -> None:
    """What an attacker repeats."""
    assert is_linear(
        lambda value: hide_somebody([value]), lambda size: piece * (size // len(piece)), size=4096
    )
