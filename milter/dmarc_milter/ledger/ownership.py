"""Whether a file may be opened as a spool or store at all, and by whom it may be changed.

A typo in `[store]` names somebody else's file. It is looked at before SQLite is, whose first step
(a write-ahead log) would change it already.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from enum import IntEnum
from pathlib import Path
from typing import Literal
from urllib.parse import quote

HEADER = b"SQLite format 3\0"
"""What every SQLite file begins with (fileformat2.html, 1.3)."""
JOURNAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""What every write-ahead log begins with (fileformat2.html, 4.1)."""
LOOKED_AT = 1 << 20
"""Bytes of a file, and of its journal, in which a trace of our tables is searched."""

Kind = Literal["spool", "store"]
TABLE: dict[Kind, str] = {
    "spool": "CREATE TABLE spool (seq INTEGER PRIMARY KEY",
    "store": "CREATE TABLE schema_step (number BIGINT PRIMARY KEY",
}
"""How the statement begins that made the table by which each is known: others may have a table of
that name."""


class Access(IntEnum):
    """What a command may do to the files of spool and store. Each level includes those before."""

    READ = 0
    """Nothing: no file is made, renamed, or written."""
    CHANGE = 1
    """Rows of a file that is there and ours."""
    CREATE = 2
    """Make a file that is missing, and bring its schema up to date."""
    OWN = 3
    """The daemon and its drain: also move a damaged file aside."""


def why_not(path: Path, kind: Kind) -> str:
    """Why this file is left alone: it is not a SQLite file, or another program's. "" for ours, for
    one that is damaged, for an empty one, and where there is none. Nothing is touched. Never
    raises."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return f"{path}: is a directory"
        if not stat.S_ISREG(mode):
            return f"{path}: is not a regular file"  # a pipe would hold whoever opens it
        start = _beginning(path)
    except OSError:
        return ""  # missing, or not for us to read: opening it says so
    journal = b""
    with suppress(OSError):
        journal = _beginning(Path(f"{path}-wal"))
    if not start.startswith(HEADER):
        was = not start or journal.startswith(JOURNAL_MAGIC) or _lost_header(start, TABLE[kind])
        return "" if was else f"{path}: is not a SQLite file"
    if _names(start + journal, TABLE[kind]):
        return ""
    tables = _tables(path)
    if _among(tables, kind) or not (tables or b"CREATE TABLE " in start + journal):
        return ""
    other: Kind = "store" if kind == "spool" else "spool"
    if _among(tables, other) or _names(start + journal, TABLE[other]):
        return f"{path}: is a {other} of this program, not a {kind}"
    return f"{path}: is a SQLite file of another program"


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LOOKED_AT)


def _among(statements: set[str], kind: Kind) -> bool:
    return any(statement.startswith(TABLE[kind]) for statement in statements)


def _names(content: bytes, table: str) -> bool:
    """Whether SQLite's list of tables has it: the list's rows hold the statements as text."""
    return table.encode() in content


def _lost_header(content: bytes, table: str) -> bool:
    """Whether it was ours and only its beginning is gone: a block of zeros, or the first page's
    tree is still there (1.6). Not a copy inside something else, such as a dump or an archive."""
    tree = content[100:101] in (b"\x05", b"\x0d")
    return (tree or not any(content[:100])) and _names(content, table)


def _tables(path: Path) -> set[str]:
    """The statements that made the tables of a SQLite file, without its journal; none where it
    cannot be read."""
    try:
        with closing(read_only(path, journal=False)) as connection:
            rows = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")
            return {str(sql) for (sql,) in rows}
    except sqlite3.Error:
        return set()


def read_only(path: Path, *, journal: bool, wait: float = 5.0) -> sqlite3.Connection:
    """A connection that cannot write. Without `journal` no other file is made or looked at either,
    which is right where nobody has the file open. `wait` in seconds. Raises sqlite3.Error."""
    mode = "mode=ro" if journal else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{mode}",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,
    )


def has_journal(path: Path) -> bool:
    """Whether there is a write-ahead log with something in it, or somebody who may write to one."""
    wal, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    with suppress(OSError):
        return wal.stat().st_size > 0 or index.exists()
    return False
