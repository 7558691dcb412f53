"""ARC chains: RFC 8617 5.2 step by step, docs/attacks.md, the override of RFC 8617 7.2.2."""

import re
import time

import dkim as dkimpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core import arc
from dmarc_milter.core.arc import ArcHop, ArcOptions, ArcResult, ArcStatus, trusted_override
from dmarc_milter.core.arc.override import MAX_COMMENT
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import BodyHash, HeaderField, Headers
from dmarc_milter.core.resolver import Question
from fakes.dns_zone import Zone
from fakes.received import chain
from fakes.sealer import arc_fields, seal, seal_all
from fakes.signer import SIGNED, SIGNED_AT, Signer, Style, header_fields

ONE, TWO, THREE = (
    Signer("one.example"),
    Signer("two.example"),
    Signer("three.example", "ed", "ed25519-sha256"),
)
ZONE = {**ONE.records(), **TWO.records(), **THREE.records()}
LETTER = (
    b"From: Admin <admin@legit.example>\r\nTo: v@example.com\r\nSubject: A  folded\r\n\t subject"
    b" \r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID:"
    b" <1@legit.example>\r\n\r\nHello,\r\n\r\n  world. \r\n\r\n"
)
LEGIT = Domain("legit.example")


def judged(raw: bytes, zone: Zone | None = None, **how: object) -> tuple[str, str]:
    result = chain(raw, zone or Zone(ZONE), **how)  # type: ignore[arg-type]
    assert (result.status is ArcStatus.PASS) == bool(result.hops)
    return str(result.status), result.reason


def without(raw: bytes, *fields: int) -> bytes:
    """The message without these of its header fields, counted from the top."""
    header, _, body = raw.partition(b"\r\n\r\n")
    parts = re.split(rb"\r\n(?![ \t])", header)
    return (
        b"\r\n".join(part for position, part in enumerate(parts) if position not in fields)
        + b"\r\n\r\n"
        + body
    )


# What passes


def test_no_chain_is_none() -> None:
    """RFC 8617 5.2, step 1; a body alone, a header alone."""
    for raw in (
        LETTER,
        b"\r\n\r\n",
        b"From: x@y.example\r\n\r\n",
        b"X-ARC-Seal: i=1\r\nARC: 1\r\n\r\nARC-Seal: i=1\r\n",
    ):
        assert chain(raw, Zone(ZONE)) == ArcResult(ArcStatus.NONE)


@pytest.mark.parametrize(
    "signers", [[ONE], [ONE, TWO], [TWO, THREE, ONE], [ONE] * 4, [THREE] * 7], ids=len
)
def test_a_right_chain_passes(signers: list[Signer]) -> None:
    """RFC 8617 5.2: each hop in order, all message signatures verify."""
    zone = Zone(ZONE)
    result = chain(seal_all(LETTER, *signers), zone)
    assert (result.status, result.oldest_pass, result.reason) == (ArcStatus.PASS, 0, "")
    assert [(hop.instance, hop.sealer.name, hop.selector) for hop in result.hops] == [
        (number, signer.domain, signer.selector) for number, signer in enumerate(signers, 1)
    ]
    assert sorted(zone.asked()) == sorted({signer.key_name for signer in signers})


@pytest.mark.parametrize(
    "c", ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple", "relaxed", None]
)
def test_message_signatures_have_any_canonicalization(c: str | None) -> None:
    """RFC 8617 4.1.2: as DKIM, and the default is simple/simple."""
    tags = {} if c else {"c": None}
    raw = seal(
        seal(LETTER, ONE, c=c or "simple/simple", message_tags=tags),
        TWO,
        c=c or "simple/simple",
        message_tags=tags,
    )
    assert judged(raw) == ("pass", "")
    assert judged(seal(LETTER, ONE, c="relaxed/relaxed", message_tags={"c": None}))[0] == "fail"


STYLES = [
    Style(lead=""),
    Style(lead="\t"),
    Style(lead="\r\n\t"),
    Style(equals=" = "),
    Style(equals="=\r\n "),
    Style(separator=";"),
    Style(separator=" ;\r\n  "),
    Style(end=";"),
    Style(end=" ; "),
]


@pytest.mark.parametrize("first", [("i",), ("a", "i"), ()], ids=str)
@pytest.mark.parametrize("style", STYLES, ids=repr)
def test_legal_spellings_pass_and_altered_ones_fail(style: Style, first: tuple[str, ...]) -> None:
    """ARC-06: i= anywhere and with any white space; the chain that was sealed so passes, a change
    of the message fails."""
    raw = seal(seal(LETTER, ONE, style=style, first=first), TWO, style=style, first=first)
    assert judged(raw) == ("pass", "")
    assert judged(raw.replace(b"admin@legit", b"other@legit"))[0] == "fail"
    assert judged(raw.replace(b"Hello", b"Other"))[0] == "fail"


