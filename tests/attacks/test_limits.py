"""Every limit at its bound and one past it, by its default and as configured; and what a hundred
repeats leave behind."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    MORE_MEMORY,
    Case,
    Mail,
    Stage,
    delivered,
    ids,
    mail,
    malformed,
    refused,
    spoof,
)
from fakes.dns_server import Spec
from fakes.sealer import seal, seal_all
from fakes.signer import Signer

Tables = Mapping[str, Mapping[str, Any]]
NO_TABLES: Tables = {}
PASSES = delivered("dkim=pass")
PERMERROR = refused("legit.example", "dkim=permerror")


def limits(**values: int) -> Mapping[str, Mapping[str, Any]]:
    return {"limits": values}


def junk_then_good(count: int) -> Mail:
    """`count` right signatures of other domains that could be examined first, beside one by the
    author's sibling-less self."""
    letter = spoof()
    others = [Signer(f"sub{n}.legit.example") for n in range(count)]
    for each in others:
        each.key = ATTACK_SIGNER.key
    return letter.top(*(each.field(letter.raw) for each in others), LEGIT_SIGNER.field(letter.raw))


def sub_keys(count: int) -> dict[str, Spec]:
    return {f"sel._domainkey.sub{n}.legit.example": {"TXT": ["v=DKIM1; p="]} for n in range(count)}


def block(octets: int) -> Mail:
    """A signed message whose header block has this many octets as the limit counts them: name,
    colon, value, CRLF."""
    letter = spoof().signed(LEGIT_SIGNER)
    used = sum(len(name) + len(value) + 3 for name, value in letter.fields)
    filler = octets - used - len(b"X-Fill") - 3
    return replace(letter, fields=((b"X-Fill", b" " + b"x" * (filler - 1)), *letter.fields))


def fields(count: int) -> Mail:
    letter = spoof().signed(LEGIT_SIGNER)
    return letter.top(*[(b"X-A", b" b")] * (count - len(letter.fields)))


def signature_of(octets: int) -> Mail:
    """A right signature whose field has exactly so many octets."""
    letter = spoof()
    size = len(letter.signed(LEGIT_SIGNER, tags={"z": "x"}).fields[0][1])
    return letter.signed(LEGIT_SIGNER, tags={"z": "x" * (octets - size + 1)})


def key_of(octets: int) -> dict[str, Spec]:
    record = LEGIT_SIGNER.record("n=; ")
    return {
        LEGIT_SIGNER.key_name: {
            "TXT": [record.replace("n=;", "n=" + "x" * (octets - len(record)) + ";")]
        }
    }


def spf_of(octets: int) -> dict[str, Spec]:
    """Unknown modifiers of fifty octets, the last one as long as it takes."""
    text = "v=spf1 ip4:198.51.100.10"
    while len(text) < octets - 110:
        text += f" x{len(text)}=".ljust(50, "y")
    return {"legit.example": {"TXT": [text + " z=".ljust(octets - len(text), "y")]}}


def dmarc_of(octets: int) -> dict[str, Spec]:
    text = "v=DMARC1; p=reject; x="
    return {"_dmarc.legit.example": {"TXT": [text + "y" * (octets - len(text))]}}


def sealers(count: int) -> Mail:
    """A chain by so many different keys."""
    signers = [Signer(f"s{n}.list.example", "sel", "ed25519-sha256") for n in range(count)]
    return spoof().of(seal_all(spoof().raw, *signers))


def seal_keys(count: int) -> dict[str, Spec]:
    made = [Signer(f"s{n}.list.example", "sel", "ed25519-sha256") for n in range(count)]
    return {each.key_name: {"TXT": [each.record()]} for each in made}


def chain(instances: int) -> Mail:
    signer = Signer("list.example", "ed", "ed25519-sha256")
    return spoof().of(seal_all(spoof().raw, *[signer] * instances))


TIGHT = limits(
    header_bytes=16384,
    header_fields=60,
    dkim_field_bytes=2048,
    dkim_signatures=11,
    dkim_key_bytes=512,
    dkim_names=8,
    rsa_min_bits=2048,
    arc_instances=3,
    arc_lookups=2,
    spf_record_bytes=512,
)
SMALL = Signer("legit.example", "small", bits=1024)
SMALL_KEY: dict[str, Spec] = {SMALL.key_name: {"TXT": [SMALL.record()]}}
LIST = Signer("list.example", "ed", "ed25519-sha256")
LIST_KEY: dict[str, Spec] = {LIST.key_name: {"TXT": [LIST.record()]}}
INSIDE = {"mail_from": b"<a@legit.example>", "ip": "198.51.100.10"}


def one(
    limit: str,
    letter: Mail,
    verdict: Any,
    note: str,
    zone: Mapping[str, Spec] = NO_TABLES,
    tables: Tables = NO_TABLES,
    **rest: Any,
) -> Case:
    return Case(limit, letter, verdict, zone, tables, note=note, variants=False, **rest)


