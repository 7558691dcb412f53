"""Local policy: what is done with a message, given what DMARC, ARC and the administrator's rules
say."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import NamedTuple

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.mail.broken_encoded_words import BROKEN_WORD
from dmarc_milter.core.policy.deferral import deferral_of, is_worth_waiting
from dmarc_milter.core.policy.published import cautious, published_verdict, wish
from dmarc_milter.core.policy.rules import by_rules
from dmarc_milter.core.policy.verdict import (
    LIMIT,
    Context,
    Deferral,
    Disposition,
    LocalPolicy,
    OverrideReason,
    OverrideType,
    Rule,
    Verdict,
)

__all__ = [
    "LIMIT",
    "Context",
    "Deferral",
    "Disposition",
    "LocalPolicy",
    "OverrideReason",
    "OverrideType",
    "Rule",
    "Verdict",
    "decide",
]

ENFORCING = (Disposition.QUARANTINE, Disposition.REJECT)
STRICTNESS = (Disposition.NONE, Disposition.PASS, Disposition.QUARANTINE, Disposition.REJECT)
DNS_ERROR = OverrideReason(OverrideType.OTHER, "dns error")
TOO_MANY_LOOKUPS = OverrideReason(OverrideType.LOCAL_POLICY, "too many DNS queries")


def decide(
    dmarc: DmarcResult, context: Context, policy: LocalPolicy, *, pct_draw: float, today: date
) -> Verdict:
    """What is done with a message: the published policy, softened by t, pct and caution; then
    trusted ARC, local rules, monitor mode.

    `pct_draw` is uniform in [0, 100): a record's pct applies to samples below it (RFC 7489 6.6.4).
    Never raises.
    """
    published = (
        dmarc.outcome.policy
        if dmarc.outcome and dmarc.status is not DmarcStatus.NONE
        else Policy.NONE
    )
    draft = _written(_by_dmarc(dmarc, policy, pct_draw), dmarc, policy)
    verdict, firm = draft.verdict, draft.firm
    if context.arc_override and not dmarc.is_rewritten:
        verdict = _by_arc(verdict, context.arc_override, dmarc.status)
    ruled = by_rules(verdict, dmarc, context, policy, today)
    firm = firm and ruled.disposition is verdict.disposition
    verdict = ruled
    if context.shortage and verdict.disposition in ENFORCING and not verdict.over_limit:
        verdict = replace(
            verdict,
            disposition=Disposition.NONE,
            deferral=deferral_of(context.shortage),
            reasons=(),
        )
    if (verdict.deferral or verdict.over_limit) and context.relayed:
        verdict, firm = _not_kept_waiting(verdict), True
    if (
        verdict.disposition is Disposition.QUARANTINE
        and policy.quarantine_action == "reject"
        and not firm
    ):
        verdict = verdict.changed(Disposition.REJECT, "quarantine_action=reject")
    if verdict.disposition is Disposition.REJECT and not context.source_known:
        verdict = verdict.changed(
            Disposition.QUARANTINE, "source behind a trusted relay not readable"
        )
    if (
        verdict.reasons
        and verdict.disposition == published.value
        and not (dmarc.is_rewritten or verdict.over_limit)
    ):
        verdict = replace(verdict, reasons=())
    return verdict if policy.enforce else _monitored(verdict)


def _by_arc(verdict: Verdict, comment: str, status: DmarcStatus) -> Verdict:
    """RFC 8617 7.2.2: a trusted chain says that the message passed before."""
    because = "a trusted ARC chain says that the message passed before"
    if status is DmarcStatus.FAIL and verdict.disposition in ENFORCING:
        return verdict.changed(Disposition.NONE, comment, because)
    if status is DmarcStatus.TEMPERROR and (
        verdict.deferral or verdict.over_limit
    ):  # no answer could make a difference
        verdict = replace(verdict, disposition=Disposition.NONE, deferral=None, over_limit=False)
        return replace(verdict, reasons=(DNS_ERROR,), decided_by=f"{verdict.decided_by}; {because}")
    return verdict


def _monitored(verdict: Verdict) -> Verdict:
    """enforce = false: nothing is refused, deferred or quarantined; what would have been is
    kept."""
    would_be, would_wait = verdict.disposition, verdict.would_wait or verdict.deferral
    if would_be in ENFORCING:
        verdict = verdict.changed(Disposition.NONE, "monitor")
    elif verdict.deferral and verdict.policy is not Policy.NONE:
        verdict = replace(verdict, reasons=(DNS_ERROR,))
    return replace(verdict, deferral=None, would_be=would_be, would_wait=would_wait)


def _not_kept_waiting(verdict: Verdict) -> Verdict:
    """Mail from a trusted relay that was not judged is neither deferred nor refused: delivered
    marked, or quarantined where the policy is known or the message exceeds a limit by itself."""
    would_wait, would_be = verdict.deferral, verdict.disposition if verdict.over_limit else None
    if verdict.policy is not Policy.NONE or verdict.over_limit:
        verdict = verdict.changed(Disposition.QUARANTINE, "not judged, and by a trusted relay")
    return replace(verdict, deferral=None, would_wait=would_wait, would_be=would_be)


class _Draft(NamedTuple):
    """`firm`: quarantine is the most that may be done, even with quarantine_action = "reject"."""

    verdict: Verdict
    firm: bool = False


def _by_dmarc(dmarc: DmarcResult, policy: LocalPolicy, pct_draw: float) -> _Draft:
    """What the DMARC result asks for, before anything that is known only here."""
    outcome = dmarc.outcome
    if outcome is None:
        return _malformed(dmarc, policy, pct_draw)
    match outcome.status:
        case DmarcStatus.PASS:
            # RFC 9990 3.1.1.7: `pass` where the published policy would have done something
            done = Disposition.NONE if outcome.policy is Policy.NONE else Disposition.PASS
            return _Draft(Verdict(done, outcome.policy, decided_by="DMARC passed"))
        case DmarcStatus.FAIL:
            return _failed(outcome, policy, pct_draw)
        case DmarcStatus.TEMPERROR:
            return _Draft(_temperror(outcome, policy, pct_draw))
        case _:
            return _Draft(
                Verdict(Disposition.NONE, decided_by=f"DMARC does not apply: {outcome.reason}")
            )


def _written(draft: _Draft, dmarc: DmarcResult, policy: LocalPolicy) -> _Draft:
    """Quarantine, firmly, where the MTA writes an author into From who is not authenticated: after
    a pass any, else one whose policy asks for more than is done."""
    if draft.verdict.deferral or _rank(draft.verdict) >= STRICTNESS.index(Disposition.QUARANTINE):
        return draft
    passed = dmarc.outcome is not None and dmarc.outcome.status is DmarcStatus.PASS
    asks = any(
        outcome.policy is not Policy.NONE or outcome.status is DmarcStatus.TEMPERROR
        for outcome in dmarc.written
    )
    if not ((passed and dmarc.is_rewritten) or asks):
        return draft
    if policy.malformed_from == "accept" and not dmarc.outcome:
        return draft
    comment = "alias written into From by the MTA"
    verdict = draft.verdict.changed(Disposition.QUARANTINE, comment, _other_author(dmarc))
    return _Draft(verdict, firm=True)


def _other_author(dmarc: DmarcResult) -> str:
    names = ", ".join(outcome.author_domain.name for outcome in dmarc.written[:2])
    return (
        f"the MTA writes {names} into From, which is not authenticated"
        if names
        else "what the MTA writes into From is unknown"
    )


def _failed(outcome: DomainOutcome, policy: LocalPolicy, pct_draw: float) -> _Draft:
    """A failure: the published policy, one level lower for t=y or where pct left the message out,
    then our own caution."""
    verdict = published_verdict(outcome, policy, pct_draw)
    verdict = cautious(
        replace(verdict, decided_by=f"DMARC failed and {wish(outcome)}{verdict.decided_by}"),
        policy,
    )
    if (
        outcome.testing_key_only
        and verdict.disposition is Disposition.REJECT
        and policy.testing_key_action == "quarantine"
    ):
        why = "the only aligned pass is by a testing key"
        return _Draft(verdict.changed(Disposition.QUARANTINE, "testing key", why), firm=True)
    return _Draft(verdict)


def _temperror(outcome: DomainOutcome, policy: LocalPolicy, pct_draw: float) -> Verdict:
    """Neither pass nor fail: no policy can be applied (RFC 9989 5.3.6). Deferred where one is
    known, or as configured."""
    wanted = published_verdict(outcome, policy, pct_draw).policy
    because = f"DMARC could not be judged: {outcome.reason}"
    if is_worth_waiting(outcome, wanted, policy):
        if wanted is not Policy.NONE:
            because += f", and {wish(outcome)}"
        if outcome.missing and outcome.missing.kind == "limit":
            return _over_limit(wanted, because)
        return Verdict(
            Disposition.NONE, wanted, deferral=deferral_of(outcome.missing), decided_by=because
        )
    return Verdict(Disposition.NONE, wanted, (DNS_ERROR,), decided_by=because)


def _over_limit(wanted: Policy, because: str) -> Verdict:
    """A message that will be no better when it comes again."""
    return Verdict(
        Disposition.REJECT,
        wanted,
        (TOO_MANY_LOOKUPS,),
        decided_by=f"{because} ({LIMIT})",
        over_limit=True,
    )


def _malformed(dmarc: DmarcResult, policy: LocalPolicy, pct_draw: float) -> _Draft:
    """malformed_from (RFC 9989 11.5): by default the strictest failing policy of the domains that
    any reader could see."""
    comment = f"malformed From ({policy.malformed_from})"
    because = f"the From field is malformed ({dmarc.reason})"
    if (
        policy.malformed_from == "strictest"
        and not dmarc.more_candidates
        and any(map(_is_somebody, dmarc.candidates))
    ):
        return _strictest(dmarc, policy, pct_draw)
    if policy.malformed_from == "strictest" and dmarc.more_candidates:
        names = "hides whom it names" if dmarc.reason == BROKEN_WORD else "names too many domains"
        draft = Verdict(Disposition.REJECT, Policy.REJECT, decided_by=f"{because} and {names}")
        return _Draft(_explained(cautious(draft, policy), comment))
    done = {"accept": Disposition.NONE, "reject": Disposition.REJECT}.get(
        policy.malformed_from, Disposition.QUARANTINE
    )
    return _Draft(_explained(Verdict(done, decided_by=because), comment))


def _is_somebody(candidate: DomainOutcome) -> bool:
    """A single label that publishes nothing is no more than no domain at all."""
    return len(candidate.author_domain.labels) > 1 or candidate.status is not DmarcStatus.NONE


def _strictest(dmarc: DmarcResult, policy: LocalPolicy, pct_draw: float) -> _Draft:
    drafts = [
        _failed(outcome, policy, pct_draw)
        for outcome in dmarc.candidates
        if outcome.status is DmarcStatus.FAIL
    ]
    because = f"the From field is malformed ({dmarc.reason})"
    draft = max(
        drafts,
        key=lambda candidate: (_rank(candidate.verdict), not candidate.firm),
        default=_Draft(Verdict(Disposition.NONE)),
    )
    waiting = _waiting(dmarc, draft.verdict, policy, pct_draw)
    if waiting:
        return _Draft(_most_urgent(waiting, draft.verdict, because))
    strictest = draft.verdict.decided_by or "no domain in it fails DMARC"
    verdict = replace(draft.verdict, decided_by=f"{because}; strictest: {strictest}")
    return _Draft(_explained(verdict, "malformed From (strictest)"), draft.firm)


def _waiting(
    dmarc: DmarcResult, decided: Verdict, policy: LocalPolicy, pct_draw: float
) -> list[Verdict]:
    """What keeps the message waiting: domains that were not judged, and may be stricter than what
    is decided."""
    stricter = [
        outcome
        for outcome in dmarc.candidates
        if outcome.status is DmarcStatus.TEMPERROR
        and _rank(_at_worst(outcome, policy, pct_draw)) > _rank(decided)
    ]
    verdicts = [_temperror(outcome, policy, pct_draw) for outcome in stricter]
    return [verdict for verdict in verdicts if verdict.deferral or verdict.over_limit]


def _most_urgent(waiting: list[Verdict], decided: Verdict, because: str) -> Verdict:
    first = max(waiting, key=_urgency)
    wanted = max(
        (verdict.policy for verdict in (decided, *waiting)), key=lambda asked: asked.strictness
    )
    limit = f" ({LIMIT})" if first.over_limit else ""
    return replace(
        first,
        policy=wanted,
        decided_by=f"{because} and a policy in it could not be judged{limit}",
    )


def _urgency(verdict: Verdict) -> int:
    """Which of several reasons is given: what the message does itself, then what is our own fault,
    then the DNS."""
    return (
        2
        if verdict.over_limit
        else int(verdict.deferral is not None and verdict.deferral.reason != "dns")
    )


def _at_worst(outcome: DomainOutcome, policy: LocalPolicy, pct_draw: float) -> Verdict:
    """What may come of a domain that was not judged. A policy that could not be looked up may be
    any."""
    if outcome.published is None:
        return cautious(Verdict(Disposition.REJECT, Policy.REJECT), policy)
    return _failed(outcome, policy, pct_draw).verdict


def _rank(verdict: Verdict) -> int:
    return STRICTNESS.index(verdict.disposition)


def _explained(verdict: Verdict, comment: str) -> Verdict:
    return replace(
        verdict, reasons=(*verdict.reasons, OverrideReason(OverrideType.LOCAL_POLICY, comment))
    )
