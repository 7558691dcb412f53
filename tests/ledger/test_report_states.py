"""Reports on their way out: leases, states, caps and suppressions, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from dmarc_milter.config import parse
from dmarc_milter.ledger.connect import retention_of
from dmarc_milter.ledger.store import apply_batch, retention
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.destinations import Authorisation, Limit
from dmarc_milter.ledger.store.reports import (
    LEASE,
    SKEW,
    Document,
    NewDelivery,
    Report,
    ReportState,
)
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.status import store_status
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import NOON, evaluation
from fakes.report_job import DAY, NOW, TOMORROW, Clock
from fakes.stores import batch, spool_row, upgraded

DOCUMENT = Document("rfc9990", "mx!legit.example!1!2.xml.gz", b"\x1f\x8b\0report")


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
def store(opened: Callable[[], Store], clock: Clock) -> Store:
    """Three due reports of a day that is over."""
    store = opened()
    store.apply(batch(*(evaluation(f"d{n}.example") for n in (1, 1, 2, 3))))
    clock.now = TOMORROW + 100
    return store


def claim(store: Store, owner: str = "me", limit: int = 20) -> list[Report]:
    return store.reports.claim(owner, ended_before=int(store.clock()), limit=limit)


def queued(store: Store, *addresses: str) -> Report:
    """One report, built, with a delivery for each address."""
    [report] = claim(store, limit=1)
    assert store.reports.queue(
        report.id,
        "me",
        [DOCUMENT],
        [NewDelivery(each, "rfc9990", int(store.clock())) for each in addresses],
    )
    found = store.reports.get(report.id)
    assert found is not None
    assert found.state is ReportState.QUEUED
    return found


def state(store: Store, report: Report) -> ReportState:
    found = store.reports.get(report.id)
    assert found is not None
    return found.state


# --- due and building -----------------------------------------------------------------------------


def test_an_open_period_is_not_claimed_unless_asked_for(
    opened: Callable[[], Store], clock: Clock
) -> None:
    """`report send --now` also closes and sends the period still open."""
    store = opened()
    store.apply(batch(evaluation()))
    assert claim(store) == []
    [report] = store.reports.claim("me", ended_before=2**60, at_once=True)
    assert (report.state, report.closed, report.begin) == (
        ReportState.BUILDING,
        True,
        TOMORROW - DAY,
    )


def begun(store: Store, handed_over: Batch) -> Report:
    """The report of a batch that is about to be counted."""
    read = apply_batch.read(handed_over)._replace(logged=lambda _: True)
    apply_batch.prepare(store.database, read, store.options, int(store.clock()))
    [report] = store.reports.find()
    return report


def test_a_report_whose_first_batch_is_not_counted_yet_is_left_to_it(
    opened: Callable[[], Store], clock: Clock
) -> None:
    """A report is made in a short transaction before the batch. Who sends reports in between would
    close an empty one, and say that all its messages were automatic."""
    store, one = opened(), batch(evaluation("legit.example"))
    report = begun(store, one)
    clock.now = report.end + 1
    assert claim(store) == []
    assert store.reports.claim("me", ended_before=2**60, at_once=True) == []
    store.apply(one)
    [claimed] = claim(store)
    assert (claimed.part, claimed.messages) == (1, 1)


def test_a_report_into_which_nothing_is_ever_counted_ends(
    opened: Callable[[], Store], clock: Clock
) -> None:
    store = opened()
    report = begun(store, batch(evaluation("legit.example")))
    clock.now = report.end + DAY
    [claimed] = claim(store)
    assert (claimed.id, claimed.messages) == (report.id, 0)


def test_each_report_is_claimed_by_one_host(store: Store, opened: Callable[[], Store]) -> None:
    """docs/design.md, The ledger: several MX hosts run the report timer and each report leaves
    once."""
    hosts = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        claimed = [
            each.id
            for found in executor.map(lambda host: claim(host, f"host{id(host)}", 1), hosts)
            for each in found
        ]
    claimed += [each.id for each in claim(store)]
    assert sorted(claimed) == sorted(each.id for each in store.reports.find())
    assert claim(store) == []


def test_a_host_that_died_is_taken_over_after_the_lease(
    store: Store, opened: Callable[[], Store], clock: Clock
) -> None:
    """With the same identity, and not a moment earlier than clocks that differ by a minute
    allow."""
    dead = claim(store, "dead")
    clock.now += LEASE + 60
    assert claim(opened(), "alive") == []
    clock.now += SKEW
    assert sorted(each.id for each in claim(opened(), "alive")) == sorted(each.id for each in dead)
    assert not store.reports.queue(dead[0].id, "dead", [DOCUMENT], []), (
        "the dead host came back and its lease is gone"
    )
    assert not store.reports.finish(dead[0].id, "dead", ReportState.SUPPRESSED, "x")
    assert store.reports.queue(dead[0].id, "alive", [DOCUMENT], [])


def test_a_lease_can_be_renewed(store: Store, opened: Callable[[], Store], clock: Clock) -> None:
    [report, *_] = claim(store)
    clock.now += LEASE
    assert store.reports.renew(report.id, "me")
    assert not store.reports.renew(report.id, "somebody else")
    clock.now += SKEW + 1
    assert report.id not in [each.id for each in claim(opened(), "other")]


def test_a_postponed_report_waits_and_stays_closed(store: Store, clock: Clock) -> None:
    """RFC 9990 4: a DNS failure keeps the report for later."""
    [report, *_] = claim(store, limit=1)
    assert store.reports.postpone(
        report.id, "me", int(clock.now) + 900, "dns error for d1.example._report._dmarc.x.example"
    )
    assert report.id not in [each.id for each in claim(store)]
    clock.now += 900
    [again] = claim(store)
    assert (again.id, again.closed, again.attempts) == (report.id, True, 1)
    assert "dns error" in again.note


def test_a_finished_report_is_not_claimed_again(store: Store, clock: Clock) -> None:
    [report, *_] = claim(store, limit=1)
    assert store.reports.finish(report.id, "me", ReportState.SUPPRESSED, "only reports and DSNs")
    clock.now += DAY
    assert report.id not in [each.id for each in claim(store)]
    found = store.reports.get(report.id)
    assert found is not None
    assert (found.state, found.note, found.done_at) == (
        ReportState.SUPPRESSED,
        "only reports and DSNs",
        TOMORROW + 100,
    )


# --- queued and settled ---------------------------------------------------------------------------

S, R, X, U = (
    DeliveryState.SENT,
    DeliveryState.REFUSED,
    DeliveryState.EXPIRED,
    DeliveryState.SUPPRESSED,
)


@pytest.mark.parametrize(
    ("outcomes", "final"),
    [
        ((S,), ReportState.SENT),
        ((S, R), ReportState.SENT),
        ((X, S), ReportState.SENT),
        ((R, U), ReportState.SUPPRESSED),
        ((U, X), ReportState.EXPIRED),
    ],
)
def test_the_last_delivery_settles_the_report(
    store: Store, outcomes: tuple[DeliveryState, ...], final: ReportState
) -> None:
    report = queued(store, *(f"a{n}@x.example" for n in range(len(outcomes))))
    claimed = store.deliveries.claim("me")
    for delivery, outcome in zip(claimed, outcomes, strict=True):
        assert state(store, report) is ReportState.QUEUED
        assert list(store.reports.rows(report.id)), "a row leaves only after 250"
        assert store.deliveries.settle(
            delivery, "me", outcome, "250 2.0.0 Ok" if outcome is S else "550 no"
        )
    assert state(store, report) is final
    assert bool(list(store.reports.rows(report.id))) is (final is not ReportState.SENT)


def test_deliveries_that_are_settled_at_once_by_two_hosts_settle_the_report(
    store: Store, opened: Callable[[], Store]
) -> None:
    """Each must not take the other's delivery for still queued."""
    report = queued(store, *(f"a{n}@x.example" for n in range(8)))
    hosts = [opened() for _ in range(4)]
    work = [
        (host, host.deliveries.claim(f"h{n}", limit=2), f"h{n}") for n, host in enumerate(hosts)
    ]
    with ThreadPoolExecutor(4) as executor:
        settled = executor.map(
            lambda w: [w[0].deliveries.settle(each, w[2], S, "250") for each in w[1]], work
        )
        assert [all(each) and len(each) for each in settled] == [2, 2, 2, 2]
    assert state(store, report) is ReportState.SENT


