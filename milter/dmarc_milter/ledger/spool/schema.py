"""The tables of a spool file, and opening one."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.sqlite_file import NewerSchema, OlderSchema, write_ahead

SCHEMA = 2
"""PRAGMA user_version. A greater one in the file is a newer program's: the file is then left
alone."""
PAGE = 4096

STEPS = (
    (
        (
            "CREATE TABLE spool (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
            " facts BLOB NOT NULL, sample BLOB)"
        ),
        "CREATE TABLE origin (only INTEGER PRIMARY KEY CHECK (only = 1), identity TEXT NOT NULL)",
    ),
    (
        # Rows that the store has, and the greatest sequence number that it has had.
        (
            "CREATE TABLE kept (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, drained_at INTEGER NOT"
            " NULL, facts BLOB NOT NULL, sample BLOB)"
        ),
        "ALTER TABLE origin ADD COLUMN drained INTEGER NOT NULL DEFAULT 0",
        (
            "UPDATE origin SET drained = coalesce((SELECT min(seq) - 1 FROM spool), (SELECT seq"
            " FROM sqlite_sequence WHERE name = 'spool'), 0)"
        ),
    ),
)
"""Step n brings user_version from n to n + 1."""


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """`max_bytes` bounds the file; `wait` is the time in seconds that one lock is waited for.

    `checkpoint` is the size of the journal, in pages, at which a commit also moves it into the
    file, which waits for the disk.
    """

    max_bytes: int = 2_000_000_000
    wait: float = 0.9
    checkpoint: int = 1000
    access: Access = Access.OWN
    keep_seconds: float = 86_400.0
    """How long rows are kept that the store has."""


def bound(max_bytes: int) -> int:
    """Pages that a spool of `max_bytes` may have."""
    return max(max_bytes // PAGE, 64)


def open_spool(path: Path, options: SpoolOptions) -> sqlite3.Connection:
    """A connection to a spool whose schema is right. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path, timeout=options.wait, isolation_level=None, check_same_thread=False
    )
    try:
        if options.access < Access.CREATE:
            check(connection)
        write_ahead(connection, options.wait)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA max_page_count={bound(options.max_bytes)}")
        connection.execute(f"PRAGMA wal_autocheckpoint={options.checkpoint}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        _upgrade(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _upgrade(connection: sqlite3.Connection) -> None:
    """All missing steps in one transaction; several workers may try at once."""
    if _version(connection) == SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        if version == 0:
            connection.execute(
                "INSERT INTO origin (only, identity) VALUES (1, ?)", (uuid.uuid4().hex,)
            )
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def check(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.Error for a spool of another schema, or none."""
    if (found := _version(connection)) < SCHEMA:
        raise OlderSchema(
            f"the spool has schema {found}, this program needs {SCHEMA}: start the daemon, or run"
            " `dmarc-milter store drain`"
        )


def _version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA:
        raise NewerSchema(
            f"the spool has schema {version}, this program knows {SCHEMA}; run the newer program,"
            " or name another spool file"
        )
    return version
