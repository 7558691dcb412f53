"""The decision log by days on PostgreSQL: a day goes at once and waits for nobody long, a late or
early message never holds a batch up, and an engine without partitions has the plain table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store import partitions, schema
from dmarc_milter.ledger.store.database import connect, fetch
from dmarc_milter.ledger.store.partitions import has_days, name_of
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store, StoreOptions
from fakes.evaluations import NOON, evaluation
from fakes.filled import fill_log
from fakes.stores import batch, fresh_schema, upgraded
from live.postgres import Postgres

NOW = int(NOON.timestamp())
TODAY = NOW // DAY * DAY


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    return upgraded(fresh_schema(postgres_server))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with closing(Store.open(url, StoreOptions(decision_days=14), clock=lambda: NOW)) as opened:
        yield opened


def on(days: int) -> Evaluation:
    """A message of so many days after noon."""
    return replace(evaluation(), at=NOON + timedelta(days=days))


def days_of(store: Store) -> set[int]:
    """The days that have a partition, counted from today."""
    with store.database.transaction() as transaction:
        return {
            (each.begin - TODAY) // DAY
            for each in partitions.partitions(transaction)
            if each.begin is not None and each.end - each.begin == DAY
        }


def test_partitions_are_made_for_a_week_ahead_by_upgrade_and_by_expire_only(store: Store) -> None:
    """A plain drain makes what it needs and no more."""
    before = days_of(store)
    store.apply(batch(on(0)))
    assert days_of(store) == before | {0}
    expire(store.database, Retention(), now=NOW)
    assert set(range(8)) <= days_of(store)
    with closing(connect(store.database.name)):
        real_today = int(time.time()) // DAY * DAY
    assert {(real_today - TODAY) // DAY + ahead for ahead in range(8)} <= before


def test_a_late_or_an_early_message_never_holds_a_batch_up(store: Store) -> None:
    """A host that was away, and one whose clock is a month ahead: each day is made when it is
    needed."""
    assert store.apply(batch(on(-13), on(0), on(31))) == 3
    assert {-13, 0, 31} <= days_of(store)
    assert store.decisions.count() == 3


def believed(store: Store, at: int) -> None:
    """A clean-up has seen this time."""
    with store.database.transaction() as transaction:
        transaction.run(
            "INSERT INTO clock VALUES (1, ?, 0, 0) ON CONFLICT (only_row) DO UPDATE SET seen_at ="
            " excluded.seen_at",
            (at,),
        )


def test_a_clock_that_is_ahead_keeps_nothing_out_of_the_log(url: str) -> None:
    """What counts as too old is measured by a clock that was believed before."""
    year = 365 * DAY
    options = StoreOptions(decision_days=14)
    with closing(Store.open(url, options, clock=lambda: NOW + year)) as store:
        believed(store, NOW)
        assert store.apply(batch(on(-1), on(0))) == 2
        assert store.decisions.count() == 2


def test_what_is_older_than_the_log_is_counted_and_not_logged(store: Store) -> None:
    """It makes no partition either; the totals and the reports have it."""
    believed(store, NOW)
    assert store.apply(batch(on(-15), on(-400), on(0))) == 3
    assert store.decisions.count() == 1
    assert sum(each.messages for each in store.decisions.totals()) == 3
    assert fetch(store.database, "SELECT unlogged FROM origin") == [(2,)]
    assert not {-15, -400} & days_of(store)


def test_a_day_that_no_table_can_be_made_for_is_counted_and_not_logged(
    url: str, postgres_server: Postgres
) -> None:
    """The drain's account may not make tables; what `store upgrade` made ahead it may fill."""
    role = f"r{int(time.time() * 1000)}"
    name = url.rpartition("%3D")[2]
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        for sql in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {name} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {role}",
        ):
            connection.execute(sql.encode())
    with closing(Store.open(url.replace("//t@", f"//{role}@"), clock=lambda: NOW)) as store:
        assert store.apply(batch(on(300))) == 1
        assert store.decisions.count() == 0
        assert sum(each.messages for each in store.decisions.totals()) == 1


