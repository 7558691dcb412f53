"""The spools that a store knows: each has a number, under which it counts."""

from __future__ import annotations

from dmarc_milter.ledger.errors import Conflict
from dmarc_milter.ledger.store.database import Transaction


def enrol(transaction: Transaction, identity: str, host: str) -> tuple[int, int]:
    """The spool's number and the last of its rows that is counted; a new spool gets a number.
    Raises Conflict."""
    ask = "SELECT number, last_seq FROM origin WHERE identity = ?"
    row = transaction.one(ask, (identity,))
    if row is None:
        transaction.run(
            "INSERT INTO origin (identity, host, last_seq, drained_at, number) SELECT ?, ?, 0, 0,"
            " coalesce(max(number), 0) + 1 FROM origin WHERE true ON CONFLICT DO NOTHING",
            (identity, host),
        )
        row = transaction.one(ask, (identity,))
    if row is None:
        raise Conflict  # another new one took the number
    return int(row[0]), int(row[1])
