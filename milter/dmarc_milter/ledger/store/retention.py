"""What the store forgets, and when. Rows go in small transactions, so that nothing else ever waits
long."""

from __future__ import annotations

from dataclasses import dataclass

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list

CHUNK = 1000
WEEK = 7 * DAY
KNOWN = 1_000_000
"""Domains remembered for having passed here; beyond it those not seen for longest go."""
YEAR = 400 * DAY
"""Totals and known domains: long enough to compare with the same season of the year before."""
STALE = 7 * DAY
"""Seconds after which a report that was never tried is too old: reporting had been off."""


@dataclass(frozen=True, slots=True)
class Retention:
    """The [store] section's numbers. `report_days` are for what is done; what is not stays for
    `unsent_days` too."""

    decision_days: int = 14
    decision_rows: int = 2_000_000
    report_days: int = 30
    unsent_days: float = 8.0
    """As long as a report is waited for and tried."""


def expire(database: Database, retention: Retention, *, now: int) -> dict[str, int]:
    """Forget what is due; how many rows of which table went. Raises StoreError; what went before
    that stays gone."""
    keep = now - retention.report_days * DAY
    unsent = min(keep, now - int(retention.unsent_days * DAY))
    gone = {
        "decision": _decisions(database, retention, now),
        "report": _reports(database, keep, unsent),
    }
    for table, column, before in (
        ("parked", "at", keep),
        ("failure", "at", unsent),
        ("quota", "begin_at", now - WEEK),
        ("spent", "day", now - WEEK),
        ("authorisation", "expires_at", now),
        ("suppression", "until_at", now),
        ("daily", "day", now - YEAR),
        ("known_domain", "last_at", now - YEAR),
    ):
        gone[table] = _older(database, f"DELETE FROM {table} WHERE {column} < ?", before)
    gone["known_domain"] += _beyond_known(database)
    sql = "DELETE FROM failure WHERE state NOT IN ('due', 'building', 'queued') AND at < ?"
    gone["failure"] += _older(database, sql, keep)
    sql = "DELETE FROM delivery WHERE format = 'rfc9991' AND state <> 'queued' AND last_at < ?"
    gone["delivery"] = _older(database, sql, keep)
    return {table: number for table, number in gone.items() if number}


def _beyond_known(database: Database) -> int:
    """Domains that passed here, beyond the number that is remembered: the oldest go."""
    first = fetch(
        database,
        "SELECT last_at FROM known_domain ORDER BY last_at DESC, domain LIMIT 1 OFFSET ?",
        (KNOWN,),
    )
    if not first:
        return 0
    return _older(database, "DELETE FROM known_domain WHERE last_at <= ?", int(first[0][0]))


def _older(database: Database, sql: str, before: int) -> int:
    return attempt(database, lambda transaction: transaction.run(sql, (before,)))


def _decisions(database: Database, retention: Retention, now: int) -> int:
    """By age, then by number: the newest `decision_rows` stay."""
    before = now - retention.decision_days * DAY
    beyond = fetch(
        database,
        "SELECT at FROM decision ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?",
        (retention.decision_rows,),
    )
    if beyond:
        before = max(before, int(beyond[0][0]) + 1)
    sql = (
        "DELETE FROM decision WHERE id IN (SELECT id FROM decision WHERE at < ? ORDER BY at"
        " LIMIT ?)"
    )
    total = 0
    while number := attempt(database, lambda transaction: transaction.run(sql, (before, CHUNK))):
        total += number
    return total


def _reports(database: Database, before: int, unsent: int) -> int:
    """Reports that are done go whole; one that nobody ever sent (reporting is off, or nobody took
    it) is done after its own time."""
    total = 0
    while number := attempt(
        database, lambda transaction: _report_chunk(transaction, before, unsent)
    ):
        total += number
    return total


def _report_chunk(transaction: Transaction, before: int, unsent: int) -> int:
    found = transaction.all(
        "SELECT id FROM report WHERE end_at < ? AND lease_until < ? AND (state NOT IN ('due',"
        " 'building', 'queued') OR (end_at < ? AND closed_at < ?)) ORDER BY end_at, id LIMIT 20",
        (before, before, unsent, unsent),
    )
    ids = [row[0] for row in found]
    if not ids:
        return 0
    for sql in (
        "DELETE FROM report_row WHERE report_id IN []",
        "DELETE FROM report_document WHERE report_id IN []",
        "DELETE FROM delivery WHERE report_id IN []",
        "DELETE FROM report WHERE id IN []",
    ):
        transaction.run(with_list(sql, ids), ids)
    return len(ids)
