"""Failure reports waiting (RFC 9991): one message for each way of failing of a policy domain and
day, with the number of incidents it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from dmarc_milter.core.stored import Facts, decode
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch
from dmarc_milter.ledger.store.reports import LEASE, SKEW, Document, NewDelivery, insert_deliveries

FailureState = Literal["due", "building", "queued", "sent", "suppressed", "expired"]


class Failure(NamedTuple):
    """`sample` are the message's header fields, redacted before they were stored; `id` is the
    delivery attempt's."""

    id: str
    at: int
    state: str
    incidents: int
    facts: Facts
    sample: bytes
    attempts: int
    next_at: int
    last_reply: str


_COLUMNS = "id, at, state, incidents, facts, sample, attempts, next_at, last_reply"


def _failure(row: tuple[Any, ...]) -> Failure:
    return Failure(
        row[0],
        int(row[1]),
        row[2],
        int(row[3]),
        decode(bytes(row[4])),
        bytes(row[5]),
        int(row[6]),
        int(row[7]),
        row[8],
    )


class Failures:
    """Everything raises StoreError."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def claim(
        self, owner: str, *, at_once: bool = False, lease: int = LEASE, limit: int = 20
    ) -> list[Failure]:
        """Take failure reports whose time has come, `at_once` others too; those claimed gather no
        further incidents."""

        def work(transaction: Transaction) -> list[Failure]:
            now = int(self._clock())
            found = transaction.all(
                f"SELECT {_COLUMNS} FROM failure WHERE (state = 'due' AND next_at <= ?)"
                " OR (state = 'building' AND lease_until < ?)"
                " ORDER BY next_at, id LIMIT ? {skip_locked}",
                (2**62 if at_once else now, now - SKEW, limit),
            )
            transaction.many(
                "UPDATE failure SET state = 'building', lease_owner = ?, lease_until = ? WHERE"
                " id = ?",
                [(owner, now + lease, row[0]) for row in found],
            )
            return [_failure(row)._replace(state="building") for row in found]

        return attempt(self._database, work)

    def settle(
        self, failure: Failure, owner: str, state: FailureState, reply: str, *, next_at: int = 0
    ) -> bool:
        """What became of it; "due" with `next_at` tries again. Once settled the sample goes. False:
        the lease was lost."""
        sample = failure.sample if state == "due" else b""
        sql = (
            "UPDATE failure SET state = ?, attempts = attempts + 1, next_at = ?, last_reply = ?,"
            " sample = ?, lease_owner = '', lease_until = 0 WHERE id = ? AND state = 'building' AND"
            " lease_owner = ?"
        )
        values = (state, next_at, reply[:500], sample, failure.id, owner)
        return attempt(self._database, lambda transaction: transaction.run(sql, values) == 1)

    def release(self, failure: Failure, owner: str) -> bool:
        """Give a claim back untried."""
        sql = (
            "UPDATE failure SET state = 'due', lease_owner = '', lease_until = 0 WHERE id = ? AND"
            " state = 'building' AND lease_owner = ?"
        )
        return attempt(
            self._database, lambda transaction: transaction.run(sql, (failure.id, owner)) == 1
        )

    def queue(
        self, failure: Failure, owner: str, document: Document, deliveries: Sequence[NewDelivery]
    ) -> bool:
        """Built: the document takes the sample's place, and each address gets a delivery; all at
        once. False: the lease was lost."""

        def work(transaction: Transaction) -> bool:
            mine = transaction.run(
                "UPDATE failure SET state = 'queued', sample = ?, last_reply = '', lease_owner ="
                " '', lease_until = 0 WHERE id = ? AND state = 'building' AND lease_owner = ?",
                (b"", failure.id, owner),
            )
            if mine:
                transaction.run("DELETE FROM report_document WHERE report_id = ?", (failure.id,))
                sql = (
                    "INSERT INTO report_document (report_id, format, filename, content) VALUES (?,"
                    " ?, ?, ?)"
                )
                transaction.run(sql, (failure.id, *document))
                insert_deliveries(transaction, failure.id, deliveries)
            return mine == 1

        return attempt(self._database, work)

    def get(self, identity: str) -> Failure | None:
        rows = fetch(self._database, f"SELECT {_COLUMNS} FROM failure WHERE id = ?", (identity,))
        return _failure(rows[0]) if rows else None

    def find(self, limit: int = 100) -> list[Failure]:
        """Newest first."""
        sql = f"SELECT {_COLUMNS} FROM failure ORDER BY at DESC, id LIMIT ?"
        return [_failure(row) for row in fetch(self._database, sql, (limit,))]
