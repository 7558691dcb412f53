"""A store of every older schema, with data in it, is brought up to date: no row is lost, none
changes, and it works like a new one afterwards, also where the upgrade is interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store import log_size, schema
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, connect, fetch
from dmarc_milter.ledger.store.partitions import has_days
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import NOON, evaluation
from fakes.stores import batch, fresh_schema, upgraded
from live.postgres import Postgres

NOW = int(NOON.timestamp())
DAY = 86400
VERSIONS = range(1, len(schema.STEPS))
SHAPE = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master ORDER BY name",
    "postgresql": (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name !~ '_(d[0-9]+|old)$' UNION ALL"
        " SELECT tablename, regexp_replace(indexname, '_pkey[0-9]+', '_pkey'),"
        " regexp_replace(replace(indexdef, current_schema() || '.', ''), '_pkey[0-9]+', '_pkey'),"
        " '' FROM"
        " pg_indexes WHERE schemaname = current_schema() AND tablename !~ '_(d[0-9]+|old)$'"
        " ORDER BY 1, 2"
    ),
}
SOAK = bool(os.environ.get("DMARC_MILTER_SOAK"))
COLUMNS = (
    "id",
    "at",
    "host",
    "queue_id",
    "message_id",
    "author_domain",
    "policy_domain",
    "source_ip",
    "status",
    "disposition",
    "would_be",
    "facts",
)
"""Of the decision log as the first schema had it."""


def made(url: str, version: int, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty store as the program with so many steps made it: its tables are plain."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:version])
        database = connect(url)
        schema.upgrade(database, by_day=False)
    return database


def log_of_a_month(transaction: Transaction) -> list[str]:
    """Decisions of 30 days, of a clock in 1970 and of one that was ahead by a year; their ids."""
    ids = []
    for days in (-20_000, *range(-30, 1), 365):
        each = replace(evaluation(queue_id=f"Q{days}"), at=NOON + timedelta(days=days))
        facts = from_evaluation(each)
        values: tuple[Any, ...] = (
            facts.id, int(facts.at), "mx1", facts.queue_id, facts.message_id, facts.author_domain,
            facts.policy_domain, facts.source_ip, facts.status, facts.disposition, facts.would_be,
            encode(facts),
        )  # fmt: skip
        marks = ", ".join("?" * len(COLUMNS))
        transaction.run(f"INSERT INTO decision ({', '.join(COLUMNS)}) VALUES ({marks})", values)
        ids.append(facts.id)
    return ids


def other_rows(transaction: Transaction, version: int) -> None:
    """A row in the tables that reports, known domains and totals stand in."""
    transaction.run(
        "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES ('a', 'm', 7, 8)"
    )
    by_origin = [step.name for step in schema.STEPS].index("hosts")
    more, of_whom = (", origin", ", 0") if version > by_origin else ("", "")
    transaction.run(
        f"INSERT INTO daily (day, status, disposition, would_be, messages{more}) VALUES (0, 'fail',"
        f" 'reject', '', 9{of_whom})"
    )
    transaction.run("INSERT INTO known_domain VALUES ('known.example', 5)")
    if version > [step.name for step in schema.STEPS].index("totals"):
        log_size.write_missing(transaction)  # as a program of that schema has it
    if version >= 2:
        transaction.run(
            "INSERT INTO delivery (report_id, address, format, state, attempts, next_at,"
            " last_reply, last_at, lease_owner, lease_until) VALUES ('r', 'a@x.example', 'rfc9990',"
            " 'queued', 0, 0, '', 0, '', 0)"
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_filled_store_of_an_older_schema_loses_nothing(
    version: int, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row is found afterwards, by every question; messages are still counted once; and what
    is too old goes as it would have gone."""
    database = made(store_url, version, monkeypatch)
    with database.transaction() as transaction:
        ids = log_of_a_month(transaction)
        other_rows(transaction, version)
    database.close()
    with closing(Store(connect(upgraded(store_url)), clock=lambda: NOW)) as store:
        assert has_days(store.database) == (store.database.dialect == "postgresql")
        assert {each.facts.id for each in store.decisions.recent()} == set(ids)
        assert [each.facts.id for each in store.decisions.find("Q-3")] == [ids[-5]]
        assert store.last_sequence("a") == 7
        assert [each.messages for each in store.decisions.totals()] == [9]
        assert store.destinations.has_passed("known.example")
        if version >= 2:
            assert [each.address for each in store.deliveries.of("r")] == ["a@x.example"]
        assert log_size.rows(store.database) == len(ids)
        today = replace(evaluation(), at=NOON)
        assert store.apply(batch(today)) == 1
        assert store.apply(batch(today, identity="a-copy")) == 0
        assert expire(store.database, Retention(), now=NOW)["decision"] >= 17
        left = [each.facts.at for each in store.decisions.recent()]
        assert min(left) >= NOW - 15 * DAY
        assert log_size.rows(store.database) == len(left)
        assert len(left) == 14 + 1 + 1 + 1, "fourteen days, today, today's new one and the future's"


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_store_has_the_tables_of_a_new_one(
    version: int,
    store_url: str,
    postgres_server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Columns and indexes alike."""
    database = made(store_url, version, monkeypatch)
    with database.transaction() as transaction:
        log_of_a_month(transaction)
    with closing(database):
        schema.upgrade(database)
        new = (
            f"sqlite:///{tmp_path_factory.mktemp('new')}/new.db"
            if database.dialect == "sqlite"
            else fresh_schema(postgres_server)
        )
        with closing(connect(upgraded(new))) as fresh:
            sql = SHAPE[database.dialect]
            assert fetch(database, sql) == fetch(fresh, sql)


class Interrupted:
    """A database that fails after so many statements of any kind."""

    def __init__(self, database: Database, left: int) -> None:
        self._database, self._left = database, left
        self.dialect, self.name, self.close = database.dialect, database.name, database.close
        self.alone, self.waits = database.alone, database.waits
        self.access, self.blocked = database.access, database.blocked

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        with self._database.transaction(write=write) as transaction:
            run = transaction.run

            def counted(sql: str, values: Any = ()) -> int:
                self._left -= 1
                if self._left < 0:
                    raise StoreError("unreachable", "the server was killed")
                return run(sql, values)

            transaction.run = counted  # type: ignore[method-assign]
            yield transaction


@pytest.mark.soak
def test_an_upgrade_that_is_interrupted_goes_on_where_it_stopped(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every engine undoes half a step: the note is written last and every statement may run
    again. Stopped after any statement (here and there, or each in the long form), the next run ends
    with the same tables."""
    monkeypatch.setattr(schema, "HELD", -1)  # the dead host's lease is over
    with closing(connect(upgraded(fresh_schema(postgres_server)))) as fresh:
        wanted = fetch(fresh, SHAPE["postgresql"])
    for stop in range(1, 200, 1 if SOAK else 13):
        database = made(fresh_schema(postgres_server), 1, monkeypatch)
        attempt(database, log_of_a_month)
        try:
            schema.upgrade(Interrupted(database, stop))  # type: ignore[arg-type]
            database.close()
            break  # no statement was left to fail
        except StoreError:
            schema.upgrade(database)
        assert fetch(database, SHAPE["postgresql"]) == wanted
        assert fetch(database, "SELECT count(*) FROM decision") == [(33,)]
        database.close()
    assert stop > 30
