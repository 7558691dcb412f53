"""`impact` prints numbers, and for each the `why` that lists exactly these messages."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from fakes.evaluations import evaluation
from fakes.stores import spool_row

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
    config = tmp_path / "dmarc-milter.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n')

    def run(*words: str) -> str:
        main([*words, "--config", str(config)])
        return capsys.readouterr().out

    return run


def record(folder: Path, mail: list[Evaluation]) -> None:
    """Now, and as many again before the time that is asked about."""
    prepare(folder / "spool.db")
    spool = SpoolFile(folder / "spool.db")
    old = [
        replace(one, id=f"{number:032x}", at=NOW - timedelta(days=3))
        for number, one in enumerate(mail, 1 << 64)
    ]
    spool.write([spool_row(one) for one in [*(replace(one, at=NOW) for one in mail), *old]])
    spool.close()


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


def test_numbers_are_the_sums_of_the_table(ask: Ask, tmp_path: Path) -> None:
    record(tmp_path, ORDINARY + HOSTILE)
    document = json.loads(ask("impact", "--days", "2", "--json"))
    out = ask("impact", "--days", "2")
    refused = sum(row["refused"] for row in document["domains"])
    assert f"{refused} refused" in out
    assert refused == len(
        [one for one in ORDINARY + HOSTILE if one.verdict.disposition == "reject"]
    )
