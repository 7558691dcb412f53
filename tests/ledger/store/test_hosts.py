"""Several hosts on one PostgreSQL: none waits for another, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import PostgresDatabase, attempt, connect, fetch
from dmarc_milter.ledger.store.schema import STEPS
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import wait_for
from fakes.evaluations import evaluation
from fakes.frozen_host import (
    calls,
    drain_once,
    filled,
    forked,
    frozen,
    half_a_statement,
    seconds_to_drain,
)
from fakes.soak import LONG
from fakes.stores import batch, fresh_schema, upgraded
from live.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(300)]
MESSAGES = 60
BOUND = 10.0
"""Seconds after which the others go on at the latest."""
AT_ONCE = 8
"""Stores in which a host is frozen: most of their time they wait for the server to cut it off."""


def spools(folder: Path, hosts: int, messages: int) -> list[Path]:
    """A spool for each host, with as many messages."""
    paths = [folder / f"spool-{number}.db" for number in range(hosts)]
    for path in paths:
        filled(path, messages).close()
    return paths


def counted(url: str) -> tuple[int, int, int]:
    """Messages of the log, of the totals and of the reports' rows: always the same."""
    store = Store(connect(url))
    try:
        reports = store.reports.find(limit=100_000)
        rows = sum(number for one in reports for _, number in store.reports.rows(one.id))
        assert rows == sum(one.messages for one in reports)
        return store.decisions.count(), sum(one.messages for one in store.decisions.totals()), rows
    finally:
        store.close()


def drains(url: str, path: Path) -> bool:
    return drain_once(url, path).problem == ""