@pytest.mark.parametrize(
    "aar",
    [
        "i=1; x",
        "i=1;x",
        "\ti=1; x; none",
        " i = 1 ; x; dmarc=pass",
        "\r\n i=1;\r\n x;\r\n dmarc=pass",
        " (comment (nested \\) ;)) i (c) = (c) 1 (c;c) ; x",
        " i=1; ",
        " i=1; (unreadable; dmarc=pass",
        " i=1; x; dara=neutral (null)=pass header.i.x=1",
        " i=1; x; dmarc=pass __proto__.__class__=1 header.from.toString.z=1 value.x=1",
        " i=1; " + "x" * 70_000,
        " i=1; x; dmarc=\u00e4 header.from=\u00e4",
        " i=1; x; \udcff\udc80",
    ],
    ids=lambda aar: ascii(aar)[:50],
)
def test_what_the_results_say_does_not_break_a_chain(aar: str) -> None:
    """ARC-08, ARC-09: only i= and its semicolon are structure (RFC 8617 4.1.1); the rest is
    evidence, read tolerantly."""
    assert judged(seal(LETTER, ONE, aar=aar)) == ("pass", "")


def test_unknown_tags_and_times_are_harmless() -> None:
    """RFC 8617 4.1: unknown tags are signed and ignored, v= too; t= may be missing; the case of
    field names does not matter."""
    for tags in ({"y": "1"}, {"t": None}, {"t": "0"}, {"bh2": "x"}, {"d": "ONE.example"}):
        assert judged(seal(LETTER, ONE, message_tags=tags)) == ("pass", "")
        assert judged(seal(LETTER, ONE, seal_tags=tags)) == ("pass", "")
    assert judged(seal(LETTER, ONE, message_tags={"v": "1"})) == ("pass", "")
    assert judged(seal(LETTER, ONE, seal_tags={"v": "2", "c": "simple/simple", "bh": "!"})) == (
        "pass",
        "",
    )
    raw = seal_all(LETTER, ONE, TWO)
    assert judged(
        raw.replace(b"ARC-Seal:", b"arc-SEAL:")
        .replace(b"ARC-Auth", b"Arc-auth")
        .replace(b"ARC-Message", b"ARC-message")
    ) == (
        "pass",
        "",
    )


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (("From", "SUBJECT", "to"), ("pass", "")),
        (("from", "arc-authentication-results"), ("pass", "")),
        (("from", "arc-message-signature"), ("pass", "")),
        (("from", "x-absent", "x-absent"), ("pass", "")),
        (("from", "", "to"), ("pass", "")),
        (("from", "subject", "subject"), ("pass", "")),
        (("from", "arc-seal"), ("fail", "h= names ARC-Seal")),
        (("from", "ARC-Seal"), ("fail", "h= names ARC-Seal")),
        (("to", "subject"), ("fail", "From not signed")),
        ((), ("fail", "From not signed")),
        (("from", "sub ject"), ("fail", "h= is not a list of names")),
    ],
)
def test_what_a_message_signature_covers(headers: tuple[str, ...], words: tuple[str, str]) -> None:
    """ARC-04, RFC 8617 4.1.2; that many sealers sign ARC-Authentication-Results is borne, a signed
    ARC-Seal is not."""
    assert judged(seal(LETTER, ONE, headers=headers)) == words
    assert judged(seal(seal_all(LETTER, TWO), ONE, headers=headers)) == words


def test_the_order_of_the_fields_does_not_matter() -> None:
    """RFC 8617 5.1.1: seals cover the sets by instance, wherever the fields stand."""
    raw = seal_all(LETTER, ONE, TWO)
    fields, _, rest = raw.partition(b"From: Admin")
    parts = re.split(rb"(?<=\r\n)(?![ \t])", fields)
    for order in (parts[::-1], parts[3:] + parts[:3], sorted(parts)):
        assert judged(b"".join(order) + b"From: Admin" + rest) == ("pass", "")


# The structure


@pytest.mark.parametrize(
    "instance",
    [
        "0",
        "01",
        "001",
        "-1",
        "51",
        "99999999",
        "9" * 5000,
        "",
        "a",
        "1a",
        "1.0",
        " ",
        "\u0661",
        "2",
        "3",
    ],
)
def test_a_first_set_with_any_other_number_fails(instance: str) -> None:
    """ARC-05: RFC 8617 4.2.1 allows 1 to 50, and the first is 1."""
    zone = Zone(ZONE)
    raw = seal(
        LETTER,
        ONE,
        instance=instance or "empty",
        message_tags={"i": instance},
        seal_tags={"i": instance},
        aar=f"i={instance}; x",
    )
    assert judged(raw, zone)[0] == "fail"
    assert zone.calls == []


