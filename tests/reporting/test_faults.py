"""Nothing lost, one identity, whatever dies: kill -9 in the midst of building and sending, several
hosts, and two reporters in a loop.

Short here; `make soak` kills 200 times. The seed is printed.
"""

from __future__ import annotations

import email
import email.policy
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.facts import message_facts
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.report.read import read
from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.store import Store
from fakes.dns_zone import Zone
from fakes.evaluations import NOON, RECORD, evaluation
from fakes.report_job import DAY, TOMORROW, Clock, Job, reporting
from fakes.report_process import ADDRESSES, ZONE
from fakes.smtp_sink import Mail, Sink, smtp_sink
from fakes.soak import LONG, chance, kills
from fakes.stores import batch, fresh_schema, upgraded
from live.postgres import Postgres

# Its clock only says when to give up: it may run beside another.
pytestmark = [
    pytest.mark.processor,
    pytest.mark.soak,
    pytest.mark.timeout(3600 if LONG else 240),
]
ROOT = Path(__file__).parents[2]
SHARE = 30
"""Messages, two for each domain, that come before each kill: there is always something to build and
to send."""
RUA = replace(RECORD, rua=tuple(ReportUri(each) for each in ADDRESSES))


class Jobs:
    """Report jobs that are started again whenever they are killed."""

    def __init__(self, url: str, port: int, number: int) -> None:
        self._command = [
            sys.executable,
            "-m",
            "fakes.report_process",
            url,
            str(port),
            str(time.time()),
        ]
        self._running = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'milter'}:{ROOT / 'tests'}"}
        return subprocess.Popen(self._command, env=environment)

    def kill_one(self, dice: Random) -> None:
        time.sleep(dice.uniform(0.05, 1.2))
        number = dice.randrange(len(self._running))
        assert self._running[number].poll() is None, "a job ended by itself"
        self._running[number].send_signal(signal.SIGKILL)
        self._running[number].wait()
        self._running[number] = self._start()

    def kill_all(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@contextmanager
def jobs_on(url: str, port: int, number: int) -> Iterator[Jobs]:
    jobs = Jobs(url, port, number)
    try:
        yield jobs
    finally:
        jobs.kill_all()


def identity(mail: Mail) -> tuple[str, str, str]:
    """Recipient, report id and content, the id being the same in all four places."""
    message = email.message_from_bytes(mail.message, policy=email.policy.SMTP)
    [attachment] = message.iter_attachments()
    [report] = read(mail.message)
    assert message["Message-ID"] == f"<{report.report_id}@mx.example>"
    assert message["Subject"].endswith(f"Report-ID: {report.report_id}")
    assert report.report_id in str(attachment.get_filename())
    assert mail.sender.startswith(f"dmarc+{report.report_id}-")
    return mail.recipient, report.report_id, attachment.get_content().hex()


@pytest.mark.slow
def test_killed_jobs_lose_no_report_and_change_no_identity(store_url: str) -> None:
    """docs/design.md, Reports: every report delivered at least once with one identity, whichever
    job dies when, whatever the MTA says."""
    dice = chance("report jobs")
    upgraded(store_url)
    store = Store.open(store_url)
    number = kills(4)
    messages = SHARE * number
    moods = ["451 not now", "421 busy", "drop", "drop after"]
    said: Counter[str] = Counter()

    def answer(stage: str, _who: str) -> str:
        if stage not in ("rcpt", "end") or dice.random() > 0.08:
            return ""
        mood = dice.choice(moods if stage == "end" else moods[:3])
        said[mood] += 1
        return mood

    with smtp_sink(answer) as sink, jobs_on(store_url, sink.port, 3) as jobs:
        for first in range(0, messages, SHARE):
            some = (
                evaluation(f"d{n // 2}.example", record=RUA, source_ip=f"10.0.0.{n % 2}")
                for n in range(first, first + SHARE)
            )
            store.apply(batch(*some, first=first + 1))
            jobs.kill_one(dice)
        expected = {each.id for each in store.reports.find(limit=messages)}
        end = time.monotonic() + 120 + 10 * number
        while any(
            each.state is not ReportState.SENT for each in store.reports.find(limit=messages)
        ):
            assert time.monotonic() < end, Counter(
                each.state for each in store.reports.find(limit=messages)
            )
            time.sleep(0.3)
    delivered = Counter(identity(each) for each in sink.mails)
    assert {(who, report) for who, report, _ in delivered} == {
        (who, report) for report in expected for who in ADDRESSES
    }
    assert len(delivered) == len(ADDRESSES) * len(expected), "one report went out with two contents"
    assert delivered.total() - len(delivered) <= 2 * number + said["drop after"], (
        "a repetition only after a death between 250 and the commit"
    )
    counted = {
        read(each.message)[0].report_id: read(each.message)[0].messages for each in sink.mails
    }
    assert sum(counted.values()) == messages, "a message was reported twice, or not at all"
    assert not any(list(store.reports.rows(each)) for each in expected)
    store.close()


def test_rpt_11_three_hosts_on_one_store_send_each_report_once(postgres_server: Postgres) -> None:
    """Any host may run the timer; clocks differ by a minute; each report leaves once."""
    url = upgraded(fresh_schema(postgres_server))
    with smtp_sink() as sink:
        hosts = []
        for number, skew in enumerate((-30, 0, 30)):
            clock = Clock(TOMORROW + 1000 + skew)
            hosts.append(
                Job(
                    Store.open(url, clock=clock),
                    Zone(ZONE),
                    clock,
                    sink.port,
                    owner=f"host{number}",
                )
            )
        for number, host in enumerate(hosts):
            host.see(
                *(evaluation(f"d{n}.example", record=RUA) for n in range(40)),
                identity=f"spool-{number}",
            )
        with ThreadPoolExecutor(3) as executor:
            done = list(executor.map(Job.run, hosts))
        assert sum(each.built.total() for each in done) == 40
        assert (
            len(sink.mails)
            == len({(each.recipient, read(each.message)[0].report_id) for each in sink.mails})
            == 80
        )
        assert {read(each.message)[0].messages for each in sink.mails} == {3}
        for host in hosts:
            host.store.close()


# --- the loop -------------------------------------------------------------------------------------


class Installation:
    """A site that receives mail and reports on it; its rua is not its reporting address, so nothing
    is exempt by configuration."""

    def __init__(self, name: str, zone: Zone, folder: Path, sink: Sink) -> None:
        self.name = name
        self.record = replace(RECORD, rua=(ReportUri(f"agg@{name}"),))
        clock = Clock()
        zone.add(name, "MX", (10, f"mx.{name}"))
        self.job = Job(
            Store.open(f"sqlite:///{folder}/{name}.db", clock=clock),
            zone,
            clock,
            sink.port,
            owner=name,
        )
        self.job.options = reporting(email=f"dmarc@{name}", bounce_address=f"bounces@{name}")

    def receives(self, sender: Installation, day: int, mail: Mail | None = None) -> None:
        """A person's mail of the other site, or its report, arrives."""
        one: Evaluation = evaluation(
            sender.name, passed=True, record=sender.record, at=NOON + timedelta(days=day)
        )
        if mail is not None:
            parsed = email.message_from_bytes(mail.message)
            fields = Headers(
                HeaderField(name.encode(), f" {value}".encode()) for name, value in parsed.items()
            )
            one = replace(one, facts=message_facts(fields, one.envelope))
        self.job.see(one)


def test_rpt_09_two_installations_that_report_to_each_other_fall_silent(tmp_path: Path) -> None:
    """docs/design.md, Reports: loop-proof without configuration."""
    zone = Zone()
    with smtp_sink() as sink:
        one, other = (
            Installation(name, zone, tmp_path, sink) for name in ("one.example", "other.example")
        )
        sites = {"one.example": (one, other), "other.example": (other, one)}
        one.receives(other, 0)
        other.receives(one, 0)
        history = []
        for day in range(6):
            sink.mails.clear()
            for site in (one, other):
                site.job.clock.now = TOMORROW + day * DAY + 1000
                site.job.run()
            history.append(len(sink.mails))
            for mail in sink.mails:
                receiver, sender = sites[mail.recipient.partition("@")[2]]
                receiver.receives(sender, day + 1, mail)
        assert history == [2, 0, 0, 0, 0, 0]
        one.receives(other, 6)
        one.job.clock.now = TOMORROW + 6 * DAY + 1000
        one.job.run()
        [last] = [mail for mail in sink.mails if mail.recipient == "agg@other.example"]
        assert read(last.message)[0].messages == 1, "a person's mail is reported again"
    for site in (one, other):
        site.job.store.close()
