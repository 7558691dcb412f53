"""The report job: what leaves, what does not and why, and what every answer of the receiving side
means; on SQLite and PostgreSQL."""

from __future__ import annotations

import email
import email.policy
import gzip
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from lxml import etree

from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.report.read import read
from dmarc_milter.core.resolver import Question
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.reports import LEASE, SKEW, Report, ReportState
from dmarc_milter.ledger.store.store import Store
from fakes.dns_zone import Zone
from fakes.evaluations import NOON, RECORD, evaluation
from fakes.report_job import DAY, TOMORROW, Clock, Job
from fakes.smtp_sink import Mail, Sink, smtp_sink
from fakes.stores import upgraded

GRACE = 601
VECTORS = Path(__file__).parents[1] / "vectors" / "xsd"
MX = {"MX": [(10, "mx.example")]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(store_url: str, clock: Clock) -> Iterator[Callable[[], Store]]:
    upgraded(store_url)
    stores: list[Store] = []

    def make() -> Store:
        stores.append(Store.open(store_url, clock=clock))
        return stores[-1]

    yield make
    for each in stores:
        each.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with smtp_sink() as found:
        yield found


@pytest.fixture
def job(opened: Callable[[], Store], clock: Clock, sink: Sink) -> Job:
    zone = Zone(
        {name: MX for name in ("legit.example", "other.example", "victim.example", "old.example")}
    )
    return Job(opened(), zone, clock, sink.port)


def uris(*addresses: str) -> dict[str, object]:
    return {"rua": tuple(ReportUri(each) for each in addresses)}


def to(*addresses: str, author: str = "legit.example", **changes: object) -> Evaluation:
    """A failing message of a domain whose reports go to these addresses."""
    record = RECORD.__class__(
        **{name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__} | uris(*addresses)
    )
    return evaluation(author, record=record, **changes)


def only(job: Job) -> Report:
    [report] = job.store.reports.find()
    return report


def content(mail: Mail) -> bytes:
    message = email.message_from_bytes(mail.message, policy=email.policy.SMTP)
    [attachment] = message.iter_attachments()
    return gzip.decompress(attachment.get_content())


def next_day(job: Job) -> None:
    job.clock.now = TOMORROW + GRACE


# --- the ordinary way -----------------------------------------------------------------------------


def test_a_day_that_is_over_is_reported_once(job: Job, sink: Sink) -> None:
    """One mail, its figures those of the ledger; a second run finds nothing."""
    job.see(evaluation(), evaluation(), evaluation(passed=True, source_ip="192.0.2.1"))
    assert job.run().built == {}, "the period is still open"
    job.clock.now = TOMORROW + 60
    assert job.run().built == {}, "other hosts may still drain"
    next_day(job)
    done = job.run()
    assert (done.built, done.sent) == ({ReportState.QUEUED: 1}, {DeliveryState.SENT: 1})
    [mail] = sink.mails
    report = only(job)
    [found] = read(mail.message)
    assert (found.report_id, found.messages, found.begin, found.end) == (
        report.id,
        3,
        TOMORROW - DAY,
        TOMORROW - 1,
    )
    assert {(each.source_ip, each.count, each.disposition) for each in found.records} == {
        ("192.0.2.66", 2, "reject"),
        ("192.0.2.1", 1, "pass"),
    }
    assert (report.state, list(job.store.reports.rows(report.id))) == (ReportState.SENT, [])
    [delivery] = job.store.deliveries.of(report.id)
    assert (mail.sender, mail.recipient) == (
        f"dmarc+{report.id}-{delivery.tag}@mx.example",
        "agg@legit.example",
    )
    job.run()
    assert len(sink.mails) == 1


@pytest.mark.parametrize(
    ("form", "schema"),
    [("rfc9990", "rfc9990-dmarc-2.0.xsd"), ("rfc7489", "rfc7489-derived-no-namespace.xsd")],
)
def test_every_form_satisfies_the_official_schema(
    job: Job, sink: Sink, form: str, schema: str
) -> None:
    job.set(format=form)
    job.see(
        evaluation(),
        evaluation(passed=True),
        evaluation("sub.legit.example", policy_domain="legit.example"),
    )
    next_day(job)
    job.run()
    [mail] = sink.mails
    official = etree.XMLSchema(etree.parse(VECTORS / schema))
    assert official.validate(etree.fromstring(content(mail))), official.error_log


def test_a_destination_may_have_the_old_form(job: Job, sink: Sink) -> None:
    """rfc7489_destinations: one report, two documents, one identity."""
    job.set(rfc7489_destinations=["old.example"])
    job.zone.add("legit.example._report._dmarc.old.example", "TXT", "v=DMARC1")
    job.see(to("a@legit.example", "b@old.example"))
    next_day(job)
    job.run()
    new, old = sink.to("a@legit.example")[0], sink.to("b@old.example")[0]
    assert b"urn:ietf:params:xml:ns:dmarc-2.0" in content(new)
    assert b"<feedback>" in content(old)
    assert b"<pct>" in content(old)
    assert read(new.message)[0].report_id == read(old.message)[0].report_id


def test_reports_of_a_period_are_spread(job: Job, sink: Sink) -> None:
    job.set(spread_minutes=45.0)
    job.see(*(to(f"a@d{n}.example", author=f"d{n}.example", passed=True) for n in range(20)))
    for n in range(20):
        job.zone.add(f"d{n}.example", "MX", (10, "mx.example"))
    next_day(job)
    job.run()
    first = len(sink.mails)
    job.clock.now += 22 * 60
    job.run()
    half = len(sink.mails)
    job.clock.now += 24 * 60
    job.run()
    assert first < half < len(sink.mails) == 20


def test_now_closes_the_open_period_and_later_mail_makes_a_report_of_its_own(
    job: Job, sink: Sink
) -> None:
    """`report send --now`: nothing waits for its moment, nothing is counted twice or forgotten."""
    job.set(spread_minutes=45.0)
    job.see(evaluation())
    job.run(now=True)
    job.see(evaluation(), evaluation())
    job.run(now=True)
    assert [read(mail.message)[0].messages for mail in sink.mails] == [1, 2]
    assert len({read(mail.message)[0].report_id for mail in sink.mails}) == 2


def test_now_takes_only_what_was_open_when_it_began(job: Job, sink: Sink) -> None:
    """Mail that comes while the job runs makes a report of its own, for the next run: a run that
    closes whatever comes would never end on a busy host."""
    job.see(*(to(f"a@d{n}.example", author=f"d{n}.example", passed=True) for n in range(12)))
    for n in range(60):
        job.zone.add(f"d{n}.example", "MX", (10, "mx.example"))
    real = job.zone.on_query
    seen = iter(range(12, 60))

    def more(question: Question) -> None:
        if real is not None:
            real(question)
        if question.rdtype == "MX" and (number := next(seen, None)) is not None:
            name = f"d{number}.example"
            job.see(to(f"a@{name}", author=name, passed=True))

    job.zone.on_query = more
    job.run(now=True)
    assert len(sink.mails) == 12
    assert len(job.store.reports.find([ReportState.DUE])) == 12


def test_a_report_dropped_in_flight_is_sent_where_it_was_taken(job: Job, sink: Sink) -> None:
    """The destination has said 250: whoever says otherwise would send it once more."""
    job.see(evaluation())
    next_day(job)

    def answer(stage: str, _who: str) -> str:
        if stage == "end":
            [report] = job.store.reports.find()
            assert job.store.reports.drop(report.id)
        return ""

    sink.answer = answer
    job.run()
    [report] = job.store.reports.find()
    [delivery] = job.store.deliveries.of(report.id)
    assert (delivery.state, report.state) == (DeliveryState.SENT, ReportState.SENT)


def test_now_leaves_nothing_behind_what_has_to_wait(job: Job, sink: Sink) -> None:
    """More reports and deliveries that cannot go than one claim holds: those behind them still go,
    and each is tried once."""
    job.set(spread_minutes=45.0, max_per_destination=1000)
    silent = [f"s{n}.example" for n in range(25)]
    for name in silent:
        job.zone.fail(name, "MX")
    job.see(*(to(f"a@{name}", author=name) for name in silent))
    job.run(now=True)
    refused = {f"r{n}@legit.example" for n in range(25)}
    job.see(
        *(
            to(
                each,
                author=f"{each[:-14]}.legit.example",
                policy_domain=f"{each[:-14]}.legit.example",
            )
            for each in sorted(refused)
        )
    )
    job.see(
        *(
            to(
                "good@legit.example",
                author=f"g{n}.legit.example",
                policy_domain=f"g{n}.legit.example",
            )
            for n in range(25)
        )
    )
    tries: list[str] = []
    sink.answer = lambda stage, who: (
        (tries.append(who) or "450 later") if stage == "rcpt" and who in refused else ""
    )  # type: ignore[func-returns-value]
    job.run(now=True)
    assert len(sink.mails) == 25
    assert sorted(tries) == sorted(refused)
    assert job.run(now=True).built[ReportState.DUE] == 25


def test_the_reporting_address_may_be_written_in_any_form(job: Job, sink: Sink) -> None:
    """Upper case and U-labels in the configuration; mail, file name and XML have the one form that
    all take."""
    job.set(email="Reports@BÜCHER.Example")
    job.see(evaluation())
    job.run(now=True)
    [mail] = sink.mails
    assert mail.sender.startswith("Reports+")
    assert mail.sender.endswith("@xn--bcher-kva.example")
    assert read(mail.message)[0].email == "Reports@xn--bcher-kva.example"
    assert b'filename="xn--bcher-kva.example!' in mail.message


# --- what is not sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [{"is_report": True}, {"is_dsn": True}, {"auto_submitted": True}, {"from_reporting": True}],
)
def test_a_period_of_passing_automatic_mail_sends_nothing(
    job: Job, sink: Sink, facts: dict[str, bool]
) -> None:
    """docs/design.md, Reports: loop-proof without configuration. One ordinary message more and
    everything is reported."""
    job.see(evaluation(passed=True, facts=MessageFacts(**facts)))
    next_day(job)
    job.run()
    assert only(job).state is ReportState.SUPPRESSED
    assert "loop" in only(job).note
    job.see(evaluation(passed=True, facts=MessageFacts(**facts), at=NOON + timedelta(days=1)))
    job.see(evaluation(passed=True, at=NOON + timedelta(days=1)))
    job.clock.now += DAY
    job.run()
    assert [read(mail.message)[0].messages for mail in sink.mails] == [2]