@pytest.mark.parametrize(
    "aar",
    [
        "x; dmarc=pass",
        " x; i=1; dmarc=pass",
        " i=2; x",
        " i=0; x",
        " i=01; x",
        " i=1",
        " i=1 x; dmarc=pass",
        " i==1; x",
        " i=; x",
        " I=1; x",
        " j=1; i=1; x",
        ' i="1"; x',
        " i=1(; x",
        "",
        ";",
        "(",
        "(" * 5000,
        " " * 5000 + "i=1; x",
    ],
    ids=lambda aar: ascii(aar)[:30],
)
def test_results_without_their_instance_fail(aar: str) -> None:
    """RFC 8617 4.1.1: arc-info begins with i= and a semicolon."""
    zone = Zone(ZONE)
    assert judged(seal(LETTER, ONE, aar=aar), zone)[0] == "fail"
    assert zone.calls == []


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("top", [True, False])
def test_an_incomplete_set_fails(rank: int, top: bool) -> None:
    """RFC 8617 5.2, step 3a: one of each; the first set or the last, sealed so or lost later."""
    zone = Zone(ZONE)
    sealed = (
        seal(seal(LETTER, ONE), TWO, omit=[rank])
        if top
        else seal(seal(LETTER, ONE, omit=[rank]), TWO, instance="2", cv="pass")
    )
    assert judged(sealed, zone)[0] == "fail"
    lost = without(seal_all(LETTER, ONE, TWO), (2 - rank) + (0 if top else 3))
    assert judged(lost, zone)[0] == "fail"
    assert zone.calls == []


def test_single_fields_of_arc_fail() -> None:
    """ARC-08: a lone ARC field is a broken chain, whatever is in it."""
    for field in (
        b"ARC-Seal: x",
        b"ARC-Seal: i=1; none",
        b"ARC-Seal:",
        b"ARC-Message-Signature: i=1; a=x",
        b"ARC-Authentication-Results: i=1; x",
    ):
        assert judged(field + b"\r\n" + LETTER)[0] == "fail"


def test_repeated_and_missing_instances_fail() -> None:
    """ARC-05: each field twice, whole sets twice, a gap, none for 1."""
    raw = seal_all(LETTER, ONE, TWO, ONE)
    zone = Zone(ZONE)
    for doubled in arc_fields(raw):
        assert judged(doubled.name + b":" + doubled.value + b"\r\n" + raw, zone) == (
            "fail",
            "instance repeated",
        )
    top, _, _ = raw.partition(b"ARC-Seal: i=2")
    assert judged(top + raw, zone) == ("fail", "instance repeated")
    assert judged(without(raw, 3, 4, 5), zone) == ("fail", "instances not continuous")
    assert judged(without(raw, 6, 7, 8), zone) == ("fail", "instances not continuous")
    assert judged(seal(LETTER, ONE, instance="2"), zone) == ("fail", "instances not continuous")
    assert judged(without(raw, 0, 1, 2)) == ("pass", "")
    assert zone.calls == []


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        (["pass"], "cv= not valid"),
        (["fail"], "sealed as failed"),
        (["None"], "cv= not valid"),
        ([""], "cv= not valid"),
        (["x"], "cv= not valid"),
        (["none", "none"], "cv= not valid"),
        (["none", "fail"], "sealed as failed"),
        (["pass", "pass"], "cv= not valid"),
        (["fail", "pass"], "cv= not valid"),
        (["fail", "fail"], "sealed as failed"),
        (["none", "fail", "pass"], "cv= not valid"),
        (["none", "none", "pass"], "cv= not valid"),
        (["none", "pass", "PASS"], "cv= not valid"),
        (["none", "\u00e4"], "cv= not valid"),
    ],
    ids=str,
)
def test_verdicts_of_earlier_hops(verdicts: list[str], reason: str) -> None:
    """RFC 8617 5.2, steps 2 and 3c: none first, then pass; fail anywhere ends it, before any
    look-up."""
    raw, zone = LETTER, Zone(ZONE)
    for verdict in verdicts:
        raw = seal(raw, ONE, cv=verdict)
    assert judged(raw, zone) == ("fail", reason)
    assert zone.calls == []


SEAL_TAGS: dict[str, dict[str | None, str]] = {
    "i": dict.fromkeys([None, "", "2", "0", "a"], "instance"),
    "a": {
        None: "a= missing",
        "": "a= not known",
        "rsa-sha1": "rsa-sha1",
        "RSA-SHA256": "a= not known",
        "rsa": "a= not known",
    },
    "b": {
        None: "b= missing",
        "=": "b= is not base64",
        "AAAA": "seal: signature differs",
        "!": "b= is not base64",
    },
    "cv": {None: "cv= missing"},
    "d": {
        None: "d= missing",
        **dict.fromkeys(
            ["", "example...", "one.example.", "o ne", "one.example'x"], "d= is not a domain"
        ),
    },
    "s": {None: "s= missing", **dict.fromkeys(["", "a..b", "*", "x\\x00"], "s= is not a selector")},
    "t": dict.fromkeys(["", "x", "-1", "9" * 5000], "t= is not a number"),
    "h": dict.fromkeys(["", "from", "from:to"], "ARC-Seal has h="),
    "x-y": {"1": "instance"},
    "_x": {"1": "instance"},
}


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [(tag, value, reason) for tag, each in SEAL_TAGS.items() for value, reason in each.items()],
    ids=ascii,
)
def test_a_seal_with_a_wrong_tag_fails(tag: str, value: str | None, reason: str) -> None:
    """RFC 8617 4.1.3; `;;`, repeated tags and bad names make it no tag list at all."""
    zone = Zone(ZONE)
    status, found = judged(seal(LETTER, ONE, seal_tags={tag: value}), zone)
    assert status == "fail"
    assert found.startswith(reason)
    assert bool(zone.calls) == found.startswith("seal:")
    older = seal(seal(LETTER, ONE, seal_tags={tag: value}), TWO)
    assert judged(older)[0] == "fail"


