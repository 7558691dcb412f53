"""Deliveries on their way: caps, suppressions, the mail, and what the receiving side's answer
means."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from dmarc_milter.config.checks import host_and_port
from dmarc_milter.core.report.destination import host_of
from dmarc_milter.core.report.mail import Letter, verp, write
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.sent_log import HandedOver
from dmarc_milter.ledger.store.deliveries import Delivery, DeliveryState
from dmarc_milter.ledger.store.destinations import Limit
from dmarc_milter.ledger.store.reports import Document
from dmarc_milter.reporting.context import FIRST_RETRY, LOG, ReportContext
from dmarc_milter.reporting.copies import keep
from dmarc_milter.reporting.failure import FORMAT, addressed, identity_of
from dmarc_milter.reporting.limits import reserved
from dmarc_milter.reporting.silence import Failed, barred, is_own_mx, silence, subject
from dmarc_milter.reporting.smtp import Later, Outcome, Refused, Sent

REFUSALS = 3
"""How often a mail is tried that a 5xx refuses which does not speak of the address."""
LATER = 10
"""As many tries as make `ReportContext.pause` its longest."""


class Delivered(NamedTuple):
    """What became of one delivery; `server`: the submission server takes nothing now."""

    state: DeliveryState
    reply: str = ""
    server: bool = False
    held: bool = False
    """A cap of the day is reached: not tried."""


class ReportEnvelope(NamedTuple):
    """One mail: envelope sender, recipient, bytes."""

    sender: str
    recipient: str
    message: bytes


def deliver(delivery: Delivery, context: ReportContext) -> Delivered:
    """One try. The row is settled before this returns, and only a 250 makes it sent. Raises
    StoreError."""
    since = _since(delivery, context)
    if since is None:
        return _settle(
            delivery, context, Delivered(DeliveryState.EXPIRED, "the report is no longer kept")
        )
    about = subject(delivery.report_id, context.store)
    reason = barred(delivery.address, about, context.options, context.store)
    if reason:
        return _settle(delivery, context, Delivered(DeliveryState.SUPPRESSED, reason))
    if at := context.store.handed_over.at(delivery.report_id, delivery.address):
        return _settle(delivery, context, Delivered(DeliveryState.SENT, _left_before(at)))
    over = context.now > since + context.options.retry_hours * 3600
    if over and delivery.attempts > 0:
        return _settle(delivery, context, Delivered(DeliveryState.EXPIRED, delivery.last_reply))
    limits, full = _reserved(delivery, context)
    if full:
        return _hold(delivery, context, full, over=over)
    envelope = envelope_of(delivery, context)
    if envelope is None:
        return _settle(
            delivery, context, Delivered(DeliveryState.EXPIRED, "its document is no longer kept")
        )
    outcome = _handed_over(delivery, envelope, context)
    if isinstance(outcome, Later):
        context.store.destinations.give_back([limit.scope for limit in limits])
    found = _judge(delivery, outcome, context, over=over)
    if isinstance(outcome, Sent):
        keep(delivery.report_id, delivery.address, envelope.message, context)
    return found


def _left_before(at: int) -> str:
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"was handed over on {when}, before the store was put back to an earlier state"


def _handed_over(delivery: Delivery, envelope: ReportEnvelope, context: ReportContext) -> Outcome:
    """Noted in the sent log before, and taken back where the mail server did not take it."""
    log = context.sent_log
    if log is None:
        return context.mailer.send(*envelope)
    report = context.store.reports.get(delivery.report_id)
    begin, end = (report.begin, report.end) if report is not None else (0, 0)
    line = HandedOver(context.now, delivery.report_id, begin, end, context.owner, delivery.address)
    try:
        log.before(line)
    except OSError as error:
        return Later(f"the sent log {log.path} cannot be written: {error.strerror}", server=True)
    outcome = context.mailer.send(*envelope)
    if not isinstance(outcome, Sent):
        with suppress(OSError):
            log.not_taken(line)
    return outcome


def _since(delivery: Delivery, context: ReportContext) -> int | None:
    """When the retry window of the delivery's report began; None for a report that is no longer
    there."""
    if delivery.format == FORMAT:
        failure = context.store.failures.get(delivery.report_id)
        return failure.at if failure is not None else None
    report = context.store.reports.get(delivery.report_id)
    return report.closed_at if report is not None else None


def envelope_of(delivery: Delivery, context: ReportContext) -> ReportEnvelope | None:
    """The mail as it was built, the same identity at every try. None when the document is gone."""
    document = context.store.reports.document(delivery.report_id, delivery.format)
    if document is None:
        return None
    message = (
        addressed(document.content, delivery.address)
        if delivery.format == FORMAT
        else _aggregate(delivery, document, context)
    )
    return ReportEnvelope(
        verp(context.bounces_for(_identity(delivery, context)), delivery.report_id, delivery.tag),
        delivery.address,
        message,
    )


def _identity(delivery: Delivery, context: ReportContext) -> str:
    """In whose name the delivery's report is."""
    if delivery.format == FORMAT:
        failure = context.store.failures.get(delivery.report_id)
        return identity_of(failure, context) if failure is not None else ""
    report = context.store.reports.get(delivery.report_id)
    return report.identity if report is not None else ""


