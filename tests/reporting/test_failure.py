"""Failure reports on their way: verified, limited, gathered into incidents, queued like aggregate
reports; and bounces."""

from __future__ import annotations

import contextlib
import email
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config import parse
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.report.failure import header_sample
from dmarc_milter.core.spf.check import SpfStatus
from dmarc_milter.daemon.wiring import FULL_HEADERS_A_MINUTE, header_samples
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.failures import Failure
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting import bounce
from fakes.dns_zone import Zone
from fakes.evaluations import NOON, RECORD, evaluation
from fakes.report_job import DAY, Clock, Job
from fakes.smtp_sink import Sink, smtp_sink
from fakes.stores import spool_row, upgraded

MX = {"MX": [(10, "mx.example")]}
HEADERS = Headers(
    (HeaderField(b"From", b" Vera <vera@legit.example>"), HeaderField(b"Subject", b" private"))
)


@pytest.fixture
def job(store_url: str) -> Iterator[Job]:
    upgraded(store_url)
    clock = Clock()
    store = Store.open(store_url, clock=clock)
    with smtp_sink() as sink:
        made = Job(
            store,
            Zone({name: MX for name in ("legit.example", "victim.example")}),
            clock,
            sink.port,
        )
        made.set(failure_reports=True)
        made.sink = sink  # type: ignore[attr-defined]
        yield made
    store.close()


@pytest.fixture
def sink(job: Job) -> Sink:
    found: Sink = job.sink  # type: ignore[attr-defined]
    return found


def fail(job: Job, author: str = "legit.example", *ruf: str, **changes: object) -> None:
    """A failing message of a domain that asks for failure reports and for nothing else."""
    addresses = ruf or (f"ruf@{author}",)
    record = replace(RECORD, rua=(), ruf=tuple(ReportUri(each) for each in addresses))
    keep(job, evaluation(author, record=record, **changes))


def keep(job: Job, one: Evaluation) -> None:
    """The drain has taken this message with its sample."""
    job.sequence += 1
    job.store.apply(
        Batch(
            "spool-f",
            "mx1",
            [(job.sequence, spool_row(one, header_sample(one, HEADERS, b"k" * 32)))],
        )
    )


def failures(job: Job) -> list[Failure]:
    return job.store.failures.find()


def fields(sink: Sink, number: int = -1) -> dict[str, str]:
    mail = email.message_from_bytes(sink.mails[number].message)
    found = next(
        part for part in mail.walk() if part.get_content_type() == "message/feedback-report"
    )
    payload = found.get_payload()
    inner = payload[0] if isinstance(payload, list) else email.message_from_string(str(payload))
    return {name.lower(): str(value) for name, value in inner.items()}


def test_a_failure_is_reported_with_its_incidents_and_then_forgotten(job: Job, sink: Sink) -> None:
    """RFC 9991: queued, never on the mail path; what was gathered until it went is told as
    Incidents."""
    for _ in range(3):
        fail(job)
    job.run()
    [mail] = sink.mails
    assert (mail.recipient, fields(sink)["incidents"], fields(sink)["reported-domain"]) == (
        "ruf@legit.example",
        "3",
        "legit.example",
    )
    assert b"vera" not in mail.message
    assert b"private" not in mail.message
    assert email.message_from_bytes(mail.message)["To"] == "ruf@legit.example"
    [failure] = failures(job)
    assert (failure.state, failure.sample) == ("sent", b"")
    assert job.store.reports.document(failure.id, "rfc9991") is None
    [delivery] = job.store.deliveries.of(failure.id)
    assert mail.sender == f"dmarc+{failure.id}-{delivery.tag}@mx.example"
    assert mail.message.count(b"invalid") == 0


def test_rpt_71_only_what_failed_in_the_same_way_is_an_incident(job: Job, sink: Sink) -> None:
    """RFC 6591 3.2: incidents are similar. Author, source, result and alignment are the same, or a
    report speaks of passes as of failures."""
    job.set(failure_reports=True, failure_per_destination=20)
    every = replace(RECORD, rua=(), ruf=(ReportUri("ruf@legit.example"),), fo="1:d:s")
    base = evaluation(record=every)
    outcome = base.dmarc.outcome
    assert outcome is not None
    aligned = replace(outcome, status=DmarcStatus.PASS, spf_aligned=True)
    both = [
        {},
        {"source_ip": "192.0.2.67"},
        {"dmarc": replace(base.dmarc, status=DmarcStatus.PASS, outcome=aligned)},
        {"dmarc": replace(base.dmarc, outcome=replace(outcome, dkim_aligned=True))},
        {"verdict": replace(base.verdict, disposition=Disposition.QUARANTINE)},
        {"spf": replace(base.spf, status=SpfStatus.FAIL)},
        {"dkim": ()},
    ]
    for count, changes in enumerate(both, 1):
        for _ in range(count):
            keep(job, evaluation(record=every, **changes))
    keep(job, evaluation("sub.legit.example", record=every, policy_domain="legit.example"))
    job.run()
    told = [fields(sink, number) for number in range(len(sink.mails))]
    assert sorted(int(each["incidents"]) for each in told) == [1, 1, 2, 3, 4, 5, 6, 7]
    [passed] = [each for each in told if "dmarc=pass" in each["authentication-results"]]
    assert passed["incidents"] == "3"


