"""Who gets no reports: what a failure silences, what an administrator says, and what a day has room
for when somebody invents destinations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting import bounce
from dmarc_milter.reporting.limits import network_of
from dmarc_milter.reporting.silence import is_own_mx
from fakes.dns_zone import Zone
from fakes.evaluations import NOON, RECORD, evaluation
from fakes.report_job import DAY, NOW, Clock, Job
from fakes.smtp_sink import Sink, smtp_sink
from fakes.stores import upgraded

ADDRESS = "agg@victim.example"
DOMAINS = ("d0.example", "d1.example", "d2.example", "d3.example")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with smtp_sink() as found:
        yield found


@pytest.fixture
def job(store_url: str, sink: Sink) -> Iterator[Job]:
    """Several domains whose reports go to one address, which has asked for them."""
    upgraded(store_url)
    clock = Clock()
    store = Store.open(store_url, clock=clock)
    zone = Zone(
        {name: {"MX": [(10, "mx.example")]} for name in ("victim.example", "legit.example")}
    )
    for name in DOMAINS:
        zone.add(f"{name}._report._dmarc.victim.example", "TXT", "v=DMARC1")
    yield Job(store, zone, clock, sink.port)
    store.close()


def about(author: str, *addresses: str, passed: bool = False, **changes: object) -> Evaluation:
    record = replace(RECORD, rua=tuple(ReportUri(each) for each in addresses or (ADDRESS,)))
    return evaluation(author, record=record, passed=passed, **changes)


def delivered(job: Job, sink: Sink, *seen: Evaluation) -> list[str]:
    """Who gets the reports about these messages."""
    before = len(sink.mails)
    job.see(*seen)
    job.run(now=True)
    return [mail.recipient for mail in sink.mails[before:]]


def bounced(job: Job, sender: str, code: str, *, days: float = 30.0) -> str:
    """A delivery status for a report that was accepted."""
    [delivery] = [
        each
        for report in job.store.reports.find()
        for each in job.store.deliveries.of(report.id)
        if f"{report.id}-{each.tag}" in sender
    ]
    found = bounce.Bounce(delivery.report_id, delivery.tag, True, f"failed {code} smtp; 550 {code}")
    return bounce.note(found, job.store, days)


def test_a_bounce_silences_reports_about_that_domain_only(job: Job, sink: Sink) -> None:
    """A refusal of one domain's report says nothing of the other domains'."""
    assert delivered(job, sink, about("d0.example"), about("d1.example")) == [ADDRESS] * 2
    [sender] = [mail.sender for mail in sink.mails if b"Domain: d0.example" in mail.message]
    assert "no reports about d0.example for 30 days" in bounced(job, sender, "5.7.1")
    later = NOON + timedelta(days=1)
    job.clock.now += DAY
    seen = (about("d0.example", at=later), about("d1.example", at=later))
    assert delivered(job, sink, *seen) == [ADDRESS]
    assert b"Domain: d1.example" in sink.mails[-1].message
    assert [each.policy_domain for each in job.store.destinations.suppressions()] == ["d0.example"]


@pytest.mark.parametrize("code", ["5.1.1", "5.1.10"])
def test_an_address_that_does_not_exist_is_left_alone_altogether(
    job: Job, sink: Sink, code: str
) -> None:
    delivered(job, sink, about("d0.example"))
    assert "not written to for 30 days" in bounced(job, sink.mails[0].sender, code)
    job.clock.now += DAY
    assert delivered(job, sink, about("d1.example", at=NOON + timedelta(days=1))) == []


@pytest.mark.parametrize("code", ["5.1.2", "5.2.1", "5.2.2", "5.7.1", "5.0.0", "5.1.1 5.7.1"])
def test_nothing_less_silences_the_whole_address(job: Job, sink: Sink, code: str) -> None:
    """Only 5.1.1 and 5.1.10 say that nobody is there for any report."""
    delivered(job, sink, about("d0.example"))
    bounced(job, sink.mails[0].sender, code)
    assert job.store.destinations.suppression(ADDRESS, "d0.example") is not None
    assert job.store.destinations.suppression(ADDRESS, "d1.example") is None


def test_three_pairs_in_a_week_silence_the_address(job: Job, sink: Sink) -> None:
    for number, name in enumerate(DOMAINS[:3]):
        delivered(job, sink, about(name))
        said = bounced(job, sink.mails[-1].sender, "5.7.1")
        assert ("not written to" in said) == (number == 2), said
    assert job.store.destinations.suppression(ADDRESS, "d3.example") is not None


def test_pairs_of_different_weeks_are_not_added_up(job: Job, sink: Sink) -> None:
    for number, name in enumerate(DOMAINS[:3]):
        at = NOON + timedelta(days=4 * number)
        delivered(job, sink, about(name, at=at))
        assert "no reports about" in bounced(job, sink.mails[-1].sender, "5.7.1")
        job.clock.now += 4 * DAY
    assert job.store.destinations.suppression(ADDRESS, "d3.example") is None


def test_the_same_pair_counts_once(job: Job, sink: Sink) -> None:
    delivered(job, sink, about("d0.example"))
    for _ in range(5):
        assert "no reports about" in bounced(job, sink.mails[-1].sender, "5.7.1")


DSN = """\
Return-Path: <>
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

