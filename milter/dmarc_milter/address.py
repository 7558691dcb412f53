"""Mailboxes and paths as an attacker writes them: the one strict From parser, and SMTP paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmarc_milter.domain import Domain, Malformed

MAX_CANDIDATES = 4
"""Domains looked at under malformed_from = "strictest" (DESIGN.md, Decisions)."""


@dataclass(frozen=True, slots=True)
class Author:
    """What the From fields of a message say about its author (RFC 5322 3.6.2, RFC 9989 5.3.1, 11.5).

    Well-formed: `domain` set, `malformed` empty: every reading of the one From field gives this domain.
    Otherwise `domain` is None, `malformed` says why (fixed vocabulary), and `candidates` are the domains that any lenient
    reader could see, in order of appearance, at most MAX_CANDIDATES; `more` is true when there were more than that.
    """

    domain: Domain | None
    malformed: str = ""
    candidates: tuple[Domain, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class ReversePath:
    """MAIL FROM (RFC 5321 4.1.2). Null: both parts empty/None and `malformed` empty.

    `local_part` is the text as given (unquoted form kept as is), `domain` None when null, missing, an address literal
    or not a domain name; `malformed` then says why.
    """

    local_part: str = ""
    domain: Domain | None = None
    malformed: str = ""

    @property
    def is_null(self) -> bool:
        return self.domain is None and not self.malformed


def author(from_fields: Sequence[bytes]) -> Author:
    """The author of a message from the values of all its From fields (as received, folded, without the name)."""
    raise NotImplementedError


def reverse_path(argument: bytes) -> ReversePath:
    """MAIL FROM's argument, with or without angle brackets. Source routes are ignored (RFC 5321 appendix C)."""
    raise NotImplementedError


def path_domain(argument: bytes) -> Domain | Malformed:
    """The domain of a RCPT TO argument: only that is ever kept."""
    raise NotImplementedError