def others_go_on(url: str, folder: Path, before: int) -> bool:
    """One of three hosts is frozen before its call number `before`: whether the two others, and
    whoever sends the reports, go on in time."""
    upgraded(url)
    folder.mkdir()
    first, *others = spools(folder, 3, MESSAGES)
    child = frozen(url, first, before)
    try:
        slowest = max(seconds_to_drain(url, path) for path in others)
        begin = time.monotonic()
        store = Store(connect(url))
        store.reports.claim("me", ended_before=2**60, at_once=True)
        store.failures.claim("me", at_once=True)
        store.close()
        slowest = max(slowest, time.monotonic() - begin)
        (folder / "seconds").write_text(f"{slowest:.1f}")
        return slowest < BOUND
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def going_on(children: dict[int, int]) -> dict[int, int]:
    """Those that have not ended; the others did well and are taken out."""
    for before, child in tuple(children.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"frozen before call {before}"
            del children[before]
    return children


def test_a_host_frozen_in_any_statement_holds_no_other_up(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """Stopped dead with the transaction open: a dying machine, a lost network. The others drain and
    send reports within ten seconds; what the frozen host held is counted once when it is back."""
    url = upgraded(fresh_schema(postgres_server))
    [path] = spools(tmp_path, 1, MESSAGES)
    statements = calls(url, path)
    assert len(statements) > 20
    each_once = sorted({sql: number for number, sql in enumerate(statements)}.values())
    points = range(len(statements)) if LONG else each_once
    children: dict[int, int] = {}
    for before in points:
        url, folder = fresh_schema(postgres_server), tmp_path / str(before)
        children[before] = forked(partial(others_go_on, url, folder, before))
        assert wait_for(lambda: len(going_on(children)) < AT_ONCE, 120)
    assert wait_for(lambda: not going_on(children), 120)
    took = sorted(float((tmp_path / f"{before}/seconds").read_text()) for before in points)
    print(f"{len(statements)} calls, frozen before each of {len(took)}; the slowest: {took[-1]} s")


def test_a_host_frozen_in_the_middle_of_sending_is_cut_off(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """Half a statement has come: the server waits for the rest, but not forever."""
    url = upgraded(fresh_schema(postgres_server))
    paths = spools(tmp_path, 1, MESSAGES)
    assert drain_once(url, paths[0]).problem == ""
    filled(paths[0], MESSAGES).close()
    frozen_one = PostgresDatabase(url)
    half_a_statement(frozen_one)
    assert seconds_to_drain(url, paths[0]) < BOUND
    frozen_one.close()
    assert counted(url) == (2 * MESSAGES,) * 3


def test_a_frozen_host_that_wakes_up_counts_its_messages_once(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """Its transaction was undone meanwhile; the next round does it again."""
    url = upgraded(fresh_schema(postgres_server))
    first, other = spools(tmp_path, 2, MESSAGES)
    child = frozen(url, first, 14)
    assert drain_once(url, other).problem == ""
    time.sleep(6)
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1, "it was told that its connection is gone"
    assert drain_once(url, first) == (MESSAGES, "")
    assert counted(url) == (2 * MESSAGES,) * 3


@pytest.fixture
def lock_waits(postgres_server: Postgres) -> Iterator[Postgres]:
    """The server logs whoever waits for a lock for more than 50 ms."""
    settings = ("log_lock_waits = on", "deadlock_timeout = '50ms'")
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        for setting in settings:
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)
        yield postgres_server
        connection.execute("ALTER SYSTEM RESET ALL")
        connection.execute("SELECT pg_reload_conf()")


def test_three_drains_do_not_wait_for_each_other(lock_waits: Postgres, tmp_path: Path) -> None:
    """The same domains, sources and days on all hosts: nothing is logged as waiting, and of
    sessions looked at 20 times a second under one in a hundred waits for a lock."""
    url = upgraded(fresh_schema(lock_waits))
    messages = 20_000 if LONG else 4_000
    paths = spools(tmp_path, 3, messages)
    first = Store(connect(url))
    first.apply(batch(evaluation()))  # the day of these messages lies behind: it is made once
    first.close()
    log = lock_waits.folder / "log"
    begin = len(log.read_bytes())
    children = {forked(partial(drains, url, path)) for path in paths}
    looks = waiting = 0
    codes = []
    with psycopg.connect(lock_waits.url, autocommit=True) as connection:
        while children:
            for state, kind in connection.execute(
                "SELECT state, wait_event_type FROM pg_stat_activity WHERE application_name ="
                " 'dmarc-milter'"
            ):
                looks += state is not None
                waiting += kind == "Lock"
            time.sleep(0.05)
            for child in tuple(children):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    children.remove(child)
                    codes.append(os.waitstatus_to_exitcode(status))
    said = log.read_bytes()[begin:].decode()
    print(f"{looks} looks, {waiting} waiting")
    assert codes == [0, 0, 0]
    assert looks > 30
    assert waiting < 0.01 * looks + 1
    assert "still waiting for" not in said, said
    assert counted(url) == (3 * messages + 1,) * 3


def test_counters_of_several_hosts_are_one_number(postgres_server: Postgres) -> None:
    """One report with one row for each source, whichever host saw it; a cap counts for all."""
    url = upgraded(fresh_schema(postgres_server))
    store = Store(connect(url))
    for host in ("a", "b", "c"):
        one = evaluation("d.example", source_ip="192.0.2.1")
        assert store.apply(batch(one, identity=f"spool-{host}", host=host)) == 1
    [report] = store.reports.find()
    assert (report.messages, report.rows) == (3, 1)
    assert [number for _, number in store.reports.rows(report.id)] == [3]
    [claimed] = store.reports.claim("me", ended_before=2**60, at_once=True)
    assert claimed.messages == 3
    assert [one.messages for one in store.decisions.totals()] == [3]
    assert fetch(store.database, "SELECT count(*) FROM origin WHERE number > 0") == [(3,)]
    store.close()


def test_a_transaction_that_meets_another_is_tried_again_after_a_different_time(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that met once must not meet again: the pauses grow, and no two are the same."""
    database = connect(upgraded(fresh_schema(postgres_server)))
    slept: list[float] = []
    monkeypatch.setattr("dmarc_milter.ledger.store.database.time.sleep", slept.append)
    other = connect(database._url)  # type: ignore[attr-defined]
    other.waits = database.waits
    rounds = []

    def work(transaction: object) -> int:
        rounds.append(transaction)
        if len(rounds) < 4:
            raise psycopg.errors.SerializationFailure
        return 7

    # An error without its number is no conflict: give it the one of the server.
    monkeypatch.setattr(psycopg.errors.SerializationFailure, "sqlstate", "40001", raising=False)
    assert attempt(database, work) == 7
    assert len(set(slept)) == 3
    assert slept[0] < 0.04
    assert slept[2] > slept[0]
    database.close()


@pytest.mark.parametrize(
    "step", [one.name for one in STEPS if one.name not in ("counting", "hosts")]
)
def test_a_filled_store_of_an_older_schema_keeps_its_numbers(
    store_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """STO-03: what was counted in common rows is counted on in rows of each spool."""
    names = [one.name for one in STEPS]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", STEPS[: min(names.index(step) + 1, names.index("hosts"))])
        database = connect(upgraded(store_url))
    with database.transaction() as transaction:
        for sql in OLD_ROWS:
            transaction.run(sql, (b"\x00" * 16, b"x") if "?" in sql else ())
    database.close()
    store = Store(connect(upgraded(store_url)))
    numbers = fetch(store.database, "SELECT identity, number FROM origin ORDER BY identity")
    assert numbers == [("spool-a", 1), ("spool-b", 2)]
    assert [(one.day, one.messages) for one in store.decisions.totals()] == [(0, 5)]
    assert fetch(store.database, "SELECT messages FROM report_row WHERE report_id = 'r'") == [(4,)]
    assert fetch(store.database, "SELECT used FROM quota") == [(9,)]
    assert store.apply(batch(evaluation(), identity="spool-a", first=8)) == 1
    assert store.last_sequence("spool-a") == 8
    store.close()


OLD_ROWS = (
    "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES ('spool-b', 'mx2', 3, 1)",
    "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES ('spool-a', 'mx1', 7, 1)",
    "INSERT INTO daily (day, status, disposition, would_be, messages)"
    " VALUES (0, 'pass', 'pass', '', 5)",
    "INSERT INTO quota (scope, begin_at, used, folded) VALUES ('domain:x.example', 0, 9, 0)",
    "INSERT INTO report_row (report_id, row_key, messages, facts) VALUES ('r', ?, 4, ?)",
)
"""Of two spools that shared their counters."""
