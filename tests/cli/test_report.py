"""`dmarc-milter report`: lists, the preview, one run, a stranger's report on the terminal, bounces
from a pipe."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import parse
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.report.failure import header_sample
from dmarc_milter.core.report.read import read
from dmarc_milter.daemon.startup import startup_lines as prepare_service
from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.reporting import bounce
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.evaluations import RECORD, evaluation
from fakes.smtp_sink import Sink, smtp_sink
from fakes.stores import spool_row

NOW = datetime.now(UTC)
ZONE: dict[str, dict[str, Any]] = {
    "legit.example": {"MX": [(10, "mx.legit.example")]},
    "agg.other.example": {"MX": [(0, "")]},
    "other.example": {"TXT": ["v=spf1 -all"]},
}


PROMISED = {
    "report_id",
    "policy_domain",
    "begin",
    "end",
    "rows",
    "messages",
    "destinations",
    "state",
}


class Command:
    """`dmarc-milter report ...` with a configuration of its own."""

    def __init__(
        self, folder: Path, dns: DnsServer, sink: Sink, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.dns, self.sink, self._capture = folder, dns, sink, capture
        self.store = f"sqlite:///{folder}/reports.db"
        self.settings: dict[str, Any] = {
            "org_name": "Receiver",
            "email": "dmarc@mx.example",
            "smtp": f"127.0.0.1:{sink.port}",
        }

    def __call__(self, *words: str) -> tuple[int, str, str]:
        config = self.folder / "c.toml"
        config.write_text(
            toml(
                {
                    "store": {"url": self.store},
                    "dns": {"nameservers": [self.dns.nameserver]},
                    "reporting": self.settings,
                }
            )
        )
        code = main(["report", *words, "--config", str(config)])
        captured = self._capture.readouterr()
        return code, captured.out, captured.err

    def lines(self, *words: str) -> list[dict[str, Any]]:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def failed(self, *evaluations: Evaluation) -> None:
        """Messages with what is kept of them for failure reports."""
        headers = Headers((HeaderField(b"From", b" Vera <vera@legit.example>"),))
        prepare(self.folder / "spool.db")
        spool = SpoolFile(self.folder / "spool.db")
        seen = [replace(each, at=NOW) for each in evaluations]
        spool.write([spool_row(one, header_sample(one, headers, b"k" * 32)) for one in seen])
        spool.close()

    def saw(self, *evaluations: Evaluation) -> None:
        prepare(self.folder / "spool.db")
        spool = SpoolFile(self.folder / "spool.db")
        spool.write([spool_row(replace(each, at=NOW)) for each in evaluations])
        spool.close()


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with DnsServer(ZONE) as dns, smtp_sink() as sink:
        yield Command(tmp_path, dns, sink, capsys)


def test_the_way_of_a_report(report: Command) -> None:
    """Issue of the day: seen, previewed, sent, listed; each as one JSON object with the words that
    are promised."""
    report.saw(evaluation(), evaluation(), evaluation(passed=True, source_ip="192.0.2.1"))
    [due] = report.lines("preview")
    day = int(NOW.timestamp()) // 86400 * 86400
    assert (due["policy_domain"], due["begin"], due["end"], due["rows"], due["messages"]) == (
        "legit.example",
        day,
        day + 86399,
        2,
        3,
    )
    assert (due["state"], [each["address"] for each in due["destinations"]]) == (
        "due",
        ["agg@legit.example"],
    )
    code, out, _ = report("send", "--now")
    assert (code, out) == (0, "reports: 1 queued; deliveries: 1 sent\n")
    [sent] = report.lines("list")
    assert (sent["report_id"], sent["state"], sent["destinations"][0]["state"]) == (
        due["report_id"],
        "sent",
        "sent",
    )
    [shown] = report.lines("show", due["report_id"])
    assert {key: shown[key] for key in PROMISED} == {key: sent[key] for key in PROMISED}
    assert read(report.sink.mails[0].message)[0].report_id == due["report_id"]
    _, table, _ = report("list")
    assert due["report_id"] in table
    assert "agg@legit.example" in table


@pytest.mark.parametrize("name", ["bücher.example", "XN--BCHER-KVA.example."])
def test_a_domain_may_be_written_in_any_form(report: Command, name: str) -> None:
    """The limit counts what is asked for, not what stands before it."""
    report.saw(evaluation("legit.example"), evaluation("xn--bcher-kva.example"))
    for what in ("list", "preview"):
        assert [
            each["policy_domain"] for each in report.lines(what, "--domain", name, "--limit", "1")
        ] == ["xn--bcher-kva.example"]


def test_every_command_about_a_report_prints_the_same_object(report: Command) -> None:
    """One object for each report, with the keys that `list` has; of a run, for those that it built
    or tried."""
    report.saw(evaluation(), evaluation("other.example"))
    report.sink.answer = lambda stage, _: "451 4.7.1 later" if stage == "rcpt" else ""
    done = {each["policy_domain"]: each for each in report.lines("send", "--now")}
    assert {name: each["state"] for name, each in done.items()} == {
        "legit.example": "queued",
        "other.example": "suppressed",
    }
    assert all(set(each) >= PROMISED for each in done.values())
    report.sink.answer = lambda *_: ""
    [sent] = report.lines("send", "--now")
    assert (sent["report_id"], sent["state"], sent["destinations"][0]["attempts"]) == (
        done["legit.example"]["report_id"],
        "sent",
        2,
    )
    assert report.lines("send", "--now") == []
    [again] = report.lines("resend", sent["report_id"])
    assert (again["done"], again["state"], set(again) >= PROMISED) == (True, "queued", True)
    code, out, _ = report("drop", "0" * 32, "--json")
    assert (code, json.loads(out)) == (1, {"report_id": "0" * 32, "done": False})


def test_off_until_somebody_says_in_whose_name(report: Command) -> None:
    """It says so, nothing is sent, and what would be can be seen. No failure either: the timer runs
    from the first day."""
    report.settings = {}
    report.saw(evaluation())
    code, _, said = report("send", "--now")
    assert (code, said.count("\n"), "org_name and email" in said) == (0, 1, True)
    assert not report.sink.mails
    code, out, said = report("preview")
    assert (code, "legit.example" in out, "org_name and email" in said) == (0, True, True)


def test_the_preview_says_what_is_not_sent_and_why(report: Command) -> None:
    report.saw(
        evaluation("quiet.example", passed=True, facts=MessageFacts(is_report=True)),
        evaluation("other.example"),
    )
    found = {each["policy_domain"]: each for each in report.lines("preview")}
    assert "loop" in found["quiet.example"]["note"]
    [skipped] = found["other.example"]["destinations"]
    assert (skipped["state"], "did not ask" in skipped["reply"]) == ("skipped", True)
    report("send", "--now")
    assert not report.sink.mails


def test_a_server_that_is_away_is_try_again_later(report: Command) -> None:
    report.settings["smtp"] = "127.0.0.1:1"
    report.saw(evaluation())
    code, _, said = report("send", "--now")
    assert (code, "does not take mail now" in said) == (75, True)
    assert report.lines("list")[0]["state"] == "queued"


def test_drop_and_resend(report: Command) -> None:
    report.saw(evaluation())
    report("send", "--now")
    [sent] = report.lines("list")
    assert report("drop", sent["report_id"])[0] == 1, "it is with its recipient"
    assert report("resend", sent["report_id"])[0] == 0
    report("send")
    assert [read(each.message)[0].report_id for each in report.sink.mails] == [
        sent["report_id"]
    ] * 2
    assert (
        report.sink.mails[0].message.partition(b"\r\n")[2]
        == report.sink.mails[1].message.partition(b"\r\n")[2]
    ), "but for the date"
    assert report("resend", "0" * 32)[0] == 1


@pytest.mark.parametrize(
    "words", [("list", "--domain"), ("preview", "--domain"), ("resend",), ("drop",), ("allow",)]
)
def test_octets_that_are_no_text_are_nothing_that_is_there(
    report: Command, words: tuple[str, ...]
) -> None:
    """As the shell hands them over; neither a traceback nor the octets themselves on the
    terminal."""
    report.saw(evaluation())
    code, out, err = report(*words, "\udcff\x1b[31m")
    assert code == (0 if words[0] in ("list", "preview") else 1)
    assert (out + err).isascii()
    assert "\x1b" not in out + err


HOSTILE = b"""<feedback><report_metadata><org_name>\
\xc2\x9b31mred [bold]x[/bold]</org_name><report_id>../../x</report_id>
<email>a&#10;b</email><date_range><begin>99999999999999999999</begin><end>5</end></date_range></report_metadata>
<policy_published><domain>x</domain></policy_published><record><row><source_ip>\xe2\x80\xae1</source_ip><count>3</count></row></record></feedback>"""


def test_rpt_01_a_strangers_report_cannot_write_on_the_terminal(
    report: Command, tmp_path: Path
) -> None:
    """Control characters, bidirectional overrides and markup are shown, not obeyed."""
    file = tmp_path / "hostile.xml"
    file.write_bytes(HOSTILE)
    code, out, _ = report("show", str(file))
    assert code == 0
    assert all(each == "\n" or each.isprintable() for each in out)
    assert "\u202e" not in out
    assert "[bold]" in out
    assert "3 messages" in out


@pytest.mark.parametrize(("content", "code"), [(b"nothing", 1), (None, 2)])
def test_what_cannot_be_shown_is_told_in_one_line(
    report: Command, tmp_path: Path, content: bytes | None, code: int
) -> None:
    file = tmp_path / "x"
    if content is not None:
        file.write_bytes(content)
    found, out, err = report("show", str(file))
    assert (found, out, err.count("\n")) == (code, "", 1)


DSN = """To: {0}\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\
Content-Type: message/delivery-status\r\n
Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; x@y\r\n\
Action: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"""


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """What standard input holds."""

    def fill(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return fill


def test_a_hard_bounce_is_shown_and_can_be_forgiven(
    report: Command, pipe: Callable[[bytes], None]
) -> None:
    """docs/how-to/bounces.md: an alias pipes the notification here."""
    report.saw(evaluation())
    report("send", "--now")
    pipe(DSN.format(report.sink.mails[0].sender).encode())
    code, out, _ = report("bounce")
    assert (code, "not written to for 30 days" in out) == (0, True)
    _, listed, _ = report("list")
    assert "not written to" in listed
    assert "5.1.1" in listed
    report.saw(evaluation())
    report("send", "--now")
    assert len(report.sink.mails) == 1
    assert report("allow", "agg@legit.example")[0] == 0
    report.saw(evaluation())
    report("send", "--now")
    assert len(report.sink.mails) == 2


def test_an_administrator_suppresses_and_allows(report: Command) -> None:
    """An address, or a domain with everything at and below it, for a while or until it is allowed
    again."""
    report.saw(evaluation())
    code, out, _ = report("suppress", "Legit.Example", "--why", "they asked\x1b[31m us")
    assert (code, "legit.example, all addresses there" in out) == (0, True)
    assert "until `dmarc-milter report allow`" in out
    report("send", "--now")
    assert report.sink.mails == []
    _, listed, _ = report("list")
    assert "always" in listed
    assert "they asked" in listed
    assert "\x1b[31m us" not in listed
    assert report("allow", "legit.example")[0] == 0
    assert report("allow", "legit.example")[0] == 1
    report.saw(evaluation())
    report("send", "--now")
    assert len(report.sink.mails) == 1


def test_a_suppression_has_an_end(report: Command) -> None:
    code, out, _ = report("suppress", "agg@legit.example", "--until", "30d", "--json")
    found = json.loads(out)
    assert (code, found["address"]) == (0, "agg@legit.example")
    assert 29 * 86400 < found["until"] - time.time() < 31 * 86400
    code, out, _ = report("suppress", "agg@legit.example", "--until", "1d", "--json")
    assert json.loads(out)["until"] < found["until"], "the administrator's word counts"


@pytest.mark.parametrize(
    "target", ["", "@", "a b@x.example", "a@", "@x.example", "no domain", "x" * 70]
)
def test_what_is_neither_address_nor_domain_is_not_suppressed(report: Command, target: str) -> None:
    code, _, error = report("suppress", target)
    assert (code, error.startswith("dmarc-milter: ")) == (2, True)


@pytest.mark.parametrize("until", ["yesterday", "2020-01-01", "0d", "soon", "9" * 30 + "d"])
def test_a_suppression_ends_in_time_to_come(report: Command, until: str) -> None:
    with pytest.raises(SystemExit) as ended:
        report("suppress", "legit.example", "--until", until)
    assert ended.value.code == 2


def test_allow_tells_what_still_holds(report: Command) -> None:
    report("suppress", "legit.example")
    report("suppress", "agg@legit.example")
    code, _, error = report("allow", "agg@legit.example")
    assert (code, "still suppressed: legit.example" in error) == (0, True)


WORDS = "Return-Path: <>\nTo: {0}\n\n<agg@legit.example>:\nRemote host said: 550 5.1.1 nobody\n"


def test_rpt_28_a_bounce_in_words_alone_counts_for_a_week(
    report: Command, pipe: Callable[[bytes], None]
) -> None:
    """qmail, Exim and others write no delivery status; what only their text says is believed for a
    shorter time."""
    report.saw(evaluation())
    report("send", "--now")
    pipe(WORDS.format(report.sink.mails[0].sender).encode())
    code, out, _ = report("bounce")
    assert (code, "not written to for 7 days: Remote host said: 550 5.1.1 nobody" in out) == (
        0,
        True,
    )


@pytest.mark.parametrize(
    ("recipient", "sender", "left"),
    [
        ("{}", "", True),
        ("{}", "a@x.example", False),
        ("dmarc@mx.example", "", True),
        ("{}x", "", True),
        ("", "MAILER-DAEMON", True),
    ],
)
def test_what_the_mail_system_says_comes_first(
    report: Command, pipe: Callable[[bytes], None], recipient: str, sender: str, left: bool
) -> None:
    """Recipient and envelope sender on the command line; the mail's own fields only where these say
    nothing."""
    report.saw(evaluation())
    report("send", "--now")
    tagged = report.sink.mails[0].sender
    pipe(WORDS.format(tagged).encode())
    _, out, _ = report("bounce", "--recipient", recipient.format(tagged), "--sender", sender)
    assert ("not written to" in out) == left


def test_rpt_20_without_a_tag_no_store_is_opened(
    report: Command, pipe: Callable[[bytes], None]
) -> None:
    """A bounce without a valid tag changes nothing and costs nothing: not even a store that is away
    is missed."""
    report.store = "postgresql://x@127.0.0.1:1/x"
    for to in (
        "dmarc@mx.example",
        "dmarc+x@mx.example",
        f"dmarc+{'a' * 32}-0badcafe@else.example",
        f"dmarc+{'a' * 31}-0badcafe@mx.example",
    ):
        pipe(DSN.format(to).encode())
        assert report("bounce")[:2] == (
            0,
            "not sent to the envelope sender of one of our reports\n",
        ), to


def test_rpt_22_a_guessed_tag_changes_nothing(
    report: Command, pipe: Callable[[bytes], None]
) -> None:
    """Each of a report's addresses knows its id, none the other's tag."""
    report.saw(evaluation())
    report("send", "--now")
    tagged = report.sink.mails[0].sender
    pipe(DSN.format(tagged.replace(tagged.partition("-")[2][:8], "01234567")).encode())
    code, out, _ = report("bounce")
    assert (code, "not known" in out) == (0, True)
    assert "not written to" not in report("list")[1]


@pytest.mark.parametrize("data", [b"", b"From: spam@x\r\n\r\nBuy", b"\xff\xfe" * 5000])
def test_other_mail_to_the_bounce_address_is_taken_quietly(
    report: Command, pipe: Callable[[bytes], None], data: bytes
) -> None:
    """An exit code would make the MTA bounce a bounce."""
    pipe(data)
    assert report("bounce")[0] == 0


def test_a_notification_of_any_size_is_read_to_its_end(
    report: Command, pipe: Callable[[bytes], None]
) -> None:
    """It may bring back the whole report; an MTA whose pipe breaks takes that for a failure and
    comes again."""
    pipe(DSN.format("somebody@else.example").encode() + b"x" * (bounce.MAX_OCTETS * 2))
    assert report("bounce")[0] == 0
    assert sys.stdin.buffer.read() == b""


@pytest.mark.parametrize(
    "url", ["sqlite:///{}/nowhere/reports.db", "postgresql://x@127.0.0.1:1/x", "nonsense"]
)
def test_a_bounce_that_cannot_be_noted_now_comes_again(
    report: Command, pipe: Callable[[bytes], None], url: str
) -> None:
    """75: the mail system keeps it while somebody mends the store, its permissions or the file."""
    report.store = url.format(report.folder)
    pipe(DSN.format(f"dmarc+{'a' * 32}-00000000@mx.example").encode())
    code, _, said = report("bounce")
    assert (code, said.count("\n")) == (75, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "reports: OFF until [reporting] org_name and email are set"),
        (
            '[reporting]\norg_name = "R"\nemail = "d@mx.example"',
            "reports: aggregate, from d@mx.example through 127.0.0.1:25",
        ),
    ],
)
def test_the_daemon_says_at_its_start_whether_it_reports(
    tmp_path: Path, settings: str, said: str
) -> None:
    assert said in prepare_service(
        parse(f'[store]\nurl = "sqlite:///{tmp_path}/reports.db"\n{settings}')
    )


@pytest.mark.parametrize("what", ["resend", "drop"])
def test_an_unknown_id_is_said_with_the_way_to_the_known_ones(report: Command, what: str) -> None:
    code, out, _ = report(what, "NOPE")
    assert (code, out.count("\n")) == (1, 1)
    assert "no report in the store has this id" in out
    assert "`dmarc-milter report list`" in out


def test_what_is_neither_file_nor_id_is_said_so(report: Command) -> None:
    code, _, said = report("show", "NOPE")
    assert (code, said.count("\n")) == (2, 1)
    assert (
        "NOPE: No such file or directory, and no id of a report; `dmarc-milter report list`" in said
    )


def test_an_id_may_be_given_by_its_beginning(report: Command) -> None:
    """As a terminal shows it; what begins several ids is not one."""
    report.saw(evaluation(), *(evaluation(f"d{number}.example") for number in range(40)))
    ids = [each["report_id"] for each in report.lines("list")]
    [shown] = report.lines("show", ids[0][:12])
    assert shown["report_id"] == ids[0]
    assert report("show", ids[0][:3])[0] != 0
    report("drop", ids[1][:12])
    assert {each["report_id"] for each in report.lines("list", "--state", "suppressed")} == {ids[1]}
    for text in ("%", "____", "0000", "f" * 33, "g" * 12):
        assert report("drop", text)[0] == 1
    assert len(report.lines("list", "--state", "suppressed")) == 1


def test_an_ambiguous_beginning_is_said_so(
    report: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.saw(evaluation())
    monkeypatch.setattr("dmarc_milter.cli.report.show.matching", lambda *_: ["a" * 32, "ab" * 16])
    for what in ("show", "drop", "resend"):
        code, out, err = report(what, "aaaa")
        assert (code, "give more digits" in out + err) == (1, True)


@pytest.mark.parametrize("state", ["due", "queued", "sent", "suppressed"])
def test_a_report_is_shown_in_every_state(report: Command, state: str) -> None:
    """Before it is built as it would be now, and after delivery too: rows by count, selectors,
    totals."""
    report.saw(evaluation(), evaluation(), evaluation(passed=True, source_ip="192.0.2.1"))
    if state == "queued":
        report.sink.answer = lambda stage, _: "451 later" if stage == "rcpt" else ""
    if state == "suppressed":
        report("suppress", "legit.example")
    if state != "due":
        report("send", "--now")
    [listed] = report.lines("list")
    assert listed["state"] == state
    code, out, err = report("show", listed["report_id"])
    assert (code, err) == (0, "")
    assert "3 messages: 1 passed DMARC, 2 failed" in out
    assert "(s=sel)" in out
    assert out.index("192.0.2.66") < out.index("192.0.2.1 "), "the most messages first"
    [shown] = report.lines("show", listed["report_id"])
    assert (shown["passed"], shown["failed"], shown["state"]) == (1, 2, state)


def test_what_is_left_of_a_dropped_report_is_shown(report: Command) -> None:
    report.saw(evaluation())
    [due] = report.lines("list")
    assert report("drop", due["report_id"])[0] == 0
    code, out, _ = report("show", due["report_id"])
    assert (code, "dropped by the administrator" in out) == (0, True)


def test_a_drop_is_final(report: Command) -> None:
    """Nor does what comes later for the same period go out, nor does resend bring it back."""
    report.saw(evaluation())
    [due] = report.lines("list")
    report("drop", due["report_id"])
    assert report("resend", due["report_id"])[0] == 1
    report.saw(evaluation())
    report("send", "--now")
    assert report.sink.mails == []
    notes = [each["note"] for each in report.lines("list")]
    assert sorted("dropped by the administrator" in note for note in notes) == [True, True]


def test_the_list_has_totals(report: Command) -> None:
    report.saw(evaluation(), evaluation(), evaluation("other.example"))
    report("send", "--now")
    _, out, _ = report("list")
    assert "2 reports (1 sent, 1 suppressed), 3 messages" in out


LONG_NAME = ".".join(["a" * 60, "b" * 60, "c" * 60, "legit.example"])


def test_a_list_survives_a_long_domain_on_a_narrow_terminal(
    report: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile domain of 200 characters at 80 columns: id, period, state and number stay whole."""
    report.saw(evaluation(LONG_NAME), evaluation())
    ids = [each["report_id"] for each in report.lines("list")]
    for module in ("terminal", "report.views"):
        monkeypatch.setattr(f"dmarc_milter.cli.{module}.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    _, out, _ = report("list")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80, out
    for identity in ids:
        [line] = [each for each in lines if each.strip().startswith(identity[:12])]
        assert f"{NOW:%Y-%m-%d}" in line
        assert "due" in line


def failing_with_ruf() -> Evaluation:
    ruf = replace(RECORD, rua=(), ruf=(ReportUri("ruf@legit.example"),))
    return evaluation(record=ruf)


def test_failure_reports_are_listed_shown_resent_and_dropped(report: Command) -> None:
    """RFC 9991: like aggregate ones."""
    report.settings["failure_reports"] = True
    report.failed(failing_with_ruf(), failing_with_ruf())
    [due] = report.lines("list", "--kind", "failure")
    assert (due["kind"], due["state"], due["messages"]) == ("failure", "due", 2)
    assert [each["address"] for each in due["destinations"]] == ["ruf@legit.example"]
    code, out, _ = report("show", due["report_id"][:10])
    assert (code, "failure report: fail from 192.0.2.66" in out) == (0, True)
    report.sink.answer = lambda stage, _: "451 later" if stage == "rcpt" else ""
    report("send", "--now")
    code, out, _ = report("show", due["report_id"])
    assert (code, "Feedback-Type: auth-failure" in out) == (0, True)
    assert report("resend", due["report_id"])[0] == 0
    report.sink.answer = lambda *_: ""
    report("send")
    assert len(report.sink.mails) == 1
    [sent] = report.lines("list")
    assert (sent["state"], sent["destinations"][0]["state"]) == ("sent", "sent")
    assert report("drop", due["report_id"])[0] == 1
    assert report("resend", due["report_id"])[0] == 1, "what it quoted is not kept"
    assert report("show", due["report_id"])[0] == 0


def test_a_dropped_failure_report_is_not_sent(report: Command) -> None:
    report.settings["failure_reports"] = True
    report.failed(failing_with_ruf())
    [due] = report.lines("list")
    assert report("drop", due["report_id"])[0] == 0
    report("send", "--now")
    assert report.sink.mails == []
    assert report.lines("list", "--state", "suppressed", "--domain", "legit.example")
    assert report.lines("list", "--kind", "aggregate") == []
