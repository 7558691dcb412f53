"""The store that several hosts share: PostgreSQL, and the engines that speak its protocol.

Nothing waits without an end, and no host that stops makes another wait:

- Every transaction sets its own bounds by SET LOCAL. Nothing stays behind in a connection that a
  pooler hands to somebody else.
- Values are put into the statement here (psycopg's ClientCursor, which quotes them as libpq does)
  and each call is one message of the simple query protocol. A server waits for a client that has
  stopped only between such messages, where idle_in_transaction_session_timeout ends it; inside the
  extended protocol, and so inside a pipeline, it would wait forever with everything locked.
- A server that has stopped answering is noticed here: no setting of its own could. So is one whose
  answer does not come through, or whose process for this connection stands still, while it lives
  for everybody else: each statement has a deadline here, a little after the server's own. A
  transaction `at_length` (an index of a large log) has neither; whether the server lives is asked
  all the same.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, urlsplit

from dmarc_milter.config.errors import ConfigError
from dmarc_milter.ledger.dialect import JOB, Values, Waits, translate
from dmarc_milter.ledger.errors import Conflict, Kind, StoreError, without_sql
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.postgres_connect import connect_within, cut_after, hosts_of, shut

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

Password = str | Callable[[], str]
"""Where it is a function it is asked for each connection, and raises ConfigError where it cannot
tell."""
CONNECT_WAIT = 3
"""Seconds for the address of the server; where the URL has several, 2 for each."""
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Whatever the role's default is: a batch looks again at the end whether something was erased, or
the schema changed, meanwhile. A snapshot from its beginning would not show that."""
AFTER_SERVER = 1.0
"""Seconds that a statement has beyond the server's own bound for it."""
ROWS = 250
"""Rows in one statement."""
CONFLICTS = ("40001", "40P01", "23505", "42P07", "42710", "55P03")
"""Serialization failure, deadlock, somebody else inserted the same key or made the same table
(or its type) first, a lock waited for too long."""
THERE = ("42P07", "42710")
"""Of these, what is there already."""
NO_COMPILER = "SET LOCAL jit = off"
"""PostgreSQL compiles what it thinks expensive. A plan over many days has hundreds of expressions,
and each new connection loads the compiler first: both take longer than the query."""
READ_ONLY = "25006"
KINDS: dict[str, Kind] = {
    "53": "full",
    "28": "refused",
    "42": "refused",
    "42501": "denied",
    "25": "refused",
    READ_ONLY: "read_only",
    "57": "unreachable",
}
"""By SQLSTATE, or by its class."""
BLOCKERS = (
    b"SELECT DISTINCT a.pid, a.usename, a.application_name, l.relation::regclass FROM pg_locks l"
    b" JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND l.locktype = 'relation'"
    b" AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')"
    b" AND a.datname = current_database() AND l.pid <> pg_backend_pid() AND l.relation IN (SELECT"
    b" oid FROM pg_class WHERE relkind IN ('r', 'p')) ORDER BY a.pid LIMIT 3"
)
TUPLE = re.compile(r"(?<=VALUES )\([^()]*\)")


class _PostgresTransaction:
    """`seconds` that the server may take for a statement; 0: as many as `Waits` says."""

    def __init__(self, execute: Callable[[str, Values], psycopg.Cursor[tuple[Any, ...]]]) -> None:
        self._execute = execute
        self.seconds: float = 0

    def at_length(self) -> None:
        self.run("SET LOCAL statement_timeout = 0")
        self.seconds = math.inf

    def run(self, sql: str, values: Values = ()) -> int:
        return self._execute(translate(sql, "postgresql"), values).rowcount

    def many(self, sql: str, rows: Sequence[Values]) -> None:
        text = translate(sql, "postgresql")
        for first in range(0, len(rows), ROWS):
            chunk = rows[first : first + ROWS]
            self._execute(_repeated(text, len(chunk)), [value for row in chunk for value in row])

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._execute(translate(sql, "postgresql"), values).fetchall()

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self._execute(translate(sql, "postgresql"), values).fetchone()


