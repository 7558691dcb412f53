"""What was found about one DKIM signature."""

from __future__ import annotations

from enum import StrEnum

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Missing


class DkimStatus(StrEnum):
    """RFC 8601 2.7.1; which is used when: docs/design.md, Decisions. `none` is an empty tuple of
    results."""

    PASS = "pass"
    FAIL = "fail"
    POLICY = "policy"
    PERMERROR = "permerror"
    TEMPERROR = "temperror"


@quick_dataclass(frozen=True, slots=True)
class DkimResult:
    """One DKIM-Signature field, judged. Domains and selector are None/"" when the tag is missing or
    not valid."""

    status: DkimStatus
    domain: Domain | None
    """d="""
    selector: str = ""
    """s=, valid by its ABNF, A-labels, lower case."""
    algorithm: str = ""
    """a=, one of the registered names or "" """
    identifier: str = ""
    """The domain of i= (A-labels) or ""; the local part is never kept."""
    signature: str = ""
    """b= without white space, base64 only: header.b takes its first octets (RFC 6008)."""
    reason: str = ""
    """Fixed vocabulary (never the sender's bytes), e.g. "body hash differs", "l= leaves 120
    octets"."""
    testing: bool = False
    """t=y on the key and the signature verified: a pass but for that."""
    hopeless: bool = False
    """No key was found or could be asked for (temperror), and none could have made it count, for
    what it leaves unsigned."""
    missing: Missing | None = None
    """With temperror: the answer that could not be had."""
    key_bits: int = 0
    unsigned_headers: tuple[str, ...] = ()
    """Of Subject, Date, To, Content-Type...: present in the message and not covered (RFC 6376
    8.15); for `check` and `why`."""

    @property
    def usable(self) -> bool:
        """Whether this gives DMARC an authenticated identifier."""
        return self.status is DkimStatus.PASS and self.domain is not None
