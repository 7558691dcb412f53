"""Each signature and its word: RFC 6376 6.1, the decisions of docs/design.md, docs/attacks.md."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dmarc_milter.core import dkim
from dmarc_milter.core.dkim import DkimOptions, DkimResult, DkimStatus
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import BodyHash, HeaderField, Headers, Message
from dmarc_milter.core.resolver import Question
from fakes.dns_zone import Zone
from fakes.received import NOW, checked, digests
from fakes.signer import SIGNED, SIGNED_AT, Signer, Style, header_fields

LEGIT = Signer("legit.example")
ATTACK = Signer("attack.example")
EDWARDS = Signer("legit.example", "ed", "ed25519-sha256")
ZONE = {**LEGIT.records(), **ATTACK.records(), **EDWARDS.records()}
LETTER = (
    b"From: Admin <admin@legit.example>\r\nTo: v@example.com\r\nSubject: A  folded\r\n\t subject"
    b" \r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID:"
    b" <1@legit.example>\r\n\r\nHello,\r\n\r\n  world. \r\n\r\n"
)
Words = tuple[str, str]


def words(results: tuple[DkimResult, ...]) -> list[Words]:
    return [(str(each.status), each.reason) for each in results]


def judged(raw: bytes, zone: Zone | None = None, **how: object) -> Words:
    """The word and reason of a message's one signature."""
    (result,) = checked(raw, zone or Zone(ZONE), **how)  # type: ignore[arg-type]
    assert result.usable == (result.status is DkimStatus.PASS)
    return str(result.status), result.reason


def with_record(record: str | bytes, signer: Signer = LEGIT) -> Zone:
    return Zone({signer.key_name: {"TXT": [record]}})


# What passes


@pytest.mark.parametrize(
    "c",
    [
        "simple",
        "relaxed",
        "simple/simple",
        "simple/relaxed",
        "relaxed/simple",
        "relaxed/relaxed",
        None,
    ],
)
@pytest.mark.parametrize("signer", [LEGIT, EDWARDS], ids=lambda signer: signer.algorithm)
def test_a_right_signature_passes(signer: Signer, c: str | None) -> None:
    """RFC 6376 3.4, 3.5 (c=), RFC 8463."""
    raw = signer.sign(LETTER, c=c or "simple/simple", tags={} if c else {"c": None})
    (result,) = checked(raw, Zone(ZONE))
    assert (result.status, result.domain, result.selector) == (
        DkimStatus.PASS,
        Domain("legit.example"),
        signer.selector,
    )
    assert (result.algorithm, result.reason, result.identifier, result.testing) == (
        signer.algorithm,
        "",
        "",
        False,
    )
    assert result.key_bits == (256 if signer is EDWARDS else 2048)
    assert raw.find(result.signature.encode()) > 0
    assert result.unsigned_headers == ()


def test_no_signature_no_result() -> None:
    """`none` is an empty tuple (RFC 8601 2.7.1)."""
    assert checked(LETTER, Zone(ZONE)) == ()


STYLES = [
    Style(lead=""),
    Style(lead="\t"),
    Style(lead="\r\n "),
    Style(separator=";"),
    Style(separator=" ;\r\n\t"),
    Style(equals=" = "),
    Style(equals="\r\n =\r\n "),
    Style(end=";"),
    Style(end=" ; "),
    Style(lead="\r\n \r\n\t", separator="\r\n ; "),
]


@pytest.mark.parametrize(
    "name", [b"DKIM-Signature", b"dkim-signature", b"DKIM-SIGNATURE", b"DKIM-Signature "], ids=repr
)
@pytest.mark.parametrize("style", STYLES, ids=repr)
def test_the_spelling_of_the_field_does_not_matter(style: Style, name: bytes) -> None:
    """DKM-24: case of the name, folds and spaces anywhere; simple/simple keeps each of them."""
    for c in ("simple/simple", "relaxed/relaxed"):
        _field, value = LEGIT.field(LETTER, c=c, style=style, name=name.strip())
        assert judged(name + b":" + value + b"\r\n" + LETTER) == ("pass", "")


def test_b_may_stand_first_or_in_the_middle_and_be_folded() -> None:
    """RFC 6376 3.5, b=: the white space in and around the value is not signed; a b= inside z=
    is."""
    for order in (["b", "v", "a"], ["v", "b", "z"], ["z", "v"]):
        field, value = LEGIT.field(
            LETTER,
            c="simple/simple",
            tags={
                **dict.fromkeys(order, "1"),
                "v": "1",
                "a": "rsa-sha256",
                "b": "",
                "z": "Subject: b=x| b=y",
            },
        )
        parts = dict(each.strip().split(b"=", 1) for each in value.split(b";"))
        folded = b"\r\n ".join(
            parts[b"b"][start : start + 60] for start in range(0, len(parts[b"b"]), 60)
        )
        assert judged(field + b":" + value + b"\r\n" + LETTER) == ("pass", "")
        assert judged(
            field
            + b":"
            + value.replace(parts[b"b"], b" \r\n\t" + folded + b"\r\n ")
            + b"\r\n"
            + LETTER
        ) == ("pass", "")
        assert judged(field + b":" + value.replace(b"b=x", b"b=z") + b"\r\n" + LETTER) == (
            "fail",
            "signature differs",
        )


