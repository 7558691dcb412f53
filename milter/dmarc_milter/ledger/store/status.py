"""The state of spool and store, for `store status`: numbers, what is wrong, and what to do about
it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.no_room import Hindrance, of_file_system
from dmarc_milter.ledger.spool.reader import SpoolReader
from dmarc_milter.ledger.store import log_size
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list
from dmarc_milter.ledger.store.gaps import Lost, losses
from dmarc_milter.ledger.store.schema import STEPS, check, version

LITTLE = 1 << 18
"""Bytes of room that are as good as none: a group of messages, or a batch, takes more."""
LOSS_SHOWN = 30 * 86400
"""Seconds for which a loss is told."""
TABLES = (
    "report",
    "report_row",
    "delivery",
    "failure",
    "parked",
    "known_domain",
)
"""Those whose rows are counted; those of the decision log are known."""
MOST_COUNTED = 200_000
"""Rows of a table that are counted at most; of a table with more it is known that it has more."""
WRITTEN = (
    "author_day", "authorisation", "author_name", "clock", "daily", "decision", "destination",
    "handed_over", "hour_total", "incident_count", "installation", "lease", "origin",
    "outcome_sum", "quota", "report_count", "report_document", "spent", "suppressed_pair",
    "suppression", *TABLES,
)  # fmt: skip
"""Those that a drain or the reports write."""
LOOKED_INTO = (*WRITTEN, "tombstone")
MISSING = (
    "SELECT relname FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND relnamespace = (SELECT"
    " oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND relname IN [] AND NOT"
    " (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') AND"
    " has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) ORDER BY 1 LIMIT 1"
)
REMEDIES = {
    "unreachable": (
        "check that the database runs, answers, and that the address, the user and the password are"
        " right; the spool holds until then"
    ),
    "locked": "another program holds the file, or a table: end it; messages wait in the spool",
    "full": "make room on the disk, or raise [store] spool_max_bytes",
    "refused": "the file or directory must be writable for the service's account",
    "corrupt": (
        "the daemon, or `dmarc-milter store drain`, moves the damaged file aside and creates a new"
        " one; `sqlite3 FILE.corrupt-... .recover` may save rows of it"
    ),
    "foreign": (
        "name another file in [store]; this one was left as it is. If it is a damaged one of ours,"
        " move it away: a new one is created"
    ),
    "older": "run `dmarc-milter store upgrade` on one host",
    "newer": "upgrade this host's program; until then its messages wait in the spool",
    "absent": (
        "install it where this program's own libraries are (.venv/bin/pip in the source folder);"
        " the spool holds until then"
    ),
    "exists": (
        "restore the backup into an empty database, then `dmarc-milter store upgrade` and `store"
        " restore`; a table that nothing of ours made has to go"
    ),
    "clock": "put the clock right (timedatectl, chronyc tracking)",
    "read_only": (
        "this server takes no changes, as a standby does, or one whose account or database has"
        " default_transaction_read_only: let [store] url name the one that does (a standby is for"
        " [store] read_url); messages wait in the spool"
    ),
    "denied": (
        "the account of [store] url needs SELECT, INSERT, UPDATE and DELETE on every table of the"
        " schema: GRANT it; messages wait in the spool"
    ),
    "io": "look at the kernel's log: the disk may be failing",
}


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """`moved_aside` are damaged files that were kept."""

    path: Path
    waiting: int = 0
    octets: int = 0
    problem: str = ""
    remedy: str = ""
    moved_aside: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """`rows` by table (MOST_COUNTED + 1: there are more) and `reports` by state; `folded` messages
    had no room for a row of their own this week; `unlogged` ones were counted when they were too
    old for the decision log.

    `moved_aside` are damaged files that were kept.
    """

    name: str
    schema: int = 0
    wanted_schema: int = len(STEPS)
    rows: dict[str, int] | None = None
    reports: dict[str, int] | None = None
    folded: int = 0
    unlogged: int = 0
    octets: int = 0
    last_drained: int = 0
    problem: str = ""
    remedy: str = ""
    moved_aside: tuple[Path, ...] = ()
    lost: tuple[Lost, ...] = ()
    """Messages that the store had and has lost, found within the last 30 days."""


def spool_status(path: Path, max_bytes: int = 0) -> SpoolStatus:
    """Never raises, and makes no spool where there is none. `max_bytes` is the spool's bound, where
    it is known."""
    aside = moved_aside(path)
    if not is_there(path):
        reason = obstacle(path)
        remedy = REMEDIES["refused"] if reason else ""
        return SpoolStatus(
            path,
            problem=reason or "there is no spool yet: nothing was recorded",
            remedy=remedy,
            moved_aside=aside,
        )
    file = SpoolReader(path)
    try:
        waiting, octets, lack = file.waiting(), size(path), shortage(path)
        if not lack and max_bytes and file.room(max_bytes) < LITTLE:
            lack = Hindrance("full", f"the spool is full, at its limit of {max_bytes:,} bytes")
        problem, remedy = (lack.text, REMEDIES[lack.kind]) if lack else ("", "")
        return SpoolStatus(path, waiting, octets, problem, remedy, aside)
    except SpoolError as error:
        return SpoolStatus(
            path,
            octets=size(path),
            problem=str(error),
            remedy=REMEDIES[error.kind],
            moved_aside=aside,
        )
    finally:
        file.close()


def moved_aside(path: Path) -> tuple[Path, ...]:
    """What is left of earlier damage to a SQLite file."""
    if not is_there(path.parent):
        return ()
    return tuple(
        sorted(
            file
            for file in path.parent.glob(f"{path.name}.corrupt-*")
            if not file.name.endswith(("-wal", "-shm"))
        )
    )


def store_status(database: Database) -> StoreStatus:
    """Never raises."""
    found = _store_status(database)
    return (
        replace(found, moved_aside=moved_aside(Path(database.name)))
        if database.dialect == "sqlite"
        else found
    )


def _store_status(database: Database) -> StoreStatus:
    path = Path(database.name) if database.dialect == "sqlite" else None
    if path is not None and not is_there(path):
        reason = obstacle(path)
        problem = f"{path}: there is no store yet" + (f", and {reason}" if reason else "")
        return StoreStatus(
            database.name,
            problem=problem,
            remedy=REMEDIES["refused"] if reason else "nothing: the first drain creates it",
        )
    schema = 0
    try:
        schema = version(database)
        check(database)
        check_writable(database)
        lack = shortage(path) if path is not None else None
        return StoreStatus(
            database.name,
            schema,
            rows={"decision": log_size.rows(database)}
            | {table: _counted(database, table) for table in TABLES},
            reports={
                state: int(number)
                for state, number in fetch(
                    database, "SELECT state, count(*) FROM report GROUP BY state"
                )
            },
            folded=_number(database, "SELECT coalesce(sum(folded), 0) FROM quota"),
            unlogged=_number(database, "SELECT coalesce(sum(unlogged), 0) FROM origin"),
            octets=size(path) if path is not None else 0,
            last_drained=_number(database, "SELECT coalesce(max(drained_at), 0) FROM origin"),
            problem=lack.text if lack else "",
            remedy=REMEDIES[lack.kind] if lack else "",
            lost=tuple(_losses(database)),
        )
    except StoreError as error:
        return StoreStatus(database.name, schema, problem=str(error), remedy=REMEDIES[error.kind])


def _losses(database: Database) -> list[Lost]:
    with database.transaction(write=False) as transaction:
        return losses(transaction, int(time.time()) - LOSS_SHOWN)


def check_writable(database: Database) -> None:
    """That a drain could write now: no lock on a whole table stands in its way, the account has the
    rights, and the server takes changes. Raises StoreError.

    An engine without this statement is no reason to complain.
    """
    if database.dialect == "sqlite":
        return
    try:
        attempt(database, lambda transaction: _look_whether_writable(transaction, database.name))
    except StoreError as error:
        if error.kind not in ("refused", "io"):
            raise


def _counted(database: Database, table: str) -> int:
    """How many rows a table has, or one more than MOST_COUNTED."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {MOST_COUNTED + 1}) AS counted"
    return _number(database, sql)


