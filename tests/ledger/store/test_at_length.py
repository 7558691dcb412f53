"""What takes as long as it takes on a large shared store: neither the server nor this program ends
it. Everything else has its deadline."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.cli import store as command
from dmarc_milter.config import load
from dmarc_milter.ledger import postgres
from dmarc_milter.ledger.dialect import DRAIN, JOB
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import (
    Database,
    PostgresDatabase,
    Transaction,
    attempt,
)
from dmarc_milter.ledger.store.schema.steps import SchemaStep
from dmarc_milter.ledger.store.schema.to_days import to_days
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import toml
from fakes.stores import fresh_schema, upgraded
from live.postgres import Postgres

SLEEP = "SELECT pg_sleep(1.5)"


@pytest.fixture
def database(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresDatabase]:
    """An upgraded store, with bounds below one second."""
    monkeypatch.setattr(postgres, "AFTER_SERVER", 0.3)
    url = upgraded(fresh_schema(postgres_server))
    waits = replace(JOB, statement=0.5, silence=0.2)
    with closing(PostgresDatabase(url, waits=waits)) as made:
        yield made


def test_a_transaction_at_length_outlives_both_deadlines(database: PostgresDatabase) -> None:
    """Its own only: the next one has them again."""
    with database.transaction() as transaction:
        transaction.at_length()
        transaction.run(SLEEP)
    with pytest.raises(StoreError), database.transaction() as transaction:
        transaction.run(SLEEP)


def test_the_deadline_of_our_own_is_lifted_only_with_the_servers(
    database: PostgresDatabase,
) -> None:
    """A server that would wait for ever is left."""
    with pytest.raises(StoreError, match="has not answered"):
        attempt(
            database,
            lambda transaction: [
                transaction.run(sql) for sql in ("SET LOCAL statement_timeout = 0", SLEEP)
            ],
        )


def test_a_schema_step_and_its_conversion_take_as_long_as_they_take(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of a large log, and what a step makes of it."""
    slow = SchemaStep("slow", (SLEEP,), _sleep)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, slow))
    assert schema.upgrade(database) == ["slow"]


def _sleep(transaction: Transaction) -> None:
    transaction.run(SLEEP)


def test_the_way_to_days_takes_as_long_as_it_takes(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALTER TABLE ... ADD PRIMARY KEY of a log that stood in one table."""
    monkeypatch.setattr(postgres, "AFTER_SERVER", 0.3)
    url = upgraded(fresh_schema(postgres_server), by_day=False)
    module = sys.modules[to_days.__module__]  # the package has a function of that name
    keep = module._keep
    monkeypatch.setattr(module, "_keep", lambda *given: (SLEEP, *keep(*given)))
    with closing(PostgresDatabase(url, waits=replace(JOB, statement=0.5, silence=0.2))) as made:
        assert to_days(made)


def test_an_account_that_may_make_no_tables_finds_a_plain_store_up_to_date(
    postgres_server: Postgres,
) -> None:
    """As with an engine that has no partitions: the plain table works."""
    url = upgraded(fresh_schema(postgres_server), by_day=False)
    name, role = url.rpartition("%3D")[2], f"plain{time.time_ns()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        for sql in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {name} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {role}",
        ):
            connection.execute(sql.encode())
    with closing(PostgresDatabase(url.replace("//t@", f"//{role}@"))) as database:
        assert schema.upgrade(database) == []
        assert not to_days(database)


def test_expiry_has_the_time_of_a_job_in_the_following_drain(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain's own statements are short; to count a very large day is not."""
    url = upgraded(fresh_schema(postgres_server))
    (config := tmp_path / "c.toml").write_text(
        toml({"store": {"url": url, "spool": f"{tmp_path}/spool.db"}})
    )
    seen: list[Database] = []
    monkeypatch.setattr(command, "clean_up", lambda database, *_, **__: seen.append(database))
    with closing(Store(PostgresDatabase(url, waits=DRAIN))) as store:
        command._forget(load(config), store)
    assert [each.waits for each in seen] == [JOB]
    with closing(Store.open(f"sqlite:///{tmp_path}/reports.db")) as store:
        command._forget(load(config), store)
        assert seen[1] is store.database, "one connection to a file"
