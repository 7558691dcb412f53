"""The costliest messages that are within every limit."""

from __future__ import annotations

import base64
import os
import random

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dmarc_milter.core.mail.message import HeaderField

FROM = HeaderField(b"From", b" a@d.example")
RESULTS = b"Authentication-Results"


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
        f" bh={'A' * 43}=; b={octets}"
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


def zone() -> dict[str, dict[str, object]]:
    """What their senders publish."""
    record = key_record()
    includes = [f"i{number}.example" for number in range(9)]
    return {
        **{f"s{number}._domainkey.d.example": {"TXT": [record]} for number in range(10)},
        "spf.example": {"TXT": ["v=spf1 " + " ".join(f"include:{name}" for name in includes)]},
        **{
            name: {
                "TXT": ["v=spf1 " + " ".join(f"ip4:10.1.{n % 250}.{n // 250}" for n in range(800))]
            }
            for name in includes
        },
    }
