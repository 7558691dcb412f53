"""kill -9 at any moment loses no message that was answered and no report, and counts nothing twice.

Short here; `make soak` kills 200 times at each stage. The seed is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.ledger_jobs import ADDRESSES
from fakes.soak import LONG, chance, kills
from fakes.stores import batch, upgraded

# Its clock only says when to give up: it may run beside another.
pytestmark = [
    pytest.mark.processor,
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(1800 if LONG else 240),
]
ROOT = Path(__file__).parents[2]


class Jobs:
    """Processes that are started again whenever they are killed."""

    def __init__(self, commands: list[list[str]], dice: Random) -> None:
        self._commands, self._dice = commands, dice
        self._running = [self._start(each) for each in commands]

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'milter'}:{ROOT / 'tests'}"}
        return subprocess.Popen(
            [sys.executable, "-m", "fakes.ledger_jobs", *arguments], env=environment
        )

    def kill_one(self) -> None:
        """One of them, after a moment that falls anywhere between its start and its steady work."""
        time.sleep(self._dice.uniform(0.05, 0.9))
        number = self._dice.randrange(len(self._running))
        assert self._running[number].poll() is None, "a job ended by itself"
        self._kill(self._running[number])
        self._running[number] = self._start(self._commands[number])

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        for each in self._running:
            self._kill(each)


@contextmanager
def running(commands: list[list[str]], dice: Random) -> Iterator[Jobs]:
    jobs = Jobs(commands, dice)
    try:
        yield jobs
    finally:
        jobs.kill_all()


def lines(log: Path) -> list[str]:
    """What the jobs announced."""
    return log.read_text().splitlines() if log.exists() else []


def test_killed_workers_and_drains_count_every_answered_message_once(
    store_url: str, tmp_path: Path
) -> None:
    """docs/design.md, The ledger: three workers, two drains of one spool, and every one of them
    dies again and again."""
    dice = chance("workers and drains")
    spool, log = tmp_path / "spool.db", tmp_path / "answered"
    prepare(spool)
    upgraded(store_url)
    work = [["record", str(spool), str(log)]] * 3 + [
        ["drain", f"{spool}|{store_url}", str(log)]
    ] * 2
    number = kills(10, 400)
    with running(work, dice) as jobs:
        while len(lines(log)) < 50:
            time.sleep(0.05)
        for _ in range(number):
            jobs.kill_one()
    store = Store.open(store_url)
    file = SpoolFile(spool)
    assert drain(file, store).problem == ""
    answered = lines(log)
    with store.database.transaction(write=False) as transaction:
        decided = {row[0] for row in transaction.all("SELECT id FROM decision")}
    assert len(answered) == len(set(answered)) > 50
    assert set(answered) <= decided, "an answered message was lost"
    assert len(decided) - len(answered) <= 4 * (number + 3), (
        "only what a killed thread had in hand may stand there unanswered"
    )
    reports = store.reports.find(limit=100_000)
    assert sum(each.messages for each in reports) == len(decided), (
        "a message was counted twice, or not at all"
    )
    assert sum(count for each in reports for _, count in store.reports.rows(each.id)) == len(
        decided
    )
    assert sum(each.messages for each in store.decisions.totals()) == len(decided)
    assert file.waiting() == 0
    assert not list(tmp_path.glob("*.corrupt-*"))
    file.close()
    store.close()


def wait_until_sent(store: Store, total: int) -> None:
    """However slow the machine: a report is stuck where none has gone on for a minute."""
    before: Counter[ReportState] = Counter()
    end = time.monotonic() + 60
    while (now := Counter(each.state for each in store.reports.find(limit=total))) != {
        ReportState.SENT: total
    }:
        if now != before:
            before, end = now, time.monotonic() + 60
        assert time.monotonic() < end, f"a report is stuck: {now}"
        time.sleep(0.2 + total / 2000)


def test_killed_senders_lose_no_report_and_change_no_identity(
    store_url: str, tmp_path: Path
) -> None:
    """docs/design.md, Reports: delivered at least once, always under one identity with the same
    content, by whichever host."""
    dice = chance("senders")
    log = tmp_path / "delivered"
    upgraded(store_url)
    store = Store.open(store_url)
    number = kills(8)
    total = 40 * number
    for first in range(0, total, 40):
        store.apply(
            batch(*(evaluation(f"d{n}.example") for n in range(first, first + 40)), first=first + 1)
        )
    identities = {each.id for each in store.reports.find(limit=total)}
    assert len(identities) == total
    with running([["send", store_url, str(log)]] * 3, dice) as jobs:
        for _ in range(number):
            jobs.kill_one()
        wait_until_sent(store, total)
    delivered = Counter(tuple(each.split()) for each in lines(log))
    assert {(report, address) for report, address, _ in delivered} == {
        (report, address) for report in identities for address in ADDRESSES
    }
    assert {content for _, _, content in delivered} == {"1"}
    assert delivered.total() - len(delivered) <= 2 * number, (
        "a repetition only where a sender died between 250 and the commit"
    )
    assert not any(list(store.reports.rows(each)) for each in identities), "sent rows are gone"
    store.close()
