"""What the overview says: cards with share and trend, a chart without gaps, lights with a sentence,
whose mail fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dmarc_milter.config import load
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.policy.verdict import Deferral
from dmarc_milter.ledger.connect import store_of
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.decisions import Total
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from dmarc_milter.web.charts import OUTCOMES, cards, chart, outcome
from dmarc_milter.web.lights import lights, worst
from dmarc_milter.web.words import NO_BREAK, percent
from fakes.evaluations import NOON, evaluation
from fakes.stored import fill, week

DAY = 86400
TODAY = int(NOON.timestamp()) // DAY * DAY
NOW = NOON.timestamp() + 1800
CARD = re.compile(
    r'<a href="(/decisions[^"]*)">\s*<span class="name">[^<]*</span>'
    r'\s*<span class="figure">([\d,]+)'
)
"""A card's link and its number."""


def total(
    day: int = 0, status: str = "pass", done: str = "pass", would: str = "", n: int = 1
) -> Total:
    """Of a day before today."""
    return Total(TODAY - day * DAY, status, done, would, n)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/reports.db")
    yield opened
    opened.close()


def deferred(name: str = "slow.example") -> Evaluation:
    each = evaluation(name)
    waits = replace(each.verdict, disposition=Disposition.NONE, deferral=Deferral("dns", name))
    return replace(each, verdict=waits)


@pytest.mark.parametrize("days", [1, 7, 14, 30, 90])
def test_every_day_of_the_period_has_its_bar(days: int) -> None:
    """A day without mail is an empty bar, not a missing one: a gap is what one looks for."""
    drawn = chart([total(0, n=3)], TODAY - (days - 1) * DAY, days)
    assert len(drawn.bars) == days
    assert [bar.messages for bar in drawn.bars] == [0] * (days - 1) + [3]
    assert len(drawn.labels) <= 7
    assert len(drawn.bars) % len(drawn.labels) == 0, "each label stands below its day"


def test_a_bar_is_as_high_as_its_messages() -> None:
    drawn = chart([total(n=30), total(status="fail", done="reject", n=10)], TODAY, 1)
    assert drawn.ticks == (40, 20, 0)
    assert drawn.names == ("passed", "refused")
    assert [(part.top, part.height) for part in drawn.bars[0].segments] == [(25, 75), (0, 25)]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 7, 99, 101, 12_345, 10**12])
def test_no_bar_is_higher_than_the_chart(most: int) -> None:
    drawn = chart([total(n=most)] if most else [], TODAY, 1)
    assert drawn.ticks[0] >= most
    assert all(part.top >= 0 for bar in drawn.bars for part in bar.segments)


@pytest.mark.parametrize(
    ("status", "done", "would", "word"),
    [
        ("pass", "pass", "", "passed"),
        ("none", "none", "", "no policy"),
        ("fail", "none", "", "failed, delivered"),
        ("fail", "pass", "", "failed, delivered"),
        ("temperror", "none", "", "not judged, delivered"),
        ("permerror", "none", "", "not judged, delivered"),
        ("fail", "none", "reject", "would be refused"),
        ("fail", "none", "quarantine", "would be quarantined"),
        ("temperror", "none", "tempfail", "would be deferred"),
        ("fail", "quarantine", "reject", "quarantined"),
        ("fail", "reject", "", "refused"),
        ("temperror", "tempfail", "", "deferred"),
    ],
)
def test_every_message_is_one_outcome(status: str, done: str, would: str, word: str) -> None:
    assert outcome(total(0, status, done, would)) == word
    assert word in OUTCOMES


def test_a_card_has_a_share_and_says_which_way_it_goes() -> None:
    now = [total(n=75), total(status="fail", done="reject", n=25)]
    before = [total(9, n=90), total(9, status="fail", done="reject", n=10)]
    found = {card.name: card for card in cards(now, before)}
    assert (found["refused"].share, found["refused"].before, found["refused"].trend) == (
        25,
        10,
        "up",
    )
    assert found["passed"].trend == "down"
    assert found["deferred"].trend == "same"
    assert (found["messages"].messages, found["messages"].earlier) == (100, 100)
    assert {card.trend for card in cards(now, [])} == {""}, "nothing to compare with"


