"""Whether this host's clock may be believed before anything is deleted or sent by it.

The store remembers the time of the last clean-up or report run. A clock that is days ahead of that
is doubted: a machine that was off for long waits a day, a clock that is wrong is mostly put right
by then. Nobody deletes, sends or gives up a report meanwhile.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.spool.kept import PAST
from dmarc_milter.ledger.store.database import Database, Transaction, attempt

LOG = logging.getLogger("dmarc_milter.ledger")

JUMP = 3 * DAY
"""Seconds between two looks at the clock beyond which it is doubted, in either direction."""
PROOF = DAY
"""Seconds for which a doubted clock must have gone on evenly to be believed."""
APART = 3600
"""Seconds that the clocks of a host and of the database server may differ."""
FAR = 2 * DAY
"""Seconds ahead of now that nothing is ever planned for: such a time was written by a wrong
clock."""


class _SeenTimes(NamedTuple):
    """`at` is the last time that was believed; `doubted_from` to `doubted_at` what was not, 0
    without a doubt."""

    at: int
    doubted_from: int = 0
    doubted_at: int = 0


def doubt(database: Database, now: int, *, trusted: bool = False) -> str:
    """Why the clock that says `now` is not to be believed, in one sentence, or "". `trusted`: an
    administrator says that it is right. Raises StoreError."""
    if not trusted and (reason := _other_than_server(database, now)):
        return reason

    def work(transaction: Transaction) -> str:
        seen = _read(transaction, now)
        after, reason = _judged(seen, now, trusted=trusted)
        if after != seen:
            sql = (
                "INSERT INTO clock (only_row, seen_at, doubted_from, doubted_at) VALUES (1, ?, ?,"
                " ?) ON CONFLICT (only_row) DO UPDATE SET seen_at = excluded.seen_at, doubted_from"
                " = excluded.doubted_from, doubted_at = excluded.doubted_at"
            )
            transaction.run(sql, after)
        return reason

    return attempt(database, work)


def _judged(seen: _SeenTimes, now: int, *, trusted: bool) -> tuple[_SeenTimes, str]:
    if not trusted and now < PAST:
        return seen, f"this host's clock says {_shown(now)}: nothing is deleted or reported by it"
    if trusted or seen.at < PAST or abs(now - seen.at) <= JUMP:
        return _SeenTimes(now), ""
    even = seen.doubted_from and 0 <= now - seen.doubted_at <= JUMP
    since = seen.doubted_from if even else now
    if even and now - since >= PROOF:
        return _SeenTimes(now), ""
    reason = (
        f"this host's clock says {_shown(now)}, the store has seen {_shown(seen.at)} last: nothing"
        f" is deleted or reported until {_shown(since + PROOF)}. If the clock is right:"
        " `dmarc-milter store expire --clock-is-right`"
    )
    return seen._replace(doubted_from=since, doubted_at=now), reason


def _read(transaction: Transaction, now: int) -> _SeenTimes:
    row = transaction.one("SELECT seen_at, doubted_from, doubted_at FROM clock WHERE only_row = 1")
    if row is not None:
        return _SeenTimes(*map(int, row))
    # No look before this one: what the hosts have handed over tells the time as well.
    drained = transaction.one("SELECT coalesce(max(drained_at), 0) FROM origin")
    latest = int(drained[0]) if drained else 0
    return _SeenTimes(min(latest, now) or now)


def _other_than_server(database: Database, now: int) -> str:
    if database.dialect == "sqlite":
        return ""
    with database.transaction(write=False) as transaction:
        row = transaction.one("SELECT extract(epoch FROM clock_timestamp())")
    server = int(row[0]) if row else now
    if abs(server - now) <= APART:
        return ""
    return (
        f"this host's clock says {_shown(now)}, that of the database server {_shown(server)}:"
        " nothing is deleted or reported by this host until one of them is put right"
    )


def _shown(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at} s after 1970"


REPAIRS = (
    "UPDATE report SET lease_owner = '', lease_until = 0 WHERE lease_until > ?",
    "UPDATE report SET closed_at = {now} WHERE closed_at > ?",
    "UPDATE report SET next_at = {now} WHERE next_at > ? AND state = 'due' AND closed_at > 0",
    "UPDATE delivery SET lease_owner = '', lease_until = 0 WHERE lease_until > ?",
    "UPDATE delivery SET next_at = {now} WHERE next_at > ? AND state = 'queued'",
    "UPDATE failure SET lease_owner = '', lease_until = 0 WHERE lease_until > ?",
    "UPDATE failure SET next_at = {now} WHERE next_at > ? AND state IN ('due', 'building')",
    "UPDATE failure SET at = {now} WHERE at > ?",
    "UPDATE known_domain SET last_at = {now} WHERE last_at > ?",
    "DELETE FROM lease WHERE until_at > ?",
    "DELETE FROM authorisation WHERE expires_at > ?",
)
"""What a clock that was ahead left behind: leases that nobody could take, tries that would wait for
that date."""


def put_right(database: Database, now: int) -> int:
    """Bring times that lie far ahead of a believed clock back to now; how many rows. Raises
    StoreError."""
    total = 0
    for sql in REPAIRS:
        values = (now,) * sql.count("{now}") + (now + FAR,)

        def work(
            transaction: Transaction,
            sql: str = sql.replace("{now}", "?"),
            values: tuple[int, ...] = values,
        ) -> int:
            return transaction.run(sql, values)

        total += attempt(database, work)
    if total:
        LOG.warning("store: %d times that a wrong clock had written were put right", total)
    return total


def believe(database: Database, now: int, *, trusted: bool = False) -> None:
    """Before a clean-up or a report run. Raises StoreError ("clock") for a clock that is in doubt;
    else what a wrong one left behind is put right."""
    if reason := doubt(database, now, trusted=trusted):
        raise StoreError("clock", f"{database.name}: {reason}")
    put_right(database, now)
