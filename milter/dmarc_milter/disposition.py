"""Local policy: what is done with a message, given what DMARC, ARC and the administrator's rules say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, NamedTuple

from dmarc_milter.dmarc.record import Policy
from dmarc_milter.domain import Domain


class Disposition(StrEnum):
    """What was actually done because of DMARC (RFC 9990: `pass` is a pass under an enforcing policy)."""

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
    """One [[policy.rules]] entry: every condition that is given must hold (any of its values). At least one condition;
    names in `dkim`, `spf`, `ptr`, `arc` are proven identities (at or below the given name)."""

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
    reason: OverrideType = OverrideType.LOCAL_POLICY
    tag: str = ""


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """The [policy] section and its neighbours (DESIGN.md, Configuration)."""

    enforce: bool = True
    quarantine_action: Literal["header", "hold", "reject"] = "header"
    reject_action: Literal["reject", "quarantine"] = "reject"
    malformed_from: Literal["strictest", "reject", "quarantine", "accept"] = "strictest"
    testing_key_action: Literal["quarantine", "reject"] = "quarantine"
    honor_pct: bool = True
    on_temperror: Literal["accept", "tempfail"] = "accept"
    trusted_arc_sealers: tuple[Domain, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with the message. `tempfail` excludes everything else: 451, and not counted for reports."""

    disposition: Disposition
    policy: Policy = Policy.NONE
    """The evaluated policy after t, pct and reject_action: policy.dmarc (RFC 9989 9.1)."""
    reasons: tuple[OverrideReason, ...] = ()
    tempfail: bool = False
    tags: tuple[str, ...] = ()
    sampled_out: bool = False
    decided_by: str = ""
    """One sentence for the log, `check` and `why`: which rule decided."""
    would_be: Disposition | None = None
    """In monitor mode: what enforcement would have done."""
