"""`[store] read_url`: questions are asked of a replica, which nothing is written to; while it is
away the store itself answers."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import parse
from dmarc_milter.config.errors import ConfigError
from dmarc_milter.ledger.connect import reading_store
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from fakes.daemon import free_port
from fakes.evaluations import evaluation
from fakes.stores import batch, fresh_schema, upgraded
from live.postgres import Postgres


@pytest.fixture
def store_url(postgres_server: Postgres) -> str:
    """A store in which one decision stands."""
    url = upgraded(fresh_schema(postgres_server))
    with closing(Store.open(url)) as store:
        store.apply(batch(replace(evaluation(queue_id="4QREPLICA"), at=datetime.now(UTC))))
    return url


def read_only(url: str) -> str:
    """The same store as a replica gives it: every write is refused."""
    return f"{url}%20-cdefault_transaction_read_only%3Don"


def configured(tmp_path: Path, url: str, read_url: str) -> str:
    path = tmp_path / "c.toml"
    path.write_text(
        f'[store]\nurl = "{url}"\nread_url = "{read_url}"\nspool = "{tmp_path}/spool.db"\n'
    )
    return str(path)


@pytest.mark.parametrize(
    "words",
    [("why", "4QREPLICA"), ("why", "--domain", "legit.example"), ("impact",), ("stats",)],
)
def test_questions_are_answered_by_the_replica(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Nothing of them writes."""
    config = configured(tmp_path, store_url, read_only(store_url))
    assert main([*words, "--config", config]) == 0
    assert "legit.example" in capsys.readouterr().out or words == ("stats",)


def test_the_replica_is_asked_and_not_the_store(
    store_url: str, postgres_server: Postgres, tmp_path: Path
) -> None:
    """Seen by a replica that is behind: it does not know the decision yet."""
    behind = upgraded(fresh_schema(postgres_server))
    config = configured(tmp_path, store_url, behind)
    assert main(["why", "4QREPLICA", "--config", config]) == 1


def test_while_the_replica_is_away_the_store_answers(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replica is there to take load off, not to be one more thing that can fail."""
    away = f"postgresql://t@127.0.0.1:{free_port()}/postgres"
    config = configured(tmp_path, store_url, away)
    assert main(["why", "4QREPLICA", "--config", config]) == 0
    assert "4QREPLICA" in capsys.readouterr().out


def test_a_replica_that_goes_away_is_left_by_the_dashboard(
    store_url: str, postgres_server: Postgres, tmp_path: Path
) -> None:
    """At most one page fails."""
    role = f"replica{free_port()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN".encode())
        replica = read_only(store_url).replace("//t@", f"//{role}@")
        config = parse(f'[store]\nurl = "{store_url}"\nread_url = "{replica}"\n')
        opened: list[Store] = []

        def open_store() -> Store:
            opened.append(reading_store(config))
            return opened[-1]

        client = create_app(WebOptions(open_store, tmp_path / "spool.db")).test_client()
        assert client.get("/decisions").status_code == 200
        connection.execute(f"ALTER ROLE {role} NOLOGIN".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,)
        )
        assert [client.get("/decisions").status_code for _ in range(3)][1:] == [200, 200]
        for store in opened:
            store.close()


@pytest.mark.parametrize("text", ["sqlite:////var/lib/x.db", "replica.example"])
def test_a_replica_is_a_postgresql(text: str) -> None:
    with pytest.raises(ConfigError, match="replica"):
        parse(f'[store]\nread_url = "{text}"\n')
