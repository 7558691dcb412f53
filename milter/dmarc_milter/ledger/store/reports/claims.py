"""Who builds a report: claims, and leases that hold them. One that has run out is taken over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list
from dmarc_milter.ledger.store.reports.stored_report import COLUMNS, Report, ReportState, report_of

LEASE = 900
"""Seconds that a claim holds."""
SKEW = 120
"""Seconds that a lease must have been over before another host takes it: clocks may differ by a
minute either way."""
EMPTY = 86400
"""Seconds after its period from which a report without a message is looked at: until then some
batch may be about to count into it."""
HAS_MESSAGES = (
    "(report.messages > 0 OR report.end_at <= ? OR EXISTS (SELECT 1 FROM report_count c WHERE"
    " c.report_id = report.id))"
)
EXACT_ROWS = (
    "UPDATE report SET rows_count = (SELECT count(DISTINCT row_key) FROM report_row WHERE report_id"
    " = report.id) - coalesce((SELECT sum(c.rows_count) FROM report_count c WHERE c.report_id ="
    " report.id), 0) WHERE id = ? AND closed_at = 0"
)


def rows_of(
    transaction: Transaction, table: str, columns: str, ids: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Those columns of a table's rows with these ids, in the order of the ids."""
    sql = with_list(f"SELECT {columns} FROM {table} WHERE id IN []", ids)
    found = {row[0]: row for row in transaction.all(sql, ids)} if ids else {}
    return [found[identity] for identity in ids]


class Claims:
    """Everything raises StoreError. Methods that change a claimed report return False when the
    lease was lost to another host."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

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
        host left in building; `among`: of these ids only. A report is made a moment before its
        first batch is counted: one that has no message yet is left to that batch.

        `owner` names this run of this process and no other. `at_once` takes postponed ones too;
        with a great `ended_before` even the period still open (`report send --now`).
        """
        these = "" if among is None else with_list(" AND id IN []", among)
        sql = (
            f"SELECT id FROM report WHERE ((state = 'due' AND end_at <= ? AND next_at <= ? AND"
            f" {HAS_MESSAGES}) OR (state = 'building' AND lease_until < ?)){these} ORDER BY"
            " next_at, id LIMIT ? {skip_locked}"
        )

        def work(transaction: Transaction) -> list[Report]:
            now = int(self._clock())
            times = (ended_before, 2**62 if at_once else now, now - EMPTY, now - SKEW)
            ids = [row[0] for row in transaction.all(sql, (*times, *(among or ()), limit))]
            # Only now, when they are locked: what a drain has just counted is seen.
            transaction.many(EXACT_ROWS, [(identity,) for identity in ids])
            reports = [report_of(row) for row in rows_of(transaction, "report", COLUMNS, ids)]
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
