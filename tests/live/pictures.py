"""The pictures of the dashboard in docs/pictures: `make pictures` takes them in Chromium, of two
months of invented mail."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from selenium import webdriver

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Record, parse
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.policy.verdict import Deferral
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.dns.suffix_list import load_suffixes
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.reports import Document, NewDelivery, ReportState
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from live.dashboard import Scheme, chromium, look, served

DAYS = 60
HOST = "mx1.example.net"
CONFIG = """
[authentication]
authserv_id = "mx1.example.net"
[reporting]
org_name = "Example Net"
email = "dmarc@example.net"
[dmarc]
suffix_list = "{folder}/public_suffix_list.dat"
"""


class Picture(NamedTuple):
    """`name` of the file; the page; the window in CSS pixels."""

    name: str
    path: str
    width: int
    scheme: Scheme
    height: int


PICTURES = (
    Picture("overview", "/?days=30", 1280, "light", 1000),
    Picture("overview-dark", "/?days=30", 1280, "dark", 1000),
    Picture("overview-390", "/?days=30", 390, "light", 1100),
    Picture("overview-820", "/?days=30", 820, "light", 1100),
    Picture("overview-1920", "/?days=30", 1920, "light", 1100),
    Picture("decisions", "/decisions?days=30", 1280, "light", 800),
    Picture("decisions-390", "/decisions?days=30", 390, "dark", 1100),
    Picture("decisions-820", "/decisions?days=30", 820, "light", 800),
    Picture("decisions-1920", "/decisions?days=30", 1920, "dark", 700),
    Picture("decision", "/decisions/", 1280, "light", 1100),
    Picture("decision-390", "/decisions/", 390, "light", 1400),
    Picture("decision-820", "/decisions/", 820, "light", 1100),
    Picture("domain", "/domains/bank.example?days=30", 1280, "light", 800),
    Picture("impact", "/impact?days=30", 1280, "light", 800),
    Picture("reports", "/reports", 1280, "light", 800),
    Picture("health", "/health", 1280, "light", 700),
)


def record(name: str, tags: str = "p=reject") -> Record:
    found = parse(f"v=DMARC1; {tags}; rua=mailto:dmarc-reports@{name}".encode())
    assert found is not None
    return found


def passed(name: str, client: str, **changes: object) -> Evaluation:
    each = evaluation(name, passed=True, source_ip=client, record=record(name), **changes)
    return replace(
        each,
        envelope=replace(
            each.envelope, helo=f"mail.{name}", mail_from=ReversePath("post", Domain(name))
        ),
        spf=SpfResult(SpfStatus.PASS, Domain(name)),
        verdict=replace(each.verdict, decided_by="an aligned pass"),
    )


def spoofed(name: str, client: str, tags: str = "p=reject") -> Evaluation:
    each = evaluation(name, source_ip=client, record=record(name, tags))
    quarantine = "quarantine" in tags
    return replace(
        each,
        spf=SpfResult(SpfStatus.FAIL, Domain(name), mechanism="-all"),
        dkim=(),
        envelope=replace(
            each.envelope, helo="host.cheap.example", mail_from=ReversePath("a", Domain(name))
        ),
        verdict=replace(
            each.verdict,
            disposition=Disposition.QUARANTINE if quarantine else Disposition.REJECT,
            decided_by=f"{tags} of {name}",
        ),
    )


def listed() -> Evaluation:
    """A list's post: its own signature verifies, the author's is broken by its footer."""
    each = evaluation("uni.example", source_ip="198.51.100.25", record=record("uni.example"))
    domain = Domain("lists.example")
    return replace(
        each,
        facts=replace(each.facts, list_id="gardening.lists.example"),
        spf=SpfResult(SpfStatus.PASS, domain),
        dkim=(
            DkimResult(DkimStatus.PASS, domain, "2026", "rsa-sha256"),
            DkimResult(DkimStatus.FAIL, Domain("uni.example"), "k1", "rsa-sha256"),
        ),
        envelope=replace(
            each.envelope, helo="lists.example", mail_from=ReversePath("bounces", domain)
        ),
        verdict=replace(each.verdict, decided_by="p=reject of uni.example"),
    )


def no_policy(client: str) -> Evaluation:
    each = evaluation("corner-shop.example", source_ip=client, record=None)
    none = replace(each.verdict, disposition=Disposition.NONE, decided_by="no policy")
    outcome = each.dmarc.outcome
    assert outcome is not None
    dmarc = replace(
        each.dmarc,
        status=DmarcStatus.NONE,
        outcome=replace(outcome, status=DmarcStatus.NONE),
    )
    return replace(each, verdict=none, dmarc=dmarc)


def deferred() -> Evaluation:
    each = spoofed("slow.example", "203.0.113.80")
    outcome = each.dmarc.outcome
    assert outcome is not None
    waits = Deferral("dns", "_dmarc.slow.example")
    return replace(
        each,
        dmarc=replace(
            each.dmarc,
            status=DmarcStatus.TEMPERROR,
            outcome=replace(outcome, status=DmarcStatus.TEMPERROR, published=None),
        ),
        verdict=replace(
            each.verdict, disposition=Disposition.NONE, deferral=waits, decided_by="the DNS"
        ),
    )


def day(chance: random.Random, weekend: bool) -> Iterator[Evaluation]:
    """A day's mail, more of it on working days."""
    busy = 0.4 if weekend else 1.0
    for name, number in (("bank.example", 30), ("shop.example", 55), ("news.example", 25)):
        for _ in range(int(busy * number * chance.uniform(0.8, 1.2))):
            yield passed(name, f"192.0.2.{chance.randrange(10, 30)}")
    for _ in range(int(busy * chance.uniform(6, 20))):
        yield spoofed("bank.example", f"203.0.113.{chance.randrange(1, 12)}")
    for _ in range(int(busy * chance.uniform(2, 8))):
        yield spoofed("shop.example", f"203.0.113.{chance.randrange(5, 20)}", "p=quarantine")
    for _ in range(int(busy * chance.uniform(10, 20))):
        yield no_policy(f"198.51.100.{chance.randrange(50, 90)}")
    for _ in range(int(busy * chance.uniform(1, 4))):
        yield listed()
    if chance.random() < 0.2:
        yield from (deferred() for _ in range(3))


