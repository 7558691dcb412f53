"""The store counts every message once, whoever hands it over and however often, and stays within
its bounds: on SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.daily_caps import Caps, StoreOptions
from dmarc_milter.ledger.store.database import SqliteDatabase, Transaction, attempt, connect
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.reports import Report, ReportState
from dmarc_milter.ledger.store.schema.steps import SchemaStep
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import NOON, RECORD, evaluation, outcome
from fakes.log_groups import groups
from fakes.stores import batch, fresh_schema, spool_row, upgraded
from live.postgres import Postgres

NOW = int(NOON.timestamp())
TOMORROW = NOW // 86400 * 86400 + 86400


@pytest.fixture
def opened(store_url: str) -> Iterator[Callable[..., Store]]:
    """Makes Stores on the same database, as several hosts have them."""
    upgraded(store_url)
    stores: list[Store] = []

    def make(
        options: StoreOptions = StoreOptions(), now: Callable[[], float] = lambda: NOW
    ) -> Store:
        stores.append(Store.open(store_url, options, clock=now))
        return stores[-1]

    yield make
    for each in stores:
        each.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


def counted(store: Store, *, at_once: int = 1) -> dict[str, int]:
    """Messages in rows by policy domain; what the reports say of themselves must agree. Of a report
    that is open `at_once` hosts may each have counted a row as new."""
    found: dict[str, int] = {}
    for report in store.reports.find():
        rows = list(store.reports.rows(report.id))
        assert len(rows) <= report.rows <= at_once * len(rows)
        assert sum(number for _, number in rows) == report.messages
        found[report.policy_domain] = found.get(report.policy_domain, 0) + report.messages
    return found


def only(store: Store) -> Report:
    [report] = store.reports.find()
    return report


# --- schema ---------------------------------------------------------------------------------------


def test_upgrading_twice_applies_each_step_once(store_url: str) -> None:
    """STYLE 14: a schema step and the note of it share a transaction."""
    database = connect(store_url)
    assert schema.version(database) == 0
    assert schema.upgrade(database) == [name for name, *_ in schema.STEPS]
    assert schema.upgrade(database) == []
    assert schema.version(database) == len(schema.STEPS)
    database.close()


def test_hosts_that_upgrade_at_once_apply_each_step_once(store_url: str) -> None:
    applied = [name for names in upgraded_at_once(store_url) for name in names]
    assert sorted(applied) == sorted(name for name, *_ in schema.STEPS)


def test_hosts_that_upgrade_an_empty_store_at_once_do_not_meet_over_its_list(
    postgres_server: Postgres,
) -> None:
    """IF NOT EXISTS is no promise: PostgreSQL may tell the second of two that the table exists."""
    for _ in range(10):
        applied = upgraded_at_once(fresh_schema(postgres_server))
        assert sorted(chain.from_iterable(applied)) == sorted(name for name, *_ in schema.STEPS)


def test_what_a_step_counts_is_counted_without_a_batch_on_its_way(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that has looked at the schema and not committed yet: the step waits for it, and
    counts what it wrote."""
    counted = list[int]()

    def count_log(transaction: Transaction) -> None:
        row = transaction.one("SELECT count(*) FROM decision")
        counted.append(int(row[0]) if row else -1)

    url = upgraded(fresh_schema(postgres_server))
    with closing(Store(connect(url), clock=lambda: NOW)) as store, ThreadPoolExecutor(1) as other:
        store.apply(batch(evaluation()))
        later = SchemaStep("later", (), count_log)
        monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, later))
        with store.database.transaction() as transaction:
            transaction.one("SELECT last_seq FROM origin {for_update}")
            upgrade = other.submit(upgraded, url)
            transaction.run("SET LOCAL idle_in_transaction_session_timeout = 0")
            transaction.run("DELETE FROM decision")
            time.sleep(0.5)  # it may take longer until it waits: then there is nothing to see
            assert not counted
        upgrade.result()
    assert counted == [0]


def upgraded_at_once(store_url: str, hosts: int = 4) -> list[list[str]]:
    """What each of so many hosts applied; all are connected before the first one begins."""
    together = Barrier(hosts)

    def host() -> list[str]:
        with closing(connect(store_url)) as database:
            schema.version(database)
            together.wait()
            return schema.upgrade(database)

    with ThreadPoolExecutor(hosts) as executor:
        return [each.result() for each in [executor.submit(host) for _ in range(hosts)]]


