"""Failure reports waiting (RFC 9991): one message for each way of failing of a policy domain and
day, with the number of incidents it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from dmarc_milter.core.stored import Facts, decode
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list
from dmarc_milter.ledger.store.reports import (
    DROPPED,
    LEASE,
    SKEW,
    Document,
    NewDelivery,
    insert_deliveries,
    rows_of,
)

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


_COLUMNS = (
    "id, at, state, incidents + coalesce((SELECT sum(incident_count.incidents) FROM incident_count"
    " WHERE failure_id = failure.id), 0), facts, sample, attempts, next_at, last_reply"
)


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
        self,
        owner: str,
        *,
        at_once: bool = False,
        lease: int = LEASE,
        limit: int = 20,
        among: Sequence[str] | None = None,
    ) -> list[Failure]:
        """Take failure reports whose time has come, `at_once` others too, `among`: of these ids
        only; those claimed gather no further incidents."""
        these = "" if among is None else with_list(" AND id IN []", among)

        def work(transaction: Transaction) -> list[Failure]:
            now = int(self._clock())
            ids = [
                identity
                for (identity,) in transaction.all(
                    f"SELECT id FROM failure WHERE ((state = 'due' AND next_at <= ?)"
                    f" OR (state = 'building' AND lease_until < ?)){these}"
                    " ORDER BY next_at, id LIMIT ? {skip_locked}",
                    (2**62 if at_once else now, now - SKEW, *(among or ()), limit),
                )
            ]
            # Only now, when they are locked: what a drain has just added is seen.
            failures = list(map(_failure, rows_of(transaction, "failure", _COLUMNS, ids)))
            transaction.many(
                "UPDATE failure SET state = 'building', lease_owner = ?, lease_until = ? WHERE"
                " id = ?",
                [(owner, now + lease, identity) for identity in ids],
            )
            return [failure._replace(state="building") for failure in failures]

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

    def open_ids(self) -> list[str]:
        """The ids of all that is due or being built, the next one first."""
        sql = "SELECT id FROM failure WHERE state IN ('due', 'building') ORDER BY next_at, id"
        return [row[0] for row in fetch(self._database, sql, ())]

    def find(
        self,
        states: Sequence[str] = (),
        *,
        policy_domain: str = "",
        since: int = 0,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Failure]:
        """Newest first; of messages that came at `since` or later."""
        conditions, values = ["at >= ?"], list[Any]([since])
        if states:
            conditions.append(with_list("state IN []", states))
            values += states
        if policy_domain:
            conditions.append("policy_domain = ?")
            values.append(policy_domain)
        sql = (
            f"SELECT {_COLUMNS} FROM failure WHERE {' AND '.join(conditions)} ORDER BY at DESC, id"
            " LIMIT ? OFFSET ?"
        )
        return [_failure(row) for row in fetch(self._database, sql, (*values, limit, offset))]

    def resend(self, identity: str) -> bool:
        """At once and once more, as far as there is something left to send. False: there is
        not."""
        now = int(self._clock())

        def work(transaction: Transaction) -> bool:
            waits = transaction.run(
                "UPDATE failure SET next_at = ? WHERE id = ? AND state = 'due'", (now, identity)
            )
            queued = transaction.run(
                "UPDATE delivery SET state = 'queued', attempts = 0, next_at = ?, lease_owner = '',"
                " lease_until = 0 WHERE report_id = ? AND state <> 'skipped' AND EXISTS (SELECT 1"
                " FROM report_document WHERE report_document.report_id = delivery.report_id)",
                (now, identity),
            )
            return waits + queued > 0

        return attempt(self._database, work)

    def drop(self, identity: str) -> bool:
        """Never to be sent: whatever its state but sent. What it quotes goes."""

        def work(transaction: Transaction) -> bool:
            gone = transaction.run(
                "UPDATE failure SET state = 'suppressed', last_reply = ?, sample = ?, lease_owner ="
                " '', lease_until = 0 WHERE id = ? AND state <> 'sent'",
                (DROPPED, b"", identity),
            )
            if gone:
                transaction.run(
                    "UPDATE delivery SET state = 'suppressed' WHERE report_id = ? AND state ="
                    " 'queued'",
                    (identity,),
                )
                transaction.run("DELETE FROM report_document WHERE report_id = ?", (identity,))
            return gone == 1

        return attempt(self._database, work)
