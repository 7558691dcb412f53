"""What a chain and its judgement are (RFC 8617)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Missing


class ArcStatus(StrEnum):
    """RFC 8617 4.4."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ArcHop:
    """One set of the chain. The results are what its ARC-Authentication-Results says, read
    tolerantly; evidence, not truth."""

    instance: int
    sealer: Domain
    selector: str
    aar_dmarc: str = ""
    """The dmarc= word, lower case, or "" """
    aar_header_from: Domain | None = None
    aar_remote_ip: str = ""
    """smtp.remote-ip in canonical text form, or "" """
    aar_spf: str = ""
    """The spf= word, lower case, or "" """
    aar_mail_from: Domain | None = None
    """The domain of its smtp.mailfrom."""


@quick_dataclass(frozen=True, slots=True)
class ArcResult:
    status: ArcStatus
    hops: tuple[ArcHop, ...] = ()
    """Instance 1 first; only filled when status is pass."""
    oldest_pass: int | None = None
    """RFC 8617 5.2 (5): 0 if every ARC-Message-Signature verifies; None when not determined."""
    reason: str = ""
    missing: Missing | None = None
    """With fail: an answer that could not be had, if that was among the reasons."""
