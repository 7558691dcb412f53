"""A SQLite file that processes share: made with the right owner and mode, opened with a write-ahead
log, moved aside when damaged."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from dmarc_milter.config import root_files
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.no_room import hindrance

MODE = 0o640
"""Readable by the service's group only (docs/design.md, The ledger)."""


def classify(path: Path, error: sqlite3.Error) -> SpoolError:
    """SQLite's complaint as one of the ways in which the spool can fail."""
    text = f"{path}: {error}"
    if isinstance(error, NewerSchema):
        return SpoolError("newer", text)
    if isinstance(error, OlderSchema):
        return SpoolError("older", text)
    code = getattr(error, "sqlite_errorcode", 0)
    if (
        code == sqlite3.SQLITE_IOERR_SHMSIZE
    ):  # SQLite's word for a full disk where only -shm has to grow: "disk I/O error"
        return SpoolError("full", f"{path}: no room for its -shm file: the disk is full")
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return SpoolError("corrupt", text)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return SpoolError("locked", text)
        case sqlite3.SQLITE_FULL:
            return SpoolError("full", text)
        case (
            sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_AUTH
        ):
            found = hindrance(path)
            if found is not None and found.kind == "full":
                return SpoolError(*found)
            return SpoolError("refused", found.text if found else text)
        case sqlite3.SQLITE_IOERR if found := hindrance(path):
            return SpoolError(*found)
    return SpoolError("io", text)


class NewerSchema(sqlite3.DatabaseError):
    """The file was written by a newer program."""


class OlderSchema(sqlite3.DatabaseError):
    """The file was written by an older program, and whoever asks may not change it."""


def create(path: Path) -> None:
    """Make the file, unless it is there. SQLite would use the umask's mode; its -wal and -shm get
    owner and mode of the file."""
    root_files.refuse_foreign_link(path)
    if not path.exists():
        os.close(_open_file(path))


def _open_file(path: Path) -> int:
    """A descriptor of a file for the service's group; made by root it belongs to whom its directory
    belongs to: the service."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        return os.open(path, flags)  # somebody else's, perhaps a hard link: never given away
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


def write_ahead(connection: sqlite3.Connection, wait: float) -> None:
    """Switch the file to a write-ahead log, which it stays at; `wait` in seconds. Raises
    sqlite3.Error.

    SQLite's own time-out does not cover this step: of several processes that open a new file at
    once, some are refused at once.
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


def move_aside(path: Path, damaged: tuple[int, int]) -> Path | None:
    """Rename a damaged file and its journal, never over anything. None when it is gone already, or
    somebody else is at it."""
    try:
        with closing(_Lock(path.with_name(path.name + ".lock"))):
            if inode(path) != damaged:
                return None
            return _renamed(path, ("-wal", "-shm", ""))
    except (OSError, StopIteration):
        return None


def clear_away(path: Path, is_ours: Callable[[Path], bool]) -> Path | None:
    """The same for a file that changed while it was open: what was open of it, and what could be no
    spool (a directory, a link)."""
    try:
        with closing(_Lock(path.with_name(path.name + ".lock"))):
            whole = (
                not os.path.lexists(path)
                or is_ours(path)
                or path.is_symlink()
                or not path.is_file()
            )
            tails = [tail for tail in ("-wal", "-shm") if whole or is_ours(Path(f"{path}{tail}"))]
            return _renamed(path, (*tails, *([""] if whole else [])))
    except (OSError, StopIteration):
        return None


def _renamed(path: Path, tails: tuple[str, ...]) -> Path | None:
    """The journal first: a new file must never meet the old one's journal. None when there was
    nothing."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (
        path.with_name(f"{path.name}.corrupt-{stamp}{suffix}")
        for suffix in ("", *(f"-{n}" for n in range(1, 1000)))
    )
    target = next(
        name
        for name in names
        if not any(os.path.lexists(f"{name}{tail}") for tail in ("", "-wal", "-shm"))
    )
    moved = False
    for tail in tails:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{tail}", f"{target}{tail}")
            moved = True
    return target if moved else None


def tidy(aside: Path) -> None:
    """Beside a file that was moved: its index, which SQLite makes again from the journal, and a
    journal that is empty, say nothing."""
    with suppress(OSError):
        os.unlink(f"{aside}-shm")
    with suppress(OSError):
        if os.stat(f"{aside}-wal").st_size == 0:
            os.unlink(f"{aside}-wal")


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
