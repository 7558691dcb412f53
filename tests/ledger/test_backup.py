"""A store that is put back to a backup: whole, while the daemon runs, and without a report leaving
twice."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.sent_log import HandedOver, SentLog, beside, read
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.reports import Document, NewDelivery
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.evaluations import evaluation
from fakes.smtp_sink import Sink, smtp_sink, usual
from fakes.stores import fresh_schema, spool_row, upgraded
from live.postgres import Postgres

NOW = datetime.now(UTC)
ZONE: dict[str, dict[str, Any]] = {
    f"d{number}.example._report._dmarc.legit.example": {"TXT": ["v=DMARC1"]} for number in range(5)
} | {"legit.example": {"MX": [(10, "mx.legit.example")]}}


class Host:
    """A host with its spool, beside others on the same store perhaps."""

    def __init__(self, folder: Path, dns: DnsServer, sink: Sink, url: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.sink = folder, sink
        self.url = url or f"sqlite:///{folder}/reports.db"
        self.spool = folder / "spool.db"
        self.config = folder / "c.toml"
        self.config.write_text(
            toml(
                {
                    "store": {"url": self.url, "spool": str(self.spool)},
                    "dns": {"nameservers": [dns.nameserver]},
                    "reporting": {
                        "org_name": "Receiver",
                        "email": "dmarc@mx.example",
                        "smtp": f"127.0.0.1:{sink.port}",
                    },
                }
            )
        )

    def ask(self, *words: str) -> int:
        return main([*words, "--config", str(self.config)])

    def saw(self, *evaluations: Evaluation) -> None:
        with closing(SpoolFile(self.spool)) as spool:
            spool.write([spool_row(replace(each, at=NOW)) for each in evaluations])

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with closing(Store.open(self.url)) as store:
            yield store

    def messages(self) -> int:
        with self.store() as store:
            return sum(each.messages for each in store.decisions.totals())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with DnsServer(ZONE) as dns, smtp_sink() as sink:
        yield Host(tmp_path / "mx1", dns, sink)


def test_a_report_that_was_sent_after_the_backup_is_sent_0_times_again(host: Host) -> None:
    """The rebuilt report has the same id, and the sent log knows it."""
    host.saw(evaluation(), evaluation())
    host.ask("store", "drain")
    assert host.ask("store", "backup", str(host.folder / "copy.db")) == 0
    host.saw(evaluation())
    assert host.ask("report", "send", "--now") == 0
    assert len(host.sink.mails) == 1
    with host.store() as store:
        [before] = store.reports.find()
    assert host.ask("store", "restore", str(host.folder / "copy.db")) == 0
    for _ in range(3):
        assert host.ask("store", "drain") == 0
        assert host.ask("report", "send", "--now") == 0
    assert len(host.sink.mails) == 1
    assert host.messages() == 3
    with host.store() as store:
        [after] = store.reports.find()
        [delivery] = store.deliveries.of(after.id)
    assert (after.id, after.state) == (before.id, "sent")
    assert "before the store was put back" in delivery.last_reply


def test_it_is_so_without_the_restore_command_too(host: Host) -> None:
    """Somebody copies the file himself, or a PostgreSQL was put back: the next run reads its own
    host's log."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    host.ask("report", "send", "--now")
    for each in host.folder.glob("reports.db*"):
        each.unlink()
    (host.folder / "copy.db").rename(host.folder / "reports.db")
    host.ask("report", "send", "--now")
    assert len(host.sink.mails) == 1


def test_a_store_that_is_lost_as_a_whole_sends_nothing_twice_either(host: Host) -> None:
    """Made anew from what the spool keeps, its reports have the same ids."""
    host.saw(evaluation())
    host.ask("report", "send", "--now")
    for each in host.folder.glob("reports.db*"):
        each.unlink()
    host.ask("store", "drain")
    with host.store() as store:
        assert [each.messages for each in store.reports.find()] == [1]
    host.ask("report", "send", "--now")
    assert len(host.sink.mails) == 1