def test_tags_of_a_right_signature_may_vary() -> None:
    """RFC 6376 3.5: unknown tags are ignored but signed, q= may list more methods, d= is compared
    without case."""
    for tags in (
        {"q": "dns/txt"},
        {"q": "dns/txt:x"},
        {"q": "other/x : dns/txt"},
        {"xyz": "anything = at all"},
        {"D": "upper"},
        {"i": "@legit.example"},
        {"i": "any+one=40x@SUB.legit.example"},
        {"i": '"a@b"@legit.example'},
        {"i": "joe=40legit=2Eexample"},
        {"i": "joe@post.\r\n\t legit. example"},
        {"i": "bounce=x=attack.example@legit.example"},
        {"d": "LEGIT.Example"},
        {"s": "SEL"},
        {"t": None},
        {"t": "0"},
        {"x": str(10**11)},
        {"x": "1" + "0" * 30},
        {"l": None, "z": "From:=20x|To:y"},
        {"h": "From : To::SUBJECT:\r\n date:Message-ID: "},
    ):
        assert judged(LEGIT.sign(LETTER, tags=tags)) == ("pass", ""), tags


# What the field says


MALFORMED = {
    "v": {
        None: "v= missing",
        "": "v= is not 1",
        "2": "v= is not 1",
        "1.0": "v= is not 1",
        "01": "v= is not 1",
    },
    "a": {
        None: "a= missing",
        "": "a= not known",
        "RSA-SHA256": "a= not known",
        "rsa-sha512": "a= not known",
        "rsa-sha1": "rsa-sha1",
        "ed25519-sha256": "key type differs from a=",
    },
    "c": dict.fromkeys(
        ["", "bogus", "relaxed/", "/relaxed", "relaxed/bogus", "Relaxed", "relaxed/relaxed/x"],
        "c= not known",
    ),
    "d": {
        None: "d= missing",
        **dict.fromkeys(
            [
                "",
                ".",
                ".legit.example",
                "legit..example",
                "legit.example.",
                "l" * 64 + ".example",
                "a." * 130 + "example",
                "-legit.example",
                "legit.example'a.attack.example",
                "legit.example(.attack.example",
                'legit.example".attack.example',
                "legit.example=.attack.example",
                "legit.example/.attack.example",
                "legit.example .attack.example",
                "legit.example\\.attack.example",
                "legit.example@attack.example",
                "le*it.example",
                "192.0.2.1",
                "[192.0.2.1]",
                "leg\u200bit.example",
                "le\udce9git.example",
            ],
            "d= is not a domain",
        ),
    },
    "s": {
        None: "s= missing",
        **dict.fromkeys(
            [
                "",
                ".",
                "a..b",
                ".a",
                "a.",
                "s" * 64,
                "s." * 130 + "s",
                "../x",
                "*",
                "se l",
                "sel._domainkey.attack.example.\\x00.any",
                "sel._domainkey.attack.example.\\000.any",
                "sel._domainkey.attack.example.%00.any",
                "sel\\046x",
                "sel;",
            ],
            "s= is not a selector",
        ),
        "sel;": "syntax error",
    },
    "h": {
        None: "h= missing",
        "": "From not signed",
        ":": "From not signed",
        "to:subject": "From not signed",
        "from to": "h= is not a list of names",
        "from:t\u00f6": "h= is not a list of names",
    },
    "i": {
        "": "i= is not an identifier",
        "legit.example": "i= is not an identifier",
        "a@": "i= is not an identifier",
        "a@.legit.example": "i= is not an identifier",
        "a@legit.example.": "i= is not an identifier",
        "@xlegit.example": "i= is outside d=",
        "@example": "i= is outside d=",
        "@attack.example": "i= is outside d=",
        "@legit.example@attack.example": "i= is outside d=",
        "@legit.example=40attack.example": "i= is outside d=",
        "@legit=2eexample": "i= is not an identifier",
        "@legit.example=00": "i= is not an identifier",
        "@legit.example=": "i= is not an identifier",
    },
    "b": {
        None: "b= missing",
        **dict.fromkeys(["=", "b=====", "abc", "AAAAA", "!!!!", "AA=A"], "b= is not base64"),
    },
    "bh": {
        None: "bh= missing",
        **dict.fromkeys(["", "abc", "b=====", "AAAAA", "!!!!"], "bh= is not base64"),
    },
    "l": dict.fromkeys(
        ["", "-1", "1e3", "x", "0x1", "1 2", "+1", "1" * 77, "1" * 5000, "\u0661"],
        "l= is not a number",
    ),
    "t": {**dict.fromkeys(["", "-1", "abc", "1.0", "9" * 77, "9" * 5000], "t= is not a number")},
    "x": {
        **dict.fromkeys(["", "-1", "abc", "9" * 77, "9" * 5000], "x= is not a number"),
        str(SIGNED_AT): "x= is not after t=",
        str(SIGNED_AT - 1): "x= is not after t=",
        "0": "x= is not after t=",
    },
    "q": dict.fromkeys(["", "dns", "dns/x", "DNS/TXT"], "q= not known"),
}


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [(tag, value, reason) for tag, values in MALFORMED.items() for value, reason in values.items()],
    ids=lambda each: ascii(each)[:40],
)
def test_a_field_that_breaks_a_rule_is_a_permerror(
    tag: str, value: str | None, reason: str
) -> None:
    """ESP-03, ESP-04, ESP-04b, DKM-01, 02, 04, 10 to 14, LTAG-02: the reason is ours, never the
    sender's text."""
    zone = Zone(ZONE)
    assert judged(LEGIT.sign(LETTER, tags={tag: value}), zone) == ("permerror", reason)
    assert zone.asked() == ([LEGIT.key_name] if "key type" in reason else [])