def test_in_monitor_mode_a_card_says_what_would_have_been() -> None:
    found = {card.name: card for card in cards([total(0, "fail", "none", "reject", 7)], [])}
    assert "refused" not in found
    card = found["would be refused"]
    assert (card.messages, card.share, card.search) == (7, 100, {"disposition": "would be refused"})
    mixed = [total(0, "fail", "none", "reject", 7), total(0, "fail", "reject", "", 2)]
    found = {card.name: card for card in cards(mixed, [])}
    assert (found["refused"].messages, found["refused"].would) == (2, 7)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (100, "100 %"), (0.001, "< 0.1 %"), (99.99, "> 99.9 %"), (12.34, "12.3 %")],
)
def test_a_share_of_almost_nothing_is_not_nothing(share: float, said: str) -> None:
    assert percent(share).replace(NO_BREAK, " ") == said


def levels(store: Store, spool: Path, off: str = "", now: float = NOW) -> dict[str, str]:
    return {one.name: one.level for one in lights(store, spool, off, now)}


def test_lights_of_an_empty_installation_alarm_nobody(store: Store, tmp_path: Path) -> None:
    found = levels(store, tmp_path / "spool.db")
    assert found == {"DNS": "note", "Spool": "note", "Store": "ok", "Reports": "ok"}


def test_the_dns_light_goes_by_the_mail_of_the_last_hour(store: Store, tmp_path: Path) -> None:
    spool = tmp_path / "spool.db"
    fill(spool, store, [evaluation(passed=True) for _ in range(60)])
    assert levels(store, spool)["DNS"] == "ok"
    fill(spool, store, [deferred()])
    assert levels(store, spool)["DNS"] == "warning", "one sender's DNS"
    fill(spool, store, [deferred(f"d{number}.example") for number in range(20)])
    assert levels(store, spool)["DNS"] == "error", "so many are not one sender's fault"
    assert levels(store, spool, now=NOW + 2 * DAY)["DNS"] == "note"


def test_a_spool_that_is_not_drained_is_a_warning(store: Store, tmp_path: Path) -> None:
    from dmarc_milter.core.stored import encode
    from dmarc_milter.core.stored.from_evaluation import from_evaluation
    from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow

    spool = SpoolFile(tmp_path / "spool.db")
    each = evaluation()
    spool.write([SpoolRow(each.id, encode(from_evaluation(each)))])
    spool.close()
    found = {one.name: one for one in lights(store, tmp_path / "spool.db", "", NOW)}
    assert found["Spool"].level == "warning"
    assert found["Spool"].remedy


def test_a_damaged_store_is_a_light_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "reports.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    config = tmp_path / "c.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n')
    store = store_of(load(config), Access.READ)
    found = lights(store, tmp_path / "spool.db", "", NOW)
    store.close()
    assert worst(found) == "error"
    assert all((one.text and one.level != "error") or one.remedy for one in found)


def test_reports_that_are_late_are_a_warning(store: Store, tmp_path: Path) -> None:
    fill(tmp_path / "spool.db", store, [evaluation()])
    assert levels(store, tmp_path / "spool.db")["Reports"] == "ok"
    assert levels(store, tmp_path / "spool.db", now=NOW + 3 * DAY)["Reports"] == "warning"
    off = levels(store, tmp_path / "spool.db", "[reporting] email not set", NOW + 3 * DAY)
    assert off["Reports"] == "note"


def test_cards_lead_to_the_messages_that_they_count(store: Store, tmp_path: Path) -> None:
    """The number on a card is the number of decisions behind its link."""
    fill(tmp_path / "spool.db", store, [*week(), deferred()])
    url = f"sqlite:///{tmp_path}/reports.db"
    options = WebOptions(lambda: Store.open(url), tmp_path / "spool.db", clock=lambda: NOW)
    with create_app(options).test_client() as pages:
        text = pages.get("/?days=7").text
        found = CARD.findall(text)
        assert len(found) == 8
        for link, number in found:
            path: str | None = link.replace("&amp;", "&")
            seen = 0
            while path:
                page = pages.get(path).text
                seen += len(re.findall(r'href="/decisions/[0-9a-f]{32}', page))
                older = re.search(r'rel="next" href="([^"]+)"', page)
                path = older[1].replace("&amp;", "&") if older else None
            assert seen == int(number.replace(",", "")), link


def test_a_client_is_known_by_how_many_domains_it_used(store: Store, tmp_path: Path) -> None:
    from dmarc_milter.web.queries import failing_clients

    mail = [evaluation(name, source_ip="192.0.2.9") for name in ("a.example", "b.example")]
    mail += [
        evaluation("a.example", passed=True),
        replace(evaluation(), at=NOON - timedelta(days=9)),
    ]
    fill(tmp_path / "spool.db", store, mail)
    found = failing_clients(store.database, TODAY)
    assert [(row.source_ip, row.messages, row.authors) for row in found] == [("192.0.2.9", 2, 2)]
