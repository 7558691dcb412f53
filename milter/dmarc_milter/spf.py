"""SPF (RFC 7208) by pyspf, fed with our resolver and fenced against its defects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dmarc_milter.domain import Domain
from dmarc_milter.lookup import Resolver
from dmarc_milter.message import Envelope


class SpfStatus(StrEnum):
    """RFC 7208 2.6; POLICY is RFC 8601 2.7.2's: a pass that local policy does not let count."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class SpfResult:
    """`domain` is what was checked: MAIL FROM's, or with a null reverse-path HELO's (RFC 7208 2.4); None if neither is a name."""

    status: SpfStatus
    domain: Domain | None
    identity: Literal["mailfrom", "helo"] = "mailfrom"
    reason: str = ""
    """Fixed vocabulary; for the log and `check`."""
    mechanism: str = ""
    """The mechanism that matched, e.g. "ip4:192.0.2.0/24" (printable ASCII, at most 200 octets); for `check`."""
    record: str = ""
    """The record at `domain` (printable ASCII or ""), for failure reports' SPF-DNS and `check`."""
    lookups: int = 0
    permissive: bool = False
    """The pass came from +all or an enormous range (SECURITY-CASES BSP-01)."""

    @property
    def usable(self) -> bool:
        """Whether this gives DMARC an authenticated identifier."""
        return self.status is SpfStatus.PASS and self.domain is not None


@dataclass(frozen=True, slots=True)
class SpfOptions:
    """Limits of RFC 7208 4.6.4 and SECURITY-CASES section 13."""

    seconds: float = 20.0
    max_record: int = 4096
    max_term: int = 512
    max_address_lookups: int = 100
    void_lookups: int = 2
    permissive_prefix4: int = 8
    permissive_prefix6: int = 16
    permissive_counts: bool = True
    """False: a permissive pass becomes SpfStatus.POLICY and does not count for DMARC."""


def check(envelope: Envelope, resolver: Resolver, options: SpfOptions = SpfOptions()) -> SpfResult:
    """SPF of MAIL FROM, or of postmaster@HELO for the null sender. Never raises."""
    raise NotImplementedError
