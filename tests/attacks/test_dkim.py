"""DKIM rows of the attack catalogue through the daemon."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from typing import Any

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    Case,
    Mail,
    Stage,
    deferred,
    delivered,
    ids,
    mail,
    refused,
    spoof,
)
from fakes.dns_server import Spec
from fakes.signer import Signer, Style

ADMIN = b"<admin@legit.example>"
PASSES = delivered("dkim=pass")
ED = Signer("legit.example", "ed", "ed25519-sha256")
SMALL = Signer("legit.example", "r1024", bits=1024)
SHA1 = Signer("legit.example", "sel", "rsa-sha1")
SHA1.key = LEGIT_SIGNER.key
# Keys that signing cannot be shown with: what matters is that they are refused before any
# arithmetic.
CHANCE = random.Random(18)


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size])
        if size < 128
        else (octets := size.to_bytes((size.bit_length() + 7) // 8, "big"))
        and bytes([0x80 | len(octets)]) + octets
    )
    return bytes([tag]) + length + content


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def rsa_record(modulus: int, exponent: int) -> str:
    """An SubjectPublicKeyInfo of any two numbers."""
    key = der(0x30, integer(modulus) + integer(exponent))
    whole = der(0x30, der(0x30, bytes.fromhex("06092a864886f70d0101010500")) + der(3, b"\0" + key))
    return "v=DKIM1; k=rsa; p=" + base64.b64encode(whole).decode()


def number(bits: int) -> int:
    return CHANCE.getrandbits(bits) | 1 << (bits - 1) | 1


def key(
    row: str,
    text: str | bytes | list[Any],
    result: str,
    note: str = "",
    signer: Signer = LEGIT_SIGNER,
    **rest: Any,
) -> Case:
    """A rightly signed message whose key record is this."""
    verdict = PASSES if result == "pass" else refused("legit.example", f"dkim={result} ")
    texts = text if isinstance(text, list) else [text]
    return Case(
        row,
        spoof().signed(signer),
        verdict,
        {signer.key_name: {"TXT": texts}},
        note=note or repr(text)[:40],
        **rest,
    )


def tags(row: str, result: str, note: str = "", **changed: Any) -> Case:
    """A message signed with these tags in its field, truly over them."""
    return Case(
        row,
        spoof().signed(LEGIT_SIGNER, tags=changed),
        PASSES if result == "pass" else refused("legit.example", f"dkim={result} "),
        note=note or str(changed)[:40],
    )


def serve(signer: Signer) -> dict[str, Spec]:
    return {signer.key_name: {"TXT": [signer.record()]}}


def published(row: str, signer: Signer, result: str, **rest: Any) -> Case:
    verdict = PASSES if result == "pass" else refused("legit.example", f"dkim={result} ")
    return Case(
        row,
        spoof().signed(signer),
        verdict,
        serve(signer),
        note=f"{signer.selector} {result}",
        **rest,
    )


def stack(*signers: tuple[Signer, dict[str, Any]]) -> Mail:
    """Many signatures, the first one at the bottom."""
    letter = spoof()
    base = letter.raw
    return letter.top(*(signer.field(base, **how) for signer, how in reversed(signers)))


def heap(letter: Mail, count: int) -> Mail:
    """So many signatures in all: unreadable ones, each of its own, above the message's."""
    return letter.top(*((b"DKIM-Signature", b" junk%d" % number) for number in range(count - 1)))


JUNK = (b"DKIM-Signature", b" junk")
OTHERS = [Signer(f"o{n}.example") for n in range(12)]
for other in OTHERS:
    other.key = ATTACK_SIGNER.key
SIGNED_LAST = stack((LEGIT_SIGNER, {}), *((other, {}) for other in OTHERS))
OTHER_KEYS = {other.key_name: {"TXT": [ATTACK_SIGNER.record()]} for other in OTHERS}