LIMITS = [
    one("header_bytes", block(256 * 1024), PASSES, "at"),
    one("header_bytes", block(256 * 1024 + 1), PERMERROR, "past"),
    one("header_bytes", block(16384), PASSES, "at 16384", tables=TIGHT),
    one("header_bytes", block(16385), PERMERROR, "past 16384", tables=TIGHT),
    one("header_fields", fields(1000), PASSES, "at"),
    one("header_fields", fields(1001), PERMERROR, "past"),
    one("dkim_signatures", junk_then_good(9), PASSES, "at", sub_keys(9)),
    one(
        "dkim_signatures",
        junk_then_good(10),
        refused("legit.example", "dkim=policy (too many signatures) header.d=legit.example"),
        "past",
        sub_keys(10),
    ),
    one("dkim_signatures", junk_then_good(10), PASSES, "at 11", sub_keys(10), TIGHT),
    one("dkim_field_bytes", signature_of(16384), PASSES, "at"),
    one("dkim_field_bytes", signature_of(16385), PERMERROR, "past"),
    one("dkim_field_bytes", signature_of(2048), PASSES, "at 2048", tables=TIGHT),
    one("dkim_field_bytes", signature_of(2049), PERMERROR, "past 2048", tables=TIGHT),
    one("dkim_key_bytes", spoof().signed(LEGIT_SIGNER), PASSES, "at", key_of(4096)),
    one("dkim_key_bytes", spoof().signed(LEGIT_SIGNER), PERMERROR, "past", key_of(4097)),
    one("h= names", spoof().signed(LEGIT_SIGNER, headers=("from", *["x"] * 255)), PASSES, "at 256"),
    one(
        "h= names",
        spoof().signed(LEGIT_SIGNER, headers=("from", *["x"] * 256)),
        PERMERROR,
        "past 256",
    ),
    one("arc_instances", chain(50), refused("legit.example", "arc=pass"), "at", LIST_KEY),
    one(
        "arc_instances",
        spoof().of(seal(chain(50).raw, LIST, instance="51")),
        refused("legit.example", "arc=fail"),
        "past",
        LIST_KEY,
    ),
    one("arc_instances", chain(3), refused("legit.example", "arc=pass"), "at 3", LIST_KEY, TIGHT),
    one("arc_instances", chain(4), refused("legit.example", "arc=fail"), "past 3", LIST_KEY, TIGHT),
    one("arc_lookups", sealers(20), refused("legit.example", "arc=pass"), "at", seal_keys(20)),
    one("arc_lookups", sealers(21), refused("legit.example", "arc=fail"), "past", seal_keys(21)),
    one("header_fields", fields(60), PASSES, "at 60", tables=TIGHT),
    one("header_fields", fields(61), PERMERROR, "past 60", tables=TIGHT),
    one("dkim_key_bytes", spoof().signed(LEGIT_SIGNER), PASSES, "at 512", key_of(512), TIGHT),
    one("dkim_key_bytes", spoof().signed(LEGIT_SIGNER), PERMERROR, "past 512", key_of(513), TIGHT),
    one(
        "dkim_names",
        spoof().signed(LEGIT_SIGNER, headers=("from", *["x"] * 7)),
        PASSES,
        "at 8",
        tables=TIGHT,
    ),
    one(
        "dkim_names",
        spoof().signed(LEGIT_SIGNER, headers=("from", *["x"] * 8)),
        PERMERROR,
        "past 8",
        tables=TIGHT,
    ),
    one("rsa_min_bits", spoof().signed(SMALL), PASSES, "at 1024", SMALL_KEY),
    one("rsa_min_bits", spoof().signed(SMALL), PERMERROR, "below 2048", SMALL_KEY, TIGHT),
    one(
        "arc_lookups", sealers(2), refused("legit.example", "arc=pass"), "at 2", seal_keys(2), TIGHT
    ),
    one(
        "arc_lookups",
        sealers(3),
        refused("legit.example", "arc=fail"),
        "past 2",
        seal_keys(3),
        TIGHT,
    ),
    one("spf_record_bytes", spoof(**INSIDE), delivered("spf=pass"), "at 512", spf_of(512), TIGHT),
    one(
        "spf_record_bytes",
        spoof(**INSIDE),
        refused("legit.example", "spf=permerror"),
        "past 512",
        spf_of(513),
        TIGHT,
    ),
    one("spf_record_bytes", spoof(**INSIDE), delivered("spf=pass"), "at", spf_of(4096)),
    one(
        "spf_record_bytes",
        spoof(**INSIDE),
        refused("legit.example", "spf=permerror"),
        "past",
        spf_of(4097),
    ),
    one("DMARC record", spoof(), refused(), "at 4096", dmarc_of(4096)),
    one(
        "DMARC record", spoof(), delivered("dmarc=none", result="none"), "past 4096", dmarc_of(4097)
    ),
    one(
        "From domains", mail(b", ".join(b"a@d%d.example" % n for n in range(4))), malformed(""), "4"
    ),
    one(
        "From domains",
        mail(b", ".join(b"a@d%d.example" % n for n in range(5))),
        malformed("", code=550),
        "5",
    ),
]