def _aggregate(delivery: Delivery, document: Document, context: ReportContext) -> bytes:
    report = context.store.reports.get(delivery.report_id)
    text = context.store.reports.document(delivery.report_id, "text")
    words = text.content.decode("utf-8", "replace") if text is not None else ""
    policy_domain = report.policy_domain if report is not None else ""
    reporter = context.reporter_for(report.identity if report is not None else "")
    letter = Letter(
        delivery.report_id,
        policy_domain,
        reporter.email,
        document.filename,
        words,
        document.content,
        "rfc7489" if document.format == "rfc7489" else "rfc9990",
        reporter.org_name,
    )
    return write(letter, delivery.address, now=datetime.fromtimestamp(context.now, UTC)).as_bytes()


def _reserved(delivery: Delivery, context: ReportContext) -> tuple[list[Limit], str]:
    """A failure report's room was taken when it was built."""
    return ([], "") if delivery.format == FORMAT else reserved(delivery, context)


def _host(delivery: Delivery) -> str:
    host = host_of(delivery.address)
    return host.name if host is not None else ""


def _hold(delivery: Delivery, context: ReportContext, full: str, *, over: bool) -> Delivered:
    """Not today: tomorrow, unless its time is over."""
    reason = f"the day's limit is reached ({full})"
    if over:
        return _settle(delivery, context, Delivered(DeliveryState.EXPIRED, reason))
    context.store.deliveries.release(
        delivery, context.owner, context.now // DAY * DAY + DAY + context.spread(), reason
    )
    return Delivered(DeliveryState.QUEUED, reason, held=True)


def _judge(
    delivery: Delivery, outcome: Outcome, context: ReportContext, *, over: bool
) -> Delivered:
    match outcome:
        case Sent(reply):
            settled = _settle(delivery, context, Delivered(DeliveryState.SENT, reply))
            context.store.destinations.remember(_host(delivery))
            return settled
        case Refused():
            return _refused(delivery, outcome, context, over=over)
        case Later(reply, server):
            state = DeliveryState.EXPIRED if over else DeliveryState.QUEUED
            pause = FIRST_RETRY if server else context.pause(delivery.attempts)
            return _settle(
                delivery, context, Delivered(state, reply, server), next_at=context.now + pause
            )


def _refused(
    delivery: Delivery, outcome: Refused, context: ReportContext, *, over: bool
) -> Delivered:
    """5xx. What speaks of the address ends the delivery, and the address is left alone; anything
    else may be about this mail or us, and is tried a few times, hours apart."""
    if not outcome.address:
        final = over or delivery.attempts + 1 >= REFUSALS
        state = DeliveryState.REFUSED if final else DeliveryState.QUEUED
        found = Delivered(state, outcome.reply)
        return _settle(delivery, context, found, next_at=context.now + context.pause(LATER))
    own_mx = outcome.at_rcpt and outcome.reply.startswith("550") and _is_own_mx(delivery, context)
    days = context.options.suppress_days
    about = subject(delivery.report_id, context.store)
    failed = Failed(delivery.address, about, outcome.reply, delivery.report_id, days, own_mx)
    LOG.info("%s", silence(failed, context.store))
    return _settle(delivery, context, Delivered(DeliveryState.REFUSED, outcome.reply))


def _is_own_mx(delivery: Delivery, context: ReportContext) -> bool:
    """Whether mail is handed to the destination's own MX, not to a server of ours."""
    server = host_and_port(context.options.smtp, 25)[0]
    return is_own_mx(server, delivery.address, context.ask().resolver)


def _settle(
    delivery: Delivery, context: ReportContext, delivered: Delivered, *, next_at: int = 0
) -> Delivered:
    if not context.store.deliveries.settle(
        delivery, context.owner, delivered.state, delivered.reply, next_at=next_at
    ):
        LOG.warning(
            "report %s to %s: another host had taken it over", delivery.report_id, delivery.address
        )
    if delivered.state in (DeliveryState.REFUSED, DeliveryState.EXPIRED):
        LOG.warning(
            "report %s to %s: %s: %s",
            delivery.report_id,
            delivery.address,
            delivered.state,
            delivered.reply,
        )
    return delivered
