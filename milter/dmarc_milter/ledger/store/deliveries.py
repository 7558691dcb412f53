"""Deliveries: one report to one address. What the receiving MTA said decides, and the last one
settled settles the report."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch
from dmarc_milter.ledger.store.reports import LEASE, SKEW, ReportState


class DeliveryState(StrEnum):
    """`refused` is a 5xx, `suppressed` an address that is left alone, `expired` one that was tried
    for too long.

    `skipped` never was for sending: not authorised, no MX, too large for it.
    """

    QUEUED = "queued"
    SENT = "sent"
    REFUSED = "refused"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    SKIPPED = "skipped"


class Delivery(NamedTuple):
    """`last_reply` is what the receiving side said to the latest of `attempts`, at `last_at`."""

    report_id: str
    address: str
    format: str
    max_size: int | None
    state: DeliveryState
    attempts: int
    next_at: int
    last_reply: str
    last_at: int
    tag: str = ""
    """Eight hexadecimal digits that its bounces come back with; "" when it was queued by a version
    that had none."""


_COLUMNS = (
    "report_id, address, format, max_size, state, attempts, next_at, last_reply, last_at, tag"
)


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery._make(
        (*row[:4], DeliveryState(row[4]), int(row[5]), int(row[6]), row[7], int(row[8]), row[9])
    )


class Deliveries:
    """Everything raises StoreError."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def claim(
        self, owner: str, *, at_once: bool = False, lease: int = LEASE, limit: int = 20
    ) -> list[Delivery]:
        """Take queued deliveries whose time has come, and those of a host that died. `at_once`:
        whose time has not come, too."""

        def work(transaction: Transaction) -> list[Delivery]:
            now = int(self._clock())
            found = transaction.all(
                f"SELECT {_COLUMNS} FROM delivery"
                " WHERE state = 'queued' AND next_at <= ? AND lease_until < ?"
                " ORDER BY next_at, report_id, address LIMIT ? {skip_locked}",
                (2**62 if at_once else now, now - SKEW, limit),
            )
            transaction.many(
                "UPDATE delivery SET lease_owner = ?, lease_until = ? WHERE report_id = ? AND"
                " address = ?",
                [(owner, now + lease, row[0], row[1]) for row in found],
            )
            return [_delivery(row) for row in found]

        return attempt(self._database, work)

    def settle(
        self, delivery: Delivery, owner: str, state: DeliveryState, reply: str, *, next_at: int = 0
    ) -> bool:
        """What became of a claimed delivery; QUEUED with `next_at` is a try that may be repeated.
        False: the lease was lost.

        When no delivery of the report is queued any more the report is settled too: sent if any
        was, and only then its rows go.
        """

        def work(transaction: Transaction) -> bool:
            now = int(self._clock())
            # What was dropped on its way and taken all the same has been sent.
            sent = state is DeliveryState.SENT
            still = "state IN ('queued', 'suppressed')" if sent else "state = 'queued'"
            transaction.one(
                "SELECT id FROM report WHERE id = ? {for_update}", (delivery.report_id,)
            )  # its deliveries one at a time
            mine = transaction.run(
                "UPDATE delivery SET state = ?, attempts = attempts + 1, next_at = ?, last_reply ="
                " ?, last_at = ?, lease_owner = '', lease_until = 0 WHERE report_id = ? AND address"
                f" = ? AND {still} AND lease_owner = ?",
                (
                    state.value,
                    next_at,
                    reply[:500],
                    now,
                    delivery.report_id,
                    delivery.address,
                    owner,
                ),
            )
            if mine and state is not DeliveryState.QUEUED:
                _settle_report(transaction, delivery.report_id, now)
            return mine == 1

        return attempt(self._database, work)

    def release(self, delivery: Delivery, owner: str, next_at: int, note: str = "") -> bool:
        """Give a claim back untried, e.g. because a cap of the day is reached; `note` says so in
        place of the last reply."""
        sql = (
            "UPDATE delivery SET next_at = ?, last_reply = ?, lease_owner = '', lease_until = 0"
            " WHERE report_id = ? AND address = ? AND state = 'queued' AND lease_owner = ?"
        )
        values = (next_at, note or delivery.last_reply, delivery.report_id, delivery.address, owner)
        return attempt(self._database, lambda transaction: transaction.run(sql, values) == 1)

    def bounced(self, report_id: str, address: str, text: str) -> None:
        """What came back afterwards, in place of the reply that had accepted it."""
        sql = "UPDATE delivery SET last_reply = ? WHERE report_id = ? AND address = ?"
        attempt(
            self._database,
            lambda transaction: transaction.run(sql, (text[:500], report_id, address)),
        )

    def of(self, report_id: str) -> list[Delivery]:
        """The deliveries of a report."""
        sql = f"SELECT {_COLUMNS} FROM delivery WHERE report_id = ? ORDER BY address"
        return [_delivery(row) for row in fetch(self._database, sql, (report_id,))]

    def waiting(self) -> int:
        """How many are queued."""
        return int(
            fetch(self._database, "SELECT count(*) FROM delivery WHERE state = 'queued'")[0][0]
        )


def _settle_report(transaction: Transaction, report_id: str, now: int) -> None:
    states = {
        row[0]
        for row in transaction.all("SELECT state FROM delivery WHERE report_id = ?", (report_id,))
    }
    if DeliveryState.QUEUED in states:
        return
    if DeliveryState.SENT in states:
        state, note = ReportState.SENT, ""
    elif DeliveryState.EXPIRED in states:
        state, note = ReportState.EXPIRED, "no destination took it in time"
    else:
        state, note = ReportState.SUPPRESSED, "every destination refused it or is suppressed"
    transaction.run(
        "UPDATE report SET state = ?, note = ?, done_at = ? WHERE id = ?",
        (state.value, note, now, report_id),
    )
    # A failure report's deliveries stand here too; what it quoted is not kept longer than needed.
    transaction.run(
        "UPDATE failure SET state = ?, last_reply = ? WHERE id = ? AND state = 'queued'",
        (state.value, note, report_id),
    )
    transaction.run(
        "DELETE FROM report_document WHERE report_id = ? AND format = 'rfc9991'", (report_id,)
    )
    if state is ReportState.SENT:
        transaction.run("DELETE FROM report_row WHERE report_id = ?", (report_id,))
