"""`why`, `impact` and `stats`: what the ledger answers an administrator, from the spool's latest
message on."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from dmarc_milter.cli import terminal
from dmarc_milter.cli.main import main
from dmarc_milter.cli.times import parse_time
from dmarc_milter.config import parse
from dmarc_milter.core.arc import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.core.stored import decode, encode
from fakes import commands
from fakes.commands import Ask, asking, with_store, write
from fakes.evaluations import evaluation
from fakes.stores import spool_row

NOW = datetime.now(UTC)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    return asking(with_store(tmp_path), capsys)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., None]:
    """Write evaluations into the spool, as of now."""
    return lambda *evaluations: commands.record(
        tmp_path, [replace(each, at=NOW) for each in evaluations]
    )


def monitored(author: str = "legit.example", **changes: Any) -> Evaluation:
    verdict = Verdict(
        Disposition.NONE,
        Policy.REJECT,
        decided_by="DMARC failed; monitor",
        would_be=Disposition.REJECT,
    )
    return evaluation(author, verdict=verdict, **changes)


def listed(author: str, address: str = "198.51.100.7") -> Evaluation:
    """A post that a mailing list changed and signed."""
    broken, own = (
        DkimResult(DkimStatus.FAIL, Domain(author), "s"),
        DkimResult(DkimStatus.PASS, Domain("lists.example"), "s"),
    )
    return monitored(
        author,
        source_ip=address,
        dkim=(broken, own),
        facts=MessageFacts(list_id="dev.lists.example"),
    )


# --- why ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["4QWHY1", "<1@legit.example>", "1@legit.example"])
def test_why_finds_what_still_waits_in_the_spool(
    ask: Ask, record: Callable[..., None], key: str
) -> None:
    """A decision taken a second ago is found, by queue id or Message-ID."""
    record(
        evaluation(queue_id="4QWHY1", message_id="1@legit.example"), evaluation(queue_id="4QOTHER")
    )
    code, out, err = ask("why", key)
    assert (code, err) == (0, "")
    assert out.startswith("Message 4QWHY1, ")
    for words in (
        "From: names legit.example",
        "SPF: pass for attack.example",
        "Decision: refused (550)",
        "What would change it:",
    ):
        assert words in out
    assert "4QOTHER" not in out


def test_why_without_a_key_lists_the_latest_and_filters(
    ask: Ask, record: Callable[..., None]
) -> None:
    record(
        evaluation("a.example", queue_id="Q1"),
        evaluation("sub.a.example", queue_id="Q2"),
        evaluation("b.example", passed=True, queue_id="Q3"),
    )
    listed = ask("why")[1]
    assert all(each in listed for each in ("Q1", "Q2", "Q3", "3 decisions"))
    (passed,) = [line for line in listed.splitlines() if "Q3" in line]
    assert "delivered" in passed
    for words, found in (
        (("--domain", "A.example"), {"Q1", "Q2"}),
        (("--disposition", "pass"), {"Q3"}),
        (("--result", "fail", "--limit", "1"), None),
        (("--ip", "::ffff:192.0.2.66", "--since", "1h"), {"Q1", "Q2", "Q3"}),
        (("--until", "1h"), set()),
        (("Q1", "--domain", "b.example"), set()),
        (("Q1", "--domain", "a.example", "--since", "yesterday"), {"Q1"}),
    ):
        code, out, _ = ask("why", *words, "--json")
        names = {each["facts"]["queue_id"] for each in json.loads(out)["decisions"]}
        assert names == found if found is not None else len(names) == 1
        assert code == (0 if names else 1)


def test_why_says_what_to_think_of_when_nothing_is_found(ask: Ask) -> None:
    code, out, err = ask("why", "no\x1b[31msuch")
    assert (code, out) == (1, "")
    assert "nothing is recorded about no\\x1b[31msuch" in err
    assert "14 days" in err


def test_the_json_of_why_has_every_field_whatever_its_value(
    ask: Ask, record: Callable[..., None]
) -> None:
    """Stable: a consumer need not know defaults."""
    record(evaluation(queue_id="Q1"))
    document = json.loads(ask("why", "Q1", "--json")[1])
    [decision] = document["decisions"]
    assert set(decision) == {"host", "done", "sentence", "explanation", "facts"}
    assert decision["facts"]["would_be"] == ""
    assert decision["facts"]["outcome"]["published"]["pct"] is None
    assert decision["facts"]["dkim"][0]["aligned"] == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20 08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 22, 10, 0, tzinfo=UTC)),
        ("today", datetime(2026, 11, 22, tzinfo=UTC)),
        ("yesterday", datetime(2026, 11, 21, tzinfo=UTC)),
        ("999999w", None),
        ("soon", None),
        ("٣d", None),
    ],
)
def test_moments_are_written_as_people_write_them(text: str, expected: datetime | None) -> None:
    import argparse

    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    if expected is None:
        with pytest.raises(argparse.ArgumentTypeError, match="allowed: YYYY"):
            parse_time(text, now=now)
    else:
        assert parse_time(text, now=now) == int(expected.timestamp())


# --- impact ---------------------------------------------------------------------------------------


def test_impact_names_lists_forwarders_and_the_unproven(
    ask: Ask, record: Callable[..., None]
) -> None:
    """Evidence is what was proven: the list's own signature, the sealer's chain; an attacker's bare
    claim stays unproven."""
    seal = ArcResult(ArcStatus.PASS, hops=(ArcHop(1, Domain("relay.example"), "s"),))
    forwarded = [
        monitored(name, source_ip="203.0.113.5", arc=seal) for name in ("a.example", "b.example")
    ]
    claimed = monitored(
        "bank.example", source_ip="192.0.2.99", facts=MessageFacts(list_id="fake.lists.example")
    )
    claimed = replace(claimed, spf=replace(claimed.spf, status=type(claimed.spf.status)("fail")))
    record(
        listed("a.example"),
        listed("b.example", "198.51.100.8"),
        claimed,
        *forwarded,
        evaluation("ok.example", passed=True),
    )
    document = json.loads(ask("impact", "--json")[1])
    assert document["messages"] == 4 + len(forwarded)
    by_kind = {each["kind"]: each for each in document["sources"]}
    posts = by_kind["mailing list"]
    assert posts["identity"] == {"method": "dkim", "domain": "lists.example"}
    assert sorted(posts["addresses"]) == ["198.51.100.7", "198.51.100.8"]
    assert posts["messages"] == 2
    assert by_kind["forwarder"]["identity"] == {"method": "arc", "domain": "relay.example"}
    assert 'author_domains = ["a.example", "b.example"]' in by_kind["forwarder"]["rule"]
    assert by_kind["nobody proven"]["rule"] == ""
    assert "claims to be the list fake.lists.example" in by_kind["nobody proven"]["evidence"]
    assert {each["author_domain"]: each["would_refuse"] for each in document["domains"]}[
        "bank.example"
    ] == 1


def test_a_suggested_rule_is_a_rule(ask: Ask, record: Callable[..., None]) -> None:
    """What is printed can be pasted: it parses, and its condition is the proven name."""
    record(listed("a.example"))
    [source] = json.loads(ask("impact", "--json")[1])["sources"]
    [rule] = parse(source["rule"]).policy.rules
    assert (rule.action, rule.dkim, rule.reason) == ("accept", ["lists.example"], "mailing_list")
    assert source["rule"] in ask("impact")[1]


def test_impact_tells_did_from_would(ask: Ask, record: Callable[..., None]) -> None:
    record(evaluation("a.example"), evaluation("a.example"), monitored("a.example"))
    code, out, _ = ask("impact", "--days", "1")
    assert code == 0
    assert "2 refused, 1 would have been refused." in out
    assert "enforcing" in out


@pytest.mark.parametrize("name", ["bücher.example", "XN--BCHER-KVA.example.", "Example"])
def test_impact_takes_a_domain_in_any_form(
    ask: Ask, record: Callable[..., None], name: str
) -> None:
    """Also one that is above the author's; "nothing was stopped" would be taken for an answer."""
    record(evaluation("xn--bcher-kva.example"), evaluation("a.test"))
    assert [
        each["author_domain"]
        for each in json.loads(ask("impact", "--json", "--domain", name)[1])["domains"]
    ] == ["xn--bcher-kva.example"]


