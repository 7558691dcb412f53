"""What DMARC says about a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dmarc_milter.core.dmarc.record import AlignmentMode, Policy, Record
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Missing


class DmarcStatus(StrEnum):
    """RFC 9989 5.3, RFC 8601 2.7."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


DiscoveryMethod = Literal["treewalk", "psl"]


@dataclass(frozen=True, slots=True)
class PolicyPublished:
    """The policy record that applies, where it was found and how."""

    policy_domain: Domain
    record: Record
    discovery_method: DiscoveryMethod
    errors: tuple[str, ...] = ()
    """E.g. "multiple records at _dmarc.example.com", besides record.errors."""


@quick_dataclass(frozen=True, slots=True)
class Identifier:
    """An identifier that SPF or DKIM authenticated, or could not for want of DNS, against the
    author domain."""

    method: Literal["spf", "dkim"]
    domain: Domain
    status: str
    """The word of the SpfResult or DkimResult."""
    aligned: bool | None
    """None: a DNS failure left it open."""
    mode: AlignmentMode
    organizational_domain: Domain | None = None
    selector: str = ""
    note: str = ""
    """Why, for `check` and `why`; fixed vocabulary."""


@quick_dataclass(frozen=True, slots=True)
class DomainOutcome:
    """DMARC for one author domain."""

    status: DmarcStatus
    author_domain: Domain
    organizational_domain: Domain | None = None
    published: PolicyPublished | None = None
    policy: Policy = Policy.NONE
    """The policy that the record asks for this author domain (p, sp or np chosen; before t and
    pct)."""
    unsure: Policy | None = None
    """np, where it is stricter and whether the author domain exists was not found out: the policy
    may be this one."""
    policy_tag: Literal["", "p", "sp", "np"] = ""
    identifiers: tuple[Identifier, ...] = ()
    spf_aligned: bool = False
    """SPF gave an aligned pass: policy_evaluated/spf."""
    dkim_aligned: bool = False
    psl_organizational_domain: Domain | None = None
    """What the public suffix list would say, for the log where walk and list disagree."""
    testing_key_only: bool = False
    """The only aligned pass came from a key in testing (t=y): it does not count (docs/design.md,
    testing_key_action)."""
    missing: Missing | None = None
    """With temperror: the answer that left the verdict open, the gravest of several."""
    supposed: PolicyPublished | None = None
    """Where the search for the policy was left open: the policy with "no record" in place of each
    missing answer. `policy` and `policy_tag` are then what it asks for. For decisions; reports are
    about what is published."""
    guarded: tuple[Domain, ...] = ()
    """Public suffixes on the walk whose record without psd was taken as psd=y (psl_guard); for the
    log."""
    reason: str = ""
    trace: tuple[str, ...] = ()
    """Each step of discovery in order, one sentence each, for `check`, `why` and `domain`."""

    @property
    def known(self) -> PolicyPublished | None:
        """The record that answered and asks something of this author, as far as is known."""
        return self.published or self.supposed


@quick_dataclass(frozen=True, slots=True)
class DmarcResult:
    """`outcome` for a well-formed author; `candidates` for a malformed one (status is then
    permerror)."""

    status: DmarcStatus
    author_domain: Domain | None
    outcome: DomainOutcome | None = None
    candidates: tuple[DomainOutcome, ...] = ()
    more_candidates: bool = False
    """More domains than were looked at: treated as p=reject (docs/design.md)."""
    reason: str = ""
    written: tuple[DomainOutcome, ...] = ()
    """Names of other organizations, without a pass, that the MTA writes into From in the place of
    the author's (core/dmarc/rewritten_from.py)."""
    written_unknown: bool = False
    """What it writes there could not be found out."""
    written_missing: Missing | None = None
    """For want of which answer."""

    @property
    def is_rewritten(self) -> bool:
        """Whether the MTA writes, or may write, an author into From who is not authenticated."""
        return bool(self.written) or self.written_unknown
