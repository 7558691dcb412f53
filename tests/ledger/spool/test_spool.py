"""The spool: recorded before answered, and whatever happens to the file, mail goes on."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.core.stored import decode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.ownership import HEADER
from dmarc_milter.ledger.spool import spool as spool_module
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow, classify, prepare
from dmarc_milter.ledger.spool.schema import SCHEMA
from dmarc_milter.ledger.spool.spool import Spool
from fakes.evaluations import evaluation
from fakes.stores import spool_row

QUICK = SpoolOptions(wait=0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    made = Spool(path, QUICK, patience=1.0, retry=0.05)
    yield made
    made.close()


def ids(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM spool ORDER BY seq")]


def eventually(found: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_recorded_evaluation_is_in_the_file_when_record_returns(spool: Spool, path: Path) -> None:
    """docs/design.md, The ledger: durably handed over before the reply."""
    one = evaluation()
    assert spool.record(one, b"Subject: [redacted]")
    file = SpoolFile(path)
    [(seq, row)] = file.batch(10)
    file.close()
    assert (seq, row.id, row.sample) == (1, one.id, b"Subject: [redacted]")
    assert decode(row.facts) == from_evaluation(one)


def test_many_threads_record_each_message_once(spool: Spool, path: Path) -> None:
    """One writer commits for all threads; nothing is lost or doubled between them."""
    all_of_them = [evaluation() for _ in range(400)]
    with ThreadPoolExecutor(16) as executor:
        assert all(executor.map(spool.record, all_of_them))
    assert sorted(ids(path)) == sorted(each.id for each in all_of_them)
    assert spool.counts() == (400, 0, 0, 0, False)


def test_the_same_attempt_stands_there_once(spool: Spool, path: Path) -> None:
    """The key is one delivery attempt."""
    one = evaluation()
    assert spool.record(one)
    assert spool.record(one)
    assert ids(path) == [one.id]


def test_sequence_numbers_are_never_used_again(path: Path) -> None:
    """The store tells a batch that it has by its sequence numbers: they go on after the rows are
    deleted."""
    file = SpoolFile(path)
    file.write([spool_row(evaluation()) for _ in range(5)])
    file.delete(5)
    file.close()
    file = SpoolFile(path)
    file.write([spool_row(evaluation())])
    assert [seq for seq, _ in file.batch(10)] == [6]
    assert file.last() == 6
    file.close()


def test_workers_that_open_a_new_spool_at_once_wait_for_each_other(tmp_path: Path) -> None:
    def opened(path: Path, together: threading.Barrier, name: str) -> None:
        file = SpoolFile(path)
        together.wait()
        file.write([SpoolRow(name, b"{}")])
        file.close()

    with ThreadPoolExecutor(4) as executor:
        for number in range(40):
            path, together = tmp_path / f"{number}.db", threading.Barrier(4)
            for waiting in [
                executor.submit(opened, path, together, str(each)) for each in range(4)
            ]:
                waiting.result()
            with closing(SpoolFile(path)) as file:
                assert file.waiting() == 4


def test_a_lock_held_for_long_costs_one_wait_and_no_message(spool: Spool, path: Path) -> None:
    """STO-02, DB locked: one message waits, the next ones do not, and all are written when the lock
    is gone."""
    prepare(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    messages = [evaluation() for _ in range(20)]
    started = time.monotonic()
    assert not any(spool.record(each) for each in messages)
    assert time.monotonic() - started < 5.0, "each message waited"
    assert spool.counts().unrecorded == 20
    assert spool.counts().failing
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: spool.counts().late == 20)
    assert sorted(ids(path)) == sorted(each.id for each in messages)
    assert not spool.counts().failing
    assert spool.record(evaluation())


def test_a_disk_that_hangs_delays_mail_by_the_patience_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-08: the verdict does not wait for the ledger; what hung is written when the disk comes
    back."""
    gate = threading.Event()
    write = SpoolFile.write

    def hang(self: SpoolFile, rows: Any) -> None:
        gate.wait(30)
        write(self, rows)

    monkeypatch.setattr(SpoolFile, "write", hang)
    spool = Spool(path, QUICK, patience=0.2, retry=0.05)
    started = time.monotonic()
    assert not any(spool.record(evaluation()) for _ in range(10))
    assert time.monotonic() - started < 2.0
    gate.set()
    eventually(lambda: spool.counts().late == 10)
    assert len(ids(path)) == 10
    spool.close()