def test_rpt_71_one_domain_does_not_use_up_the_days_failure_reports(job: Job) -> None:
    """A sender with many addresses fails in many ways: each domain has its own share."""
    for number in range(60):
        fail(job, source_ip=f"192.0.2.{number}")
    fail(job, "victim.example")
    assert len(failures(job)) == 51
    assert {each.facts.policy_domain for each in failures(job)} == {
        "legit.example",
        "victim.example",
    }


def test_off_means_off(job: Job, sink: Sink) -> None:
    fail(job)
    job.set()
    job.run()
    assert not sink.mails
    assert failures(job)[0].state == "due"


def test_rpt_07_external_addresses_must_have_asked_for_failure_reports(
    job: Job, sink: Sink
) -> None:
    """RFC 9991 5: with `ruf`; each address of the record is tried."""
    fail(job, "legit.example", "ruf@legit.example", "v@victim.example")
    job.run()
    assert [each.recipient for each in sink.mails] == ["ruf@legit.example"]
    job.zone.add(
        "d2.example._report._dmarc.victim.example",
        "TXT",
        "v=DMARC1; ruf=mailto:other@victim.example",
    )
    fail(job, "d2.example", "v@victim.example")
    job.run()
    assert sink.mails[-1].recipient == "other@victim.example"


def test_rpt_07_a_flood_becomes_a_few_reports(job: Job, sink: Sink) -> None:
    """Two hundred failing messages: the day's limit of reports, the rest as incidents of
    tomorrow's."""
    job.set(failure_reports=True, failure_per_destination=2)
    for _ in range(10):
        for _ in range(20):
            fail(job)
        job.run()
        job.clock.now += 600
    assert len(sink.mails) == 2
    job.clock.now += DAY
    job.run()
    assert 3 <= len(sink.mails) <= 4
    assert sum(int(fields(sink, n)["incidents"]) for n in range(len(sink.mails))) == 200


def test_rpt_07_the_day_has_a_limit_for_all(job: Job, sink: Sink) -> None:
    job.set(failure_reports=True, failure_per_day=3)
    for n in range(6):
        job.zone.add(f"d{n}.example", "MX", (10, "mx.example"))
        fail(job, f"d{n}.example")
    job.run()
    assert len(sink.mails) == 3


def test_rpt_07_a_flood_does_not_fill_the_spool() -> None:
    """Beyond some messages a minute samples are small: they only become incidents. Off keeps
    nothing at all."""
    settings = '[reporting]\norg_name = "R"\nemail = "d@mx.example"\n'
    large = Headers(HeaderField(b"DKIM-Signature", b" v=1; b=" + b"z" * 1000) for _ in range(100))
    one = evaluation(record=replace(RECORD, ruf=(ReportUri("ruf@legit.example"),)))
    keep = header_samples(parse(settings + "failure_reports = true"))
    sizes = [len(keep(one, large) or b"") for _ in range(3 * FULL_HEADERS_A_MINUTE)]
    assert sum(size > 20_000 for size in sizes) <= 2 * FULL_HEADERS_A_MINUTE, (
        "one minute may have ended"
    )
    assert min(sizes) < 2000
    assert sizes[0] > 20_000
    assert header_samples(parse(settings))(one, large) is None


def test_rpt_07_a_public_suffix_gets_none(job: Job) -> None:
    one = evaluation(record=replace(RECORD, ruf=(ReportUri("ruf@legit.example"),), psd="y"))
    assert header_sample(one, HEADERS, b"k") is None


def test_a_4xx_of_one_address_repeats_nothing_at_the_other(job: Job, sink: Sink) -> None:
    fail(job, "legit.example", "a@legit.example", "b@legit.example")
    sink.answer = lambda stage, who: (
        "450 later" if (stage, who) == ("rcpt", "b@legit.example") else ""
    )
    job.run()
    assert failures(job)[0].state == "queued"
    sink.answer = lambda *_: ""
    job.clock.now += 1800
    job.run()
    assert sorted(each.recipient for each in sink.mails) == ["a@legit.example", "b@legit.example"]
    assert failures(job)[0].state == "sent"
    assert len({email.message_from_bytes(each.message)["Message-ID"] for each in sink.mails}) == 1