def fill(folder: Path, now: datetime) -> None:
    """Two months of mail that end now, and the reports about all but the last two days."""
    chance = random.Random(1)
    mail: list[Evaluation] = []
    for back in reversed(range(DAYS)):
        noon = now - timedelta(days=back)
        today = list(day(chance, noon.weekday() >= 5))
        chance.shuffle(today)
        for number, each in enumerate(today):
            at = noon - timedelta(seconds=40 * number)
            queue_id = f"4g{back:02d}{number:04X}Zz{chance.randrange(16**4):04X}"
            envelope = replace(each.envelope, queue_id=queue_id)
            mail.append(replace(each, at=at, envelope=envelope))
    mail.sort(key=lambda one: one.at)
    store = Store.open(f"sqlite:///{folder}/reports.db")
    rows = [
        (number, SpoolRow(each.id, encode(from_evaluation(each))))
        for number, each in enumerate(mail, 1)
    ]
    store.apply(Batch("pictures", HOST, rows))
    _report(store, int(now.timestamp()) - 86400)
    store.close()
    spool = SpoolFile(folder / "spool.db")
    spool.waiting()
    spool.close()


def _report(store: Store, ended_before: int) -> None:
    """Send what was due by then."""
    for report in store.reports.claim("pictures", ended_before=ended_before, limit=10_000):
        if not report.published.rua:
            store.reports.finish(report.id, "pictures", ReportState.SUPPRESSED, "no rua")
            continue
        address = report.published.rua[0].address
        document = Document("rfc9990", "report.xml.gz", b"")
        delivery = NewDelivery(address, "rfc9990", 0)
        store.reports.queue(report.id, "pictures", [document], [delivery])
    for delivered in store.deliveries.claim("pictures", limit=10_000):
        store.deliveries.settle(delivered, "pictures", DeliveryState.SENT, "250 2.0.0 Ok: queued")


def one_decision(browser: webdriver.Chrome, address: str) -> str:
    """The page of the newest post of the list."""
    browser.get(f"{address}/decisions?days=30&author_domain=uni.example")
    link = browser.find_element("css selector", "tbody a").get_attribute("href")
    return link.removeprefix(address)


def take(target: Path) -> list[Path]:
    """Write every picture into `target`."""
    with tempfile.TemporaryDirectory(prefix="dmarc-milter-") as folder:
        fill(Path(folder), datetime.now(UTC))
        shutil.copy(load_suffixes().path, f"{folder}/public_suffix_list.dat")
        with (
            served(Path(folder), CONFIG.format(folder=folder)) as address,
            chromium(Path(folder) / "profile") as browser,
        ):
            one = one_decision(browser, address)
            for picture in PICTURES:
                path = one if picture.path == "/decisions/" else picture.path
                look(browser, picture.width, picture.scheme, picture.height)
                browser.get(address + path)
                browser.save_screenshot(str(target / f"{picture.name}.png"))
    return [target / f"{picture.name}.png" for picture in PICTURES]


if __name__ == "__main__":
    for taken in take(Path(sys.argv[1])):
        print(taken)
