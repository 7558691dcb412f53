"""Spool files that somebody deletes, truncates or replaces under the running daemon: noticed, said,
counted, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow
from dmarc_milter.ledger.spool.guard import (
    MEMORY_OCTETS,
    MEMORY_ROWS,
    MEMORY_SECONDS,
    Marks,
    RecentRows,
)
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import Daemon, free_port, wait_for
from fakes.dns_server import DnsServer
from fakes.evaluations import evaluation
from fakes.milter_client import MilterClient
from fakes.stores import spool_row

pytestmark = pytest.mark.timeout(120)


def named(path: Path, tail: str) -> Path:
    return path.with_name(path.name + tail)


def truncate(path: Path, octets: int = 0) -> None:
    os.truncate(path, octets)


def replace(path: Path, content: bytes) -> None:
    """By another file of the same name, as an editor or a restore does it."""
    new = named(path, ".new")
    new.write_bytes(content)
    new.rename(path)


def overwrite(path: Path, content: bytes) -> None:
    """In its place, as a failing disk or a mistaken tool does it."""
    with path.open("r+b") as file:
        file.write(content)


def another_spool(path: Path) -> None:
    """A copy from elsewhere, put in place."""
    other = SpoolFile(named(path, ".other"))
    other.write([SpoolRow("from the copy", b"{}")])
    other.close()
    named(path, ".other").rename(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path, target: Path) -> None:
    if path.exists():
        path.rename(target)
    path.symlink_to(target)


def all_gone(path: Path) -> None:
    for tail in ("", "-wal", "-shm"):
        named(path, tail).unlink()


def folder_gone(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the journal deleted": lambda path: named(path, "-wal").unlink(),
    "the journal truncated": lambda path: truncate(named(path, "-wal")),
    "the journal cut in half": lambda path: truncate(
        named(path, "-wal"), named(path, "-wal").stat().st_size // 2
    ),
    "the journal overwritten": lambda path: overwrite(named(path, "-wal"), b"x" * 4096),
    "the journal's beginning lost": lambda path: overwrite(named(path, "-wal"), bytes(32)),
    "the journal replaced": lambda path: replace(named(path, "-wal"), b""),
    "the index deleted": lambda path: named(path, "-shm").unlink(),
    "journal and index deleted": lambda path: (
        named(path, "-wal").unlink(),
        named(path, "-shm").unlink(),
    ),
    "the file deleted": lambda path: path.unlink(),
    "the file truncated": truncate,
    "the file cut in half": lambda path: truncate(path, path.stat().st_size // 2),
    "the file renamed": lambda path: path.rename(named(path, ".old")),
    "replaced by garbage": lambda path: replace(path, b"garbage " * 2000),
    "replaced by nothing": lambda path: replace(path, b""),
    "replaced by another spool": another_spool,
    "replaced by a directory": directory,
    "replaced by a link to itself": lambda path: link(path, path.with_name("moved")),
    "replaced by a link to nowhere": lambda path: (
        path.unlink(),
        link(path, path.with_name("nowhere")),
    ),
    "everything deleted": all_gone,
    "the folder renamed": folder_gone,
}
HARMLESS = {
    True: ("the journal truncated", "the journal cut in half"),
    False: ("the file cut in half",),
}
"""Where everything has been moved into the file already, or nothing: SQLite reads it from end to
end."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool" / "spool.db"