def test_mail_to_our_reporting_address_is_never_counted(job: Job) -> None:
    """RPT-09."""
    job.see(evaluation(facts=MessageFacts(to_reporting=True)))
    assert job.store.reports.find() == []


def test_known_domains_only(job: Job, sink: Sink) -> None:
    """report_domains = "known": reports to domains that only spammers use hurt the
    sender's reputation."""
    job.set(report_domains="known")
    job.see(evaluation(), evaluation("other.example", record=RECORD, passed=True))
    next_day(job)
    job.run()
    assert {each.policy_domain: each.state for each in job.store.reports.find()} == {
        "legit.example": ReportState.SUPPRESSED,
        "other.example": (
            ReportState.SUPPRESSED
        ),  # passed here, but its rua is at another host that did not ask
    }
    job.zone.add("other.example._report._dmarc.legit.example", "TXT", "v=DMARC1")
    job.clock.now += DAY
    for each in job.store.reports.find():
        job.store.reports.resend(each.id)
    job.run()
    assert [read(mail.message)[0].policy["domain"] for mail in sink.mails] == ["other.example"]


# --- RPT-05: where it goes ------------------------------------------------------------------------


def test_rpt_05_external_destinations_must_have_asked(job: Job, sink: Sink) -> None:
    """Without authorisation the address is dropped and shown; with it the report goes there; an
    override replaces the address."""
    job.zone.add(
        "legit.example._report._dmarc.other.example",
        "TXT",
        "v=DMARC1; rua=mailto:override@other.example",
    )
    job.see(to("agg@legit.example", "a@other.example", "v@victim.example"))
    next_day(job)
    job.run()
    assert sorted(each.recipient for each in sink.mails) == [
        "agg@legit.example",
        "override@other.example",
    ]
    states = {
        each.address: (each.state, each.last_reply)
        for each in job.store.deliveries.of(only(job).id)
    }
    assert states["v@victim.example"] == (
        DeliveryState.SKIPPED,
        "no authorisation record: the host did not ask for these reports",
    )
    assert only(job).state is ReportState.SENT


