"""A store behind a pooler, and one whose server dies and is followed by another."""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dmarc_milter.ledger.drain import drain, keep_draining
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import connect, fetch
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import wait_for
from fakes.evaluations import evaluation
from fakes.frozen_host import drain_once, filled
from fakes.stores import batch, fresh_schema, upgraded
from live.pgbouncer import private_pgbouncer
from live.place import private_folder
from live.postgres import Postgres, private_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
_numbers = count(1)


def fresh_database(server: Postgres) -> str:
    """The name of an empty database: a pooler takes no `options` in the URL."""
    name = f"pooled_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return name


@pytest.mark.parametrize("pool_mode", ["", "transaction"])
def test_a_pooler_between_changes_nothing_and_keeps_nothing(
    postgres_server: Postgres, tmp_path: Path, pool_mode: str
) -> None:
    """Debian's pgbouncer as it comes (a server for each session), and with a server for each
    transaction: three drains, reports, and afterwards no setting of ours in its connections."""
    name = fresh_database(postgres_server)
    with private_pgbouncer(postgres_server, pool_mode, name) as url:
        database = connect(url)
        schema.upgrade(database)
        database.close()
        paths = [tmp_path / f"{number}.db" for number in range(3)]
        threads = []
        for path in paths:
            filled(path, 120).close()
            threads.append(threading.Thread(target=drain_once, args=(url, path)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store = Store(connect(url))
        assert store.decisions.count() == 360
        assert len(store.reports.claim("me", ended_before=2**60, at_once=True)) == 7
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:
            for setting in (
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
            ):
                row = other.execute(f"SHOW {setting}".encode()).fetchone()
                assert row == ("0",), setting
            assert other.execute(b"SHOW jit").fetchone() == ("on",)
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        store.close()


class Pair:
    """A server and its standby, which holds every commit before the server says so."""

    def __init__(self, primary: Postgres, folder: Path) -> None:
        self.primary = primary
        self._ask(primary, "ALTER SYSTEM SET wal_level = 'replica'")
        self._ask(primary, "ALTER SYSTEM SET hot_standby = 'on'")
        primary.stop()
        primary.start()
        folder.mkdir(mode=0o755)
        self.standby = Postgres(folder, standby_of=primary)
        self.standby.start()
        self._ask(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._ask(primary, "SELECT pg_reload_conf()")

    def _ask(self, server: Postgres, sql: str) -> None:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.encode())

    @property
    def url(self) -> str:
        """Both, as libpq takes them; which one can be written is for the program to find."""
        hosts = ",".join(
            urlsplit(each.url).netloc.split("@")[1] for each in (self.primary, self.standby)
        )
        return f"postgresql://t@{hosts}/postgres"


def test_a_failover_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The server is killed and the other promoted, both under one URL, while messages come in: the
    drain finds the new one by itself, and so does whoever reads."""
    with private_postgres() as primary, private_folder("standby") as outer:
        pair = Pair(primary, outer / "pg")
        try:
            with psycopg.connect(primary.url, autocommit=True) as connection:
                name = "mail"
                connection.execute(f"CREATE SCHEMA {name}".encode())
            url = upgraded(f"{pair.url}?options=-csearch_path%3D{name}")
            path, stop, answered = tmp_path / "spool.db", threading.Event(), count()
            prepare(path)
            spool, store, file = Spool(path), Store(connect(url)), SpoolFile(path)
            drainer = threading.Thread(
                target=keep_draining,
                args=(file, store, stop.wait),
                kwargs={"interval": 0.05, "longest": 0.5},
            )
            drainer.start()
            reader = connect(url)

            def record(messages: int) -> None:
                for _ in range(messages):
                    assert spool.record(evaluation(f"d{next(answered) % 7}.example"))
                    time.sleep(0.002)

            record(200)
            assert fetch(reader, "SELECT 1") == [(1,)]
            primary.stop("immediate")
            record(100)
            pair.standby.promote()
            record(200)
            assert fetch(reader, "SELECT pg_is_in_recovery()") == [(False,)]
            assert wait_for(lambda: file_waits(path) == 0, 60)
            stop.set()
            drainer.join()
            spool.close()
            assert drain(file, store).problem == ""
            assert store.decisions.count() == next(answered) == 500
            assert sum(one.messages for one in store.reports.find()) == 500
            for each in (file, store, reader):
                each.close()
        finally:
            pair.standby.stop("immediate")


def file_waits(path: Path) -> int:
    file = SpoolFile(path)
    try:
        return file.waiting()
    finally:
        file.close()


def test_a_read_whose_connection_breaks_is_asked_once_more(postgres_server: Postgres) -> None:
    """In the middle of a statement: a page or a command shows what it was asked for."""
    url = upgraded(fresh_schema(postgres_server))
    store, killer = Store(connect(url)), connect(url)
    store.apply(batch(evaluation()))
    ours = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
        " 'dmarc-milter' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    )
    timer = threading.Timer(0.5, lambda: fetch(killer, ours))
    timer.start()
    begin = time.monotonic()
    assert fetch(store.database, "SELECT count(*), pg_sleep(1) FROM decision")[0][0] == 1
    assert 1.3 < time.monotonic() - begin < 5
    timer.join()
    for each in (store, killer):
        each.close()