def ids(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM spool ORDER BY seq")]


@pytest.mark.parametrize("checkpointed", [False, True], ids=["in the journal", "in the file"])
@pytest.mark.parametrize("name", DAMAGES)
def test_sto_10_a_damaged_spool_is_left_for_a_new_one_with_its_rows(
    path: Path, name: str, checkpointed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With the next write: rows of this process from its memory, rows of others as far as SQLite
    still reads them."""
    file = SpoolFile(path, SpoolOptions(wait=0.2))
    rows = [spool_row(evaluation()) for _ in range(40)]
    file.write(rows)
    if checkpointed:
        file.checkpoint()
        file.check()
    DAMAGES[name](path)
    later = spool_row(evaluation())
    file.write([later])
    harmless = name in HARMLESS[checkpointed]
    assert ("was damaged under the running program" in caplog.text) == (not harmless)
    assert path.is_file()
    assert not path.is_symlink()
    assert {each.id for each in (*rows, later)} <= set(ids(path))
    assert file.doubts() == ((0, 0) if harmless else (40, 40))
    file.close()
    assert {each.id for each in (*rows, later)} <= set(ids(path)), (
        "closing the damaged file took nothing with it"
    )
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_sto_11_two_workers_and_a_drain_count_each_message_once(
    path: Path, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    """All of them had the damaged file open; rows that are saved twice are counted once."""
    options = SpoolOptions(wait=0.5)
    first, second, draining = (SpoolFile(path, options) for _ in range(3))
    store = Store.open(f"sqlite:///{tmp_path}/reports.db")
    counted = 0
    written = 0
    for each in (first, second):
        each.write([spool_row(evaluation()) for _ in range(20)])
        written += 20
    counted += drain(draining, store, batch=10).messages
    for each in (first, second):
        each.write([spool_row(evaluation()) for _ in range(20)])
        written += 20
    damage(path)
    for each in (second, first, second):
        each.write([spool_row(evaluation()) for _ in range(5)])
        written += 5
    for _ in range(3):
        counted += drain(draining, store).messages
        first.check()
        second.check()
    assert (counted, store.decisions.count()) == (written, written)
    for each in (first, second, draining):
        each.close()
    store.close()


def test_sto_12_a_journal_that_grows_or_is_emptied_by_sqlite_is_no_damage(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint, also one that truncates, and VACUUM: somebody else's sqlite3 does that in an
    orderly way."""
    file = SpoolFile(path)
    for _ in range(3):
        file.write([SpoolRow(os.urandom(8).hex(), os.urandom(20_000)) for _ in range(50)])
        file.delete(file.last() - 10)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.check()
    file.write([spool_row(evaluation())])
    assert (len(ids(path)), file.doubts()) == (11, (0, 0))
    assert "damaged" not in caplog.text
    file.close()


def test_sto_13_a_file_that_its_owner_may_not_read_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """chmod 000: the worker would not notice, and no drain could open it."""
    file = SpoolFile(path)
    file.write([spool_row(evaluation())])
    for each in path.parent.iterdir():
        each.chmod(0)
    file.check()
    assert {
        each.stat().st_mode & 0o777
        for each in path.parent.iterdir()
        if not each.name.endswith(".lock")
    } == {0o640}
    assert "could not be read" in caplog.text
    file.close()


def test_sto_14_what_cannot_be_begun_anew_yet_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place cannot be written either: the rows wait in memory, and the damaged file stays open,
    until it can."""
    spool = Spool(path, SpoolOptions(wait=0.1), patience=0.5, retry=0.05)
    before = [evaluation() for _ in range(5)]
    assert all(map(spool.record, before))
    for each in path.parent.iterdir():
        each.unlink()
    path.parent.rmdir()
    path.parent.touch()
    late = evaluation()
    assert not spool.record(late)
    assert wait_for(lambda: spool.counts().unrecorded == 6)
    path.parent.unlink()
    assert wait_for(lambda: spool.counts().late == 6)
    assert sorted(ids(path)) == sorted(each.id for each in (*before, late))
    assert spool.counts().lost == 0
    spool.close()


def test_sto_15_it_is_noticed_while_no_mail_comes(path: Path) -> None:
    """Within seconds: the process might end before the next message."""
    spool = Spool(path)
    one = evaluation()
    assert spool.record(one)
    inode = path.stat().st_ino
    named(path, "-wal").unlink()
    assert wait_for(lambda: path.exists() and path.stat().st_ino != inode, 5)
    assert wait_for(lambda: spool.counts()[1:4] == (1, 1, 0), 5)
    spool.close()
    assert ids(path) == [one.id]


def test_sto_16_a_look_costs_next_to_nothing(path: Path) -> None:
    """A few microseconds beside a commit that takes some hundred."""
    file = SpoolFile(path)
    file.write([spool_row(evaluation())])
    marks = Marks(path)
    started = time.process_time()
    for _ in range(2000):
        assert marks.damage() == ""
    assert (time.process_time() - started) / 2000 < 100e-6
    file.close()


def test_what_is_remembered_is_bounded() -> None:
    """In time, number and octets."""
    now = [0.0]
    memory = RecentRows(lambda: now[0])
    memory.add([SpoolRow(f"{number}", b"x") for number in range(MEMORY_ROWS + 10)])
    assert len(memory.rows()) == MEMORY_ROWS
    memory.add(
        [
            SpoolRow("large", b"x" * (MEMORY_OCTETS // 2)),
            SpoolRow("larger", b"x" * (MEMORY_OCTETS // 2)),
        ]
    )
    assert [row.id for row in memory.rows()] == ["larger"]
    now[0] = MEMORY_SECONDS + 1
    assert memory.rows() == []


# --- through the daemon ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    names = {
        "d.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
        "_dmarc.d.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@d.example"]},
    }
    with DnsServer(names, record=False) as server:
        yield server


class Mail:
    """Connections of an MTA, which reach every worker; each message is accepted."""

    def __init__(self, daemon: Daemon) -> None:
        self.answered = 0
        self._mtas: list[MilterClient] = [daemon.client() for _ in range(8)]
        for each in self._mtas:
            each.connect("mx.d.example", "192.0.2.1")
            each.helo("mx.d.example")

    def send(self, count: int) -> None:
        for number in range(count):
            self.answered += 1
            answer = self._mtas[number % 8].message(
                [("From", "<a@d.example>")], mail_from="<a@d.example>", queue_id=f"Q{self.answered}"
            )
            assert answer.code == 250, answer


def metric(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        found = re.search(
            rf"^dmarc_milter_{name} ([0-9.e+]+)$", reply.read().decode(), re.MULTILINE
        )
    assert found is not None, name
    return int(float(found[1]))


@pytest.mark.slow
def test_sto_20_damage_under_the_running_daemon_loses_no_message(
    tmp_path: Path, dns: DnsServer
) -> None:
    """One damage after the other while mail comes in: each is said, counted as unrecorded, and
    every message is counted once."""
    port = free_port()
    tables = {
        "dns": {"nameservers": [dns.nameserver]},
        "store": {"spool": f"{tmp_path}/spool/spool.db"},
        "metrics": {"listen": f"127.0.0.1:{port}"},
    }
    daemon = Daemon(tmp_path, tables, command=("-m", "dmarc_milter", "serve", "--config"))
    daemon.spool = tmp_path / "spool" / "spool.db"
    with daemon:
        mail = Mail(daemon)
        for number, (name, damage) in enumerate(DAMAGES.items()):
            before = len(daemon.text())
            mail.send(16)
            damage(daemon.spool)
            if number % 3:  # else it is noticed without mail
                mail.send(8)
            if not any(name in each for each in HARMLESS.values()):
                assert wait_for(
                    lambda before=before: "was damaged" in daemon.text()[before:], 10
                ), name
        mail.send(16)
        assert wait_for(lambda: metric(port, "unrecorded_messages_total") > 0)
        assert metric(port, "lost_records_total") == 0
        time.sleep(2.5)
        file = SpoolFile(daemon.spool)
        store = Store.open(f"sqlite:///{tmp_path}/reports.db")
        for _ in range(5):
            assert drain(file, store).problem == ""
            time.sleep(0.2)
        with store.database.transaction(write=False) as transaction:
            parked = transaction.one("SELECT count(*) FROM parked")
        assert parked == (1,), "the row of the other spool"
        assert store.decisions.count() == mail.answered, daemon.text()[-3000:]
        assert sum(each.messages for each in store.reports.find()) == mail.answered
        file.close()
        store.close()


def test_sto_17_a_truncated_index_ends_workers_but_loses_nothing(
    tmp_path: Path, dns: DnsServer
) -> None:
    """SQLite has the index mapped: the kernel ends whoever touches what is gone. Others take over,
    and the journal has every row."""
    tables = {
        "milter": {"workers": 1},
        "dns": {"nameservers": [dns.nameserver]},
        "store": {"spool": f"{tmp_path}/spool/spool.db"},
    }
    daemon = Daemon(tmp_path, tables)
    daemon.spool = tmp_path / "spool" / "spool.db"
    with daemon:
        Mail(daemon).send(16)
        truncate(named(daemon.spool, "-shm"))
        with contextlib.suppress(Exception):
            Mail(daemon).send(1)
        assert daemon.logged("worker_died", 1)
        assert daemon.logged("ready", 2)
        Mail(daemon).send(16)
        assert wait_for(lambda: daemon.spool_rows() >= 32)
