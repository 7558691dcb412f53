"""A clock that is wrong destroys nothing: it deletes no row, gives up no report, and what it wrote
keeps nothing back once it is right again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.clock import FAR, JUMP, PROOF, believe, doubt
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.lease import Lease
from dmarc_milter.ledger.store.reports import Document, NewDelivery, ReportState
from dmarc_milter.ledger.store.retention import Retention, clean_up
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import NOON, evaluation
from fakes.stores import spool_row, upgraded

HOUR, DAY = 3600, 86400
NOW = int(NOON.timestamp())
MONTHS = 40 * DAY
YEAR = 365 * DAY


class Clock:
    """A host's clock, which may be wrong."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database_time(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The database server tells the test's time: what remains to be seen is the jump."""
    monkeypatch.setattr("dmarc_milter.ledger.clock._other_than_server", lambda *_: "")


@pytest.fixture
def store(store_url: str, clock: Clock, database_time: None) -> Iterator[Store]:
    with closing(Store.open(upgraded(store_url), clock=clock)) as store:
        yield store


_sequence = iter(range(1, 1_000_000))


def hand_over(store: Store, *evaluations: Evaluation, sample: bytes | None = None) -> None:
    rows = [(next(_sequence), spool_row(each, sample)) for each in evaluations]
    store.apply(Batch("spool-a", "mx1.example.com", rows))


def at(moment: int, name: str = "legit.example") -> Evaluation:
    """A message that fails, decided at that time."""
    return replace(evaluation(name), at=NOON + timedelta(seconds=moment - NOW))


def everything(store: Store) -> tuple[int, int, int]:
    """Decisions, reports, failure reports."""
    return (
        store.decisions.count(),
        len(store.reports.find()),
        len(store.failures.find()),
    )


KEEPING = Retention(keep_untried=True, keep_untried_failures=True)


def test_a_clock_that_jumps_ahead_deletes_nothing(store: Store, clock: Clock) -> None:
    """One hourly clean-up at +40 days: refused with one sentence that names both times."""
    hand_over(store, at(NOW), at(NOW, "b.example"), sample=b"From: x\r\n")
    clean_up(store.database, KEEPING, now=NOW)
    before = everything(store)
    clock.now = NOW + MONTHS
    hand_over(store, at(NOW + MONTHS))  # a message comes and is drained by the wrong clock
    for hours in range(20):
        with pytest.raises(StoreError) as raised:
            clean_up(store.database, Retention(), now=NOW + MONTHS + hours * HOUR)
        assert raised.value.kind == "clock"
        assert "the store has seen 2026-11-20 12:00 UTC last" in str(raised.value)
    assert everything(store)[0] == before[0] + 1
    clean_up(store.database, KEEPING, now=NOW + DAY)
    assert everything(store)[1] >= before[1]


def test_without_a_clean_up_before_what_was_drained_tells_the_time(
    store: Store, clock: Clock
) -> None:
    """The first batch of a store notes its time."""
    hand_over(store, at(NOW))
    clock.now = NOW + MONTHS
    hand_over(store, at(NOW + MONTHS))
    assert doubt(store.database, NOW + MONTHS)


def test_a_machine_that_was_off_for_long_is_believed_after_a_day(store: Store) -> None:
    """The doubt ends when the new time has gone on evenly."""
    hand_over(store, at(NOW))
    believe(store.database, NOW)
    back = NOW + MONTHS
    assert all(doubt(store.database, back + hours * HOUR) for hours in range(24))
    assert doubt(store.database, back + PROOF) == ""
    assert clean_up(store.database, Retention(), now=back + PROOF)["decision"] == 1


def test_a_clock_that_jumps_about_is_not_believed(store: Store) -> None:
    """Each further jump begins the day anew; and a jump back is a jump too."""
    hand_over(store, at(NOW))
    believe(store.database, NOW)
    for number in range(1, 12):
        assert doubt(store.database, NOW + number * (JUMP + PROOF))
    assert doubt(store.database, NOW - YEAR)
    assert doubt(store.database, NOW + HOUR) == ""


def test_another_host_whose_clock_is_right_ends_the_doubt_about_itself_only(store: Store) -> None:
    """The wrong host is never believed while the others go on."""
    hand_over(store, at(NOW))
    for hours in range(100):
        assert doubt(store.database, NOW + hours * HOUR) == ""
        assert doubt(store.database, NOW + MONTHS + hours * HOUR)


@pytest.mark.parametrize("began", [0, DAY, 20 * YEAR])
def test_a_machine_without_a_clock_of_its_own_is_believed_once_it_has_the_time(
    store: Store, clock: Clock, began: int
) -> None:
    """It begins in 1970: what was seen then says nothing of today, and it is not believed."""
    clock.now = began
    hand_over(store, at(NOW))
    with pytest.raises(StoreError, match="nothing is deleted or reported by it"):
        clean_up(store.database, KEEPING, now=began)
    clock.now = NOW
    hand_over(store, at(NOW))
    assert doubt(store.database, NOW) == ""
    assert doubt(store.database, NOW + MONTHS)
    assert doubt(store.database, began)
    assert doubt(store.database, NOW + HOUR) == ""


def test_an_administrator_may_say_that_the_clock_is_right(store: Store) -> None:
    hand_over(store, at(NOW))
    believe(store.database, NOW)
    assert doubt(store.database, NOW + MONTHS)
    gone = clean_up(store.database, Retention(), now=NOW + MONTHS, trusted=True)
    assert gone["decision"] == 1
    assert doubt(store.database, NOW + MONTHS + HOUR) == ""


def test_a_report_that_is_due_and_was_never_tried_is_not_deleted(store: Store) -> None:
    """Where reporting is on its job says what becomes of it, however late."""
    hand_over(store, at(NOW), sample=b"From: x\r\n")
    clean_up(store.database, KEEPING, now=NOW + 100 * DAY, trusted=True)
    assert [each.state for each in store.reports.find()] == [ReportState.DUE]
    assert [each.state for each in store.failures.find()] == ["due"]
    clean_up(store.database, Retention(), now=NOW + 100 * DAY, trusted=True)
    assert store.reports.find() == []
    assert store.failures.find() == []


def test_what_was_kept_for_failure_reports_goes_where_they_are_switched_off(store: Store) -> None:
    """Nobody will ever send it."""
    hand_over(store, at(NOW), sample=b"From: x\r\n")
    clean_up(store.database, Retention(keep_untried=True), now=NOW + 40 * DAY, trusted=True)
    assert store.failures.find() == []
    assert [each.state for each in store.reports.find()] == [ReportState.DUE]


@pytest.mark.parametrize("ahead", [2 * DAY, YEAR, 20 * YEAR])
def test_a_failing_message_of_the_future_keeps_no_other_back(
    store: Store, clock: Clock, ahead: int
) -> None:
    """Seen: one message while the clock was a year ahead kept that domain's failure reports back
    until that date."""
    clock.now = NOW + ahead
    hand_over(store, at(NOW + ahead), sample=b"From: future\r\n")
    clock.now = NOW + HOUR
    hand_over(store, at(NOW + HOUR), at(NOW + HOUR), sample=b"From: now\r\n")
    [failure] = store.failures.claim("me")
    assert (failure.sample, failure.incidents) == (b"From: now\r\n", 2)


def _future_work(store: Store, clock: Clock) -> None:
    """A host whose clock is a year ahead claims, postpones and dies."""
    for name in ("a.example", "b.example", "c.example"):
        hand_over(store, at(NOW - DAY, name), sample=b"From: x\r\n")
    clock.now = NOW + YEAR
    hand_over(store, at(NOW + YEAR, "passing.example"))
    reports = store.reports.claim("dead", ended_before=NOW)
    assert len(reports) == 3
    store.reports.postpone(reports[0].id, "dead", NOW + YEAR + 600, "the DNS did not answer")
    store.reports.queue(
        reports[1].id,
        "dead",
        [Document("rfc9990", "x", b"x")],
        [NewDelivery("a@x.example", "rfc9990", NOW + YEAR)],
    )
    store.failures.claim("dead")
    Lease(store.database, "expire", 600).take()


def test_what_a_wrong_clock_left_behind_is_put_right(store: Store, clock: Clock) -> None:
    """Leases and retries of that date: taken over once the clock is right, nothing is lost."""
    _future_work(store, clock)
    clock.now = NOW + HOUR
    believe(store.database, NOW + HOUR, trusted=True)
    reports = store.reports.claim("alive", ended_before=NOW)
    assert len(reports) == 2
    assert len(store.deliveries.claim("alive")) == 1
    assert len(store.failures.claim("alive")) == 3
    assert all(each.closed_at <= NOW + FAR for each in store.reports.find())
    clean_up(store.database, KEEPING, now=NOW + HOUR)


def test_a_lease_of_the_future_stops_no_other_host(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may do schema steps and expiry is told by time as well."""
    monkeypatch.setattr("dmarc_milter.ledger.store.lease.time.time", lambda: NOW + YEAR)
    assert Lease(store.database, "expire", 600).take()
    monkeypatch.setattr("dmarc_milter.ledger.store.lease.time.time", lambda: NOW)
    assert Lease(store.database, "expire", 600).take()