def test_rpt_05_a_silent_dns_keeps_the_report(job: Job, sink: Sink) -> None:
    """SERVFAIL: retry later, never send, never drop; when the DNS answers the report goes."""
    name = "legit.example._report._dmarc.other.example"
    job.zone.fail(name)
    job.see(to("a@other.example"))
    next_day(job)
    assert job.run().built == {ReportState.DUE: 1}
    assert "the DNS did not answer" in only(job).note
    identity = only(job).id
    job.zone.failing.clear()
    job.zone.add(name, "TXT", "v=DMARC1")
    assert job.run().built == {}, "not before its time"
    job.clock.now += 7 * 3600
    assert job.run().built == {ReportState.QUEUED: 1}
    assert read(sink.mails[0].message)[0].report_id == identity


def test_rpt_05_one_silent_host_does_not_hold_the_others_for_ever(job: Job, sink: Sink) -> None:
    job.zone.fail("legit.example._report._dmarc.other.example")
    job.see(to("agg@legit.example", "a@other.example"))
    next_day(job)
    for _ in range(8):
        job.run()
        job.clock.now += 4 * 3600
    assert [each.recipient for each in sink.mails] == ["agg@legit.example"]


def test_a_dns_that_never_answers_expires_the_report(job: Job) -> None:
    job.zone.fail("legit.example", "MX")
    job.see(evaluation())
    next_day(job)
    for _ in range(30):
        job.run()
        job.clock.now += 7 * 3600
    assert only(job).state is ReportState.EXPIRED
    assert list(job.store.reports.rows(only(job).id)), (
        "kept until retention, so that resend can change its mind"
    )


