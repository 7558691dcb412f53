"""A spool as commands read it that must not touch it: nothing is made, renamed or written."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.ownership import has_journal, read_only, why_not
from dmarc_milter.ledger.spool.file import SpoolRow
from dmarc_milter.ledger.spool.schema import PAGE, bound, check
from dmarc_milter.ledger.sqlite_file import classify


class SpoolReader:
    """One connection that cannot write, used by one thread. Methods raise SpoolError and nothing
    else; a missing file is one too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def identity(self) -> str:
        """The spool's name of its own, as the store knows it."""
        return str(self._one("SELECT identity FROM origin"))

    def waiting(self) -> int:
        """Rows that have not been drained."""
        return int(self._one("SELECT count(*) FROM spool"))

    def room(self, max_bytes: int) -> int:
        """Bytes that a file of `max_bytes` still takes; what is kept gives way."""
        if self._one("SELECT count(*) FROM (SELECT 1 FROM kept LIMIT 1)"):
            return max_bytes
        used = int(self._one("PRAGMA page_count")) - int(self._one("PRAGMA freelist_count"))
        return (bound(max_bytes) - used) * PAGE

    def rows(self, after: int, limit: int) -> list[tuple[int, SpoolRow]]:
        """The oldest rows that wait, with sequence numbers greater than `after`, in order."""
        sql = "SELECT seq, id, facts, sample FROM spool WHERE seq > ? ORDER BY seq LIMIT ?"
        return [(seq, SpoolRow(*row)) for seq, *row in self._all(sql, (after, limit))]

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _one(self, sql: str) -> Any:
        return self._all(sql)[0][0]

    def _all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._open().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise classify(self.path, error) from None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if reason := why_not(self.path, "spool"):
                raise SpoolError("foreign", reason)
            connection = read_only(self.path, journal=has_journal(self.path))
            try:
                check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection
