"""Mailboxes and paths as an attacker writes them: the one strict From parser, and SMTP paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from dmarc_milter.core.mail import lenient, lenient_lists, mailbox_list
from dmarc_milter.core.mail.domain import Domain, Malformed, parse
from dmarc_milter.core.mail.mailbox_list import Tolerated

MAX_CANDIDATES = 16
"""Names looked at under malformed_from = "strictest"; of how many organizations is the evaluation's
to say."""
MAX_REMEMBERED = 400
"""Octets of a From value that is worth remembering."""
UNREAD = b"\0"
"""Stands for the value of a From field that was counted but not kept; no MTA hands over a NUL."""
MAX_PATH = 4096
"""Octets of a path that are looked at; RFC 5321 4.5.3.1.3 gives it 256."""


@dataclass(frozen=True, slots=True)
class Author:
    """What the From fields of a message say about its author (RFC 5322 3.6.2, RFC 9989 5.3.1,
    11.5).

    Well-formed: `domain` set, `malformed` empty: every reading of the one From field gives this
    domain, though a display name or a comment beside the address may hold others. Otherwise
    `domain` is None, `malformed` says why (fixed vocabulary), and `candidates` are the domains that
    any lenient reader could see, in order of appearance, at most MAX_CANDIDATES; `more` is true
    when there were, or may be, more than that.
    """

    domain: Domain | None
    malformed: str = ""
    candidates: tuple[Domain, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class ReversePath:
    """MAIL FROM (RFC 5321 4.1.2). Null: both parts empty/None and `malformed` empty.

    `local_part` is the text as given (unquoted form kept as is; undecodable octets as surrogate
    escapes), "" when missing. `domain` is None when null, missing, an address literal or not a
    domain name; `malformed` then says why.
    """

    local_part: str = ""
    domain: Domain | None = None
    malformed: str = ""

    @property
    def is_null(self) -> bool:
        return self.domain is None and not self.malformed


def author(from_fields: Sequence[bytes]) -> Author:
    """The author of a message from the values of all its From fields (as received, folded, without
    the name)."""
    if len(from_fields) == 1 and len(from_fields[0]) <= MAX_REMEMBERED:
        return _usual(from_fields[0])
    return _author(from_fields)


@lru_cache(maxsize=1024)
def _usual(value: bytes) -> Author:
    """The same senders write again and again."""
    return _author((value,))


def _author(from_fields: Sequence[bytes]) -> Author:
    if not from_fields:
        return Author(None, "no From field")
    if (
        UNREAD in from_fields
    ):  # what it names is unknown, which must not be to the sender's advantage
        return replace(
            _malformed(
                "From field beyond the limits", [each for each in from_fields if each != UNREAD]
            ),
            more=True,
        )
    if len(from_fields) > 1:
        return _malformed("several From fields", from_fields)
    value = from_fields[0]
    found = mailbox_list.parse(value)
    if isinstance(found, Malformed):
        return _malformed(found.reason, from_fields)
    if found.tolerated:
        decoded = found.tolerated is Tolerated.NAME
        others = lenient.domains(from_fields, 1, decoded=decoded)
        if others != ((found.domain,), False) or (decoded and lenient.hides_an_at(value)):
            return _malformed("readable in several ways", from_fields)
    if lenient_lists.in_doubt(value, found.domain):
        return _malformed("readable in several ways", from_fields)
    return Author(found.domain)


def reverse_path(argument: bytes) -> ReversePath:
    """MAIL FROM's argument, with or without angle brackets. Source routes are ignored (RFC 5321
    appendix C)."""
    try:
        local_part, domain = _split_path(argument)
    except _NotAPath as error:
        return ReversePath("", None, error.reason)
    if not local_part and not domain:
        return ReversePath()
    text = local_part.decode("utf-8", "surrogateescape")
    found = parse(domain)
    return (
        ReversePath(text, None, found.reason)
        if isinstance(found, Malformed)
        else ReversePath(text, found)
    )


ROUTING = frozenset(b"%!@")
"""In an unquoted or quoted local part these may send the mail on to another domain (sendmail's and
Postfix's old habits)."""


def recipient_domain(argument: bytes) -> Domain | Malformed:
    """The domain that a RCPT TO argument's mail surely goes to. Malformed too for a source route
    and for `user%other@domain`."""
    if argument.lstrip(b" \t<").startswith(b"@"):
        return Malformed("source route")
    try:
        local, domain = _split_path(argument)
    except _NotAPath as error:
        return Malformed(error.reason)
    return Malformed("routing in the local part") if ROUTING.intersection(local) else parse(domain)


class _NotAPath(Exception):
    """Inside this module only: the text left the grammar, for this reason of the fixed
    vocabulary."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _malformed(reason: str, from_fields: Sequence[bytes]) -> Author:
    found, more = lenient.domains(from_fields, MAX_CANDIDATES, loose=True)
    candidates = tuple(dict.fromkeys((*found, *lenient.old_routes(from_fields))))
    return Author(
        None, reason, candidates[:MAX_CANDIDATES], more or len(candidates) > MAX_CANDIDATES
    )


CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# Either one octet outside quotes, or a whole quoted-string. Possessive, so a missing end quote
# costs one scan and then fails.
PATH_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^"]', re.DOTALL)


def _split_path(argument: bytes) -> tuple[bytes, bytes]:
    """Local part, which may be missing (RFC 7208 4.3), and domain around the last unquoted @; both
    empty for the null path.

    Raises _NotStrict.
    """
    if len(argument) > MAX_PATH:
        raise _NotAPath("path too long")
    path = argument.strip(b" \t\r\n")
    if path.startswith(b"<") != path.endswith(b">"):
        raise _NotAPath("unbalanced angle brackets")
    if path.startswith(b"<"):
        path = path[1:-1].strip(b" ")
    if not path:
        return b"", b""
    if CONTROL.search(path):
        raise _NotAPath("control character")
    if path.startswith(b"@"):
        # A-d-l ":" : the route is accepted and ignored (RFC 5321 4.1.1.3, appendix C)
        _, colon, mailbox = path.partition(b":")
        path = mailbox if colon else path
    at = _last_unquoted_at(path)
    if at < 0:
        raise _NotAPath("no domain")
    if path == b"@" or (at > 0 and path.startswith(b"@")):
        raise _NotAPath("no mailbox")
    return path[:at], path[at + 1 :]


def _last_unquoted_at(path: bytes) -> int:
    """Where the last @ outside quoted strings stands; -1 if nowhere. Raises _NotStrict when a quote
    is left open."""
    if b'"' not in path:
        return path.rfind(b"@")
    position, found = 0, -1
    while position < len(path):
        piece = PATH_PIECE.match(path, position)
        if piece is None:
            raise _NotAPath("open quotation")
        if piece.group() == b"@":
            found = position
        position = piece.end()
    return found
