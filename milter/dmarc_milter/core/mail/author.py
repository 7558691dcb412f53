"""The author of a message, from its From fields as an attacker may write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from dmarc_milter.core.mail import broken_encoded_words, lenient, lenient_lists, mailbox_list
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.mailbox_list import Tolerated
from dmarc_milter.core.mail.old_routes import old_routes
from dmarc_milter.core.quick_dataclass import quick_dataclass

MAX_CANDIDATES = 16
"""Names looked at under malformed_from = "strictest"; of how many organizations is the evaluation's
to say."""
MAX_REMEMBERED = 400
"""Bytes of a From value that is worth remembering."""
UNREAD = b"\0"
"""Stands for the value of a From field that was counted but not kept; no MTA hands over a NUL."""


@quick_dataclass(frozen=True, slots=True)
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


def author(from_fields: Sequence[bytes], pause: Callable[[], None] = lambda: None) -> Author:
    """The author of a message from the values of all its From fields (as received, folded, without
    the name). `pause` is called between fields: others may go on, for some are dear to read."""
    if len(from_fields) == 1 and len(from_fields[0]) <= MAX_REMEMBERED:
        return _usual(from_fields[0])
    return _author(from_fields, pause)


@lru_cache(maxsize=1024)
def _usual(value: bytes) -> Author:
    """The same senders write again and again."""
    return _author((value,))


def _author(from_fields: Sequence[bytes], pause: Callable[[], None] = lambda: None) -> Author:
    if not from_fields:
        return Author(None, "no From field")
    if (
        UNREAD in from_fields
    ):  # what it names is unknown, which must not be to the sender's advantage
        return replace(
            _malformed(
                "From field beyond the limits",
                [each for each in from_fields if each != UNREAD],
                pause,
            ),
            more=True,
        )
    if len(from_fields) > 1:
        return _malformed("several From fields", from_fields, pause)
    value = from_fields[0]
    mailboxes = mailbox_list.parse(value)
    if isinstance(mailboxes, Malformed):
        return _malformed(mailboxes.reason, from_fields)
    if mailboxes.tolerated:
        decoded = mailboxes.tolerated is Tolerated.NAME
        others = lenient.domains(from_fields, 1, decoded=decoded)
        if others != ((mailboxes.domain,), False) or (decoded and lenient.hides_an_at(value)):
            return _malformed("readable in several ways", from_fields)
    if lenient_lists.in_doubt(value, mailboxes.domain):
        return _malformed("readable in several ways", from_fields)
    return Author(mailboxes.domain)


def _malformed(
    reason: str, from_fields: Sequence[bytes], pause: Callable[[], None] = lambda: None
) -> Author:
    seen, more = lenient.domains(from_fields, MAX_CANDIDATES, loose=True, pause=pause)
    routes, too_many = old_routes(from_fields)
    candidates = tuple(dict.fromkeys((*seen, *routes)))
    more = more or too_many or len(candidates) > MAX_CANDIDATES
    if not more and broken_encoded_words.hide_somebody(from_fields):
        more, reason = True, broken_encoded_words.BROKEN_WORD
    return Author(None, reason, candidates[:MAX_CANDIDATES], more)