def _look_whether_writable(transaction: Transaction, name: str) -> None:
    if transaction.one("SELECT current_setting('transaction_read_only')") == ("on",):
        raise StoreError("read_only", f"{name}: the server takes no changes (it is read-only)")
    denied = transaction.one(with_list(MISSING, LOOKED_INTO), LOOKED_INTO)
    if denied:
        text = f"the account may not read and change the table {denied[0]}"
        raise StoreError("denied", f"{name}: {text}")
    transaction.run(f"LOCK TABLE {', '.join(WRITTEN)} IN ROW EXCLUSIVE MODE")


def _number(database: Database, sql: str) -> int:
    return int(fetch(database, sql)[0][0])


def is_there(path: Path) -> bool:
    """Whether there is such a file, as far as this account can see."""
    try:
        return path.exists()
    except OSError:
        return False


def obstacle(path: Path) -> str:
    """Why this account cannot write, or make, a SQLite file there; "" where it can. Nothing is
    touched."""
    folder = path.parent
    try:
        is_folder = folder.is_dir()
    except OSError:
        return f"{folder} cannot be seen by this account"
    if not is_folder:
        return f"{folder} is not a directory" if is_there(folder) else f"{folder} is not there"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written by this account"
    return (
        f"{path} cannot be written by this account"
        if is_there(path) and not os.access(path, os.R_OK | os.W_OK)
        else ""
    )


def shortage(path: Path) -> Hindrance | None:
    """That the disk under a file has no room left, or is read-only: reading it still works then, so
    nothing else would say so."""
    try:
        free = shutil.disk_usage(path.parent).free
        if found := of_file_system(path):
            return found
    except OSError:
        return None
    text = f"the disk under {path.parent} is full, {free:,} bytes are free"
    return Hindrance("full", text) if free < LITTLE else None


def size(path: Path) -> int:
    """Bytes of a SQLite file with its journal."""
    files = [path, path.with_name(path.name + "-wal")]
    return sum(file.stat().st_size for file in files if is_there(file))


def matching(database: Database, prefix: str) -> list[str]:
    """The ids of reports and failure reports that begin so, at most two, since more than one is not
    an answer. `prefix` is hexadecimal. Raises StoreError."""
    found: list[str] = []
    for table in ("report", "failure"):
        sql = f"SELECT id FROM {table} WHERE id LIKE ? ORDER BY id LIMIT 2"
        found += [row[0] for row in fetch(database, sql, (f"{prefix}%",))]
    return found[:2]
