"""What the hosts' sent logs say, for a store that was put back to an earlier state: a delivery that
stands here has left already."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dmarc_milter.ledger.sent_log import HandedOver
from dmarc_milter.ledger.store.database import (
    CHUNK,
    Database,
    Transaction,
    attempt,
    chunks,
    fetch,
    with_list,
)

SETTLING = 3600
"""Seconds after a loss in which no report leaves by itself where several hosts share the store:
each of them has told what it had sent by then."""


class HandedOverReports:
    """Everything raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tell(self, lines: Sequence[HandedOver]) -> int:
        """Lines of a host's sent log: what the store has forgotten is noted; how many that were."""
        return sum(
            attempt(self._database, partial(_tell, lines=chunk)) for chunk in chunks(lines, CHUNK)
        )

    def at(self, report_id: str, address: str) -> int:
        """When this report was handed over for this address by what the store has forgotten; 0
        where it was not."""
        sql = "SELECT at FROM handed_over WHERE report_id = ? AND address = ?"
        rows = fetch(self._database, sql, (report_id, address))
        return int(rows[0][0]) if rows else 0

    def last_loss(self) -> tuple[int, int]:
        """When a host found last that the store had lost something, and how many hosts there
        are."""
        rows = fetch(
            self._database, "SELECT coalesce(max(gap_at), 0), count(DISTINCT host) FROM origin"
        )
        return int(rows[0][0]), int(rows[0][1])


def _tell(transaction: Transaction, lines: Sequence[HandedOver]) -> int:
    ids = sorted({line.report_id for line in lines})
    sql = (
        "SELECT report_id, address, state, lease_owner, last_at FROM delivery WHERE report_id IN []"
    )
    known = {(row[0], row[1]): row[2:] for row in transaction.all(with_list(sql, ids), ids)}
    forgotten = [
        line for line in lines if _is_forgotten(line, known.get((line.report_id, line.address)))
    ]
    add = (
        "INSERT INTO handed_over (report_id, address, at) VALUES (?, ?, ?) ON CONFLICT (report_id,"
        " address) DO NOTHING"
    )
    return sum(transaction.run(add, (line.report_id, line.address, line.at)) for line in forgotten)


def _is_forgotten(line: HandedOver, delivery: tuple[str, str, int] | None) -> bool:
    """Whether the store does not know that this was handed over. A run that died in the middle
    still has its lease there, and a later try of another one its time: these are tried again."""
    if delivery is None:
        return True
    state, owner, last_at = delivery
    return state == "queued" and owner != line.owner and int(last_at) < line.at
