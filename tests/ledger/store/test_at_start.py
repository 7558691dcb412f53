"""What the daemon says of a shared store when it starts, and what never stands in a log line."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.config import parse
from dmarc_milter.daemon.metrics_server import StorageReader
from dmarc_milter.daemon.startup import prepare_storage
from dmarc_milter.ledger.drain import drain, keep_draining
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store.database import connect, fetch
from dmarc_milter.ledger.store.status import store_status
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.telemetry.prometheus import StorageStatus
from fakes.evaluations import evaluation
from fakes.stores import fresh_schema, spool_row, upgraded
from live.postgres import Postgres

WAITS = "messages wait in the spool until that is mended"


def lines(folder: Path, url: str) -> tuple[str, ...]:
    """What the start says of the store."""
    return prepare_storage(parse(f'[store]\nurl = "{url}"\nspool = "{folder}/spool.db"\n'))


def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """One line, without the password; and the start goes on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        [line] = lines(tmp_path, f"postgresql://dmarc@127.0.0.1:{port}/dmarc?password=geheim")
    assert line.startswith(f"postgresql://127.0.0.1:{port}/dmarc: ")
    assert "refused" in line
    assert line.endswith(WAITS)
    assert "geheim" not in line
    assert "\n" not in line


def test_a_server_that_does_not_answer_is_said_within_seconds(tmp_path: Path) -> None:
    """It takes the connection and is silent, as one that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        [line] = lines(tmp_path, f"postgresql://d@127.0.0.1:{server.getsockname()[1]}/d")
        assert time.monotonic() - started < 5
    assert line.endswith(WAITS)


def test_a_server_is_said_to_need_an_upgrade(tmp_path: Path, postgres_server: Postgres) -> None:
    """And nothing where all is well."""
    url = fresh_schema(postgres_server)
    [line] = lines(tmp_path, url)
    assert "store upgrade" in line
    assert lines(tmp_path, upgraded(url)) == ()


def test_a_table_that_somebody_has_locked_holds_up_no_start(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = upgraded(fresh_schema(postgres_server))
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE schema_step")
        started = time.monotonic()
        [line] = lines(tmp_path, url)
        assert time.monotonic() - started < 5
    assert "timeout" in line
    assert "SELECT" not in line


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE daily RENAME TO gone",
        "ALTER TABLE decision DROP COLUMN would_be CASCADE",
        "ALTER TABLE report ADD CONSTRAINT never CHECK (messages < 0)",
    ],
)
def test_no_statement_and_no_row_stands_in_a_log_line(
    tmp_path: Path,
    postgres_server: Postgres,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server tells the statement and the row that it did not like: the line keeps the reason."""
    url = upgraded(fresh_schema(postgres_server))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(damage.encode())
    with (
        closing(SpoolFile(tmp_path / "spool.db")) as spool,
        closing(Store(connect(url))) as store,
        caplog.at_level(logging.INFO),
    ):
        spool.write([spool_row(evaluation("secret.example"))])
        problem = drain(spool, store).problem
        keep_draining(spool, store, lambda _: True)
    for text in (problem, *(each.getMessage() for each in caplog.records)):
        assert not any(
            word in text
            for word in ("SELECT", "INSERT", "UPDATE", "VALUES", "LINE 1", "DETAIL", "secret")
        ), text


def test_an_error_in_a_question_says_its_reason_alone(postgres_server: Postgres) -> None:
    """Of several lines the first."""
    with closing(connect(fresh_schema(postgres_server))) as database:
        with pytest.raises(StoreError) as raised:
            fetch(database, "SELECT nothing FROM nowhere WHERE secret = ?", (1,))
        assert 'relation "nowhere" does not exist' in str(raised.value)
        assert "SELECT" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("REVOKE INSERT ON {schema}.hour_total FROM {role}", "hour_total"),
        ("REVOKE ALL ON {schema}.daily FROM {role}", "daily"),
        ("REVOKE SELECT ON {schema}.tombstone FROM {role}", "tombstone"),
        ("REVOKE SELECT ON {schema}.schema_step FROM {role}", "permission denied"),
        ("ALTER ROLE {role} SET default_transaction_read_only = on", "read-only"),
    ],
)
def test_a_store_that_no_drain_can_write_is_not_up(
    postgres_server: Postgres, tmp_path: Path, change: str, words: str
) -> None:
    """A right that is missing on one table, a standby behind the URL: `store status` and the
    metrics say so, and nobody is told that the schema is an old one."""
    url = upgraded(fresh_schema(postgres_server))
    schema = url.rpartition("%3D")[2]
    role = f"host_{schema}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        for sql in (
            "CREATE ROLE {role} LOGIN",
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        ):
            connection.execute(sql.format(role=role, schema=schema).encode())
        url = url.replace("//t@", f"//{role}@")
        config = parse(f'[store]\nurl = "{url}"\nspool = "{tmp_path}/spool.db"\n')
        with closing(connect(url)) as database:
            assert store_status(database).problem == ""
        connection.execute(change.format(role=role, schema=schema).encode())
    with closing(connect(url)) as database:
        status = store_status(database)
    assert words in status.problem
    assert "upgrade" not in status.problem
    assert status.remedy
    reader = StorageReader(config)
    assert reader.store(StorageStatus()).store_up is False
    if reader._database is not None:
        reader._database.close()
