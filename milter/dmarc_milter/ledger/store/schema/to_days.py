"""From a plain decision log to one by days, whatever it holds: the old table becomes the first
partition, for all the time before tomorrow, so that no row is copied."""

from __future__ import annotations

import time

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.database import Database, Transaction, attempt
from dmarc_milter.ledger.store.partitions import (
    LOCK_WAIT,
    day_of,
    is_partitioned,
    name_of,
    supported,
)

PROBE = (
    "DROP TABLE IF EXISTS decision_probe",
    "CREATE TABLE decision_probe (at BIGINT NOT NULL) PARTITION BY RANGE (at)",
    "DROP TABLE decision_probe",
)
OLD = "decision_old"
"""The name of what an older version left, as a partition."""


def to_days(database: Database) -> bool:
    """Whether the decision log is by days now. False: the engine cannot. Raises StoreError."""
    with database.transaction(write=False) as transaction:
        if is_partitioned(transaction):
            return True
    return _supported(database) and attempt(database, _convert)


def _supported(database: Database) -> bool:
    def probe(transaction: Transaction) -> bool:
        if not supported(transaction):
            return False
        for sql in PROBE:
            transaction.run(sql)
        return True

    try:
        return attempt(database, probe)
    except StoreError as error:
        if error.kind in ("refused", "denied", "io"):  # syntax, a missing feature, a missing right
            return False
        raise


def _convert(transaction: Transaction) -> bool:
    transaction.run(LOCK_WAIT)
    transaction.at_length()
    transaction.run("LOCK TABLE decision IN ACCESS EXCLUSIVE MODE")
    if is_partitioned(transaction):
        return True
    indexes = transaction.all(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'decision' AND schemaname ="
        " current_schema() AND indexname <> 'decision_pkey'"
    )
    end = day_of(time.time()) + DAY
    keep = _keep(transaction, end)
    for name, _ in indexes:
        transaction.run(f"ALTER INDEX {name} RENAME TO {_old(name)}")
    for sql in (
        "ALTER TABLE decision DROP CONSTRAINT decision_pkey",
        f"ALTER TABLE decision RENAME TO {OLD}",
        f"CREATE TABLE decision (LIKE {OLD} INCLUDING DEFAULTS) PARTITION BY RANGE (at)",
        f"CREATE TABLE decision_later (LIKE {OLD})",
        f"WITH gone AS (DELETE FROM {OLD} WHERE at >= {end} RETURNING *)"
        " INSERT INTO decision_later SELECT * FROM gone",
        *keep,
        "ALTER TABLE decision ADD PRIMARY KEY (id, at)",
    ):
        transaction.run(sql)
    for _, definition in indexes:  # those of the old table are taken over, not built again
        transaction.run(definition)
    _bring_later(transaction)
    return True


def _keep(transaction: Transaction, end: int) -> tuple[str, ...]:
    """What makes the old table the first partition; where it is empty, it goes."""
    if transaction.one("SELECT 1 FROM decision LIMIT 1") is None:
        return (f"DROP TABLE {OLD}",)
    return (
        f"ALTER TABLE {OLD} ADD PRIMARY KEY (id, at)",
        f"ALTER TABLE {OLD} ADD CONSTRAINT decision_range CHECK (at < {end})",
        f"ALTER TABLE decision ATTACH PARTITION {OLD} FOR VALUES FROM (MINVALUE) TO ({end})",
        f"ALTER TABLE {OLD} DROP CONSTRAINT decision_range",
    )


def _old(index: str) -> str:
    return index.replace("decision_", f"{OLD}_", 1)


def _bring_later(transaction: Transaction) -> None:
    """Rows of a clock that was ahead: into partitions of their days."""
    days = transaction.all("SELECT DISTINCT at - at % 86400 FROM decision_later")
    for day in sorted(int(row[0]) for row in days):
        transaction.run(f"CREATE TABLE {name_of(day)} (LIKE decision)")
        transaction.run(
            f"ALTER TABLE decision ATTACH PARTITION {name_of(day)} FOR VALUES FROM ({day}) TO"
            f" ({day + DAY})"
        )
    transaction.run("INSERT INTO decision SELECT * FROM decision_later")
    transaction.run("DROP TABLE decision_later")