def test_what_came_after_the_backup_still_leaves(host: Host) -> None:
    """Only what has left is held back."""
    host.saw(evaluation("d1.example"))
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    host.ask("report", "send", "--now")
    host.ask("store", "restore", str(host.folder / "copy.db"))
    host.saw(evaluation("d2.example"))
    host.ask("report", "send", "--now")
    subjects = [each.message.partition(b"Subject:")[2] for each in host.sink.mails]
    assert [b"d1.example" in subject[:200] for subject in subjects] == [True, False]


def test_an_administrator_may_send_it_again(host: Host) -> None:
    """`report resend` is an order."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    host.ask("report", "send", "--now")
    host.ask("store", "restore", str(host.folder / "copy.db"))
    host.ask("report", "send", "--now")
    with host.store() as store:
        [report] = store.reports.find()
    host.ask("report", "resend", report.id)
    host.ask("report", "send", "--now")
    assert len(host.sink.mails) == 2


def test_mail_that_was_not_taken_is_not_in_the_log(host: Host) -> None:
    """451 before the restore, sent after it."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    host.sink.answer = lambda stage, _: "451 4.3.0 later" if stage == "end" else ""
    host.ask("report", "send", "--now")
    assert read(beside(host.spool)) == []
    host.sink.answer = usual
    host.ask("store", "restore", str(host.folder / "copy.db"))
    host.ask("report", "send", "--now")
    assert len(host.sink.mails) == 1