MESSAGE_TAGS: dict[str, list[str | None]] = {
    "i": [None, "", "2", "0", "a"],
    "a": [None, "", "rsa-sha1", "RSA-SHA256", "rsa"],
    "b": [None, "=", "AAAA", "!"],
    "bh": [None, "", "AAAA", "!"],
    "c": ["", "x", "relaxed/", "Relaxed/relaxed"],
    "d": [None, "", "example...", "one.example.", "one.example(x"],
    "s": [None, "", "a..b", "*", "nokey"],
    "t": ["", "x", "-1", "9" * 5000, str(SIGNED_AT + 90_000)],
    "x": ["", "x", "0", str(SIGNED_AT), "9" * 5000],
    "q": ["", "dns/x"],
    "l": ["", "x", "0", "999"],
    "x-y": ["1"],
}


@pytest.mark.parametrize(
    ("tag", "value"),
    [(tag, value) for tag, each in MESSAGE_TAGS.items() for value in each],
    ids=ascii,
)
def test_a_newest_message_signature_with_a_wrong_tag_fails(tag: str, value: str | None) -> None:
    """RFC 8617 4.1.2, 5.2 step 4: as RFC 6376, without v= and with i= as the instance."""
    raw = seal(LETTER, ONE, message_tags={tag: value})
    assert judged(raw)[0] == "fail"
    if tag not in ("i", "x-y"):
        result = chain(seal(raw, TWO), Zone(ZONE))
        assert (result.status, result.oldest_pass) == (
            ArcStatus.PASS,
            2,
        ), "an older one may be broken (5.2 step 5)"


def test_lists_that_are_no_tag_lists_fail() -> None:
    """RFC 6376 3.2: repeated tags, empty items, octets out of place."""
    for name in (b"ARC-Seal", b"ARC-Message-Signature"):
        for text in (b"; i=1", b";;", b"; word", b"; y=\x00", b"; y=\x7f"):
            raw = re.sub(
                name + rb":((?:[^\r]|\r\n[ \t])*)\r\n",
                lambda found, t=text: found[0][:-2] + t + b"\r\n",
                seal_all(LETTER, ONE),
                count=1,
            )
            zone = Zone(ZONE)
            assert judged(raw, zone) == ("fail", "instance not valid")
            assert zone.calls == []


# The signatures


@pytest.mark.parametrize("changed", [b"Admin", b"admin@", b"A  folded", b"Hello", b"22:13:20"])
def test_a_change_after_the_last_seal_fails(changed: bytes) -> None:
    """ARC-04: From, other signed fields, the body."""
    assert judged(seal_all(LETTER, ONE, TWO).replace(changed, b"Z" + changed[1:]))[0] == "fail"


def test_a_second_author_fails() -> None:
    """As for DKIM: a From field that the newest message signature does not cover."""
    raw = seal_all(LETTER, ONE)
    assert judged(b"From: x@attack.example\r\n" + raw) == (
        "fail",
        "message signature: unsigned From field",
    )


def test_a_change_between_two_seals_shows_in_oldest_pass() -> None:
    """RFC 8617 5.2, step 5: the newest verifies, so the chain does; older message signatures do
    not."""
    listed = seal_all(LETTER, ONE, TWO).replace(b"Hello", b"[list] Hello")
    assert judged(listed)[0] == "fail"
    result = chain(seal(listed, THREE), Zone(ZONE))
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, 3)
    result = chain(seal_all(seal(listed, THREE), ONE), Zone(ZONE))
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, 3)
    assert chain(seal_all(LETTER, ONE, TWO, ONE), Zone(ZONE)).oldest_pass == 0


