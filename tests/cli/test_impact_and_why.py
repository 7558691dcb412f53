"""`impact` prints numbers, and for each the `why` that lists exactly these messages."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

import dmarc_milter
from dmarc_milter.cli.impact import TOTALS
from dmarc_milter.cli.terminal import console, styled, table
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.policy.decide import Disposition, Verdict
from fakes import commands
from fakes.commands import asking, with_store
from fakes.evaluations import evaluation

NOW = datetime.now(UTC)
LONG = ".".join(("a" * 60, "b" * 60, "c" * 60, "example"))
Ask = Callable[..., str]


def done(disposition: Disposition, author: str = "legit.example") -> Evaluation:
    return evaluation(author, verdict=Verdict(disposition, Policy.REJECT, decided_by="p=reject"))


def monitored(would_be: Disposition, author: str = "legit.example") -> Evaluation:
    verdict = Verdict(Disposition.NONE, Policy.REJECT, decided_by="p=reject", would_be=would_be)
    return evaluation(author, verdict=verdict)


def unreadable() -> Evaluation:
    nothing = DmarcResult(DmarcStatus.PERMERROR, None)
    return replace(evaluation(), author=Author(None, "no From field"), dmarc=nothing)


ORDINARY = [
    *(done(Disposition.REJECT) for _ in range(3)),
    *(done(Disposition.QUARANTINE, "b.example") for _ in range(2)),
    evaluation(passed=True),
]
HOSTILE = [
    *(done(Disposition.REJECT, name) for name in (LONG, f"x.{LONG}", "xn--mgbh0fb.example")),
    *(unreadable() for _ in range(4)),
    evaluation(source_ip="2001:db8::66", message_id="<\x1b[31m`$(x)`>"),
    monitored(Disposition.REJECT),
    monitored(Disposition.REJECT, "sub.legit.example"),
    monitored(Disposition.QUARANTINE, LONG),
]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    ask = asking(with_store(tmp_path), capsys)
    return lambda *words: ask(*words).out


def record(folder: Path, mail: list[Evaluation]) -> None:
    """Now, and as many again before the time that is asked about."""
    old = [
        replace(one, id=f"{number:032x}", at=NOW - timedelta(days=3))
        for number, one in enumerate(mail, 1 << 64)
    ]
    commands.record(folder, [*(replace(one, at=NOW) for one in mail), *old])


@pytest.mark.parametrize("mail", [ORDINARY, HOSTILE, ORDINARY + HOSTILE])
@pytest.mark.parametrize("asked", ["", "--domain example", f"--domain {LONG}"])
def test_every_number_is_as_many_as_its_command_lists(
    ask: Ask, tmp_path: Path, mail: list[Evaluation], asked: str
) -> None:
    record(tmp_path, mail)
    out = ask("impact", "--days", "2", *asked.split())
    totals = dict(
        (words, int(number.replace(",", "")))
        for number, words in re.findall(
            r"([\d,]+) ((?:would have been )?(?:refused|quarantined|deferred))\b", out
        )
    )
    commands = dict(re.findall(r"^  ([a-z ]+): dmarc-milter (why .*)$", out, re.MULTILINE))
    assert commands.keys() == totals.keys()
    for words, command in commands.items():
        listed = json.loads(ask(*shlex.split(command), "--json"))["decisions"]
        assert len(listed) == totals[words], command
    assert totals or "Policy stopped and marked nothing" in out


@pytest.mark.parametrize("asked", ["", "--domain example"])
def test_every_number_of_a_row_is_as_many_as_its_command_lists(
    ask: Ask, tmp_path: Path, asked: str
) -> None:
    """`--author` takes a row's name as it stands there, without the names below it."""
    record(tmp_path, ORDINARY + HOSTILE)
    out = ask("impact", "--days", "2", *asked.split())
    document = json.loads(ask("impact", "--days", "2", "--json", *asked.split()))
    commands = dict(re.findall(r"^  ([a-z ]+): dmarc-milter (why .*)$", out, re.MULTILINE))
    named = {words: field for field, (words, _) in TOTALS.items()}
    assert "--author NAME (or --author '(unreadable)')" in out
    for row in document["domains"]:
        for words, command in commands.items():
            author = row["author_domain"] or "(unreadable)"
            listed = json.loads(ask(*shlex.split(command), "--author", author, "--json"))
            assert len(listed["decisions"]) == row[named[words]], (author, command)


def test_what_a_client_sent_is_listed(ask: Ask, tmp_path: Path) -> None:
    record(tmp_path, ORDINARY + HOSTILE)
    document = json.loads(ask("impact", "--days", "2", "--json"))
    (command,) = re.findall(
        r"sent of it: dmarc-milter (why .*)$", ask("impact", "--days", "2"), re.MULTILINE
    )
    addresses = {address for source in document["sources"] for address in source["addresses"]}
    listed = [
        len(json.loads(ask(*shlex.split(command.replace("ADDRESS", one)), "--json"))["decisions"])
        for one in addresses
    ]
    assert sum(listed) == sum(row["messages"] for row in document["domains"])


def test_numbers_are_the_sums_of_the_table(ask: Ask, tmp_path: Path) -> None:
    record(tmp_path, ORDINARY + HOSTILE)
    document = json.loads(ask("impact", "--days", "2", "--json"))
    out = ask("impact", "--days", "2")
    refused = sum(row["refused"] for row in document["domains"])
    assert f"{refused} refused" in out
    assert refused == len(
        [one for one in ORDINARY + HOSTILE if one.verdict.disposition == "reject"]
    )


def test_the_page_of_totals_has_the_style_of_the_dashboard(ask: Ask, tmp_path: Path) -> None:
    """The same style sheet, written into the page, which needs nothing else."""
    record(tmp_path, ORDINARY)
    page = ask("stats", "--html")
    style = (Path(dmarc_milter.__file__).parent / "web/static/style.css").read_text()
    assert page.count("<style>") == 1
    assert f"<style>{style}</style>" in page
    classes = set(re.findall(r'class="([a-z]+)"', page))
    assert {"top", "wide", "scroll", "numbers"} <= classes
    assert all(f".{name}" in style for name in classes)


@pytest.mark.parametrize(
    ("changes", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_fail_and_refused_have_colours_on_a_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], coloured: bool
) -> None:
    """https://no-color.org"""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color"} | changes).items():
        monkeypatch.setenv(name, value)
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stdout", _Stream(terminal=terminal))
        screen = console()
        screen.print(table({"refused": "right", "dmarc": "left"}, [("3", styled("fail"))]))
        assert ("\x1b[31m" in sys.stdout.getvalue()) is (coloured and terminal)  # type: ignore[attr-defined]


class _Stream(StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal
