"""What the author's domain asks for: p, sp or np, lowered for t=y and where pct left the message
out, then softened by our own caution (RFC 9989 4.7 and 7.4, RFC 7489 6.6.4)."""

from __future__ import annotations

from dataclasses import replace

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DomainOutcome
from dmarc_milter.core.policy.verdict import (
    Disposition,
    LocalPolicy,
    OverrideReason,
    OverrideType,
    Verdict,
)


def published_verdict(outcome: DomainOutcome, policy: LocalPolicy, pct_draw: float) -> Verdict:
    """RFC 9989 4.7 (t) and RFC 7489 6.6.4 (pct: only where the record has no t). decided_by says
    what lowered the policy."""
    asked = outcome.unsure or outcome.policy
    verdict = Verdict(Disposition(asked.value), asked)
    record = outcome.known.record if outcome.known else None
    if record is None or asked is Policy.NONE:
        return verdict
    lower = Policy.QUARANTINE if asked is Policy.REJECT else Policy.NONE
    lowered = replace(verdict, disposition=Disposition(lower.value), policy=lower)
    if record.testing:
        return replace(
            lowered,
            reasons=(OverrideReason(OverrideType.POLICY_TEST_MODE, "t=y"),),
            decided_by=" in test mode (t=y)",
        )
    if (
        record.testing is None
        and record.pct is not None
        and policy.honor_pct
        and pct_draw >= record.pct
    ):
        comment = f"pct={record.pct}"
        reasons = (OverrideReason(OverrideType.SAMPLED_OUT, comment),)
        return replace(
            lowered, reasons=reasons, decided_by=f", which left this message out ({comment})"
        )
    return verdict


def cautious(verdict: Verdict, policy: LocalPolicy) -> Verdict:
    """RFC 9989 7.4: p=reject alone need not be reason enough."""
    if verdict.disposition is Disposition.REJECT and policy.reject_action == "quarantine":
        return replace(
            verdict.changed(Disposition.QUARANTINE, "reject_action=quarantine"),
            policy=Policy.QUARANTINE,
        )
    return verdict


def wish(outcome: DomainOutcome) -> str:
    """Who asks for what, in words."""
    where = outcome.known.policy_domain if outcome.known else outcome.author_domain
    tag = "np" if outcome.unsure else outcome.policy_tag
    return f"{where} asks for {tag}={outcome.unsure or outcome.policy}"
