"""Whether a message that could not be judged is deferred, and what the sender is told
(on_temperror)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DomainOutcome
from dmarc_milter.core.policy.verdict import Deferral, LocalPolicy
from dmarc_milter.core.resolver import Missing


def is_worth_waiting(outcome: DomainOutcome, wanted: Policy, policy: LocalPolicy) -> bool:
    """Whether a message that was not judged is deferred (on_temperror), or refused where it exceeds
    a limit by itself. `wanted`: what is known of the policy, after t and pct.

    Only a record that answered makes a sender wait for a DNS that does not: a domain whose `_dmarc`
    never answers must not lose mail. What this message or others used up never improves a verdict.
    """
    if outcome.published is not None and wanted is Policy.NONE:
        return False
    kind = outcome.missing.kind if outcome.missing else "dns"
    if kind in ("shortage", "limit", "time"):
        return True
    if kind == "failure":
        return policy.on_error == "tempfail"
    return policy.on_temperror == "tempfail" or (
        policy.on_temperror == "enforced" and wanted is not Policy.NONE
    )


REASONS: Mapping[str, Literal["dns", "overloaded", "failure"]] = {
    "dns": "dns",
    "time": "dns",
    "shortage": "overloaded",
}


def deferral_of(missing: Missing | None) -> Deferral:
    """The reason in the reply. Where the time was over the DNS is slow, whosever it
    is."""
    return (
        Deferral("dns")
        if missing is None
        else Deferral(REASONS.get(missing.kind, "failure"), missing.name)
    )
