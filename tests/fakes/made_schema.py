"""The schema of an empty PostgreSQL store in one transaction.

An upgrade from nothing takes a thousand round trips, which most tests need the result of alone: the
first one of a test process is recorded, later ones are its statements.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.postgres import PostgresDatabase
from dmarc_milter.ledger.store import schema

Statements = list[tuple[str, Any]]
STEPS = schema.STEPS
"""Those of this program: a test may put others in their place."""
CHANGES = re.compile(r"(?!SELECT|SET|LOCK|(?:INSERT INTO|DELETE FROM) lease)")
_recorded: dict[tuple[bool, int], str] = {}
"""With or without partitions, which are those of a day and the week after it."""


def _key(*, by_day: bool) -> tuple[bool, int]:
    return by_day, int(time.time()) // DAY


def make(url: str, *, by_day: bool) -> bool:
    """Whether it was made: not where something is there, nor before an upgrade was `recorded`."""
    script = _recorded.get(_key(by_day=by_day))
    if schema.STEPS is not STEPS or script is None:
        return False
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('schema_step')").fetchone() != (None,):
            return False
        connection.execute(script.encode())
    return True


@contextmanager
def recorded(url: str, *, by_day: bool) -> Iterator[None]:
    """The block upgrades an empty store."""
    done, key = Statements(), _key(by_day=by_day)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_schema(), to_regclass('schema_step')").fetchone()
    with _committed(done):
        yield
    if row is not None and row[1] is None and schema.STEPS is STEPS:
        with psycopg.connect(url) as connection:
            cursor = psycopg.ClientCursor(connection)
            script = ";\n".join(cursor.mogrify(sql.encode(), values) for sql, values in done)
        _recorded[key] = script.replace(f"{row[0]}.", "")


@contextmanager
def _committed(done: Statements) -> Iterator[None]:
    """Statements that change something, of transactions that were committed."""
    run, begun = PostgresDatabase._run, Statements()

    def hooked(
        self: PostgresDatabase, connection: Any, sql: str, values: Any = (), *, seconds: float = 0
    ) -> Any:
        if sql.startswith("BEGIN"):
            begun.clear()
        elif sql == "COMMIT":
            done.extend(begun)
            begun.clear()
        elif CHANGES.match(sql):
            begun.append((sql, values or None))
        return run(self, connection, sql, values, seconds=seconds)

    PostgresDatabase._run = hooked  # type: ignore[method-assign]
    try:
        yield
    finally:
        PostgresDatabase._run = run  # type: ignore[method-assign]