def test_hosts_that_need_the_same_day_at_once_make_it_once(url: str) -> None:
    failures: list[BaseException] = []

    def host(number: int) -> None:
        try:
            with closing(Store.open(url, clock=lambda: NOW)) as store:
                each = batch(*(on(day) for day in range(40, 46)), identity=f"spool-{number}")
                assert store.apply(each) == 6
        except BaseException as error:
            failures.append(error)

    hosts = [threading.Thread(target=host, args=(number,)) for number in range(4)]
    for each in hosts:
        each.start()
    for each in hosts:
        each.join()
    assert failures == []
    with closing(connect(url)) as database:
        assert fetch(database, "SELECT count(*) FROM decision") == [(24,)]


def test_there_is_no_default_partition(store: Store) -> None:
    """It would be searched for each new partition, and hold the log while it is."""
    store.apply(batch(on(99)))
    rows = fetch(
        store.database,
        "SELECT count(*) FROM pg_class WHERE pg_get_expr(relpartbound, oid) = 'DEFAULT'"
        " AND relnamespace = current_schema()::regnamespace",
    )
    assert rows == [(0,)]


def test_a_message_handed_over_again_is_not_counted_again(store: Store) -> None:
    """The key is (id, at), and the same message has the same time: a restored spool hands over the
    rows with other sequence numbers."""
    messages = [on(-3), on(0), on(2)]
    assert store.apply(batch(*messages)) == 3
    assert store.apply(batch(*messages, identity="a-copy")) == 0
    assert store.decisions.count() == 3


# --- expiry ---------------------------------------------------------------------------------------


def test_days_are_dropped_whole_and_counted(store: Store) -> None:
    store.apply(batch(on(-13), on(-13), on(-12), on(0)))
    assert expire(store.database, Retention(), now=NOW + 2 * DAY)["decision"] == 2
    assert days_of(store) >= {-12, 0}
    assert -13 not in days_of(store)
    assert fetch(store.database, "SELECT to_regclass(?)", (name_of(TODAY - 13 * DAY),)) == [(None,)]


@contextmanager
def reader(url: str) -> Iterator[None]:
    """Somebody who reads the whole log in one transaction: a dump, a forgotten psql."""
    with psycopg.connect(url) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM decision")
        yield