def test_a_change_in_any_sealed_field_fails() -> None:
    """RFC 8617 5.1.1: every seal covers all sets up to its own; white space does not matter,
    everything else does."""
    raw = seal_all(LETTER, ONE, TWO, THREE)
    for field in arc_fields(raw):
        changed = (
            field.value.replace(b"i=", b"y=1; i=", 1)
            if not field.name.endswith(b"Results")
            else field.value + b" x"
        )
        altered = raw.replace(field.value, changed)
        assert judged(altered)[0] == "fail", field.name
        assert judged(
            raw.replace(field.value, field.value.replace(b"; ", b";\r\n\t ")).replace(
                b"; t=", b"; t="
            )
        )[0] in ("pass", "fail")
    assert judged(raw.replace(b"ARC-Seal: i=1; ", b"ARC-Seal:\r\n  i=1;\t\t"))[0] == "pass"
    assert (
        judged(
            raw.replace(
                b"ARC-Authentication-Results: i=1; ", b"ARC-Authentication-Results:\ti=1; \r\n "
            )
        )[0]
        == "pass"
    )


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_every_seal_must_verify(broken: int) -> None:
    """RFC 8617 5.2, step 6: a seal by the wrong key anywhere."""
    wrong = Signer("one.example", "other")
    raw = LETTER
    for number in range(3):
        tags = {"s": "sel"} if number == broken else None
        raw = seal(
            raw,
            wrong if number == broken else ONE,
            seal_tags=tags,
            message_tags=tags and {"d": "one.example", "s": "other"},
        )
    zone = Zone({**ZONE, **wrong.records()})
    assert judged(raw, zone) == ("fail", "seal: signature differs")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "message signature: no key"),
        ("", "message signature: key record syntax"),
        ("v=DKIM1; p=", "message signature: key revoked"),
        (TWO.record(), "message signature: signature differs"),
        (THREE.record(), "message signature: key type differs from a="),
        (ONE.record("h=sha1; "), "message signature: key not for sha256"),
        (ONE.record("s=other; "), "message signature: key not for email"),
        (ONE.record("t=s; "), ""),
        (ONE.record("t=y; "), ""),
        ("k=rsa; p=" + "A" * 5000, "message signature: key record too long"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_keys_are_judged_as_dkim_keys(record: str | None, reason: str) -> None:
    """RFC 8617 4.1.2, 4.1.3; a key in testing carries a chain: who trusts it has listed its
    sealer."""
    zone = Zone({ONE.key_name: {"TXT": [record]}} if record is not None else {})
    assert judged(seal_all(LETTER, ONE), zone) == ("pass" if not reason else "fail", reason)


def test_key_sizes() -> None:
    """1024 bits pass, fewer cannot (RFC 8301)."""
    short = Signer("one.example", "short", bits=1024)
    assert judged(seal_all(LETTER, short), Zone(short.records())) == ("pass", "")


@pytest.mark.parametrize("failing", [ONE, TWO])
def test_dns_trouble_is_a_failure(failing: Signer) -> None:
    """RFC 8617 5.2: all failures are permanent; only the key of an older message signature may be
    missing."""
    zone = Zone(ZONE, failing=[failing.key_name])
    assert judged(seal_all(LETTER, ONE, TWO), zone)[0] == "fail"
    own = Signer("one.example", "own")
    raw = seal(seal(LETTER, ONE, message_tags={"s": "own"}), TWO)
    result = chain(raw, Zone(ZONE, failing=[own.key_name]))
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, 2)


def test_octets_beyond_l_fail() -> None:
    """As for DKIM: what is appended after the seal was never seen by the sealer."""
    assert judged(seal(LETTER, ONE, length=19)) == ("pass", "")
    assert judged(seal(LETTER, ONE, length=19) + b"more\r\n")[0] == "fail"
    assert judged(seal(LETTER, ONE, length=5))[0] == "fail"


# Limits


def junk(count: int) -> bytes:
    sets = [
        b"ARC-Seal: i=%d\r\nARC-Message-Signature: i=%d\r\nARC-Authentication-Results: i=%d; x\r\n"
        % (n, n, n)
        for n in range(1, count + 1)
    ]
    return b"".join(sets) + LETTER


def test_fifty_hops_pass_and_fifty_one_fail() -> None:
    """ARC-07, RFC 8617 4.2.1, at the bound and past it."""
    raw = seal_all(LETTER, *[THREE] * 50)
    zone = Zone(ZONE)
    assert judged(raw, zone) == ("pass", "")
    assert zone.asked() == [THREE.key_name]
    assert judged(seal(raw, THREE, instance="51"), zone) == ("fail", "too many instances")
    assert judged(seal_all(LETTER, ONE, TWO, ONE), options=ArcOptions(max_instances=2)) == (
        "fail",
        "too many instances",
    )
    assert judged(seal_all(LETTER, ONE, TWO), options=ArcOptions(max_instances=2)) == ("pass", "")


def test_junk_ends_before_dns() -> None:
    """ARC-07: two thousand sets cost no look-up and no time."""
    zone = Zone(ZONE)
    begun = time.process_time()
    for count in (50, 51, 2000):
        assert judged(junk(count), zone)[0] == "fail"
    assert time.process_time() - begun < 0.5
    assert zone.calls == []


def keys(count: int) -> list[Signer]:
    return [Signer("many.example", f"k{number}", "ed25519-sha256") for number in range(count)]


@pytest.mark.parametrize(("count", "word"), [(20, "pass"), (21, "fail")])
def test_twenty_keys_are_looked_up_and_twenty_one_are_not(count: int, word: str) -> None:
    """SECURITY.md, Limits: one look-up per (d, s), at most twenty; beyond, arc=fail without any."""
    zone = Zone({name: value for signer in keys(count) for name, value in signer.records().items()})
    assert judged(seal_all(LETTER, *keys(count)), zone)[0] == word
    assert len(zone.calls) == (count if word == "pass" else 0)


def test_oldest_pass_is_left_open_when_it_costs_too_much() -> None:
    """RFC 8617 5.2, step 5 is optional: keys of older message signatures are not looked up beyond
    the limit."""
    signers = keys(12)
    raw = LETTER
    for signer in signers:
        raw = seal(raw, signer, message_tags={"s": f"m{signer.selector}"})
    raw = seal(raw, signers[0])
    zone = Zone({name: value for signer in signers for name, value in signer.records().items()})
    result = chain(raw, zone)
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, None)
    assert len(zone.calls) == 12