DKM: list[Case] = [
    Case(
        "DKM-01",
        spoof().signed(LEGIT_SIGNER, headers=("to", "subject")),
        refused("legit.example", "dkim=permerror"),
        note="From unsigned",
    ),
    Case(
        "DKM-01",
        spoof().signed(LEGIT_SIGNER, headers=()),
        refused("legit.example", "dkim=permerror"),
        note="h= empty",
    ),
    Case("DKM-02", spoof().signed(SHA1), refused("legit.example", "dkim=permerror")),
    *(
        key("DKM-03", rsa_record(number(bits), 65537), "permerror", f"{bits} bits")
        for bits in (512, 768, 1023, 8193, 16384)
    ),
    published("DKM-03", SMALL, "pass"),
    key("DKM-04", LEGIT_SIGNER.record(), "permerror", "rsa key, ed25519", signer=ED),
    key("DKM-04", ED.record(), "permerror", "ed25519 key, rsa"),
    published("DKM-04", ED, "pass"),
    key("DKM-05", LEGIT_SIGNER.record("h=sha1; "), "permerror"),
    key("DKM-05", LEGIT_SIGNER.record("h=sha1:sha256; "), "pass", "both"),
    Case(
        "DKM-06",
        spoof().signed(LEGIT_SIGNER, tags={"i": "@sub.legit.example"}),
        refused("legit.example", "dkim=permerror"),
        {LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record("t=s; ")]}},
    ),
    Case(
        "DKM-06",
        spoof().signed(LEGIT_SIGNER, tags={"i": "@sub.legit.example"}),
        PASSES,
        note="without the flag",
    ),
    Case(
        "DKM-07",
        spoof().signed(LEGIT_SIGNER),
        delivered("dkim=policy", "dis=quarantine", result="fail"),
        {LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record("t=y; ")]}},
        note="monitor aside",
    ),
    key(
        "DKM-08",
        "k=rsa; v=DKIM1; p=" + LEGIT_SIGNER.record().partition("p=")[2],
        "permerror",
        "v= not first",
    ),
    *(
        key("DKM-08", text, "permerror", text[:30])
        for text in (
            LEGIT_SIGNER.record().replace("DKIM1", "DKIM2"),
            LEGIT_SIGNER.record("s=other; "),
            LEGIT_SIGNER.record("s=tlsrpt; "),
            "v=DKIM1; p=",
            "v=DKIM1; p=!!!",
            "",
            "v=DKIM1; k=rsa",
        )
    ),
    key("DKM-08", LEGIT_SIGNER.record("g=; "), "pass", "g="),
    *(
        key("DKM-08", text, "permerror", repr(text))
        for text in (b"v=DKIM1; p=\xff\xfe", b"v=DKIM1; p=AA\x00AA")
    ),
    key("DKM-09", ["v=DKIM1; p=", LEGIT_SIGNER.record()], "pass", "good one last"),
    key("DKM-09", [LEGIT_SIGNER.record(), ATTACK_SIGNER.record()], "pass", "good one first"),
    tags("DKM-10", "permerror", i="legit.example"),
    tags("DKM-10", "permerror", i="@xlegit.example"),
    tags("DKM-10", "pass", i="@SUB.legit.example"),
    tags("DKM-10", "permerror", i=""),
    tags("DKM-10", "permerror", i="@"),
    *(
        tags("DKM-11", "permerror", **changed)
        for changed in (
            {"x": "9" * 5000},
            {"t": "9" * 5000},
            {"x": "1600000000"},
            {"x": "abc"},
            {"t": "-1"},
            {"x": ""},
        )
    ),
    tags("DKM-11", "fail", x="1700000001"),
    *(
        tags("DKM-12", "permerror", **changed)
        for changed in (
            {"bh": "abc"},
            {"b": "b====="},
            {"bh": None},
            {"b": "!"},
            {"bh": ""},
            {"b": "A"},
        )
    ),
    *(
        tags("DKM-13", "permerror", d=d)
        for d in (
            "",
            ".",
            "legit.example.",
            "x" * 64 + ".example",
            "legit..example",
            "*.legit.example",
            "-",
            "a b",
        )
    ),
    *(tags("DKM-13", "permerror", s=s) for s in ("a..b", "x" * 64, "../x", "*", "", "a b", "sel.")),
    Case(
        "DKM-13",
        spoof().signed(LEGIT_SIGNER, tags={"d": "LEGIT.Example"}),
        PASSES,
        note="upper case",
    ),
    *(
        Case(
            "DKM-13",
            spoof().signed(LEGIT_SIGNER, tags={"d": d}),
            refused("legit.example", "dkim=pass"),
            {f"sel._domainkey.{d}": {"TXT": [LEGIT_SIGNER.record()]}},
            note=d,
        )
        for d in ("com", "co.uk", "example")
    ),
    *(
        tags("DKM-14", "permerror", **changed)
        for changed in (
            {"v": "1.0"},
            {"c": "bogus"},
            {"c": "relaxed/bogus"},
            {"q": "http"},
            {"v": None},
            {"h": None},
            {"a": "rsa-sha512"},
        )
    ),
    *(
        tags("DKM-14", "pass", **changed)
        for changed in ({"unknown": "x"}, {"q": "dns/txt:x"}, {"D": "x"})
    ),
    Case("DKM-14", spoof().signed(LEGIT_SIGNER, c="relaxed"), PASSES, note="c=relaxed"),
    Case(
        "DKM-16",
        spoof().signed(LEGIT_SIGNER).top(*[JUNK] * 900),
        PASSES,
        note="900 junk above",
        seconds=3,
        variants=False,
    ),
    *(
        Case(
            "DKM-16",
            heap(spoof().signed(LEGIT_SIGNER), count),
            PASSES,
            note=f"{count} different ones, the good one last",
            seconds=3,
            variants=False,
        )
        for count in (10, 11, 1000)
    ),
    Case(
        "DKM-16",
        heap(spoof().signed(LEGIT_SIGNER), 1001),
        refused("legit.example", "dkim=permerror (header too large)"),
        note="1001",
        seconds=3,
        variants=False,
    ),
    Case(
        "DKM-16",
        SIGNED_LAST,
        delivered("dkim=pass", "header.d=legit.example", "dkim=policy (too many signatures)"),
        OTHER_KEYS,
        note="aligned one last",
        queries=40,
    ),
    Case(
        "DKM-17",
        spoof().top(*[spoof().signed(LEGIT_SIGNER).fields[0]] * 10),
        PASSES,
        note="ten copies",
        queries=20,
    ),
    *(
        key(
            "DKM-18",
            rsa_record(number(bits), number(exponent) if exponent > 20 else 65537),
            "permerror",
            f"{bits} {exponent}",
            seconds=0.5,
        )
        for bits, exponent in ((16384, 17), (8192, 8191), (16384, 16383), (2048, 33), (2048, 2047))
    ),
    key("DKM-18", "v=DKIM1; p=" + "A" * 60_000, "permerror", "60 KB", seconds=0.5),
    *(
        key(
            "DKM-19", rsa_record(modulus, exponent), "permerror", f"n={modulus % 1000} e={exponent}"
        )
        for modulus, exponent in (
            (0, 3),
            (1, 3),
            (1 << 2047, 65537),
            (number(2048), 0),
            (number(2048), 1),
            (number(2048), 2),
            (-number(2048), 65537),
            (number(2048), -3),
        )
    ),
    *(
        key(
            "DKM-19",
            "v=DKIM1; p=" + base64.b64encode(octets).decode(),
            "permerror",
            octets.hex()[:20],
        )
        for octets in (
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\xff" + b"\xff" * 127,
            b"\x30",
            b"\x30\x80\x02\x01",
            b"\x00",
            b"\x03" * 300,
        )
    ),
    *(
        Case(
            "DKM-20",
            spoof().signed(ED, tags={"b": base64.b64encode(b"x" * size).decode()}),
            refused("legit.example", "dkim=fail"),
            serve(ED),
            note=f"{size} octets of b=",
        )
        for size in (63, 65, 64)
    ),
    *(
        key(
            "DKM-20",
            "v=DKIM1; k=ed25519; p=" + base64.b64encode(b"\1" * size).decode(),
            "permerror",
            f"key of {size}",
            signer=ED,
        )
        for size in (31, 33, 0)
    ),
    *(
        key(
            "DKM-20",
            "v=DKIM1; k=ed25519; p=" + base64.b64encode(point).decode(),
            "permerror",
            point.hex()[:8],
            signer=ED,
        )
        for point in (b"\1" + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32)
    ),
    tags("DKM-20", "fail", bh=base64.b64encode(b"x" * 65).decode()),
    *(
        Case(
            "DKM-22",
            spoof().signed(LEGIT_SIGNER),
            PASSES if length <= 8 else deferred(),
            {
                LEGIT_SIGNER.key_name: {"CNAME": "c0.legit.example"},
                **{
                    f"c{n}.legit.example": {"CNAME": f"c{n + 1}.legit.example"}
                    for n in range(length - 1)
                },
                f"c{length - 1}.legit.example": {"TXT": [LEGIT_SIGNER.record()]},
            },
            note=f"chain of {length}",
        )
        for length in (1, 4, 8, 17)
    ),
    Case(
        "DKM-23",
        spoof().signed(LEGIT_SIGNER),
        refused("legit.example", "dkim=permerror"),
        {LEGIT_SIGNER.key_name: {}},
        note="NXDOMAIN",
    ),
    *(
        Case(
            "DKM-23",
            spoof().signed(LEGIT_SIGNER),
            deferred("dkim=temperror"),
            {LEGIT_SIGNER.key_name: {"behaviour": word}},
            note=word,
        )
        for word in ("servfail", "refused", "truncated_reset")
    ),
    *(
        Case(
            "DKM-24",
            spoof().signed(LEGIT_SIGNER, style=style, name=name),
            PASSES,
            note=f"{number} {name!r}",
        )
        for number, style in enumerate(
            (
                Style(equals=" = "),
                Style(separator=" ;\r\n  "),
                Style(equals="=\r\n\t"),
                Style(lead="\r\n "),
                Style(end=";"),
            )
        )
        for name in (b"DKIM-Signature", b"dkim-SIGNATURE", b"DKIM-Signature ")
    ),
    Case(
        "RPL-02",
        spoof().signed(
            LEGIT_SIGNER, tags={"b": base64.b64encode(bytes(300) + b"x" * 256).decode()}
        ),
        refused("legit.example", "dkim=fail"),
        note="556 octets",
    ),
    Case(
        "LTAG-02",
        spoof().signed(LEGIT_SIGNER, length=0),
        refused("legit.example", "dkim=policy (l= leaves 8 octets unsigned)"),
        note="l=0",
    ),
    Case("SPF+DKIM", mail(ADMIN, ip=None).signed(LEGIT_SIGNER), PASSES, note="no address"),
]


