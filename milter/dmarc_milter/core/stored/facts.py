"""The facts of one message that outlive it: what reports, `why`, `impact` and the totals are made
from, and nothing that they do not need.

Raw facts, not the words of one report format: RFC 9990 and RFC 7489 Appendix C are rendered from
them when a report is built. No Subject, no display name, no recipient's local part. Every string is
printable ASCII and bounded, whatever the sender wrote.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dmarc_milter.core.dmarc.result import DmarcStatus

VERSION = 1
"""Of the encoding: a reader refuses a greater one, and reads every smaller one."""


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the facts. Fields may be added with a default, never renamed: stored rows are older
    than the code."""


class SpfFact(Fact, frozen=True, omit_defaults=True):
    """auth_results/spf. `domain` is "" where there was no name to check."""

    result: str
    domain: str = ""
    scope: Literal["mfrom", "helo"] = "mfrom"
    reason: str = ""
    mechanism: str = ""
    literal: str = ""
    """The address literal that stood where a name should (canonical, RFC 5321 4.1.3), or ""."""


class DkimFact(Fact, frozen=True, omit_defaults=True):
    """auth_results/dkim: one signature. `aligned` is "" where it does not align or did not pass.

    `unsigned`: header fields that a reader sees, lower case, of which the signature leaves at least
    one uncovered (RFC 6376 8.15).
    """

    result: str
    domain: str = ""
    selector: str = ""
    reason: str = ""
    aligned: Literal["", "strict", "relaxed"] = ""
    algorithm: str = ""
    key_bits: int = 0
    unsigned: tuple[str, ...] = ()


class StoredReason(Fact, frozen=True, omit_defaults=True):
    """Why the disposition is not the published policy: disposition.OverrideType and a comment."""

    type: str
    comment: str = ""


class StoredUri(Fact, frozen=True, omit_defaults=True):
    """One rua or ruf address; `max_size` in bytes is RFC 7489's !size."""

    address: str
    max_size: int | None = None


class StoredPolicy(Fact, frozen=True, omit_defaults=True):
    """The policy configuration: every tag of the record as it was read, and where and how it was
    found."""

    policy_domain: str
    p: str = ""
    sp: str = ""
    np: str = ""
    adkim: str = "r"
    aspf: str = "r"
    testing: bool | None = None
    psd: str = "u"
    pct: int | None = None
    fo: str = "0"
    rua: tuple[StoredUri, ...] = ()
    ruf: tuple[StoredUri, ...] = ()
    ri: int | None = None
    invalid_policy: bool = False
    discovery_method: Literal["treewalk", "psl"] = "treewalk"
    errors: tuple[str, ...] = ()
    text: str = ""


class StoredOutcome(Fact, frozen=True, omit_defaults=True):
    """DMARC for one author domain: of the message, or of one candidate of a malformed From."""

    author_domain: str
    status: str
    policy: str = "none"
    policy_tag: Literal["", "p", "sp", "np"] = ""
    organizational_domain: str = ""
    psl_organizational_domain: str = ""
    spf_aligned: bool = False
    dkim_aligned: bool = False
    testing_key_only: bool = False
    published: StoredPolicy | None = None
    reason: str = ""
    trace: tuple[str, ...] = ()


class ArcFact(Fact, frozen=True, omit_defaults=True):
    """The ARC chain: its status and who sealed it, oldest first."""

    status: str
    sealers: tuple[str, ...] = ()
    reason: str = ""


class StaleFact(Fact, frozen=True, omit_defaults=True):
    """An answer of the DNS that was used past its time, `seconds` after it was given (RFC 8767)."""

    name: str
    seconds: int = 0


class Facts(Fact, frozen=True, omit_defaults=True, kw_only=True):
    """One delivery attempt. `at` is in seconds since 1970 (UTC)."""

    version: int = VERSION
    id: str
    at: float
    counted: bool = True
    """False: answered 4xx, so it will come again; in the decision log, never in a report."""
    queue_id: str = ""
    message_id: str = ""
    source_ip: str = ""
    """"" when there is none to name."""
    source_known: bool = True
    helo: str = ""
    envelope_from: str | None = None
    """"" for the null sender, None where the path had no domain name."""
    envelope_to: tuple[str, ...] = ()
    """The recipients' domains, distinct."""
    status: str = "none"
    """The dmarc= word."""
    reason: str = ""
    malformed_from: str = ""
    outcome: StoredOutcome | None = None
    candidates: tuple[StoredOutcome, ...] = ()
    disposition: str = "none"
    policy: str = "none"
    """After t, pct and reject_action (policy.dmarc)."""
    would_be: str = ""
    """Monitor mode: what enforcement would have done; otherwise ""."""
    deferral: str = ""
    """Why it was answered 451, or would have been: dns, overloaded or failure
    (deferrals.DEFERRALS); "" otherwise."""
    failing_name: str = ""
    """The DNS name that it waits for, or ""."""
    reasons: tuple[StoredReason, ...] = ()
    decided_by: str = ""
    tags: tuple[str, ...] = ()
    spf: SpfFact | None = None
    dkim: tuple[DkimFact, ...] = ()
    arc: ArcFact | None = None
    iprev: str = ""
    names: tuple[str, ...] = ()
    """The client's names that resolve back to it (only where they were looked up)."""
    auto_submitted: bool = False
    is_dsn: bool = False
    is_report: bool = False
    to_reporting: bool = False
    from_reporting: bool = False
    list_id: str = ""
    stale: tuple[StaleFact, ...] = ()
    """Answers of the DNS used past their time because the DNS failed."""

    @property
    def author_domain(self) -> str:
        """The From domain; of a malformed From the first that could be seen; "" when none could."""
        if self.outcome is not None:
            return self.outcome.author_domain
        return self.candidates[0].author_domain if self.candidates else ""

    @property
    def policy_domain(self) -> str:
        """Where the policy that applied was found, or ""."""
        published = self.outcome.published if self.outcome else None
        return published.policy_domain if published else ""


def is_pass(facts: Facts) -> bool:
    """Whether DMARC passed."""
    return facts.status == DmarcStatus.PASS
