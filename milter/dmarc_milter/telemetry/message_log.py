"""The log lines of one message: stable names (docs/reference/log.md), and nothing of the sender's
that was not validated."""

from __future__ import annotations

from collections.abc import Sequence

from dmarc_milter.core.actions.plan import Action, Reply
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.explain import explain
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.telemetry.log import Value

MAX_SIGNERS = 4
MAX_STALE = 4


def fields_of(evaluation: Evaluation, actions: Sequence[Action]) -> dict[str, Value]:
    """What is logged, most important first: the line is cut at its end."""
    envelope, dmarc, verdict = evaluation.envelope, evaluation.dmarc, evaluation.verdict
    waits = verdict.deferral or verdict.would_wait
    outcome = dmarc.outcome
    published = outcome.published if outcome else None
    reply = next((action for action in actions if isinstance(action, Reply)), None)
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
        "dkim": _signers(evaluation),
        "arc": evaluation.arc.status if evaluation.arc else "",
        "reasons": ",".join(reason.type for reason in verdict.reasons),
        "reply": reply.code if reply else 250,
        "enhanced": reply.enhanced if reply else "",
        "deferral": waits.reason if waits else "",
        "failing_name": waits.name if waits else "",
        "would_be": verdict.would_have,
        "stale": _stale(evaluation),
        "attempt": evaluation.id,
        "helo": envelope.helo,
        "message_id": evaluation.facts.message_id,
        "psl_organization": str(outcome.psl_organizational_domain or "") if outcome else "",
        "psl_guard": ",".join(map(str, outcome.guarded)) if outcome else "",
        "reason": dmarc.reason,
        "decided_by": verdict.decided_by,
    }


def _signers(evaluation: Evaluation) -> str:
    return (
        ",".join(
            f"{result.status}({result.domain})" if result.domain else f"{result.status}"
            for result in evaluation.dkim[:MAX_SIGNERS]
        )
        or "none"
    )


def _stale(evaluation: Evaluation) -> str:
    stale = evaluation.stale[:MAX_STALE]
    return ",".join(f"{answer.name}({int(answer.seconds)}s)" for answer in stale)


def steps(evaluation: Evaluation) -> list[str]:
    """The explanation that `why` prints, sentence by sentence."""
    return [sentence.strip() for sentence in explain(from_evaluation(evaluation))]