def test_an_octet_in_the_wrong_place_is_a_syntax_error() -> None:
    """ESP-03 with a real NUL, DKM-14: repeated tags, a tag without `=`, an empty tag."""
    for text, reason in (
        (b"; s=sel\x00.attack.example", "syntax error"),
        (b"; y=\x7f", "syntax error"),
        (b"; d=attack.example", "duplicate tag"),
        (b"; b=", "duplicate tag"),
        (b"; word", "syntax error"),
        (b";;", "syntax error"),
        (b"; =", "syntax error"),
        (b"; x-y=1", "syntax error"),
    ):
        name, value = LEGIT.field(LETTER)
        assert judged(name + b":" + value + text + b"\r\n" + LETTER) == ("permerror", reason), text
    for value in (b"", b" ", b";", b"x", b"v=1"):
        (result,) = checked(b"DKIM-Signature:" + value + b"\r\n" + LETTER, Zone(ZONE))
        assert (result.status, result.domain, result.signature) == (DkimStatus.PERMERROR, None, "")


def test_a_permerror_still_shows_what_is_valid() -> None:
    """RFC 8601 2.7.1: header.d and header.s of a signature that could not be verified."""
    (result,) = checked(LEGIT.sign(LETTER, tags={"l": "x", "i": "@Sub.legit.example"}), Zone(ZONE))
    assert (result.domain, result.selector, result.algorithm) == (
        Domain("legit.example"),
        "sel",
        "rsa-sha256",
    )
    assert result.identifier == "sub.legit.example"
    assert len(result.signature) == 344


def test_limits_of_one_field() -> None:
    """SECURITY.md, Limits: 16 KiB a field and 256 names, at the bound and one past it."""
    names = [*SIGNED, *(f"x{count}" for count in range(256 - len(SIGNED)))]
    assert judged(LEGIT.sign(LETTER, headers=names)) == ("pass", "")
    assert judged(LEGIT.sign(LETTER, headers=[*names, "y"])) == (
        "permerror",
        "too many names in h=",
    )
    empty = len(LEGIT.field(LETTER, tags={"y": ""})[1])
    assert judged(LEGIT.sign(LETTER, tags={"y": "y" * (16384 - empty)})) == ("pass", "")
    assert judged(LEGIT.sign(LETTER, tags={"y": "y" * (16385 - empty)})) == (
        "permerror",
        "field too long",
    )


@pytest.mark.parametrize(
    ("signed", "expires", "age", "words"),
    [
        (0, None, 10**6, ("pass", "")),
        (0, 100, 400, ("pass", "")),
        (0, 100, 401, ("fail", "expired")),
        (0, 10**6, 0, ("pass", "")),
        (300, None, 0, ("pass", "")),
        (301, None, 0, ("fail", "signed in the future")),
        (86400, None, 0, ("fail", "signed in the future")),
        (0, 9 * 10**14, 10**6, ("pass", "")),
        (9 * 10**12, None, 0, ("fail", "signed in the future")),
    ],
)
def test_times_allow_five_minutes(signed: int, expires: int | None, age: int, words: Words) -> None:
    """DKM-11, RPL-01: clock skew 300 s at the bound and past it; a number over twelve digits is
    infinite (RFC 6376 3.5)."""
    zone = Zone(ZONE)
    raw = LEGIT.sign(
        LETTER,
        tags={
            "t": str(SIGNED_AT + signed),
            "x": None if expires is None else str(SIGNED_AT + expires),
        },
    )
    assert (
        judged(raw, zone, now=datetime.fromtimestamp(SIGNED_AT, UTC) + timedelta(seconds=age))
        == words
    )
    assert bool(zone.calls) == (words[0] == "pass")