def test_what_waits_in_memory_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that is away for long costs no memory without end; what is given up is counted."""
    monkeypatch.setattr(spool_module, "MAX_HELD", 5)
    spool = Spool(path.parent / "missing" / "spool.db", QUICK, patience=0.2, retry=60.0)
    assert not spool.record(evaluation())
    assert not any(spool.record(evaluation()) for _ in range(20))
    assert spool.counts().unrecorded == 21
    assert spool.counts().lost >= 15
    spool.close()
    assert spool.counts().lost == 21


def test_a_full_disk_records_again_when_there_is_room(path: Path) -> None:
    """STO-02, disk full; docs/design.md: a stated bound, nothing undrained dropped."""
    spool = Spool(path, SpoolOptions(max_bytes=64 * 4096, wait=0.1), retry=0.05)
    recorded = [
        one.id
        for one in (evaluation() for _ in range(2000))
        if not spool.counts().failing and spool.record(one)
    ]
    assert spool.counts().failing
    assert 50 < len(recorded) < 2000
    file = SpoolFile(path)
    there = [row.id for _, row in file.batch(5000)]
    assert there[: len(recorded)] == recorded, "what was recorded stays"
    file.delete(file.last())
    eventually(lambda: not spool.counts().failing)
    assert spool.record(evaluation())
    spool.close()
    file.close()


def test_a_disk_so_full_that_the_file_cannot_be_opened_is_not_called_failing(path: Path) -> None:
    """Where -shm cannot be made SQLite says "disk I/O error", and the administrator would look for
    a new disk."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    failure = classify(path, error)
    assert (failure.kind, str(failure)) == (
        "full",
        f"{path}: no room for its -shm file: the disk is full",
    )
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    assert classify(path, error).kind == "io"


@pytest.mark.parametrize("damage", ["garbage", "header", "pages"])
def test_a_damaged_file_is_moved_aside_and_a_new_one_made(path: Path, damage: str) -> None:
    """STO-02: moved aside, never overwritten, and the message that met the damage is recorded."""
    identity = prepare(path)
    file = SpoolFile(path)
    file.write([spool_row(evaluation()) for _ in range(300)])
    file.close()
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content[100:] = b"x" * (len(content) - 100)
    elif damage == "header":
        content[:100] = b"\0" * 100
    else:
        content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    spool = Spool(path, QUICK)
    one = evaluation()
    assert spool.record(one)
    spool.close()
    assert ids(path) == [one.id]
    [aside] = path.parent.glob("spool.db.corrupt-*")
    assert aside.read_bytes() == bytes(content)
    assert prepare(path) != identity, "a new spool must not repeat the sequence of the old one"


def test_a_second_worker_follows_when_the_file_was_moved_aside(path: Path) -> None:
    """It would go on writing into the damaged file, where nobody drains. What stood there is in the
    new file, once."""
    first, second = SpoolFile(path, QUICK), SpoolFile(path, QUICK)
    before = [evaluation(), evaluation()]
    first.write([spool_row(before[0])])
    second.write([spool_row(before[1])])
    path.rename(path.with_name("aside"))
    for tail in ("-wal", "-shm"):
        path.with_name(f"spool.db{tail}").rename(path.with_name(f"aside{tail}"))
    one, two = evaluation(), evaluation()
    first.write([spool_row(one)])
    second.write([spool_row(two)])
    first.close()
    second.close()
    assert sorted(ids(path)) == sorted([*(each.id for each in before), one.id, two.id])


def test_only_the_damaged_file_is_moved(path: Path) -> None:
    """Two workers see the damage; the second must not move the file that the first has just
    made."""
    path.write_bytes(HEADER + b"and no database after that, long enough to be looked at" * 100)
    workers = [Spool(path, QUICK) for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(lambda spool: spool.record(evaluation()), workers))
    for each in workers:
        each.close()
    assert len(ids(path)) == 4
    assert len(list(path.parent.glob("spool.db.corrupt-*"))) == 1


def test_a_file_that_disappears_is_made_anew(spool: Spool, path: Path) -> None:
    """STO-02, missing file. SQLite still has what was in it."""
    one, two = evaluation(), evaluation()
    assert spool.record(one)
    for each in path.parent.glob("spool.db*"):
        each.unlink()
    assert spool.record(two)
    assert ids(path) == [one.id, two.id]


def test_an_empty_file_becomes_a_spool(spool: Spool, path: Path) -> None:
    """STO-02, 0 byte."""
    path.touch()
    assert spool.record(evaluation())


