"""One set of SQL statements over two databases: SQLite, and PostgreSQL with the engines that speak
its protocol.

Statements are written once, with `?` for parameters and a few words in braces where the dialects
differ (DIALECTS). Nothing but parameters ever carries data. Locks are row locks, taken in one order
everywhere; the SQLite file, which has one writer at a time, needs none.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from dmarc_milter.ledger import sqlite_file
from dmarc_milter.ledger.dialect import JOB, Transaction, Values, Waits, translate
from dmarc_milter.ledger.errors import Conflict, StoreError
from dmarc_milter.ledger.no_room import kind_of
from dmarc_milter.ledger.ownership import Access, why_not
from dmarc_milter.ledger.postgres import Password, PostgresDatabase

__all__ = ["PostgresDatabase", "Transaction"]

LOG = logging.getLogger("dmarc_milter.ledger")

T = TypeVar("T")

ATTEMPTS = 8
"""Tries of a transaction that met another one (deadlock, serialization failure)."""
PAUSE = 0.04
"""Seconds before the second try at most; doubled with each, and never the same on two hosts."""
BUSY_WAIT = 10.0
"""Seconds that anybody waits for another writer of the SQLite store, at most."""
CHECKPOINT = 16_000
"""Pages of the SQLite store's journal (64 MB): a batch touches thousands all over, many of them
again with the next one."""
CHUNK = 300
"""Values in one IN list."""


class Database(Protocol):
    """A connection that is made when needed and again after it was lost; used by one thread at a
    time."""

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]: ...

    @property
    def name(self) -> str:
        """Where it is, without password; for messages."""
        ...

    @property
    def access(self) -> Access:
        """What may be done to the file; CHANGE for PostgreSQL, whose schema an administrator brings
        up to date."""
        ...

    @property
    def waits(self) -> Waits: ...

    @property
    def silent(self) -> bool:
        """Whether the last that was asked of a server was not answered: nobody needs to wait for it
        once more now."""
        ...

    def transaction(self, *, write: bool = True) -> AbstractContextManager[Transaction]:
        """Commits when the block ends, undoes it when the block raises. Raises StoreError or
        Conflict.

        Without `write` a consistent view that waits for no writer.
        """
        ...

    def alone(self, sql: str, *, seconds: float) -> bool:
        """One statement that must not be part of a transaction; PostgreSQL gives it up after
        `seconds`. Whether it was done. Raises StoreError."""
        ...

    def blocked(self) -> str:
        """Who stands in the way, as far as that can be known: the end of a message."""
        ...

    def close(self) -> None: ...


def attempt(database: Database, work: Callable[[Transaction], T]) -> T:
    """`work` in a transaction, again when it met another one. Raises StoreError."""
    latest, there = time.monotonic() + database.waits.retries, ""
    for number in range(ATTEMPTS):
        try:
            with database.transaction() as transaction:
                return work(transaction)
        except Conflict as conflict:
            there = str(conflict)
            if time.monotonic() > latest:
                break
            time.sleep(random.uniform(0.5, 1) * PAUSE * 2**number)  # noqa: S311 - no secret
    raise _stays(database, there) if there else _blocked(database)


def fetch(database: Database, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """The rows of one query, asked once more where the connection broke at once. Raises
    StoreError."""
    begin = time.monotonic()
    try:
        return _fetch(database, sql, values)
    except StoreError as error:
        if not error.lost or time.monotonic() - begin > database.waits.silence:
            raise
        return _fetch(database, sql, values)


def _fetch(database: Database, sql: str, values: Values) -> list[tuple[Any, ...]]:
    try:
        with database.transaction(write=False) as transaction:
            return transaction.all(sql, values)
    except Conflict:
        raise _blocked(database) from None


def _blocked(database: Database) -> StoreError:
    text = f"{database.name}: still blocked by other transactions{database.blocked()}"
    return StoreError("locked", text)


def _stays(database: Database, there: str) -> StoreError:
    """What is still there at the last try was not made by another host just now."""
    text = (
        f"{database.name}: {there}, and its schema does not know it. If a backup was restored over"
        " a newer store: restore it into an empty database"
    )
    return StoreError("exists", text)


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """`values` in lists of at most `size`."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def with_list(sql: str, values: Sequence[object]) -> str:
    """`sql` with as many parameters in its `IN []` as there are values."""
    return sql.replace("[]", f"({', '.join('?' * len(values))})")


