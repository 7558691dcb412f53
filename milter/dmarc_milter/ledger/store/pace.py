"""Deleting much without being in anybody's way: a little in each transaction, and a rest after it
in which others write."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list

AIM = 0.1
"""Seconds that one transaction should take."""
LEAST, MOST = 200, 2000
"""Rows of one transaction."""
REST = 0.01
"""Seconds between two transactions, at least: whoever waits for a SQLite file looks that often."""
PAGES = 250
"""Pages of a SQLite file that are given back at a time (1 MB)."""
SPARE = 0.1
"""The share of a SQLite file that may be unused: it will be used again."""


class Pace:
    """Deletes in chunks that aim at AIM. `before_each` is called before each of them: it renews a
    lease."""

    def __init__(
        self,
        database: Database,
        before_each: Callable[[], object] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.database = database
        self.before_each, self._sleep = before_each, sleep
        self._size = 500

    def delete(self, table: str, key: str, condition: str, *values: object) -> int:
        """Delete the rows of `table` that meet `condition`; how many they were. Rows with the same
        `key` go together. Raises StoreError."""
        look = f"SELECT {key} FROM {table} WHERE {condition} LIMIT ?"  # holds no writer up
        sql = f"DELETE FROM {table} WHERE {condition} AND {key} IN []"
        total = 0
        while keys := [row[0] for row in fetch(self.database, look, (*values, self._size))]:
            self.before_each()
            started = time.monotonic()
            work = partial(_delete, sql=with_list(sql, keys), values=(*values, *keys))
            total += attempt(self.database, work)
            if len(keys) < self._size:
                break
            seconds = time.monotonic() - started
            self._size = min(MOST, max(LEAST, int(self._size * AIM / max(seconds, AIM / 10))))
            self.rest(seconds)
        return total

    def rest(self, seconds: float) -> None:
        """As long as the others had to wait, or could have."""
        self._sleep(max(seconds, REST))


def _delete(transaction: Transaction, sql: str, values: tuple[object, ...]) -> int:
    return transaction.run(sql, values)


def give_back(database: Database, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return the room of deleted rows in a SQLite file to the disk, where the file was made for
    that (`store compact` does it to older ones). Raises StoreError."""
    if database.dialect != "sqlite" or _pragma(database, "auto_vacuum") != 2:
        return
    while (free := _pragma(database, "freelist_count")) > SPARE * _pragma(database, "page_count"):
        database.alone(f"PRAGMA incremental_vacuum({PAGES})", seconds=0)
        sleep(REST)
        if _pragma(database, "freelist_count") >= free:
            return


def _pragma(database: Database, name: str) -> int:
    return int(fetch(database, f"PRAGMA {name}")[0][0])
