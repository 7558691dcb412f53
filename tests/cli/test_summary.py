"""`summary`: a day or a week for the postmaster, printed and mailed."""

from __future__ import annotations

import email
import email.policy
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dmarc_milter.cli import summary
from dmarc_milter.cli.main import main
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.ledger import stopped
from fakes import commands
from fakes.evaluations import evaluation
from fakes.smtp_sink import smtp_sink

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
Record = Callable[..., None]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n'
        '[authentication]\nauthserv_id = "mx.example.com"\n'
    )
    return path


@pytest.fixture
def record(tmp_path: Path) -> Record:
    def write(days_ago: float, *evaluations: Evaluation) -> None:
        at = TODAY - timedelta(days=days_ago)
        commands.record(tmp_path, [replace(each, at=at) for each in evaluations])

    return write


def listed(name: str) -> Evaluation:
    """A post of a list, which signed it, that policy stopped."""
    return evaluation(
        "legit.example",
        source_ip=f"192.0.2.{len(name)}",  # the lists have names of different lengths, and hosts
        dkim=(DkimResult(DkimStatus.PASS, Domain(name), "s"),),
        facts=MessageFacts(list_id=f"dev.{name}"),
    )


def a_week(record: Record) -> None:
    """One list that is known, one that is new, a domain that began to fail."""
    record(10, listed("old-list.example"), *(evaluation("shop.example", passed=True),) * 1)
    record(10, *(evaluation("shop.example", passed=True) for _ in range(20)))
    record(3, listed("old-list.example"), listed("newer-list.example"))
    record(3, *(evaluation("shop.example") for _ in range(12)))
    record(3, *(evaluation("fine.example", passed=True) for _ in range(6)))
    record(-0.5, evaluation("today.example"))  # today is not over


def test_a_week_is_told(config: Path, record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    a_week(record)
    assert main(["summary", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dmarc-milter at mx.example.com, ")
    for words in (
        "20 messages from outside; 30% passed DMARC",
        "14 refused",
        "posts of the list dev.newer-list.example, signed by newer-list.example",
        'dkim = ["newer-list.example"]',
        "shop.example: 12 of 12 messages fail now",
        "dmarc-milter domain shop.example",
    ):
        assert words in out
    assert "old-list.example" not in out
    assert "today.example" not in out


def test_what_was_not_looked_at_is_told(
    config: Path,
    record: Record,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of very much stopped mail a part is looked at for lists and forwarders: of this period, and
    of the one before, by which one is new."""
    a_week(record)
    assert main(["summary", "--config", str(config)]) == 0
    assert "stopped messages" not in capsys.readouterr().out
    monkeypatch.setattr(stopped, "LOOKED_AT", 7)
    assert main(["summary", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "14 refused" in out
    assert "- 7 of 14 stopped messages, of the clients with most, were searched for lists" in out
    record(10, *(evaluation("shop.example") for _ in range(8)))
    assert main(["summary", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "- 7 of 14 stopped messages" in out
    assert "- 7 of 9 stopped messages of the time before" in out


def test_mail_that_waits_is_that_of_the_period(
    config: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came after its end is not told: the number is that of the deferred."""
    verdict = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral("dns"))
    record(1, *(evaluation("slow.example", verdict=verdict) for _ in range(3)))
    record(-0.2, evaluation("slow.example", verdict=verdict))
    assert main(["summary", "--days", "1", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "3 deferred (451)" in out
    assert "slow.example: 3 attempts" in out


def test_reports_that_were_given_up_in_the_period_are_told(
    config: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those about it: a report of Sunday is given up on Tuesday, in another summary."""
    for days, name in ((9, "now.example"), (8.5, "before.example"), (2, "later.example")):
        record(days, evaluation(name))
    main(["store", "drain", "--config", str(config)])
    day = int(TODAY.timestamp())
    with closing(sqlite3.connect(tmp_path / "reports.db")) as store, store:
        for ago, name in ((6, "now"), (8, "before"), (-0.1, "later")):
            store.execute(
                "UPDATE report SET state = 'expired', note = 'no answer', done_at = ?"
                " WHERE policy_domain = ?",
                (day - int(ago * 86400), f"{name}.example"),
            )
    capsys.readouterr()
    assert main(["summary", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "now.example: expired, no answer" in out
    assert "before.example: expired" not in out
    assert "later.example: expired" not in out


def test_nothing_happened_is_told_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "0 messages from outside" in out
    assert out.rstrip().endswith("- Nothing.")


def test_names_of_strangers_are_escaped_in_html(
    config: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    record(
        2,
        evaluation(
            "legit.example",
            dkim=(DkimResult(DkimStatus.PASS, Domain("l.example"), "s"),),
            facts=MessageFacts(list_id="<script>alert(1)</script>"),
        ),
    )
    assert main(["summary", "--html", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "<script" not in out
    assert "&lt;script&gt;" in out


def test_the_mail_has_both_forms(config: Path, record: Record) -> None:
    a_week(record)
    with smtp_sink() as sink:
        config.write_text(
            config.read_text()
            + '[summary]\nto = "postmaster@example.com"\n'
            + f'[reporting]\nsmtp = "127.0.0.1:{sink.port}"\n'
        )
        assert main(["summary", "--send", "--days", "7", "--config", str(config)]) == 0
        (mail,) = sink.mails
    assert (mail.sender, mail.recipient) == (
        "dmarc-milter@mx.example.com",
        "postmaster@example.com",
    )
    message = email.message_from_bytes(mail.message, policy=email.policy.default)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"].startswith("dmarc-milter at mx.example.com, ")
    plain, page = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert page is not None
    assert "14 refused" in plain.get_content()
    assert "14 refused" in page.get_content()


def test_it_is_off_by_default(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--send", "--config", str(config)]) == 0
    assert "[summary] to is empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("every", "day", "sent"), [("week", 0, True), ("week", 2, False), ("day", 2, True)]
)
def test_a_weeks_summary_is_sent_on_mondays(
    config: Path, monkeypatch: pytest.MonkeyPatch, every: str, day: int, sent: bool
) -> None:
    class Fixed(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 11, 23 + day, 6, 0, tzinfo=UTC)

    monkeypatch.setattr(summary, "datetime", Fixed)
    with smtp_sink() as sink:
        config.write_text(
            config.read_text()
            + f'[summary]\nto = "p@example.com"\nevery = "{every}"\n'
            + f'[reporting]\nsmtp = "127.0.0.1:{sink.port}"\n'
        )
        assert main(["summary", "--send", "--config", str(config)]) == 0
        assert len(sink.mails) == sent


def test_a_mail_server_that_is_away_is_tried_again(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(
        config.read_text()
        + '[summary]\nto = "p@example.com"\nevery = "day"\n[reporting]\nsmtp = "127.0.0.1:9"\n'
    )
    assert main(["summary", "--send", "--config", str(config)]) == 75
    assert "did not take it" in capsys.readouterr().err