@pytest.mark.parametrize(
    "case", [each for each in DKM if "monitor aside" not in each.note], ids=ids
)
def test_a_signature(stage: Stage, case: Case) -> None:
    """One word for each way of being wrong; none of them raises, passes or costs more than its
    share."""
    stage.check(case)


def test_a_testing_key_caps_the_disposition(stage: Stage) -> None:
    """DKM-07, docs/design.md: dkim=policy, the message is quarantined instead of refused; `reject`
    lifts the cap."""
    case = next(each for each in DKM if each.row == "DKM-07")
    stage.script(case.zone)
    heard = stage.running().send(case.mail)
    assert (heard.answer.code, heard.dmarc.result) == (250, "fail")
    assert heard.answer.values("X-DMARC-Quarantine") == [" yes (p=reject, legit.example)"]
    assert heard.ours is not None
    assert heard.ours.one("dkim").result == "policy"
    assert (
        stage.running("enforce", {"policy": {"testing_key_action": "reject"}})
        .send(case.mail)
        .answer.code
        == 550
    )


@pytest.mark.parametrize("name", [b"From", b"From ", b"from\t", b"FROM"])
def test_an_oversigned_from_cannot_be_added_to(stage: Stage, name: bytes) -> None:
    """DKM-15: in any spelling, above or below: dkim=fail and dmarc=permerror."""
    letter = spoof().signed(LEGIT_SIGNER, headers=("from", "from", "to", "subject"))
    stage.script({})
    assert stage.running("monitor").send(letter).dmarc.result == "pass"
    added = (name, b" <x@attack.example>")
    for changed in (letter.top(added), replace(letter, fields=(*letter.fields, added))):
        heard = stage.running("monitor").send(changed)
        assert heard.ours is not None
        assert (heard.ours.one("dkim").result, heard.dmarc.result) == ("fail", "permerror")
        assert stage.running().send(changed).answer.code == 550