def test_authorisations_are_remembered(job: Job) -> None:
    """RFC 9990 4: cached per policy domain and host."""
    name = "legit.example._report._dmarc.other.example"
    job.zone.add(name, "TXT", "v=DMARC1; rua=mailto:override@other.example")
    job.see(to("a@other.example"))
    job.run(now=True)
    job.see(to("a@other.example"))
    job.run(now=True)
    assert job.zone.asked("TXT").count(name) == 1


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ({"MX": [(0, "")]}, "null MX"),
        ({"TXT": ["x"]}, "neither MX nor address"),
        ({}, "does not exist"),
    ],
)
def test_hosts_that_take_no_mail_are_skipped_and_shown(
    job: Job, sink: Sink, records: dict[str, list[object]], why: str
) -> None:
    """docs/design.md, Reports: rua hosts with a null MX, or with neither MX nor address."""
    job.zone.records["legit.example"] = records
    if not records:
        del job.zone.records["legit.example"]
    job.see(evaluation())
    next_day(job)
    job.run()
    assert not sink.mails
    assert why in only(job).note
    assert only(job).state is ReportState.SUPPRESSED


def test_rpt_03_size_limits_count_in_the_old_form_only(job: Job, sink: Sink) -> None:
    """RFC 7489 6.2: after compression and base64; exceeding it the address must not be used. RFC
    9990 has no size."""
    record = RECORD.__class__(
        **{name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__}
        | {"rua": (ReportUri("agg@legit.example", 100),)}
    )
    job.see(evaluation(record=record))
    job.set(format="rfc7489")
    job.run(now=True)
    assert not sink.mails
    assert "takes 100" in only(job).note
    job.see(evaluation(record=record))
    job.set()
    job.run(now=True)
    assert len(sink.mails) == 1