# What was changed on the way


@pytest.mark.parametrize("c", ["simple/simple", "relaxed/relaxed"])
def test_any_change_of_what_is_signed_fails(c: str) -> None:
    """RFC 6376 6.1.3."""
    raw = LEGIT.sign(LETTER, c=c)
    for before, after, words in (
        (b"Hello", b"Hallo", ("fail", "body hash differs")),
        (b"world. \r\n\r\n", b"world. \r\n\r\nmore\r\n", ("fail", "body hash differs")),
        (b"admin@", b"root@", ("fail", "signature differs")),
        (b"Subject: A", b"Subject: B", ("fail", "signature differs")),
        (b"Date: Tue", b"Date: Wed", ("fail", "signature differs")),
        (b"t=17", b"t=16", ("fail", "signature differs")),
        (b"s=sel", b"s=ed", ("permerror", "key type differs from a=")),
        (b"d=legit.example", b"d=attack.example", ("fail", "signature differs")),
    ):
        assert before in raw
        assert judged(raw.replace(before, after)) == words


def test_white_space_matters_as_the_canonicalization_says() -> None:
    """RFC 6376 3.4.1 to 3.4.4; HDR-09: the leading space of a value is part of it."""
    for before, after in (
        (b"Subject: A  folded\r\n\t", b"Subject:\tA folded "),
        (b"  world. ", b" world.\t"),
    ):
        assert judged(LEGIT.sign(LETTER, c="relaxed/relaxed").replace(before, after)) == (
            "pass",
            "",
        )
        assert judged(LEGIT.sign(LETTER, c="simple/simple").replace(before, after))[0] == "fail"
    assert judged(LEGIT.sign(LETTER, c="simple/simple").replace(b"\r\nTo: v", b"\r\nTo:v")) == (
        "fail",
        "signature differs",
    )
    assert judged(LEGIT.sign(LETTER.replace(b"To: v", b"To:v"), c="simple/simple")) == ("pass", "")
    assert judged(LEGIT.sign(LETTER, c="relaxed/relaxed").replace(b"\r\nTo: v", b"\r\nTO :v")) == (
        "pass",
        "",
    )


@pytest.mark.parametrize(
    "added",
    [
        b"From: x@attack.example",
        b"FROM:x@attack.example",
        b"From : x@attack.example",
        b"From\t:\r\n x@y",
    ],
)
def test_an_added_author_breaks_the_signature(added: bytes) -> None:
    """DKM-15, ESP-08, ESP-10: oversigned or not, above or below, however From is spelled."""
    for headers in (SIGNED, ("from", *SIGNED)):
        raw = LEGIT.sign(LETTER, headers=headers)
        for spoiled in (
            added + b"\r\n" + raw,
            raw.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n\r\n", 1),
        ):
            assert judged(spoiled)[0] == "fail"
        assert judged(raw) == ("pass", "")


def test_oversigning_is_exact() -> None:
    """RFC 6376 5.4.2: names repeat from the bottom up, an absent field counts as nothing until
    somebody adds one."""
    twice = LETTER.replace(
        b"\r\nTo: v", b"\r\nReceived: one\r\nReceived: two\r\nReceived: three\r\nTo: v"
    )
    raw = LEGIT.sign(twice, headers=("from", "received", "received"))
    assert judged(raw) == ("pass", "")
    assert judged(b"Received: zero\r\n" + raw) == ("pass", "")
    assert judged(raw.replace(b"Received: one", b"Received: ONE")) == ("pass", "")
    assert judged(raw.replace(b"Received: two", b"Received: TWO"))[0] == "fail"
    assert (
        judged(
            raw.replace(b"Received: two\r\nReceived: three", b"Received: three\r\nReceived: two")
        )[0]
        == "fail"
    )
    raw = LEGIT.sign(LETTER, headers=("from", "subject", "subject", "cc", "x-absent"))
    assert judged(raw) == ("pass", "")
    for added in (b"Subject: other", b"Cc: x@y.example", b"X-Absent:", b"x-absent : 1"):
        assert judged(added + b"\r\n" + raw)[0] == "fail", added
    assert judged(b"X-Other: 1\r\n" + raw) == ("pass", "")