def test_processes_that_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """The first start: serve, web and the report timer open the same file, which one of them
    makes."""

    def opened(path: Path, together: Barrier) -> None:
        together.wait()
        Store.open(f"sqlite:///{path}").close()

    with ThreadPoolExecutor(4) as executor:
        for number in range(40):
            path, together = tmp_path / f"{number}.db", Barrier(4)
            for waiting in [executor.submit(opened, path, together) for _ in range(4)]:
                waiting.result()
            with closing(connect(f"sqlite:///{path}")) as database:
                assert schema.version(database) == len(schema.STEPS)


def test_a_newer_store_is_refused(store_url: str) -> None:
    """docs/design.md, The ledger: rows stay in the spool, and it says so."""
    database = connect(upgraded(store_url))
    attempt(
        database,
        lambda transaction: transaction.run(
            "INSERT INTO schema_step VALUES (99, 'of the future', 0)"
        ),
    )
    with pytest.raises(StoreError, match="schema 99") as raised:
        Store.open(store_url)
    assert raised.value.kind == "newer"
    with pytest.raises(StoreError):
        schema.upgrade(database)
    database.close()


def test_only_the_file_of_one_machine_is_upgraded_by_itself(store_url: str) -> None:
    """A shared store is upgraded by an explicit command."""
    if store_url.startswith("sqlite"):
        Store.open(store_url).close()
        return
    with pytest.raises(StoreError, match="store upgrade") as raised:
        Store.open(store_url)
    assert raised.value.kind == "older"


# --- exactly once ---------------------------------------------------------------------------------


def test_a_batch_handed_over_twice_counts_once(store: Store) -> None:
    """docs/design.md, The ledger: a batch carries host and sequence; the store refuses a second
    copy."""
    once = batch(*(evaluation() for _ in range(10)))
    assert store.apply(once) == 10
    assert store.apply(once) == 0
    assert counted(store) == {"legit.example": 10}
    assert store.decisions.count() == 10
    assert sum(each.messages for each in store.decisions.totals()) == 10
    assert store.last_sequence("spool-a") == 10


def test_an_overlapping_batch_counts_only_what_is_new(store: Store) -> None:
    messages = [evaluation() for _ in range(10)]
    assert store.apply(batch(*messages[:6])) == 6
    assert store.apply(batch(*messages)) == 4
    assert counted(store) == {"legit.example": 10}


def test_hosts_that_hand_over_at_once_lose_and_double_nothing(opened: Callable[..., Store]) -> None:
    """Three hosts, one store, the same domains, and one of them runs its drain twice."""
    batches = [
        batch(
            *(evaluation(f"d{n % 7}.example", source_ip=f"192.0.2.{n % 5}") for n in range(60)),
            first=first,
            identity=name,
        )
        for name in ("spool-a", "spool-b", "spool-c")
        for first in (1, 61)
    ]
    work = [
        [each for each in batches if each.identity == name]
        for name in ("spool-a", "spool-b", "spool-c", "spool-c")
    ]

    def host(mine: list[Batch]) -> int:
        store = opened()
        return sum(store.apply(each) for each in mine)

    with ThreadPoolExecutor(4) as executor:
        assert sum(executor.map(host, work)) == 360
    store = opened()
    assert sum(counted(store, at_once=3).values()) == 360
    closed = store.reports.claim("me", ended_before=2**60, at_once=True)
    assert [report.rows for report in closed] == [5] * 7
    assert sum(counted(store).values()) == 360


