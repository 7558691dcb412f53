"""What the store holds of an aggregate report, and how its row is read."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from dmarc_milter.core.report.rows import decode_published
from dmarc_milter.core.stored import StoredPolicy


class ReportState(StrEnum):
    """`due` with an `end` in the future is the period still open."""

    DUE = "due"
    BUILDING = "building"
    QUEUED = "queued"
    SENT = "sent"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"


class Report(NamedTuple):
    """One report. Times are seconds since 1970; `id` is 32 hex digits: report_id, subject, file
    name and Message-ID."""

    id: str
    policy_domain: str
    organizational_domain: str
    published: StoredPolicy
    begin: int
    end: int
    part: int
    state: ReportState
    messages: int
    """In its rows."""
    reportable: int
    """Messages that are reason enough to send it; a report without any is not sent (docs/design.md,
    Reports)."""
    rows: int
    """Different ones once closed; while open, one that several hosts began together may count for
    each."""
    folded: int
    """Messages beyond the cap: counted here, in no row."""
    note: str
    """Why it is suppressed, expired or postponed."""
    next_at: int
    attempts: int
    closed: bool
    done_at: int
    closed_at: int = 0
    """When it stopped taking rows, or was told to go once more: its retry window begins here; 0
    while open."""
    identity: str = ""
    """The reporting address in whose name it is; "" for the organization's own."""


class Document(NamedTuple):
    """A report as it is sent: `format` is rfc9990 or rfc7489; `text` is the mail's human part,
    `rfc9991` a whole failure report."""

    format: str
    filename: str
    content: bytes


class NewDelivery(NamedTuple):
    """One address that a report goes to, not before `next_at`; or (state `skipped`) does not, and
    why."""

    address: str
    format: str
    next_at: int
    max_size: int | None = None
    state: str = "queued"
    note: str = ""


_SUMS = ", ".join(
    f"{name} + coalesce((SELECT sum(report_count.{name}) FROM report_count WHERE report_id ="
    " report.id), 0)"
    for name in ("messages", "loud", "rows_count", "folded")
)
COLUMNS = (
    "id, policy_domain, organizational_domain, published, begin_at, end_at, part, state,"
    f" {_SUMS}, note, next_at, attempts, closed_at, done_at, identity"
)


def report_of(row: tuple[Any, ...]) -> Report:
    """A row of COLUMNS."""
    numbers = [int(number) for number in (*row[4:7], *row[8:12], *row[13:17])]
    begin, end, part, messages, reportable, rows, folded, next_at, attempts, closed_at, done_at = (
        numbers
    )
    return Report(
        id=row[0],
        policy_domain=row[1],
        organizational_domain=row[2],
        published=decode_published(bytes(row[3])),
        begin=begin,
        end=end,
        part=part,
        state=ReportState(row[7]),
        messages=messages,
        reportable=reportable,
        rows=rows,
        folded=folded,
        note=row[12],
        next_at=next_at,
        attempts=attempts,
        closed=closed_at > 0,
        done_at=done_at,
        closed_at=closed_at,
        identity=row[17],
    )