@pytest.mark.parametrize(("count", "oldest"), [(8, 0), (9, None)])
def test_oldest_pass_is_left_open_when_it_takes_too_long(count: int, oldest: int | None) -> None:
    """At most 2,000 names are selected for it, over all hops."""
    names = ["from", *(f"n{number}" for number in range(249))]
    raw = LETTER
    for _ in range(count):
        raw = seal(raw, THREE, headers=names)
    raw = seal(raw, THREE)
    result = chain(raw, Zone(ZONE))
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, oldest)


def test_the_plan_names_bodies_and_keys_before_the_body_comes() -> None:
    """The body is hashed once for DKIM and ARC together."""
    raw = seal(seal(LETTER, ONE, c="simple/simple"), TWO, c="relaxed/relaxed")
    plan = arc.prepare(Headers(header_fields(raw)[0]))
    assert plan.body_hashes == {
        BodyHash("simple", "sha256", None),
        BodyHash("relaxed", "sha256", None),
    }
    assert plan.questions == (Question(TWO.key_name, "TXT"), Question(ONE.key_name, "TXT"))
    bad = arc.prepare(Headers(header_fields(seal(LETTER, ONE, cv="pass"))[0]))
    assert (bad.body_hashes, bad.questions, bad.failure) == (frozenset(), (), "cv= not valid")


def test_arc_can_be_switched_off() -> None:
    """Detachable by configuration."""
    zone = Zone(ZONE)
    assert judged(seal_all(LETTER, ONE), zone, options=ArcOptions(enabled=False)) == ("none", "")
    assert zone.calls == []


def test_a_header_that_was_cut_has_no_chain() -> None:
    """docs/design.md: beyond the header limits nothing can be judged."""
    assert judged(seal_all(LETTER, ONE), truncated=True) == ("fail", "header too large")
    assert judged(LETTER, truncated=True) == ("none", "")


# What the hops say


def hop(results: str) -> ArcHop:
    result = chain(seal(LETTER, ONE, results=results), Zone(ZONE))
    assert result.status is ArcStatus.PASS
    return result.hops[0]


PASSED = "dmarc=pass header.from=legit.example"
GENUINE = ("pass", "legit.example", "")


