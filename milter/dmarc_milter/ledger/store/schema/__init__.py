"""The version of the shared store's schema: steps that are applied once each, and the notes of
them."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.database import Database, Transaction, attempt
from dmarc_milter.ledger.store.lease import Lease
from dmarc_milter.ledger.store.log_size import write_missing
from dmarc_milter.ledger.store.partitions import make_ahead
from dmarc_milter.ledger.store.schema.roll_up import roll_up
from dmarc_milter.ledger.store.schema.steps import (
    BOUNCES,
    CLOCK,
    COUNTING,
    DAYS,
    DEFERRALS,
    ERASURES,
    FAILURES,
    GAPS,
    HOSTS,
    IDENTITIES,
    IMPACT,
    LAST_IDS,
    LEASES,
    REPORTERS,
    REPORTS,
    ROLLUP_DAYS,
    ROLLUPS,
    SUPPRESSIONS,
    TOTALS,
    SchemaStep,
)
from dmarc_milter.ledger.store.schema.to_days import to_days

STEPS: tuple[SchemaStep, ...] = (
    SchemaStep("counting", COUNTING),
    SchemaStep("reports", REPORTS),
    SchemaStep("impact", IMPACT),
    SchemaStep("bounces", BOUNCES),
    SchemaStep("deferrals", DEFERRALS),
    SchemaStep("failures", FAILURES),
    SchemaStep("days", DAYS),
    SchemaStep("suppressions", SUPPRESSIONS),
    SchemaStep("clock", CLOCK),
    SchemaStep("gaps", GAPS),
    SchemaStep("rollups", ROLLUPS, roll_up),
    SchemaStep("identities", IDENTITIES),
    SchemaStep("hosts", HOSTS),
    SchemaStep("erasures", ERASURES),
    SchemaStep("reporters", REPORTERS),
    SchemaStep("rollup days", ROLLUP_DAYS),
    SchemaStep("totals", TOTALS, write_missing),
    SchemaStep("last ids", LAST_IDS),
)
"""Steps are only ever added; what a released version has applied is never changed."""
HELD = 60
"""Seconds that one host keeps the others from the schema; every statement begins them anew."""
WAIT = 0.2
"""Seconds between two looks at what another host is doing."""


def version(database: Database) -> int:
    """The number of steps that the store has seen; 0 for an empty one. Raises StoreError."""
    with database.transaction(write=False) as transaction:
        return _applied(transaction, database.dialect)


def _has_list(transaction: Transaction, dialect: str) -> bool:
    catalogue = (
        "SELECT count(*) FROM sqlite_master WHERE name = 'schema_step'"
        if dialect == "sqlite"
        # information_schema hides what this account has no right to.
        else (
            "SELECT count(*) FROM pg_catalog.pg_class WHERE relname = 'schema_step' AND"
            " relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ="
            " current_schema())"
        )
    )
    return transaction.one(catalogue) != (0,)


def _applied(transaction: Transaction, dialect: str) -> int:
    if not _has_list(transaction, dialect):
        return 0
    row = transaction.one("SELECT coalesce(max(number), 0) FROM schema_step")
    return int(row[0]) if row else 0


def check(database: Database) -> None:
    """Raises StoreError ("older" or "newer") unless the store has exactly this program's schema."""
    _compare(version(database), database.name)


def check_within(transaction: Transaction, name: str) -> None:
    """The same as the transaction sees it now; `name` of the store. Asked after the batch has
    locked its row of origin, which a step that counts waits for, and keeps: what it has not counted
    is not written. Raises StoreError."""
    row = transaction.one("SELECT max(number) FROM schema_step")
    _compare(int(row[0]) if row and row[0] is not None else 0, name)


def _compare(found: int, name: str) -> None:
    if found < len(STEPS):
        raise StoreError(
            "older",
            f"{name}: schema {found}, this program needs {len(STEPS)}: run `dmarc-milter store"
            " upgrade`",
        )
    if found > len(STEPS):
        raise StoreError(
            "newer",
            f"{name}: schema {found}, this program knows {len(STEPS)}: run the newer program"
            " everywhere",
        )


