"""One set of SQL statements over two databases: SQLite, and PostgreSQL with the engines that speak
its protocol.

Statements are written once, with `?` for parameters and a few words in braces where the dialects
differ (DIALECTS). Nothing but parameters ever carries data. Locks are row locks; the SQLite file,
which has one writer at a time, needs none.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from dmarc_milter.ledger import sqlite_file
from dmarc_milter.ledger.errors import Conflict, Kind, StoreError, without_sql
from dmarc_milter.ledger.ownership import Access, why_not

if TYPE_CHECKING:
    import psycopg

LOG = logging.getLogger("dmarc_milter.ledger")

T = TypeVar("T")
Values = Sequence[Any]

DIALECTS = {
    # `plus` before a column keeps SQLite from choosing that column's index.
    "sqlite": {
        "blob": "BLOB",
        "bytewise": "",
        "compact": "WITHOUT ROWID",
        "for_update": "",
        "if_absent": "",
        "plus": "+",
        "skip_locked": "",
    },
    "postgresql": {
        "blob": "BYTEA",
        "bytewise": 'COLLATE "C"',
        "if_absent": "IF NOT EXISTS",
        "plus": "",
        "compact": "",
        "for_update": "FOR UPDATE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
    },
}
ATTEMPTS = 8
"""Tries of a transaction that met another one (deadlock, serialization failure)."""
BUSY_WAIT = 30.0
"""Seconds that a job waits for another writer of the SQLite store."""
CHECKPOINT = 16_000
"""Pages of the SQLite store's journal (64 MB): a batch touches thousands all over, many of them
again with the next one."""
CHUNK = 300
"""Values in one IN list."""
CONNECT_WAIT = 10
STATEMENT_LIMIT = 300_000
"""Milliseconds of one statement in a shared store."""


class Transaction(Protocol):
    """Statements that happen together or not at all."""

    def run(self, sql: str, values: Values = ()) -> int:
        """The number of rows changed."""
        ...

    def many(self, sql: str, rows: Sequence[Values]) -> None: ...

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]: ...

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None: ...


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

    def close(self) -> None: ...


def attempt(database: Database, work: Callable[[Transaction], T]) -> T:
    """`work` in a transaction, again when it met another one. Raises StoreError."""
    for number in range(ATTEMPTS):
        try:
            with database.transaction() as transaction:
                return work(transaction)
        except Conflict:
            time.sleep(0.02 * 2**number)
    raise StoreError("locked", f"{database.name}: still blocked by other transactions")


def fetch(database: Database, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """The rows of one query. Raises StoreError."""
    try:
        with database.transaction(write=False) as transaction:
            return transaction.all(sql, values)
    except Conflict:
        raise StoreError(
            "locked", f"{database.name}: still blocked by other transactions"
        ) from None


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """`values` in lists of at most `size`."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def with_list(sql: str, values: Sequence[object]) -> str:
    """`sql` with as many parameters in its `IN []` as there are values."""
    return sql.replace("[]", f"({', '.join('?' * len(values))})")


@cache
def _translate(sql: str, dialect: str) -> str:
    text = sql.format_map(DIALECTS[dialect])
    return text if dialect == "sqlite" else text.replace("?", "%s")


