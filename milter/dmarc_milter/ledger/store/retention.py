"""What the store forgets, and when. Rows go in small transactions, so that nothing else ever waits
long."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.clock import believe
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.merge_hosts import merge_hosts
from dmarc_milter.ledger.sent_log import KEPT_SECONDS
from dmarc_milter.ledger.store import log_size
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list
from dmarc_milter.ledger.store.lease import Lease
from dmarc_milter.ledger.store.pace import Pace, give_back
from dmarc_milter.ledger.store.partitions import (
    day_of,
    drop_older,
    end_of_old,
    has_days,
    make_ahead,
)
from dmarc_milter.ledger.store.rollups import HOUR

LEASE = 600
"""Seconds that one host keeps the others from forgetting too; every chunk begins them anew."""
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
    keep_untried: bool = False
    """Never forget a report that is due and was never tried: reporting is on, and its job will say
    what becomes of it."""
    keep_untried_failures: bool = False
    """The same for failure reports, which are switched on by themselves."""


def clean_up(
    database: Database, retention: Retention, *, now: int, trusted: bool = False
) -> dict[str, int]:
    """`expire` where the clock that says `now` may be believed (`trusted`: an administrator says
    so). Raises StoreError ("clock") where not."""
    believe(database, now, trusted=trusted)
    return expire(database, retention, now=now)


def expire(
    database: Database,
    retention: Retention,
    *,
    now: int,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Forget what is due, and make room for the days to come; how many rows of which table went.
    Of several hosts one does it. Raises StoreError; what went before that stays gone."""
    lease = Lease(database, "expire", LEASE)
    if not lease.take():
        return {}
    try:
        make_ahead(database, now)
        gone = _expire(Pace(database, lease.take, sleep), retention, now)
        give_back(database, sleep)
    finally:
        with suppress(StoreError):
            lease.release()
    return {table: number for table, number in gone.items() if number}


def _expire(pace: Pace, retention: Retention, now: int) -> dict[str, int]:
    keep = now - retention.report_days * DAY
    unsent = min(keep, now - int(retention.unsent_days * DAY))
    gone = {
        "decision": _decisions(pace, retention, now),
        "report": _reports(pace, keep, unsent, keep_untried=retention.keep_untried),
    }
    for table, key, column, before in (
        ("parked", "id", "at", keep),
        ("quota", "scope", "begin_at", now - WEEK),
        ("spent", "scope", "day", now - WEEK),
        ("handed_over", "report_id", "at", now - KEPT_SECONDS),
        ("authorisation", "policy_domain", "expires_at", now),
        ("suppression", "address", "until_at", now),
        ("suppressed_pair", "address", "until_at", now),
        ("daily", "day", "day", now - YEAR),
        ("known_domain", "domain", "last_at", now - YEAR),
    ):
        gone[table] = pace.delete(table, key, f"{column} < ?", before)
    _sums(pace, day_of(now - retention.decision_days * DAY), now)
    gone["known_domain"] += _beyond_known(pace)
    untried = " AND NOT (state = 'due' AND attempts = 0)" * retention.keep_untried_failures
    gone["failure"] = pace.delete("failure", "id", f"at < ?{untried}", unsent)
    done = "state NOT IN ('due', 'building', 'queued') AND at < ?"
    gone["failure"] += pace.delete("failure", "id", done, keep)
    orphans = "failure_id NOT IN (SELECT id FROM failure)"
    gone["incident_count"] = pace.delete("incident_count", "failure_id", orphans)
    settled = "format = 'rfc9991' AND state <> 'queued' AND last_at < ?"
    gone["delivery"] = pace.delete("delivery", "report_id", settled, keep)
    return gone


def _beyond_known(pace: Pace) -> int:
    """Domains that passed here, beyond the number that is remembered: the oldest go."""
    first = fetch(
        pace.database,
        "SELECT last_at FROM known_domain ORDER BY last_at DESC, domain LIMIT 1 OFFSET ?",
        (KNOWN,),
    )
    if not first:
        return 0
    return pace.delete("known_domain", "domain", "last_at <= ?", int(first[0][0]))


CAP = "SELECT at FROM decision ORDER BY at DESC LIMIT 1 OFFSET ?"
"""The newest decision beyond a number of them: read from the index on `at` alone."""


def _decisions(pace: Pace, retention: Retention, now: int) -> int:
    """By age, of a log by days in whole days; then by number: the newest `decision_rows` stay."""
    before = now - retention.decision_days * DAY
    beyond = fetch(pace.database, CAP, (retention.decision_rows,))
    most = int(beyond[0][0]) + 1 if beyond else 0
    if not has_days(pace.database):
        return pace.delete("decision", "id", "at < ?", max(before, most))
    gone = drop_older(pace.database, max(before, most))
    aged = min(before, end_of_old(pace.database))
    return gone + pace.delete("decision", "id", "at < ?", max(aged, most))


def _sums(pace: Pace, before: int, now: int) -> None:
    """As old as the log may be; and the author domains that nobody has seen since."""
    pace.delete("author_name", "reversed", "last_at < ?", before)
    for span in (HOUR, DAY):
        pace.delete("outcome_sum", "author_reversed", "span = ? AND begin_at < ?", span, before)
    pace.delete("author_day", "author_reversed", "day < ?", before)
    merge_hosts(pace, now)
    pace.delete("hour_total", "hour", "hour < ?", before)
    # Days of which the log has lost a part: all up to the oldest that it has.
    oldest = fetch(pace.database, "SELECT min(at) FROM decision")[0][0]
    log_size.recount(pace.database, max(before, int(oldest or 0)))


def _reports(pace: Pace, before: int, unsent: int, *, keep_untried: bool) -> int:
    """Reports that are done go whole; one that nobody ever sent (reporting is off, or nobody took
    it) is done after its own time."""
    total = 0
    sql = (
        "SELECT id FROM report WHERE end_at < ? AND lease_until < ? AND (state NOT IN ('due',"
        " 'building', 'queued') OR (end_at < ? AND closed_at < ?))"
        + " AND NOT (state = 'due' AND attempts = 0)" * keep_untried
        + " ORDER BY end_at, id LIMIT 20"
    )
    while found := fetch(pace.database, sql, (before, before, unsent, unsent)):
        ids = [row[0] for row in found]
        for identity in ids:
            pace.delete("report_row", "row_key", "report_id = ?", identity)
        attempt(pace.database, partial(_forget, ids=ids))
        total += len(ids)
    return total


def _forget(transaction: Transaction, ids: list[str]) -> None:
    for sql in (
        "DELETE FROM report_row WHERE report_id IN []",
        "DELETE FROM report_count WHERE report_id IN []",
        "DELETE FROM report_document WHERE report_id IN []",
        "DELETE FROM delivery WHERE report_id IN []",
        "DELETE FROM report WHERE id IN []",
    ):
        transaction.run(with_list(sql, ids), ids)
