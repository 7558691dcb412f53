"""The store away, damaged, full, locked or of another schema: the spool holds everything, and
`store status` says what to do."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmarc_milter.cli import main
from dmarc_milter.config import parse
from dmarc_milter.daemon.startup import startup_lines as prepare_service
from dmarc_milter.ledger.drain import drain, keep_draining
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import HEADER
from dmarc_milter.ledger.spool import journal
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow, prepare
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.ledger.store import database as database_module
from dmarc_milter.ledger.store.database import SqliteDatabase, attempt, connect
from dmarc_milter.ledger.store.schema import STEPS
from dmarc_milter.ledger.store.status import spool_status, store_status
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.stores import batch, fresh_schema, spool_row, upgraded
from live.postgres import Postgres


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolFile]:
    """Ten messages wait."""
    file = SpoolFile(tmp_path / "spool.db")
    file.write([spool_row(evaluation()) for _ in range(10)])
    yield file
    file.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A SQLite store that does not wait long for others."""
    monkeypatch.setattr(database_module, "BUSY_WAIT", 0.1)
    made = Store.open(f"sqlite:///{tmp_path}/reports.db")
    yield made
    made.close()


def total(store: Store) -> int:
    return sum(each.messages for each in store.reports.find())


def test_sto_02_a_locked_store_leaves_everything_in_the_spool(
    store: Store, spool: SpoolFile, tmp_path: Path
) -> None:
    """STO-02, DB locked: not lost, and counted once when the lock is gone."""
    other = sqlite3.connect(tmp_path / "reports.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "locked" in drain(spool, store).problem
    assert spool.waiting() == 10
    other.execute("ROLLBACK")
    other.close()
    assert drain(spool, store) == (10, "")
    assert total(store) == 10


def test_sto_02_a_full_store_leaves_everything_in_the_spool(store: Store, spool: SpoolFile) -> None:
    """STO-02, disk full."""
    with store.database.transaction() as transaction:
        [(pages,)] = transaction.all("PRAGMA page_count")
        transaction.run(f"PRAGMA max_page_count={pages + 2}")
    for _ in range(20):
        drained = drain(spool, store)
        if drained.problem:
            break
        spool.write(
            [spool_row(evaluation(f"d{n}.example", source_ip=f"192.0.2.{n}")) for n in range(50)]
        )
    assert "full" in drained.problem
    waiting, there = spool.waiting(), total(store)
    assert waiting > 0
    with store.database.transaction() as transaction:
        transaction.run("PRAGMA max_page_count=1000000")
    assert drain(spool, store) == (waiting, "")
    assert total(store) == there + waiting


def test_sto_02_a_damaged_store_is_moved_aside_and_the_spool_drained(
    spool: SpoolFile, tmp_path: Path
) -> None:
    """STO-02: moved aside, not overwritten; what still waited is counted in the new one."""
    path = tmp_path / "reports.db"
    Store.open(f"sqlite:///{path}").close()
    garbage = HEADER + b"no database" * 5000
    path.write_bytes(garbage)
    store = Store(connect(f"sqlite:///{path}"))
    assert drain(spool, store).problem
    assert drain(spool, store) == (10, "")
    [aside] = tmp_path.glob("reports.db.corrupt-*")
    assert aside.read_bytes() == garbage
    assert total(store) == 10
    assert store_status(store.database).moved_aside == (aside,)
    store.close()


def test_sto_02_a_store_that_disappears_is_made_anew(store: Store, tmp_path: Path) -> None:
    """STO-02, missing file: with its schema."""
    store.apply(batch(evaluation()))
    for each in tmp_path.glob("reports.db*"):
        each.unlink()
    spool = SpoolFile(tmp_path / "spool.db")
    spool.write([spool_row(evaluation())])
    drain(spool, store)
    assert drain(spool, store).problem == ""
    assert spool.waiting() == 0
    assert total(store) == 1
    spool.close()


@pytest.mark.parametrize("waiting", [0, 3])
def test_sto_02_the_drain_follows_when_the_spool_was_moved_aside(
    store: Store, spool: SpoolFile, tmp_path: Path, waiting: int
) -> None:
    """A worker met damage that the drain does not meet: what comes after it is in another file."""
    assert drain(spool, store) == (10, "")
    worker = SpoolFile(spool.path)
    worker.write([spool_row(evaluation()) for _ in range(waiting)])
    aside = spool.path.with_name("aside")
    for tail in ("-wal", "-shm", ""):
        Path(f"{spool.path}{tail}").rename(f"{aside}{tail}")
    worker.write([spool_row(evaluation()) for _ in range(2)])
    assert drain(spool, store) == (2 + waiting, ""), "and what had waited there"
    assert (worker.waiting(), total(store)) == (0, 12 + waiting)
    worker.close()


def test_sto_02_a_newer_store_is_left_alone(spool: SpoolFile, tmp_path: Path) -> None:
    """STO-02, wrong schema."""
    url = upgraded(f"sqlite:///{tmp_path}/reports.db")
    database = connect(url)
    attempt(
        database,
        lambda transaction: transaction.run("INSERT INTO schema_step VALUES (99, 'later', 0)"),
    )
    assert "run the newer program" in drain(spool, Store(database)).problem
    assert spool.waiting() == 10
    found = store_status(database)
    assert (found.schema, found.remedy) == (
        99,
        "upgrade this host's program; until then its messages wait in the spool",
    )
    database.close()


def test_flt_08_postgresql_stopped_under_load_loses_and_doubles_nothing(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """FLT-08, DB restart: recording does not notice, the drain comes back by itself; stopped hard,
    with a batch in flight."""
    url = upgraded(fresh_schema(postgres_server))
    path = tmp_path / "spool.db"
    prepare(path)
    spool, stop = Spool(path), threading.Event()
    recorded: list[bool] = []

    def load() -> None:
        while not stop.is_set():
            recorded.append(spool.record(evaluation(f"d{len(recorded) % 7}.example")))
            time.sleep(0.0005)

    store, file = Store(connect(url)), SpoolFile(path)
    drainer = threading.Thread(
        target=keep_draining,
        args=(file, store, stop.wait),
        kwargs={"interval": 0.01, "longest": 0.1},
    )
    loader = threading.Thread(target=load)
    for each in (loader, drainer):
        each.start()
    try:
        for mode in ("immediate", "fast"):
            time.sleep(0.3)
            postgres_server.stop(mode)
            time.sleep(0.5)
            postgres_server.start()
        time.sleep(0.3)
    finally:
        stop.set()
        loader.join()
        drainer.join()
    spool.close()
    assert drain(file, store).problem == ""
    assert all(recorded)
    assert len(recorded) > 100
    assert total(store) == store.decisions.count() == len(recorded)
    file.close()
    store.close()


def test_flt_08_a_connection_that_the_server_closed_while_idle_is_nobodys_failure(
    postgres_server: Postgres,
) -> None:
    """idle_session_timeout, a restart, or a firewall: noticed at the begin of a transaction, when
    nothing can be lost."""
    url = fresh_schema(postgres_server)
    store, other = Store.open(upgraded(url)), connect(url)
    assert store.apply(batch(evaluation())) == 1
    with other.transaction() as transaction:
        ours = "application_name = 'dmarc-milter' AND pid <> pg_backend_pid()"
        assert transaction.all(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {ours}"
        )
    assert store.apply(batch(evaluation(), first=2)) == 1
    assert total(store) == 2
    for each in (store, other):
        each.close()


def test_flt_08_a_server_that_has_become_a_standby_is_left(postgres_server: Postgres) -> None:
    """After a failover the same connection would be read-only for ever, while a new one finds the
    new primary."""
    store = Store.open(upgraded(fresh_schema(postgres_server)))
    with store.database.transaction() as transaction:
        transaction.run("SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="read-only"):
        store.apply(batch(evaluation()))
    assert store.apply(batch(evaluation())) == 1
    store.close()


def test_the_drain_says_once_that_the_store_is_away_and_once_that_it_is_back(
    spool: SpoolFile,
    store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One log line, not one every few seconds; tried again after 10 s, 20 s, and then at most every
    20 s."""
    other = sqlite3.connect(tmp_path / "reports.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []
    tried: set[float] = set()
    look = SpoolFile.batch

    def seen(self: SpoolFile, limit: int) -> list[tuple[int, SpoolRow]]:
        tried.add(sum(waits))
        return look(self, limit)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if sum(waits) == 55:
            other.execute("ROLLBACK")
        return sum(waits) == 80

    monkeypatch.setattr(SpoolFile, "batch", seen)
    keep_draining(spool, store, wait, interval=5.0, longest=20.0)
    other.close()
    assert sorted(tried) == [0, 10, 30, 50, 70, 75]
    assert max(waits) == 5
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "10 messages" in caplog.text


def test_while_the_store_is_away_the_drain_empties_the_journal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-08: else a message would do it, and wait for the disk. Beyond its bound, 256 MB where it
    is 3 here, the journal begins anew."""
    monkeypatch.setattr(journal, "MOST", 3_000_000)
    other = sqlite3.connect(tmp_path / "reports.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    path = tmp_path / "spool.db"
    mail, file = Spool(path), SpoolFile(path)
    rounds = 0

    def wait(_seconds: float) -> bool:
        nonlocal rounds
        rounds += 1
        return rounds == 6 or not all(
            mail.put(spool_row(evaluation())._replace(sample=b"x" * 50_000)) for _ in range(40)
        )

    keep_draining(file, store, wait)
    assert rounds == 6
    assert path.stat().st_size > 4 * 40 * 50_000, "in the journal still"
    assert path.with_name("spool.db-wal").stat().st_size < 3 * 40 * 52_000, "the journal grows on"
    for each in (mail, file, other):
        each.close()


def test_the_drain_does_not_say_that_messages_wait_in_a_spool_that_fails(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    keep_draining(SpoolFile(tmp_path / "folder"), store, lambda _seconds: True)
    assert "nothing can be read from the spool" in caplog.text
    assert "messages wait" not in caplog.text


@pytest.mark.parametrize(
    ("place", "words"),
    [("missing/x.db", "missing is not there"), ("file/x.db", "file is not a directory")],
)
def test_status_does_not_promise_a_file_where_none_can_be_made(
    tmp_path: Path, place: str, words: str
) -> None:
    (tmp_path / "file").touch()
    spool, store = spool_status(tmp_path / place), store_status(SqliteDatabase(tmp_path / place))
    for found in (spool, store):
        assert words in found.problem
        assert "must be writable for the service's account" in found.remedy


@pytest.mark.parametrize(
    "hosts", ["a.example:5432,b.example:5433", "[::1]:5432", "a.example:99999", ""]
)
def test_a_store_of_several_hosts_has_a_name(hosts: str) -> None:
    """As libpq takes them; a port that is none is for it to refuse."""
    assert (
        connect(f"postgresql://u:p@{hosts}/x?target_session_attrs=read-write").name
        == f"postgresql://{hosts}/x"
    )


def test_a_password_is_never_shown() -> None:
    """Error texts, `store status` and the daemon's first lines name the store without its
    secrets."""
    database = connect("postgresql://user:hunter2@127.0.0.1:1/mail?password=hunter3", "hunter4")
    found = store_status(database)
    assert found.problem
    assert found.remedy.startswith("check that the database runs")
    for text in (found.name, found.problem):
        assert "hunter" not in text
    assert found.name == "postgresql://127.0.0.1:1/mail"
    greeting = prepare_service(
        parse('[store]\nurl = "postgresql://user:hun@ter2@127.0.0.1:1/mail?password=hunter3"\n')
    )
    assert "store: postgresql://127.0.0.1:1/mail" in greeting


def test_a_store_without_its_library_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """psycopg is an extra: the store is then unusable like any other that cannot be had, and says
    what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    database = connect("postgresql://user@db.example.org/mail", "")
    with (
        pytest.raises(
            StoreError, match=r"needs the Python library psycopg .*pip install"
        ) as raised,
        database.transaction(),
    ):
        pass
    assert raised.value.kind == "absent"
    assert store_status(database).remedy.startswith("install it")


def test_status_makes_nothing(tmp_path: Path) -> None:
    """Looked at by root before the service ever ran, no file may be left that the service cannot
    write."""
    assert spool_status(tmp_path / "spool.db").problem.startswith("there is no spool")
    assert store_status(SqliteDatabase(tmp_path / "reports.db")).problem.endswith(
        "there is no store yet"
    )
    assert list(tmp_path.iterdir()) == []


# --- dmarc-milter store ---------------------------------------------------------------------------

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`dmarc-milter store ...` with a configuration for each kind of store."""
    config = tmp_path / "dmarc-milter.toml"
    config.write_text(f'[store]\nurl = "{store_url}"\nspool = "{tmp_path}/spool.db"\n')

    def run(*arguments: str) -> tuple[int, str]:
        code = main.main(["store", *arguments, "--config", str(config)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_store_upgrade_drain_expire_and_status(
    command: Command, spool: SpoolFile, store_url: str
) -> None:
    """The life of a store by the command line; exit codes 0 fine, 1 no, 75 later."""
    code, text = command("drain")
    if store_url.startswith("postgresql"):
        assert (code, "store upgrade" in text) == (75, True)
        code, text = command("status")
        assert (code, "run `dmarc-milter store upgrade`" in text) == (1, True)
    code, text = command("upgrade", "--json")
    assert code == 0
    assert json.loads(text)["schema"] == len(STEPS)
    code, text = command("drain", "--json")
    assert (code, json.loads(text)["problem"]) == (0, "")
    code, text = command("expire", "--json")
    assert (code, set(json.loads(text))) == (0, {"removed"})
    code, text = command("status", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["spool"]["waiting"] == 0
    assert (found["store"]["rows"]["decision"], found["store"]["reports"]) == (10, {"due": 1})
    code, text = command("status")
    assert code == 0
    assert "messages waiting" in text
    assert spool.waiting() == 0


def test_status_names_what_is_wrong_and_what_to_do(
    command: Command, tmp_path: Path, store_url: str
) -> None:
    """A damaged spool: moved aside, named until somebody has looked at it."""
    upgraded(store_url)
    (tmp_path / "spool.db").write_bytes(HEADER + b"garbage" * 1000)
    assert command("drain")[0] == 75
    assert command("drain")[0] == 0
    code, text = command("status")
    assert code == 1
    assert "spool.db.corrupt-" in text


def test_status_counts_nothing_in_a_spool_that_cannot_be_read(
    command: Command, tmp_path: Path, store_url: str
) -> None:
    """Nobody is to take "0 messages waiting" for an answer; and the file is named once."""
    upgraded(store_url)
    (tmp_path / "spool.db").mkdir()
    code, text = command("status")
    assert code == 1
    [line] = [each for each in text.split("\n") if each.startswith("spool ")]
    assert line.count(str(tmp_path / "spool.db")) == 1
    assert "waiting" not in line
