"""A store of each kind for tests: the fixtures `postgres_server` and `store_url`, which a
conftest.py imports.

PostgreSQL runs once for the session; every test has a schema of its own in it. Without its programs
those tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from itertools import count
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.spool.file import SpoolRow
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.database import connect
from fakes import made_schema
from live.postgres import Postgres, private_postgres

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with private_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind, its schema not made yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/reports.db"
    return fresh_schema(request.getfixturevalue("postgres_server"))


def fresh_schema(server: Postgres) -> str:
    """The URL of an empty corner of the server."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{server.url}?options=-csearch_path%3D{name}"


def upgraded(url: str, *, by_day: bool = True) -> str:
    """The same store with its schema made."""
    is_shared = url.startswith("postgresql")
    if is_shared and made_schema.make(url, by_day=by_day):
        return url
    with (
        made_schema.recorded(url, by_day=by_day) if is_shared else nullcontext(),
        closing(connect(url)) as database,
    ):
        schema.upgrade(database, by_day=by_day)
    return url


def spool_row(evaluation: Evaluation, sample: bytes | None = None) -> SpoolRow:
    return SpoolRow(evaluation.id, encode(from_evaluation(evaluation)), sample)


def batch(
    *evaluations: Evaluation,
    first: int = 1,
    identity: str = "spool-a",
    host: str = "mx1.example.com",
) -> Batch:
    """What a spool hands over, numbered from `first`."""
    return Batch(
        identity, host, [(first + n, spool_row(each)) for n, each in enumerate(evaluations)]
    )