def test_a_newer_schema_is_left_alone(spool: Spool, path: Path) -> None:
    """STO-02, wrong schema: refused with one clear line, untouched, and mail goes on."""
    prepare(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(SpoolError, match=f"schema 99, this program knows {SCHEMA}") as raised:
        prepare(path)
    assert raised.value.kind == "newer"
    assert "\n" not in str(raised.value)
    assert not spool.record(evaluation())
    assert not list(path.parent.glob("*.corrupt-*"))


@pytest.mark.parametrize(
    "kind", ["missing folder", "file for a folder", "directory for a file", "read-only"]
)
def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    """STO-02, permission denied, read-only fs; the start says so, and a running worker goes on
    without."""
    places = {
        "missing folder": Path("/proc/no/such/spool.db"),
        "file for a folder": tmp_path / "file" / "spool.db",
        "directory for a file": tmp_path / "folder",
        "read-only": Path("/proc/self/spool.db"),
    }
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpoolError) as raised:
        prepare(places[kind])
    assert raised.value.kind == ("foreign" if kind == "directory for a file" else "refused")
    assert str(places[kind].parent) in str(raised.value)
    spool = Spool(places[kind], QUICK, retry=0.05)
    assert not spool.record(evaluation())
    assert not spool.record(evaluation())
    assert spool.counts().unrecorded == 2
    spool.close()


def test_a_symbolic_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    """A file is never made where a link in our directory points."""
    (tmp_path / "spool.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolError):
        prepare(tmp_path / "spool.db")
    assert not (tmp_path / "elsewhere").exists()


def test_the_file_is_for_the_service_and_its_group_only(spool: Spool, path: Path) -> None:
    """docs/design.md, The ledger: readable by the service's group only, journal included."""
    assert spool.record(evaluation())
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"spool.db": 0o640, "spool.db-wal": 0o640, "spool.db-shm": 0o640}


def test_a_defect_in_the_facts_does_not_refuse_mail(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger is book-keeping: its own defect is logged with the queue id and counted."""
    broken = evaluation(queue_id="4Qbroken", spf=None)
    assert not spool.record(broken)
    assert "4Qbroken" in caplog.text
    assert spool.counts().lost == 1
    assert spool.record(evaluation())


def test_a_row_that_cannot_be_written_does_not_stop_the_others(spool: Spool, path: Path) -> None:
    """A defect of ours in one group must not stand in the way of the next."""
    assert not spool.put(SpoolRow("\udcff", b""))
    eventually(lambda: spool.record(evaluation()))
    assert spool.counts().lost == 1


def test_closing_writes_what_waits_and_is_harmless_before_the_first_record(path: Path) -> None:
    Spool(path).close()
    assert not path.exists()
    spool = Spool(path)
    assert spool.record(evaluation())
    spool.close()
    spool.close()
    assert len(ids(path)) == 1


def test_a_worker_forked_after_use_has_a_writer_of_its_own(path: Path) -> None:
    """Threads and SQLite connections do not survive fork: the child starts anew and both go on."""
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from fakes.evaluations import evaluation
from dmarc_milter.ledger.spool.spool import Spool
spool = Spool(Path({str(path)!r}))
assert spool.record(evaluation())
ours = evaluation()
child = os.fork()
if child == 0:
    good = spool.record(evaluation()) and spool.counts().recorded == 1
    spool.close()
    os._exit(0 if good else 1)
assert spool.record(ours) and spool.record(evaluation())
assert os.waitpid(child, 0)[1] == 0
spool.close()
"""
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=60
    )
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM spool").fetchone()[0] in (
            3,
            4,
        )  # parent and child number alike
    connection.close()


def test_nothing_is_opened_before_the_first_record(path: Path) -> None:
    """The supervisor makes the Spool, the workers use it: no thread and no descriptor may be older
    than the fork."""
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    spool = Spool(path)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
    spool.close()


def test_the_drain_and_not_the_mail_path_moves_the_journal_into_the_file(path: Path) -> None:
    """That waits for the disk; a message's answer should not."""
    spool = Spool(path)
    row = spool_row(evaluation())
    while path.with_name("spool.db-wal").stat().st_size < 8 << 20 if path.exists() else True:
        assert spool.put(row._replace(id=os.urandom(16).hex(), sample=b"x" * 30_000))
    assert path.stat().st_size < 1 << 20
    drained = SpoolFile(path)
    drained.delete(3)
    assert path.stat().st_size > 4 << 20
    drained.close()
    spool.close()