def test_a_delivery_is_tried_again_when_its_time_has_come(store: Store, clock: Clock) -> None:
    queued(store, "a@x.example")
    [delivery] = store.deliveries.claim("me")
    assert store.deliveries.claim("other") == []
    assert store.deliveries.settle(
        delivery, "me", DeliveryState.QUEUED, "451 later", next_at=int(clock.now) + 600
    )
    assert store.deliveries.claim("me") == []
    assert len(store.deliveries.claim("me", at_once=True)) == 1
    clock.now += LEASE + SKEW + 600
    [again] = store.deliveries.claim("me")
    assert (again.attempts, again.last_reply, again.report_id) == (
        1,
        "451 later",
        delivery.report_id,
    )


def test_a_delivery_of_a_dead_host_is_taken_over_and_its_late_word_is_not_heard(
    store: Store, clock: Clock
) -> None:
    """Crash between 250 and the commit may repeat a report with the same identity, never lose
    one."""
    queued(store, "a@x.example")
    [delivery] = store.deliveries.claim("dead")
    clock.now += LEASE + SKEW + 1
    [again] = store.deliveries.claim("alive")
    assert again.report_id == delivery.report_id
    assert not store.deliveries.settle(delivery, "dead", S, "250")
    assert store.deliveries.settle(again, "alive", S, "250")