def test_rpt_10_a_report_that_is_too_large_is_folded_until_it_fits(job: Job, sink: Sink) -> None:
    """The greatest rows stay; what is left out is counted in the error element."""
    job.set(max_size=10_000)
    many = [evaluation(source_ip=f"10.{n % 7}.{n // 256}.{n % 256}") for n in range(3000)]
    job.see(*many, *(evaluation(source_ip="10.9.9.9") for _ in range(5)))
    next_day(job)
    job.run()
    [found] = read(sink.mails[0].message)
    assert len(content(sink.mails[0])) > 10_000 > len(gzip.compress(content(sink.mails[0]), 9))
    assert found.records[0].source_ip == "10.9.9.9" or any(
        each.source_ip == "10.9.9.9" for each in found.records
    )
    [error] = found.errors
    assert int(error.split()[0]) + found.messages == 3005


def test_rpt_10_no_report_needs_more_than_its_share_of_memory(
    job: Job, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows beyond the weight are folded before anything is rendered, and counted."""
    monkeypatch.setattr("dmarc_milter.reporting.build.MAX_WEIGHT", 60)
    job.see(*(evaluation(source_ip=f"10.0.0.{n}") for n in range(50)))
    next_day(job)
    job.run()
    [found] = read(sink.mails[0].message)
    assert (len(found.records), found.messages) == (10, 10)
    assert found.errors[0].startswith("40 further messages")


# --- RPT-06: caps ---------------------------------------------------------------------------------


def test_rpt_06_a_victim_gets_no_more_than_its_cap_a_day(job: Job, sink: Sink) -> None:
    """Fifty domains name one victim that even asked for it (a wildcard): the day's cap holds, the
    rest waits for tomorrow."""
    job.set(max_per_destination=3, retry_hours=700.0)
    job.zone.add("*._report._dmarc.victim.example", "TXT", "v=DMARC1")
    job.see(*(to("v@victim.example", author=f"d{n}.example") for n in range(8)))
    next_day(job)
    for day in range(1, 4):
        job.run()
        assert len(sink.mails) == min(3 * day, 8)
        job.run()
        assert len(sink.mails) == min(3 * day, 8)
        job.clock.now += DAY
    assert {each.state for each in job.store.reports.find()} == {ReportState.SENT}


def test_caps_of_the_day_and_on_first_time_destinations(job: Job, sink: Sink) -> None:
    for n in range(6):
        job.zone.add(f"d{n}.example", "MX", (10, "mx.example"))
    job.set(max_new_destinations=2)
    for n in range(6):  # each of a network of its own, which may start half of them
        author, client = f"d{n}.example", f"198.51.{n}.1"
        job.see(to(f"a@{author}", author=author, passed=True, source_ip=client))
    next_day(job)
    assert job.run().held == 4
    assert len(sink.mails) == 2
    known = {each.recipient for each in sink.mails}
    job.set(max_per_day=3, max_new_destinations=200)
    job.run(now=True)
    assert len(sink.mails) == 3
    held = [
        one
        for each in job.store.reports.find()
        for one in job.store.deliveries.of(each.id)
        if one.state is DeliveryState.QUEUED
    ]
    assert {each.last_reply for each in held} == {"the day's limit is reached (all)"}
    job.clock.now += DAY
    job.set()
    job.run()
    assert len(sink.mails) == 6
    assert len(known) == 2


def test_rpt_06_ten_addresses_each_once(job: Job, sink: Sink) -> None:
    record = RECORD.__class__(
        **{name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__}
        | uris(*(f"a{n % 20}@legit.example" for n in range(40)))
    )
    job.see(evaluation(record=record))
    next_day(job)
    job.run()
    assert len({each.recipient for each in sink.mails}) == len(sink.mails) <= 10


# --- what the receiving side says -----------------------------------------------------------------


def test_a_4xx_is_tried_again_with_the_same_identity(job: Job, sink: Sink) -> None:
    """Backing off; only a 250 makes it sent."""
    job.see(evaluation())
    next_day(job)
    sink.answer = lambda stage, _: "451 4.7.1 come back" if stage == "rcpt" else ""
    job.run()
    report = only(job)
    assert report.state is ReportState.QUEUED
    assert list(job.store.reports.rows(report.id)), "a row leaves only after 250"
    [delivery] = job.store.deliveries.of(report.id)
    assert (delivery.attempts, delivery.last_reply) == (1, "451 4.7.1 come back")
    assert job.clock.now + 300 < delivery.next_at < job.clock.now + 1200
    waits = []
    for _ in range(6):
        job.clock.now = job.store.deliveries.of(report.id)[0].next_at
        job.run()
        waits.append(job.store.deliveries.of(report.id)[0].next_at - job.clock.now)
    assert waits[-1] > 4 * waits[0], waits
    sink.answer = lambda *_: ""
    job.clock.now += 6 * 3600 * 1.25
    job.run()
    assert [read(mail.message)[0].report_id for mail in sink.mails] == [report.id]
    assert only(job).state is ReportState.SENT


def test_a_5xx_that_is_not_about_the_address_is_tried_a_few_times(job: Job, sink: Sink) -> None:
    """Only what speaks of the address suppresses it; the rest may be about this mail or us, and is
    tried again hours later, three times in all. The other address has its report at once."""
    job.see(to("a@legit.example", "b@legit.example"))
    next_day(job)
    sink.answer = lambda stage, who: (
        "554 5.7.1 we do not want it" if (stage, who) == ("rcpt", "a@legit.example") else ""
    )
    for attempts in (1, 2, 3):
        assert only(job).state is not ReportState.SENT
        job.run()
        [delivery, _] = job.store.deliveries.of(only(job).id)
        assert delivery.attempts == attempts
        job.clock.now += 8 * 3600
    assert {each.address: each.state for each in job.store.deliveries.of(only(job).id)} == {
        "a@legit.example": DeliveryState.REFUSED,
        "b@legit.example": DeliveryState.SENT,
    }
    assert only(job).state is ReportState.SENT
    assert job.store.destinations.suppression("a@legit.example") is None, (
        "a policy is not a dead mailbox"
    )


def test_a_mailbox_that_is_not_there_is_left_alone_for_a_while(job: Job, sink: Sink) -> None:
    job.see(evaluation())
    next_day(job)
    sink.answer = lambda stage, _: "550 5.1.1 no such user" if stage == "rcpt" else ""
    job.run()
    found = job.store.destinations.suppression("agg@legit.example")
    assert found is not None
    assert (found.reason, found.report_id) == ("550 5.1.1 no such user", only(job).id)
    sink.answer = lambda *_: ""
    job.see(evaluation(at=NOON + timedelta(days=1)))
    job.clock.now += DAY
    job.run()
    assert not sink.mails
    assert [each.note for each in job.store.reports.find() if "suppressed until" in each.note]
    job.clock.now += 31 * DAY
    job.see(evaluation(at=NOON + timedelta(days=32)))
    job.clock.now += DAY
    job.run()
    assert len(sink.mails) == 1


@pytest.mark.parametrize(
    "answers",
    [
        {"connect": "554 5.7.1 not you"},
        {"connect": "drop"},
        {"mail": "550 5.7.1 sender not allowed"},
        {"mail": "421 too busy"},
    ],
    ids=str,
)
def test_a_server_that_takes_nothing_costs_no_report(
    job: Job, sink: Sink, answers: dict[str, str]
) -> None:
    """A misconfigured or absent submission server is no answer of the destinations': the run ends,
    everything waits."""
    job.see(
        *(
            to(
                f"a{n}@legit.example",
                author=f"{n}.legit.example",
                policy_domain=f"{n}.legit.example",
            )
            for n in range(5)
        )
    )
    next_day(job)
    sink.answer = lambda stage, _: answers.get(stage, "")
    done = job.run()
    assert done.problem
    assert not sink.mails
    assert {each.state for each in job.store.reports.find()} == {ReportState.QUEUED}
    sink.answer = lambda *_: ""
    job.clock.now += 3600
    job.run()
    assert len(sink.mails) == 5


def test_nobody_listening_costs_no_report(job: Job, sink: Sink) -> None:
    job.see(evaluation())
    next_day(job)
    port, job.port = job.port, 1
    done = job.run()
    assert "refused" in done.problem
    job.port = port
    job.clock.now += 3600
    job.run()
    assert len(sink.mails) == 1


def test_rpt_11_a_connection_lost_before_250_repeats_and_after_it_may_repeat(
    job: Job, sink: Sink
) -> None:
    """RPT-11: the same id and file name on retry; never lost."""
    job.see(to("a@legit.example", "b@legit.example"))
    next_day(job)
    lost = {"a@legit.example": "drop", "b@legit.example": "drop after"}
    sink.answer = lambda stage, who: lost.get(who, "") if stage == "end" else ""
    job.run()
    assert [each.recipient for each in sink.mails] == ["b@legit.example"]
    assert only(job).state is ReportState.QUEUED
    lost.clear()
    job.clock.now += 1800
    job.run()
    assert sorted(each.recipient for each in sink.mails) == [
        "a@legit.example",
        "b@legit.example",
        "b@legit.example",
    ]
    assert only(job).state is ReportState.SENT
    names = {email.message_from_bytes(each.message)["Message-ID"] for each in sink.mails}
    files = {each.message.partition(b'filename="')[2].partition(b'"')[0] for each in sink.mails}
    assert len(names) == len(files) == 1
    assert len({content(each) for each in sink.mails}) == 1


def test_a_report_nobody_takes_expires_after_the_retry_window(job: Job, sink: Sink) -> None:
    job.set(retry_hours=24.0)
    job.see(evaluation())
    next_day(job)
    sink.answer = lambda stage, _: "450 later" if stage == "rcpt" else ""
    for _ in range(8):
        job.run()
        job.clock.now += 7 * 3600
    assert (only(job).state, only(job).note) == (
        ReportState.EXPIRED,
        "no destination took it in time",
    )
    assert job.store.reports.resend(only(job).id)
    sink.answer = lambda *_: ""
    job.run()
    assert len(sink.mails) == 1


def test_reports_from_before_reporting_was_switched_on_are_not_sent(job: Job, sink: Sink) -> None:
    """A month of reports at once would be a flood."""
    job.see(evaluation(at=NOON - timedelta(days=20)), evaluation())
    next_day(job)
    job.run()
    assert len(sink.mails) == 1
    assert sorted(each.state for each in job.store.reports.find()) == [
        ReportState.EXPIRED,
        ReportState.SENT,
    ]


def test_a_defect_in_one_report_holds_no_other(
    job: Job, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document that does not satisfy its schema is kept and shown, never sent."""
    from dmarc_milter.core.report.xml import InvalidReport
    from dmarc_milter.reporting import build as module

    real = module.render
    job.see(evaluation(), to("a@other.example", author="other.example"))

    def render(feedback, form):
        if feedback.published.policy_domain == "legit.example":
            raise InvalidReport("row 1")
        return real(feedback, form)

    monkeypatch.setattr(module, "render", render)
    next_day(job)
    job.run()
    assert len(sink.mails) == 1
    [bad] = job.store.reports.find(policy_domain="legit.example")
    assert bad.state is ReportState.SUPPRESSED
    assert "InvalidReport" in bad.note
    monkeypatch.setattr(module, "render", real)
    assert job.store.reports.resend(bad.id)
    job.run()
    assert len(sink.mails) == 2


# --- several hosts --------------------------------------------------------------------------------


def test_a_host_that_died_is_taken_over(job: Job, opened: Callable[[], Store], sink: Sink) -> None:
    """After the lease, with the same identity."""
    job.see(evaluation())
    next_day(job)
    [dead] = job.store.reports.claim("dead", ended_before=int(job.clock.now))
    other = job.another(opened(), "other")
    assert other.run().built == {}
    job.clock.now += LEASE + SKEW + 1
    assert other.run().built == {ReportState.QUEUED: 1}
    assert read(sink.mails[0].message)[0].report_id == dead.id