def _repeated(text: str, times: int) -> str:
    """One message with the statement for so many rows."""
    found = TUPLE.search(text) if text.startswith("INSERT") else None
    if found and found[0].count("%s") == text.count("%s"):
        rows = ", ".join([found[0]] * times)
        return text[: found.start()] + rows + text[found.end() :]
    return "; ".join([text] * times)


class _Guard:
    """Watches one statement: when nothing comes back and the server does not live either, or not
    before the deadline, the connection is cut, which ends the waiting."""

    def __init__(
        self, connection: Connection, waits: Waits, lives: Callable[[], bool], seconds: float
    ) -> None:
        self._connection, self._silence, self._lives = connection, waits.silence, lives
        self._done, self._mutex = threading.Event(), threading.Lock()
        self._begin = time.monotonic()
        self._deadline = self._begin + seconds + AFTER_SERVER
        self.cut_after = 0.0
        """Seconds after which the connection was cut; 0: it was not."""

    def __enter__(self) -> _Guard:
        with suppress(RuntimeError):  # no thread to be had: then without
            threading.Thread(target=self._watch, name="store", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(min(self._silence, max(self._left(), 0))):
            if self._left() <= 0 or not self._lives():
                with self._mutex:
                    if not self._done.is_set():
                        self.cut_after = time.monotonic() - self._begin
                        shut(self._connection)
                return

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _silent(seconds: float) -> str:
    return f"the server takes connections but has not answered for {seconds:.0f} s"


class PostgresDatabase:
    """A connection that is made when needed and again after it was lost; used by one thread at a
    time."""

    dialect: Literal["postgresql"] = "postgresql"
    access = Access.CHANGE

    def __init__(self, url: str, password: Password = "", waits: Waits = JOB) -> None:
        parts = urlsplit(url)
        self._url, self._ask_password, self.waits = url, password, waits
        self._password = "" if callable(password) else password
        hosts = parts.netloc.rpartition("@")[2]
        self.name = f"{parts.scheme}://{hosts}{parts.path}"  # several hosts, each with its port
        self._several = "," in hosts and "target_session_attrs" not in parse_qs(parts.query)
        self._connection: Connection | None = None
        self.silent = False
        self._compiles = True
        """Whether the server knows NO_COMPILER."""

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[_PostgresTransaction]:
        try:
            import psycopg
        except ImportError as error:
            text = (
                f"{self.name}: PostgreSQL needs the Python library psycopg ({error}): pip install"
                " 'psycopg[binary]'"
            )
            raise StoreError("absent", text) from None
        try:
            connection = self._begin(BEGIN if write else f"{BEGIN} READ ONLY")
            try:
                transaction = _PostgresTransaction(
                    lambda sql, values: self._run(
                        connection, sql, values, seconds=transaction.seconds
                    )
                )
                yield transaction
                self._run(connection, "COMMIT", seconds=transaction.seconds)
            except BaseException:
                self._undo(connection)
                raise
        except psycopg.Error as error:
            if error.sqlstate in CONFLICTS:
                there = without_sql(error) if error.sqlstate in THERE else ""
                raise Conflict(there) from None
            raise self._failed(error) from None

    def alone(self, sql: str, *, seconds: float) -> bool:
        import psycopg

        with self.transaction(write=False) as transaction:
            transaction.one("SELECT 1")  # a connection that works
        connection = self._open()
        timer = threading.Timer(seconds, connection.cancel_safe)
        timer.start()
        try:
            self._run(connection, sql, seconds=max(seconds, self.waits.statement))
        except psycopg.errors.QueryCanceled:
            return False
        except psycopg.Error as error:
            raise self._failed(error) from None
        finally:
            timer.cancel()
            timer.join()
        return True

    def _begin(self, begin: str) -> Connection:
        """A connection in a transaction; a new one where the server has closed the one that was
        idle."""
        import psycopg

        bounds = ("lock", "lock"), ("idle_in_transaction_session", "idle"), ("statement",) * 2
        sql = begin + "".join(
            f"; SET LOCAL {name}_timeout = {round(getattr(self.waits, seconds) * 1000)}"
            for name, seconds in bounds
        )
        if not self._compiles:
            return self._begun(sql)
        try:
            return self._begun(f"{sql}; {NO_COMPILER}")
        except psycopg.errors.UndefinedObject:
            self._compiles = False  # another engine
            self._undo(self._open())
            return self._begun(sql)

    def _begun(self, sql: str) -> Connection:
        import psycopg

        used = self._connection
        connection = self._open()
        try:
            self._run(connection, sql)
        except psycopg.OperationalError:
            if used is not connection:
                raise
            self.close()
            connection = self._open()
            self._run(connection, sql)
        return connection

    def _run(
        self, connection: Connection, sql: str, values: Values = (), *, seconds: float = 0
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """`seconds` that the server may take; 0: those of each statement."""
        import psycopg

        cursor = psycopg.ClientCursor(connection)
        bound = seconds or self.waits.statement
        with _Guard(connection, self.waits, self._lives, bound) as guard:
            try:
                return cursor.execute(sql.encode(), values or None)
            except psycopg.Error:
                if guard.cut_after:
                    self.close()
                    raise self._away(_silent(guard.cut_after)) from None
                raise

    def _undo(self, connection: Connection) -> None:
        """The end of a transaction that failed, as far as the connection still works."""
        with suppress(Exception):
            if not connection.closed:
                self._run(connection, "ROLLBACK")

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        """Raises StoreError when there is no connection within the time for all addresses."""
        if callable(self._ask_password):  # it may be another by now; while not readable the last
            with suppress(ConfigError):
                self._password = self._ask_password()
        parameters: dict[str, Any] = {"password": self._password} if self._password else {}
        if self._several:
            parameters["target_session_attrs"] = "read-write"
        connection = connect_within(
            self.waits.connect,
            self._url,
            autocommit=True,
            prepare_threshold=None,  # a connection pooler may stand between
            client_encoding="utf8",  # of SQL_ASCII psycopg makes bytes, another knows fewer letters
            connect_timeout=CONNECT_WAIT if hosts_of(self._url) == 1 else 2,
            application_name="dmarc-milter",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            **parameters,
        )
        if connection is None:
            raise self._away(f"no connection within {self.waits.connect:.0f} s")
        self.silent = False
        return connection

    def _away(self, text: str, *, lost: bool = False) -> StoreError:
        self.silent = True
        return StoreError("unreachable", f"{self.name}: {text}", lost=lost)

    def _lives(self) -> bool:
        """Whether the server answers a second connection."""
        try:
            with self._connect() as other, cut_after(CONNECT_WAIT, other):
                other.execute(b"SELECT 1")
        except Exception:
            return False
        return True

    def blocked(self) -> str:
        """Who holds a whole table, as far as the server says so; for a message."""
        with suppress(Exception):
            rows = self._run(self._begin(f"{BEGIN} READ ONLY"), BLOCKERS.decode()).fetchall()
            self._run(self._open(), "COMMIT")
            return "".join(
                f"; {table} is locked by process {pid} of the server (user {user},"
                f" {application or 'no application name'})"
                for pid, user, application, table in rows
            )
        self.close()
        return ""

    def _failed(self, error: psycopg.Error) -> StoreError:
        text = f"{self.name}: {without_sql(error)}"
        if self._password:
            text = text.replace(self._password, "***")
        broken = self._connection is not None and self._connection.broken
        if error.sqlstate is None or self._connection is None or broken:
            self.close()
            return StoreError("unreachable", text, lost=broken)
        if error.sqlstate == READ_ONLY:  # a standby since a failover
            self.close()
        kind = KINDS.get(error.sqlstate) or KINDS.get(error.sqlstate[:2], "io")
        return StoreError(kind, text)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._connection = None
