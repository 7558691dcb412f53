"""Seals messages with ARC sets (RFC 8617 5.1), rightly or wrongly.

    raw = seal(letter, Signer("list.example"), results="dmarc=pass header.from=legit.example")
    raw = seal(raw, Signer("relay.example"), cv="pass")           # the next instance

Each set goes on top: ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dmarc_milter.core.mail.message import HeaderField
from fakes.signer import SIGNED, SIGNED_AT, Field, Signer, Style, canonical_field, header_fields

NAMES = (b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal")
INSTANCE = re.compile(rb"(?:^|;)\s*i\s*=\s*(\d+)")


def instance_of(field: Field) -> int:
    """i= of an ARC field, 0 when there is none."""
    found = INSTANCE.search(field[1])
    return int(found[1]) if found else 0


def arc_fields(raw: bytes) -> list[HeaderField]:
    """The ARC fields of a message in the order in which seals sign them."""
    order = {name.lower(): rank for rank, name in enumerate(NAMES)}
    fields = [field for field in header_fields(raw)[0] if field.name.lower() in order]
    return sorted(fields, key=lambda field: (instance_of(field), order[field.name.lower()]))


def seal(
    raw: bytes,
    signer: Signer,
    *,
    results: str = "dmarc=pass header.from=legit.example",
    aar: str | None = None,
    cv: str | None = None,
    instance: str = "",
    headers: Sequence[str] = SIGNED,
    c: str = "relaxed/relaxed",
    length: int | None = None,
    message_tags: Mapping[str, str | None] | None = None,
    seal_tags: Mapping[str, str | None] | None = None,
    style: Style = Style(),
    first: Sequence[str] = ("i",),
    omit: Sequence[int] = (),
) -> bytes:
    """`raw` with one more set. `aar` replaces the whole value of its first field; `omit` leaves out
    fields by their rank in NAMES."""
    earlier = arc_fields(raw)
    number = instance or str(max((instance_of(field) for field in earlier), default=0) + 1)
    stated_cv = cv if cv is not None else ("none" if number == "1" else "pass")
    evidence = (
        NAMES[0],
        (aar if aar is not None else f" i={number}; mx.{signer.domain}; {results}").encode(
            "utf-8", "surrogateescape"
        ),
    )
    signed = evidence[0] + b":" + evidence[1] + b"\r\n" + raw
    tags = {"v": None, "i": number, **(message_tags or {})}
    message = signer.field(
        signed,
        headers=headers,
        c=c,
        length=length,
        tags=tags,
        style=style,
        name=NAMES[1],
        first=first,
    )
    stated: dict[str, str | None] = dict.fromkeys(first) | {
        "i": number,
        "a": signer.algorithm,
        "cv": stated_cv,
        "d": signer.domain,
        "s": signer.selector,
        "t": str(SIGNED_AT),
        "b": "",
    }
    stated.update(seal_tags or {})
    covered = b"".join(canonical_field(field, "relaxed") for field in [*earlier, evidence, message])
    sealed = signer.complete(NAMES[2], stated, covered, "relaxed", style)
    whole = [field for rank, field in enumerate((evidence, message, sealed)) if rank not in omit]
    return b"".join(name + b":" + value + b"\r\n" for name, value in reversed(whole)) + raw


def seal_all(raw: bytes, *signers: Signer) -> bytes:
    """One right set for each signer, in order."""
    for signer in signers:
        raw = seal(raw, signer)
    return raw
