"""PostgreSQL is gone for minutes while mail flows through the daemon: nobody notices, the spool
grows, and in the end all is counted once.

Seconds here; two and a half minutes by `make soak`, with the same assertions.
"""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from dmarc_milter.ledger.store.database import fetch
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import MilterClient
from fakes.soak import LONG
from fakes.stores import fresh_schema, upgraded
from live.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(900 if LONG else 120)]

AWAY = 150.0 if LONG else 4.0
"""Seconds without the store."""
DOMAINS = 40
SENDERS = 4
PAUSE = 0.02
"""Seconds between two messages of a sender."""
BOUND = 1.0
"""Seconds: far more than a message ever takes, far less than any wait for a store."""


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    names: dict[str, dict[str, object]] = {}
    for number in range(DOMAINS):
        names[f"d{number}.example"] = {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]}
        names[f"_dmarc.d{number}.example"] = {
            "TXT": [f"v=DMARC1; p=reject; rua=mailto:agg@d{number}.example"]
        }
    with DnsServer(names, record=False) as server:
        yield server


class Load:
    """Senders that go on until told to stop. `took` are seconds from MAIL to the final answer, with
    the moment of that answer."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.took: list[tuple[float, float]] = []
        self.wrong: list[str] = []
        self.queue_ids: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)
        ]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join(60)

    def _send(self, number: int) -> None:
        with MilterClient(self.daemon.address) as mta:
            mta.negotiate()
            mta.connect("mx.sender.example", f"192.0.2.{number + 1}")
            mta.helo("mx.sender.example")
            while not self._over.wait(PAUSE):
                number += 1
                domain = f"d{number % DOMAINS}.example"
                name = uuid.uuid4().hex
                before = time.monotonic()
                answer = mta.message(
                    [("From", f"<a@{domain}>"), ("Message-ID", f"<{name}@x>")],
                    mail_from=f"<a@{domain}>",
                    queue_id=name,
                )
                now = time.monotonic()
                self.took.append((now, now - before))
                self.queue_ids.append(name)
                if answer.code != 250:
                    self.wrong.append(f"{answer.code} {answer.text}")

    def between(self, begin: float, end: float) -> list[float]:
        return sorted(seconds for at, seconds in self.took if begin <= at < end)


def shown(name: str, took: list[float]) -> str:
    p50, p99, most = (
        seconds * 1e3
        for seconds in (statistics.median(took), took[len(took) * 99 // 100], took[-1])
    )
    return (
        f"{name} {len(took)} messages, p50 {p50:.1f} ms, p99 {p99:.1f} ms, the slowest"
        f" {most:.1f} ms"
    )


def test_flt_08_postgresql_away_for_minutes_under_load_is_not_noticed(
    postgres_server: Postgres,
    dns: DnsServer,
    tmp_path: Path,
) -> None:
    """FLT-08 through the whole daemon and its drain: answered as quickly as before, kept meanwhile,
    counted exactly once."""
    url = upgraded(fresh_schema(postgres_server))
    tables = {
        "store": {"url": url, "spool": f"{tmp_path}/spool.db"},
        "dns": {"nameservers": [dns.nameserver]},
    }
    daemon = Daemon(tmp_path, tables, command=("-m", "dmarc_milter", "serve", "--config"))
    store = Store.open(url)
    with daemon:
        with Load(daemon) as load:
            assert wait_for(lambda: store.decisions.count() > 0, 30), daemon.text()
            time.sleep(min(AWAY, 10))
            store.close()
            gone = time.monotonic()
            postgres_server.stop("immediate")
            stopped = time.monotonic()
            time.sleep(AWAY)
            kept, back = daemon.spool_rows(), time.monotonic()
            postgres_server.start()
            time.sleep(min(AWAY, 10))
        begun = time.monotonic()
        assert wait_for(lambda: daemon.spool_rows() == 0, 120), daemon.text()[-3000:]
        drained = time.monotonic() - begun
        before, away, after = (
            load.between(0, gone),
            load.between(stopped, back),
            load.between(back, begun),
        )
        for line in (shown("before:", before), shown("away:", away), shown("after:", after)):
            print(line)
        print(
            f"PostgreSQL away for {back - stopped:.0f} s: {kept} messages in the spool, empty"
            f" {drained:.1f} s after the last one"
        )
        assert load.wrong == []
        assert kept >= len(away) > 0
        assert away[-1] < BOUND, "a message waited for the store"
        assert statistics.median(away) < 3 * statistics.median(before) + 0.01
        assert daemon.events("worker_died") == []
        assert "messages are counted as unrecorded" not in daemon.text()
        assert 1 <= daemon.text().count("messages wait in the spool") <= 6, (
            "said when it changes, not all the time"
        )
        assert "works again" in daemon.text()
    answered = len(load.queue_ids)
    assert store.decisions.count() == answered
    assert {row[0] for row in fetch(store.database, "SELECT queue_id FROM decision")} == set(
        load.queue_ids
    )
    assert sum(each.messages + each.folded for each in store.reports.find(limit=10_000)) == answered
    assert sum(each.messages for each in store.decisions.totals()) == answered
    store.close()
