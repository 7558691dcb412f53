"""A dump of a PostgreSQL store from before an upgrade: put into an empty database, as
docs/how-to/backup.md says, and over the store that is there, which that forbids."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.cli.store.copies import POSTGRESQL_RESTORE
from dmarc_milter.ledger.errors import Conflict, StoreError
from dmarc_milter.ledger.store import database, schema
from dmarc_milter.ledger.store.database import attempt, connect
from dmarc_milter.ledger.store.store import Store
from fakes.documents import REPOSITORY
from fakes.evaluations import evaluation
from fakes.stores import batch, fresh_schema
from live.place import library_path
from live.postgres import Postgres, programs

BEFORE_TOTALS = [step.name for step in schema.STEPS].index("totals")
_numbers = count(1)


def by_server(server: Postgres, *statements: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def url(postgres_server: Postgres) -> Iterator[str]:
    """A database of its own, as the documents speak of."""
    name = f"dump_{next(_numbers)}"
    by_server(postgres_server, f"CREATE DATABASE {name}")
    yield postgres_server.url.replace("/postgres", f"/{name}")
    for each in (name, f"{name}_before"):
        by_server(postgres_server, f"DROP DATABASE IF EXISTS {each} WITH (FORCE)")


def tool(program: str, *arguments: str) -> str:
    """One of the server's own; what it complains of."""
    folder = programs()
    assert folder is not None
    run = subprocess.run(
        [folder / program, *arguments],
        check=False,
        env=os.environ | library_path(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return run.stderr


@pytest.fixture
def dump(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the store as the program before step `totals` had made it, with one host; the store itself
    is brought up to date since and has another message."""
    file = tmp_path / "store.dump"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:BEFORE_TOTALS])
        with closing(connect(url)) as old:
            schema.upgrade(old)
            sql = (
                "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES ('spool-a', 'm',"
                " 0, 8)"
            )
            attempt(old, lambda transaction: transaction.run(sql))
    assert not tool("pg_dump", "--format=custom", f"--file={file}", url)
    with closing(connect(url)) as new:
        schema.upgrade(new)
    with closing(Store.open(url)) as store:
        store.apply(batch(evaluation()))
    return file


def test_a_dump_of_an_older_schema_goes_into_an_empty_database(
    postgres_server: Postgres, url: str, dump: Path
) -> None:
    """Then `store upgrade`; and it counts like any other."""
    name = url.rpartition("/")[2]
    by_server(
        postgres_server,
        f"ALTER DATABASE {name} RENAME TO {name}_before",
        f"CREATE DATABASE {name}",
    )
    assert not tool("pg_restore", f"--dbname={url}", str(dump))
    with closing(connect(url)) as restored:
        assert schema.version(restored) == BEFORE_TOTALS
        assert schema.upgrade(restored) == [step.name for step in schema.STEPS[BEFORE_TOTALS:]]
    with closing(Store.open(url)) as store:
        assert store.apply(batch(evaluation())) == 1
        assert store.decisions.messages() == store.decisions.count() == 1


def test_a_dump_over_a_newer_store_is_said_to_be_one(
    url: str, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer tables stay: no other transaction is in the way, and the upgrade says what to
    do."""
    monkeypatch.setattr(database, "PAUSE", 0.001)
    complaint = tool("pg_restore", "--clean", "--if-exists", f"--dbname={url}", str(dump))
    assert 'relation "rollup_pkey" already exists' in complaint
    with closing(connect(url)) as restored:
        with pytest.raises(StoreError, match='"outcome_sum" already exists') as raised:
            schema.upgrade(restored)
        assert "restore it into an empty database" in str(raised.value)
        assert "other transactions" not in str(raised.value)
        assert raised.value.kind == "exists"
        assert schema.version(restored) == BEFORE_TOTALS


@pytest.mark.parametrize(
    "text",
    [
        POSTGRESQL_RESTORE,
        (REPOSITORY / "docs/how-to/backup.md").read_text(encoding="utf-8"),
        (REPOSITORY / "docs/how-to/upgrade.md").read_text(encoding="utf-8"),
    ],
    ids=["store restore", "backup.md", "upgrade.md"],
)
def test_no_text_tells_to_restore_over_a_store(text: str) -> None:
    """All say the same: an empty database, and the schema before the sent logs."""
    assert "pg_restore --clean --if-exists" not in text
    assert "empty database" in text
    restoring = text[text.index("empty database") :]
    assert restoring.index("store upgrade") < restoring.index("store restore")


def test_a_table_that_another_host_has_just_made_is_waited_for(postgres_server: Postgres) -> None:
    """A race at creation: the next try finds it."""
    with closing(connect(fresh_schema(postgres_server))) as store:
        tries = []

        def work(transaction: database.Transaction) -> str:
            tries.append(1)
            if len(tries) == 1:
                transaction.run("CREATE TABLE t (a BIGINT)")
                transaction.run("CREATE TABLE t (a BIGINT)")
            return "made"

        assert attempt(store, work) == "made"
        assert len(tries) == 2


def test_what_was_last_in_the_way_is_told(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was there only at first does not hide that a lock is held."""
    monkeypatch.setattr(database, "PAUSE", 0.001)
    with closing(connect(fresh_schema(postgres_server))) as store:
        met = iter([Conflict('relation "t" already exists')])

        def work(_: database.Transaction) -> None:
            raise next(met, Conflict())

        with pytest.raises(StoreError, match="still blocked by other transactions"):
            attempt(store, work)
