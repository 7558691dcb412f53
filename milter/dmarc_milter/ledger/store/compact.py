"""Rewriting a SQLite store so that its file is as small as what it holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.ledger.store.database import Database
from dmarc_milter.ledger.store.status import size


class Compacted(NamedTuple):
    """Bytes of the file with its journal; `problem` says why nothing was done, or ""."""

    before: int
    after: int
    problem: str = ""


def compact(database: Database) -> Compacted:
    """Rewrite the file, which from then on gives room back by itself. Needs as much room as the
    file; messages wait in the spool meanwhile. Raises StoreError."""
    if database.dialect != "sqlite":
        return Compacted(0, 0, "a PostgreSQL server gives room back by itself (autovacuum)")
    path = Path(database.name)
    before = size(path)
    free = shutil.disk_usage(path.parent).free
    if free < 2 * before:  # the new file, and the journal through which it is written
        return Compacted(
            before, before, f"{path.parent} has {free:,} bytes free, this needs {2 * before:,}"
        )
    database.alone("PRAGMA auto_vacuum=INCREMENTAL", seconds=0)
    database.alone("VACUUM", seconds=0)
    database.alone("PRAGMA wal_checkpoint(TRUNCATE)", seconds=0)
    return Compacted(before, size(path))
