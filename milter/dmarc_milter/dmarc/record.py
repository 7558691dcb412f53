"""The DMARC policy record: RFC 9989 4.7, 4.8, and the RFC 7489 tags that published records still use."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Policy(StrEnum):
    """p=, sp=, np=. Ordered by strictness through `strictness`."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def strictness(self) -> int:
        return ("none", "quarantine", "reject").index(self.value)


class AlignmentMode(StrEnum):
    RELAXED = "r"
    STRICT = "s"


class ReportUri(NamedTuple):
    """One address of rua= or ruf=: only mailto, percent-decoded, dot-atom@domain (SPEC B.5, SECURITY-CASES RPT-03)."""

    address: str
    max_size: int | None = None
    """Octets (!size of RFC 7489); None is no limit."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record that starts with v=DMARC1. None for p, sp, np: absent or not valid (`errors` tells which)."""

    text: str
    """The record as published, printable ASCII (other octets as ?), at most 4 KiB."""
    p: Policy | None = None
    sp: Policy | None = None
    np: Policy | None = None
    adkim: AlignmentMode = AlignmentMode.RELAXED
    aspf: AlignmentMode = AlignmentMode.RELAXED
    testing: bool | None = None
    """t=; None when absent."""
    psd: str = "u"
    pct: int | None = None
    """None when absent or not valid."""
    fo: str = "0"
    rua: tuple[ReportUri, ...] = ()
    ruf: tuple[ReportUri, ...] = ()
    ri: int | None = None
    invalid_policy: bool = False
    """A valid p is missing, or sp or np is there and not valid: RFC 9989 4.10.1 (none if rua has a valid URI, else no DMARC)."""
    errors: tuple[str, ...] = field(default=())
    """What is wrong with it, in a fixed vocabulary; for reports' error element and `domain`."""
