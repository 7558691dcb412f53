"""The costliest messages that are within every limit."""

from __future__ import annotations

import base64
import hashlib
import os
import random

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dmarc_milter.core.mail.message import HeaderField

FROM = HeaderField(b"From", b" a@d.example")
RESULTS = b"Authentication-Results"
BODY = b"Hello\r\n"
BODY_HASH = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
"""Else no signature would come to be verified."""


def key_record() -> str:
    """Of 8192 bits; nothing verifies with it, at the price of one that does."""
    modulus = random.Random(1).getrandbits(8192) | 1 << 8191 | 1
    public = rsa.RSAPublicNumbers(65537, modulus).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "v=DKIM1; p=" + base64.b64encode(der).decode()


def signature(number: int, names: str) -> HeaderField:
    octets = base64.b64encode(os.urandom(1024)).decode()
    text = (
        f" v=1; a=rsa-sha256; c=relaxed/relaxed; d=d.example; s=s{number}; h={names};"
        f" bh={BODY_HASH}; b={octets}"
    )
    return HeaderField(b"DKIM-Signature", text.encode())


NAMES = ":".join(["from", *(f"x{number}" for number in range(2000))])
COSTLY = {
    "nested comments": [HeaderField(RESULTS, b" " + b"(" * 4000 + b"x")] * 60,
    "encoded words": [HeaderField(RESULTS, b" =?utf-8?Q?" + b"(a" * 3000)] * 60,
    "ten signatures of 8192 bits": [signature(number, "from") for number in range(10)],
    "2000 names in h=": [signature(number, NAMES) for number in range(10)],
    "a header of 240 KB": [
        *(signature(number, "from:" + "x:" * 100 + "x") for number in range(10)),
        *[HeaderField(b"X", b" y" * 500)] * 200,
    ],
    "the largest SPF": [],
    "a From in many readings": [HeaderField(b"From", b' "(<a@d.example>,' * 500)] * 30,
}


def _hop(instance: int) -> list[HeaderField]:
    """An ARC set (RFC 8617 4.1)."""
    octets = base64.b64encode(os.urandom(1024)).decode()
    common = f" i={instance}; a=rsa-sha256; d=d.example; s=s{instance % 10}; b={octets};"
    seen = "none" if instance == 1 else "pass"
    message = f"{common} c=relaxed/relaxed; h={NAMES[:6000]}; bh={BODY_HASH}"
    return [
        HeaderField(b"ARC-Seal", f"{common} cv={seen}".encode()),
        HeaderField(b"ARC-Message-Signature", message.encode()),
        HeaderField(b"ARC-Authentication-Results", f" i={instance}; d.example".encode()),
    ]


OTHERS = {
    "900 fields": [
        *(
            signature(number, "from:" + ":".join(f"x{n}" for n in range(900)))
            for number in range(10)
        ),
        *(HeaderField(f"X{number}".encode(), b" " + b"y" * 200) for number in range(900)),
    ],
    "a From of 8 KiB": [HeaderField(b"From", b" =?utf-8?B?PGFAZC5leGFtcGxlPg==?= " * 230)],
    "an ARC chain of 50": [field for instance in range(50, 0, -1) for field in _hop(instance)],
    "our id in nested comments": [
        HeaderField(RESULTS, b" " + b"(a" * 2000 + b" mx.example.com " + b")" * 1990)
    ]
    * 60,
    "Received without an end": [HeaderField(b"Received", b" from a (b (c" * 600)] * 100,
    "signatures of 3000 tags": [
        HeaderField(b"DKIM-Signature", b" v=1; " + b"; ".join(b"t%d=1" % n for n in range(3000)))
    ]
    * 30,
}
MACROS = "<" + "a-b+c/d" * 8 + "@macros.example>"
"""A sender whose SPF record has many macros."""


def zone() -> dict[str, dict[str, object]]:
    """What their senders publish."""
    record = key_record()
    includes = [f"i{number}.example" for number in range(9)]
    return {
        **{f"s{number}._domainkey.d.example": {"TXT": [record]} for number in range(10)},
        "macros.example": {
            "TXT": [
                "v=spf1 "
                + " ".join(f"exists:%{{ir}}.%{{d9r.-+/_=}}.%{{l}}.x{n}.example" for n in range(9))
                + " "
                + " ".join(f"ip4:10.2.{n % 250}.{n // 250}" for n in range(300))
            ]
        },
        "spf.example": {"TXT": ["v=spf1 " + " ".join(f"include:{name}" for name in includes)]},
        **{
            name: {
                "TXT": ["v=spf1 " + " ".join(f"ip4:10.1.{n % 250}.{n // 250}" for n in range(280))]
            }
            for name in includes
        },
    }
