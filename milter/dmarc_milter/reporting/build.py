"""From a claimed report to its documents and deliveries, or to the reason why nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.aggregate import Feedback, Format
from dmarc_milter.core.report.mail import encoded_size, filename, summary
from dmarc_milter.core.report.rows import Period, Row
from dmarc_milter.core.report.xml import compressed, render
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.reports import DROPPED, Document, NewDelivery, Report, ReportState
from dmarc_milter.ledger.store.retention import STALE
from dmarc_milter.reporting.context import LOG, PATIENT_TRIES, ReportContext
from dmarc_milter.reporting.destinations import ReportRecipient, ReportRecipients, Skipped, choose

MAX_WEIGHT = 100_000
"""Of one document's rows, a row weighing five and each of its signatures one: 10,000 rows with five
signatures each."""
QUIET = "only reports, bounces and automatic mail, all passing: reporting on them would be a loop"


def why_nothing(report: Report, context: ReportContext) -> str:
    """Why this report is not for sending, whoever asked for it; "" when it is. Raises
    StoreError."""
    if report.part > 1 and context.store.reports.was_dropped(report.id):
        return f"an earlier part was {DROPPED}"
    if report.messages == 0:
        return "no message was counted into it"
    if report.reportable == 0:
        return QUIET
    if report.rows == 0:
        return "no rows: the caps were reached before its first message"
    if context.options.report_domains == "known" and not context.store.destinations.has_passed(
        report.organizational_domain
    ):
        return "no mail of this domain ever passed here (report_domains)"
    return ""


def build_report(report: Report, context: ReportContext) -> ReportState:
    """What becomes of a claimed report: queued, due (postponed), suppressed or expired. Raises
    StoreError.

    A defect of ours is logged and suppresses this report alone: its rows stay, so that `report
    resend` can try again.
    """
    try:
        return _build(report, context)
    except StoreError:
        raise
    except Exception as error:
        LOG.exception("report %s of %s cannot be built", report.id, report.policy_domain)
        return _finish(
            report,
            context,
            ReportState.SUPPRESSED,
            f"cannot be built: {type(error).__name__}: {error}"[:500],
        )


def _build(report: Report, context: ReportContext) -> ReportState:
    reason = why_nothing(report, context)
    if reason:
        return _finish(report, context, ReportState.SUPPRESSED, reason)
    if report.attempts == 0 and report.end < context.now - max(
        STALE, context.options.retry_hours * 3600
    ):
        return _finish(
            report,
            context,
            ReportState.EXPIRED,
            "its period was over long before reports were sent",
        )
    recipients = recipients_of(report, context)
    if recipients.undecided and not (recipients.allowed and report.attempts >= PATIENT_TRIES):
        return _wait(report, recipients, context)
    if not recipients.allowed:
        return _finish(report, context, ReportState.SUPPRESSED, recipients.why)
    return _queue(report, recipients, context)


def recipients_of(report: Report, context: ReportContext) -> ReportRecipients:
    """Where this report goes. Raises StoreError."""
    policy_domain = domain.parse(report.policy_domain)
    if not isinstance(policy_domain, Domain):
        return ReportRecipients((), (Skipped(report.policy_domain, "not a domain name"),), ())
    return choose(policy_domain, report.published.rua, "rua", context)


def _finish(report: Report, context: ReportContext, state: ReportState, note: str) -> ReportState:
    context.store.reports.finish(report.id, context.owner, state, note)
    return state


def _wait(report: Report, recipients: ReportRecipients, context: ReportContext) -> ReportState:
    if context.now > report.closed_at + context.options.retry_hours * 3600:
        if recipients.allowed:
            return _queue(report, recipients, context)
        return _finish(report, context, ReportState.EXPIRED, recipients.why)
    context.store.reports.postpone(
        report.id, context.owner, context.now + context.pause(report.attempts), recipients.why[:500]
    )
    return ReportState.DUE


def _queue(report: Report, recipients: ReportRecipients, context: ReportContext) -> ReportState:
    """Render each form that is asked for, and queue what is not too large for its address."""
    feedback = feedback_of(report, context, context.store.reports.rows(report.id))
    documents: dict[Format, Document] = {}
    for form in dict.fromkeys(recipient.format for recipient in recipients.allowed):
        content, feedback = fitting(feedback, form, context.options.max_size)
        documents[form] = Document(form, filename(feedback), content)
    start = context.now + context.spread()
    deliveries = [
        _delivery(recipient, documents[recipient.format], start) for recipient in recipients.allowed
    ]
    deliveries += [
        _skipped(recipient) for recipient in (*recipients.skipped, *recipients.undecided)
    ]
    if all(delivery.state == "skipped" for delivery in deliveries):
        return _finish(
            report,
            context,
            ReportState.SUPPRESSED,
            "; ".join(f"{delivery.address}: {delivery.note}" for delivery in deliveries)[:500],
        )
    text = Document("text", "summary.txt", summary(feedback).encode())
    context.store.reports.queue(report.id, context.owner, [*documents.values(), text], deliveries)
    return ReportState.QUEUED


def _delivery(recipient: ReportRecipient, document: Document, next_at: int) -> NewDelivery:
    """RFC 7489 6.4: an address must not be used beyond its !size, which is meant after transport
    encoding."""
    size = encoded_size(document.content)
    if (
        recipient.format == "rfc7489"
        and recipient.max_size is not None
        and size > recipient.max_size
    ):
        reason = f"the report has {size} bytes and the address takes {recipient.max_size}"
        return NewDelivery(
            recipient.address, recipient.format, next_at, recipient.max_size, "skipped", reason
        )
    return NewDelivery(recipient.address, recipient.format, next_at, recipient.max_size)


def _skipped(skipped: Skipped) -> NewDelivery:
    return NewDelivery(skipped.address, "rfc9990", 0, None, "skipped", skipped.reason[:500])


def feedback_of(
    report: Report, context: ReportContext, rows: Iterable[tuple[Row, int]]
) -> Feedback:
    """The report as a value. Beyond MAX_WEIGHT rows are folded, so that no report needs more than
    its share of memory."""
    kept: list[tuple[Row, int]] = []
    weight, folded = 0, report.folded
    for row, count in rows:
        weight += 5 + len(row.auth_dkim)
        if weight > MAX_WEIGHT:
            folded += count
        else:
            kept.append((row, count))
    return Feedback(
        context.reporter_for(report.identity),
        report.id,
        Period(report.begin, report.end),
        report.published,
        tuple(kept),
        folded,
    )


def fitting(feedback: Feedback, form: Format, max_size: int) -> tuple[bytes, Feedback]:
    """The compressed document and what is in it: while it is larger than `max_size` bytes, the
    smaller half of its rows is folded."""
    while True:
        content = compressed(render(feedback, form))
        if len(content) <= max_size or len(feedback.rows) < 2:
            return content, feedback
        rows = sorted(feedback.rows, key=lambda item: -item[1])
        half = len(rows) // 2
        lost = sum(count for _, count in rows[half:])
        feedback = replace(feedback, rows=tuple(rows[:half]), folded=feedback.folded + lost)
