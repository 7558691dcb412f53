"""A message as the session hands it to the core, made from its octets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from dmarc_milter.core import arc, dkim
from dmarc_milter.core.arc import ArcOptions, ArcResult
from dmarc_milter.core.dkim import BodyHasher, DkimOptions, DkimResult
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import BodyDigests, BodyHash, Headers, Message
from dmarc_milter.core.resolver import Resolver
from fakes.signer import SIGNED_AT, header_fields

NOW = datetime.fromtimestamp(SIGNED_AT + 60, UTC)


def digests(body: bytes, requests: Iterable[BodyHash], chunk: int = 0) -> BodyDigests:
    """The body's digests, fed `chunk` octets at a time (0: all at once)."""
    hasher = BodyHasher(requests)
    for start in range(0, len(body), chunk or len(body) or 1):
        hasher.update(body[start : start + (chunk or len(body))])
    return hasher.finish()


def checked(
    raw: bytes,
    resolver: Resolver,
    *,
    authors: Sequence[str] = ("legit.example",),
    options: DkimOptions = DkimOptions(),
    now: datetime = NOW,
    truncated: bool = False,
) -> tuple[DkimResult, ...]:
    """What DKIM says of the message `raw` (CRLF line ends)."""
    fields, body = header_fields(raw)
    headers = Headers(fields, truncated=truncated)
    plan = dkim.prepare(headers, [Domain(name) for name in authors], options)
    message = Message(headers, Author(Domain(authors[0])), digests(body, plan.body_hashes))
    return dkim.verify(message, plan, resolver, options, now=now)


def chain(
    raw: bytes,
    resolver: Resolver,
    *,
    options: ArcOptions = ArcOptions(),
    now: datetime = NOW,
    truncated: bool = False,
) -> ArcResult:
    """What ARC says of the message `raw` (CRLF line ends)."""
    fields, body = header_fields(raw)
    headers = Headers(fields, truncated=truncated)
    plan = arc.prepare(headers, options)
    message = Message(headers, Author(Domain("legit.example")), digests(body, plan.body_hashes))
    return arc.validate(message, plan, resolver, options, now=now)
