"""The drain's hand on the spool's journal: moving it into the file, and beginning it anew, wait for
the disk, and the mail path must not."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from dmarc_milter.ledger.ownership import read_only

MOST = 256 << 20
"""Bytes of the journal beyond which it begins anew, as soon as the disk is quick."""
QUICK = 0.2
"""Seconds that the disk may take for what a commit of the mail path would wait for: a fifth of what
an answer waits for its record."""


class Journal:
    """A commit that finds the whole journal moved begins it anew, and waits for the disk to do so.
    A reader that still looks at the journal keeps it from that: the drain is one, and lets go of it
    when the journal has grown, at a moment at which the disk is quick. On one that never is the
    journal grows to `bound` bytes, what the spool itself may have, before a commit waits."""

    def __init__(self, path: Path, bound: int) -> None:
        self._path, self._bound = path, max(bound, MOST)
        self._held: sqlite3.Connection | None = None

    def tend(self) -> None:
        """Move what was written since the last time. Never raises: where it fails others will say
        so."""
        try:
            journal = Path(f"{self._path}-wal").stat().st_size
            if self._held is None:
                self._held = self._reader()
            self._move_on()
            if journal > MOST and (self._disk_is_quick() or journal > self._bound):
                self._begin_anew()
        except (OSError, sqlite3.Error):
            self.close()

    def _move_on(self) -> None:
        """Move all that there is. The reader follows where more has come than it has seen: one that
        begins where all is moved would hold nothing back."""
        frames, moved = self._move("PASSIVE")
        if moved < frames:
            fresh = self._reader()
            self.close()
            self._held = fresh
            self._move("PASSIVE")

    def _disk_is_quick(self) -> bool:
        """Whether a commit reaches the disk within QUICK."""
        self._write()
        begin = time.monotonic()
        self._move_on()
        return time.monotonic() - begin < QUICK

    def _begin_anew(self) -> None:
        """The first commit afterwards takes the journal's new beginning to the disk: ours."""
        self.close()
        self._move("RESTART")
        self._write()
        self._held = self._reader()

    def _write(self) -> None:
        """A commit that changes nothing, but is written: SQLite leaves out what is as it was."""
        connection = sqlite3.connect(self._path, timeout=0.9, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE origin SET drained = drained + 1")
            connection.execute("UPDATE origin SET drained = drained - 1")
            connection.execute("COMMIT")
        finally:
            connection.close()

    def _move(self, mode: str) -> tuple[int, int]:
        """The frames of the journal, and those moved."""
        connection = sqlite3.connect(self._path, timeout=0.9, isolation_level=None)
        try:
            _, frames, moved = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return int(frames), int(moved)
        finally:
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        connection = read_only(self._path, journal=True, wait=0.9)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM origin").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Let go of it."""
        if self._held is not None:
            with suppress(sqlite3.Error):
                self._held.close()
        self._held = None