<agg@victim.example>: host mx.example[192.0.2.1] said: 550 nobody
    (in reply to RCPT TO command)

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; agg@victim.example
Action: failed
Status: 5.0.0
Remote-MTA: dns; MX.example
Diagnostic-Code: smtp; {code} nobody

--b--
"""


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (DSN.format(code=550), True),
        (DSN.format(code=554), False),
        (DSN.format(code=550).replace("RCPT TO", "end of DATA"), False),
        (DSN.format(code=550).replace("MX.example", "relay.example"), False),
        (DSN.format(code=550).replace("Remote-MTA: dns; MX.example\n", ""), False),
    ],
)
def test_550_at_rcpt_counts_from_the_destinations_own_mx(
    job: Job, sink: Sink, data: str, whole: bool
) -> None:
    """A relay in between may refuse for reasons of its own (RFC 3464 2.3.5)."""
    delivered(job, sink, about("d0.example"))
    mail = f"To: {sink.mails[0].sender}\n{data}".encode()
    found = bounce.read(mail, "dmarc@mx.example", address=ADDRESS)
    said = bounce.note(found, job.store, 30.0, lambda server, to: is_own_mx(server, to, job.zone))
    assert ("not written to" in said) is whole, said


def test_a_550_by_our_own_server_silences_the_pair(job: Job, sink: Sink) -> None:
    """What the server that we submit to says at RCPT is not said by the destination's MX."""
    sink.answer = lambda stage, _: "550 nobody" if stage == "rcpt" else ""
    assert delivered(job, sink, about("d0.example")) == []
    assert job.store.destinations.suppression(ADDRESS, "d0.example") is not None
    assert job.store.destinations.suppression(ADDRESS, "d1.example") is None
    [report] = job.store.reports.find()
    assert job.store.deliveries.of(report.id)[0].state is DeliveryState.REFUSED


def test_submission_to_the_destinations_own_mx_is_believed(job: Job, sink: Sink) -> None:
    job.set(smtp="mx.example:25")
    sink.answer = lambda stage, _: "550 nobody" if stage == "rcpt" else ""
    delivered(job, sink, about("d0.example"))
    assert job.store.destinations.suppression(ADDRESS, "d1.example") is not None


def test_temporary_failures_suppress_nobody(job: Job, sink: Sink) -> None:
    sink.answer = lambda stage, _: "450 5.1.1 nobody yet" if stage == "rcpt" else ""
    delivered(job, sink, about("d0.example"))
    assert job.store.destinations.suppressions() == []


@pytest.mark.parametrize(
    ("entry", "gets"),
    [
        ("agg@victim.example", ["d1.example"]),
        ("AGG@victim.example", ["d0.example", "d1.example"]),
        ("agg@VICTIM.example", ["d1.example"]),
        ("victim.example", ["d1.example"]),
        ("example", []),
        ("d0.example", ["d1.example"]),
        ("0.example", ["d0.example", "d1.example"]),
    ],
)
def test_never_report_is_for_addresses_and_domains(
    job: Job, sink: Sink, entry: str, gets: list[str]
) -> None:
    """A domain stands for the addresses at and below it, and for reports about it."""
    job.set(never_report=[entry])
    job.zone.add("d1.example._report._dmarc.legit.example", "TXT", "v=DMARC1")
    delivered(job, sink, about("d0.example"), about("d1.example", "b@legit.example"))
    heard = [
        name
        for name in DOMAINS
        if any(f"Domain: {name}".encode() in each.message for each in sink.mails)
    ]
    assert heard == gets
    if entry == "victim.example":
        notes = [each.note for each in job.store.reports.find()]
        assert any("never_report has victim.example" in note for note in notes)


def test_a_suppressed_domain_is_everything_at_and_below_it(job: Job, sink: Sink) -> None:
    job.store.destinations.suppress("victim.example", int(job.clock.now) + DAY, "asked us to stop")
    assert delivered(job, sink, about("d0.example", ADDRESS, "a@in.victim.example")) == []
    assert "asked us to stop" in job.store.reports.find()[0].note
    assert job.store.destinations.allow("victim.example")
    job.clock.now += DAY
    assert delivered(job, sink, about("d0.example", at=NOON + timedelta(days=1))) == [ADDRESS]


def test_what_was_queued_before_is_held_back_too(job: Job, sink: Sink) -> None:
    sink.answer = lambda stage, _: "450 later" if stage == "rcpt" else ""
    delivered(job, sink, about("d0.example"))
    sink.answer = lambda *_: ""
    job.set(never_report=["victim.example"])
    job.run(now=True)
    assert sink.mails == []
    [report] = job.store.reports.find()
    assert job.store.deliveries.of(report.id)[0].state is DeliveryState.SUPPRESSED


