"""Rows that the store has said it holds, kept for a while: a store that is restored from a backup,
or a failover that lost commits, gets them again.

They stand in a table of their own, so that the mail path writes into small tables, and give way to
rows that wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from dmarc_milter.ledger.spool.schema import SpoolOptions, bound

CHUNK = 2000
"""Rows that are given up at a time; nobody waits for the file longer than that takes."""
SHARE = 2, 5
"""The part of the spool's bound (a fraction) beyond which kept rows give way to those that wait."""
FAR = 2 * 86400
"""Seconds ahead of now that a wrong clock has written: nothing is kept until that date."""
PAST = 1_735_689_600
"""2025-01-01: before that this program was not written, and no clock is right. A machine that has
none of its own begins in 1970, until it has asked for the time."""


def drained(connection: sqlite3.Connection, through: int, options: SpoolOptions, now: float) -> int:
    """The store has all rows up to `through`: they are kept or forgotten, and older ones go whose
    time is over; how many that were. Raises sqlite3.Error."""
    keeps = options.keep_seconds > 0 and not _is_crowded(connection, options)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if keeps:
            connection.execute(
                "INSERT OR REPLACE INTO kept (seq, id, drained_at, facts, sample) SELECT seq, id,"
                " ?, facts, sample FROM spool WHERE seq <= ?",
                (int(now), through),
            )
        connection.execute("DELETE FROM spool WHERE seq <= ?", (through,))
        connection.execute("UPDATE origin SET drained = ? WHERE drained < ?", (through, through))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return _give_up(connection, options, now)


def _give_up(connection: sqlite3.Connection, options: SpoolOptions, now: float) -> int:
    """What was drained by a wrong clock is kept as if that were now; a clock in the past says
    nothing of any row."""
    gone, right = 0, now >= PAST
    while True:
        first = connection.execute("SELECT drained_at FROM kept ORDER BY seq LIMIT 1").fetchone()
        if first is None:
            return gone
        if right and not PAST <= int(first[0]) <= now + FAR:
            sql = "UPDATE kept SET drained_at = ? WHERE drained_at < ? OR drained_at > ?"
            connection.execute(sql, (int(now), PAST, int(now + FAR)))
            continue
        if _is_crowded(connection, options):
            gone += give_way(connection)
        elif right and int(first[0]) < now - options.keep_seconds:
            gone += give_way(connection, PAST, int(now - options.keep_seconds))
        else:
            return gone


def give_way(connection: sqlite3.Connection, since: int = 0, before: int = 2**62) -> int:
    """Forget the oldest kept rows, a chunk at most, of those that were drained between these times;
    how many. Raises sqlite3.Error."""
    sql = (
        "DELETE FROM kept WHERE seq <= (SELECT max(seq) FROM (SELECT seq FROM kept ORDER BY seq"
        " LIMIT ?)) AND drained_at >= ? AND drained_at < ?"
    )
    return connection.execute(sql, (CHUNK, since, before)).rowcount


def _is_crowded(connection: sqlite3.Connection, options: SpoolOptions) -> bool:
    pages, unused = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count")
    )
    part, whole = SHARE
    return (pages - unused) * whole > bound(options.max_bytes) * part


def rows_after(
    connection: sqlite3.Connection, after: int, limit: int
) -> list[tuple[int, str, bytes, bytes | None]]:
    """Kept rows with greater sequence numbers, in order. Raises sqlite3.Error."""
    sql = "SELECT seq, id, facts, sample FROM kept WHERE seq > ? ORDER BY seq LIMIT ?"
    rows: list[Any] = connection.execute(sql, (after, limit)).fetchall()
    return rows


def number_after(connection: sqlite3.Connection, after: int) -> int:
    """How many there are. Raises sqlite3.Error."""
    sql = "SELECT count(*) FROM kept WHERE seq > ?"
    return int(connection.execute(sql, (after,)).fetchone()[0])


Judge = Callable[[bytes], bool]
"""Whether facts, or a header, are what is to be forgotten."""


def erase(connection: sqlite3.Connection, meant: Judge, named: Judge, *, dry: bool) -> int:
    """Delete rows whose facts are meant, waiting or kept; of those whose header names it, the
    header. How many rows that are. Raises sqlite3.Error."""
    total = 0
    for table in ("spool", "kept"):
        last = -1
        while True:
            sql = f"SELECT seq, facts, sample FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = connection.execute(sql, (last, CHUNK)).fetchall()
            if not rows:
                break
            last = rows[-1][0]
            gone = [(seq,) for seq, facts, _ in rows if meant(facts)]
            without = [
                (seq,) for seq, _, sample in rows if (seq,) not in gone and sample and named(sample)
            ]
            total += len(gone) + len(without)
            if (gone or without) and not dry:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(f"DELETE FROM {table} WHERE seq = ?", gone)
                connection.executemany(f"UPDATE {table} SET sample = NULL WHERE seq = ?", without)
                connection.execute("COMMIT")
    return total
