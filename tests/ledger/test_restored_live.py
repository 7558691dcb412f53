"""The running daemon with its drain, whose store is put back to a backup, or whose configuration
names somebody else's file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer

pytestmark = pytest.mark.timeout(120)
WITH_JOBS = ("-m", "dmarc_milter", "serve", "--config")


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    names = {
        "d.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
        "_dmarc.d.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@d.example"]},
    }
    with DnsServer(names, record=False) as server:
        yield server


def send(daemon: Daemon, count: int) -> None:
    """Messages that are accepted."""
    mta = daemon.client()
    mta.connect("mx.d.example", "192.0.2.1")
    mta.helo("mx.d.example")
    for number in range(count):
        answer = mta.message(
            [("From", "<a@d.example>")], mail_from="<a@d.example>", queue_id=f"Q{number}"
        )
        assert answer.code == 250, answer


def counted(url: str) -> int:
    with closing(Store.open(url)) as store:
        return sum(each.messages for each in store.decisions.totals())


def test_a_restore_under_the_running_daemon_loses_no_message(
    tmp_path: Path, dns: DnsServer
) -> None:
    """Backup, mail, restore, mail: every message is counted once, and the loss is in the log."""
    url = f"sqlite:///{tmp_path}/reports.db"
    daemon = Daemon(tmp_path, {"dns": {"nameservers": [dns.nameserver]}}, command=WITH_JOBS)

    def ask(*words: str) -> int:
        return main([*words, "--config", str(daemon.config)])

    with daemon:
        send(daemon, 5)
        assert wait_for(lambda: (tmp_path / "reports.db").exists() and counted(url) == 5, 30)
        assert ask("store", "backup", str(tmp_path / "copy.db")) == 0
        send(daemon, 7)
        assert wait_for(lambda: counted(url) == 12, 30)
        assert ask("store", "restore", str(tmp_path / "copy.db")) == 0
        send(daemon, 3)
        assert wait_for(lambda: counted(url) == 15, 30)
        assert "has lost 7 messages of this host" in daemon.text()
        assert counted(url) == 15


@pytest.mark.parametrize("key", ["url", "spool"])
def test_a_misspelled_path_harms_no_file(tmp_path: Path, dns: DnsServer, key: str) -> None:
    """As the spool it prevents the start; as the store it is said, and mail goes on."""
    precious = tmp_path / "precious.txt"
    precious.write_text("the administrator's own\n" * 100)
    before = precious.read_bytes(), precious.stat().st_mtime_ns, precious.stat().st_ino
    value = f"sqlite:///{precious}" if key == "url" else str(precious)
    tables = {
        "dns": {"nameservers": [dns.nameserver]},
        "store": {"spool": f"{tmp_path}/spool.db"} | {key: value},
    }
    daemon = Daemon(tmp_path, tables, command=WITH_JOBS)
    if key == "spool":
        assert daemon.spawn().wait(30) != 0
    else:
        with daemon:
            send(daemon, 2)
            assert wait_for(lambda: daemon.text().count("is not a SQLite file") >= 2, 30)
    assert f"{precious}: is not a SQLite file" in daemon.text()
    assert (precious.read_bytes(), precious.stat().st_mtime_ns, precious.stat().st_ino) == before
    assert not list(tmp_path.glob("precious.txt?*"))