@pytest.mark.parametrize(
    ("results", "dmarc", "author", "address"),
    [
        ("dmarc=pass header.from=legit.example", "pass", "legit.example", ""),
        ("dmarc=PASS (p=reject) header.from=LEGIT.example", "pass", "legit.example", ""),
        (
            (
                "spf=pass smtp.mailfrom=a@b.c; dmarc=fail header.from=x.example; arc=none"
                " smtp.remote-ip=192.0.2.1"
            ),
            "fail",
            "x.example",
            "192.0.2.1",
        ),
        ("arc=none smtp.remote-ip=2001:DB8::1A", "", None, "2001:db8::1a"),
        ('arc=none smtp.remote-ip="2001:db8:0::1a"; dmarc=none', "none", None, "2001:db8::1a"),
        ("arc=none smtp.remote-ip=evil", "", None, ""),
        ("none", "", None, ""),
        (
            "dmarc=pass header.from=legit.example; dmarc=fail header.from=legit.example",
            "",
            "legit.example",
            "",
        ),
        (
            "dmarc=pass header.from=legit.example; dmarc=pass header.from=other.example",
            "pass",
            None,
            "",
        ),
        ("dmarc=pass header.from=-x-", "pass", None, ""),
        # ARC-11: a large sealer writes the mailbox
        ("dmarc=pass header.from=<a@legit.example>", "pass", "legit.example", ""),
        ("dmarc=pass (p=reject) header.from=a@Legit.Example", "pass", "legit.example", ""),
        ("dmarc=pass header.from=<legit.example>", "pass", "legit.example", ""),
        ('dmarc=pass header.from="<a@legit.example>"', "pass", "legit.example", ""),
        ("dmarc=pass header.from=@legit.example", "pass", "legit.example", ""),
        (
            "dmarc=pass header.from=<a@legit.example> header.from=legit.example",
            "pass",
            "legit.example",
            "",
        ),
        ('dmarc=pass header.from="<a@other.example> <a@legit.example>"', "pass", None, ""),
        ('dmarc=pass header.from="a@other.example@legit.example"', "pass", None, ""),
        ('dmarc=pass header.from="<a@legit.example"', "pass", None, ""),
        ("dmarc=pass header.from=<a@[192.0.2.1]>", "pass", None, ""),
        # ARC-12: what contradicts itself proves nothing
        ("dmarc=pass header.from=legit.example header.from=other.example", "pass", None, ""),
        ("dmarc=pass header.from=other.example header.from=legit.example", "pass", None, ""),
        (
            "dmarc=pass header.from=<a@legit.example> Header.From=<a@other.example>",
            "pass",
            None,
            "",
        ),
        ("dmarc=pass header.from=legit.example header.from=-", "pass", None, ""),
        (
            "dmarc=pass header.from=legit.example; dkim=pass header.from=other.example",
            "pass",
            None,
            "",
        ),
        ("spf=pass header.from=legit.example; dmarc=pass", "pass", None, ""),
        ("dmarc=pass header.from=legit.example; dmarc=pass", "pass", None, ""),
        ('spf=fail smtp.mailfrom="; dmarc=pass header.from=legit.example"', "", None, ""),
        ("x=pass (dmarc=pass header.from=legit.example)", "", None, ""),
        # RES-70: nor what stands where it is easily overlooked
        (f"{PASSED} {'policy.x=1 ' * 20} header.from=other.example", "pass", None, ""),
        (f"{PASSED} header.from={'a' * 300}@other.example", "pass", None, ""),
        (f"{PASSED} header.from=\x01@other.example", "pass", None, ""),
        (f'{PASSED} header.from=""', "pass", None, ""),
        (f"{PASSED} header.from=", "pass", None, ""),
        (f"{PASSED}; d_m=pass header.from=other.example", "pass", None, ""),
        (f"{PASSED} header . (c) from = other.example", "pass", None, ""),
        (f"{PASSED} header.from/1=other.example", "pass", None, ""),
        (
            f"{PASSED}; {'dkim=pass; ' * 40}dmarc=fail header.from=legit.example",
            "",
            "legit.example",
            "",
        ),
        (f"{PASSED} dmarc=fail header.from=legit.example", "", "legit.example", ""),
        (f"{PASSED}; dmarc.=fail header.from=legit.example", "", "legit.example", ""),
        (f"{PASSED}; dmarc=(x) header.from=legit.example", "", None, ""),
        (f"spf=fail smtp.helo=x {PASSED}", "", "legit.example", ""),
        (f"x {PASSED}", "", "legit.example", ""),
        # RES-71: nor a header.from with something beside it
        (f"{PASSED} other.example", "pass", None, ""),
        (f"{PASSED} <a@other.example>", "pass", None, ""),
        (f"{PASSED},other.example", "pass", None, ""),
        (f"{PASSED}(c).other.example", "pass", None, ""),
        ("dmarc=pass header.from=Bank <a@legit.example>", "pass", None, ""),
        ('dmarc=pass header.from="a@legit.example"@other.example', "pass", None, ""),
        ('dmarc=pass header.from=legit.example"@other.example"', "pass", None, ""),
        ("dmarc=pass header.from=<@other.example:a@legit.example>", "pass", None, ""),
        # and what large sealers do write
        ("dmarc=pass action=none header.from=legit.example;compauth=pass reason=100", *GENUINE),
        ("dmarc=pass(p=none dis=none)  header.from=<a@legit.example>", *GENUINE),
        ("dmarc=pass policy.dmarc=none (p=none,d=none) header.from=legit.example (x)", *GENUINE),
        ("dmarc=pass header.from=legit.example.; dmarc=pass header.from=LEGIT.example", *GENUINE),
    ],
)
def test_a_hop_tells_what_its_results_say(
    results: str, dmarc: str, author: str | None, address: str
) -> None:
    """Evidence for the override: unanimous, canonical, or nothing."""
    found = hop(results)
    assert (found.aar_dmarc, found.aar_header_from, found.aar_remote_ip) == (
        dmarc,
        author and Domain(author),
        address,
    )


def test_the_override_of_a_trusted_sealer() -> None:
    """ARC-02, RFC 8617 7.2.2: the comment names every seal, newest first, and the first client."""
    raw = seal(
        LETTER,
        ONE,
        results="dmarc=pass header.from=legit.example; arc=none smtp.remote-ip=2001:db8::1a",
    )
    raw = seal(raw, TWO, results="arc=pass; dmarc=fail header.from=legit.example")
    result = chain(raw, Zone(ZONE))
    trusted = [Domain("one.example"), Domain("two.example")]
    comment = (
        "arc=pass as[2].d=two.example as[2].s=sel as[1].d=one.example as[1].s=sel"
        " remote-ip[1]=2001:db8::1a"
    )
    assert trusted_override(result, LEGIT, trusted) == comment
    assert trusted_override(result, LEGIT, trusted[::-1]) == comment
    assert trusted_override(result, Domain("attack.example"), trusted) is None
    assert trusted_override(result, LEGIT, [Domain("one.example")]) is None, (
        "ARC-03: a hop after the trusted one is not trusted"
    )
    assert trusted_override(result, LEGIT, [Domain("two.example")]) is None, (
        "its own results say dmarc=fail"
    )
    assert trusted_override(result, LEGIT, [Domain("example")]) is None, "names are exact"
    assert trusted_override(result, LEGIT, []) is None, "ARC-01, WL-08: a pass proves nothing"
    failed = chain(raw.replace(b"Hello", b"Other"), Zone(ZONE))
    assert trusted_override(failed, LEGIT, trusted) is None


def test_the_oldest_contiguous_trusted_sealer_decides() -> None:
    """RFC 8617 5.2: hops before an untrusted one do not count, whatever they say."""
    for results, expected in (
        (["pass", "fail", "pass"], True),
        (["pass", "pass", "fail"], False),
        (["fail", "fail", "pass"], True),
    ):
        raw = LETTER
        for signer, word in zip((ONE, TWO, THREE), results, strict=True):
            raw = seal(raw, signer, results=f"dmarc={word} header.from=legit.example")
        found = trusted_override(
            chain(raw, Zone(ZONE)), LEGIT, [Domain("one.example"), Domain("three.example")]
        )
        assert (found is not None) is expected


