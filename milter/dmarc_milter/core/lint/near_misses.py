"""TXT records that were meant as DMARC records and are none: what is wrong with each (RFC 9989
4.7)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.dmarc.record import MAX_RECORD, parse
from dmarc_milter.core.mail import domain as domains
from dmarc_milter.core.mail.domain import Domain, is_special_use
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Resolver
from dmarc_milter.core.text import printable

SHOWN = 120
"""Characters of a record."""
REASONS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (
            rb"[\"'][ \t]*v[ \t]*=[ \t]*dmarc",
            "the quotation marks around it belong into the zone file, not into the value",
        ),
        (rb"v[ \t]*=[ \t]*dmarc1[ \t]*\\", "the backslash belongs into the zone file, not here"),
        (rb"v[ \t]*=[ \t]*(?-i:DMARC1)[ \t]*,", "behind v=DMARC1 a comma stands for the semicolon"),
        (rb"v[ \t]*=[ \t]*(?-i:DMARC1)[ \t:]", "behind v=DMARC1 the semicolon is missing"),
        (rb"v[ \t]*=[ \t]*dmarc1[ \t]*(?:;|$)", "v=DMARC1 must be written in capitals"),
        (rb"v[ \t]*=[ \t]*dmarc[^;]*", "the only version is v=DMARC1"),
        (rb"v[ \t]*[:-][ \t]*dmarc", "`=` is missing behind v"),
        (rb".*[; \t]v[ \t]*=[ \t]*dmarc1", "v=DMARC1 must stand first"),
        (
            rb"(?:p|sp|policy)[ \t]*=[ \t]*(?:none|quar|rej)|rua[ \t]*=[ \t]*mailto",
            "v=DMARC1; is missing at its beginning",
        ),
        (rb"dmarc1?[ \t]*[:;,= ]|.*dmarc1", "it does not begin with v=DMARC1;"),
    )
)
FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (rb"[\"']?v[ \t]*=[ \t]*spf1", "an SPF record, which belongs at the domain itself"),
        (rb"[\"']?v[ \t]*=[ \t]*dkim1", "a DKIM key, which belongs at SELECTOR._domainkey"),
    )
)
"""Often a wildcard's (`*.example.com TXT "v=spf1 -all"`), which answers for every name below it
(RFC 4592 2.1.1): sound as it is."""


def at(name: Domain, resolver: Resolver, *, has_policy: bool) -> Iterator[Finding]:
    """Those where a record is looked for. With a policy, wherever it was found, nothing is said of
    what is no attempt at one."""
    if is_special_use(name.name):
        return
    for text in _texts(f"_dmarc.{name}", resolver):
        if parse(text) is not None:
            continue
        said = f'a TXT record of _dmarc.{name} is "{printable(text[:SHOWN].decode("latin-1"))}":'
        if foreign := _of(text.lstrip(), FOREIGN):
            if not has_policy:
                yield Finding("note", "record", f"{said} it is {foreign}, or a wildcard's")
        elif reason := _reason(text):
            yield Finding("error", "record", f"{said} {reason}; receivers ignore it")


def elsewhere(name: Domain, resolver: Resolver) -> Iterator[Finding]:
    """Those one step beside the place: at the domain itself, or with the zone's name twice."""
    if is_special_use(name.name):
        return
    for place in (name.name, f"_dmarc.{name}.{name}", f"dmarc.{name}"):
        if isinstance(domains.parse(place.removeprefix("_dmarc.")), Domain) and any(
            parse(text) is not None for text in _texts(place, resolver)
        ):
            text = f"{place} has a DMARC record, which belongs at _dmarc.{name}: nobody finds it"
            yield Finding("error", "record", text)


def _texts(name: str, resolver: Resolver) -> tuple[bytes, ...]:
    try:
        return tuple(resolver.txt(name))
    except (NoAnswer, LookupFailed):
        return ()


def _reason(text: bytes) -> str:
    if len(text) > MAX_RECORD:
        return "it is longer than 4 KiB" if b"dmarc1" in text[:MAX_RECORD].lower() else ""
    start = text.lstrip()
    if start != text and parse(start) is not None:
        return "white space stands before v=DMARC1"
    return _of(start, REASONS)


def _of(text: bytes, known: tuple[tuple[re.Pattern[bytes], str], ...]) -> str:
    return next((reason for pattern, reason in known if pattern.match(text)), "")
