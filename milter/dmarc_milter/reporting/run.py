"""The report job: close periods, build what is due, send what is queued. Any host may run it, and
be killed, at any moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.deliveries import Delivery, DeliveryState
from dmarc_milter.ledger.store.failures import Failure, FailureState
from dmarc_milter.ledger.store.reports import LEASE, Report, ReportState
from dmarc_milter.reporting.build import build_report
from dmarc_milter.reporting.context import GRACE, LOG, Asked, ReportContext
from dmarc_milter.reporting.failure import build_failure
from dmarc_milter.reporting.send import Delivered, deliver

__all__ = ["FOR_EVER", "Asked", "Progress", "ReportContext", "Run", "run"]

FOR_EVER = 2**60
BATCH = 10

Progress = Callable[[str, int], None]
"""Called with "build" or "send" and how many more are done."""


@dataclass(slots=True)
class Run:
    """What a run did. `problem` is why it stopped early, or ""."""

    built: Counter[ReportState] = field(default_factory=Counter)
    failures: Counter[FailureState] = field(default_factory=Counter)
    sent: Counter[DeliveryState] = field(default_factory=Counter)
    held: int = 0
    problem: str = ""
    reports: dict[str, None] = field(default_factory=dict)
    """The ids of the aggregate and failure reports that were built or tried, in that order."""


def run(
    context: ReportContext,
    *,
    now: bool = False,
    seconds: float = 3000.0,
    progress: Progress = lambda _what, _number: None,
) -> Run:
    """One run of at most about `seconds`. `now`: the period still open too, and nothing waits for
    its moment. Raises StoreError."""
    done, end = Run(), time.monotonic() + seconds
    _build_all(context, done, end, progress, now=now)
    if context.options.failure_reports:
        _build_failures(context, done, end, now=now)
    _send_all(context, done, end, progress, now=now)
    return done


def _build_all(
    context: ReportContext, done: Run, end: float, progress: Progress, *, now: bool
) -> None:
    for claimed in _claims(context, now=now):
        claimed_at = context.now
        for report in claimed:
            _build_one(report, claimed_at, context, done)
            progress("build", 1)
        if time.monotonic() >= end:
            break


def _claims(context: ReportContext, *, now: bool) -> Iterator[list[Report]]:
    """What is due, some at a time. `now`: what is open at this moment, each once, and nothing that
    comes meanwhile."""
    claim = partial(context.store.reports.claim, context.owner, limit=BATCH)
    if now:
        ids = context.store.reports.open_ids()
        for at in range(0, len(ids), BATCH):
            yield claim(ended_before=FOR_EVER, at_once=True, among=ids[at : at + BATCH])
        return
    while claimed := claim(ended_before=context.now - GRACE):
        yield claimed


def _build_one(report: Report, claimed_at: int, context: ReportContext, done: Run) -> None:
    if context.now - claimed_at > LEASE // 2 and not context.store.reports.renew(
        report.id, context.owner
    ):
        return
    state = build_report(report, context)
    done.built[state] += 1
    done.reports[report.id] = None
    LOG.info("report %s of %s: %s", report.id, report.policy_domain, state)


def _build_failures(context: ReportContext, done: Run, end: float, *, now: bool) -> None:
    for claimed in _failure_claims(context, now=now):
        for failure in claimed:
            done.failures[build_failure(failure, context)] += 1
        if time.monotonic() >= end:
            break


def _failure_claims(context: ReportContext, *, now: bool) -> Iterator[list[Failure]]:
    claim = partial(context.store.failures.claim, context.owner, limit=BATCH)
    if now:
        ids = context.store.failures.open_ids()
        for at in range(0, len(ids), BATCH):
            yield claim(at_once=True, among=ids[at : at + BATCH])
        return
    while claimed := claim():
        yield claimed


def _deliver(delivery: Delivery, context: ReportContext) -> Delivered:
    """A defect of ours holds up one delivery and no other."""
    try:
        return deliver(delivery, context)
    except StoreError:
        raise
    except Exception as error:
        LOG.exception("report %s to %s cannot be sent", delivery.report_id, delivery.address)
        reason = f"cannot be sent: {type(error).__name__}: {error}"
        context.store.deliveries.settle(
            delivery,
            context.owner,
            DeliveryState.QUEUED,
            reason,
            next_at=context.now + context.pause(delivery.attempts),
        )
        return Delivered(DeliveryState.QUEUED, reason)


def _send_all(
    context: ReportContext, done: Run, end: float, progress: Progress, *, now: bool
) -> None:
    seen: set[tuple[str, str]] = set()
    again: list[Delivery] = []
    while time.monotonic() < end and not done.problem:
        claimed = context.store.deliveries.claim(context.owner, at_once=now, limit=BATCH)
        if not claimed:
            break
        claimed_at = context.now
        for delivery in claimed:
            if (delivery.report_id, delivery.address) in seen:
                again.append(delivery)
            elif done.problem or context.now - claimed_at > LEASE // 3 or time.monotonic() > end:
                context.store.deliveries.release(delivery, context.owner, delivery.next_at)
            else:
                seen.add((delivery.report_id, delivery.address))
                done.reports[delivery.report_id] = None
                _note(_deliver(delivery, context), done)
                progress("send", 1)
    for delivery in again:
        context.store.deliveries.release(delivery, context.owner, delivery.next_at)


def _note(delivered: Delivered, done: Run) -> None:
    done.held += delivered.held
    done.sent[delivered.state] += not delivered.held
    if delivered.server:
        done.problem = delivered.reply
