"""The decision log of a PostgreSQL store by days: a partition is made when a day needs one and
dropped whole, so that forgetting a day costs nothing and its files go.

A store whose engine refuses partitions, or whose administrator does not want them, has the plain
table; everything else works alike there.

A partition is made beside the log and attached, which waits for no reader and no writer (CREATE
TABLE ... PARTITION OF would). It goes by DETACH CONCURRENTLY, given up after a while and finished
by the next run, and DROP. There is no default partition: it would have to be searched for each new
one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch

LOG = logging.getLogger("dmarc_milter.ledger")

AHEAD = 7
"""Days after today for which partitions are made."""
NEVER = 253402214400
"""The last day of the year 9999: no clock says that."""
FEWEST_VERSION = 140_000
"""PostgreSQL 14: the first with DETACH CONCURRENTLY."""
WAIT = 5.0
"""Seconds that dropping one partition waits for those who read the log."""
LOCK_WAIT = "SET LOCAL lock_timeout = '3s'"
GOING = "dmarc-milter: its time is over, to be dropped"
"""The comment on a partition that is on its way out: no other table is ever dropped."""
BOUNDS = re.compile(r"FROM \((?:MINVALUE|'?(-?\d+)'?)\) TO \('?(-?\d+)'?\)")


class Partition(NamedTuple):
    """Rows with begin <= at < end; `begin` is None for what an older version left. `pending`: being
    detached, seen by no new query."""

    name: str
    begin: int | None
    end: int
    pending: bool


def day_of(at: float) -> int:
    """The first second of a day (UTC)."""
    return int(at // DAY) * DAY


def name_of(day: int) -> str:
    """The table of one day."""
    return f"decision_d{datetime.fromtimestamp(day, UTC):%Y%m%d}"


def supported(transaction: Transaction) -> bool:
    """Whether the engine says that it is a PostgreSQL that can do this."""
    row = transaction.one("SELECT current_setting('server_version_num')")
    return row is not None and str(row[0]).isdecimal() and int(row[0]) >= FEWEST_VERSION


def is_partitioned(transaction: Transaction) -> bool:
    """Whether the decision log of a PostgreSQL store is by days."""
    row = transaction.one("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('decision')")
    return row is not None and bool(row[0])


def has_days(database: Database) -> bool:
    """Whether the decision log is by days. Raises StoreError."""
    if database.dialect == "sqlite":
        return False
    with database.transaction(write=False) as transaction:
        return is_partitioned(transaction)


def partitions(transaction: Transaction) -> list[Partition]:
    """All of them, oldest first."""
    found = []
    for name, bounds, pending in transaction.all(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), i.inhdetachpending FROM pg_inherits"
        " i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('decision')"
    ):
        if match := BOUNDS.search(bounds or ""):
            begin = int(match[1]) if match[1] is not None else None
            found.append(Partition(name, begin, int(match[2]), bool(pending)))
    return sorted(found, key=lambda each: each.end)


def make(database: Database, days: Iterable[int]) -> set[int]:
    """Partitions for these days, unless they are there; the days that have none now, because this
    account may not make tables or the day is just being dropped. Raises StoreError."""
    return {day for day in sorted(set(days)) if not attempt(database, partial(_make, day=day))}


RIGHTS = (
    "SELECT has_schema_privilege(current_schema(), 'CREATE') AND pg_has_role(relowner, 'USAGE')"
    " FROM pg_class WHERE oid = to_regclass('decision')"
)
"""Whether this account may make tables and attach them to the log."""


def _make(transaction: Transaction, day: int) -> bool:
    for each in partitions(transaction):
        if (each.begin is None or each.begin <= day) and day < each.end:
            return not each.pending
    if transaction.one(RIGHTS) != (True,):
        return False
    name = name_of(day)
    transaction.run(LOCK_WAIT)
    transaction.run(f"CREATE TABLE {name} (LIKE decision)")
    transaction.run(
        f"ALTER TABLE decision ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({day + DAY})"
    )
    return True


class LogDays:
    """The days of the decision log that are known to take rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_day: bool | None = None
        self._ready = set[int]()

    def without(self, times: Iterable[float], now: float, keep: int | None) -> set[int]:
        """Of the days of these times, those that get no rows: older than `keep` days, or without a
        partition that could be made. Raises StoreError."""
        days = {day_of(at) for at in times}
        first = day_of(now - keep * DAY) if keep is not None else 0
        if min(days, default=first) < first:  # a clock that is ahead keeps nothing out
            first = min(first, day_of(self._believed() - (keep or 0) * DAY))
        old = {day for day in days if not first <= day < NEVER}
        missing = days - old - self._ready
        if missing and self._by_day is None:
            self._by_day = has_days(self._database)
        left = make(self._database, missing) if missing and self._by_day else set()
        self._ready |= missing - left
        for what, which in (("older than is kept", old), ("no partition can be made", left)):
            if which:
                LOG.warning(
                    "messages of %s are counted and not kept in the decision log: %s",
                    ", ".join(f"{datetime.fromtimestamp(day, UTC):%Y-%m-%d}" for day in which),
                    what,
                )
        return old | left

    def _believed(self) -> int:
        """The last time that a clean-up believed; 0 before the first one."""
        rows = fetch(self._database, "SELECT seen_at FROM clock WHERE only_row = 1")
        return int(rows[0][0]) if rows else 0


def make_ahead(database: Database, now: float) -> None:
    """Partitions for today and the days to come. Raises StoreError."""
    if has_days(database):
        make(database, (day_of(now) + number * DAY for number in range(AHEAD + 1)))


def drop_older(database: Database, before: int) -> int:
    """Drop the partitions that end by then, and what an earlier run could not finish; how many rows
    went. Stops where a reader is in the way: the next run goes on. Raises StoreError."""
    gone = 0
    for each in _attached(database):
        if each.pending:
            if not _run(database, f"ALTER TABLE decision DETACH PARTITION {each.name} FINALIZE"):
                return gone
        elif each.end <= before:
            rows = int(fetch(database, f"SELECT count(*) FROM {each.name}")[0][0])
            if not _detach(database, each.name):
                return gone
            gone += rows
    _drop_detached(database)
    return gone


def end_of_old(database: Database) -> int:
    """Where the partition ends that an older version left; 0 where there is none. Its rows go one
    by one: as a whole it would stay too long. Raises StoreError."""
    return max((each.end for each in _attached(database) if each.begin is None), default=0)


def _attached(database: Database) -> list[Partition]:
    with database.transaction(write=False) as transaction:
        return partitions(transaction)


def _detach(database: Database, name: str) -> bool:
    def mark(transaction: Transaction) -> None:
        transaction.run(LOCK_WAIT)
        transaction.run(f"COMMENT ON TABLE {name} IS '{GOING}'")

    attempt(database, mark)
    return _run(database, f"ALTER TABLE decision DETACH PARTITION {name} CONCURRENTLY")


def _run(database: Database, sql: str) -> bool:
    return database.alone(sql, seconds=WAIT)


def _drop_detached(database: Database) -> None:
    """Tables that were partitions and carry the comment that says so."""
    found = fetch(
        database,
        "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND NOT c.relispartition AND"
        " c.relnamespace = current_schema()::regnamespace AND obj_description(c.oid, 'pg_class') ="
        " ?",
        (GOING,),
    )

    def drop(transaction: Transaction, name: str) -> None:
        transaction.run(LOCK_WAIT)
        transaction.run(f"DROP TABLE IF EXISTS {name}")

    for (name,) in found:
        attempt(database, partial(drop, name=name))