def test_a_sealer_that_saw_another_author_does_not_help() -> None:
    """ARC-10."""
    for results in (
        "dmarc=pass header.from=attack.example",
        "dmarc=pass header.from=sub.legit.example",
        "dmarc=pass",
        "dkim=pass header.d=legit.example",
    ):
        result = chain(seal(LETTER, ONE, results=results), Zone(ZONE))
        assert result.status is ArcStatus.PASS
        assert trusted_override(result, LEGIT, [Domain("one.example")]) is None


def test_the_comment_stays_short() -> None:
    """Fifty long names do not make a comment of pages."""
    long = Domain("a" * 60 + "." + "b" * 60 + ".example")
    hops = tuple(ArcHop(n, long, "s" * 60, "pass", LEGIT, "192.0.2.1") for n in range(1, 51))
    comment = trusted_override(ArcResult(ArcStatus.PASS, hops), LEGIT, [long])
    assert comment is not None
    assert comment.startswith("arc=pass as[50].d=aaa")
    assert comment.endswith(" remote-ip[1]=192.0.2.1")
    assert len(comment) <= MAX_COMMENT


# Other readers, random input


def txt(name: bytes, timeout: int = 5) -> bytes:
    return ZONE.get(name.decode().rstrip("."), {"TXT": [""]})["TXT"][0].encode()


@pytest.mark.parametrize("signers", [[ONE], [ONE, TWO], [TWO, ONE, TWO]], ids=len)
def test_dkimpy_verifies_what_the_fixture_seals(signers: list[Signer]) -> None:
    """An oracle for the fixture."""
    verdict, _, reason = dkimpy.arc_verify(seal_all(LETTER, *signers), dnsfunc=txt)
    assert (verdict, reason) == (b"pass", "success")


def test_what_dkimpy_seals_passes_here() -> None:
    """Sealed by dkimpy, twice."""
    pytest.importorskip("authres")
    raw = LETTER
    names = [name.encode() for name in SIGNED]
    for signer, found in ((ONE, b"arc=none"), (TWO, b"arc=pass")):
        host = b"mx." + signer.domain.encode()
        raw = (
            b"Authentication-Results: "
            + host
            + b"; "
            + found
            + b"; dmarc=pass header.from=legit.example\r\n"
            + raw
        )
        sealed = dkimpy.arc_sign(
            raw,
            b"sel",
            signer.domain.encode(),
            signer.pem,
            host,
            include_headers=names,
            timestamp=SIGNED_AT,
        )
        raw = b"".join(sealed) + raw
    result = chain(raw, Zone(ZONE))
    assert (result.status, result.oldest_pass) == (ArcStatus.PASS, 0)
    assert [each.aar_dmarc for each in result.hops] == ["pass", "pass"]


VALUES = st.binary(max_size=60) | st.text(
    alphabet="i=12;acvdsbh :\r\n\t()nonepass", max_size=60
).map(str.encode)
NAMES = st.sampled_from(
    [b"ARC-Seal", b"arc-message-signature", b"ARC-Authentication-Results", b"From"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_no_fields_raise(fields: list[tuple[bytes, bytes]]) -> None:
    """Any octets in any ARC fields give a plan or a reason."""
    found = arc.prepare(Headers([HeaderField(*field) for field in fields]))
    assert not (found.sets and found.failure)
    assert found.sets or found.failure or all(name == b"From" for name, _ in fields)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_mutation_of_a_chain_raises_or_passes_unnoticed(data: st.DataObject) -> None:
    """An octet of the ARC fields replaced: white space and case of field names aside, never a pass
    with other content."""
    raw = seal_all(LETTER, THREE, THREE)
    end = raw.index(b"From: Admin")
    position = data.draw(st.integers(0, end - 1))
    octet = data.draw(st.sampled_from([b"", b"x", b"0", b"=", b";", b"(", b"\x00", b"\xff", b"A"]))
    changed = raw[:position] + octet + raw[position + 1 :]
    status, _ = judged(changed)
    if status == "pass":
        assert (
            re.sub(rb"[ \t\r\n]", b"", changed).lower() == re.sub(rb"[ \t\r\n]", b"", raw).lower()
        )


@pytest.mark.parametrize(
    "filler", [b" ", b"\r\n ", b"i=1;", b"(", b";", b"=", b"a=1;b=2;"], ids=repr
)
def test_no_chain_within_limits_is_slow(filler: bytes) -> None:
    """DOS-04 for ARC: fifty sets filled up to 256 KiB cost under 0.3 s, and no look-up."""
    size = 256 * 1024 // 150
    sets = []
    for number in range(1, 51):
        text = filler * (size // len(filler))
        sets += [
            HeaderField(name, b" i=%d; x=" % number + text)
            for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
        ]
    begun = time.process_time()
    arc.prepare(Headers(sets))
    assert time.process_time() - begun < 0.3
