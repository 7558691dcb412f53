"""What an ARC-Authentication-Results field says of SPF and DMARC, for those who trust its sealer.

The sealer is trusted, the text that it copied from the message is not. So a field is evidence only
where every reader reads the same: what contradicts itself, stands where no result or property can
stand, or is beyond what is read proves nothing (RFC 8617 7.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from dmarc_milter.core.authres.field import (
    KEYWORD,
    MAX_FIELD,
    Segment,
    UnreadableField,
    segments,
)
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed

MAILBOX = re.compile(r"""<(?:[^<>@\s"]*@)?([^<>@\s"]+)>|(?:[^<>@\s"]*@)?([^<>@\s"]+)""")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Empty text, or None, where the field says nothing or nothing sure."""

    dmarc: str = ""
    """The dmarc= word, lower case."""
    header_from: Domain | None = None
    remote_ip: str = ""
    """smtp.remote-ip in canonical text form."""
    spf: str = ""
    """The spf= word, lower case."""
    mail_from: Domain | None = None
    """The domain of smtp.mailfrom."""


def read(value: bytes) -> Evidence:
    """The field's evidence. Never raises."""
    if len(value) > MAX_FIELD:
        return Evidence()
    try:
        parts = segments(value.decode("utf-8", "replace"))
    except UnreadableField:
        return Evidence()
    return Evidence(
        dmarc=_word("dmarc", parts),
        header_from=_only(_authors(parts)),
        remote_ip=next(filter(None, map(_address, _values("smtp.remote-ip", parts))), ""),
        spf=_word("spf", parts),
        mail_from=_only(map(_sender, _values("smtp.mailfrom", parts))),
    )


def _name(key: str) -> str:
    """A method or property without a version, and as whoever forgives a full stop at its end reads
    it."""
    return key.partition("/")[0].rstrip(".")


def _values(name: str, parts: Iterable[Segment]) -> Iterator[str]:
    """All values of one property or method, wherever it stands."""
    for part in parts:
        for key, value in part.pairs:
            if _name(key) == name:
                yield value


def _word(method: str, parts: Sequence[Segment]) -> str:
    """The only result of that method. There is none where it does not begin its part."""
    words = {
        value.lower() if number == 0 and not part.leading else ""
        for part in parts
        for number, (key, value) in enumerate(part.pairs)
        if _name(key) == method
    }
    word = words.pop() if len(words) == 1 else ""
    return word if KEYWORD.fullmatch(word) else ""


def _authors(parts: Sequence[Segment]) -> Iterator[Domain | Malformed]:
    """header.from of every dmarc result, and wherever else it stands. Words that belong to nothing
    may belong to it."""
    for part in parts:
        found = [*map(_mailbox_domain, _values("header.from", (part,)))]
        yield from found
        of_dmarc = any(_name(key) == "dmarc" for key, _ in part.pairs)
        if (of_dmarc and not found) or ((of_dmarc or found) and part.stray):
            yield Malformed("no header.from that is sure")


def _only(names: Iterable[Domain | Malformed]) -> Domain | None:
    """The one name among them. What contradicts itself proves nothing."""
    distinct = set(names)
    name = distinct.pop() if len(distinct) == 1 else None
    return name if isinstance(name, Domain) else None


def _sender(mailbox: str) -> Domain | Malformed:
    return domain.parse(mailbox.strip("<>").rpartition("@")[2])


def _mailbox_domain(text: str) -> Domain | Malformed:
    """The domain of a header.from: a domain (RFC 8601 2.7.3), or the whole mailbox as a large
    sealer writes it, with or without <>."""
    match = MAILBOX.fullmatch(text)
    return domain.parse(match[1] or match[2]) if match else Malformed("no domain")


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