def test_a_delivery_may_be_given_back_untried(store: Store, clock: Clock) -> None:
    queued(store, "a@x.example")
    [delivery] = store.deliveries.claim("me")
    assert store.deliveries.release(delivery, "me", int(clock.now) + 10)
    [found] = store.deliveries.of(delivery.report_id)
    assert (found.attempts, found.state, found.next_at) == (
        0,
        DeliveryState.QUEUED,
        int(clock.now) + 10,
    )
    assert store.deliveries.waiting() == 1


def test_resend_repeats_the_same_document_with_the_same_identity(store: Store) -> None:
    report = queued(store, "a@x.example")
    [delivery] = store.deliveries.claim("me")
    store.deliveries.settle(delivery, "me", S, "250")
    assert store.reports.resend(report.id)
    assert state(store, report) is ReportState.QUEUED
    [again] = store.deliveries.claim("me")
    assert (again.report_id, again.attempts) == (report.id, 0)
    assert store.reports.document(report.id, "rfc9990") == DOCUMENT
    assert store.reports.document(report.id, "rfc7489") is None


def test_resend_of_a_report_that_was_never_built_builds_it(store: Store) -> None:
    [report, *_] = claim(store, limit=1)
    store.reports.finish(report.id, "me", ReportState.SUPPRESSED, "x")
    assert store.reports.resend(report.id)
    assert report.id in [each.id for each in claim(store)]
    assert not store.reports.resend("0" * 32)


def test_a_dropped_report_is_not_sent(store: Store) -> None:
    report = queued(store, "a@x.example")
    assert store.reports.drop(report.id)
    assert store.deliveries.claim("me") == []
    assert state(store, report) is ReportState.SUPPRESSED
    assert list(store.reports.rows(report.id)) == []
    assert not store.reports.drop("0" * 32)


def test_reports_are_listed_by_state_and_domain(store: Store) -> None:
    report = queued(store, "a@x.example")
    assert [each.id for each in store.reports.find([ReportState.QUEUED])] == [report.id]
    assert len(store.reports.find([ReportState.DUE, ReportState.QUEUED])) == 3
    assert [each.policy_domain for each in store.reports.find(policy_domain="d2.example")] == [
        "d2.example"
    ]
    assert store.reports.find(since=TOMORROW) == []
    assert len(store.reports.find(limit=1, offset=2)) == 1


