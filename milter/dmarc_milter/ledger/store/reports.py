"""The aggregate reports on their way: due, building, queued, sent, suppressed, expired.

    due ── claim ──► building ── queue ──► queued ── the last delivery is settled ──► sent |
    suppressed | expired
     ▲                  │  └── finish ──► suppressed | expired
     └──── postpone ────┘

`due` takes rows until it is claimed for the first time; what comes later for the same period makes
a report of its own (part 2). Whoever claims holds a lease; one that has run out is taken over. The
id never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from secrets import token_hex
from typing import Any, NamedTuple

from dmarc_milter.core.report.rows import Row, decode_published, decode_row
from dmarc_milter.core.stored import StoredPolicy
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list

LEASE = 900
"""Seconds that a claim holds."""
SKEW = 120
"""Seconds that a lease must have been over before another host takes it: clocks may differ by a
minute either way."""
PAGE = 1000


DROPPED = "dropped by the administrator"


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
_COLUMNS = (
    "id, policy_domain, organizational_domain, published, begin_at, end_at, part, state,"
    f" {_SUMS}, note, next_at, attempts, closed_at, done_at, identity"
)


EXACT_ROWS = (
    "UPDATE report SET rows_count = (SELECT count(DISTINCT row_key) FROM report_row WHERE report_id"
    " = report.id) - coalesce((SELECT sum(c.rows_count) FROM report_count c WHERE c.report_id ="
    " report.id), 0) WHERE id = ? AND closed_at = 0"
)


def _report(row: tuple[Any, ...]) -> Report:
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


def rows_of(
    transaction: Transaction, table: str, columns: str, ids: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Those columns of a table's rows with these ids, in the order of the ids."""
    sql = with_list(f"SELECT {columns} FROM {table} WHERE id IN []", ids)
    found = {row[0]: row for row in transaction.all(sql, ids)} if ids else {}
    return [found[identity] for identity in ids]


def insert_deliveries(
    transaction: Transaction, identity: str, deliveries: Sequence[NewDelivery]
) -> None:
    """A delivery for each address, with a tag of its own; one that is there already stays as it
    is."""
    transaction.many(
        "INSERT INTO delivery (report_id, address, format, next_at, max_size, state, last_reply,"
        " tag, attempts, last_at, lease_owner, lease_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0,"
        " '', 0) ON CONFLICT (report_id, address) DO NOTHING",
        [(identity, *delivery, token_hex(4)) for delivery in deliveries],
    )


