"""The log lines of one message: stable names (docs: reference, log), nothing of the sender's
unvalidated."""

from __future__ import annotations

from collections.abc import Sequence

from dmarc_milter.core.actions.plan import Action, Reply
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.explain import explain
from dmarc_milter.core.stored import from_evaluation
from dmarc_milter.telemetry.log import Value

MAX_SIGNERS = 4
MAX_STALE = 4


def fields_of(evaluation: Evaluation, actions: Sequence[Action]) -> dict[str, Value]:
    """What is logged, most important first: the line is cut at its end."""
    envelope, dmarc, verdict = evaluation.envelope, evaluation.dmarc, evaluation.verdict
    waits = verdict.deferral or verdict.would_wait
    outcome = dmarc.outcome
    published = outcome.published if outcome else None
    reply = next((each for each in actions if isinstance(each, Reply)), None)
    dkim = [
        f"{each.status}({each.domain})" if each.domain else f"{each.status}"
        for each in evaluation.dkim[:MAX_SIGNERS]
    ]
    return {
        "id": envelope.queue_id or evaluation.id,
        "dmarc": dmarc.status,
        "from": str(dmarc.author_domain or ""),
        "disposition": "tempfail" if verdict.tempfail else verdict.disposition,
        "policy": verdict.policy,
        "policy_domain": str(published.policy_domain) if published else "",
        "source": str(envelope.source_ip or ""),
        "spf": evaluation.spf.status,
        "spf_domain": str(evaluation.spf.domain or ""),
        "dkim": ",".join(dkim) or "none",
        "arc": evaluation.arc.status if evaluation.arc else "",
        "reasons": ",".join(each.type for each in verdict.reasons),
        "reply": reply.code if reply else 250,
        "enhanced": reply.enhanced if reply else "",
        "deferral": waits.reason if waits else "",
        "failing_name": waits.name if waits else "",
        "would_be": verdict.would_have,
        "stale": ",".join(
            f"{each.name}({int(each.seconds)}s)" for each in evaluation.stale[:MAX_STALE]
        ),
        "attempt": evaluation.id,
        "helo": envelope.helo,
        "message_id": evaluation.facts.message_id,
        "psl_organization": str(outcome.psl_organizational_domain or "") if outcome else "",
        "psl_guard": ",".join(map(str, outcome.guarded)) if outcome else "",
        "reason": dmarc.reason,
        "decided_by": verdict.decided_by,
    }


def steps(evaluation: Evaluation) -> list[str]:
    """What `why` tells of it, sentence by sentence."""
    return [each.strip() for each in explain(from_evaluation(evaluation))]