def test_rows_come_page_by_page(opened: Callable[[], Store]) -> None:
    store = opened()
    store.apply(batch(*(evaluation(source_ip=f"10.1.{n // 256}.{n % 256}") for n in range(2100))))
    [report] = store.reports.find()
    assert len({row.source_ip for row, _ in store.reports.rows(report.id)}) == report.rows == 2100


# --- destinations ---------------------------------------------------------------------------------


def test_a_suppressed_address_is_left_alone_until_then(store: Store, clock: Clock) -> None:
    store.destinations.suppress("a@x.example", int(clock.now) + 100, "550 no such user", "ab" * 16)
    store.destinations.suppress("a@x.example", int(clock.now) + 50, "a shorter one changes nothing")
    found = store.destinations.suppression("a@x.example")
    assert found is not None
    assert (found.reason, found.report_id) == ("550 no such user", "ab" * 16)
    assert [each.address for each in store.destinations.suppressions()] == ["a@x.example"]
    clock.now += 101
    assert store.destinations.suppression("a@x.example") is None
    assert store.destinations.allow("a@x.example")
    assert not store.destinations.allow("a@x.example")


def test_rpt_06_reservations_take_all_or_nothing(store: Store, clock: Clock) -> None:
    """Caps per day and destination: a destination that is full costs the day nothing."""
    limits = [Limit("all", 3), Limit("destination:x.example", 1)]
    assert store.destinations.reserve(limits) == ""
    assert store.destinations.reserve(limits) == "destination:x.example"
    assert store.destinations.spent("all") == 1
    assert store.destinations.reserve([Limit("all", 0)]) == "all"
    store.destinations.give_back(["destination:x.example"])
    assert store.destinations.reserve(limits) == ""
    clock.now += DAY
    assert store.destinations.spent("all") == 0


