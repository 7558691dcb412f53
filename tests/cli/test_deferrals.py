"""`impact`, `stats`, `why` and the dashboard about mail that waits: who, why, since when, and the
rule that ends it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from fakes.attack import mail, play
from fakes.commands import asking, record, with_store
from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer, Spec
from fakes.evaluations import evaluation
from fakes.milter_client import MilterClient

NOW = datetime.now(UTC)
HOSTILE = '<script>"x".y]\'.example'
Ask = Callable[..., str]


def deferred(author: str, deferral: Deferral, **changes: object) -> Evaluation:
    return evaluation(
        author,
        verdict=Verdict(Disposition.NONE, Policy.REJECT, deferral=deferral),
        at=NOW,
        **changes,
    )


MAIL = (
    *(
        deferred("bank.example", Deferral("dns", "inc.bank.example"), queue_id=f"4QBANK{number}")
        for number in range(3)
    ),
    deferred("busy.example", Deferral("overloaded")),
    deferred("odd.example", Deferral("failure")),
    deferred("hostile.example", Deferral("dns", HOSTILE)),
    evaluation(
        "monitored.example",
        verdict=Verdict(
            Disposition.NONE,
            Policy.REJECT,
            would_be=Disposition.NONE,
            would_wait=Deferral("dns", "_dmarc.monitored.example"),
        ),
        at=NOW,
    ),
    replace(evaluation("legit.example"), at=NOW),
)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """`dmarc-milter ...` over a spool that holds MAIL."""
    record(tmp_path, MAIL)
    ask = asking(with_store(tmp_path), capsys)

    def run(*words: str) -> str:
        answer = ask(*words)
        assert answer.code == 0
        return answer.out

    return run


@pytest.mark.parametrize("command", ["impact", "stats"])
def test_what_waits_is_listed_with_its_rule(ask: Ask, command: str) -> None:
    """By author domain and failing name, with the code of the reply."""
    text = ask(command)
    for words in (
        "451 4.4.3: the DNS of inc.bank.example did not answer",
        "451 4.3.2: this mail server is overloaded",
        "451 4.3.0: the mail filter failed on this message",
        "(would have waited)",
        'author_domains = ["bank.example"]',
        "forgeries too",
    ):
        assert words in text, words
    assert 'author_domains = ["busy.example"]' not in text
    assert 'author_domains = ["legit.example"]' not in text


@pytest.mark.parametrize("command", ["impact", "stats"])
def test_json_has_the_same(ask: Ask, command: str) -> None:
    """Since when, how many, and a rule that is TOML whatever the name is."""
    found = {
        each["author_domain"]: each for each in json.loads(ask(command, "--json"))["deferrals"]
    }
    bank = found["bank.example"]
    assert (bank["reason"], bank["code"], bank["failing_name"]) == (
        "dns",
        "451 4.4.3",
        "inc.bank.example",
    )
    assert (bank["attempts"], bank["deferred"], bank["messages"]) == (3, 3, 3)
    assert bank["first_at"] <= bank["last_at"] <= int(NOW.timestamp())
    assert (found["busy.example"]["code"], found["busy.example"]["rule"]) == ("451 4.3.2", "")
    assert found["monitored.example"]["deferred"] == 0
    (rule,) = tomllib.loads(found["hostile.example"]["rule"])["policy"]["rules"]
    assert HOSTILE in rule["comment"]
    assert "legit.example" not in found


def test_the_three_reasons_are_counted(ask: Ask) -> None:
    assert json.loads(ask("stats", "--json"))["deferred"] == {
        "dns": 4,
        "overloaded": 1,
        "failure": 1,
    }


def test_impact_counts_what_monitor_mode_would_defer(ask: Ask) -> None:
    (found,) = (
        each
        for each in json.loads(ask("impact", "--json"))["domains"]
        if each["author_domain"] == "monitored.example"
    )
    assert (found["deferred"], found["would_defer"], found["messages"]) == (0, 1, 1)
    assert "1 would have been deferred" in ask("impact")


def test_why_explains_and_finds_them(ask: Ask) -> None:
    text = ask("why", "4QBANK1")
    assert "Decision: deferred (451 4.4.3)" in text
    assert "3 such attempts of 3 messages since " in text
    assert "Mail that waits" in ask("why", "--disposition", "tempfail")
    (one,) = json.loads(ask("why", "--json", "4QBANK1"))["deferrals"]
    assert (one["failing_name"], one["attempts"]) == ("inc.bank.example", 3)
    assert json.loads(ask("why", "--json", "--domain", "legit.example"))["deferrals"] == []
    assert "monitored.example" in ask("why", "--would-be", "tempfail")


def test_pages_show_them_and_nothing_of_a_name_is_markup(ask: Ask, tmp_path: Path) -> None:
    """STO-04: the page of `stats --html`, and the dashboard's overview."""
    html = ask("stats", "--html")
    ask("store", "drain")
    store = Store.open(f"sqlite:///{tmp_path}/reports.db")
    options = WebOptions(lambda: store, tmp_path / "spool.db", clock=NOW.timestamp)
    client = create_app(options).test_client()
    page = client.get("/").get_data(as_text=True)
    assert "the DNS of inc.bank.example did not answer" in client.get(
        "/domains/bank.example"
    ).get_data(as_text=True)
    assert "Mail that waits" not in client.get("/domains/legit.example").get_data(as_text=True)
    store.close()
    for text in (html, page):
        assert "451 4.4.3: the DNS of inc.bank.example did not answer" in text
        assert "<script>&#34;" not in text
        assert '<script>"x' not in text
        assert "&lt;script&gt;" in text
    assert "author_domains = [&#34;bank.example&#34;]" in page


