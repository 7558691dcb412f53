"""Work that one host does at a time, though every host has the job: a row in the shared store says
who has it and until when."""

from __future__ import annotations

import time
import uuid

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Database, attempt


class Lease:
    """The right to do the work called `name`, for `seconds` unless it is renewed. A SQLite store
    belongs to one machine and its writers wait for each other: there it is always given."""

    def __init__(self, database: Database, name: str, seconds: int) -> None:
        self._database, self._name, self._seconds = database, name, seconds
        self._owner = uuid.uuid4().hex

    def take(self) -> bool:
        """Get or renew it; False while another has it. Raises StoreError."""
        if self._database.dialect == "sqlite":
            return True
        now = int(time.time())
        sql = (
            "INSERT INTO lease (name, owner, until_at) VALUES (?, ?, ?) ON CONFLICT (name) DO"
            " UPDATE SET owner = excluded.owner, until_at = excluded.until_at WHERE lease.owner = ?"
            " OR lease.until_at < ? OR lease.until_at > ?"
        )
        wrong = now + self._seconds + DAY  # written by a clock that was ahead
        values = (self._name, self._owner, now + self._seconds, self._owner, now, wrong)
        return attempt(self._database, lambda transaction: transaction.run(sql, values)) == 1

    def release(self) -> None:
        """Let others have it at once. Raises StoreError."""
        if self._database.dialect == "sqlite":
            return
        sql = "DELETE FROM lease WHERE name = ? AND owner = ?"
        values = (self._name, self._owner)
        attempt(self._database, lambda transaction: transaction.run(sql, values))
