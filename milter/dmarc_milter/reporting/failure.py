"""Failure reports: built from samples, rate-limited (a report gives the number of incidents),
queued like aggregate reports (RFC 9991)."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from dmarc_milter.config.identities import identify
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.destination import host_of
from dmarc_milter.core.report.failure import FailureReport, compose
from dmarc_milter.core.report.failure_sample import read_header_sample
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import StoredPolicy
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.destinations import Limit
from dmarc_milter.ledger.store.failures import Failure, FailureState
from dmarc_milter.ledger.store.reports import Document, NewDelivery
from dmarc_milter.reporting.context import LOG, PATIENT_TRIES, ReportContext
from dmarc_milter.reporting.destinations import ReportRecipient, choose

FORMAT = "rfc9991"
PLACEHOLDER = "to-be-named@recipient.invalid"
"""Stands for the recipient in the stored mail."""


def build_failure(failure: Failure, context: ReportContext) -> FailureState:
    """What becomes of a claimed failure report. Raises StoreError; a defect of ours drops this one,
    with a note."""
    try:
        return _build(failure, context)
    except StoreError:
        raise
    except Exception as error:
        LOG.exception("failure report %s cannot be built", failure.id)
        return _settle(
            failure, context, "suppressed", f"cannot be built: {type(error).__name__}: {error}"
        )


def _build(failure: Failure, context: ReportContext) -> FailureState:
    published = failure.facts.outcome.published if failure.facts.outcome else None
    policy_domain = domain.parse(failure.facts.policy_domain)
    if published is None or not isinstance(policy_domain, Domain) or published.psd == "y":
        return _settle(failure, context, "suppressed", "no address to send it to")
    if context.now > failure.at + context.options.retry_hours * 3600:
        return _settle(
            failure,
            context,
            "expired",
            failure.last_reply or "too old by the time it could be sent",
        )
    return _offer(failure, published, policy_domain, context)


def _offer(
    failure: Failure, published: StoredPolicy, policy_domain: Domain, context: ReportContext
) -> FailureState:
    recipients = choose(policy_domain, published.ruf, "ruf", context)
    if recipients.undecided and not (recipients.allowed and failure.attempts >= PATIENT_TRIES):
        return _settle(
            failure,
            context,
            "due",
            recipients.why,
            next_at=context.now + context.pause(failure.attempts),
        )
    if not recipients.allowed:
        return _settle(failure, context, "suppressed", recipients.why)
    within = [
        recipient
        for recipient in recipients.allowed
        if not context.store.destinations.reserve(_limits(recipient, context))
    ]
    if not within:
        # Until tomorrow it gathers what comes after it: Incidents tells how many.
        return _settle(
            failure,
            context,
            "due",
            "the day's limit is reached",
            next_at=context.now // DAY * DAY + DAY,
        )
    document = Document(FORMAT, "failure.eml", _message(failure, context))
    deliveries = [NewDelivery(recipient.address, FORMAT, context.now) for recipient in within]
    context.store.failures.queue(failure, context.owner, document, deliveries)
    return "queued"


def _limits(recipient: ReportRecipient, context: ReportContext) -> list[Limit]:
    host = host_of(recipient.address)
    return [
        Limit("failures", context.options.failure_per_day),
        Limit(f"failures:{host}", context.options.failure_per_destination),
    ]


def _message(failure: Failure, context: ReportContext) -> bytes:
    try:
        sample = read_header_sample(failure.sample)
    except msgspec.MsgspecError as error:
        raise ValueError(f"unreadable sample: {error}") from None
    reporter = context.reporter_for(identity_of(failure, context))
    report = FailureReport(
        reporter,
        context.authserv_id or reporter.domain,
        failure.id,
        failure.facts,
        sample,
        failure.incidents,
    )
    boundary = f"=_{context.rng.getrandbits(128):032x}"
    return compose(
        report, boundary, recipient=PLACEHOLDER, now=datetime.fromtimestamp(context.now, UTC)
    )


def identity_of(failure: Failure, context: ReportContext) -> str:
    """In whose name it is: by its message's recipients."""
    return identify(context.options.identities)(failure.facts.envelope_to)


def addressed(stored: bytes, recipient: str) -> bytes:
    """The stored mail for one recipient."""
    return stored.replace(
        f"\r\nTo: {PLACEHOLDER}\r\n".encode(), f"\r\nTo: {recipient}\r\n".encode(), 1
    )


def _settle(
    failure: Failure, context: ReportContext, state: FailureState, reply: str, *, next_at: int = 0
) -> FailureState:
    context.store.failures.settle(failure, context.owner, state, reply, next_at=next_at)
    return state
