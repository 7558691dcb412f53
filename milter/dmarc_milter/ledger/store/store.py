"""The store: what all hosts together have counted, decided and reported."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store import apply_batch, gaps, schema
from dmarc_milter.ledger.store.apply_batch import Batch, Decoded
from dmarc_milter.ledger.store.daily_caps import StoreOptions
from dmarc_milter.ledger.store.database import (
    ATTEMPTS,
    Database,
    Transaction,
    attempt,
    connect,
    fetch,
)
from dmarc_milter.ledger.store.decisions import Decisions
from dmarc_milter.ledger.store.deliveries import Deliveries
from dmarc_milter.ledger.store.destinations import Destinations
from dmarc_milter.ledger.store.failures import Failures
from dmarc_milter.ledger.store.gaps import Gap
from dmarc_milter.ledger.store.handed_over import HandedOverReports
from dmarc_milter.ledger.store.partitions import LogDays, day_of
from dmarc_milter.ledger.store.report_rows import Closed, PreparedRows
from dmarc_milter.ledger.store.reports import Reports

T = TypeVar("T")


class Store:
    """One connection to the store, for one thread. Everything raises StoreError and nothing else.

    `clock` gives seconds since 1970; hosts' clocks may differ by a minute.
    """

    def __init__(
        self,
        database: Database,
        options: StoreOptions = StoreOptions(),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database
        self.options = options
        self.clock = clock
        self.decisions = Decisions(database)
        self.reports = Reports(database, clock)
        self.deliveries = Deliveries(database, clock)
        self.destinations = Destinations(database, clock)
        self.failures = Failures(database, clock)
        self.handed_over = HandedOverReports(database)
        self._days = LogDays(database)
        self._checked = False

    @classmethod
    def open(
        cls,
        url: str,
        options: StoreOptions = StoreOptions(),
        *,
        password: str = "",
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """The store at `store.url`; its schema is seen to. Raises StoreError."""
        store = cls(connect(url, password), options, clock=clock)
        try:
            store.ready()
        except StoreError:
            store.close()
            raise
        return store

    def ready(self) -> None:
        """The file of one machine is brought up to date by itself; a shared store of another schema
        is refused. Raises StoreError."""
        if self._checked:
            return
        if self.database.access >= Access.CREATE:
            schema.upgrade(self.database)
        schema.check(self.database)
        self._checked = True

    def apply(self, batch: Batch) -> int:
        """Count a batch of a spool, exactly once however often it is handed over; how many of its
        messages were new. Raises Moved where the store is not where `batch.after` says, and
        StoreError."""
        self.ready()
        now, read = int(self.clock()), apply_batch.read(batch)
        without = self._days.without(read.times(), now, self.options.decision_days)
        read = read._replace(logged=lambda at: day_of(at) not in without)
        for _ in range(ATTEMPTS):
            decoded, prepared = self._checking(lambda: self._prepared(read, now))
            work = partial(self._apply, decoded=decoded, prepared=prepared, now=now)
            with suppress(Closed, apply_batch.Erased):
                return self._ready(work)
        raise StoreError("locked", f"{self.database.name}: reports are closed again and again")

    def _prepared(self, read: Decoded, now: int) -> tuple[Decoded, PreparedRows]:
        decoded = apply_batch.without_erased(self.database, read)
        return decoded, apply_batch.prepare(self.database, decoded, self.options, now)

    def _apply(
        self, transaction: Transaction, decoded: Decoded, prepared: PreparedRows, now: int
    ) -> int:
        """Nothing is counted by a program that does not know the schema as it is by then."""
        number = apply_batch.apply(transaction, decoded, prepared, self.options, now)
        schema.check_within(transaction, self.database.name)
        return number

    def last_sequence(self, identity: str) -> int:
        """The last sequence number of this spool that is counted; 0 for a spool that is new
        here."""
        return self.last_counted(identity)[0]

    def last_counted(self, identity: str) -> tuple[int, str]:
        """The same, and the id of that message; "" where that is not known."""
        self.ready()
        sql = "SELECT last_seq, last_id FROM origin WHERE identity = ?"
        try:
            rows = fetch(self.database, sql, (identity,))
        except StoreError:
            self._checked = False
            raise
        return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")

    def note_gap(self, gap: Gap, host: str, kept: int) -> bool:
        """Count what the store has lost of a spool that still has `kept` of it; False where that
        was counted already."""
        now = int(self.clock())
        return self._ready(lambda transaction: gaps.note(transaction, gap, host, kept, now))

    def close_gap(self, gap: Gap) -> None:
        """What was kept is applied again."""
        self._ready(lambda transaction: gaps.close(transaction, gap))

    def _ready(self, work: Callable[[Transaction], T]) -> T:
        """`work` in a transaction of a store whose schema is right; looked at again after any
        failure: the file may be another one."""
        return self._checking(lambda: attempt(self.database, work))

    def _checking(self, work: Callable[[], T]) -> T:
        self.ready()
        try:
            return work()
        except StoreError:
            self._checked = False
            self._days = LogDays(self.database)
            raise

    def close(self) -> None:
        self.database.close()