@pytest.mark.parametrize("case", LIMITS, ids=ids)
def test_a_limit(stage: Stage, case: Case) -> None:
    """At the bound nothing changes; one past it the message is judged without what exceeded it,
    never better."""
    stage.check(case)


@pytest.mark.parametrize(
    ("tag", "seconds", "skew", "result"),
    [
        ("x", -200, 300, "pass"),
        ("x", -400, 300, "fail"),
        ("t", 200, 300, "pass"),
        ("x", -200, 0, "fail"),
        ("x", 60, 0, "pass"),
    ],
)
def test_the_clock_skew(stage: Stage, tag: str, seconds: int, skew: int, result: str) -> None:
    """clock_skew: so long after x= or before t= a signature still counts."""
    letter = spoof().signed(LEGIT_SIGNER, tags={"t": None, tag: str(int(time.time()) + seconds)})
    verdict = PASSES if result == "pass" else refused("legit.example", "dkim=fail")
    stage.check(
        one(
            "clock_skew", letter, verdict, "", tables={} if skew == 300 else limits(clock_skew=skew)
        )
    )


@pytest.mark.parametrize("bits", [8192, 8200])
def test_the_largest_key(stage: Stage, bits: int) -> None:
    """8192 bits are arithmetic worth doing, more are not: told by the word, the signature being
    wrong in both."""
    modulus = (1 << (bits - 1)) | 0xDEADBEEF
    whole = _public_key(modulus)
    stage.script(
        {LEGIT_SIGNER.key_name: {"TXT": ["v=DKIM1; p=" + base64.b64encode(whole).decode()]}}
    )
    heard = stage.running("monitor").send(spoof().signed(LEGIT_SIGNER))
    assert heard.ours is not None
    assert heard.ours.one("dkim").result == ("fail" if bits == 8192 else "permerror")


def _public_key(modulus: int) -> bytes:
    """RSAPublicKey of RFC 8017 A.1.1 with e = 65537."""

    def der(tag: int, content: bytes) -> bytes:
        length = len(content).to_bytes(2, "big")
        return bytes([tag, 0x82]) + length + content

    number = modulus.to_bytes(modulus.bit_length() // 8 + 1, "big")
    return der(0x30, der(2, number) + b"\x02\x03\x01\x00\x01")


def test_no_message_asks_more_than_the_whole(stage: Stage) -> None:
    """dns_queries: SPF's hundred, ten keys, twenty seals and two walks together stay below 160, and
    the policy is still found."""
    mx = {
        f"x{n}.attack.example": {"MX": [[10, f"m{n}-{k}.attack.example"] for k in range(10)]}
        for n in range(10)
    }
    text = "v=spf1 " + " ".join(f"mx:x{n}.attack.example" for n in range(10)) + " -all"
    zone: dict[str, Spec] = {
        **mx,
        "*.attack.example": {"A": ["203.0.113.1"]},
        "attack.example": {"TXT": [text]},
        **seal_keys(20),
    }
    strangers = [Signer(f"k{n}.attack.example") for n in range(10)]
    for each in strangers:
        each.key = ATTACK_SIGNER.key
    letter = sealers(20)
    letter = letter.top(*(each.field(spoof().raw) for each in strangers))
    deep = ".".join("a" * 20) + ".legit.example"
    letter = replace(
        letter,
        fields=tuple(
            (n, b" <admin@" + deep.encode() + b">" if n == b"From" else v) for n, v in letter.fields
        ),
    )
    case = Case("dns_queries", letter, refused(), zone, variants=False, seconds=4)
    heard = stage.check_in(case, "enforce")
    assert heard.queries <= 160
    tight = replace(case, tables=limits(dns_queries=40), queries=40)
    stage.check_in(tight, "enforce")


REPEATED = [
    spoof(),
    spoof().signed(LEGIT_SIGNER),
    spoof().top(*[(b"DKIM-Signature", b" junk")] * 500),
    spoof().top(*[(b"X-A", b"x" * 10_000)] * 30),
    mail(b"(" * 5000),
    mail(b", ".join(b"a@d%d.example" % n for n in range(3000))),
    chain(10),
    spoof().top((b"Authentication-Results", b" " + b"(" * 5000 + b"mx.example.com")),
    replace(spoof().signed(LEGIT_SIGNER), body=b"x " * 500_000),
    spoof(mail_from=b"<" + b"a" * 4000 + b"@attack.example>", helo=b"x" * 4000),
]


@pytest.mark.parametrize("number", range(len(REPEATED)))
def test_a_hundred_repeats_leave_nothing_behind(stage: Stage, number: int) -> None:
    """I5: less than 64 MiB more, whatever is repeated."""
    assert stage.grows(Case("I5", REPEATED[number], refused(), LIST_KEY)) < MORE_MEMORY