def test_expiry_waits_for_a_reader_only_so_long_and_goes_on_later(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump holds its snapshot for hours. Meanwhile expiry gives up in bounded time, hosts drain,
    others read, and a new day can be made; afterwards the next run finishes what was begun."""
    monkeypatch.setattr(partitions, "WAIT", 1.0)
    store.apply(batch(on(-13), on(0)))
    with reader(url):
        started = time.monotonic()
        expire(store.database, Retention(), now=NOW + 2 * DAY)
        expire(store.database, Retention(), now=NOW + 2 * DAY)
        assert time.monotonic() - started < 15
        started = time.monotonic()
        with closing(Store.open(url, clock=lambda: NOW)) as other:
            assert other.apply(batch(on(0), on(77), first=10)) == 2
            assert other.decisions.count() == 3
        assert time.monotonic() - started < 5
    expire(store.database, Retention(), now=NOW + 2 * DAY)
    assert fetch(store.database, "SELECT to_regclass(?)", (name_of(TODAY - 13 * DAY),)) == [(None,)]
    assert store.decisions.count() == 3


def test_a_table_that_an_administrator_detached_is_not_dropped(store: Store) -> None:
    """An archive that bears a partition's name: only what carries our comment goes."""
    store.apply(batch(on(-13)))
    name = name_of(TODAY - 13 * DAY)
    assert store.database.alone(f"ALTER TABLE decision DETACH PARTITION {name}", seconds=5)
    expire(store.database, Retention(), now=NOW + 30 * DAY)
    assert fetch(store.database, f"SELECT count(*) FROM {name}") == [(1,)]


def test_the_newest_rows_stay_by_number_too(store: Store) -> None:
    """Whole days first, then rows of the day in which the bound falls."""
    store.apply(
        batch(on(-2), on(-2), *(replace(on(0), at=NOON - timedelta(hours=n)) for n in (0, 1, 2)))
    )
    assert expire(store.database, Retention(decision_rows=2), now=NOW)["decision"] == 3
    assert {each.facts.at for each in store.decisions.recent()} == {NOW, NOW - 3600}


def test_of_several_hosts_one_expires(url: str, store: Store) -> None:
    """The lease of a host that died ends; one that works keeps the others out."""
    store.apply(batch(on(-13)))
    with store.database.transaction() as transaction:
        transaction.run(
            "INSERT INTO lease (name, owner, until_at) VALUES ('expire', 'other', ?)",
            (int(time.time()) + 100,),
        )
    assert expire(store.database, Retention(), now=NOW + 2 * DAY) == {}
    with store.database.transaction() as transaction:
        transaction.run("UPDATE lease SET until_at = ?", (int(time.time()) - 1,))
    assert expire(store.database, Retention(), now=NOW + 2 * DAY)["decision"] == 1


def test_the_query_for_the_bound_reads_the_index_only(store_url: str) -> None:
    """At ten million rows the table itself is gigabytes."""
    with closing(connect(upgraded(store_url))) as database:
        sql = "SELECT at FROM decision ORDER BY at DESC LIMIT 1 OFFSET 2000000"
        if database.dialect == "sqlite":
            [plan] = fetch(database, f"EXPLAIN QUERY PLAN {sql}")
            assert "COVERING INDEX decision_at" in plan[3]
            return
        partitions.make(database, [TODAY, TODAY + DAY])
        fill_log(database, 20_000, TODAY, TODAY + 2 * DAY)
        database.alone("VACUUM ANALYZE decision", seconds=60)
        plan_lines = [row[0] for row in fetch(database, f"EXPLAIN {sql}")]
        assert any("Index Only Scan" in line for line in plan_lines), plan_lines
        assert not any("Sort" in line for line in plan_lines)


# --- engines without partitions -------------------------------------------------------------------


@pytest.fixture
def refusing(postgres_server: Postgres) -> Iterator[str]:
    """A database whose server answers as an engine does that knows no PARTITION BY."""
    name = f"refusing{int(time.time() * 1000)}"
    url = f"{postgres_server.url.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF"
            " current_query() ILIKE '%PARTITION%' THEN RAISE feature_not_supported; END IF;"
            " END $$"
        )
        connection.execute(
            "CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()"
        )
    yield url
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize("why", ["the engine refuses", "an old server", "switched off"])
def test_an_engine_without_partitions_has_the_plain_table(
    why: str, refusing: str, url: str, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out by trying, or said in the configuration; everything else works alike."""
    if why == "an old server":
        monkeypatch.setattr(partitions, "FEWEST_VERSION", 10**9)
    plain = refusing if why == "the engine refuses" else fresh_schema(postgres_server)
    with closing(connect(plain)) as database:
        schema.upgrade(database, by_day=why != "switched off")
        assert not has_days(database)
    with closing(Store.open(plain, StoreOptions(decision_days=14), clock=lambda: NOW)) as store:
        believed(store, NOW)
        messages = [on(-15), on(-13), on(0), on(40)]
        assert store.apply(batch(*messages)) == 4
        assert store.apply(batch(*messages[1:], identity="a-copy")) == 0
        assert store.decisions.count() == 3
        assert expire(store.database, Retention(), now=NOW + 2 * DAY)["decision"] == 1
        assert store.decisions.count() == 2


def test_a_plain_table_becomes_one_by_days_when_that_is_switched_on(
    postgres_server: Postgres,
) -> None:
    url = fresh_schema(postgres_server)
    with closing(connect(url)) as database:
        schema.upgrade(database, by_day=False)
        with closing(Store.open(url, clock=lambda: NOW)) as store:
            store.apply(batch(on(-3), on(0)))
        assert schema.upgrade(database) == []
        assert has_days(database)
        assert fetch(database, "SELECT count(*) FROM decision") == [(2,)]
