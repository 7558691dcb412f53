"""Forgetting does not get into anybody's way: little by little, with rests, and a SQLite file gives
the room back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.ledger.store import pace
from dmarc_milter.ledger.store.compact import compact
from dmarc_milter.ledger.store.database import Database, attempt, connect, fetch
from dmarc_milter.ledger.store.pace import Pace, give_back
from dmarc_milter.ledger.store.retention import Retention, expire
from fakes.evaluations import NOON
from fakes.filled import fill_log
from fakes.stores import upgraded

NOW = int(NOON.timestamp())
DAY = 86400


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(connect(upgraded(f"sqlite:///{tmp_path}/reports.db"))) as opened:
        yield opened


def test_nobody_waits_long_for_expiry(database: Database) -> None:
    """Between two chunks others write, and no chunk holds the file for long: seen by a writer that
    comes in every rest."""
    fill_log(database, 12_000, NOW - 20 * DAY, NOW - 16 * DAY)
    held: list[float] = []
    started = time.monotonic()

    def rest(seconds: float) -> None:
        nonlocal started
        held.append(time.monotonic() - started)
        with closing(connect(f"sqlite:///{database.name}")) as other:
            attempt(
                other, lambda t: t.run("INSERT INTO known_domain VALUES (?, 1)", (str(len(held)),))
            )
        started = time.monotonic()

    assert expire(database, Retention(), now=NOW, sleep=rest)["decision"] == 12_000
    assert len(held) >= 6
    assert sorted(held)[len(held) // 2] < 0.5


def test_chunks_become_smaller_where_the_disk_is_slow(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a transaction counts, not its rows."""
    fill_log(database, 3000, NOW - 20 * DAY, NOW - 16 * DAY)
    clock = iter(range(10**6))
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(clock)))
    numbers: list[int] = []
    run = Pace(database, sleep=lambda _: numbers.append(remaining(database)))
    assert run.delete("decision", "id", "at < ?", NOW) == 3000
    assert [numbers[0] - numbers[1], numbers[1] - numbers[2]] == [pace.LEAST] * 2


def remaining(database: Database) -> int:
    return int(fetch(database, "SELECT count(*) FROM decision")[0][0])


def test_a_report_with_many_rows_goes_in_chunks_too(database: Database) -> None:
    """Ten thousand rows of one report are not one transaction."""
    with database.transaction() as transaction:
        transaction.run(
            "INSERT INTO report (id, policy_domain, configuration, begin_at, end_at, part,"
            " organizational_domain, published, state, messages, loud, rows_count, folded, note,"
            " next_at, attempts, lease_owner, lease_until, closed_at, done_at)"
            " SELECT 'r', 'x.example', 'c', 0, 1, 1, 'x.example', 'x', 'sent', 1,"
            " 1, 1, 0, '', 0, 0, '', 0, 1, 1"
        )
        transaction.run(
            "INSERT INTO report_row WITH RECURSIVE t (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t"
            " WHERE n < 9999) SELECT 'r', CAST(n AS BLOB), 0, 1, 'x' FROM t"
        )
    rests: list[float] = []
    assert expire(database, Retention(), now=NOW, sleep=rests.append)["report"] == 1
    assert fetch(database, "SELECT count(*) FROM report_row") == [(0,)]
    assert len(rests) > 5


def test_a_file_becomes_smaller_after_expiry(database: Database) -> None:
    """Files that only ever grow were the complaint: what is not used is given back, a megabyte at a
    time."""
    fill_log(database, 20_000, NOW - 20 * DAY, NOW - 16 * DAY)
    [(pages,)] = fetch(database, "PRAGMA page_count")
    expire(database, Retention(), now=NOW, sleep=lambda _: None)
    [(left,)] = fetch(database, "PRAGMA page_count")
    assert left < pages / 4


def test_a_file_of_an_older_version_is_compacted_on_request(tmp_path: Path) -> None:
    """It was made without the switch that gives room back; `store compact` rewrites it once, and
    from then on it does."""
    path = tmp_path / "reports.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE other (x)")
        old.execute("DROP TABLE other")
    with closing(connect(upgraded(f"sqlite:///{path}"))) as database:
        assert fetch(database, "PRAGMA auto_vacuum") == [(0,)]
        fill_log(database, 20_000, NOW - 20 * DAY, NOW - 16 * DAY)
        expire(database, Retention(), now=NOW, sleep=lambda _: None)
        give_back(database)
        done = compact(database)
        assert done.problem == ""
        assert done.after < done.before / 4
        assert fetch(database, "PRAGMA auto_vacuum") == [(2,)]


def test_compact_says_when_the_disk_has_no_room_for_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and its copy stand side by side for a while."""
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "free" in compact(database).problem


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 when it was done."""
    config = tmp_path / "c.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n')
    assert main(["store", "compact", "--config", str(config)]) == 0
    assert "bytes before" in capsys.readouterr().out