def test_a_silent_dns_keeps_it_for_later(job: Job, sink: Sink) -> None:
    job.zone.fail("legit.example", "MX")
    fail(job)
    job.run()
    assert (failures(job)[0].state, sink.mails) == ("due", [])
    job.zone.failing.clear()
    job.clock.now += 1800
    job.run()
    assert len(sink.mails) == 1


def test_now_waits_for_nothing(job: Job, sink: Sink) -> None:
    """`report send --now` asks the DNS again at once, each report once a run; what has to wait goes
    on waiting as it did."""
    job.set(failure_reports=True, failure_per_destination=20)
    job.zone.fail("legit.example", "MX")
    for number in range(12):
        fail(job, f"d{number}.legit.example", "ruf@legit.example")
    job.run()
    done = job.run(now=True)
    assert (done.failures["due"], {(each.state, each.attempts) for each in failures(job)}) == (
        12,
        {("due", 2)},
    )
    job.zone.failing.clear()
    job.run()
    assert sink.mails == []
    job.run(now=True)
    assert {each.state for each in failures(job)} == {"sent"}


def test_one_silent_host_is_waited_for_and_does_not_hold_the_others_for_ever(
    job: Job, sink: Sink
) -> None:
    """RFC 9991 5: every address is tried; docs/design.md, Reports: a DNS failure keeps the report
    for later."""
    job.zone.fail("victim.example", "MX")
    job.zone.fail("legit.example._report._dmarc.victim.example")
    fail(job, "legit.example", "a@legit.example", "b@victim.example")
    job.run()
    assert (failures(job)[0].state, sink.mails) == ("due", [])
    for _ in range(8):
        job.clock.now += 4 * 3600
        job.run()
    assert [each.recipient for each in sink.mails] == ["a@legit.example"]


def test_retention_leaves_nothing_of_failure_reports(job: Job) -> None:
    fail(job)
    job.run()
    gone = expire(job.store.database, Retention(), now=int(job.clock.now) + 40 * DAY)
    assert (gone["failure"], gone["delivery"]) == (1, 1)


# --- bounces --------------------------------------------------------------------------------------

DSN = """\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mx.example
To: {to}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It did not work.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; somebody@legit.example
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 {status} \x1b[31mno such user

--b
Content-Type: message/rfc822

From: dmarc@mx.example

--b--
"""


def sent(job: Job) -> tuple[str, str]:
    """A report that the local MTA has accepted: its id and envelope sender."""
    job.see(evaluation(at=NOON))
    job.run(now=True)
    sink: Sink = job.sink  # type: ignore[attr-defined]
    [report] = job.store.reports.find()
    return report.id, sink.mails[-1].sender


def test_a_hard_bounce_suppresses(job: Job, sink: Sink) -> None:
    """Found by VERP; the address is not written to for suppress_days, and the reason is shown
    without the sender's control characters."""
    identity, sender = sent(job)
    found = bounce.read(
        DSN.format(to=sender, action="failed", status="5.1.1").encode(), "dmarc@mx.example"
    )
    [delivery] = job.store.deliveries.of(identity)
    assert found == bounce.Bounce(
        identity, delivery.tag, True, r"failed 5.1.1 smtp; 550 5.1.1 \x1b[31mno such user"
    )
    assert "not written to for 30 days" in bounce.note(found, job.store, 30.0)
    suppression = job.store.destinations.suppression("agg@legit.example")
    assert suppression is not None
    assert "no such user" in suppression.reason
    job.see(evaluation(at=NOON + timedelta(days=1)))
    job.clock.now += DAY
    job.run(now=True)
    assert len(sink.mails) == 1
    states = {
        each.state
        for report in job.store.reports.find()
        for each in job.store.deliveries.of(report.id)
    }
    assert states == {DeliveryState.SENT}
    assert any("suppressed until" in each.note for each in job.store.reports.find())


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("Failed", "5.0.0"),
        ("failed (given up)", "5.1.10"),
        ("failed(x)", "5.1.1 (bad mailbox)"),
        ("failed", "5.7.1"),
    ],
)
def test_words_may_have_comments(action: str, status: str) -> None:
    """RFC 3464 2.1: DSN fields are RFC 822 fields, so that comments may stand behind their
    words."""
    data = DSN.format(
        to=f"dmarc+{'a' * 32}-0badcafe@mx.example", action=action, status=status
    ).encode()
    assert bounce.read(data, "dmarc@mx.example").hard


