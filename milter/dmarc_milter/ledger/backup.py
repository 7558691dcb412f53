"""A copy of the SQLite store that is consistent while the daemon runs, and putting one back."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.ledger import sqlite_file
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import has_journal, read_only, why_not
from dmarc_milter.ledger.store.schema import STEPS

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What a file system says that has no hard links, such as a memory stick's."""
WAIT = 30.0
"""Seconds that another writer is waited for."""


class Restored(NamedTuple):
    """`kept` is where the store that was there is now, None where there was none."""

    kept: Path | None


def backup(store: Path, target: Path) -> int:
    """Copy the store as it is at this moment; the bytes of the copy. Never over a file. Raises
    StoreError."""
    if target.name in ("", "-", ".."):
        raise StoreError("copy", f"'{target}' is not the name of a file: name the copy")
    with closing(_checked(store)) as source:
        return _copy(source, target)


def _copy(source: sqlite3.Connection, target: Path) -> int:
    """Into a file beside it first, so that half a copy never bears the name."""
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        if os.path.lexists(target):
            raise StoreError("copy", f"{target}: is there already: name another file")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(partial, flags, sqlite_file.MODE))
        with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whole in itself
        _flush(partial)
        _name(partial, target)
        _flush(target.parent)
        return target.stat().st_size
    except sqlite3.Error as error:
        raise _refused(target, error) from None
    except OSError as error:
        raise StoreError("copy", f"{target}: {error.strerror}") from None
    finally:
        for tail in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{partial}{tail}")


def _name(partial: Path, target: Path) -> None:
    """Never over what came meanwhile. Raises OSError."""
    try:
        os.link(partial, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.rename(partial, target)
        except OSError:
            os.unlink(target)  # empty, and ours
            raise


def _flush(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a folder that knows no such thing, as over a network
            raise
    finally:
        os.close(number)


def _checked(path: Path, *, newer: bool = False) -> sqlite3.Connection:
    """A store that is whole, for reading; `newer`: also one of a newer program. Raises
    StoreError."""
    if reason := why_not(path, "store"):
        raise StoreError("foreign", reason)
    try:
        if path.stat().st_size == 0:
            raise StoreError("corrupt", f"{path}: is empty")
        connection = read_only(path, journal=has_journal(path), wait=WAIT)
    except OSError as error:
        raise StoreError("refused", f"{path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise _refused(path, error) from None
    try:
        if (found := str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])) != "ok":
            raise StoreError("corrupt", f"{path}: {found}")
        (steps,) = connection.execute("SELECT max(number) FROM schema_step").fetchone()
        if steps > len(STEPS) and not newer:
            text = f"{path}: schema {steps}, this program knows {len(STEPS)}: run the newer program"
            raise StoreError("newer", text)
    except sqlite3.Error as error:
        connection.close()
        raise _refused(path, error) from None
    except StoreError:
        connection.close()
        raise
    return connection


def restore(file: Path, store: Path) -> Restored:
    """Put a backup in the store's place, in one transaction that processes which have the store
    open see as any other; what was there is kept. Raises StoreError."""
    try:
        checked = _checked(file)
    except StoreError as error:
        # It stays so: unlike a store, nothing mends a copy.
        kind = "copy" if error.kind in ("foreign", "corrupt") else error.kind
        raise StoreError(kind, str(error)) from None
    with closing(checked) as source:
        _refuse_short(source, file)
        kept = _set_aside(store)
        try:
            sqlite_file.create(store)
            with closing(sqlite3.connect(store, timeout=WAIT, isolation_level=None)) as target:
                sqlite_file.write_ahead(target, WAIT)
                target.execute("PRAGMA synchronous=FULL")
                source.backup(target)
                target.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise _refused(store, error) from None
        except OSError as error:
            raise StoreError("refused", f"{store}: {error.strerror}") from None
    return Restored(kept)


def _refuse_short(copy: sqlite3.Connection, file: Path) -> None:
    """A copy that was cut off within its last page: SQLite reads zeros there, and finds nothing
    wrong. Raises StoreError."""
    pages, size = (
        int(copy.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size")
    )
    if not has_journal(file) and file.stat().st_size < pages * size:
        raise StoreError("copy", f"{file}: is cut off: {pages * size:,} bytes were written")


def _set_aside(store: Path) -> Path | None:
    """A copy of the present store, which a newer program may have left; a damaged one is
    renamed."""
    if reason := why_not(store, "store"):
        raise StoreError("foreign", reason)
    if not store.exists() or store.stat().st_size == 0:
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = store.with_name(f"{store.name}.before-restore-{stamp}")
    try:
        with closing(_checked(store, newer=True)) as present:
            _copy(present, kept)
    except StoreError as error:
        if error.kind != "corrupt" or (now := sqlite_file.inode(store)) is None:
            raise
        return sqlite_file.move_aside(store, now)
    return kept


def _refused(path: Path, error: sqlite3.Error) -> StoreError:
    failure = sqlite_file.classify(path, error)
    return StoreError(failure.kind, str(failure))
