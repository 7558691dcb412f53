"""A store that has lost what it had said it holds: found by the next drain, said, counted, and
mended as far as the hosts' spools still have the rows."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions
from dmarc_milter.ledger.spool.kept import CHUNK
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.daily_caps import StoreOptions
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.stores import fresh_schema, spool_row, upgraded
from live.postgres import private_postgres

HOUR = 3600.0


class Place:
    """A spool and a store, whose content can be put back to what it was."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.spool = SpoolFile(folder / "spool.db")
        self.store = Store.open(upgraded(url))
        self._backup: dict[str, list[tuple[object, ...]]] = {}

    def saw(self, *evaluations: Evaluation) -> None:
        self.spool.write([spool_row(each) for each in evaluations])

    def total(self) -> int:
        return sum(each.messages for each in self.store.decisions.totals())

    def reported(self) -> int:
        return sum(each.messages for each in self.store.reports.find())

    def save(self) -> None:
        """A backup."""
        if self.url.startswith("sqlite"):
            with (
                closing(sqlite3.connect(self.folder / "reports.db")) as source,
                closing(sqlite3.connect(self.folder / "backup.db")) as target,
            ):
                source.backup(target)
            return
        with psycopg.connect(self.url) as connection:
            tables = [
                name
                for (name,) in connection.execute(
                    "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND"
                    " tablename <> 'schema_step' AND tablename NOT LIKE 'decision_d%'"
                )
            ]
            for name in tables:
                found = connection.execute(f"SELECT * FROM {name}".encode()).fetchall()
                self._backup[name] = found

    def restore(self) -> None:
        """Everything since then is gone."""
        self.store.close()
        if self.url.startswith("sqlite"):
            for each in self.folder.glob("reports.db*"):
                each.unlink()
            shutil.copy(self.folder / "backup.db", self.folder / "reports.db")
        else:
            with psycopg.connect(self.url) as connection:
                for name, rows in self._backup.items():
                    connection.execute(f"DELETE FROM {name}".encode())
                    if rows:
                        values = ", ".join(["%s"] * len(rows[0]))
                        connection.cursor().executemany(
                            f"INSERT INTO {name} VALUES ({values})".encode(), rows
                        )
        self.store = Store.open(self.url)

    def close(self) -> None:
        self.spool.close()
        self.store.close()


@pytest.fixture
def place(tmp_path: Path, store_url: str) -> Iterator[Place]:
    with closing(Place(tmp_path, store_url)) as place:
        yield place


def some(number: int) -> list[Evaluation]:
    return [evaluation(f"d{n}.example", source_ip=f"192.0.2.{n}") for n in range(number)]