BANK: dict[str, Spec] = {
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
    "bank.example": {"TXT": ["v=spf1 include:lame.bank.example -all"]},
    "lame.bank.example": {"behaviour": "servfail"},
}


def answer_of(
    folder: Path, dns: DnsServer, extra: str = "", **policy: bool
) -> tuple[str, str, Path]:
    """What a daemon says to the bank's letter, its log, and its configuration."""
    tables: dict[str, dict[str, object]] = {
        "milter": {"workers": 1},
        "dns": {"nameservers": [dns.nameserver], "cache_entries": 0},
        "policy": dict(policy),
        "dmarc": {"on_temperror": "enforced"},
    }
    folder.mkdir()
    with Daemon(folder, tables, extra=extra) as daemon:
        with MilterClient(daemon.address, timeout=30) as mta:
            mta.negotiate()
            text = play(mta, mail(b"<a@bank.example>", mail_from=b"<a@bank.example>")).answer.text
        assert wait_for(lambda: daemon.events("message"))
        return text, daemon.events("message")[0], daemon.config


def test_a_rule_ends_the_waiting_for_a_lame_delegation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DNS-61: the 451 names the name, `impact` gives a rule, and the daemon that has it
    delivers."""
    with DnsServer(BANK) as dns:
        text, line, config = answer_of(tmp_path / "before", dns)
        assert text.startswith("451 4.4.3 ")
        assert "lame.bank.example" in text
        assert "reply=451 enhanced=4.4.3" in line
        assert "deferral=dns" in line
        assert "failing_name=lame.bank.example" in line
        assert main(["impact", "--json", "--config", str(config)]) == 0
        (found,) = json.loads(capsys.readouterr().out)["deferrals"]
        assert (found["author_domain"], found["failing_name"], found["deferred"]) == (
            "bank.example",
            "lame.bank.example",
            1,
        )
        text, line, _ = answer_of(tmp_path / "after", dns, "\n" + found["rule"] + "\n")
        assert not text.startswith("451")
        assert "disposition=none" in line


def test_monitor_mode_lists_what_would_have_waited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DNS-62: delivered, and told beforehand: nothing of it comes as a surprise when policy is
    enforced."""
    with DnsServer(BANK) as dns:
        text, line, config = answer_of(tmp_path / "monitor", dns, enforce=False)
    assert not text.startswith("451")
    assert "would_be=tempfail" in line
    assert main(["impact", "--json", "--config", str(config)]) == 0
    document = json.loads(capsys.readouterr().out)
    (found,) = document["deferrals"]
    assert (found["failing_name"], found["attempts"], found["deferred"]) == (
        "lame.bank.example",
        1,
        0,
    )
    assert document["domains"][0]["would_defer"] == 1