def test_three_hosts_send_nothing_twice_after_a_restore(
    tmp_path: Path, postgres_server: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each host's log is its own: after a loss reports wait until every host has told."""
    url = upgraded(fresh_schema(postgres_server))
    with DnsServer(ZONE) as dns, smtp_sink() as sink:
        hosts = [Host(tmp_path / f"mx{n}", dns, sink, url) for n in range(3)]
        for number, one in enumerate(hosts):
            with closing(SpoolFile(one.spool)) as spool, closing(Store(connect(url))) as store:
                row = spool_row(
                    replace(evaluation(f"d{number}.example"), at=NOW - timedelta(days=1))
                )
                spool.write([row])
                store.apply(Batch(spool.identity(), f"mx{number}", spool.batch(10)))
                spool.delete(1)
        for one in hosts:
            one.ask("report", "send", "--now")
        assert len(sink.mails) == 3
        _forget(url)
        for one in hosts:
            assert one.ask("store", "restore") == 0
        for one in hosts:
            one.ask("store", "drain")
            one.ask("report", "send", "--now")
        assert len(sink.mails) == 3
        _forget(url)
        capfd.readouterr()
        hosts[0].ask("store", "drain")
        with closing(Store(connect(url))) as store, store.database.transaction() as transaction:
            transaction.run(
                "INSERT INTO origin (identity, host, last_seq, drained_at)"
                " VALUES ('other', 'mx9', 0, 0)"
            )
        assert hosts[0].ask("report", "send") == 75
        assert "every host tells what it has sent" in capfd.readouterr().err


def _forget(url: str) -> None:
    """The store as it was before anything was handed over, but for its secret."""
    with closing(Store(connect(url))) as store, store.database.transaction() as transaction:
        for table in (
            "decision", "daily", "quota", "origin", "report", "report_row", "report_document",
            "delivery", "handed_over",
        ):  # fmt: skip
            transaction.run(f"DELETE FROM {table}")


# --- the copy -------------------------------------------------------------------------------------


def test_a_backup_is_consistent_while_messages_are_counted(host: Host) -> None:
    """Totals, log and reports agree in every copy, and nobody waits for it long."""
    stop = threading.Event()

    def keep_counting() -> None:
        with closing(SpoolFile(host.spool)) as spool, host.store() as store:
            while not stop.is_set():
                spool.write(
                    [
                        spool_row(replace(evaluation(f"d{n % 50}.example"), at=NOW))
                        for n in range(200)
                    ]
                )
                drain(spool, store)

    host.saw(evaluation())
    host.ask("store", "drain")
    thread = threading.Thread(target=keep_counting)
    thread.start()
    try:
        for number in range(5):
            time.sleep(0.2)
            assert host.ask("store", "backup", str(host.folder / f"{number}.db")) == 0
    finally:
        stop.set()
        thread.join()
    for number in range(5):
        with closing(Store.open(f"sqlite:///{host.folder}/{number}.db")) as copy:
            counted = sum(each.messages for each in copy.decisions.totals())
            assert counted == copy.decisions.count() > 0
            assert counted == sum(each.messages for each in copy.reports.find())


def test_a_backup_is_one_file_for_the_group_and_never_over_another(host: Host) -> None:
    host.saw(evaluation())
    host.ask("store", "drain")
    copy = host.folder / "copy.db"
    assert host.ask("store", "backup", str(copy)) == 0
    assert (copy.stat().st_mode & 0o777) & ~0o640 == 0
    assert sorted(each.name for each in host.folder.glob("copy.db*")) == ["copy.db"]
    content = copy.read_bytes()
    assert host.ask("store", "backup", str(copy)) == 1
    assert copy.read_bytes() == content
    assert host.ask("store", "backup", str(host.folder / "absent/copy.db")) == 1


@pytest.mark.parametrize("name", ["", "-", ".", "/", "..", "/dev/stdout", "link", "folder"])
def test_a_backup_goes_into_a_new_file_or_nowhere(
    host: Host, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing is made."""
    host.saw(evaluation())
    host.ask("store", "drain")
    monkeypatch.chdir(host.folder)
    Path("link").symlink_to("absent")
    Path("folder").mkdir()
    before = sorted(host.folder.rglob("*"))
    capfd.readouterr()
    assert host.ask("store", "backup", name) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert sorted(host.folder.rglob("*")) == before


def test_a_backup_on_a_file_system_without_hard_links(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a memory stick; never over another file there either."""

    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    host.saw(evaluation())
    host.ask("store", "drain")
    monkeypatch.setattr("os.link", no_link)
    copy = host.folder / "copy.db"
    assert host.ask("store", "backup", str(copy)) == 0
    assert host.ask("store", "backup", str(copy)) == 1
    assert [each.name for each in host.folder.glob("copy.db*")] == ["copy.db"]
    assert host.ask("store", "restore", str(copy)) == 0
    assert host.messages() == 1

    def no_rename(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", no_rename)
        assert host.ask("store", "backup", str(host.folder / "second.db")) == 1
    assert not list(host.folder.glob("second.db*")), "the name is free for the next"


def test_a_store_in_use_is_restored_and_the_old_one_kept(host: Host) -> None:
    """A process that has the store open goes on with the restored one."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    with host.store() as daemon:
        daemon.apply(Batch("another", "mx2", [(1, spool_row(evaluation()))]))
        assert daemon.decisions.count() == 2
        assert host.ask("store", "restore", str(host.folder / "copy.db")) == 0
        assert daemon.decisions.count() == 1
        daemon.apply(Batch("another", "mx2", [(1, spool_row(evaluation()))]))
        assert daemon.decisions.count() == 2
    [kept] = host.folder.glob("reports.db.before-restore-*")
    with closing(Store.open(f"sqlite:///{kept}")) as before:
        assert before.decisions.count() == 2


@pytest.mark.parametrize("damage", ["damaged", "missing", "empty"])
def test_a_store_that_is_no_store_any_more_is_restored(host: Host, damage: str) -> None:
    """Which is what a backup is for."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    path = host.folder / "reports.db"
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
    assert host.ask("store", "restore", str(host.folder / "copy.db")) == 0
    assert host.messages() == 1
    assert bool(list(host.folder.glob("reports.db.corrupt-*"))) == (damage == "damaged")


NEWER = """UPDATE schema_step SET number = number + 1
WHERE number = (SELECT max(number) FROM schema_step)"""


def test_the_old_program_puts_its_backup_over_the_store_of_a_newer_one(host: Host) -> None:
    """docs/how-to/upgrade.md, "Back to the old release": what the newer one left is kept."""
    host.saw(evaluation())
    host.ask("store", "drain")
    host.ask("store", "backup", str(host.folder / "copy.db"))
    with closing(sqlite3.connect(host.folder / "reports.db")) as connection, connection:
        connection.execute(NEWER)
    assert host.ask("store", "drain") != 0
    assert host.ask("store", "restore", str(host.folder / "copy.db")) == 0
    assert host.messages() == 1
    assert list(host.folder.glob("reports.db.before-restore-*"))


@pytest.mark.parametrize("kind", ["text", "spool", "cut off", "a byte less", "other", "missing"])
def test_what_is_no_whole_backup_is_not_restored(
    host: Host, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The store stays as it is."""
    host.saw(evaluation())
    host.ask("store", "drain")
    copy = host.folder / "copy.db"
    host.ask("store", "backup", str(copy))
    if kind == "text":
        copy.write_text("hello")
    elif kind == "cut off":
        os.truncate(copy, copy.stat().st_size // 2)
    elif kind == "a byte less":
        os.truncate(copy, copy.stat().st_size - 1)
    elif kind == "missing":
        copy.unlink()
    elif kind == "spool":
        copy.unlink()
        SpoolFile(copy).write([spool_row(evaluation())])
    else:
        copy.unlink()
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE mail (id)")
    capfd.readouterr()
    assert host.ask("store", "restore", str(copy)) == 1
    assert str(copy) in capfd.readouterr().err
    assert host.messages() == 1
    assert not list(host.folder.glob("reports.db.*"))


def test_postgresql_says_how(
    tmp_path: Path, store_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server has its own tools; and no password is shown."""
    if store_url.startswith("sqlite"):
        pytest.skip("a server")
    url = upgraded(store_url).replace("t@", "t:geheim@")
    (tmp_path / "c.toml").write_text(
        toml({"store": {"url": url, "spool": str(tmp_path / "spool.db")}})
    )
    (tmp_path / "c.toml").chmod(0o600)
    for words, said in (
        (("store", "backup", "a.dump"), "pg_dump --format=custom --file=a.dump 'postgresql://"),
        (("store", "restore", "a.dump"), "pg_restore"),
    ):
        assert main([*words, "--config", str(tmp_path / "c.toml")]) == 1
        out = capfd.readouterr().out
        assert said in out
        assert "geheim" not in out


# --- ids and the sent log -------------------------------------------------------------------------


def test_ids_are_the_same_again_and_differ_between_installations(tmp_path: Path) -> None:
    """An HMAC of what makes the report, under the installation's secret."""

    def ids(name: str, identity: str) -> list[str]:
        with closing(Store.open(f"sqlite:///{tmp_path}/{name}.db")) as store:
            rows = [
                (n + 1, spool_row(replace(evaluation(f"d{n}.example"), at=NOW))) for n in range(4)
            ]
            store.apply(Batch(identity, "mx", rows))
            return [each.id for each in store.reports.find()]

    first, again, other = ids("a", "spool-a"), ids("b", "spool-a"), ids("c", "spool-c")
    assert first == again
    assert len({*first, *other}) == 8
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in first)


def test_the_line_is_on_the_disk_before_the_mail_is_handed_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash at any moment: what may have left is in the log."""
    synced: list[int] = []
    real = os.fsync

    def noted(number: int) -> None:
        synced.append(number)
        real(number)

    monkeypatch.setattr("dmarc_milter.ledger.sent_log.os.fsync", noted)
    seen: list[tuple[int, int]] = []

    def look(stage: str, _argument: str) -> str:
        if stage == "mail":
            seen.append((len(synced), len(read(beside(host.spool)))))
        return ""

    host.sink.answer = look
    host.saw(evaluation())
    host.ask("report", "send", "--now")
    assert seen
    assert seen[0][0] >= 1
    assert seen[0][1] == 1
    [line] = read(beside(host.spool))
    assert line.address == "agg@legit.example"
    assert line.end - line.begin == 86400
    assert beside(host.spool).stat().st_mode & 0o777 & ~0o640 == 0


def test_a_log_that_cannot_be_written_keeps_the_report(host: Host) -> None:
    """It stays queued: nothing leaves that nobody will remember."""
    beside(host.spool).mkdir(parents=True)
    host.saw(evaluation())
    assert host.ask("report", "send", "--now") in (1, 75)
    assert host.sink.mails == []
    beside(host.spool).rmdir()
    assert host.ask("report", "send", "--now") == 0
    assert len(host.sink.mails) == 1


def test_hostile_and_torn_lines_are_left_out(tmp_path: Path) -> None:
    """An address is a stranger's text; a crash leaves half a line."""
    log = SentLog(tmp_path / "sent.log")
    hostile = "a\t+\t1\n+\t2\tid\t0\t0\tme\tx@y"
    log.before(HandedOver(5, "one", 1, 2, "me", hostile))
    log.before(HandedOver(6, "two", 1, 2, "me", "b@x.example"))
    log.before(HandedOver(7, "three", 1, 2, "me", "c@x.example"))
    log.not_taken(HandedOver(7, "three", 1, 2, "me", "c@x.example"))
    with log.path.open("ab") as file:
        file.write(b"\xff\xfe\n+\t1\n+\tx\ty\t1\t2\tme\ta\n+\t8\tfour\t1\t2\tme\td@x.example")
    assert [line.report_id for line in read(log.path)] == ["one", "two"]
    log.before(HandedOver(9, "five", 1, 2, "me", "e@x.example"))
    assert [line.report_id for line in read(log.path)] == ["one", "two", "four", "five"]


def test_old_lines_are_forgotten(tmp_path: Path) -> None:
    """And the others stay."""
    log, now = SentLog(tmp_path / "sent.log"), int(time.time())
    for at in (now - 200 * 86400, now - 50 * 86400, now - 10 * 86400, now):
        log.before(HandedOver(at, f"{at}", 1, 2, "me", "b@x.example"))
    log.shorten(now)
    assert [line.at for line in read(log.path)] == [now - 10 * 86400, now]
    assert [each.name for each in tmp_path.iterdir()] == ["sent.log"]


def test_a_run_that_died_while_it_sent_is_no_restored_store(host: Host) -> None:
    """Its lease stands in the store: the report is tried again, as it always was."""
    host.saw(evaluation())
    host.ask("store", "drain")
    with host.store() as store:
        [report] = store.reports.claim("dead", ended_before=2**60, at_once=True)
        store.reports.queue(
            report.id,
            "dead",
            [Document("rfc9990", "x", b"x")],
            [NewDelivery("agg@legit.example", "rfc9990", 0)],
        )
        assert store.deliveries.claim("dead")
        SentLog(beside(host.spool)).before(
            HandedOver(int(time.time()), report.id, 1, 2, "dead", "agg@legit.example")
        )
        assert store.handed_over.tell(read(beside(host.spool))) == 0


def test_json(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """docs/reference/json.md."""
    host.saw(evaluation())
    host.ask("store", "drain")
    capfd.readouterr()
    host.ask("store", "backup", str(host.folder / "copy.db"), "--json")
    assert json.loads(capfd.readouterr().out)["octets"] > 0
    host.ask("store", "restore", str(host.folder / "copy.db"), "--json")
    assert set(json.loads(capfd.readouterr().out)) == {"kept", "sent_meanwhile", "erased"}