def connect(url: str, password: str = "", access: Access = Access.OWN) -> Database:
    """The database that `store.url` names; nothing is opened yet. `access` is about a file."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), access)
    return PostgresDatabase(url, password)


class SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, values: Values = ()) -> int:
        return self._connection.execute(_translate(sql, "sqlite"), values).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> None:
        self._connection.executemany(_translate(sql, "sqlite"), rows)

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(_translate(sql, "sqlite"), values).fetchall()

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(
            _translate(sql, "sqlite"), values
        ).fetchone()
        return found


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_WAIT, isolation_level=None, check_same_thread=False
    )
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            # A new file: room that is given up is returned bit by bit, not by rewriting it all.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        sqlite_file.write_ahead(connection, BUSY_WAIT)
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

    def __init__(self, path: Path, access: Access = Access.OWN) -> None:
        self.path, self.access = path, access
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
            raise StoreError("refused", f"{self.path}: {error.strerror}") from None
        self._inode = sqlite_file.inode(self.path)
        connection = _connect(self.path)
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

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


class _PostgresTransaction:
    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        self._cursor = cursor

    def _execute(self, sql: str, values: Values) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._cursor.execute(_translate(sql, "postgresql").encode(), values or None)

    def run(self, sql: str, values: Values = ()) -> int:
        return self._execute(sql, values).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> None:
        if rows:
            self._cursor.executemany(_translate(sql, "postgresql").encode(), rows)

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._execute(sql, values).fetchall()

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self._execute(sql, values).fetchone()


class PostgresDatabase:
    """The store that several hosts share."""

    dialect: Literal["postgresql"] = "postgresql"
    access = Access.CHANGE

    def __init__(self, url: str, password: str = "") -> None:
        parts = urlsplit(url)
        self._url, self._password = url, password
        self.name = (  # libpq takes several hosts, each with its port
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        )
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[_PostgresTransaction]:  # noqa: ARG002 - readers never wait here
        try:
            import psycopg
        except ImportError as error:
            text = (
                f"{self.name}: PostgreSQL needs the Python library psycopg ({error}): pip install"
                " 'psycopg[binary]'"
            )
            raise StoreError("absent", text) from None
        try:
            with ExitStack() as stack:
                yield _PostgresTransaction(self._begin(stack))
        except psycopg.Error as error:
            if error.sqlstate in ("40001", "40P01", "23505", "42P07", "55P03"):
                # serialization failure, deadlock, somebody else inserted the same key or made the
                # same table first, lock not available
                raise Conflict from None
            raise self._failed(error) from None

    def alone(self, sql: str, *, seconds: float) -> bool:
        import psycopg

        with self.transaction() as transaction:
            transaction.one("SELECT 1")  # a connection that works
        connection = self._open()
        timer = threading.Timer(seconds, connection.cancel_safe)
        timer.start()
        try:
            connection.execute(sql.encode())
        except psycopg.errors.QueryCanceled:
            return False
        except psycopg.Error as error:
            raise self._failed(error) from None
        finally:
            timer.cancel()
            timer.join()
        return True

    def _begin(self, stack: ExitStack) -> psycopg.Cursor[tuple[Any, ...]]:
        """A transaction; on a new connection where the server has closed the one that was idle."""
        import psycopg

        used = self._connection
        try:
            stack.enter_context(self._open().transaction())
        except psycopg.OperationalError:
            if used is None or used is not self._connection:
                raise
            self.close()
            stack.enter_context(self._open().transaction())
        return stack.enter_context(self._open().cursor())

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        if self._connection is None or self._connection.closed:
            secret: dict[str, Any] = {"password": self._password} if self._password else {}
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_WAIT,
                application_name="dmarc-milter",
                keepalives_idle=30,
                tcp_user_timeout=30_000,
                **secret,
            )
            connection.prepare_threshold = None  # a connection pooler may stand between
            try:
                connection.execute(f"SET statement_timeout = {STATEMENT_LIMIT}")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _failed(self, error: psycopg.Error) -> StoreError:
        kinds: dict[str, Kind] = {
            "53": "full",
            "28": "refused",
            "42": "refused",
            "25": "refused",
            "57": "unreachable",
        }
        text = f"{self.name}: {without_sql(error)}"
        text = text.replace(self._password, "***") if self._password else text
        if error.sqlstate is None or self._connection is None or self._connection.broken:
            self.close()
            return StoreError("unreachable", text)
        if (
            error.sqlstate == "25006"
        ):  # read-only: a standby since a failover; a new connection finds the primary
            self.close()
        return StoreError(kinds.get(error.sqlstate[:2], "io"), text)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._connection = None