def test_impact_refuses_what_is_no_domain(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ask("impact", "--domain", "alice@a.example")
    assert ended.value.code == 2
    assert "not a domain name" in capsys.readouterr().err


def test_impact_of_nothing_says_so(ask: Ask, record: Callable[..., None]) -> None:
    record(evaluation(passed=True))
    assert "Policy stopped and marked nothing" in ask("impact")[1]


@pytest.mark.parametrize(
    "words", [("why", "--ip", "mail.example"), ("check", "-", "--ip", "192.0.2.300")]
)
def test_what_is_no_address_is_said_in_words(
    ask: Ask, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        ask(*words)
    assert capsys.readouterr().err.endswith(f"argument --ip: {words[-1]!r} is not an address\n")


# --- a terminal -----------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Standard output is a terminal of so many columns."""
    columns = 60
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    return columns


def test_a_narrow_terminal_breaks_no_queue_id(
    ask: Ask, record: Callable[..., None], narrow: int
) -> None:
    """A queue id is there to be copied; sentences wrap at words."""
    record(
        evaluation(queue_id="4QNARROW00001", source_ip="2001:db8:1111:2222:3333:4444:5555:6666"),
        evaluation(),
    )
    code, out, _ = ask("why")
    lines = out.split("\n")
    assert code == 0
    assert max(map(len, lines[:-2])) <= narrow
    assert any("4QNARROW00001" in line.split() for line in lines)
    assert any("2001:db8:1111:2222:3333:4444:5555:6666" in line.split() for line in lines)
    assert lines[0] == "time (UTC), queue id, From, client, dmarc, done, because:"


def test_a_narrow_terminal_gets_numbers_with_their_headings(
    ask: Ask, record: Callable[..., None], narrow: int
) -> None:
    record(evaluation(), evaluation(passed=True))
    out = ask("stats")[1]
    assert "\nall  messages 2  dmarc=pass 1  dmarc=fail 1  delivered 1\n    refused 1\n" in out
    assert "temperror" not in out, "what is 0 is left out"
    assert max(map(len, out.split("\n"))) <= narrow


# --- stats ----------------------------------------------------------------------------------------


def test_totals_add_up_in_every_form(ask: Ask, record: Callable[..., None]) -> None:
    record(evaluation(), evaluation(), evaluation(passed=True))
    document = json.loads(ask("stats", "--json")[1])
    assert document["sum"]["messages"] == 3
    assert document["sum"]["dmarc"] == {"fail": 2, "pass": 1}
    assert document["days"][0]["disposition"] == {"reject": 2, "pass": 1}
    assert document["days"][0]["day"] == NOW.strftime("%Y-%m-%d")
    text = ask("stats")[1]
    assert "dmarc=fail" in text
    assert any(line.split()[:2] == ["all", "3"] for line in text.split("\n"))


def test_delivered_counts_what_passed_too_and_monitor_mode_is_told_apart(
    ask: Ask, record: Callable[..., None]
) -> None:
    """As the dashboard counts: every message is in one of delivered, quarantined, refused,
    deferred."""
    record(evaluation(), evaluation(passed=True), monitored())
    text = ask("stats")[1]
    (head,) = (
        line.split() for line in text.split("\n") if "delivered" in line and "messages" in line
    )
    (row,) = (line.split() for line in text.split("\n") if line.split()[:1] == ["all"])
    found = dict(zip(head[2:], row[1:], strict=True))  # "day (UTC)" is two words
    assert [
        found[name] for name in ("messages", "delivered", "quarantined", "refused", "deferred")
    ] == ["3", "2", "0", "1", "0"]
    assert (
        "Delivered in monitor mode: 1 that would have been refused, 0 that would have been"
        " quarantined" in text
    )


def test_reports_that_nobody_sends_are_told_as_such(
    ask: Ask, record: Callable[..., None], tmp_path: Path
) -> None:
    """Rows are kept for a report while reporting is off as well."""
    record(evaluation())
    assert ask("store", "drain")[0] == 0
    off = "Reports (reporting is off: none is sent)"
    assert f"{off}: 1 due" in ask("stats")[1]
    assert f"<caption>{off}</caption>" in ask("stats", "--html")[1]
    with (tmp_path / "dmarc-milter.toml").open("a") as file:
        file.write('[reporting]\norg_name = "x"\nemail = "dmarc@mx.example"\n')
    assert "Reports: 1 due" in ask("stats")[1]


def test_the_page_of_totals_needs_nothing_else(ask: Ask, record: Callable[..., None]) -> None:
    """Self-contained: no script, nothing to fetch."""
    record(evaluation())
    out = ask("stats", "--html")[1]
    tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, attrs))

    Reader().feed(out)
    assert {"table", "caption", "th"} <= {tag for tag, _ in tags}
    assert "script" not in {tag for tag, _ in tags}
    assert not [attrs for _, attrs in tags if any(name in ("src", "href") for name, _ in attrs)]
    assert "<td>1</td>" in out