def upgrade(database: Database, *, by_day: bool = True) -> list[str]:
    """Apply the steps that are missing; their names. Several hosts may try at once. Raises
    StoreError, also for a newer schema.

    `by_day`: the decision log of a PostgreSQL store in partitions, where the engine has them.
    """
    applied: list[str] = []
    if version(database) < len(STEPS):  # whoever only asks must not wait for a writer
        _make_lists(database)
        apply = _step if database.dialect == "sqlite" else _shared_step
        while (found := version(database)) < len(STEPS):
            if apply(database, found):
                applied.append(STEPS[found].name)
    check(database)
    if by_day and database.dialect == "postgresql":
        _by_days(database)
    return applied


def _by_days(database: Database) -> None:
    """The decision log in partitions, with those to come. One host at a time: of several that make
    the same table PostgreSQL tells all but one that it exists, again and again."""
    lease = Lease(database, "schema", HELD)
    while not lease.take():
        time.sleep(WAIT)
    try:
        if to_days(database):
            make_ahead(database, time.time())
    finally:
        with suppress(StoreError):
            lease.release()


def _make_lists(database: Database) -> None:
    """The list of steps, and that of leases. Of two hosts at once PostgreSQL may tell the second
    that it exists, `IF NOT EXISTS` or not."""
    steps = (
        "CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL,"
        " applied_at BIGINT NOT NULL)"
    )
    for sql in (steps, *LEASES):
        for last in (False, True):
            try:
                attempt(database, partial(_run, sql=sql))
                break
            except StoreError:
                if last:
                    raise


NOTE = (
    "INSERT INTO schema_step (number, name, applied_at) VALUES (?, ?, ?) ON CONFLICT (number) DO"
    " NOTHING"
)


def _step(database: Database, number: int) -> bool:
    """A step of a SQLite store and the note of it, in one transaction. The note comes first: of two
    processes the second waits for the first, and then has nothing to do."""

    def work(transaction: Transaction) -> bool:
        step = STEPS[number]
        if transaction.run(NOTE, (number + 1, step.name, int(time.time()))) == 0:
            return False
        for statement in step.statements:
            transaction.run(statement)
        if step.convert is not None:
            step.convert(transaction)
        return True

    return attempt(database, work)


def _shared_step(database: Database, number: int) -> bool:
    """A step of a shared store: each statement by itself and the note last, since not every engine
    can undo a step halfway. One host does it, the others wait; whether it was this one."""
    lease, step = Lease(database, "schema", HELD), STEPS[number]
    if not lease.take():
        time.sleep(WAIT)
        return False
    if version(database) != number:
        lease.release()
        return False
    for statement in step.statements:
        attempt(database, partial(_run_at_length, sql=statement))
        lease.take()
    noted = _convert(database, number)
    lease.release()
    return noted


NO_DRAIN = (
    "SET LOCAL idle_in_transaction_session_timeout = '10min'",
    "LOCK TABLE origin IN EXCLUSIVE MODE",
)
"""Waits for the batches on their way, and lets no other begin: they lock their row of it first."""


def _convert(database: Database, number: int) -> bool:
    """What a step makes of the rows that are there, and its note, in one transaction; whether this
    host wrote it. An engine that has no such lock does without."""
    step = STEPS[number]

    def work(transaction: Transaction, first: tuple[str, ...]) -> bool:
        if step.convert is not None:
            transaction.at_length()
        for sql in first:
            transaction.run(sql)
        if step.convert is not None:
            step.convert(transaction)
        return transaction.run(NOTE, (number + 1, step.name, int(time.time()))) == 1

    try:
        return attempt(database, partial(work, first=NO_DRAIN if step.convert else ()))
    except StoreError as error:
        if error.kind not in ("refused", "denied", "io"):
            raise  # else: a statement that the engine does not know, or a right that is missing
    return attempt(database, partial(work, first=()))


def _run(transaction: Transaction, sql: str) -> int:
    return transaction.run(sql)


def _run_at_length(transaction: Transaction, sql: str) -> None:
    """An index of a large log takes as long as it takes."""
    transaction.at_length()
    transaction.run(sql)
