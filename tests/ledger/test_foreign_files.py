"""A path in `[store]` that names somebody else's file, or a damaged one: whoever only asks touches
nothing, and nobody touches what was never ours."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import Config, parse
from dmarc_milter.daemon.metrics_server import StorageReader
from dmarc_milter.daemon.startup import prepare_storage
from dmarc_milter.daemon.worker import CannotBuild
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.ownership import HEADER, Access
from dmarc_milter.ledger.read_only_store import ReadOnlySqlite
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, prepare
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.telemetry.prometheus import StorageStatus
from dmarc_milter.web import WebOptions, create_app
from fakes.evaluations import evaluation
from fakes.stores import batch, spool_row

ID = "0" * 32
READING = (
    ("config", "check"),
    ("why", "4QXYZ"),
    ("why", "--full"),
    ("stats",),
    ("stats", "--html"),
    ("impact",),
    ("report", "list"),
    ("report", "preview"),
    ("summary",),
    ("allow", "4QXYZ"),
    ("rules", "test"),
    ("report", "show", ID),
    ("store", "status"),
    ("store", "status", "--json"),
)
"""Commands that only ask."""
CHANGING = (
    ("report", "send"),
    ("report", "drop", ID),
    ("report", "resend", ID),
    ("report", "allow", "a@b.example"),
    ("store", "upgrade"),
    ("store", "expire"),
    ("store", "drain"),
)
"""Those that may write into a store, but not into another program's file."""


def _own_spool(path: Path) -> None:
    with contextlib.closing(SpoolFile(path)) as spool:
        spool.write([spool_row(evaluation()) for _ in range(3)])


def _own_store(path: Path) -> None:
    with contextlib.closing(Store.open(f"sqlite:///{path}")) as store:
        store.apply(batch(evaluation()))


def _other_database(path: Path, mode: str = "delete") -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url TEXT)")
    connection.executemany("INSERT INTO moz_places (url) VALUES (?)", [("x" * 50,)] * 200)
    connection.execute("PRAGMA user_version=74")
    connection.commit()
    connection.close()


def _tables_of_our_names(path: Path) -> None:
    """A print server's queue, say."""
    connection = sqlite3.connect(path)
    for name in ("spool", "schema_step", "decision"):
        connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, job TEXT)")
    connection.commit()
    connection.close()


def _database_with_its_journal(path: Path) -> None:
    """As it stands beside a program that has it open."""
    live = path.with_name("live")
    connection = sqlite3.connect(live)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY)")
    connection.commit()
    for tail in ("", "-wal"):
        Path(f"{path}{tail}").write_bytes(Path(f"{live}{tail}").read_bytes())
    connection.close()
    live.unlink()


def _dump(path: Path) -> None:
    """SQL text that makes a spool and a store: it names their tables."""
    lines = []
    for make in (_own_spool, _own_store):
        source = path.with_name("source.db")
        make(source)
        with contextlib.closing(sqlite3.connect(source)) as connection:
            lines += list(connection.iterdump())
        source.unlink()
    path.write_text("\n".join(lines))