def test_a_clock_in_the_past_puts_nothing_right(store: Store, clock: Clock) -> None:
    """At a boot without a battery everything seems to come from the future."""
    hand_over(store, at(NOW - DAY))
    believe(store.database, NOW)
    [report] = store.reports.claim("me", ended_before=NOW)
    with pytest.raises(StoreError):
        believe(store.database, 1000)
    kept = store.reports.get(report.id)
    assert kept is not None
    assert kept.closed_at == report.closed_at
    assert store.reports.renew(report.id, "me")


def test_two_hosts_ten_minutes_apart_send_each_report_once(store_url: str) -> None:
    """Leases hold although the hosts' clocks differ by more than a minute."""
    upgraded(store_url)
    late, early = Clock(NOW), Clock(NOW + 600)
    with (
        closing(Store.open(store_url, clock=late)) as one,
        closing(Store.open(store_url, clock=early)) as two,
    ):
        for number in range(10):
            rows = [(number + 1, spool_row(at(NOW - DAY, f"d{number}.example")))]
            (one, two)[number % 2].apply(Batch(f"spool-{number % 2}", f"mx{number % 2}", rows))
        sent: list[str] = []
        for step in range(0, 3600, 200):
            late.now, early.now = NOW + step, NOW + 600 + step
            for owner, store in (("late", one), ("early", two)):
                for report in store.reports.claim(owner, ended_before=NOW, limit=2):
                    documents = [Document("rfc9990", "x", b"x")]
                    delivery = NewDelivery("a@x.example", "rfc9990", int(store.clock()))
                    store.reports.queue(report.id, owner, documents, [delivery])
                for each in store.deliveries.claim(owner, limit=2):
                    if store.deliveries.settle(each, owner, DeliveryState.SENT, "250"):
                        sent.append(each.report_id)
        assert len(sent) == len(set(sent)) == 10
        assert {each.state for each in one.reports.find()} == {ReportState.SENT}


