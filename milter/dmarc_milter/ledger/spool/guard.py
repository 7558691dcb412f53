"""A spool file that somebody deletes, truncates or replaces under the running program: noticing it,
and saving what can be saved.

SQLite goes on writing into a journal that no name leads to any more, or into a hole, and says
nothing: the rows would be gone with the process. A file is therefore known by what its names lead
to, which costs a few microseconds to look at.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmarc_milter.ledger.ownership import JOURNAL_MAGIC
from dmarc_milter.ledger.sqlite_file import MODE

if TYPE_CHECKING:
    from dmarc_milter.ledger.spool.file import SpoolRow

LOG = logging.getLogger("dmarc_milter.ledger")

JOURNAL_LIMIT = 64 << 20
"""Bytes that SQLite itself cuts a journal down to; it never makes one shorter while somebody has
it open."""
STEP = 500
"""Rows copied at a time."""
MEMORY_SECONDS, MEMORY_ROWS, MEMORY_OCTETS = 60.0, 1000, 4 << 20
"""How much of what was written last is remembered: longer than it takes to notice a damage, and
normally than a drain."""


class Marks:
    """What the names of an open SQLite file lead to: inode and size of file, journal and index."""

    def __init__(self, path: Path) -> None:
        self._names = [(os.path.realpath(path) + tail, tail) for tail in ("", "-wal", "-shm")]
        if self._names[0][0] != str(path):
            self._names.append((str(path), ""))  # a symbolic link that leads to it
        self._seen = [_look(name) for name, _ in self._names]

    def damage(self) -> str:
        """What happened to it, or ""."""
        for number, (name, tail) in enumerate(self._names):
            before, now = self._seen[number], _look(name)
            if tail == "-wal" and now is not None and not _begins_as_journal(name):
                return "its -wal file has been overwritten"
            if now == before:
                continue
            what = f"its {tail} file" if tail else "the file"
            if now is None:
                return f"{what} is gone"
            if before is None or now[:2] != before[:2]:
                return f"{what} has been replaced"
            if now[2] < (min(before[2], JOURNAL_LIMIT) if tail == "-wal" else before[2]):
                return f"{what} has been truncated"
            self._seen[number] = now
        return ""

    def is_ours(self, path: Path) -> bool:
        """Whether a name leads to one of the files that are open."""
        now = _look(str(path))
        return now is not None and any(
            stamp is not None and stamp[:2] == now[:2] for stamp in self._seen
        )

    def accept(self) -> None:
        """It is shorter than before, and whole all the same."""
        self._seen = [_look(name) for name, _ in self._names]


def _begins_as_journal(name: str) -> bool:
    """Whether it is empty or begins with SQLite's magic number (fileformat2.html, 4.1): without it
    nobody but those who have it open would read it. SQLite locks nothing in this file, so that to
    close it here takes no lock away."""
    try:
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        start = os.read(number, 4)
    except OSError:
        return True  # a directory: its inode tells
    finally:
        os.close(number)
    return len(start) < 4 or start in JOURNAL_MAGIC


def _look(name: str) -> tuple[int, int, int] | None:
    """Device, inode and bytes of a name, not of what a link leads to; None where there is
    nothing."""
    try:
        found = os.lstat(name)
    except OSError:
        return None
    if (
        stat.S_ISREG(found.st_mode)
        and found.st_mode & 0o600 != 0o600
        and found.st_uid == os.geteuid()
    ):
        with suppress(OSError):  # nobody could open it a second time: no drain, no new worker
            os.chmod(name, MODE)
            LOG.error(
                "spool: %s could not be read and written by its owner; its mode is 0640 again", name
            )
    return found.st_dev, found.st_ino, found.st_size


def is_whole(connection: sqlite3.Connection) -> bool:
    """Whether the file can be read from end to end, by a connection that has nothing of it in
    memory."""
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0]) == "ok"
    except sqlite3.Error:
        return False


class RecentRows:
    """The rows written last, for `MEMORY_SECONDS` and within a bound."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: deque[tuple[float, SpoolRow]] = deque()
        self._octets = 0

    def add(self, rows: Sequence[SpoolRow]) -> None:
        now = self._clock()
        self._rows.extend((now, row) for row in rows)
        self._octets += sum(map(_octets, rows))
        while self._rows and (
            self._rows[0][0] < now - MEMORY_SECONDS
            or len(self._rows) > MEMORY_ROWS
            or self._octets > MEMORY_OCTETS
        ):
            self._octets -= _octets(self._rows.popleft()[1])

    def rows(self) -> list[SpoolRow]:
        """Those that are not older than that, oldest first."""
        oldest = self._clock() - MEMORY_SECONDS
        return [row for at, row in self._rows if at >= oldest]


def _octets(row: SpoolRow) -> int:
    return len(row.facts) + len(row.sample or b"") + 200


def copied(old: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a damaged spool as far as they can be read: from the first on, then from the last
    back. Never raises."""
    last = 0
    try:
        while rows := old.execute(
            "SELECT seq, id, facts, sample FROM spool WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, STEP),
        ).fetchall():
            yield [row[1:] for row in rows]
            last = rows[-1][0]
    except sqlite3.Error:
        yield from _from_the_end(old, last)


def _from_the_end(old: sqlite3.Connection, last: int) -> Iterator[list[tuple[Any, ...]]]:
    before = 1 << 62
    sql = (
        "SELECT seq, id, facts, sample FROM spool WHERE seq > ? AND seq < ? ORDER BY seq DESC"
        " LIMIT 1"
    )
    with suppress(sqlite3.Error):
        while row := old.execute(sql, (last, before)).fetchone():
            yield [row[1:]]
            before = row[0]
