"""Failure reports: built from samples, rate-limited with the number of incidents told, and queued
like aggregate reports (RFC 9991)."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.destination import host_of
from dmarc_milter.core.report.failure import FailureReport, compose, read_sample
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Published
from dmarc_milter.ledger.store.database import StoreError
from dmarc_milter.ledger.store.destinations import Limit
from dmarc_milter.ledger.store.failures import Failure, FailureState
from dmarc_milter.ledger.store.reports import Document, NewDelivery
from dmarc_milter.reporting.context import LOG, PATIENT_TRIES, ReportContext
from dmarc_milter.reporting.destinations import ReportRecipient, choose

FORMAT = "rfc9991"
PLACEHOLDER = "to-be-named@recipient.invalid"
"""Stands for the recipient in the stored mail."""


def build_failure(failure: Failure, tools: ReportContext) -> FailureState:
    """What becomes of a claimed failure report. Raises StoreError; a defect of ours drops this one,
    with a note."""
    try:
        return _build(failure, tools)
    except StoreError:
        raise
    except Exception as error:
        LOG.exception("failure report %s cannot be built", failure.id)
        return _settle(
            failure, tools, "suppressed", f"cannot be built: {type(error).__name__}: {error}"
        )


def _build(failure: Failure, tools: ReportContext) -> FailureState:
    published = failure.facts.outcome.published if failure.facts.outcome else None
    policy_domain = domain.parse(failure.facts.policy_domain)
    if published is None or not isinstance(policy_domain, Domain) or published.psd == "y":
        return _settle(failure, tools, "suppressed", "nobody to send it to")
    if tools.now > failure.at + tools.options.retry_hours * 3600:
        return _settle(
            failure, tools, "expired", failure.last_reply or "too old when its turn came"
        )
    return _offer(failure, published, policy_domain, tools)


def _offer(
    failure: Failure, published: Published, policy_domain: Domain, tools: ReportContext
) -> FailureState:
    places = choose(policy_domain, published.ruf, "ruf", tools)
    if places.undecided and not (places.allowed and failure.attempts >= PATIENT_TRIES):
        return _settle(
            failure, tools, "due", places.why, next_at=tools.now + tools.pause(failure.attempts)
        )
    if not places.allowed:
        return _settle(failure, tools, "suppressed", places.why)
    within = [
        place
        for place in places.allowed
        if not tools.store.destinations.reserve(_limits(place, tools))
    ]
    if not within:
        # Until tomorrow it gathers what comes after it: Incidents tells how many.
        return _settle(
            failure,
            tools,
            "due",
            "the day's limit is reached",
            next_at=tools.now // DAY * DAY + DAY,
        )
    document = Document(FORMAT, "failure.eml", _message(failure, tools))
    deliveries = [NewDelivery(place.address, FORMAT, tools.now) for place in within]
    tools.store.failures.queue(failure, tools.owner, document, deliveries)
    return "queued"


def _limits(place: ReportRecipient, tools: ReportContext) -> list[Limit]:
    host = host_of(place.address)
    return [
        Limit("failures", tools.options.failure_per_day),
        Limit(f"failures:{host}", tools.options.failure_per_destination),
    ]


def _message(failure: Failure, tools: ReportContext) -> bytes:
    try:
        sample = read_sample(failure.sample)
    except msgspec.MsgspecError as error:
        raise ValueError(f"unreadable sample: {error}") from None
    report = FailureReport(
        tools.reporter,
        tools.authserv_id or tools.reporter.domain,
        failure.id,
        failure.facts,
        sample,
        failure.incidents,
    )
    boundary = f"=_{tools.dice.getrandbits(128):032x}"
    return compose(
        report, boundary, recipient=PLACEHOLDER, now=datetime.fromtimestamp(tools.now, UTC)
    )


def addressed(stored: bytes, recipient: str) -> bytes:
    """The stored mail for one recipient."""
    return stored.replace(
        f"\r\nTo: {PLACEHOLDER}\r\n".encode(), f"\r\nTo: {recipient}\r\n".encode(), 1
    )


def _settle(
    failure: Failure, tools: ReportContext, state: FailureState, reply: str, *, next_at: int = 0
) -> FailureState:
    tools.store.failures.settle(failure, tools.owner, state, reply, next_at=next_at)
    return state
