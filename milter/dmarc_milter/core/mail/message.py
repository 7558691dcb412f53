"""A message as it arrived: the envelope, the header fields byte for byte, and hashes of a body that
is never kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Literal, NamedTuple

from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.ip_address import IPAddress
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.quick_dataclass import quick_dataclass


class HeaderField(NamedTuple):
    """`name` without trailing white space; `value` all after the colon: leading space kept, folds
    as CRLF, no final CRLF."""

    name: bytes
    value: bytes


class Headers:
    """The header fields in order of appearance; look-up by name is ASCII case-insensitive.
    Immutable.

    `truncated` says that fields beyond the limits were counted but not kept (DKIM and ARC cannot be
    judged then); `total` counts them too. `by_name`: lower-case name -> positions, top first.
    """

    __slots__ = ("by_name", "fields", "total", "truncated")

    def __init__(
        self, fields: Iterable[HeaderField], *, truncated: bool = False, total: int = 0
    ) -> None:
        self.fields: tuple[HeaderField, ...] = tuple(fields)
        self.truncated = truncated
        self.total = max(total, len(self.fields))
        by_name: defaultdict[bytes, list[int]] = defaultdict(list)
        for position, (name, _) in enumerate(self.fields):
            by_name[name.lower()].append(position)
        self.by_name: Mapping[bytes, tuple[int, ...]] = dict(
            zip(by_name, map(tuple, by_name.values()), strict=True)
        )

    def __iter__(self) -> Iterator[HeaderField]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def positions(self, name: bytes) -> tuple[int, ...]:
        """Where fields of this (lower-case) name stand, top first."""
        return self.by_name.get(name, ())

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """The values of all fields of this (lower-case) name, top first."""
        positions = self.by_name.get(name)
        return tuple([self.fields[position].value for position in positions]) if positions else ()


def parse(raw: bytes) -> tuple[list[HeaderField], bytes]:
    """The header fields and the body of a message as a file holds it (RFC 5322 2.1), line ends
    normalized to CRLF.

    A first line of mbox form is dropped; the first line that is neither a field nor a fold ends the
    header section, as MTAs do.
    """
    text = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if text.startswith(b"From "):
        text = text.partition(b"\r\n")[2]
    fields: list[tuple[bytes, list[bytes]]] = []
    position = 0
    while position < len(text):
        end = text.find(b"\r\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end]
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1].append(line)
        else:
            name, colon, value = line.partition(b":")
            name = name.rstrip(b" \t")
            if not colon or not name or any(octet < 33 or octet > 126 for octet in name):
                position = end + 2 if not line else position
                break
            fields.append((name, [value]))
        position = end + 2
    return [HeaderField(name, b"\r\n".join(lines)) for name, lines in fields], text[position:]


class BodyHash(NamedTuple):
    """One way in which a signature asks for the body to be hashed (RFC 6376 3.7)."""

    canonicalization: Literal["simple", "relaxed"]
    algorithm: Literal["sha256"]
    length: int | None
    """l=: bytes of the canonicalized body to hash; None is all of it."""


class BodyDigest(NamedTuple):
    """`digest` over the first `length` bytes asked for; `size` of the whole canonicalized body in
    bytes."""

    digest: bytes
    size: int


BodyDigests = Mapping[BodyHash, BodyDigest]


@quick_dataclass(frozen=True, slots=True)
class Envelope:
    """The SMTP side of one message. IPv4-mapped IPv6 clients are IPv4 here; scope ids are gone."""

    source_ip: IPAddress | None
    """None: not an IP client, or a trusted relay whose Received field could not be read."""
    helo: str
    """As given; undecodable bytes as surrogate escapes. Never printed raw."""
    mail_from: ReversePath
    rcpt_domains: tuple[Domain, ...] = ()
    """Distinct recipient domains in order; local parts are never kept."""
    rcpt_known: bool = True
    """False: there is a recipient whose domain is not among these."""
    queue_id: str = ""
    smtputf8: bool = False
    mta: Literal["", "sendmail", "postfix"] = ""
    """What the MTA says that it is; "" where it says nothing."""
    source_known: bool = True
    """False: relayed by one of our trusted relays and the real client could not be read
    (docs/design.md, trusted_relays)."""
    relayed: bool = False
    """It came through one of our trusted relays."""


@quick_dataclass(frozen=True, slots=True)
class Message:
    """What DKIM, ARC and DMARC judge."""

    headers: Headers
    author: Author
    body: BodyDigests = field(default_factory=dict)
