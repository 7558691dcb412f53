"""What became of a message has one word, wherever it is said: `why`, the dashboard, `stats`, the
summary (core/explain/done.py)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.policy.verdict import (
    Deferral,
    Disposition,
    OverrideReason,
    OverrideType,
    Verdict,
)
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web.app import WebOptions, create_app
from fakes.commands import asking, record, with_store
from fakes.evaluations import evaluation

NONE, PASS = Disposition.NONE, Disposition.PASS
QUARANTINE, REJECT = Disposition.QUARANTINE, Disposition.REJECT
DNS = Deferral("dns", "_dmarc.slow.example")
SAMPLED = OverrideReason(OverrideType.SAMPLED_OUT, "sampled out by pct=10")
TESTING = OverrideReason(OverrideType.POLICY_TEST_MODE, "t=y")
BY_RULE = OverrideReason(OverrideType.LOCAL_POLICY, "our list")
STATES = {
    "PASSED": (Verdict(PASS, Policy.REJECT), "delivered"),
    "NOPOLICY": (Verdict(NONE), "delivered"),
    "OVERRIDDEN": (Verdict(NONE, Policy.REJECT, (BY_RULE,)), "delivered"),
    "REFUSED": (Verdict(REJECT, Policy.REJECT), "refused"),
    "QUARANTINED": (Verdict(QUARANTINE, Policy.QUARANTINE), "quarantined"),
    "SAMPLED": (Verdict(QUARANTINE, Policy.QUARANTINE, (SAMPLED,)), "quarantined"),
    "TESTING": (Verdict(NONE, Policy.NONE, (TESTING,)), "delivered"),
    "DEFERRED": (Verdict(NONE, Policy.REJECT, deferral=DNS), "deferred"),
    "MONITORED": (Verdict(NONE, Policy.REJECT, would_be=REJECT), "would be refused"),
    "MARKED": (Verdict(NONE, Policy.QUARANTINE, would_be=QUARANTINE), "would be quarantined"),
    "WAITED": (Verdict(NONE, Policy.REJECT, would_be=NONE, would_wait=DNS), "would be deferred"),
    "HARMLESS": (Verdict(NONE, would_be=NONE), "delivered"),
    "RELAYED": (Verdict(QUARANTINE, Policy.REJECT, would_be=REJECT), "quarantined"),
    "RELAYWAIT": (Verdict(QUARANTINE, Policy.REJECT, would_wait=DNS), "quarantined"),
}
WORDS = sorted({word for _, word in STATES.values()})
NOW = datetime.now(UTC)
Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    mail = [
        evaluation(f"{name.lower()}.example", passed=name == "PASSED", queue_id=name)
        for name in STATES
    ]
    record(
        tmp_path,
        [
            replace(one, at=NOW, verdict=verdict)
            for one, (verdict, _) in zip(mail, STATES.values(), strict=True)
        ],
    )
    ask = asking(with_store(tmp_path), capsys)
    ask("store", "drain")
    return lambda *words: ask(*words).out


@pytest.fixture
def pages(tmp_path: Path, ask: Ask) -> Iterator[FlaskClient]:
    stores: list[Store] = []

    def opened() -> Store:
        stores.append(Store.open(f"sqlite:///{tmp_path}/reports.db"))
        return stores[-1]

    with create_app(WebOptions(opened, tmp_path / "spool.db")).test_client() as client:
        yield client
    for store in stores:
        store.close()


def listed(pages: FlaskClient, **asked: str) -> dict[str, str]:
    """Queue id -> the word in its badge."""
    text = unescape(pages.get("/decisions", query_string={"days": "1", **asked}).text)
    rows = re.findall(r'<td class="done".*?">([^<]+)</span>.*?"queue" role="cell">(\w+)<', text)
    return {queue: word for word, queue in rows}


def test_the_table_of_why_and_the_dashboard_have_the_same_word(
    ask: Ask, pages: FlaskClient
) -> None:
    expected = {name: word for name, (_, word) in STATES.items()}
    assert listed(pages) == expected
    table = ask("why", "--limit", "100")
    said = {
        name: next(word for word in sorted(WORDS, key=len, reverse=True) if f" {word} " in line)
        for line in table.split("\n")
        for name in STATES
        if f" {name} " in line
    }
    assert said == expected
    decisions = json.loads(ask("why", "--limit", "100", "--json"))["decisions"]
    assert {one["facts"]["queue_id"]: one["done"] for one in decisions} == expected


@pytest.mark.parametrize("name", STATES)
def test_the_decision_and_its_sentence_begin_with_the_word(ask: Ask, name: str) -> None:
    word = STATES[name][1]
    assert re.search(rf"^Decision: {word}\b", ask("why", name), re.MULTILINE)
    [one] = json.loads(ask("why", name, "--json"))["decisions"]
    assert re.search(rf"dmarc=\w+, {word}\b", one["sentence"])


def test_a_word_finds_what_has_it(ask: Ask, pages: FlaskClient) -> None:
    """What would be refused was delivered all the same, so both words find it."""
    for word in WORDS:
        mine = {name for name, (_, said) in STATES.items() if said == word}
        if word == "delivered":
            mine |= {name for name, (_, said) in STATES.items() if said.startswith("would be ")}
        assert listed(pages, disposition=word).keys() == mine
        would = word.startswith("would be ")
        option = ("--would-be" if would else "--disposition", word.removeprefix("would be "))
        found = json.loads(ask("why", *option, "--limit", "100", "--json"))["decisions"]
        assert {one["facts"]["queue_id"] for one in found} == mine
        for name in STATES:  # beside a key the filters are applied elsewhere
            found = json.loads(ask("why", name, *option, "--json"))["decisions"]
            assert bool(found) == (name in mine), (name, option)


def test_totals_count_each_message_under_its_word(ask: Ask) -> None:
    """`stats`, `impact` and the summary."""
    sums = json.loads(ask("stats", "--json"))["sum"]
    assert sums["would_be"] == {"reject": 1, "quarantine": 1, "tempfail": 1, "none": 1}
    [impact] = re.findall(r"^.*would have been refused.*\.$", ask("impact"), re.MULTILINE)
    assert impact == (
        "1 refused, 4 quarantined, 1 deferred, 1 would have been refused, 1 would have been"
        " quarantined, 1 would have been deferred."
    )


def test_a_deferred_message_is_one_that_a_rule_lets_in(ask: Ask, tmp_path: Path) -> None:
    """451 is not delivered: `rules test` says so."""
    rules = tmp_path / "new-rules.toml"
    rules.write_text('[[policy.rules]]\naction = "accept"\nauthor_domains = ["deferred.example"]\n')
    found = json.loads(ask("rules", "test", "--file", str(rules), "--json"))["rules"]
    assert found == [{"decides": 1, "lets_in": 1, "stops": 0, "after_others": 0}]


@pytest.mark.parametrize("asked", ["", "--domain refused.example"])
def test_every_kind_has_a_command_that_lists_as_many(ask: Ask, asked: str) -> None:
    out = ask("impact", "--days", "1", *asked.split())
    document = json.loads(ask("impact", "--days", "1", "--json", *asked.split()))
    lines = re.findall(r"^  ([\d,]+) ([a-z ]+): dmarc-milter (why .*)$", out, re.MULTILINE)
    assert {kind: int(number) for number, kind, _ in lines} == document["kinds"]
    for number, kind, command in lines:
        found = json.loads(ask(*shlex.split(command), "--json"))["decisions"]
        assert len(found) == int(number), kind


def test_the_clients_of_a_row_are_as_many_as_its_command_lists(ask: Ask) -> None:
    [command] = re.findall(
        r"^Clients of a row: dmarc-milter (why .*)$", ask("impact", "--days", "1"), re.MULTILINE
    )
    for row in json.loads(ask("impact", "--days", "1", "--json"))["domains"]:
        words = shlex.split(command.replace("NAME", row["author_domain"]))
        clients = json.loads(ask(*words, "--json"))["clients"]
        assert len(clients) == row["sources"]
        assert sum(one["messages"] for one in clients) == row["messages"]
    shown = ask(*words)
    assert "1 clients" not in shown
    assert "1 client" in shown
