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

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from secrets import token_hex
from typing import Any

from dmarc_milter.core.report.rows import Row, decode_row
from dmarc_milter.ledger.store.database import Transaction, attempt, fetch, with_list
from dmarc_milter.ledger.store.reports.claims import LEASE, SKEW, Claims, rows_of
from dmarc_milter.ledger.store.reports.stored_report import (
    COLUMNS,
    Document,
    NewDelivery,
    Report,
    ReportState,
    report_of,
)

__all__ = ["LEASE", "SKEW", "Document", "NewDelivery", "Report", "ReportState", "rows_of"]

PAGE = 1000
DROPPED = "dropped by the administrator"


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


class Reports(Claims):
    """Everything raises StoreError. Methods that change a claimed report return False when the
    lease was lost to another host."""

    def find(
        self,
        states: Sequence[ReportState] = (),
        *,
        policy_domain: str = "",
        since: int = 0,
        done: tuple[int, int] | None = None,
        limit: int = PAGE,
        offset: int = 0,
    ) -> list[Report]:
        """Reports whose period began at `since` or later, newest period first; with `done` those
        that were settled from the first of these moments on and before the second."""
        conditions, values = ["begin_at >= ?"], list[Any]([since])
        if done is not None:
            conditions.append("done_at >= ? AND done_at < ?")
            values += done
        if states:
            conditions.append(with_list("state IN []", states))
            values += [state.value for state in states]
        if policy_domain:
            conditions.append("policy_domain = ?")
            values.append(policy_domain)
        sql = (
            f"SELECT {COLUMNS} FROM report WHERE {' AND '.join(conditions)}"
            " ORDER BY begin_at DESC, policy_domain, id LIMIT ? OFFSET ?"
        )
        return [report_of(row) for row in fetch(self._database, sql, (*values, limit, offset))]

    def waiting(self, ended_before: int) -> int:
        """How many are due whose period ended by then."""
        return int(
            fetch(
                self._database,
                "SELECT count(*) FROM report WHERE state = 'due' AND end_at <= ?",
                (ended_before,),
            )[0][0]
        )

    def by_state(self) -> dict[str, int]:
        """How many there are in each state that has any."""
        sql = "SELECT state, count(*) FROM report GROUP BY state"
        return {state: int(number) for state, number in fetch(self._database, sql)}

    def get(self, identity: str) -> Report | None:
        rows = fetch(self._database, f"SELECT {COLUMNS} FROM report WHERE id = ?", (identity,))
        return report_of(rows[0]) if rows else None

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

    def was_dropped(self, identity: str) -> bool:
        """Whether an earlier part of the same report was dropped."""
        sql = (
            "SELECT 1 FROM report AS mine JOIN report AS other ON other.policy_domain ="
            " mine.policy_domain AND other.configuration = mine.configuration AND other.begin_at ="
            " mine.begin_at AND other.end_at = mine.end_at WHERE mine.id = ? AND other.note = ?"
        )
        return bool(fetch(self._database, sql, (identity, DROPPED)))

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