def test_other_signatures_may_be_signed_but_not_the_own_field() -> None:
    """RFC 6376 5.4: dkim-signature in h= means signatures that were there before."""
    first = ATTACK.sign(LETTER)
    for headers in (("from", "dkim-signature"), ("from", "dkim-signature", "dkim-signature")):
        assert words(checked(LEGIT.sign(first, headers=headers), Zone(ZONE))) == [
            ("pass", ""),
            ("pass", ""),
        ]
    broken = LEGIT.sign(first, headers=("from", "dkim-signature")).replace(
        b"d=attack.example", b"d=attack.exampl"
    )
    assert words(checked(broken, Zone(ZONE)))[0] == ("fail", "signature differs")


def test_what_is_not_signed_is_told() -> None:
    """ESP-20: a second Subject or Content-Type on top leaves the signature right, and is
    noticed."""
    raw = b"Subject: added\r\nContent-Type: text/html\r\n" + LEGIT.sign(LETTER)
    (result,) = checked(raw, Zone(ZONE))
    assert (result.status, result.unsigned_headers) == (
        DkimStatus.PASS,
        ("subject", "content-type"),
    )
    options = DkimOptions(require_signed=("subject", "date", "to"))
    assert judged(raw, options=options) == ("policy", "unsigned subject")
    assert judged(LEGIT.sign(LETTER), options=options) == ("pass", "")
    assert judged(LEGIT.sign(LETTER, headers=("from", "to", "subject")), options=options) == (
        "policy",
        "unsigned date",
    )


def test_a_header_that_was_cut_cannot_be_judged() -> None:
    """docs/design.md: beyond the header limits, dkim=permerror, and no question is asked."""
    zone = Zone(ZONE)
    assert judged(LEGIT.sign(LETTER), zone, truncated=True) == ("permerror", "header too large")
    assert judged(LETTER, zone, truncated=True) == ("permerror", "header too large")
    assert zone.calls == []


# l=


@pytest.mark.parametrize("length", [0, 1, 10, 15])
def test_octets_beyond_l_keep_a_signature_from_counting(length: int) -> None:
    """LTAG-01, LTAG-02 (RFC 6376 8.2): policy, with the number; an option lets it pass."""
    raw = LEGIT.sign(LETTER, length=length)
    assert judged(raw) == ("policy", f"l= leaves {19 - length} octets unsigned")
    assert judged(raw + b"<p>more</p>\r\n", options=DkimOptions(allow_body_length=True)) == (
        "pass",
        "",
    )
    assert judged(raw.replace(b"Hello", b"Other")) == (
        ("policy", "l= leaves 19 octets unsigned") if not length else ("fail", "body hash differs")
    )


def test_l_that_covers_the_body_is_harmless_and_l_beyond_it_is_wrong() -> None:
    """RFC 6376 3.5: l= MUST NOT be larger than the canonicalized body."""
    assert judged(LEGIT.sign(LETTER, length=19)) == ("pass", "")
    for length in (20, 10**75):
        assert judged(LEGIT.sign(LETTER, length=length)) == (
            "permerror",
            "l= over the length of the body",
        )
    assert judged(LEGIT.sign(LETTER, length=19) + b"appended\r\n")[0] == "policy"