class Reports:
    """Everything raises StoreError. Methods that change a claimed report return False when the
    lease was lost to another host."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def find(
        self,
        states: Sequence[ReportState] = (),
        *,
        policy_domain: str = "",
        since: int = 0,
        limit: int = PAGE,
        offset: int = 0,
    ) -> list[Report]:
        """Reports whose period began at `since` or later, newest period first."""
        conditions, values = ["begin_at >= ?"], list[Any]([since])
        if states:
            conditions.append(with_list("state IN []", states))
            values += [state.value for state in states]
        if policy_domain:
            conditions.append("policy_domain = ?")
            values.append(policy_domain)
        sql = (
            f"SELECT {_COLUMNS} FROM report WHERE {' AND '.join(conditions)}"
            " ORDER BY begin_at DESC, policy_domain, id LIMIT ? OFFSET ?"
        )
        return [_report(row) for row in fetch(self._database, sql, (*values, limit, offset))]

    def waiting(self, ended_before: int) -> int:
        """How many are due whose period ended by then."""
        return int(
            fetch(
                self._database,
                "SELECT count(*) FROM report WHERE state = 'due' AND end_at <= ?",
                (ended_before,),
            )[0][0]
        )

    def get(self, identity: str) -> Report | None:
        rows = fetch(self._database, f"SELECT {_COLUMNS} FROM report WHERE id = ?", (identity,))
        return _report(rows[0]) if rows else None

    def rows(self, identity: str) -> Iterator[tuple[Row, int]]:
        """The rows of a report and how many messages each counts, in a fixed order, a page at a
        time."""
        for _, rows in groupby(self._parts(identity), key=itemgetter(0)):
            same = list(rows)
            yield decode_row(same[0][1]), sum(messages for _, _, messages in same)

    def _parts(self, identity: str) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, facts and messages of each row as each spool counted it."""
        after = (b"", -1)
        while True:
            page = fetch(
                self._database,
                "SELECT row_key, origin, facts, messages FROM report_row WHERE report_id = ? AND"
                " (row_key, origin) > (?, ?) ORDER BY row_key, origin LIMIT ?",
                (identity, *after, PAGE),
            )
            for key, _, facts, messages in page:
                yield bytes(key), bytes(facts), int(messages)
            if len(page) < PAGE:
                return
            after = bytes(page[-1][0]), int(page[-1][1])

    def claim(
        self,
        owner: str,
        *,
        ended_before: int,
        at_once: bool = False,
        lease: int = LEASE,
        limit: int = 20,
        among: Sequence[str] | None = None,
    ) -> list[Report]:
        """Close and take reports whose period ended at `ended_before` or earlier, and what a dead
        host left in building; `among`: of these ids only.

        `owner` names this run of this process and no other. `at_once` takes postponed ones too;
        with a great `ended_before` even the period still open (`report send --now`).
        """
        these = "" if among is None else with_list(" AND id IN []", among)

        def work(transaction: Transaction) -> list[Report]:
            now = int(self._clock())
            ids = [
                identity
                for (identity,) in transaction.all(
                    f"SELECT id FROM report WHERE ((state = 'due' AND end_at <= ? AND next_at"
                    f" <= ?) OR (state = 'building' AND lease_until < ?)){these} ORDER BY next_at,"
                    " id LIMIT ? {skip_locked}",
                    (ended_before, 2**62 if at_once else now, now - SKEW, *(among or ()), limit),
                )
            ]
            # Only now, when they are locked: what a drain has just counted is seen.
            transaction.many(EXACT_ROWS, [(identity,) for identity in ids])
            reports = [_report(row) for row in rows_of(transaction, "report", _COLUMNS, ids)]
            transaction.many(
                "UPDATE report SET state = 'building', attempts = attempts + 1, lease_owner = ?,"
                " lease_until = ?, closed_at = CASE WHEN closed_at = 0 THEN ? ELSE closed_at END"
                " WHERE id = ?",
                [(owner, now + lease, now, identity) for identity in ids],
            )
            return [
                report._replace(
                    state=ReportState.BUILDING, closed=True, closed_at=report.closed_at or now
                )
                for report in reports
            ]

        return attempt(self._database, work)

    def open_ids(self) -> list[str]:
        """The ids of all that is due or being built, the next one first."""
        sql = "SELECT id FROM report WHERE state IN ('due', 'building') ORDER BY next_at, id"
        return [row[0] for row in fetch(self._database, sql, ())]

    def was_dropped(self, identity: str) -> bool:
        """Whether an earlier part of the same report was dropped."""
        sql = (
            "SELECT 1 FROM report AS mine JOIN report AS other ON other.policy_domain ="
            " mine.policy_domain AND other.configuration = mine.configuration AND other.begin_at ="
            " mine.begin_at AND other.end_at = mine.end_at WHERE mine.id = ? AND other.note = ?"
        )
        return bool(fetch(self._database, sql, (identity, DROPPED)))

    def renew(self, identity: str, owner: str, lease: int = LEASE) -> bool:
        """Hold a claim for longer."""
        return self._change(identity, owner, "lease_until = ?", (int(self._clock()) + lease,))

    def postpone(self, identity: str, owner: str, next_at: int, note: str) -> bool:
        """Back to due, closed, not to be claimed before `next_at`: the DNS did not say whether a
        destination agrees."""
        return self._change(
            identity,
            owner,
            "state = 'due', next_at = ?, note = ?, lease_owner = '', lease_until = 0",
            (next_at, note),
        )

    def finish(self, identity: str, owner: str, state: ReportState, note: str) -> bool:
        """Nothing is sent, and why. The rows stay until retention, so that `report resend` can
        change its mind."""
        values = (state.value, note, int(self._clock()))
        return self._change(
            identity,
            owner,
            "state = ?, note = ?, done_at = ?, lease_owner = '', lease_until = 0",
            values,
        )

    def _change(self, identity: str, owner: str, what: str, values: tuple[Any, ...]) -> bool:
        sql = f"UPDATE report SET {what} WHERE id = ? AND state = 'building' AND lease_owner = ?"
        return attempt(
            self._database,
            lambda transaction: transaction.run(sql, (*values, identity, owner)) == 1,
        )

    def queue(
        self,
        identity: str,
        owner: str,
        documents: Sequence[Document],
        deliveries: Sequence[NewDelivery],
    ) -> bool:
        """Built: the documents are kept and each address gets a delivery, all at once."""

        def work(transaction: Transaction) -> bool:
            mine = transaction.run(
                "UPDATE report SET state = 'queued', note = '', lease_owner = '', lease_until = 0"
                " WHERE id = ? AND state = 'building' AND lease_owner = ?",
                (identity, owner),
            )
            if not mine:
                return False
            transaction.run("DELETE FROM report_document WHERE report_id = ?", (identity,))
            transaction.many(
                "INSERT INTO report_document (report_id, format, filename, content) VALUES (?, ?,"
                " ?, ?)",
                [(identity, *document) for document in documents],
            )
            insert_deliveries(transaction, identity, deliveries)
            return True

        return attempt(self._database, work)

    def document(self, identity: str, format: str) -> Document | None:
        """The report as it was built."""
        sql = (
            "SELECT format, filename, content FROM report_document WHERE report_id = ? AND"
            " format = ?"
        )
        rows = fetch(self._database, sql, (identity, format))
        return Document(rows[0][0], rows[0][1], bytes(rows[0][2])) if rows else None

    def resend(self, identity: str) -> bool:
        """Once more, with the same identity: from the documents, or where none were built, from the
        rows. False: neither is there."""
        now = int(self._clock())

        def work(transaction: Transaction) -> bool:
            found = transaction.one(
                "SELECT note FROM report WHERE id = ? {for_update}", (identity,)
            )
            if found is None or found[0] == DROPPED:
                return False
            built = transaction.run(
                "UPDATE delivery SET state = 'queued', attempts = 0, next_at = ?, lease_owner = '',"
                " lease_until = 0 WHERE report_id = ? AND state <> 'skipped'",
                (now, identity),
            )
            transaction.run("DELETE FROM handed_over WHERE report_id = ?", (identity,))
            has_rows = transaction.one(
                "SELECT 1 FROM report_row WHERE report_id = ? LIMIT 1", (identity,)
            )
            if not built and has_rows is None:
                return False
            state = ReportState.QUEUED if built else ReportState.DUE
            sql = (
                "UPDATE report SET state = ?, note = '', next_at = ?, done_at = 0, lease_owner ="
                " '', lease_until = 0, closed_at = CASE WHEN closed_at = 0 THEN 0 ELSE ? END WHERE"
                " id = ?"
            )
            return transaction.run(sql, (state.value, now, now, identity)) == 1

        return attempt(self._database, work)

    def drop(self, identity: str) -> bool:
        """Never to be sent: whatever its state but sent, nor what comes later for the same period.
        The rows go."""

        def work(transaction: Transaction) -> bool:
            now = int(self._clock())
            gone = transaction.run(
                "UPDATE report SET state = 'suppressed', note = ?, done_at = ?, closed_at = ?,"
                " lease_owner = '', lease_until = 0 WHERE id = ? AND state <> 'sent'",
                (DROPPED, now, now, identity),
            )
            if gone:
                transaction.run(
                    "UPDATE delivery SET state = 'suppressed' WHERE report_id = ? AND state ="
                    " 'queued'",
                    (identity,),
                )
                transaction.run("DELETE FROM report_row WHERE report_id = ?", (identity,))
            return gone == 1

        return attempt(self._database, work)
