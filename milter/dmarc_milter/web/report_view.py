"""One aggregate report in words, whatever its state."""

from __future__ import annotations

from datetime import UTC, datetime

from dmarc_milter.ledger.store.reports import Report, ReportState


def state_text(report: Report, now: float) -> str:
    """Where it stands on its way, in sentences. `now` in seconds since 1970."""
    note = f" {report.note[:1].upper()}{report.note[1:]}." if report.note else ""
    match report.state:
        case ReportState.DUE if report.end > now and not report.closed:
            return f"Its period is open until {_time(report.end)}: it still takes messages.{note}"
        case ReportState.DUE if report.next_at > now:
            return f"It is tried again at {_time(report.next_at)}.{note}"
        case ReportState.DUE if not report.reportable:
            return (
                "Its period is over. It has only messages that are no reason to send a report, so"
                f" none will be sent.{note}"
            )
        case ReportState.DUE:
            return f"Its period is over; the next run of the report job takes it.{note}"
        case ReportState.BUILDING:
            return (
                "A run of the report job is building it; should that have ended early, a later one"
                f" takes it up.{note}"
            )
        case ReportState.QUEUED:
            return f"It is built, and on its way to the addresses below.{note}"
        case ReportState.SENT:
            return f"It was delivered; that was settled at {_time(report.done_at)}.{note}"
        case ReportState.SUPPRESSED:
            return f"It is not sent.{note}"
        case _:
            return f"It was given up at {_time(report.done_at)}.{note}"


def rows_text(report: Report, shown: int) -> str:
    """What is said above the rows that are shown."""
    if shown and shown < report.rows:
        return f"The first {shown:,} of {report.rows:,} rows"
    if shown:
        return "The only row" if shown == 1 else f"All {shown:,} rows"
    return "Rows"


def no_rows_text(report: Report) -> str:
    """Why there is none to show."""
    if report.state is ReportState.SENT:
        return (
            "They were deleted when the report had been delivered: what it says is with its"
            " readers."
        )
    if report.rows:
        return "They are not kept any more."
    return "There is none: every message came when the report had as many rows as it may have."


def deliveries_text(report: Report) -> str:
    """Why there is no delivery."""
    if report.state in (ReportState.DUE, ReportState.BUILDING):
        return "None yet: addresses are looked up when the report is built."
    return "None."


def _time(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