def test_suppressed_pairs_end(job: Job, sink: Sink) -> None:
    delivered(job, sink, about("d0.example"))
    bounced(job, sink.mails[0].sender, "5.7.1")
    later = int(job.clock.now) + 31 * DAY
    assert expire(job.store.database, Retention(), now=later)["suppressed_pair"] == 1


# --- who may start destinations -------------------------------------------------------------------


def invented(number: int, source: str) -> Evaluation:
    """A domain that somebody invents, with a destination of its own."""
    return about(f"x{number}.example", f"agg@x{number}.example", source_ip=source)


def test_rpt_73_invented_destinations_leave_half_for_known_domains(job: Job, sink: Sink) -> None:
    """Two hundred invented domains a day do not keep reports from those whose mail passed here."""
    job.set(max_new_destinations=20)
    for number in range(60):
        job.zone.add(f"x{number}.example", "MX", (10, "mx.example"))
        job.see(invented(number, f"10.0.{number}.1"))
    job.run(now=True)
    assert len(sink.mails) == 10
    known = [f"k{number}.example" for number in range(12)]
    for name in known:
        job.zone.add(name, "MX", (10, "mx.example"))
        job.see(about(name, f"agg@{name}", passed=True))
    job.run(now=True)
    assert len([each for each in sink.mails if each.recipient.startswith("agg@k")]) == 10


@pytest.mark.parametrize(
    "sources",
    [
        [f"192.0.2.{number}" for number in range(30)],
        [f"2001:db8::{number:x}" for number in range(30)],
        [f"::ffff:192.0.2.{number}" for number in range(30)],
    ],
)
def test_rpt_73_one_network_starts_few_destinations(
    job: Job, sink: Sink, sources: list[str]
) -> None:
    """5 % of the half that is not for known domains, for each /24 or /64."""
    job.set(max_new_destinations=80)
    for number, source in enumerate(sources):
        job.zone.add(f"x{number}.example", "MX", (10, "mx.example"))
        job.see(invented(number, source.removeprefix("::ffff:")))
    job.zone.add("x99.example", "MX", (10, "mx.example"))
    job.see(invented(99, "198.51.100.7"))
    job.run(now=True)
    assert len(sink.mails) == 3
    assert "agg@x99.example" in {each.recipient for each in sink.mails}


def test_rpt_73_a_strangers_rows_do_not_hold_back_a_report(job: Job, sink: Sink) -> None:
    """Forgeries from a network that has used up its share stand in the victim's report too: its own
    network still has room."""
    job.set(max_new_destinations=80)
    for number in range(5):
        job.zone.add(f"x{number}.example", "MX", (10, "mx.example"))
        job.see(invented(number, "192.0.2.1"))
    job.run(now=True)
    assert len(sink.mails) == 2
    job.zone.add("x50.example", "MX", (10, "mx.example"))
    job.see(*(invented(50, "192.0.2.1") for _ in range(9)), invented(50, "198.51.100.1"))
    job.run(now=True)
    assert sink.mails[-1].recipient == "agg@x50.example"


def test_rpt_73_invented_domains_that_pass_leave_half_for_all_others(job: Job, sink: Sink) -> None:
    """Who has two hundred domains may sign for each: what passes from one network starts half of
    the first-time destinations, day after day."""
    job.set(max_new_destinations=8)
    for day in range(2):
        at = NOON + timedelta(days=day)
        invented = [f"x{day}-{number}.example" for number in range(8)]
        known, other = f"k{day}.example", f"u{day}.example"
        for name in (*invented, known, other):
            job.zone.add(name, "MX", (10, "mx.example"))
            source = "192.0.2.9" if name in invented else "198.51.100.9"
            passed = name != other
            job.see(about(name, f"agg@{name}", passed=passed, source_ip=source, at=at))
        job.clock.now = NOW // DAY * DAY + (day + 1) * DAY + 1000
        job.run()
        to = [mail.recipient for mail in sink.mails]
        assert {f"agg@{known}", f"agg@{other}"} <= set(to)
        assert len(to) == (day + 1) * 6


def test_rpt_73_what_passed_long_ago_is_not_known(job: Job, sink: Sink) -> None:
    job.set(max_new_destinations=2)
    job.zone.add("k.example", "MX", (10, "mx.example"))
    job.zone.add("x1.example", "MX", (10, "mx.example"))
    job.see(about("k.example", "agg@legit.example", passed=True))
    job.clock.now += 31 * DAY
    late = NOON + timedelta(days=31)
    job.see(replace(invented(1, "192.0.2.1"), at=late), about("k.example", "a@k.example", at=late))
    job.run(now=True)
    assert len([mail for mail in sink.mails if "legit" not in mail.recipient]) == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2::77", "2001:db8:1:2::/64"), ("x", "x")],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network
