"""What the public validation suite for ARC asks of a verifier, demand by demand, shown on messages
of our own.

Each case is a message that is sealed here and then spoiled (or harmlessly rewritten) in one way.
Where that suite is older than RFC 8617 the RFC decides: rsa-sha1 fails (RFC 8301 3.1), and so does
an h= that does not name From (RFC 6376 5.4).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dmarc_milter.core.arc import ArcStatus
from fakes.dns_zone import Zone
from fakes.received import chain
from fakes.sealer import seal, seal_all
from fakes.signer import SIGNED_AT, Field, Signer, Style, header_fields


def public_key(modulus: int) -> str:
    """RSAPublicKey (RFC 8017 A.1.1) of up to 126 octets, with the exponent 65537."""
    number = modulus.to_bytes(modulus.bit_length() // 8 + 1, "big")
    integers = bytes([2, len(number)]) + number + b"\x02\x03\x01\x00\x01"
    return base64.b64encode(bytes([0x30, len(integers)]) + integers).decode()


NEAR, FAR = Signer("near.example", "a"), Signer("far.example", "b")
TINY = "v=DKIM1; p=" + public_key(2**511 + 0xDEADBEEF)
ZONE = {**NEAR.records(), **FAR.records()}
NOTE = (
    b"Received: by mx.near.example; Tue, 14 Nov 2023 22:13:19 +0000\r\nFrom: Ann"
    b" <ann@author.example>\r\nTo: bob@reader.example\r\nSubject: Two  words\r\nDate: Tue, 14 Nov"
    b" 2023 22:13:00 +0000\r\nMIME-Version: 1.0\r\n\r\nFirst line\t here.\r\n\r\nLast line.\r\n"
)
SEALED = seal(NOTE, NEAR)
TWICE = seal(SEALED, FAR)
AS, AMS, AAR = "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"
Change = Callable[[str], str]


def rewritten(raw: bytes, name: str, change: Change, instance: int = 1) -> bytes:
    """The message with the value of that set's field put through `change`; the value is folded text
    after the colon."""
    fields, body = header_fields(raw)
    changed = [
        (
            each.name,
            (
                change(each.value.decode()).encode()
                if each.name.decode() == name and _instance(each.value) == instance
                else each.value
            ),
        )
        for each in fields
    ]
    return b"".join(title + b":" + value + b"\r\n" for title, value in changed) + b"\r\n" + body


def _instance(value: bytes) -> int:
    found = re.search(rb"(?:^|;)\s*i\s*=\s*(\d+)", value)
    return int(found[1]) if found else 0


def dropped(raw: bytes, name: str, instance: int = 1) -> bytes:
    fields, body = header_fields(raw)
    kept = [
        each
        for each in fields
        if not (each.name.decode() == name and _instance(each.value) == instance)
    ]
    return b"".join(title + b":" + value + b"\r\n" for title, value in kept) + b"\r\n" + body


def doubled(raw: bytes, name: str, instance: int = 1, *, below: bool = False) -> bytes:
    fields, body = header_fields(raw)
    (one,) = [
        each for each in fields if each.name.decode() == name and _instance(each.value) == instance
    ]
    both = [*fields, one] if below else [one, *fields]
    return b"".join(title + b":" + value + b"\r\n" for title, value in both) + b"\r\n" + body


def message(tag: str, value: str | None) -> bytes:
    """Sealed with this tag in the message signature, truly over it."""
    return seal(NOTE, NEAR, message_tags={tag: value})


def own(tag: str, value: str | None) -> bytes:
    """Sealed with this tag in the seal, truly over it."""
    return seal(NOTE, NEAR, seal_tags={tag: value})


def swap(old: str, new: str) -> Change:
    return lambda value: value.replace(old, new, 1)


def b_value(change: Change) -> Change:
    """Only the value of b=, the last tag."""
    return lambda value: value[: value.rindex("b=") + 2] + change(value[value.rindex("b=") + 2 :])


def flipped(text: str) -> str:
    """Another octet of the signature, still base64."""
    return text[:20] + ("A" if text[20] != "A" else "B") + text[21:]


def wide(text: str) -> str:
    return text[:10] + " " + text[10:30] + "\r\n\t" + text[30:]


PASS, FAIL, NONE = "pass", "fail", "none"
Demands = Mapping[str, tuple[bytes, str]]

CHAINS: Demands = {
    "nothing at all": (b"\r\n", NONE),
    "a body without header fields": (b"\r\nJust text.\r\n", NONE),
    "header fields without a body": (NOTE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", NONE),
    "no sets": (NOTE, NONE),
    "no sets, several parts": (NOTE.replace(b"First", b"--x\r\n\r\nFirst"), NONE),
    **{
        f"{count} right sets": (seal_all(NOTE, *([NEAR, FAR] * 3)[:count]), PASS)
        for count in (1, 2, 3, 4, 5)
    },
    "one right set, another message": (seal(NOTE.replace(b"First", b"Other"), FAR), PASS),
    "an older message signature that no longer verifies": (
        seal(SEALED.replace(b"Ann <", b"Eve <"), FAR),
        PASS,
    ),
    "one set without its message signature": (dropped(SEALED, AMS), FAIL),
    "one set, the body changed": (SEALED.replace(b"First", b"Third"), FAIL),
    "one set without its seal": (dropped(SEALED, AS), FAIL),
    "one set, cv=pass": (seal(NOTE, NEAR, cv="pass"), FAIL),
    "one set, cv=fail": (seal(NOTE, NEAR, cv="fail"), FAIL),
    "one set, its seal broken": (rewritten(SEALED, AS, b_value(flipped)), FAIL),
    "two sets, the second without message signature": (dropped(TWICE, AMS, 2), FAIL),
    "two sets, the second's message signature broken": (
        rewritten(TWICE, AMS, b_value(flipped), 2),
        FAIL,
    ),
    "two sets, the second without seal": (dropped(TWICE, AS, 2), FAIL),
    "two sets, the second's seal broken": (rewritten(TWICE, AS, b_value(flipped), 2), FAIL),
    "two sets, cv=none in the second": (seal(SEALED, FAR, cv="none"), FAIL),
    "two sets, cv=fail in the second": (seal(SEALED, FAR, cv="fail"), FAIL),
    "two sets, the first without seal": (dropped(TWICE, AS, 1), FAIL),
    "two sets, the first's seal broken": (rewritten(TWICE, AS, b_value(flipped), 1), FAIL),
    "two sets, cv=pass in the first": (seal(seal(NOTE, NEAR, cv="pass"), FAR), FAIL),
    "two sets, cv=fail in the first": (seal(seal(NOTE, NEAR, cv="fail"), FAR), FAIL),
}

STRUCTURE: Demands = {
    f"{name} {what}": (raw, FAIL)
    for name in (AMS, AS, AAR)
    for what, raw in {
        "without i=": rewritten(SEALED, name, lambda value: re.sub(r"i=1;\s*", "", value)),
        "with an empty i=": rewritten(SEALED, name, swap("i=1;", "i=;")),
        "with i=0": rewritten(SEALED, name, swap("i=1;", "i=0;")),
        "with i= of letters": rewritten(SEALED, name, swap("i=1;", "i=one;")),
        "with i= of another set": rewritten(SEALED, name, swap("i=1;", "i=2;")),
        "twice": doubled(SEALED, name),
        "twice, the copy at the end": doubled(SEALED, name, below=True),
        "twice in the second set": doubled(TWICE, name, 2),
        "missing": dropped(SEALED, name),
        "missing in the second set": dropped(TWICE, name, 2),
    }.items()
}
STRUCTURE = {
    **STRUCTURE,
    "i= of the results not first": (
        rewritten(SEALED, AAR, lambda value: value.replace("i=1; ", "", 1) + "; i=1"),
        FAIL,
    ),
    "i= of the results without semicolon": (rewritten(SEALED, AAR, swap("i=1;", "i=1")), FAIL),
    "a whole set twice": (doubled(doubled(doubled(SEALED, AAR), AMS), AS), FAIL),
}

SPELLINGS: Demands = {
    "white space around semicolons": (seal(NOTE, NEAR, style=Style(separator=" ;\r\n\t ")), PASS),
    "white space around equals signs": (seal(NOTE, NEAR, style=Style(equals=" =\r\n ")), PASS),
    "a semicolon at the end": (seal(NOTE, NEAR, style=Style(end=";")), PASS),
    "a tag that nobody knows, in the message signature": (message("note", "x"), PASS),
    "a tag that nobody knows, in the seal": (own("note", "x"), PASS),
    "a tag name that is none, in the message signature": (message("_", "x"), FAIL),
    "a tag name that is none, in the seal": (own("_", "x"), FAIL),
    **{
        f"{name}: {what}": (rewritten(SEALED, name, change), FAIL)
        for name in (AMS, AS)
        for what, change in {
            "a tag twice": swap("s=a;", "s=a; s=a;"),
            "a tag name in upper case": swap("s=a;", "S=a;"),
            "a value in another case": swap("d=near.example", "d=Near.example"),
            "white space inside a value": swap(
                f"t={SIGNED_AT}", f"t={SIGNED_AT // 100} {SIGNED_AT % 100}"
            ),
            "an empty item": swap("s=a;", "s=a;;"),
        }.items()
    },
}

CANONICAL: Demands = {
    f"{name}: {what}": (rewritten(SEALED, name, change), PASS)
    for name in (AMS, AS)
    for what, change in {
        "white space in b=": b_value(wide),
        "folds elsewhere": lambda value: value.replace("; ", ";\r\n\t", 3),
        "white space at the end": lambda value: value + "  \t",
        "more white space between tags": lambda value: value.replace("; ", ";   ", 4),
        "white space after the colon": lambda value: "  \t" + value,
    }.items()
    if not (name == AMS and what == "white space in b=")  # the seal covers it: see below
}
CANONICAL = {
    **CANONICAL,
    "case of a field's name, sealed": (
        SEALED.replace(b"ARC-Authentication-Results:", b"arc-authentication-RESULTS:"),
        PASS,
    ),
    "case of a field's name, signed": (SEALED.replace(b"Subject:", b"SUBJECT:"), PASS),
    "a signed field folded": (SEALED.replace(b"Two  words", b"Two\r\n words"), PASS),
    "a signed field with white space at its end": (
        SEALED.replace(b"Two  words", b"Two words \t"),
        PASS,
    ),
    "white space around a signed field's colon": (
        SEALED.replace(b"Subject: ", b"Subject : "),
        PASS,
    ),
    "a message signature whose b= is spaced before it is sealed": (
        seal(NOTE, NEAR, style=Style(separator="; ")),
        PASS,
    ),
}

VALUES: Demands = {
    **{
        f"message signature, {tag}={value!r}": (message(tag, value), word)
        for tag, values in {
            "a": {None: FAIL, "": FAIL, "rsa-sha1": FAIL, "rsa-sha512": FAIL},
            "b": {None: FAIL, "=": FAIL, "no base64!": FAIL},
            "bh": {None: FAIL, "": FAIL, "no base64!": FAIL, "AAAA": FAIL},
            "c": {"": FAIL, "loose/loose": FAIL, None: FAIL},
            "d": {None: FAIL, "": FAIL, "near.example...": FAIL},
            "h": {None: FAIL},
            "s": {None: FAIL, "": FAIL},
            "t": {None: PASS, "": FAIL, "yesterday": FAIL},
        }.items()
        for value, word in values.items()
    },
    **{
        f"seal, {tag}={value!r}": (own(tag, value), word)
        for tag, values in {
            "a": {None: FAIL, "": FAIL, "rsa-sha1": FAIL, "rsa-sha512": FAIL},
            "b": {None: FAIL, "=": FAIL, "no base64!": FAIL},
            "cv": {None: FAIL, "": FAIL, "Pass": FAIL, "maybe": FAIL},
            "d": {None: FAIL, "": FAIL, "near.example...": FAIL},
            "s": {None: FAIL, "": FAIL},
            "t": {None: PASS, "": FAIL, "yesterday": FAIL},
            "h": {"from:to": FAIL, "": FAIL},
        }.items()
        for value, word in values.items()
    },
    "message signature, b= changed": (rewritten(SEALED, AMS, b_value(flipped)), FAIL),
    "seal, b= changed": (rewritten(SEALED, AS, b_value(flipped)), FAIL),
    "From changed": (SEALED.replace(b"ann@", b"eve@"), FAIL),
    "Subject changed": (SEALED.replace(b"words", b"verbs"), FAIL),
    "results changed after the seal": (rewritten(SEALED, AAR, swap("pass", "fail")), FAIL),
    "first results changed after the second seal": (
        rewritten(TWICE, AAR, swap("pass", "fail")),
        FAIL,
    ),
    "first message signature changed after the second seal": (
        rewritten(TWICE, AMS, lambda value: value + "; x=9999999999"),
        FAIL,
    ),
    "first seal changed after the second seal": (
        rewritten(TWICE, AS, lambda value: value + "; note=1"),
        FAIL,
    ),
}

BODIES: Demands = {
    **{
        f"c={c}": (seal(NOTE, NEAR, c=c), PASS)
        for c in ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
    },
    "simple: empty lines at the end": (seal(NOTE, NEAR, c="relaxed/simple") + b"\r\n\r\n", PASS),
    "simple: white space between words": (
        seal(NOTE, NEAR, c="relaxed/simple").replace(b"First line\t here", b"First line here"),
        FAIL,
    ),
    "relaxed: white space at the end of a line": (
        SEALED.replace(b"here.\r\n", b"here. \t\r\n"),
        PASS,
    ),
    "relaxed: white space between words": (SEALED.replace(b"line\t here", b"line    here"), PASS),
    "relaxed: empty lines at the end": (SEALED + b"\r\n \r\n\r\n", PASS),
    "relaxed: no line end at the end": (SEALED.removesuffix(b"\r\n"), PASS),
    "the body changed": (SEALED.replace(b"Last", b"Next"), FAIL),
}

TWO_NOTES = NOTE.replace(b"To: bob", b"X-Note: upper\r\nX-Note: lower\r\nTo: bob")
SWAPPED = b"X-Note: lower\r\nX-Note: upper"
NAMED: Demands = {
    "h= is empty": (seal(NOTE, NEAR, headers=()), FAIL),
    "white space around the colons of h=": (
        message("h", "from : to\r\n\t: subject :date: message-id"),
        PASS,
    ),
    "names in any case": (seal(NOTE, NEAR, headers=("FROM", "sUBJECT")), PASS),
    "a field that repeats, from the bottom up": (
        seal(TWO_NOTES, NEAR, headers=("from", "x-note", "x-note")),
        PASS,
    ),
    "the lower one of two, the upper one changed": (
        seal(TWO_NOTES, NEAR, headers=("from", "x-note")).replace(b"upper", b"other"),
        PASS,
    ),
    "the lower one of two, the two exchanged": (
        seal(TWO_NOTES, NEAR, headers=("from", "x-note")).replace(
            b"X-Note: upper\r\nX-Note: lower", SWAPPED
        ),
        FAIL,
    ),
    "a field that is not there": (seal(NOTE, NEAR, headers=("from", "x-absent")), PASS),
    "a field that is not there, twice": (
        seal(NOTE, NEAR, headers=("from", "x-absent", "x-absent")),
        PASS,
    ),
    "a field that was not there is added": (
        b"X-Absent: now\r\n" + seal(NOTE, NEAR, headers=("from", "x-absent")),
        FAIL,
    ),
    "a field named once more than it stands is added": (
        b"Subject: more\r\n" + seal(NOTE, NEAR, headers=("from", "subject", "subject")),
        FAIL,
    ),
    "a blank name": (seal(NOTE, NEAR, headers=("from", "", "to")), PASS),
    "names in another order than was signed": (
        message("h", "to:from:subject:date:message-id"),
        FAIL,
    ),
    "earlier message signatures": (
        seal(SEALED, FAR, headers=("from", "arc-message-signature")),
        PASS,
    ),
    "results of the own set": (
        seal(NOTE, NEAR, headers=("from", "arc-authentication-results")),
        PASS,
    ),
    "seals": (seal(SEALED, FAR, headers=("from", "arc-seal")), FAIL),
    "the message signature and the seal by different domains": (message("d", "far.example"), FAIL),
}


def differing() -> bytes:
    """One set whose message signature is FAR's and whose seal is NEAR's."""
    return seal(NOTE, Mixed(NEAR.domain, NEAR.selector))


class Mixed(Signer):
    """Signs messages as FAR, seals as itself."""

    def field(self, raw: bytes, **how: Any) -> Field:
        return FAR.field(raw, **how)


ALL = {
    **{f"chain: {what}": each for what, each in CHAINS.items()},
    **{f"structure: {what}": each for what, each in STRUCTURE.items()},
    **{f"spelling: {what}": each for what, each in SPELLINGS.items()},
    **{f"canonical form: {what}": each for what, each in CANONICAL.items()},
    **{f"value: {what}": each for what, each in VALUES.items()},
    **{f"body: {what}": each for what, each in BODIES.items()},
    **{f"h=: {what}": each for what, each in NAMED.items()},
    "keys: message signature and seal by different domains": (differing(), PASS),
}


@pytest.mark.parametrize(("raw", "word"), ALL.values(), ids=ALL.keys())
def test_a_demand_on_chains(raw: bytes, word: str) -> None:
    """RFC 8617 5.2, 4.1.1, 4.1.2, 4.1.3."""
    assert chain(raw, Zone(ZONE)).status is ArcStatus(word)


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (None, FAIL),
        ("", FAIL),
        ("no key", FAIL),
        ("v=DKIM1; p=", FAIL),
        (TINY, FAIL),
        (NEAR.record(), PASS),
    ],
    ids=["none", "empty", "not a key", "revoked", "512 bits", "right"],
)
def test_a_demand_on_keys(record: str | None, word: str) -> None:
    """RFC 8617 4.1.2, RFC 8301 3.2: the key of both fields."""
    zone = Zone({NEAR.key_name: {"TXT": [record]}} if record is not None else {})
    assert chain(SEALED, zone).status is ArcStatus(word)


@pytest.mark.parametrize("bits", [1024, 2048])
def test_sizes_of_keys_that_pass(bits: int) -> None:
    """RFC 8301 3.2."""
    signer = Signer("near.example", f"n{bits}", bits=bits)
    assert chain(seal(NOTE, signer), Zone(signer.records())).status is ArcStatus.PASS


def test_white_space_inside_the_hash_of_the_body() -> None:
    """RFC 6376 3.5, bh=: base64 with white space anywhere; signed and sealed so."""
    value = re.search(r"bh=([^;]+)", SEALED.decode())
    assert value
    assert chain(message("bh", wide(value[1])), Zone(ZONE)).status is ArcStatus.PASS


def test_a_seal_does_not_mend_what_it_seals() -> None:
    """RFC 8617 5.2, step 4: a broken message signature under a right seal, and why the short key is
    none."""
    broken = seal(NOTE, NEAR, message_tags={"h": "to:from:subject:date:message-id"})
    assert chain(broken, Zone(ZONE)).reason == "message signature: signature differs"
    assert (
        chain(SEALED, Zone({NEAR.key_name: {"TXT": [TINY]}})).reason
        == "message signature: RSA key too short"
    )