def test_a_period_that_closes_during_a_jump_loses_nothing(store: Store, clock: Clock) -> None:
    """A day ahead for an hour, too little to be doubted: the report that left too early is followed
    by a second part, and together they count every message once."""
    hand_over(store, at(NOW), at(NOW))
    clock.now = NOW + DAY
    [first] = store.reports.claim("me", ended_before=int(clock.now))
    store.reports.queue(
        first.id,
        "me",
        [Document("rfc9990", "x", b"x")],
        [NewDelivery("a@x.example", "rfc9990", int(clock.now))],
    )
    clock.now = NOW + HOUR
    hand_over(store, at(NOW + HOUR))
    reports = store.reports.find()
    assert sorted((each.part, each.messages, each.state) for each in reports) == [
        (1, 2, ReportState.QUEUED),
        (2, 1, ReportState.DUE),
    ]


def test_the_command_and_the_report_run_say_it_and_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """75: try again later."""
    url = f"sqlite:///{tmp_path}/reports.db"
    config = tmp_path / "c.toml"
    config.write_text(
        f'[store]\nurl = "{url}"\n[reporting]\norg_name = "o"\nemail = "r@o.example"\n'
    )
    with closing(Store.open(upgraded(url), clock=lambda: NOW)) as store:
        hand_over(store, at(NOW - DAY))
        believe(store.database, NOW)

        def ask(*words: str) -> int:
            return main([*words, "--config", str(config)])

        monkeypatch.setattr("time.time", lambda: NOW + MONTHS)
        assert ask("store", "expire") == 75
        assert "the store has seen" in capsys.readouterr().err
        assert ask("report", "send") == 75
        assert "the store has seen" in capsys.readouterr().err
        assert ask("report", "send", "--now") == 75
        assert "the store has seen" in capsys.readouterr().err
        assert [each.state for each in store.reports.find()] == [ReportState.DUE]
        assert store.decisions.count() == 1
        assert ask("store", "expire", "--clock-is-right") == 0
        assert [each.state for each in store.reports.find()] == [ReportState.DUE]
        assert store.decisions.count() == 0


def test_a_host_that_differs_from_the_database_server_is_not_believed(
    store_url: str, request: pytest.FixtureRequest
) -> None:
    """The server is a second clock."""
    if store_url.startswith("sqlite"):
        pytest.skip("a file has no clock")
    with closing(Store.open(upgraded(store_url))) as store:
        now = int(store.clock())
        assert doubt(store.database, now) == ""
        assert "that of the database server" in doubt(store.database, now + 2 * HOUR)
        assert doubt(store.database, now) == ""
