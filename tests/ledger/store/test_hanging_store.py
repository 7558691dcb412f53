"""A store that hangs instead of failing: stopped processes, a locked table. It is noticed within
seconds, the spool is seen all the same, and every command answers within ten."""

from __future__ import annotations

import importlib
import io
import logging
import math
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import parse
from dmarc_milter.daemon.metrics_server import StorageReader
from dmarc_milter.ledger import postgres
from dmarc_milter.ledger.dialect import DRAIN
from dmarc_milter.ledger.drain import drain, keep_draining
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.telemetry.prometheus import StorageStatus
from fakes.daemon import wait_for
from fakes.frozen_host import filled, forked
from fakes.stores import fresh_schema, upgraded
from live.postgres import Postgres, private_postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
BOUND = 10.0
WAITING = 30
COMMANDS = (
    ("store", "status"),
    ("stats",),
    ("report", "list"),
    ("why", "4QXYZ"),
    ("impact",),
    ("config", "check"),
    ("store", "drain"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of its own, since it is stopped."""
    with private_postgres() as made:
        yield made


@contextmanager
def stopped(server: Postgres, _url: str) -> Iterator[None]:
    """All its processes stand still, as on a machine whose disk or hypervisor hangs; connections
    are still accepted by the kernel."""
    processes = server.processes()
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            os.kill(process, signal.SIGCONT)


@contextmanager
def only_new_connections_hang(server: Postgres, _url: str) -> Iterator[None]:
    """The first process, which accepts, stands still; sessions that are open work."""
    process = server.processes()[0]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def locked(_server: Postgres, url: str, table: str = "decision") -> Iterator[None]:
    """An administrator's LOCK TABLE in a transaction that is never ended."""
    with psycopg.connect(url, application_name="administrator") as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@contextmanager
def large_answers_are_lost(server: Postgres, url: str) -> Iterator[str]:
    """A network on which only the first bytes of each connection come through, as behind a tunnel
    that drops large packets and says nothing (RFC 2923 2.1)."""
    with relay(server.port, through=1500) as port:
        yield url.replace(f":{server.port}/", f":{port}/")


@contextmanager
def answers_trickle(server: Postgres, url: str) -> Iterator[str]:
    """A byte a second, once the session stands."""
    with relay(server.port, through=600, then=1.0) as port:
        yield url.replace(f":{server.port}/", f":{port}/")


@contextmanager
def no_server_of_several(_server: Postgres, _url: str) -> Iterator[str]:
    """A URL of five servers that take the connection and say nothing."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        hosts = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
        yield f"postgresql://t@{hosts}/postgres"


@contextmanager
def relay(target: int, *, through: int, then: float = 0) -> Iterator[int]:
    """The port of a relay to the server's, which lets that many bytes of its answers through on
    each connection, then one in `then` seconds; 0: none."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        child = forked(partial(_relay, listener, target, through, then))
        try:
            yield listener.getsockname()[1]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _relay(listener: socket.socket, target: int, through: int, then: float) -> bool:
    while True:
        client = listener.accept()[0]
        upstream = socket.create_connection(("127.0.0.1", target))
        for work in (
            partial(_copy, client, upstream),
            partial(_copy, upstream, client, through, then),
        ):
            threading.Thread(target=work, daemon=True).start()


def _copy(
    source: socket.socket, sink: socket.socket, through: float = math.inf, then: float = 0
) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            free = data[: int(min(through, len(data)))]
            through -= len(free)
            sink.sendall(free)
            for byte in data[len(free) :] if then else b"":
                time.sleep(then)
                sink.sendall(bytes([byte]))
        sink.shutdown(socket.SHUT_WR)


def configured(folder: Path, url: str) -> Path:
    """A host whose spool holds messages for that store."""
    filled(folder / "spool.db", WAITING).close()
    config = folder / "dmarc-milter.toml"
    config.write_text(
        f'[store]\nurl = "{url}"\nspool = "{folder}/spool.db"\n'
        '[dns]\nnameservers = ["127.0.0.1:1"]\n'
    )
    return config


def answers(config: Path) -> dict[str, tuple[float, str]]:
    """Seconds and output of every command, all at once; the start of Python is not counted."""
    for module in ("cli.store", "cli.stats", "cli.report", "cli.why", "cli.impact", "cli.config"):
        importlib.import_module(f"dmarc_milter.{module}")
    return collected(asked(config, COMMANDS))


Asked = list[tuple[str, Path, int]]


def asked(config: Path, commands: Iterable[Sequence[str]]) -> Asked:
    """The commands as processes of their own: name, place of the answer, process id."""
    children = []
    for number, arguments in enumerate(commands):
        place = config.parent / f"answer-{number}"
        work = partial(_answer, [*arguments, "--config", str(config)], place)
        children.append((" ".join(arguments), place, forked(work)))
    return children


def collected(children: Asked) -> dict[str, tuple[float, str]]:
    found = {}
    for name, place, child in children:
        assert os.waitpid(child, 0)[1] == 0, name
        seconds, _, text = place.read_text().partition("\n")
        assert "Traceback" not in text, text
        found[name] = float(seconds), text
    return found


def _answer(arguments: list[str], place: Path) -> bool:
    begin, text = time.monotonic(), io.StringIO()
    with redirect_stdout(text), redirect_stderr(text), suppress(SystemExit):
        main(arguments)
    place.write_text(f"{time.monotonic() - begin}\n{text.getvalue()}")
    return True


@pytest.mark.parametrize("hangs", [stopped, only_new_connections_hang, locked])
def test_every_command_answers_within_ten_seconds(
    server: Postgres, tmp_path: Path, hangs: object
) -> None:
    """With what it knows: the spool, and that the store does not answer."""
    url = upgraded(fresh_schema(server))
    config = configured(tmp_path, url)
    with hangs(server, url):  # type: ignore[operator]
        found = answers(config)
    slow = {name: seconds for name, (seconds, _) in found.items() if seconds > BOUND}
    print({name: round(seconds, 1) for name, (seconds, _) in found.items()})
    assert slow == {}
    assert len(found) == len(COMMANDS)
    assert f"{WAITING} messages waiting" in found["store status"][1]
    for name in ("store status", "store drain", "config check"):
        assert any(
            word in found[name][1] for word in ("timeout", "not answered", "blocked", "timed out")
        ), found[name]
    if hangs is locked:
        assert "administrator" in found["store status"][1], "who holds the lock"


def test_what_lives_and_brings_no_answer_through_holds_no_command_up(
    server: Postgres, tmp_path: Path
) -> None:
    """Each look whether the server lives says that it does: the deadline of the statement, or of
    the connection to all servers of the URL, ends the waiting."""
    url = upgraded(fresh_schema(server))
    commands = [("store", "status"), ("stats",), ("report", "list")]
    with ExitStack() as stack:
        all_asked = []
        for hangs in (large_answers_are_lost, answers_trickle, no_server_of_several):
            (folder := tmp_path / hangs.__name__).mkdir()
            config = configured(folder, stack.enter_context(hangs(server, url)))
            all_asked.append(asked(config, commands))
        for found in map(collected, all_asked):
            print({name: round(seconds, 1) for name, (seconds, _) in found.items()})
            assert max(taken for taken, _ in found.values()) < 2 * BOUND, "minutes without it"
            assert f"{WAITING} messages waiting" in found["store status"][1]
            for _, text in found.values():
                assert any(
                    words in text
                    for words in ("has not answered for", "no connection", "closed the connection")
                ), text


def test_a_drain_whose_answer_does_not_come_says_so_and_goes_on(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has done its part, and bounds nothing any more: the drain's own deadline does.
    What it had counted is not counted again."""
    monkeypatch.setattr(postgres, "AFTER_SERVER", 0.5)
    url = upgraded(fresh_schema(server))
    spool = filled(tmp_path / "spool.db", WAITING)
    with relay(server.port, through=2_000) as port:
        database = connect(
            url.replace(f":{server.port}/", f":{port}/"),
            waits=replace(DRAIN, silence=1, statement=3),
        )
        problems = [drain(spool, Store(database)).problem for _ in range(2)]
        database.close()
    assert all("has not answered for" in problem or not problem for problem in problems), problems
    assert any(problems)
    store = Store(connect(url))
    assert drain(spool, store).problem == ""
    assert store.decisions.count() == WAITING
    spool.close()
    store.close()


@pytest.mark.parametrize("hangs", [stopped, locked])
def test_the_metrics_show_it_and_the_spool_goes_on(
    server: Postgres, tmp_path: Path, hangs: object
) -> None:
    """`store_up` is 0 within seconds; the spool's numbers are of now, with the age of what waits,
    and the time of the last drain is kept."""
    url = upgraded(fresh_schema(server))
    configured(tmp_path, url)
    reader = StorageReader(parse(f'[store]\nurl = "{url}"\nspool = "{tmp_path}/spool.db"\n'))
    before = reader.store(reader.spool(StorageStatus()))
    assert before.store_up
    with hangs(server, url):  # type: ignore[operator]
        begin = time.monotonic()
        after = reader.store(before)
        assert time.monotonic() - begin < BOUND
        assert after.store_up is False
        assert after.last_drained == before.last_drained
        filled(tmp_path / "spool.db", 5).close()
        now = reader.spool(after)
        assert (now.spool_messages, now.store_up) == (WAITING + 5, False)
        assert now.spool_oldest is not None
    assert reader.store(after).store_up, "and it is back"
    assert reader._database is not None
    reader._database.close()


@pytest.mark.parametrize("hangs", [stopped, locked])
def test_the_drain_says_once_what_it_waits_for(
    server: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture, hangs: object
) -> None:
    """One line within seconds, with the store's name and no SQL; and it goes on by itself."""
    url = upgraded(fresh_schema(server))
    spool, store = filled(tmp_path / "spool.db", WAITING), Store(connect(url))
    store.ready()
    stop = threading.Event()
    drainer = threading.Thread(
        target=keep_draining,
        args=(spool, store, stop.wait),
        kwargs={"interval": 0.2, "longest": 0.5},
    )
    with caplog.at_level(logging.WARNING):
        with hangs(server, url):  # type: ignore[operator]
            drainer.start()
            assert wait_for(lambda: caplog.records != [], 30)
            [record] = caplog.records
            text = record.getMessage()
        assert wait_for(lambda: len(caplog.records) > 1, 30)
        stop.set()
        drainer.join()
    assert "messages wait in the spool" in text
    assert "SELECT" not in text
    assert "INSERT" not in text
    assert any(words in text for words in ("not answered", "timeout", "locked by process")), text
    assert store.decisions.count() == WAITING
    spool.close()
    store.close()


def test_a_locked_file_of_one_machine_holds_no_command_up(tmp_path: Path) -> None:
    """Somebody else's transaction in the SQLite store: the same answers."""
    url = upgraded(f"sqlite:///{tmp_path}/reports.db")
    config = configured(tmp_path, url)
    other = sqlite3.connect(tmp_path / "reports.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = answers(config)
    other.close()
    print({name: round(seconds, 1) for name, (seconds, _) in found.items()})
    assert max(seconds for name, (seconds, _) in found.items() if name != "store drain") < BOUND
    assert found["store drain"][0] < 2 * BOUND
    assert "locked" in found["why 4QXYZ"][1]