def _archive(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for make in (_own_spool, _own_store):
            source = path.with_name("source.db")
            make(source)
            archive.add(source, "backup.db")
            source.unlink()


def _zip(path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"b" * 9000)
    path.write_bytes(content.getvalue())


def _link(path: Path) -> None:
    path.with_name("target").write_bytes(b"precious" * 1000)
    path.symlink_to("target")


FOREIGN: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("smtpd_milters = inet:127.0.0.1:8893\n" * 200),
    "a short text": lambda path: path.write_text("x"),
    "zeros": lambda path: path.write_bytes(b"\0" * 65536),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "a zip archive": _zip,
    "an archive of a spool and a store": _archive,
    "a dump of a spool and a store": _dump,
    "a database of another program": _other_database,
    "a database of another program with a journal": lambda path: _other_database(path, "wal"),
    "a database with tables of our names": _tables_of_our_names,
    "a database open elsewhere": _database_with_its_journal,
    "a link": _link,
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
}
DAMAGED: dict[str, Callable[[Path], object]] = {
    "garbage after the header": lambda path: path.write_bytes(HEADER + b"garbage" * 3000),
    "cut off": lambda path: path.write_bytes(HEADER + b"\x10\0\x02\x02\0\x40\x20\x20"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration whose store and spool are the healthy ones."""
    (tmp_path / "etc").mkdir()
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, store: str = "reports.db", spool: str = "spool.db") -> str:
    text = f'[store]\nurl = "sqlite:///{folder}/data/{store}"\nspool = "{folder}/data/{spool}"\n'
    (folder / "data").mkdir(exist_ok=True)
    (folder / "etc/c.toml").write_text(text)
    return text


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Names, kinds, inodes, times and contents of everything in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.iterdir()):
        state = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path.name] = (state.st_mode, state.st_ino, state.st_mtime_ns, state.st_size, content)
    return found


def ask(folder: Path, *words: str) -> int:
    return main([*words, "--config", str(folder / "etc/c.toml")])


def wrong_file(folder: Path, make: Callable[[Path], None], key: str) -> None:
    """[store] has a mistake: `key` names a file that is not ours, or is damaged; the other file is
    as it must be."""
    configure(folder, **{key: "wrong"})
    make(folder / "data/wrong")
    if key == "spool":
        _own_store(folder / "data/reports.db")
    else:
        _own_spool(folder / "data/spool.db")


@pytest.mark.parametrize("key", ["store", "spool"])
@pytest.mark.parametrize("kind", [*FOREIGN, *DAMAGED])
def test_who_only_asks_leaves_a_foreign_or_damaged_file_as_it_is(
    folder: Path, kind: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo in [store] renames, alters and makes nothing, and is said; moving a damaged file aside
    is for the daemon and the drain."""
    wrong_file(folder, {**FOREIGN, **DAMAGED}[kind], key)
    before = snapshot(folder / "data")
    for words in READING:
        ask(folder, *words)
        said = capsys.readouterr()
        assert kind in DAMAGED or "will be created" not in said.out, words
        if key == "store" or words[:2] != ("report", "show"):
            assert f"{folder}/data/wrong" in said.out + said.err, words
        assert snapshot(folder / "data") == before, words


@pytest.mark.parametrize("key", ["store", "spool"])
def test_who_only_asks_makes_nothing_of_an_empty_file(folder: Path, key: str) -> None:
    """It may be anybody's; the daemon and the drain make it theirs."""
    wrong_file(folder, Path.touch, key)
    before = snapshot(folder / "data")
    for words in READING:
        ask(folder, *words)
        assert snapshot(folder / "data") == before, words


@pytest.mark.parametrize("key", ["store", "spool"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_another_file_is_left_as_it_is_by_commands_that_change_something(
    folder: Path, kind: str, key: str
) -> None:
    """They change what is ours."""
    wrong_file(folder, FOREIGN[kind], key)
    before = snapshot(folder / "data")
    for words in CHANGING:
        ask(folder, *words)
        after = snapshot(folder / "data")
        assert {name: after[name] for name in before if name in ("wrong", "target")} == {
            name: before[name] for name in before if name in ("wrong", "target")
        }, words
        assert not [name for name in after if "corrupt" in name], words
        assert not [name for name in after if name.startswith("wrong") and name not in before]


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_daemon_does_not_begin_with_another_file_as_its_spool(folder: Path, kind: str) -> None:
    """It says so in one line, as for any other error of the configuration."""
    config = parse(configure(folder, spool="wrong"))
    FOREIGN[kind](folder / "data/wrong")
    before = snapshot(folder / "data")
    with pytest.raises(CannotBuild) as raised:
        prepare_storage(config)
    assert str(folder / "data/wrong") in str(raised.value)
    assert snapshot(folder / "data") == before


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_daemon_says_at_start_that_its_store_is_another_file(folder: Path, kind: str) -> None:
    """Mail goes on: the spool holds what is recorded."""
    config = parse(configure(folder, store="wrong"))
    FOREIGN[kind](folder / "data/wrong")
    before = snapshot(folder / "data")["wrong"]
    if kind != "a folder":
        [line] = prepare_storage(config)
        assert line.startswith(f"{folder}/data/wrong: ")
        assert line.endswith("messages wait in the spool until that is mended")
    with (
        contextlib.closing(SpoolFile(folder / "data/spool.db")) as spool,
        contextlib.closing(Store(connect(config.store.url))) as store,
    ):
        spool.write([spool_row(evaluation())])
        assert drain(spool, store).problem
        assert drain(spool, store).problem
        assert spool.waiting() == 1
    assert snapshot(folder / "data")["wrong"] == before


@pytest.mark.parametrize("key", ["store", "spool"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_the_drain_moves_a_damaged_file_aside_and_logs_its_new_name(
    folder: Path, kind: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error event for the administrator; the content is kept."""
    configure(folder, **{key: "wrong"})
    DAMAGED[kind](folder / "data/wrong")
    content = (folder / "data/wrong").read_bytes()
    if key == "store":
        _own_spool(folder / "data/spool.db")
    ask(folder, "store", "drain")
    [aside] = (folder / "data").glob("wrong.corrupt-*")
    assert aside.read_bytes() == content
    [event] = [each for each in caplog.records if str(aside) in each.getMessage()]
    assert event.levelname == "ERROR"
    assert ask(folder, "store", "drain") == 0


def looked_at(config: Config) -> StorageStatus:
    reader = StorageReader(config)
    return reader.store(reader.spool(StorageStatus()))


def test_the_dashboard_and_the_metrics_touch_nothing(folder: Path) -> None:
    """They read what the daemon writes; a missing store is an empty one."""
    config = parse(configure(folder))
    store, spool = folder / "data/reports.db", folder / "data/spool.db"
    client = create_app(WebOptions(lambda: Store(ReadOnlySqlite(store)), spool)).test_client()
    for make in (None, _own_store, _own_spool):
        if make is not None:
            make(store if make is _own_store else spool)
        before = snapshot(folder / "data")
        for page in ("/", "/domains", "/decisions", "/reports", "/health"):
            assert client.get(page).status_code == 200, page
        assert looked_at(config).store_up
        assert snapshot(folder / "data") == before
    (folder / "data/reports.db").write_text("not ours")
    before = snapshot(folder / "data")
    assert "is not a SQLite file" in client.get("/decisions").get_data(as_text=True)
    assert not looked_at(config).store_up
    assert snapshot(folder / "data") == before


def test_healthy_files_are_as_before_when_nothing_waits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No journal is left beside them, and no step of a schema is made."""
    _own_store(folder / "data/reports.db")
    prepare(folder / "data/spool.db")
    before = snapshot(folder / "data")
    for words in READING:
        ask(folder, *words)
        assert snapshot(folder / "data") == before, words
    capsys.readouterr()


def test_where_there_is_no_store_the_answer_comes_from_the_spool(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelled store is not made, nor the spool emptied into it."""
    with contextlib.closing(SpoolFile(folder / "data/spool.db")) as spool:
        spool.write([spool_row(evaluation(queue_id="4QHERE"))])
    before = snapshot(folder / "data")
    for words in READING:
        ask(folder, *words)
        assert snapshot(folder / "data") == before, words
    capsys.readouterr()
    assert ask(folder, "why", "4QHERE") == 0
    assert "4QHERE" in capsys.readouterr().out
    assert snapshot(folder / "data") == before


def test_a_file_that_took_the_place_of_the_open_spool_is_moved_aside(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The path was the spool's while this process ran: recording goes on, and the other file keeps
    its content under another name."""
    path = folder / "data/spool.db"
    with contextlib.closing(SpoolFile(path)) as spool:
        first, second = spool_row(evaluation()), spool_row(evaluation())
        spool.write([first])
        path.unlink()
        path.write_text("somebody's")
        spool.write([second])
        assert sorted(row.id for _, row in spool.batch(10)) == sorted([first.id, second.id])
    asides = {each.read_bytes(): each for each in path.parent.glob("spool.db.corrupt-*")}
    assert str(asides[b"somebody's"]) in caplog.text


def test_who_may_change_rows_only_makes_no_spool(folder: Path) -> None:
    """`why` drains what is there and begins nothing."""
    path = folder / "data/spool.db"
    with (
        contextlib.closing(SpoolFile(path, SpoolOptions(access=Access.CHANGE))) as spool,
        pytest.raises(SpoolError) as raised,
    ):
        spool.identity()
    assert raised.value.kind == "refused"
    path.touch()
    with (
        contextlib.closing(SpoolFile(path, SpoolOptions(access=Access.CHANGE))) as spool,
        pytest.raises(SpoolError) as raised,
    ):
        spool.identity()
    assert raised.value.kind == "older"
    assert path.read_bytes() == b""