def test_b_as_large_as_the_modulus_fails(stage: Stage) -> None:
    """RPL-02: b= is s + n, of the same length where it fits (RFC 8017 8.2.2: s < n)."""
    letter = spoof()
    numbers = LEGIT_SIGNER.key.public_key().public_numbers()  # type: ignore[union-attr]
    value = letter.signed(LEGIT_SIGNER).fields[0][1]
    signature = int.from_bytes(base64.b64decode(value.rpartition(b"b=")[2]), "big")
    larger = signature + numbers.n  # type: ignore[union-attr]
    forged = (
        value.rpartition(b"b=")[0]
        + b"b="
        + base64.b64encode(larger.to_bytes(257, "big").lstrip(b"\0"))
    )
    stage.script({})
    heard = stage.running("monitor").send(letter.top((b"DKIM-Signature", forged)))
    assert heard.ours is not None
    assert heard.ours.one("dkim").result == "fail"


def test_junk_and_strangers_cost_no_questions(stage: Stage) -> None:
    """DKM-16, DKM-17: at most ten keys are asked for, unparsable fields ask for none, copies share
    one."""
    for note, limit in (("900 junk above", 1), ("aligned one last", 10), ("ten copies", 1)):
        case = next(each for each in DKM if each.note == note)
        stage.script(case.zone)
        stage.running().send(case.mail)
        assert len({name for name, _ in stage.dns.queries if "_domainkey" in name}) <= limit, note