def test_a_restored_backup_gets_back_what_the_spool_still_has(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Every message is counted once, in the log, the totals and the reports; the loss is an error
    with its size."""
    place.saw(*some(5))
    drain(place.spool, place.store)
    place.save()
    place.saw(*some(7))
    drain(place.spool, place.store)
    place.restore()
    assert place.total() == 5
    place.saw(*some(1))
    assert drain(place.spool, place.store, batch=3) == (8, "")
    assert (place.total(), place.store.decisions.count(), place.reported()) == (13, 13, 13)
    [event] = [each for each in caplog.records if "has lost" in each.getMessage()]
    assert event.levelname == "ERROR"
    assert "has lost 7 messages of this host (sequence 6 to 12): 7 are still kept" in event.message
    assert drain(place.spool, place.store) == (0, "")
    assert place.total() == 13


def test_it_is_found_before_the_next_message_comes(place: Place) -> None:
    """A quiet host must not wait for mail to mend the store."""
    place.saw(*some(2))
    place.save()
    drain(place.spool, place.store)
    place.restore()
    assert drain(place.spool, place.store) == (2, "")
    assert place.total() == 2


def test_what_is_not_kept_any_more_is_counted_as_lost(
    tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, and mail goes on to be counted."""
    with closing(Place(tmp_path, store_url)) as place:
        place.spool.close()
        place.spool = SpoolFile(tmp_path / "spool.db", SpoolOptions(keep_seconds=0))
        place.save()
        place.saw(*some(4))
        drain(place.spool, place.store)
        place.restore()
        for _ in range(3):
            place.saw(*some(1))
            assert drain(place.spool, place.store) == (1, "")
        assert place.total() == 3
        [event] = [each for each in caplog.records if "has lost" in each.getMessage()]
        assert "has lost 4 messages" in event.message
        assert "4 are lost" in event.message


def test_a_drain_that_dies_while_it_mends_counts_the_loss_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between two batches: the next one goes on."""
    place.save()
    place.saw(*some(6))
    drain(place.spool, place.store)
    place.restore()
    applied, real = 0, Store.apply

    def dying(self: Store, batch: object) -> int:
        nonlocal applied
        applied += 1
        if applied == 2:
            raise KeyboardInterrupt
        return real(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "apply", dying)
    with pytest.raises(KeyboardInterrupt):
        drain(place.spool, place.store, batch=2)
    monkeypatch.undo()
    assert drain(place.spool, place.store, batch=2) == (4, "")
    assert place.total() == 6
    rows = _losses(place.store)
    assert rows == [(0, 6)]


def _losses(store: Store) -> list[tuple[int, int]]:
    with store.database.transaction(write=False) as transaction:
        rows = transaction.all("SELECT lost, again FROM origin WHERE gap_at > 0")
    return [(int(lost), int(again)) for lost, again in rows]


def test_two_restores_are_two_losses(place: Place) -> None:
    place.saw(*some(1))
    drain(place.spool, place.store)
    place.save()
    for _ in range(2):
        place.saw(*some(3))
        drain(place.spool, place.store)
        place.restore()
        drain(place.spool, place.store)
    assert place.total() == 7


def test_a_store_that_was_lost_as_a_whole_gets_the_last_day(place: Place, tmp_path: Path) -> None:
    """Moved aside as damaged, or another one: the rows of the grace period are there at once."""
    if not place.url.startswith("sqlite"):
        pytest.skip("a file")
    place.saw(*some(9))
    drain(place.spool, place.store)
    place.store.close()
    for each in tmp_path.glob("reports.db*"):
        each.unlink()
    place.store = Store.open(place.url)
    assert drain(place.spool, place.store) == (9, "")
    assert place.total() == 9


def test_status_tells_of_the_loss(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With numbers, in words and as JSON."""
    config = tmp_path / "c.toml"
    config.write_text(f'[store]\nurl = "{place.url}"\nspool = "{tmp_path}/spool.db"\n')
    place.save()
    place.saw(*some(3))
    drain(place.spool, place.store)
    place.restore()
    drain(place.spool, place.store)
    main(["store", "status", "--config", str(config)])
    assert "0 messages of " in (out := capsys.readouterr().out)
    assert "3 more were applied again from its spool" in out
    main(["store", "status", "--json", "--config", str(config)])
    [loss] = json.loads(capsys.readouterr().out)["store"]["lost"]
    assert (loss["lost"], loss["again"]) == (0, 3)


# --- what is kept, and for how long ---------------------------------------------------------------


def file_of(path: Path, **options: float) -> SpoolFile:
    return SpoolFile(path, SpoolOptions(**options))  # type: ignore[arg-type]


def test_rows_are_kept_for_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[store] keep_drained_hours."""
    now = time.time()
    monkeypatch.setattr("dmarc_milter.ledger.spool.file.time.time", lambda: now)
    with closing(file_of(tmp_path / "spool.db", keep_seconds=HOUR)) as spool:
        spool.write([spool_row(each) for each in some(3)])
        spool.delete(2)
        assert (spool.waiting(), spool.kept(0), spool.drained()) == (1, 2, 2)
        now += HOUR - 60
        spool.delete(3)
        assert spool.kept(0) == 3
        now += HOUR - 120
        spool.delete(3)
        assert spool.kept(0) == 1, "what was drained later stays"
        now += 2 * HOUR
        spool.delete(3)
        assert (spool.kept(0), spool.drained()) == (0, 3)


def test_rows_that_were_drained_by_a_clock_that_was_ahead_are_kept_for_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not until that date, and what was drained after them no longer either."""
    begin = now = time.time()
    monkeypatch.setattr("dmarc_milter.ledger.spool.file.time.time", lambda: now)
    with closing(file_of(tmp_path / "spool.db", keep_seconds=HOUR)) as spool:
        for number, (ahead, kept) in enumerate(((365 * 24 * HOUR, 1), (0, 2), (60, 3)), 1):
            now = begin + ahead
            spool.write([spool_row(evaluation())])
            spool.delete(number)
            assert spool.kept(0) == kept
        now = begin + 2 * HOUR
        spool.delete(3)
        assert spool.kept(0) == 0


def test_a_boot_in_1970_throws_no_kept_row_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a clock of its own: what it keeps, and what it drains then, stays for its
    time once it has asked for the time."""
    begin = now = time.time()
    monkeypatch.setattr("dmarc_milter.ledger.spool.file.time.time", lambda: now)
    with closing(file_of(tmp_path / "spool.db", keep_seconds=HOUR)) as spool:
        for number, at in enumerate((begin, 60.0, 120.0, begin + 60), 1):
            now = at
            spool.write([spool_row(evaluation())])
            spool.delete(number)
            assert spool.kept(0) == number
        for later, kept in ((HOUR - 60, 4), (HOUR + 30, 3), (2 * HOUR, 3), (3 * HOUR, 0)):
            now = begin + later
            spool.delete(4)
            assert spool.kept(0) == kept


def test_kept_rows_give_way_to_those_that_wait(tmp_path: Path) -> None:
    """The bound holds as many waiting rows as it did without any that are kept."""

    def held(path: Path, kept: int) -> int:
        row, number = spool_row(evaluation()), 0
        with closing(file_of(path, max_bytes=1_000_000)) as spool:
            while number < kept:
                spool.write([row._replace(id=f"{number + n:032x}") for n in range(10)])
                number += 10
                spool.delete(spool.last())
            waiting = 0
            while True:
                try:
                    spool.write([row._replace(id=f"{number + n:032x}") for n in range(10)])
                except SpoolError:
                    return waiting
                number, waiting = number + 10, waiting + 10

    without = held(tmp_path / "without.db", 0)
    assert held(tmp_path / "with.db", CHUNK) >= without * 0.95


def test_a_spool_of_the_version_before_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    """What was drained from it before is no gap."""
    path = tmp_path / "spool.db"
    with closing(file_of(path)) as spool:
        spool.write([spool_row(each) for each in some(5)])
        spool.delete(3)
        identity = spool.identity()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE kept")
        connection.execute("ALTER TABLE origin DROP COLUMN drained")
        connection.execute("PRAGMA user_version=1")
    with closing(file_of(path)) as spool:
        assert (spool.waiting(), spool.drained(), spool.identity()) == (2, 3, identity)
    with closing(file_of(path)) as spool:
        spool.delete(5)
        assert spool.drained() == 5


def test_a_restored_copy_of_the_spool_hands_nothing_over_twice(place: Place) -> None:
    """It gets a new identity, and what it kept was drained under the old one."""
    place.saw(*some(4))
    drain(place.spool, place.store)
    place.saw(*some(1))
    place.spool.close()
    for tail in ("", "-wal", "-shm"):
        source = place.folder / f"spool.db{tail}"
        if source.exists():
            shutil.copy(source, place.folder / f"copy.db{tail}")
    place.saw(*some(2))
    drain(place.spool, place.store)
    place.spool.close()
    place.spool = SpoolFile(place.folder / "copy.db")
    drain(place.spool, place.store)
    assert place.total() == 7


@pytest.mark.parametrize("before_the_others", [0, 1, 2, 9])
def test_a_host_that_was_copied_while_mail_waited_loses_nothing(
    place: Place, before_the_others: int
) -> None:
    """Both go on under one name, with other messages under the same numbers; those that waited
    when it was copied are counted once."""
    place.saw(*some(4))
    drain(place.spool, place.store)
    place.saw(*some(2))
    place.spool.close()
    for tail in ("", "-wal", "-shm"):
        source = place.folder / f"spool.db{tail}"
        if source.exists():
            shutil.copy(source, place.folder / f"copy.db{tail}")
    with closing(SpoolFile(place.folder / "copy.db")) as copied:
        place.saw(*some(3))
        drain(place.spool, place.store)
        copied.write([spool_row(each) for each in some(before_the_others)])
        drain(copied, place.store)
        assert place.total() == 9 + before_the_others
        for number in range(3):
            place.saw(*some(number + 1))
            copied.write([spool_row(each) for each in some(5 - number)])
            drain(place.spool, place.store)
            drain(copied, place.store)
        assert place.total() == 9 + before_the_others + 6 + 12
        assert not copied.waiting()
        assert not place.spool.waiting()


def test_a_drain_that_died_before_the_spool_heard_of_it_keeps_its_name(place: Place) -> None:
    """The store has the message that still waits under the last number."""
    place.saw(*some(3))
    identity = place.spool.identity()
    place.store.apply(Batch(identity, "mx1", place.spool.batch(2)))
    drain(place.spool, place.store)
    assert place.total() == 3
    assert place.spool.identity() == identity


@pytest.mark.parametrize("behind", [1, 2])
def test_copies_of_a_host_that_drain_at_the_same_time_lose_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    """The other one's batch is counted after this one has looked, or after its first batch."""
    place.saw(*some(3))
    drain(place.spool, place.store)
    place.spool.close()
    shutil.copy(place.folder / "spool.db", place.folder / "copy.db")
    with (
        closing(SpoolFile(place.folder / "copy.db")) as copied,
        closing(Store.open(place.url)) as other,
    ):
        place.saw(*some(6))
        copied.write([spool_row(each) for each in some(6)])
        calls, apply = [0], place.store.apply

        def late(batch: Batch) -> int:
            calls[0] += 1
            if calls[0] == behind:
                drain(copied, other)
            return apply(batch)

        monkeypatch.setattr(place.store, "apply", late)
        assert drain(place.spool, place.store, batch=2).problem == ""
        monkeypatch.undo()
        for _ in range(2):
            place.saw(*some(1))
            copied.write([spool_row(each) for each in some(1)])
            drain(place.spool, place.store)
            drain(copied, other)
        assert (place.total(), place.reported()) == (19, 19)
        assert not copied.waiting()
        assert not place.spool.waiting()


@pytest.mark.parametrize("decision_days", [0, 14])
def test_messages_that_are_not_logged_are_counted_once_where_a_drain_died(
    tmp_path: Path, store_url: str, decision_days: int
) -> None:
    """The decision log cannot tell whose the last number is: they were older than its days."""
    upgraded(store_url)
    first = evaluation()
    options = StoreOptions(decision_days=decision_days)
    with (
        closing(Store.open(store_url, options, clock=first.at.timestamp)) as store,
        closing(SpoolFile(tmp_path / "spool.db")) as spool,
    ):
        spool.write([spool_row(first)])
        drain(spool, store)
        identity = spool.identity()
        spool.write([spool_row(replace(e, at=e.at - timedelta(days=20))) for e in some(5)])
        store.apply(Batch(identity, "mx1", spool.batch(9)))
        drain(spool, store)
        assert sum(each.messages for each in store.decisions.totals()) == 6
        assert sum(each.messages for each in store.reports.find()) == 6
        assert spool.identity() == identity


def test_two_drains_of_one_spool_count_once_and_keep_its_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's batch is this spool's own."""
    place.saw(*some(6))
    identity, apply = place.spool.identity(), place.store.apply
    with (
        closing(SpoolFile(place.folder / "spool.db")) as same,
        closing(Store.open(place.url)) as other,
    ):

        def late(batch: Batch) -> int:
            drain(same, other)
            return apply(batch)

        monkeypatch.setattr(place.store, "apply", late)
        assert drain(place.spool, place.store, batch=2).problem == ""
    assert (place.total(), place.spool.waiting()) == (6, 0)
    assert place.spool.identity() == identity


def test_a_postgresql_that_is_put_back_to_a_copy_of_its_files(tmp_path: Path) -> None:
    """Live: the cluster's files of a while ago, as after a failover to a standby that was late."""
    with (
        private_postgres() as server,
        closing(Place(tmp_path, fresh_schema(server))) as place,
    ):
        data, copy = server.folder / "data", server.folder / "copy"
        place.saw(*some(3))
        drain(place.spool, place.store)
        server.stop()
        subprocess.run(["cp", "-a", data, copy], check=True)
        server.start()
        place.saw(*some(4))
        drain(place.spool, place.store)
        assert place.total() == 7
        server.stop("immediate")
        shutil.rmtree(data)
        copy.rename(data)
        server.start()
        place.saw(*some(1))
        while drain(place.spool, place.store).problem:
            time.sleep(0.2)
        assert place.total() == 8
        assert _losses(place.store) == [(0, 4)]