def test_a_store_that_cannot_be_reached_is_tried_again_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/design.md: 75 is EX_TEMPFAIL."""
    config = tmp_path / "c.toml"
    config.write_text('[store]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n')
    for words in (("why", "x"), ("impact",), ("stats",)):
        started = time.monotonic()
        assert main([*words, "--config", str(config)]) == 75
        assert capsys.readouterr().err.startswith("dmarc-milter: ")
        assert time.monotonic() - started < 20


def test_a_store_under_repair_still_answers(
    tmp_path: Path, ask: Ask, record: Callable[..., None]
) -> None:
    """Questions write nothing where nothing waits in the spool, so that no writer keeps them
    waiting."""
    record(evaluation(queue_id="4QLOCKED"))
    assert ask("store", "drain")[0] == 0
    with contextlib.closing(
        sqlite3.connect(tmp_path / "reports.db", isolation_level=None)
    ) as writer:
        writer.execute("BEGIN IMMEDIATE")
        for words in (("why", "4QLOCKED"), ("impact",), ("stats",), ("report", "list")):
            assert ask(*words)[::2] == (0, "")


@pytest.mark.parametrize(
    ("account", "hint"),
    [
        (0, "`dmarc-milter store status` says what to do"),
        (1000, "run this as the service's account"),
    ],
)
def test_a_store_that_cannot_be_opened_says_what_next(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    account: int,
    hint: str,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: account)
    (tmp_path / "c.toml").write_text(f'[store]\nurl = "sqlite:///{tmp_path}/absent/reports.db"\n')
    for words in (("why", "x"), ("impact",), ("stats",), ("report", "list")):
        assert main([*words, "--config", str(tmp_path / "c.toml")]) == 1
        assert (
            capsys.readouterr().err
            == f"dmarc-milter: {tmp_path}/absent/reports.db: No such file or directory; {hint}\n"
        )


@contextlib.contextmanager
def held_open(*paths: Path) -> Iterator[None]:
    """These databases are in use by another process, as the drain's are."""
    script = (
        "import sqlite3, sys; held = [sqlite3.connect(each) for each in"
        " sys.argv[1:]];[each.execute('SELECT * FROM sqlite_master').fetchall() for each in held];"
        " print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        try:
            yield
        finally:
            process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_only_read_the_store_gets_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/design.md, The ledger: the decision log is readable by the service's group, whose
    members write nothing."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "c.toml").write_text(f'[store]\nurl = "sqlite:///{folder}/reports.db"\n')
        config = ("--config", str(folder / "c.toml"))
        rows = [
            spool_row(replace(evaluation(queue_id=each), at=NOW)) for each in ("4QREAD", "4QLATE")
        ]
        write(folder / "spool.db", rows[:1])
        assert main(["store", "drain", *config]) == 0
        questions = (("why", "4QREAD"), ("impact",), ("stats",), ("report", "list"))
        for words in questions:
            assert main([*words, *config]) == 0
        write(folder / "spool.db", rows[1:])
        stack.enter_context(held_open(folder / "spool.db", folder / "reports.db"))
        for each in folder.iterdir():
            each.chmod(0o644)
        capsys.readouterr()
        stack.callback(os.seteuid, 0)
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("this root may not become others")
        for words in questions:
            assert main([*words, *config]) == 0
            out, err = capsys.readouterr()
            assert out
            assert err.startswith("dmarc-milter: the latest messages are not in this answer: ")
        os.seteuid(0)
        (folder / "reports.db").chmod(0o600)
        os.seteuid(65534)
        assert main(["why", *config]) == 1
        assert capsys.readouterr().err.endswith("; run this as the service's account\n")


def test_decisions_of_a_newer_program_are_one_sentence(
    tmp_path: Path, ask: Ask, record: Callable[..., None]
) -> None:
    """A host that was not upgraded yet shares the store with one that was."""
    record(evaluation(queue_id="4QNEWER"))
    assert ask("store", "drain")[0] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "reports.db")) as database, database:
        ((stored,),) = database.execute("SELECT facts FROM decision").fetchall()
        database.execute(
            "UPDATE decision SET facts = ?", (encode(replace_struct(decode(stored), version=99)),)
        )
    code, out, err = ask("why", "4QNEWER")
    assert (code, out) == (1, "")
    assert "newer program" in err
    assert err.count("\n") == 1
