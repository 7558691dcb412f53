"""What is kept of an evaluation: bounded, and printable whatever the sender wrote."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from dmarc_milter.core.arc import ArcResult
from dmarc_milter.core.dkim.result import DkimResult
from dmarc_milter.core.dmarc.record import MAX_URIS, ReportUri
from dmarc_milter.core.dmarc.result import DmarcResult, DomainOutcome, PolicyPublished
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath, address_literal
from dmarc_milter.core.policy.verdict import Verdict
from dmarc_milter.core.resolver import StaleAnswer
from dmarc_milter.core.spf.check import SpfResult
from dmarc_milter.core.stored.facts import (
    ArcFact,
    DkimFact,
    Facts,
    SpfFact,
    StaleFact,
    StoredOutcome,
    StoredPolicy,
    StoredReason,
    StoredUri,
)
from dmarc_milter.core.text import printable

MAX_SIGNATURES = 100
"""RFC 9990 3.1.3: signatures of one row."""
MAX_TRACE = 40
MAX_STALE = 20


def from_evaluation(evaluation: Evaluation) -> Facts:
    """Everything worth keeping of an evaluation. Linear in its size, which is bounded."""
    envelope, verdict = evaluation.envelope, evaluation.verdict
    message, dmarc = evaluation.facts, evaluation.dmarc
    waits = verdict.deferral or verdict.would_wait
    return Facts(
        id=evaluation.id,
        at=evaluation.at.timestamp(),
        counted=not verdict.tempfail,
        queue_id=printable(envelope.queue_id, 64),
        message_id=printable(message.message_id, 250),
        source_ip=str(envelope.source_ip) if envelope.source_ip is not None else "",
        source_known=envelope.source_known,
        helo=printable(envelope.helo, 255),
        envelope_from=_envelope_from(envelope.mail_from),
        envelope_to=tuple(domain.name for domain in envelope.rcpt_domains[:100]),
        status=dmarc.status.value,
        reason=printable(dmarc.reason, 200),
        malformed_from=printable(evaluation.author.malformed, 200),
        outcome=_outcome(dmarc.outcome) if dmarc.outcome else None,
        candidates=tuple(_outcome(outcome) for outcome in dmarc.candidates[:16]),
        disposition=verdict.disposition.value,
        policy=verdict.policy.value,
        would_be=verdict.would_have,
        deferral=waits.reason if waits else "",
        failing_name=printable(waits.name, 253) if waits else "",
        reasons=_reasons(verdict),
        decided_by=printable(verdict.decided_by, 300),
        tags=tuple(printable(tag, 40) for tag in verdict.tags[:20]),
        spf=_spf(evaluation.spf, envelope),
        dkim=_signatures(evaluation.dkim, dmarc),
        arc=_arc(evaluation.arc) if evaluation.arc else None,
        iprev=evaluation.iprev.status if evaluation.iprev else "",
        names=evaluation.iprev.names[:3] if evaluation.iprev else (),
        auto_submitted=message.auto_submitted,
        is_dsn=message.is_dsn,
        is_report=message.is_report,
        to_reporting=message.to_reporting,
        from_reporting=message.from_reporting,
        list_id=printable(message.list_id, 253),
        stale=_stale(evaluation.stale),
    )


def _envelope_from(path: ReversePath) -> str | None:
    return "" if path.is_null else _name(path.domain) or None


def _reasons(verdict: Verdict) -> tuple[StoredReason, ...]:
    return tuple(
        StoredReason(reason.type.value, printable(reason.comment, 200, ascii_only=False))
        for reason in verdict.reasons[:10]
    )


def _stale(answers: tuple[StaleAnswer, ...]) -> tuple[StaleFact, ...]:
    return tuple(
        StaleFact(printable(answer.name, 253), int(answer.seconds))
        for answer in answers[:MAX_STALE]
    )


def _name(domain: Domain | None) -> str:
    return domain.name if domain is not None else ""


def _texts(texts: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple([printable(text, 300) for text in texts[:count]])


def _spf(spf: SpfResult, envelope: Envelope) -> SpfFact:
    path = envelope.mail_from
    literal = address_literal(envelope.helo) if path.is_null else path.literal
    scope: Literal["mfrom", "helo"] = "helo" if spf.identity == "helo" else "mfrom"
    return SpfFact(
        spf.status.value,
        _name(spf.domain),
        scope,
        printable(spf.reason, 200),
        printable(spf.mechanism, 200),
        literal if spf.domain is None else "",
    )


def _arc(arc: ArcResult) -> ArcFact:
    return ArcFact(
        arc.status.value,
        tuple(hop.sealer.name for hop in arc.hops[:50]),
        printable(arc.reason, 200),
    )


def _signatures(results: tuple[DkimResult, ...], dmarc: DmarcResult) -> tuple[DkimFact, ...]:
    """All signatures that were evaluated, in the priority of RFC 9990 3.1.3."""
    outcome = dmarc.outcome
    aligned = (
        {
            identifier.domain
            for identifier in outcome.identifiers
            if identifier.method == "dkim" and identifier.aligned
        }
        if outcome
        else set()
    )
    author = outcome.author_domain if outcome else None
    facts = [_signature(result, author, aligned) for result in results]
    if len(facts) > 1:
        facts.sort(key=_priority)  # stable: the message's own order within each class
    return tuple(facts[:MAX_SIGNATURES])


def _priority(fact: DkimFact) -> int:
    if fact.result != "pass":
        return 3
    return {"strict": 0, "relaxed": 1, "": 2}[fact.aligned]


def _signature(result: DkimResult, author: Domain | None, aligned: set[Domain]) -> DkimFact:
    how: Literal["", "strict", "relaxed"] = ""
    if result.usable and result.domain in aligned:
        how = "strict" if result.domain == author else "relaxed"
    return DkimFact(
        result.status.value,
        _name(result.domain),
        printable(result.selector, 253),
        printable(result.reason, 200),
        how,
        printable(result.algorithm, 40),
        result.key_bits,
        result.unsigned_headers,
    )


def _outcome(outcome: DomainOutcome) -> StoredOutcome:
    return StoredOutcome(
        author_domain=outcome.author_domain.name,
        status=outcome.status.value,
        policy=outcome.policy.value,
        policy_tag=outcome.policy_tag,
        organizational_domain=_name(outcome.organizational_domain),
        psl_organizational_domain=_name(outcome.psl_organizational_domain),
        spf_aligned=outcome.spf_aligned,
        dkim_aligned=outcome.dkim_aligned,
        testing_key_only=outcome.testing_key_only,
        published=_published(outcome.published) if outcome.published else None,
        reason=printable(outcome.reason, 200),
        trace=_texts(outcome.trace, MAX_TRACE),
    )


@lru_cache(maxsize=256)
def _published(policy: PolicyPublished) -> StoredPolicy:
    record = policy.record
    return StoredPolicy(
        policy_domain=policy.policy_domain.name,
        p=record.p.value if record.p else "",
        sp=record.sp.value if record.sp else "",
        np=record.np.value if record.np else "",
        adkim=record.adkim.value,
        aspf=record.aspf.value,
        testing=record.testing,
        psd=printable(record.psd, 1),
        pct=_number(record.pct),
        fo=printable(record.fo, 20),
        rua=_uris(record.rua),
        ruf=_uris(record.ruf),
        ri=_number(record.ri),
        invalid_policy=record.invalid_policy,
        discovery_method=policy.discovery_method,
        errors=tuple(dict.fromkeys(_texts((*policy.errors, *record.errors), 10))),
        text=printable(record.text, 4096),
    )


def _uris(uris: tuple[ReportUri, ...]) -> tuple[StoredUri, ...]:
    return tuple(
        StoredUri(printable(uri.address, 320), _number(uri.max_size)) for uri in uris[:MAX_URIS]
    )


def _number(value: int | None) -> int | None:
    """Published numbers have any length; stored ones fit 64 bits."""
    return None if value is None else max(0, min(value, 2**63 - 1))
