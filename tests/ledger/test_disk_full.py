"""No room left: under the spool, under the store. Mail flows, it is said once and counted, `store
status` explains, and nothing is lost.

On a file system of a few megabytes where mounts are allowed; where they are refused the same
happens within SQLite's own bound.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import ROOT, Daemon, free_port, wait_for
from fakes.dns_server import DnsServer
from fakes.evaluations import evaluation
from fakes.milter_client import MilterClient
from fakes.stores import spool_row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEGABYTES = 4


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    names = {
        "d.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
        "_dmarc.d.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@d.example"]},
    }
    with DnsServer(names, record=False) as server:
        yield server


class SmallDisk:
    """A file system of its own; `fill` leaves not one octet, `free` gives them back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while file.write(b"x" * size):
                        pass
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (self.folder / "more").write_bytes(b"x" * 4096)

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """None where this machine refuses mounts."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        print(
            f"mounts are refused here ({mounted.stderr.decode().strip()}): SQLite's own bound"
            " stands for the disk"
        )
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class Mail:
    """One MTA, and how many of its messages were answered."""

    def __init__(self, daemon: Daemon) -> None:
        self.answered = 0
        self._mta: MilterClient = daemon.client()
        self._mta.connect("mx.d.example", "192.0.2.1")
        self._mta.helo("mx.d.example")

    def send(self, count: int) -> None:
        """Every one is accepted, whatever the disk does."""
        for _ in range(count):
            self.answered += 1
            number = f"{self.answered}"
            headers = [("From", "<a@d.example>"), ("Message-ID", f"<{number}@d.example>")]
            answer = self._mta.message(headers, mail_from="<a@d.example>", queue_id=f"Q{number}")
            assert (answer.code, "dmarc=pass" in answer.values("Authentication-Results")[0]) == (
                250,
                True,
            ), answer


def command(daemon: Daemon, *words: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "milter")}
    arguments = [
        sys.executable,
        "-m",
        "dmarc_milter",
        "store",
        *words,
        "--config",
        str(daemon.config),
    ]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def metric(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        found = re.search(
            rf"^dmarc_milter_{name} ([0-9.e+]+)$", reply.read().decode(), re.MULTILINE
        )
    assert found is not None, name
    return int(float(found[1]))


def counted(daemon: Daemon) -> tuple[int, int, int]:
    """What the store holds, three ways."""
    store = Store.open(f"sqlite:///{stored_in(daemon)}")
    try:
        reports = sum(each.messages + each.folded for each in store.reports.find())
        return (
            store.decisions.count(),
            reports,
            sum(each.messages for each in store.decisions.totals()),
        )
    finally:
        store.close()


def stored_in(daemon: Daemon) -> str:
    found = re.search(r'^url = "sqlite:///(.*)"$', daemon.config.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_sto_02_a_full_disk_under_the_spool_stops_no_mail_and_loses_none(
    tmp_path: Path, dns: DnsServer
) -> None:
    """STO-02 and FLT-14 through the daemon. What could not be written at once is written when there
    is room."""
    with small_disk(tmp_path / "disk") as disk:
        port = free_port()
        daemon = Daemon(
            tmp_path,
            {
                "milter": {"workers": 1},
                "dns": {"nameservers": [dns.nameserver]},
                "store": {
                    "spool": f"{tmp_path}/disk/spool.db",
                    "spool_max_bytes": 1_000_000 if disk is None else 1_000_000_000,
                },
                "metrics": {"listen": f"127.0.0.1:{port}"},
            },
        )
        daemon.spool = tmp_path / "disk/spool.db"
        with daemon:
            mail = Mail(daemon)
            mail.send(20)
            assert daemon.spool_rows() == 20
            fill(disk, mail, lambda: "counted as unrecorded" in daemon.text())
            mail.send(50)
            assert wait_for(lambda: "database or disk is full; mail goes on" in daemon.text()), (
                daemon.text()
            )
            assert daemon.text().count("counted as unrecorded") == 1, "once, not for every message"
            assert wait_for(lambda: metric(port, "unrecorded_messages_total") > 0)
            code, said = command(daemon, "status")
            assert code == 1
            assert re.search(r"^spool .*: the (disk|spool) .*is full", said, re.MULTILINE), said
            assert "make room on the disk" in said
            if disk is not None:
                disk.free()
            else:
                assert command(daemon, "drain")[0] == 0
            assert wait_for(lambda: "spool works again" in daemon.text()), daemon.text()
            mail.send(10)
            assert wait_for(lambda: daemon.spool_rows() + counted(daemon)[0] == mail.answered), (
                "what was late is there too"
            )
            assert metric(port, "lost_records_total") == 0
            code, said = command(daemon, "drain")
            assert code == 0, said
            assert counted(daemon) == (mail.answered,) * 3
            assert command(daemon, "status")[0] == 0


def fill(disk: SmallDisk | None, mail: Mail, full: Callable[[], bool]) -> None:
    """With ballast, or where the bound is the spool's own with mail."""
    if disk is not None:
        disk.fill()
        return
    while not full():
        mail.send(20)


