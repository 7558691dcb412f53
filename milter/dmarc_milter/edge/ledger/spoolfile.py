"""The spool's SQLite file: opening, upgrading, writing in batches, and moving a damaged one aside.

WAL with synchronous=NORMAL: a commit has reached the kernel when it returns, so no process that dies, however it dies, takes an
answered message with it. A power cut can take the last moments: FULL, which would save them, waits for the disk with every group.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from dmarc_milter.edge import guarded

LOG = logging.getLogger("dmarc_milter.ledger")

SCHEMA = 1
"""PRAGMA user_version. A greater one in the file is a newer program's: the file is then left alone."""
PAGE = 4096
MODE = 0o640
"""Readable by the service's group only (DESIGN.md, The ledger)."""

STEPS = (
    (
        "CREATE TABLE spool (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, facts BLOB NOT NULL, sample BLOB)",
        "CREATE TABLE origin (only INTEGER PRIMARY KEY CHECK (only = 1), identity TEXT NOT NULL)",
    ),
)
"""Step n brings user_version from n to n + 1."""


class SpoolError(Exception):
    """The spool cannot be used now. `str()` is one line; `kind` says which of the ways it is."""

    def __init__(self, kind: Literal["corrupt", "locked", "full", "refused", "newer", "io"], text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """`max_bytes` bounds the file; `wait` is the time in seconds that one lock is waited for.

    `checkpoint` is the size of the journal, in pages, at which a commit also moves it into the file, which waits for the disk.
    """

    max_bytes: int = 2_000_000_000
    wait: float = 0.9
    checkpoint: int = 1000


class SpoolRow(NamedTuple):
    """`id` is that of the delivery attempt, `sample` the header fields kept for a failure report."""

    id: str
    facts: bytes
    sample: bytes | None = None


class SpoolFile:
    """One connection, used by one thread. A method that fails raises SpoolError and nothing else."""

    def __init__(self, path: Path, options: SpoolOptions = SpoolOptions()) -> None:
        self.path = path
        self._options = options
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    def write(self, rows: Sequence[SpoolRow]) -> None:
        """All rows or none, each id at most once. Durable against the death of this process when it returns."""
        failure = SpoolError("io", f"{self.path}: the file is replaced again and again")
        for _ in range(3):
            try:
                self._write(rows)
            except sqlite3.Error as error:
                failure = self._failed(error)
                if failure.kind != "corrupt":
                    break
            else:
                if self._inode == inode(self.path):
                    return
                self.close()  # somebody moved the file aside under us: what we wrote went with it
        raise failure

    def _write(self, rows: Sequence[SpoolRow]) -> None:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR IGNORE INTO spool (id, facts, sample) VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def identity(self) -> str:
        """Who this spool is to the store: a name of its own, so that a spool made anew never repeats another one's sequence."""
        try:
            return str(self._open().execute("SELECT identity FROM origin").fetchone()[0])
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def rename(self) -> str:
        """A new identity: the file went back in time (a restored copy) and its sequence numbers were used before."""
        try:
            self._open().execute("UPDATE origin SET identity = ?", (uuid.uuid4().hex,))
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return self.identity()

    def last(self) -> int:
        """The greatest sequence number ever given out."""
        try:
            row = self._open().execute("SELECT seq FROM sqlite_sequence WHERE name = 'spool'").fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return int(row[0]) if row else 0

    def waiting(self) -> int:
        """Rows that have not been drained."""
        try:
            return int(self._open().execute("SELECT count(*) FROM spool").fetchone()[0])
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def room(self) -> int:
        """Octets that the file still takes within its bound."""
        try:
            execute = self._open().execute
            most, pages, unused = (
                int(execute(f"PRAGMA {name}").fetchone()[0]) for name in ("max_page_count", "page_count", "freelist_count")
            )
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return (most - pages + unused) * PAGE

    def batch(self, limit: int) -> list[tuple[int, SpoolRow]]:
        """The oldest rows, in order."""
        try:
            rows = self._open().execute("SELECT seq, id, facts, sample FROM spool ORDER BY seq LIMIT ?", (limit,)).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return [(seq, SpoolRow(id, facts, sample)) for seq, id, facts, sample in rows]

    def delete(self, through: int) -> None:
        """Forget rows that the store has, up to and with this sequence number."""
        try:
            self._open().execute("DELETE FROM spool WHERE seq <= ?", (through,))
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def checkpoint(self) -> None:
        """Move the journal into the file as far as nobody is in the way. Never raises: where it fails others will say so."""
        with suppress(SpoolError, sqlite3.Error):
            self._open().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def follow(self) -> None:
        """Let go of a file that the path no longer names: somebody moved it aside, and messages go to another one."""
        if self._connection is not None and self._inode != inode(self.path):
            self.close()

    def _open(self) -> sqlite3.Connection:
        """The connection; made, with its file and schema, when there is none."""
        if self._connection is None:
            try:
                create(self.path)
                self._inode = inode(self.path)
            except OSError as error:
                raise SpoolError("refused", f"{self.path}: {error.strerror}") from None
            self._connection = _connect(self.path, self._options)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _failed(self, error: sqlite3.Error) -> SpoolError:
        """Lets go of the file; a damaged one is moved aside, so that the next attempt makes a new one."""
        failure = classify(self.path, error)
        self.close()
        if failure.kind == "corrupt" and self._inode is not None:
            aside = move_aside(self.path, self._inode)
            if aside is not None:
                LOG.error("the spool was damaged (%s) and has been moved to %s; a new one takes its place", failure, aside)
        return failure


def classify(path: Path, error: sqlite3.Error) -> SpoolError:
    """SQLite's complaint as one of the ways in which the spool can fail."""
    text = f"{path}: {error}"
    if isinstance(error, _Newer):
        return SpoolError("newer", text)
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # SQLite's word for a full disk where only -shm has to grow: "disk I/O error"
        return SpoolError("full", f"{path}: no room for its -shm file: the disk is full")
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return SpoolError("corrupt", text)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return SpoolError("locked", text)
        case sqlite3.SQLITE_FULL:
            return SpoolError("full", text)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return SpoolError("refused", text)
    return SpoolError("io", text)


class _Newer(sqlite3.DatabaseError):
    """The file was written by a newer program."""


def create(path: Path) -> None:
    """Make the file, unless it is there. SQLite would use the umask's mode; its -wal and -shm get owner and mode of the file."""
    guarded.refuse_foreign_link(path)
    if not path.exists():
        os.close(_open_file(path))


def _open_file(path: Path) -> int:
    """A descriptor of a file for the service's group; made by root it belongs to whom its directory belongs to: the service."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    if os.geteuid() == 0:
        folder = os.stat(path.parent)
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def inode(path: Path) -> tuple[int, int] | None:
    """What the path names now; None when nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path, options: SpoolOptions) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=options.wait, isolation_level=None, check_same_thread=False)
    try:
        write_ahead(connection, options.wait)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA max_page_count={max(options.max_bytes // PAGE, 64)}")
        connection.execute(f"PRAGMA wal_autocheckpoint={options.checkpoint}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        _upgrade(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def write_ahead(connection: sqlite3.Connection, wait: float) -> None:
    """Switch the file to a write-ahead log, which it stays at; `wait` in seconds. Raises sqlite3.Error.

    SQLite's own time-out does not cover this step: of several processes that open a new file at once, some are refused at once.
    """
    latest = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= latest:
                raise
            time.sleep(0.005)
        else:
            return


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
            connection.execute("INSERT INTO origin VALUES (1, ?)", (uuid.uuid4().hex,))
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA:
        raise _Newer(f"the spool has schema {version}, this program knows {SCHEMA}; run the newer program, or name another spool file")
    return version


def move_aside(path: Path, damaged: tuple[int, int]) -> Path | None:
    """Rename a damaged file and its journal, never over anything. None when it is gone already, or somebody else is at it."""
    try:
        with closing(_Lock(path.with_name(path.name + ".lock"))):
            if inode(path) != damaged:
                return None
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            names = (path.with_name(f"{path.name}.corrupt-{stamp}{suffix}") for suffix in ("", *(f"-{n}" for n in range(1, 1000))))
            target = next(name for name in names if not name.exists())
            for tail in ("-wal", "-shm", ""):  # the journal first: a new file must never meet the old one's journal
                with suppress(FileNotFoundError):
                    os.rename(f"{path}{tail}", f"{target}{tail}")
            return target
    except (OSError, StopIteration):
        return None


class _Lock:
    """Held by whoever is moving the file; waits half a second at most."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _open_file(path)
        for attempt in range(11):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if attempt == 10:
                    os.close(self._descriptor)
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        os.close(self._descriptor)


def prepare(path: Path) -> str:
    """Make or upgrade the spool before the workers start. Returns the spool's identity; raises SpoolError with one clear line."""
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
        raise SpoolError("refused", f"{path.parent}: {error.strerror}; [store] must lie where this account may write") from None
    finally:
        file.close()