def test_a_crash_between_apply_and_delete_counts_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is in the store and still in the spool: the next drain hands it over again."""
    spool = SpoolFile(tmp_path / "spool.db")
    spool.write([spool_row(evaluation()) for _ in range(10)])
    with monkeypatch.context() as patched:
        patched.setattr(
            SpoolFile, "delete", lambda *_: (_ for _ in ()).throw(SpoolError("io", "power cut"))
        )
        assert drain(spool, store).problem == "power cut"
    assert spool.waiting() == 10
    assert drain(spool, store) == (0, "")
    assert spool.waiting() == 0
    assert counted(store) == {"legit.example": 10}
    spool.close()


def test_a_restored_spool_loses_and_doubles_nothing(store: Store, tmp_path: Path) -> None:
    """A copy of the file goes back in time: its sequence numbers come again for other messages."""
    path, copy = tmp_path / "spool.db", tmp_path / "copy.db"
    spool = SpoolFile(path)
    spool.write([spool_row(evaluation()) for _ in range(5)])
    spool.close()
    shutil.copy(path, copy)
    spool = SpoolFile(path)
    spool.write([spool_row(evaluation()) for _ in range(5)])
    assert drain(spool, store).messages == 10
    spool.close()
    for each in tmp_path.glob("spool.db*"):
        each.unlink()
    shutil.copy(copy, path)
    spool = SpoolFile(path)
    spool.write([spool_row(evaluation()) for _ in range(2)])
    assert drain(spool, store).messages == 2
    assert counted(store) == {"legit.example": 12}
    spool.close()


def test_a_drain_in_many_batches_takes_everything(store: Store, tmp_path: Path) -> None:
    spool = SpoolFile(tmp_path / "spool.db")
    spool.write([spool_row(evaluation(f"d{n % 3}.example")) for n in range(50)])
    assert drain(spool, store, batch=7) == (50, "")
    assert sum(counted(store).values()) == 50
    spool.close()


def test_a_row_that_cannot_be_read_is_parked_and_the_rest_counted(store: Store) -> None:
    """One damaged row must not stop the drain, nor disappear."""
    good = evaluation()
    assert (
        store.apply(
            Batch("spool-a", "mx1", [(1, SpoolRow("bad", b"\xc1damaged")), (2, spool_row(good))])
        )
        == 1
    )
    with store.database.transaction() as transaction:
        assert [
            (row[0], bytes(row[1])) for row in transaction.all("SELECT id, facts FROM parked")
        ] == [("bad", b"\xc1damaged")]


def test_a_store_that_fails_leaves_the_rows_in_the_spool(store_url: str, tmp_path: Path) -> None:
    """A shared store of another schema; a path that is none."""
    spool = SpoolFile(tmp_path / "spool.db")
    spool.write([spool_row(evaluation())])
    for url in ("sqlite:////proc/no/such.db", "postgresql://t@127.0.0.1:1/none"):
        drained = drain(spool, Store(connect(url)))
        assert drained.messages == 0
        assert drained.problem
        assert "\n" not in drained.problem
    assert spool.waiting() == 1
    store = Store(connect(upgraded(store_url)))
    assert drain(spool, store).messages == 1
    store.close()
    spool.close()


# --- what is counted ------------------------------------------------------------------------------


def at(base: Evaluation, **delta: float) -> Evaluation:
    return replace(base, at=NOON + timedelta(**delta))


def test_a_batch_costs_a_full_store_no_more_than_an_empty_one(tmp_path: Path) -> None:
    """Statements find rows by index. In steps of SQLite's machine, which are the same on every
    machine."""
    store = Store.open(f"sqlite:///{tmp_path}/reports.db", clock=lambda: NOW)
    assert isinstance(store.database, SqliteDatabase)
    numbers = count(1)

    def steps(reports: range) -> int:
        """Of one batch with a new row for each of these reports."""
        source = next(numbers)
        found = [evaluation(f"d{n}.example", source_ip=f"192.0.2.{source}") for n in reports]
        taken = 0

        def more() -> int:
            nonlocal taken
            taken += 1
            return 0

        with store.database.transaction(write=False):
            connection = store.database._connection
        assert connection is not None
        connection.set_progress_handler(more, 1000)
        store.apply(batch(*found, first=1 + source * 10_000))
        connection.set_progress_handler(None, 0)
        return taken

    steps(range(200))
    before = steps(range(200))
    for first in range(200, 4000, 200):
        steps(range(first, first + 200))
    after = steps(range(200))
    store.close()
    assert before > 10
    assert after < 1.5 * before


def test_equal_messages_are_one_row_with_their_number(store: Store) -> None:
    """The store grows with distinct rows, not with messages."""
    store.apply(batch(*(evaluation(source_ip=f"192.0.2.{n % 3}") for n in range(30))))
    store.apply(batch(*(evaluation(source_ip=f"192.0.2.{n % 4}") for n in range(20)), first=31))
    report = only(store)
    assert (report.messages, report.rows, report.reportable, report.folded) == (50, 4, 50, 0)
    assert {row.source_ip: number for row, number in store.reports.rows(report.id)} == {
        "192.0.2.0": 15,
        "192.0.2.1": 15,
        "192.0.2.2": 15,
        "192.0.2.3": 5,
    }


def test_a_report_is_one_policy_domain_one_configuration_and_one_day(store: Store) -> None:
    """RFC 9990: subdomains share their policy domain's report, another policy or another day makes
    another one (RPT-11: UTC)."""
    other = replace(RECORD, p=Policy.NONE)
    store.apply(
        batch(
            evaluation("legit.example"),
            evaluation("sub.legit.example", policy_domain="legit.example"),
            evaluation("own.legit.example"),
            evaluation("legit.example", record=other),
            at(evaluation("legit.example"), hours=11, minutes=59),
            at(evaluation("legit.example"), hours=12),
        )
    )
    found = {
        (each.policy_domain, each.published.p, each.begin): each.messages
        for each in store.reports.find()
    }
    today, tomorrow = TOMORROW - 86400, TOMORROW
    assert found == {
        ("legit.example", "reject", today): 3,
        ("own.legit.example", "reject", today): 1,
        ("legit.example", "none", today): 1,
        ("legit.example", "reject", tomorrow): 1,
    }
    assert all(
        len(each.id) == 32 and set(each.id) <= set("0123456789abcdef")
        for each in store.reports.find()
    )


def test_what_was_wrong_below_a_policy_domain_is_told_in_its_one_report(store: Store) -> None:
    """RFC 9990 3.1.1: errors met on the walk from one subdomain do not make another configuration;
    each is told once, a few in all."""

    def below(*authors: str) -> list[Evaluation]:
        found = []
        for author in authors:
            one = outcome(author, policy_domain="legit.example")
            assert one.published is not None
            one = replace(
                one,
                published=replace(one.published, errors=(f"multiple records at _dmarc.{author}",)),
            )
            found.append(
                evaluation(author, dmarc=DmarcResult(DmarcStatus.FAIL, one.author_domain, one))
            )
        return found

    store.apply(batch(evaluation(), *below("a.legit.example", "b.legit.example")))
    store.apply(batch(*below("b.legit.example", "c.legit.example"), first=4))
    assert only(store).published.errors == tuple(
        f"multiple records at _dmarc.{each}.legit.example" for each in "abc"
    )
    store.apply(batch(*below(*(f"n{number}.legit.example" for number in range(30))), first=6))
    assert (only(store).messages, len(only(store).published.errors)) == (35, 10)


def test_ri_shortens_the_period_where_it_is_honoured(opened: Callable[..., Store]) -> None:
    store = opened(StoreOptions(honor_ri=True))
    store.apply(
        batch(
            evaluation(record=replace(RECORD, ri=3600)),
            at(evaluation(record=replace(RECORD, ri=3600)), hours=1),
        )
    )
    assert sorted((each.begin, each.end - each.begin) for each in store.reports.find()) == [
        (NOW, 3600),
        (NOW + 3600, 3600),
    ]


def test_what_was_answered_4xx_is_logged_and_not_counted(store: Store) -> None:
    """docs/design.md, The ledger."""
    store.apply(batch(evaluation(verdict=Verdict(Disposition.NONE, deferral=Deferral("dns")))))
    assert store.reports.find() == []
    assert store.decisions.count(Filter(disposition="tempfail")) == 1
    assert [(each.disposition, each.messages) for each in store.decisions.totals()] == [
        ("tempfail", 1)
    ]


def test_quiet_mail_is_counted_and_is_no_reason_to_send(store: Store) -> None:
    """docs/design.md, Reports: a period whose only rows are passing reports sends nothing; nothing
    is left out of a report that is sent."""
    quiet = MessageFacts(message_id="x", is_report=True)
    store.apply(batch(evaluation(passed=True, facts=quiet), evaluation(passed=True, facts=quiet)))
    assert (only(store).messages, only(store).reportable) == (2, 0)
    store.apply(batch(evaluation(passed=False, facts=quiet), first=3))
    assert (only(store).messages, only(store).reportable) == (3, 1)


def test_mail_to_our_own_reporting_address_is_not_counted(store: Store) -> None:
    store.apply(batch(evaluation(facts=MessageFacts(to_reporting=True))))
    assert store.reports.find() == []
    assert store.decisions.count() == 1


def test_organizational_domains_that_passed_are_known(store: Store) -> None:
    """report_domains = "known"."""
    store.apply(batch(evaluation("a.example", passed=True), evaluation("b.example")))
    assert store.destinations.has_passed("a.example")
    assert not store.destinations.has_passed("b.example")


HOSTILE = [
    "a'); DROP TABLE report;--",
    'a"; DROP TABLE decision; --',
    "back\\slash",
    "percent%s %(x)s ? {0} {blob}",
    "nul\0and\ud800",
    "four bytes \U0001f600",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_sto_01_values_are_never_sql(store: Store, text: str) -> None:
    """STO-01: parameters only, in every stored field."""
    base = evaluation(
        message_id=text, queue_id=text, record=replace(RECORD, text=text, errors=(text,))
    )
    hostile = replace(
        base,
        envelope=replace(base.envelope, helo=text),
        author=Author(Domain("legit.example"), text),
    )
    assert store.apply(batch(hostile)) == 1
    assert counted(store) == {"legit.example": 1}
    assert (
        store.decisions.recent(Filter(author_domain=text, source_ip=text, disposition=text)) == []
    )
    [decision] = store.decisions.find(store.decisions.recent()[0].facts.message_id)
    assert decision.facts.id == base.id
    store.destinations.suppress(text.replace("\0", "").replace("\ud800", ""), NOW + 10, "x")


# --- bounds ---------------------------------------------------------------------------------------


def test_rpt_12_rows_beyond_the_cap_are_folded_and_counted(opened: Callable[..., Store]) -> None:
    """RPT-12: random sources cost rows up to the cap; every message beyond is counted, and other
    domains are not touched."""
    store = opened(StoreOptions(Caps(rows=20)))
    for first in (1, 51):
        store.apply(
            batch(*(evaluation(source_ip=f"10.0.{first}.{n}") for n in range(50)), first=first)
        )
    store.apply(batch(evaluation(source_ip="10.0.1.0"), evaluation("other.example"), first=101))
    found = {each.policy_domain: each for each in store.reports.find()}
    assert (found["legit.example"].rows, found["legit.example"].folded) == (20, 80)
    assert found["legit.example"].messages + found["legit.example"].folded == 101
    assert found["other.example"].messages == 1
    assert sum(counted(store).values()) == 22


def test_rpt_12_invented_policy_domains_and_configurations_are_bounded(
    opened: Callable[..., Store],
) -> None:
    """A wildcard below _dmarc gives every invented subdomain a policy of its own: their owner's
    share is bounded."""
    store = opened(StoreOptions(Caps(reports=5)))

    def invented(number: int) -> Evaluation:
        found = replace(
            outcome(f"x{number}.attack.example"), organizational_domain=Domain("attack.example")
        )
        return evaluation(
            f"x{number}.attack.example",
            dmarc=DmarcResult(DmarcStatus.FAIL, found.author_domain, found),
        )

    store.apply(batch(*(invented(n) for n in range(20)), evaluation("legit.example")))
    assert sum(each.policy_domain.endswith("attack.example") for each in store.reports.find()) == 5
    assert counted(store)["legit.example"] == 1
    with store.database.transaction() as transaction:
        assert transaction.one("SELECT folded FROM quota WHERE scope = 'org:attack.example'") == (
            15,
        )


def test_rpt_12_invented_organizational_domains_are_bounded(opened: Callable[..., Store]) -> None:
    store = opened(StoreOptions(Caps(all_reports=3)))
    store.apply(batch(*(evaluation(f"d{n}.example") for n in range(10))))
    assert len(store.reports.find()) == 3


def test_rpt_12_the_whole_store_is_bounded(opened: Callable[..., Store]) -> None:
    store = opened(StoreOptions(Caps(all_rows=10)))
    store.apply(batch(*(evaluation(f"d{n}.example") for n in range(30))))
    assert sum(counted(store).values()) == 10
    assert sum(each.folded for each in store.reports.find()) == 20


def test_rpt_07_header_samples_are_merged_and_bounded(opened: Callable[..., Store]) -> None:
    """RFC 9991: a flood of failing messages waits as one report with its number of incidents."""
    store = opened(StoreOptions(Caps(failures=2)))
    rows = [spool_row(evaluation(f"d{n % 4}.example"), b"From: x\r\n") for n in range(40)]
    store.apply(Batch("spool-a", "mx1", list(enumerate(rows, 1))))
    found = store.failures.find()
    assert sorted(each.incidents for each in found) == [10, 10]
    assert found[0].sample == b"From: x\r\n"


# --- late rows ------------------------------------------------------------------------------------


def test_rpt_11_rows_that_come_late_make_a_report_of_their_own(store: Store) -> None:
    """The store was away for a day: what is already on its way is not changed, what came late is
    still told, once."""
    store.apply(batch(evaluation(), evaluation()))
    [claimed] = store.reports.claim("me", ended_before=TOMORROW, at_once=True)
    store.apply(batch(evaluation(), first=3))
    store.apply(batch(evaluation(), first=4))
    found = {each.part: each for each in store.reports.find()}
    assert {part: (each.messages, each.state) for part, each in found.items()} == {
        1: (2, ReportState.BUILDING),
        2: (2, ReportState.DUE),
    }
    assert found[1].id == claimed.id != found[2].id


# --- decisions ------------------------------------------------------------------------------------


def test_a_decision_is_found_by_queue_id_and_message_id(store: Store) -> None:
    """`why QUEUE-ID | MESSAGE-ID`: the newest first, and a queue id that was used again."""
    store.apply(
        batch(
            evaluation(queue_id="4QX", message_id="m1@a"),
            at(evaluation(queue_id="4QX", message_id="m2@a"), hours=1),
        )
    )
    assert [each.facts.message_id for each in store.decisions.find("4QX")] == ["m2@a", "m1@a"]
    [decision] = store.decisions.find("<m1@a>")
    assert (decision.facts.queue_id, decision.host) == ("4QX", "mx1.example.com")
    assert store.decisions.find("nothing") == []


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Filter(), 4),
        (Filter(author_domain="a.example"), 2),
        (Filter(author_domain="x_a.example"), 0),
        (Filter(author_domain="%"), 0),
        (Filter(source_ip="192.0.2.1"), 1),
        (Filter(disposition="pass"), 1),
        (Filter(status="fail", policy_domain="b.example"), 1),
        (Filter(since=NOW + 1), 1),
        (Filter(until=NOW + 1), 3),
        (Filter(would_be="reject"), 1),
    ],
)
def test_decisions_are_filtered(store: Store, wanted: Filter, number: int) -> None:
    store.apply(
        batch(
            evaluation("a.example", source_ip="192.0.2.1"),
            evaluation("sub.a.example", passed=True),
            at(evaluation("b.example"), hours=1),
            evaluation(
                "xa.example", verdict=Verdict(Disposition.NONE, would_be=Disposition.REJECT)
            ),
        )
    )
    assert store.decisions.count(wanted) == number
    assert len(store.decisions.recent(wanted)) == number


@pytest.mark.parametrize("wanted", [Filter(), Filter(author_domain="legit.example")])
def test_all_decisions_come_once_while_mail_arrives(store: Store, wanted: Filter) -> None:
    """`why --kind` reads the whole log, a page at a time; several have the same second."""
    mail = [evaluation(), *(at(evaluation(), hours=hours) for hours in (1, 1, 1, 1, 2, 3))]
    store.apply(batch(*mail))
    walk = store.decisions.all(wanted, page=2)
    found = [next(walk).facts.id]
    store.apply(batch(*(at(evaluation(), hours=4) for _ in range(3)), first=8))
    found += [one.facts.id for one in walk]
    newest_first = sorted(mail, key=lambda one: (one.at, one.id), reverse=True)
    assert found == [one.id for one in newest_first]


def test_impact_counts_by_domain_and_source(store: Store) -> None:
    """`impact`: what enforcement did, or would do, by sender domain and source."""
    monitored: dict[str, Any] = {
        "verdict": Verdict(Disposition.NONE, Policy.REJECT, would_be=Disposition.REJECT)
    }
    store.apply(
        batch(
            *(evaluation(**monitored) for _ in range(3)),
            evaluation(source_ip="192.0.2.9"),
            evaluation(passed=True),
        )
    )
    found = {
        (each.source_ip, each.disposition, each.would_be): each.messages
        for each in groups(store.database)
    }
    assert found == {
        ("192.0.2.66", "none", "reject"): 3,
        ("192.0.2.9", "reject", ""): 1,
        ("192.0.2.66", "pass", ""): 1,
    }