def test_sto_02_a_full_disk_under_the_store_leaves_everything_in_the_spool(
    tmp_path: Path, dns: DnsServer
) -> None:
    """STO-02 through the daemon's own drain. The store has its room taken between two drains."""
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            within_its_bound(tmp_path)
            return
        store = {"url": f"sqlite:///{tmp_path}/disk/reports.db", "spool": f"{tmp_path}/spool.db"}
        tables = {
            "milter": {"workers": 1},
            "dns": {"nameservers": [dns.nameserver]},
            "store": store,
        }
        daemon = Daemon(tmp_path, tables, command=("-m", "dmarc_milter", "serve", "--config"))
        with daemon:
            mail = Mail(daemon)
            mail.send(20)
            assert wait_for(lambda: daemon.spool_rows() == 0, 30), daemon.text()
            disk.fill()
            mail.send(200)
            assert wait_for(lambda: "messages wait in the spool" in daemon.text(), 30), (
                daemon.text()
            )
            mail.send(200)
            kept = daemon.spool_rows()
            assert 0 < kept <= 400
            assert daemon.text().count("messages wait in the spool") == 1
            code, said = command(daemon, "status", "--json")
            assert code == 1
            found = json.loads(said)
            assert "is full" in found["store"]["problem"]
            assert "make room on the disk" in found["store"]["remedy"]
            assert found["spool"]["waiting"] > 0
            disk.free()
            assert wait_for(lambda: daemon.spool_rows() == 0, 60), daemon.text()
            assert wait_for(lambda: "drain: works again" in daemon.text())
        assert counted(daemon) == (mail.answered,) * 3
        assert not list((tmp_path / "disk").glob("*.corrupt-*"))


def within_its_bound(folder: Path) -> None:
    """The same without mounts: a store that may not grow, then may."""
    spool, store = SpoolFile(folder / "spool.db"), Store.open(f"sqlite:///{folder}/reports.db")
    with store.database.transaction() as transaction:
        [(pages,)] = transaction.all("PRAGMA page_count")
        transaction.run(f"PRAGMA max_page_count={pages + 2}")
    spool.write([spool_row(evaluation(source_ip=f"192.0.2.{number}")) for number in range(200)])
    drained = drain(spool, store)
    assert "database or disk is full" in drained.problem
    assert (spool.waiting(), store.decisions.count()) == (200, 0)
    with store.database.transaction() as transaction:
        transaction.run("PRAGMA max_page_count=1000000")
    assert drain(spool, store).messages == 200
    assert (
        spool.waiting(),
        store.decisions.count(),
        sum(each.messages for each in store.reports.find()),
    ) == (0, 200, 200)
    spool.close()
    store.close()


def test_flt_14_a_daemon_that_finds_its_disk_full_serves_all_the_same(
    tmp_path: Path, dns: DnsServer
) -> None:
    """FLT-14: a new machine's first start, with no room even for the spool's file. Mail does not
    wait for somebody to tidy up."""
    spool = tmp_path / "disk/spool.db"
    with small_disk(tmp_path / "disk") as disk:
        tables = {
            "milter": {"workers": 1},
            "dns": {"nameservers": [dns.nameserver]},
            "store": {"spool": str(spool)},
        }
        daemon = Daemon(tmp_path, tables)
        daemon.spool = spool
        with ExitStack() as stack:
            other = None
            if disk is not None:
                disk.fill()
            # Where no disk can be filled, a spool that somebody holds is one that cannot be used
            # either.
            else:
                prepare(spool)
                other = stack.enter_context(closing(sqlite3.connect(spool, isolation_level=None)))
                other.execute("PRAGMA journal_mode=DELETE")
                other.execute("BEGIN EXCLUSIVE")
            stack.enter_context(daemon)
            assert "mail is counted as unrecorded until that is mended" in daemon.text()
            mail = Mail(daemon)
            mail.send(5)
            if disk is not None:
                disk.free()
            if other is not None:
                other.execute("ROLLBACK")
            assert wait_for(lambda: "spool works again" in daemon.text()), daemon.text()
            mail.send(5)
            assert wait_for(lambda: daemon.spool_rows() == mail.answered)
