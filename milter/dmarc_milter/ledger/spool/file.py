"""The spool as a process uses it: writing in batches, draining, and going on in a new file when
this one is damaged.

WAL with synchronous=NORMAL: a commit has reached the kernel when it returns, so no process that
dies, however it dies, takes an answered message with it. A power cut can take the last moments:
FULL, which would save them, waits for the disk with every group.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.no_room import kind_of
from dmarc_milter.ledger.ownership import Access, why_not
from dmarc_milter.ledger.spool import kept
from dmarc_milter.ledger.spool.guard import Marks, RecentRows, copied, is_whole
from dmarc_milter.ledger.spool.kept import Judge
from dmarc_milter.ledger.spool.schema import PAGE, SpoolOptions, open_spool
from dmarc_milter.ledger.sqlite_file import classify, clear_away, create, inode, move_aside, tidy

__all__ = ["SpoolError", "SpoolFile", "SpoolOptions", "SpoolRow", "classify", "prepare"]

LOG = logging.getLogger("dmarc_milter.ledger")

INSERT = "INSERT OR IGNORE INTO spool (id, facts, sample) VALUES (?, ?, ?)"
MORE = ", (?, ?, ?)"
"""For each further row."""


class SpoolRow(NamedTuple):
    """`id` is that of the delivery attempt, `sample` the header fields kept for a failure
    report."""

    id: str
    facts: bytes
    sample: bytes | None = None


class SpoolFile:
    """One connection, used by one thread. A method that fails raises SpoolError and nothing
    else."""

    def __init__(self, path: Path, options: SpoolOptions = SpoolOptions()) -> None:
        self.path = path
        self._options = options
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._marks: Marks | None = None
        self._left: list[sqlite3.Connection] = []
        """Damaged files whose rows are not saved yet."""
        self._aside: list[Path] = []
        self._memory = RecentRows()
        self._owed: list[SpoolRow] = []
        """Rows that were written into a damaged file."""
        self._doubted = self._restored = 0
        self._known = False
        """This path was a spool when it was opened last."""

    @property
    def max_bytes(self) -> int:
        """What the file may have."""
        return self._options.max_bytes

    def write(self, rows: Sequence[SpoolRow]) -> None:
        """All rows or none, each id at most once. Durable against the death of this process when it
        returns."""
        failure = SpoolError("io", f"{self.path}: the file is being replaced repeatedly")
        self.check()
        for _ in range(3):
            try:
                self._write(rows)
            except sqlite3.Error as error:
                failure = self._failed(error)
                if failure.kind != "corrupt":
                    break
            else:
                self._memory.add(rows)
                damage = self._marks.damage() if self._marks is not None else ""
                if not damage:
                    return
                self._recover(damage)  # what we wrote went with it
        raise failure

    def check(self) -> None:
        """Notice what happened to the file since it was opened, and begin a new one with the rows
        of the old one. Never raises."""
        with suppress(SpoolError):
            if self._connection is None:
                if self._left or self._owed:
                    self._reopen()
                return
            damage = self._marks.damage() if self._marks is not None else ""
            if damage and not (damage.endswith("truncated") and self._is_whole()):
                self._recover(damage)

    def doubts(self) -> tuple[int, int]:
        """Rows, since the last call, whose file turned out to be damaged after they were written,
        and how many were written again."""
        found, self._doubted, self._restored = (self._doubted, self._restored), 0, 0
        return found

    def _is_whole(self) -> bool:
        """Somebody may have made a file shorter in SQLite's own way."""
        try:
            with closing(open_spool(self.path, self._options)) as other:
                whole = is_whole(other)
        except sqlite3.Error:
            return False
        if whole and self._marks is not None:
            self._marks.accept()
        return whole

    def _recover(self, damage: str) -> None:
        """Leave the damaged file, which is moved aside where it still has its name, for a new one.
        Raises SpoolError."""
        if self._options.access < Access.OWN:
            self.close()
            raise SpoolError("corrupt", f"{self.path}: {damage}")
        aside = clear_away(self.path, self._marks.is_ours) if self._marks is not None else None
        self._aside += [aside] if aside else []
        where = f"; what is left of it has been moved to {aside}" if aside else ""
        LOG.error(
            "the spool %s was damaged under the running program: %s%s; a new one takes its place",
            self.path,
            damage,
            where,
        )
        self._leave()
        try:
            self._open()
        except sqlite3.Error as error:
            self._failed(error)
            self._reopen()

    def _reopen(self) -> None:
        """What had taken the file's place was no spool either, and is out of the way now. Raises
        SpoolError."""
        try:
            self._open()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _leave(self) -> None:
        """The connection to a damaged file stays open until its rows are saved: its journal may
        have no other way in."""
        if self._connection is not None:
            self._left.append(self._connection)
        fresh = [row for row in self._memory.rows() if row not in self._owed]
        self._owed += fresh
        self._doubted += len(fresh)
        self._memory = RecentRows()
        self._connection = self._marks = None

    def _save(self, connection: sqlite3.Connection) -> None:
        """Into the new file: what the damaged ones can still be asked for, and what is remembered.
        An id that is there stays once."""
        before = connection.total_changes
        for old in self._left:
            for rows in copied(old):
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(INSERT, rows)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, self._owed)
        LOG.warning(
            "spool: %d messages of the damaged file were saved", connection.total_changes - before
        )
        self._restored += len(self._owed)
        self._memory.add(self._owed)
        self._owed = []
        for old in self._left:
            with suppress(sqlite3.Error):
                old.close()
        self._left = []
        for aside in self._aside:
            tidy(aside)
        self._aside = []

    def _write(self, rows: Sequence[SpoolRow]) -> None:
        """What was kept gives way where the file is full. Raises SpoolError, sqlite3.Error."""
        connection = self._open()
        while True:
            try:
                self._insert(connection, rows)
            except sqlite3.Error as error:
                full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                if not (full and kept.give_way(connection)):
                    raise
            else:
                return

    @staticmethod
    def _insert(connection: sqlite3.Connection, rows: Sequence[SpoolRow]) -> None:
        """All in one statement, which is a transaction of its own: each further statement would let
        go of the interpreter and wait for it again."""
        if rows:
            sql = INSERT + MORE * (len(rows) - 1)
            connection.execute(sql, [value for row in rows for value in row])

    def identity(self) -> str:
        """Who this spool is to the store: a name of its own, so that a spool made anew never
        repeats another one's sequence."""
        return str(self._one("SELECT identity FROM origin"))

    def rename(self) -> str:
        """A new identity: the file went back in time (a restored copy) and its sequence numbers
        were used before. What it kept was drained under the old one."""
        try:
            connection = self._open()
            connection.execute("UPDATE origin SET identity = ?, drained = 0", (uuid.uuid4().hex,))
            connection.execute("DELETE FROM kept")
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return self.identity()

    def last(self) -> int:
        """The greatest sequence number ever given out."""
        return int(self._one("SELECT seq FROM sqlite_sequence WHERE name = 'spool'"))

    def waiting(self) -> int:
        """Rows that have not been drained."""
        return int(self._one("SELECT count(*) FROM spool"))

    def oldest(self) -> SpoolRow | None:
        """The row that has waited longest."""
        rows = self.batch(1)
        return rows[0][1] if rows else None

    def room(self) -> int:
        """Bytes that the file still takes within its bound."""
        try:
            execute = self._open().execute
            most, pages, unused = (
                int(execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("max_page_count", "page_count", "freelist_count")
            )
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return (most - pages + unused) * PAGE

    def batch(self, limit: int, after: int = 0) -> list[tuple[int, SpoolRow]]:
        """The oldest rows with sequence numbers beyond `after`, in order."""
        sql = "SELECT seq, id, facts, sample FROM spool WHERE seq > ? ORDER BY seq LIMIT ?"
        try:
            rows = self._open().execute(sql, (after, limit)).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return [(seq, SpoolRow(id, facts, sample)) for seq, id, facts, sample in rows]

    def delete(self, through: int) -> None:
        """The store has the rows up to and with this sequence number: they wait no longer, and are
        kept for a while."""
        try:
            kept.drained(self._open(), through, self._options, time.time())
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def drained(self) -> int:
        """The greatest sequence number that the store has said it holds."""
        return int(self._one("SELECT drained FROM origin"))

    def kept(self, after: int) -> int:
        """Rows that the store had, and that are still here, with sequence numbers beyond
        `after`."""
        try:
            return kept.number_after(self._open(), after)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def kept_batch(self, after: int, limit: int) -> list[tuple[int, SpoolRow]]:
        """The first of them, in order."""
        try:
            rows = kept.rows_after(self._open(), after, limit)
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return [(seq, SpoolRow(id, facts, sample)) for seq, id, facts, sample in rows]

    def _one(self, sql: str) -> Any:
        try:
            row = self._open().execute(sql).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return row[0] if row else 0

    def erase(self, meant: Judge, named: Judge, *, dry: bool) -> int:
        """Forget rows, waiting or kept, whose facts are meant, and the header of those where that
        is `named`; how many they are."""
        try:
            return kept.erase(self._open(), meant, named, dry=dry)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def checkpoint(self) -> None:
        """Move the journal into the file as far as nobody is in the way. Never raises: where it
        fails others will say so."""
        with suppress(SpoolError, sqlite3.Error):
            self._open().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _open(self) -> sqlite3.Connection:
        """The connection; made, with its file and schema, when there is none. Raises SpoolError, or
        sqlite3.Error."""
        if self._connection is None:
            if self._left or self._owed:
                with suppress(OSError):  # the folder may have gone, too
                    self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._make_way()
            try:
                if self._options.access >= Access.CREATE:
                    create(self.path)
                else:
                    self.path.stat()
                self._inode = inode(self.path)
            except OSError as error:
                raise SpoolError(kind_of(error), f"{self.path}: {error.strerror}") from None
            self._connection = open_spool(self.path, self._options)
            self._known = True
            self._marks = Marks(self.path)
            if self._left or self._owed:
                self._save(self._connection)
        return self._connection

    def _make_way(self) -> None:
        """A file that is no spool is left alone; where it took our spool's place while this process
        had that open, it is moved aside. Raises SpoolError."""
        reason = why_not(self.path, "spool")
        if not reason:
            return
        aside = None
        if self._known and self._options.access is Access.OWN and (now := inode(self.path)):
            aside = move_aside(self.path, now)
        if aside is None:
            raise SpoolError("foreign", reason)
        LOG.error(
            "another file took the place of the spool (%s) and has been moved to %s", reason, aside
        )

    def close(self) -> None:
        for connection in (self._connection, *self._left):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._connection = self._marks = None
        self._left = []

    def _failed(self, error: sqlite3.Error) -> SpoolError:
        """Lets go of the file; a damaged one is moved aside, so that the next attempt makes a new
        one with the rows that can be read."""
        failure = classify(self.path, error)
        if (
            failure.kind == "corrupt"
            and self._inode is not None
            and self._options.access is Access.OWN
        ):
            aside = move_aside(self.path, self._inode)
            if aside is not None:
                self._aside.append(aside)
                LOG.error(
                    "the spool was damaged (%s) and has been moved to %s; a new one takes its"
                    " place",
                    failure,
                    aside,
                )
            self._leave()
        elif self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._marks = None
        return failure


def prepare(path: Path) -> str:
    """Make or upgrade the spool before the workers start. Returns the spool's identity; raises
    SpoolError with one clear line."""
    file = SpoolFile(path)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            return file.identity()
        except SpoolError as error:
            if error.kind != "corrupt":
                raise
            return file.identity()
    except OSError as error:
        raise SpoolError(
            "refused",
            f"{path.parent}: {error.strerror}; [store] must be where this account may write",
        ) from None
    finally:
        file.close()
