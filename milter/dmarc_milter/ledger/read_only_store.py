"""A SQLite store for commands that must not touch it, and one in memory for what has none yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access, has_journal, read_only, why_not
from dmarc_milter.ledger.sqlite_file import inode
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import (
    BUSY_WAIT,
    SqliteDatabase,
    SqliteTransaction,
    add_functions,
)


class ReadOnlySqlite(SqliteDatabase):
    """Nothing is made, renamed or written. Where there is no file yet, an empty store is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Access.READ)
        self._lasting = False
        """Whether the connection sees what others write later."""

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[SqliteTransaction]:  # noqa: ARG002 - none can
        with super().transaction(write=False) as transaction:
            yield transaction
        if not self._lasting:
            self.close()

    def _connected(self) -> sqlite3.Connection:
        if reason := why_not(self.path, "store"):
            raise StoreError("foreign", reason)
        self._lasting, self._inode = False, inode(self.path)
        try:
            empty = self.path.stat().st_size == 0
        except FileNotFoundError:
            empty = True
        except OSError as error:
            raise StoreError("refused", f"{self.path}: {error.strerror}") from None
        if empty:
            return in_memory(self.path).connection
        self._lasting = has_journal(self.path)
        connection = read_only(self.path, journal=self._lasting, wait=BUSY_WAIT)
        add_functions(connection)
        return connection


class MemorySqlite(SqliteDatabase):
    """A store that ends with this process, and bears the name of the file that is not there."""

    @property
    def connection(self) -> sqlite3.Connection:
        return self._open()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            add_functions(self._connection)
        return self._connection


def in_memory(path: Path) -> MemorySqlite:
    """An empty store with its schema."""
    database = MemorySqlite(path, Access.CREATE)
    schema.upgrade(database)
    return database
