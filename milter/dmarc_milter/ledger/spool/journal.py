"""The drain's hand on the spool's journal: moving it into the file, and beginning it anew, wait for
the disk, and the mail path must not."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from dmarc_milter.ledger.ownership import read_only

MOST = 256 << 20
"""Bytes of the journal beyond which it begins anew, for which one commit waits."""


class Journal:
    """A commit that finds the whole journal moved begins it anew, and waits for the disk to do so.
    A reader that still looks at the journal keeps it from that: the drain is one, and lets go of it
    when the journal has grown."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: sqlite3.Connection | None = None
        self._frames = -1

    def tend(self) -> None:
        """Move what was written since the last time. Never raises: where it fails others will say
        so."""
        try:
            journal = Path(f"{self._path}-wal").stat().st_size
            frames = self._move("PASSIVE")
            if journal > MOST:
                self.close()
                frames = self._move("RESTART")
            elif frames != self._frames:
                fresh = self._reader()
                self.close()
                self._held = fresh
                self._move("PASSIVE")
            self._frames = frames
        except (OSError, sqlite3.Error):
            self.close()

    def _move(self, mode: str) -> int:
        """The frames of the journal."""
        connection = sqlite3.connect(self._path, timeout=0.9, isolation_level=None)
        try:
            return int(connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[1])
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