# The key


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (LEGIT.record("t=y; "), ("policy", "key in testing")),
        (LEGIT.record("t=s; "), ("pass", "")),
        (LEGIT.record("h=sha1; "), ("permerror", "key not for sha256")),
        (LEGIT.record("s=other; "), ("permerror", "key not for email")),
        ("v=DKIM1; p=", ("permerror", "key revoked")),
        (
            "v=DKIM1; k=ed25519; p=" + base64.b64encode(b"\x09" * 32).decode(),
            ("permerror", "key type differs from a="),
        ),
        ("", ("permerror", "key record syntax")),
        ("v=DKIM1; k=rsa; n=" + "n" * 4096 + LEGIT.record(), ("permerror", "key record too long")),
        (ATTACK.record(), ("fail", "signature differs")),
        (b"v=DKIM1; p=\xff\x00", ("permerror", "key record syntax")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_record_decides(record: str | bytes, words: Words) -> None:
    """DKM-04 to DKM-08, and section 13's 4 KiB."""
    assert judged(LEGIT.sign(LETTER), with_record(record)) == words


def test_a_testing_key_is_told_apart() -> None:
    """DKM-07: t=y verifies, does not count, and is marked; with l= as well it is no pass but for
    the flag."""
    zone = with_record(LEGIT.record("t=y; "))
    (result,) = checked(LEGIT.sign(LETTER), zone)
    assert (result.status, result.testing, result.usable) == (DkimStatus.POLICY, True, False)
    (result,) = checked(LEGIT.sign(LETTER, length=3), zone)
    assert (result.status, result.testing) == (DkimStatus.POLICY, False)
    (result,) = checked(LEGIT.sign(LETTER).replace(b"Hello", b"Hallo"), zone)
    assert (result.status, result.testing) == (DkimStatus.FAIL, False)


@pytest.mark.parametrize(
    ("identifier", "word"),
    [
        (None, "pass"),
        ("a@legit.example", "pass"),
        ("@LEGIT.example", "pass"),
        ("@a.legit.example", "permerror"),
    ],
)
def test_a_key_may_forbid_subdomains(identifier: str | None, word: str) -> None:
    """DKM-06: t=s (RFC 6376 3.6.1)."""
    assert (
        judged(LEGIT.sign(LETTER, tags={"i": identifier}), with_record(LEGIT.record("t=s; ")))[0]
        == word
    )


def test_key_and_algorithm_must_agree() -> None:
    """DKM-04 both ways."""
    for signer, record in ((EDWARDS, LEGIT.record()), (LEGIT, EDWARDS.record())):
        zone = with_record(record, signer)
        assert judged(signer.sign(LETTER), zone) == ("permerror", "key type differs from a=")
    assert judged(LEGIT.sign(LETTER, tags={"a": "ed25519-sha256"})) == (
        "permerror",
        "key type differs from a=",
    )


def test_short_keys_do_not_count() -> None:
    """DKM-03: 1024 bits are enough, and the bound is configurable."""
    short = Signer("legit.example", "short", bits=1024)
    assert judged(short.sign(LETTER), with_record(short.record(), short)) == ("pass", "")
    options = DkimOptions(min_rsa_bits=2048)
    assert judged(short.sign(LETTER), with_record(short.record(), short), options=options) == (
        "permerror",
        "RSA key too short",
    )


def test_missing_keys_and_silent_dns_are_told_apart() -> None:
    """DKM-23, DKM-22."""
    raw = LEGIT.sign(LETTER)
    assert judged(raw, Zone({})) == ("permerror", "no key")
    assert judged(raw, Zone({LEGIT.key_name: {"A": ["192.0.2.1"]}})) == ("permerror", "no key")
    assert judged(raw, Zone({}, failing=[LEGIT.key_name])) == ("temperror", "key look-up failed")
    chain = {
        LEGIT.key_name: {"CNAME": ["a.example"]},
        "a.example": {"CNAME": ["b.example"]},
        "b.example": {"TXT": [LEGIT.record()]},
    }
    assert judged(raw, Zone(chain)) == ("pass", "")
    assert judged(raw, Zone({LEGIT.key_name: {"CNAME": [LEGIT.key_name]}})) == (
        "temperror",
        "key look-up failed",
    )


def test_without_its_key_a_signature_that_leaves_octets_unsigned_is_hopeless() -> None:
    """docs/design.md: a DNS failure prevents a verdict only if its answer could have given an
    aligned pass; l= and require_signed never do."""
    silent = Zone({}, failing=[LEGIT.key_name])
    demanding = DkimOptions(require_signed=("subject",))
    bare = LEGIT.sign(LETTER, headers=("from",))
    for raw, options, hopeless in (
        (LEGIT.sign(LETTER), DkimOptions(), False),
        (LEGIT.sign(LETTER, length=19), DkimOptions(), False),
        (LEGIT.sign(LETTER, length=3), DkimOptions(), True),
        (LEGIT.sign(LETTER, length=3), DkimOptions(allow_body_length=True), False),
        (LEGIT.sign(LETTER), demanding, False),
        (bare, demanding, True),
    ):
        (result,) = checked(raw, silent, options=options)
        assert (str(result.status), result.hopeless) == ("temperror", hopeless)


def test_a_budget_that_the_message_used_up_is_not_trouble_in_the_dns() -> None:
    """docs/design.md: a limit that the message itself exhausted never improves its verdict."""
    fields, body = header_fields(LEGIT.sign(LETTER))
    plan = dkim.prepare(Headers(fields), [Domain("legit.example")])
    message = Message(
        Headers(fields), Author(Domain("legit.example")), digests(body, plan.body_hashes)
    )
    resolver = Zone(ZONE).share(queries=0, seconds=1)
    assert words(dkim.verify(message, plan, resolver, now=NOW)) == [("policy", "too many look-ups")]


def test_a_body_that_differs_needs_no_key() -> None:
    """docs/design.md: a DNS failure counts only if its answer could have given a pass."""
    zone = Zone({}, failing=[LEGIT.key_name])
    assert judged(LEGIT.sign(LETTER).replace(b"Hello", b"Hallo"), zone) == (
        "fail",
        "body hash differs",
    )
    assert zone.calls == []


@pytest.mark.parametrize(
    "records",
    [
        ["junk", "good"],
        ["good", "junk"],
        ["testing", "good"],
        ["other", "good"],
        ["good", "other", "junk", "v=spf1 -all"],
    ],
)
def test_several_records_are_each_tried(records: list[str]) -> None:
    """DKM-09: the order of the answer does not matter; RFC 6376 6.1.2 (4) leaves the choice."""
    texts = {"good": LEGIT.record(), "testing": LEGIT.record("t=y; "), "other": ATTACK.record()}
    listed = [texts.get(each, each) for each in records]
    for order in (listed, listed[::-1]):
        assert judged(LEGIT.sign(LETTER), Zone({LEGIT.key_name: {"TXT": order}})) == ("pass", "")


def test_the_number_of_records_tried_is_bounded() -> None:
    """Section 13's spirit: a name with a hundred keys costs four verifications."""
    others = [
        Signer("legit.example", f"k{count}", "ed25519-sha256").record("n=a; ")
        for count in range(20)
    ]
    zone = Zone({LEGIT.key_name: {"TXT": [*others, LEGIT.record("z=z; ")]}})
    assert judged(LEGIT.sign(LETTER), zone) == ("permerror", "key type differs from a=")


def test_base64_in_bh_of_another_length_is_another_hash() -> None:
    """DKM-20: bh= longer than 64 octets, or shorter."""
    for octets in (b"", b"x", bytes(31), bytes(33), bytes(65), bytes(5000)):
        word = judged(LEGIT.sign(LETTER, tags={"bh": base64.b64encode(octets).decode()}))
        assert word in (("fail", "body hash differs"), ("permerror", "bh= is not base64"))


@pytest.mark.parametrize("count", [0, 1, 63, 65, 128])
def test_an_ed25519_signature_has_64_octets(count: int) -> None:
    """DKM-20."""
    raw = EDWARDS.sign(LETTER, tags={"b": base64.b64encode(bytes(count)).decode() or "="})
    assert judged(raw)[0] in ("fail", "permerror")


def test_a_padded_signature_is_another_signature() -> None:
    """RPL-02: leading zeros do not verify."""
    name, value = LEGIT.field(LETTER)
    head, _, text = value.rpartition(b"b=")
    for octets in (bytes(300) + base64.b64decode(text), base64.b64decode(text) + b"\x00"):
        assert judged(name + b":" + head + b"b=" + base64.b64encode(octets) + b"\r\n" + LETTER) == (
            "fail",
            "signature differs",
        )


# Domains


def test_a_public_suffix_may_sign() -> None:
    """DKM-13: d=co.uk and d=com verify; that they never align is decided elsewhere."""
    for name in ("co.uk", "com"):
        signer = Signer(name)
        assert judged(signer.sign(LETTER), Zone(signer.records()), authors=["example.co.uk"]) == (
            "pass",
            "",
        )


def test_internationalized_names_are_looked_up_as_a_labels() -> None:
    """RFC 8616 5: U-labels in d=, s= and i= are converted, the hash uses the octets as
    they stand."""
    signer = Signer("xn--strae-oqa.example", "xn--bcher-kva")
    raw = signer.sign(
        LETTER,
        tags={
            "d": "stra\u00dfe.example",
            "s": "b\u00fccher",
            "i": "\u7528\u6237@post.stra\u00dfe.example",
        },
    )
    zone = Zone(signer.records())
    (result,) = checked(raw, zone)
    assert (result.status, result.domain, result.selector) == (
        DkimStatus.PASS,
        Domain(signer.domain),
        "xn--bcher-kva",
    )
    assert result.identifier == "post.xn--strae-oqa.example"
    assert zone.asked() == [signer.key_name]


def test_selectors_may_have_dots_digits_and_underscores() -> None:
    """RFC 6376 3.1; underscores are in wide use."""
    for selector in ("20230601", "a.b.c", "s_1", "_s", "1"):
        signer = Signer("legit.example", selector, "ed25519-sha256")
        assert judged(signer.sign(LETTER), Zone(signer.records())) == ("pass", "")


# Many signatures


def test_a_right_signature_of_the_attacker_changes_nothing_for_the_broken_one() -> None:
    """WL-07: in either order."""
    broken = LEGIT.field(LETTER.replace(b"Hello", b"Other"))
    own = ATTACK.field(LETTER)
    for fields in ((broken, own), (own, broken)):
        raw = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + LETTER
        found = {each.domain: str(each.status) for each in checked(raw, Zone(ZONE))}
        assert found == {Domain("legit.example"): "fail", Domain("attack.example"): "pass"}


def many(count: int, last: Signer) -> bytes:
    """A message with `count` right signatures of different domains above one of `last`."""
    raw = last.sign(LETTER)
    for number in range(count):
        raw = Signer(f"d{number}.example", "s", "ed25519-sha256").sign(raw)
    return raw


@pytest.mark.parametrize(("count", "beyond"), [(0, 0), (8, 0), (9, 0), (10, 1), (30, 21)])
def test_the_signature_that_could_align_is_never_displaced(count: int, beyond: int) -> None:
    """DKM-16: ten are examined, aligned ones first wherever they stand; the rest are policy;
    results keep the fields' order."""
    zone = Zone(
        {
            **ZONE,
            **{
                k: v
                for n in range(count)
                for k, v in Signer(f"d{n}.example", "s", "ed25519-sha256").records().items()
            },
        }
    )
    results = checked(many(count, LEGIT), zone)
    assert [each.domain.name for each in results if each.domain] == [
        *(f"d{n}.example" for n in reversed(range(count))),
        "legit.example",
    ]
    assert words(results)[-1] == ("pass", "")
    assert words(results).count(("policy", "too many signatures")) == beyond
    assert len(zone.calls) == min(count + 1, 10)


@pytest.mark.parametrize(
    "domain", ["legit.example", "sub.legit.example", "example", "other.legit.example"]
)
def test_parents_children_and_siblings_of_the_author_come_first(domain: str) -> None:
    """DKM-16: all of them can align (RFC 9989 4.9.2)."""
    signer = Signer(domain, "s", "ed25519-sha256")
    fields, _ = header_fields(many(12, signer))
    author = "a.legit.example" if domain.startswith("other") else "legit.example"
    plan = dkim.prepare(Headers(fields), [Domain("zzz.test"), Domain(author)])
    assert plan.examined[0].signature.domain == Domain(domain)
    assert plan.questions[0] == Question(signer.key_name, "TXT")


def test_junk_costs_neither_look_ups_nor_the_place_of_a_good_signature() -> None:
    """DKM-16: 999 unparsable fields above the good one."""
    raw = b"".join(
        b"DKIM-Signature: junk %d; d=legit.example\r\n" % number for number in range(999)
    ) + LEGIT.sign(LETTER)
    zone = Zone(ZONE)
    results = checked(raw, zone)
    assert words(results)[-1] == ("pass", "")
    assert {each.status for each in results[:-1]} == {DkimStatus.PERMERROR, DkimStatus.POLICY}
    assert len(results) == 1000
    assert zone.asked() == [LEGIT.key_name]


def test_copies_count_once() -> None:
    """DKM-17: ten copies are one look-up, one verification and one result."""
    name, value = LEGIT.field(LETTER)
    zone = Zone(ZONE)
    assert words(checked((name + b":" + value + b"\r\n") * 10 + LETTER, zone)) == [("pass", "")]
    assert zone.asked() == [LEGIT.key_name]


def test_one_key_is_asked_for_once() -> None:
    """DKM-17: different signatures with the same d= and s=."""
    zone = Zone(ZONE)
    raw = LEGIT.sign(LEGIT.sign(LEGIT.sign(LETTER, c="simple/simple"), c="relaxed/simple"))
    assert words(checked(raw, zone)) == [("pass", "")] * 3
    assert zone.asked() == [LEGIT.key_name]


def test_the_plan_names_bodies_and_keys_before_the_body_comes() -> None:
    """What the session hashes and looks up while the message still arrives."""
    raw = LEGIT.sign(ATTACK.sign(EDWARDS.sign(LETTER, c="simple/simple"), length=5))
    plan = dkim.prepare(Headers(header_fields(raw)[0]), [Domain("legit.example")])
    assert plan.body_hashes == {
        BodyHash("simple", "sha256", None),
        BodyHash("relaxed", "sha256", 5),
        BodyHash("relaxed", "sha256", None),
    }
    assert plan.questions == tuple(
        Question(each.key_name, "TXT") for each in (LEGIT, EDWARDS, ATTACK)
    )
    bad = dkim.prepare(Headers(header_fields(LEGIT.sign(LETTER, tags={"v": "2"}))[0]), [])
    assert (bad.body_hashes, bad.questions) == (frozenset(), ())


def test_simple_canonicalization_sees_the_value_as_received() -> None:
    """HDR-09: `Name:` and the value's own leading white space, or none."""
    for value in (b" x", b"x", b"\tx", b"  x ", b"\r\n x", b""):
        letter = LETTER.replace(b"To: v@example.com", b"X-Odd:" + value)
        assert judged(LEGIT.sign(letter, c="simple/simple", headers=("from", "x-odd"))) == (
            "pass",
            "",
        )
    fields, body = header_fields(LEGIT.sign(LETTER, c="simple/simple"))
    stripped = [HeaderField(name, value.lstrip(b" ")) for name, value in fields]
    plan = dkim.prepare(Headers(stripped), [])
    message = Message(Headers(stripped), Author(None), digests(body, plan.body_hashes))
    assert words(dkim.verify(message, plan, Zone(ZONE), now=NOW)) == [("fail", "signature differs")]


def test_options_are_values() -> None:
    """Limits come from the configuration: one signature, two."""
    raw = many(2, LEGIT)
    for limit in (1, 2):
        results = checked(raw, Zone(ZONE), options=replace(DkimOptions(), max_signatures=limit))
        assert words(results).count(("policy", "too many signatures")) == 3 - limit
        assert words(results)[-1] == ("pass", "")
