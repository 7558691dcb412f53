"""What local policy is made of, and what it says about a message."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, NamedTuple

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.ip_address import IPAddress
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Missing


class Disposition(StrEnum):
    """What was actually done because of DMARC (RFC 9990: `pass` is a pass under an enforcing
    policy)."""

    NONE = "none"
    PASS = "pass"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class OverrideType(StrEnum):
    """Why the disposition is not the published policy: stored raw, rendered per report format."""

    LOCAL_POLICY = "local_policy"
    MAILING_LIST = "mailing_list"
    TRUSTED_FORWARDER = "trusted_forwarder"
    POLICY_TEST_MODE = "policy_test_mode"
    SAMPLED_OUT = "sampled_out"
    OTHER = "other"


class OverrideReason(NamedTuple):
    type: OverrideType
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[policy.rules]] entry: every condition that is given must hold (any of its values). At
    least one condition; names in `dkim`, `spf`, `ptr` are proven identities (at or below the given
    name), and so is that in `arc` (the given name itself)."""

    action: Literal["accept", "none", "quarantine", "reject", "tag"]
    comment: str = ""
    author_domains: tuple[Domain, ...] = ()
    include_subdomains: bool = True
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    dkim: tuple[Domain, ...] = ()
    spf: tuple[Domain, ...] = ()
    ptr: tuple[Domain, ...] = ()
    arc: tuple[Domain, ...] = ()
    recipient_domains: tuple[Domain, ...] = ()
    expires: date | None = None
    """The last day on which the rule holds."""
    reason: OverrideType = OverrideType.LOCAL_POLICY
    tag: str = ""


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """The [policy] section and its neighbours (docs/design.md, Configuration)."""

    enforce: bool = True
    quarantine_action: Literal["header", "hold", "reject"] = "header"
    reject_action: Literal["reject", "quarantine"] = "reject"
    malformed_from: Literal["strictest", "reject", "quarantine", "accept"] = "strictest"
    testing_key_action: Literal["quarantine", "reject"] = "quarantine"
    honor_pct: bool = True
    on_temperror: Literal["enforced", "accept", "tempfail"] = "enforced"
    on_error: Literal["tempfail", "accept"] = "tempfail"
    """What becomes of a message a part of which this program refuses to evaluate (Missing.kind
    "failure")."""
    trusted_arc_sealers: tuple[Domain, ...] = ()
    rules: tuple[Rule, ...] = ()


@quick_dataclass(frozen=True, slots=True)
class Context:
    """What local policy may know besides DMARC: facts of the envelope and identities that were
    proven."""

    source_ip: IPAddress | None = None
    source_known: bool = True
    """False: behind a trusted relay whose Received field could not be read; DMARC then quarantines
    at most."""
    relayed: bool = False
    """From one of trusted_relays: never deferred, or their queues would fill, and bounce in the
    end."""
    shortage: Missing | None = None
    """What the overload of this host kept from being looked up, although a rule or a trusted sealer
    might have let the message through by it."""
    recipient_domains: tuple[Domain, ...] = ()
    recipients_known: bool = True
    """False: some recipient has no domain that is known, so that nothing holds for all
    recipients."""
    dkim_domains: tuple[Domain, ...] = ()
    """d= of signatures that passed."""
    spf_domain: Domain | None = None
    """The domain that SPF passed."""
    names: tuple[str, ...] = ()
    """The client's names that resolve back to it, lower-case A-labels."""
    arc_sealers: tuple[Domain, ...] = ()
    """Sealers of a chain that passed, instance 1 first."""
    arc_override: str | None = None
    """The comment of RFC 8617 7.2.2 when trusted sealers saw a DMARC pass of the same author
    domain."""


LIMIT = "[limits] dns_queries"
"""The limit that one message may exceed by itself, as replies name it."""


class Deferral(NamedTuple):
    """Why a message is answered 451: the DNS of `name` did not answer, others took what we have, or
    we failed on this message."""

    reason: Literal["dns", "overloaded", "failure"]
    name: str = ""
    """The DNS name that failed, without trailing dot; "" where there is none. The sender may have
    chosen it."""


@quick_dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with the message. `deferral` excludes everything else: 451, and not counted for
    reports."""

    disposition: Disposition
    policy: Policy = Policy.NONE
    """The evaluated policy after t, pct and reject_action: policy.dmarc (RFC 9989 9.1)."""
    reasons: tuple[OverrideReason, ...] = ()
    deferral: Deferral | None = None
    tags: tuple[str, ...] = ()
    decided_by: str = ""
    """One sentence for the log, `check` and `why`: which rule decided."""
    would_be: Disposition | None = None
    """In monitor mode, and for mail from trusted relays that exceeds a limit: what would have been
    done."""
    would_wait: Deferral | None = None
    """In monitor mode, and for mail from trusted relays: why the message would have been
    deferred."""
    over_limit: bool = False
    """Refused because the message takes more look-ups than one may have ([limits] dns_queries),
    whatever the policy."""

    @property
    def tempfail(self) -> bool:
        """Whether the message is answered 451."""
        return self.deferral is not None

    @property
    def would_have(self) -> str:
        """In a word what would have been done: of `would_be`, or "tempfail"; "" where it was
        done."""
        return "tempfail" if self.would_wait else self.would_be or ""

    def changed(self, disposition: Disposition, comment: str, why: str = "") -> Verdict:
        """Local policy does something else. The clause in decided_by grows by `why`, or else by the
        comment."""
        reason = OverrideReason(OverrideType.LOCAL_POLICY, comment)
        return replace(
            self,
            disposition=disposition,
            deferral=None,
            over_limit=False,
            reasons=(*self.reasons, reason),
            decided_by=f"{self.decided_by}; {why or comment}",
        )
