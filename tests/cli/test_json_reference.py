"""docs/reference/json.md names every key that `--json` prints (docs/design.md: `--json` is stable
and documented)."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.report.read import ReadRecord, ReadReport
from dmarc_milter.core.stored import (
    ArcFact,
    DkimFact,
    Facts,
    SpfFact,
    StoredOutcome,
    StoredPolicy,
    StoredReason,
    StoredUri,
)
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.evaluations import evaluation
from fakes.stores import spool_row

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text()
COUNTS = {
    "kinds",
    "dmarc",
    "disposition",
    "would_be",
    "reports",
    "removed",
    "rows",
    "policy",
    "skipped",
}
"""Objects whose keys are words of their own: states, tables, tags."""
ZONE: dict[str, dict[str, Any]] = {
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:agg@legit.example"]}
}
Ask = Callable[..., list[Any]]


def named(heading: str) -> set[str]:
    """What a section of the page shows as code."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"`([a-z_]+)`", section))


def keys(value: Any) -> set[str]:
    """Every key in a document; facts have a section of their own."""
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    inner = (
        keys(each)
        for key, each in value.items()
        if key != "facts" and not (key in COUNTS and isinstance(each, dict))
    )
    return set(value).union(*inner)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """The documents that a command prints; a message is on record, for which a report is due."""
    with DnsServer(ZONE) as dns:
        config = tmp_path / "c.toml"
        config.write_text(
            toml(
                {
                    "store": {"url": f"sqlite:///{tmp_path}/reports.db"},
                    "dns": {"nameservers": [dns.nameserver]},
                }
            )
        )
        prepare(tmp_path / "spool.db")
        spool = SpoolFile(tmp_path / "spool.db")
        spool.write([spool_row(replace(evaluation(), at=datetime.now(UTC)))])
        spool.close()

        def run(*words: str) -> list[Any]:
            main([*words, "--json", "--config", str(config)])
            text = capsys.readouterr().out
            return (
                [json.loads(line) for line in text.splitlines()]
                if text.startswith('{"')
                else [json.loads(text)]
            )

        yield run


@pytest.mark.parametrize(
    ("words", "heading"),
    [
        (("why",), "why"),
        (("why", "nothing"), "why"),
        (("domain", "legit.example"), "domain"),
        (("impact",), "impact"),
        (("rules", "test"), "rules test"),
        (("stats",), "stats"),
        (("report", "list"), "report"),
        (("report", "preview"), "report"),
        (("report", "drop", "0" * 32), "report"),
        (("report", "allow", "a@b.example"), "report"),
        (("report", "bounce"), "report"),
        (("config", "check", "--offline"), "config check"),
        (("doctor",), "doctor"),
        (("store", "status"), "store"),
        (("store", "upgrade"), "store"),
        (("store", "expire"), "store"),
        (("store", "drain"), "store"),
        (("store", "compact"), "store"),
    ],
)
def test_every_key_is_documented(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], heading: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    ask("store", "upgrade")  # makes the store that some of them do not
    documents = ask(*words)
    assert documents
    assert keys(documents) - named(heading) == set()


def test_every_key_of_check_is_documented(ask: Ask, tmp_path: Path) -> None:
    for letter in (
        "From: <a@legit.example>\n\nHello\n",
        "Authentication-Results: x.example; none\nFrom: <a@none.example>\n\nHello\n",
    ):
        (tmp_path / "letter").write_text(letter)
        assert (
            keys(ask("check", str(tmp_path / "letter"), "--ip", "192.0.2.66")) - named("check")
            == set()
        )


def test_every_key_of_check_from_is_documented(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "1.eml").write_text("Subject: no author\n\nHello\n")
    assert keys(ask("check", "--from", str(tmp_path))) - named("check --from") == set()


@pytest.mark.parametrize(
    "struct",
    [Facts, StoredOutcome, StoredPolicy, SpfFact, DkimFact, ArcFact, StoredReason, StoredUri],
)
def test_every_fact_is_documented(struct: type[msgspec.Struct]) -> None:
    assert {field.name for field in msgspec.structs.fields(struct)} - named("facts") == set()


@pytest.mark.parametrize("struct", [ReadReport, ReadRecord])
def test_every_key_of_a_shown_report_is_documented(struct: type[msgspec.Struct]) -> None:
    assert {field.name for field in msgspec.structs.fields(struct)} - named("report") == set()