def test_rpt_06_hosts_together_keep_the_cap(opened: Callable[[], Store]) -> None:
    hosts = [opened() for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        taken = executor.map(
            lambda host: [host.destinations.reserve([Limit("all", 10)]) for _ in range(5)], hosts
        )
        assert [each for some in taken for each in some].count("") == 10


def test_first_destinations_are_remembered(store: Store) -> None:
    assert store.destinations.is_first("x.example")
    store.destinations.remember("x.example")
    store.destinations.remember("x.example")
    assert not store.destinations.is_first("x.example")


def test_authorisations_hold_for_their_time(store: Store, clock: Clock) -> None:
    """RFC 9990 4: cached by policy domain and destination, with an override's addresses."""
    answer = Authorisation("accepted", ("b@x.example", "c@x.example"), int(clock.now) + 60)
    store.destinations.authorise("legit.example", "x.example", "rua", answer)
    assert store.destinations.authorisation("legit.example", "x.example", "rua") == answer
    assert store.destinations.authorisation("legit.example", "x.example", "ruf") is None
    store.destinations.authorise(
        "legit.example", "x.example", "rua", Authorisation("refused", (), int(clock.now) + 60)
    )
    found = store.destinations.authorisation("legit.example", "x.example", "rua")
    assert found is not None
    assert (found.outcome, found.addresses) == ("refused", ())
    clock.now += 61
    assert store.destinations.authorisation("legit.example", "x.example", "rua") is None


def test_a_failure_report_is_claimed_settled_and_its_sample_forgotten(
    store: Store, clock: Clock
) -> None:
    """RFC 9991: queued, never on the mail path; what it quoted is not kept longer than needed."""
    store.apply(Batch("spool-f", "mx1", [(1, spool_row(evaluation(), b"From: a\r\n"))]))
    [failure] = store.failures.claim("me")
    assert store.failures.claim("other") == []
    assert store.failures.settle(failure, "me", "due", "451", next_at=int(clock.now) + 60)
    clock.now += 60
    [again] = store.failures.claim("me")
    assert (again.sample, again.attempts) == (b"From: a\r\n", 1)
    assert store.failures.settle(again, "me", "sent", "250")
    [done] = store.failures.find()
    assert (done.state, done.sample, done.last_reply) == ("sent", b"", "250")
    assert not store.failures.settle(again, "me", "sent", "250")


# --- retention and status -------------------------------------------------------------------------


def test_retention_forgets_by_age_and_by_number(store: Store, clock: Clock) -> None:
    """docs/design.md, The ledger: 14 days by default, size bounded."""
    assert expire(store.database, Retention(), now=int(clock.now)) == {}
    assert expire(store.database, Retention(decision_rows=3), now=int(clock.now)) == {
        "decision": 4
    }, "all of one second go together"
    report = queued(store, "a@x.example")
    assert expire(store.database, Retention(), now=int(clock.now) + 29 * DAY) == {"quota": 8}
    assert expire(store.database, Retention(), now=int(clock.now) + 31 * DAY) == {"report": 3}
    assert store.reports.get(report.id) is None
    assert store.deliveries.of(report.id) == []
    assert store.reports.document(report.id, "rfc9990") is None
    assert list(store.reports.rows(report.id)) == []


def test_a_report_on_its_way_is_not_forgotten(store: Store, clock: Clock) -> None:
    """docs/design.md, Reports: a row leaves only after 250. report_days is for what is done; what
    may still go stays as long as it is tried."""
    sent, tried = queued(store, "a@x.example"), queued(store, "b@x.example")
    [delivery] = [each for each in store.deliveries.claim("me") if each.report_id == sent.id]
    assert store.deliveries.settle(delivery, "me", DeliveryState.SENT, "250 ok")
    short = Retention(report_days=1, unsent_days=8)
    clock.now += 2 * DAY
    assert expire(store.database, short, now=int(clock.now))["report"] == 1
    assert {each.state for each in store.reports.find()} == {ReportState.QUEUED, ReportState.DUE}
    assert store.reports.resend(tried.id)
    clock.now += 7 * DAY
    assert expire(store.database, short, now=int(clock.now))["report"] == 1, (
        "the due one; the other was told to go once more"
    )
    clock.now += 2 * DAY
    assert expire(store.database, short, now=int(clock.now))["report"] == 1
    assert store.reports.find() == []


def test_a_failure_report_on_its_way_is_not_forgotten(store: Store, clock: Clock) -> None:
    store.apply(
        Batch("spool-b", "mx1.example.com", [(1, spool_row(evaluation("d9.example"), b"sample"))])
    )
    short = Retention(report_days=1, unsent_days=8)
    expire(store.database, short, now=NOW + 2 * DAY)
    assert [each.state for each in store.failures.find()] == ["due"]
    expire(store.database, short, now=NOW + 9 * DAY)
    assert store.failures.find() == []


def test_what_is_on_its_way_is_kept_for_the_retry_window() -> None:
    short = parse("[store]\nreport_days = 1\n")
    assert (retention_of(short).report_days, retention_of(short).unsent_days) == (1, 8)
    assert retention_of(parse("[reporting]\nretry_hours = 720\n")).unsent_days == 31


def test_old_decisions_go_and_totals_stay(store: Store, clock: Clock) -> None:
    assert expire(store.database, Retention(), now=NOW + 15 * DAY)["decision"] == 4
    assert store.decisions.recent() == []
    assert sum(each.messages for each in store.decisions.totals()) == 4


def test_known_domains_are_bounded(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that passed here longest ago are forgotten first."""
    monkeypatch.setattr(retention, "KNOWN", 2)
    for number in range(4):
        at = NOON + timedelta(hours=number)
        store.apply(
            batch(replace(evaluation(f"k{number}.example", passed=True), at=at), first=10 + number)
        )
    assert expire(store.database, Retention(), now=int(clock.now)) == {"known_domain": 2}
    assert [store.destinations.has_passed(f"k{number}.example") for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]


def test_status_counts_what_is_there(store: Store) -> None:
    queued(store, "a@x.example")
    found = store_status(store.database)
    assert found.problem == ""
    assert found.rows is not None
    assert (found.rows["decision"], found.rows["delivery"]) == (4, 1)
    assert found.reports == {"due": 2, "queued": 1}