def connect(
    url: str, password: Password = "", access: Access = Access.OWN, waits: Waits = JOB
) -> Database:
    """The database that `store.url` names; nothing is opened yet. `access` is about a file."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), access, waits)
    return PostgresDatabase(url, password, waits)


class SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, values: Values = ()) -> int:
        return self._connection.execute(translate(sql, "sqlite"), values).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> None:
        self._connection.executemany(translate(sql, "sqlite"), rows)

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(translate(sql, "sqlite"), values).fetchall()

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(
            translate(sql, "sqlite"), values
        ).fetchone()
        return found

    def at_length(self) -> None:
        """A file has no bound for a statement."""


def add_functions(connection: sqlite3.Connection) -> None:
    """What PostgreSQL has and SQLite has not."""
    connection.create_function("reverse", 1, lambda text: text[::-1], deterministic=True)


def _connect(path: Path, wait: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            # A new file: room that is given up is returned bit by bit, not by rewriting it all.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        sqlite_file.write_ahead(connection, wait)
        add_functions(connection)
        connection.execute(
            "PRAGMA cache_size=-32768"
        )  # KiB: ids and keys are random, their indexes are touched all over
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(
            "PRAGMA synchronous=FULL"
        )  # the spool forgets what the store has said it holds
    except BaseException:
        connection.close()
        raise
    return connection


class SqliteDatabase:
    """The store on one machine. For its owner a damaged file is moved aside, never overwritten, and
    a new one is made."""

    dialect: Literal["sqlite"] = "sqlite"
    silent = False

    def __init__(self, path: Path, access: Access = Access.OWN, waits: Waits = JOB) -> None:
        self.path, self.access, self.waits = path, access, waits
        self.name = str(path)
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._known = False

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[SqliteTransaction]:
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield SqliteTransaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def alone(self, sql: str, *, seconds: float) -> bool:  # noqa: ARG002 - SQLite has no such limit
        try:
            self._open().execute(sql).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return True

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != sqlite_file.inode(self.path):
            self.close()  # moved aside by another process
        if self._connection is None:
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        """A new connection. Raises StoreError, sqlite3.Error."""
        self._make_way()
        try:
            if self.access >= Access.CREATE:
                sqlite_file.create(self.path)
            else:
                self.path.stat()
        except OSError as error:
            raise StoreError(kind_of(error), f"{self.path}: {error.strerror}") from None
        self._inode = sqlite_file.inode(self.path)
        connection = _connect(self.path, min(self.waits.busy, BUSY_WAIT))
        self._known = True
        return connection

    def _make_way(self) -> None:
        """A file that is no store is left alone, unless it took the place of ours while this
        process worked with that. Raises StoreError."""
        if reason := why_not(self.path, "store"):
            self._inode = sqlite_file.inode(self.path)
            if not (self._known and self._move_aside(reason)):
                raise StoreError("foreign", reason)

    def _move_aside(self, reason: str) -> bool:
        if self.access < Access.OWN or self._inode is None:
            return False
        aside = sqlite_file.move_aside(self.path, self._inode)
        if aside is not None:
            LOG.error(
                "the store was damaged (%s) and has been moved to %s; a new one takes its place",
                reason,
                aside,
            )
        return aside is not None

    def _failed(self, error: sqlite3.Error) -> StoreError:
        failure = sqlite_file.classify(self.path, error)
        if failure.kind == "corrupt":
            self.close()
            self._move_aside(str(failure))
        return StoreError(failure.kind, str(failure))

    def blocked(self) -> str:
        return ""

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