@pytest.mark.parametrize(
    ("action", "status"),
    [("delayed", "4.4.1"), ("failed", "4.4.7"), ("relayed", "2.0.0"), ("delivered", "5.0.0")],
)
def test_what_is_not_permanent_is_ignored(job: Job, action: str, status: str) -> None:
    _, sender = sent(job)
    found = bounce.read(
        DSN.format(to=sender, action=action, status=status).encode(), "dmarc@mx.example"
    )
    assert not found.hard
    assert "ignored" in bounce.note(found, job.store, 30.0)
    assert job.store.destinations.suppressions() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"From: x\r\n\r\nhello",
        DSN.format(to="dmarc@mx.example", action="failed", status="5.1.1").encode(),
        DSN.format(
            to="dmarc+" + "0" * 32 + "-00000000@other.example", action="failed", status="5.1.1"
        ).encode(),
        b"\xff" * 1000,
    ],
)
def test_mail_that_is_no_bounce_of_ours_changes_nothing(data: bytes) -> None:
    with pytest.raises(bounce.NotOurs):
        bounce.read(data, "dmarc@mx.example")


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"To: dmarc+%b-00000000@mx.example\r\n" % (b"a" * 32)]),
)
def test_any_octets_are_a_bounce_or_none(data: bytes, start: bytes) -> None:
    """A pipe takes whatever anybody sends to that address."""
    with contextlib.suppress(bounce.NotOurs):
        found = bounce.read(
            start + b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type:"
            b" message/delivery-status\r\n\r\n" + data,
            "dmarc@mx.example",
        )
        assert start
        assert (found.report_id, found.tag) == ("a" * 32, "0" * 8)


def test_a_bounce_of_an_unknown_report_changes_nothing(job: Job) -> None:
    said = bounce.note(bounce.Bounce("0" * 32, "7" * 8, True, "x"), job.store, 30.0)
    assert "not known" in said
    assert job.store.destinations.suppressions() == []


def test_the_recipient_of_the_pipe_is_enough() -> None:
    """Postfix gives it to a command in ORIGINAL_RECIPIENT; nothing in the mail needs to name it."""
    sender = f"dmarc+{'a' * 32}-0badcafe@mx.example"
    data = DSN.format(to="somebody@else.example", action="failed", status="5.1.1").encode()
    assert bounce.read(data, "dmarc@mx.example", sender)[:3] == ("a" * 32, "0badcafe", True)
    assert bounce.read(data, "dmarc@mx.example", sender.upper())[:3] == (
        "a" * 32,
        "0badcafe",
        True,
    ), "some systems change the case"


def test_no_destination_can_let_anothers_address_bounce(job: Job, sink: Sink) -> None:
    """Each of a report's addresses knows its id; whose bounce it is, the tag says, which the others
    are not told."""
    job.see(
        evaluation(
            at=NOON,
            record=replace(
                RECORD, rua=(ReportUri("agg@legit.example"), ReportUri("collector@legit.example"))
            ),
        )
    )
    job.run(now=True)
    senders = {mail.recipient: mail.sender for mail in sink.mails}
    identity, tags = (
        senders["agg@legit.example"].partition("-")[0],
        {each.partition("-")[2] for each in senders.values()},
    )
    assert len(tags) == 2
    for guess in ("0", "1", "00000000", "00000001"):
        forged = DSN.format(
            to=f"{identity}-{guess}@mx.example", action="failed", status="5.1.1"
        ).encode()
        with contextlib.suppress(bounce.NotOurs):
            assert "not known" in bounce.note(
                bounce.read(forged, "dmarc@mx.example"), job.store, 30.0
            )
    assert job.store.destinations.suppressions() == []
    honest = DSN.format(
        to=senders["collector@legit.example"], action="failed", status="5.1.1"
    ).encode()
    bounce.note(bounce.read(honest, "dmarc@mx.example"), job.store, 30.0)
    assert [each.address for each in job.store.destinations.suppressions()] == [
        "collector@legit.example"
    ]


def test_a_delivery_from_before_there_were_tags_still_goes(job: Job, sink: Sink) -> None:
    """Queued by the version before; a bounce of it, which anybody could forge, is nobody's."""
    sink.answer = lambda stage, _: "451 4.7.1 later" if stage == "rcpt" else ""
    job.see(evaluation(at=NOON))
    job.run(now=True)
    with job.store.database.transaction() as transaction:
        transaction.run("UPDATE delivery SET tag = ''")
    sink.answer = lambda *_: ""
    job.run(now=True)
    [mail] = sink.mails
    forged = DSN.format(to=mail.sender, action="failed", status="5.1.1").encode()
    assert "not known" in bounce.note(bounce.read(forged, "dmarc@mx.example"), job.store, 30.0)
