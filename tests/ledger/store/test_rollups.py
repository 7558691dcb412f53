"""Messages by hour and by day: what impact, stats and the pages say, counted by the drain. The sums
are those of the decision log, on SQLite and PostgreSQL."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.summary.digest import digest
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.explain.senders import sources
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.ledger import impact, merge_hosts, stopped
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.impact import by_domain, by_kind
from dmarc_milter.ledger.read_only_store import ReadOnlySqlite
from dmarc_milter.ledger.stopped import StoppedMail, treated_mail
from dmarc_milter.ledger.store import log_size, rollups, schema
from dmarc_milter.ledger.store.database import fetch
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import queries
from fakes.evaluations import NOON, evaluation
from fakes.log_groups import groups
from fakes.stores import batch, upgraded

NOW = int(NOON.timestamp())
HOUR, DAY = 3600, 86400
DEFERRED = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral("dns"))
WOULD = {"verdict": Verdict(Disposition.NONE, Policy.REJECT, would_be=Disposition.REJECT)}


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(Store.open(upgraded(store_url), clock=lambda: NOW)) as opened:
        yield opened


def some_mail(number: int, seed: int = 5) -> list[Evaluation]:
    """Of eight domains below and beside each other, over four days."""
    rng = random.Random(seed)
    names = ("a.example", "x.a.example", "y.x.a.example", "xa.example", "a-b.example", "b.test")
    return [
        replace(
            evaluation(rng.choice(names), passed=rng.random() < 0.5, **rng.choice([{}, {}, WOULD])),
            at=NOON - timedelta(seconds=rng.randrange(4 * DAY)),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("domain", ["", "a.example", "x.a.example", "example", "nowhere.test"])
def test_the_sums_are_those_of_the_log(store: Store, domain: str) -> None:
    """From any hour on: whole days by their own rows, the first hours by theirs; a domain with all
    below it and nothing beside it."""
    store.apply(batch(*some_mail(300)))
    for hours in (0, 1, 5, 13, 24, 37, 96, 24 * 365):
        since = rollups.since_hour(NOW - hours * HOUR)
        wanted = Filter(since=since, author_domain=domain)
        assert store.decisions.messages(since, author_domain=domain) == store.decisions.count(
            wanted
        )
        affected = replace(wanted, affected=True)
        by_name: Counter[tuple[str, str, str]] = Counter()
        for part in store.decisions.treated(since, author_domain=domain):
            by_name[part.author_domain, part.disposition, part.would_be] += part.messages
        from_log: Counter[tuple[str, str, str]] = Counter()
        for each in groups(store.database, affected):
            from_log[each.author_domain, each.disposition, each.would_be] += each.messages
        assert by_name == from_log


@pytest.mark.parametrize("domain", ["", "a.example", "example", "nowhere.test"])
@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_the_first_author_domains_and_all_others_in_sum_are_all(
    store: Store, domain: str, limit: int
) -> None:
    """What `impact` and its page show: the first lines of the whole, and the numbers of the
    whole."""
    store.apply(batch(*some_mail(300)))
    for hours in (0, 5, 37, 24 * 365):
        since = rollups.since_hour(NOW - hours * HOUR)
        whole = treated_mail(store.database, since, author_domain=domain)
        first = treated_mail(store.database, since, author_domain=domain, limit=limit)
        ranked = by_domain(whole.parts, {})
        assert by_domain(first.parts, {}) == ranked[:limit]
        assert first.authors == whole.authors == len(ranked)
        assert first.messages == whole.messages == sum(row.messages for row in ranked)
        assert first.totals == whole.totals
        assert by_kind(first.all) == by_kind(whole.all)


def test_a_file_that_is_only_read_ranks_author_domains_too(tmp_path: Path) -> None:
    """As commands and the dashboard open it, beside a daemon that writes and after it."""
    path = tmp_path / "reports.db"
    with closing(Store.open(f"sqlite:///{path}", clock=lambda: NOW)) as writes:
        writes.apply(batch(*some_mail(30)))
        whole = treated_mail(writes.database, 0)
        with closing(ReadOnlySqlite(path)) as reads:
            assert treated_mail(reads, 0, limit=50).totals == whole.totals
    with closing(ReadOnlySqlite(path)) as reads:
        assert treated_mail(reads, 0, limit=50).totals == whole.totals


def test_the_count_of_author_domains_is_found_in_any_order_of_the_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQL promises none for UNION ALL."""
    store.apply(batch(*some_mail(300)))
    ordered = treated_mail(store.database, 0, limit=2)

    def backwards(*asked: Any) -> list[tuple[Any, ...]]:
        return fetch(*asked)[::-1]

    monkeypatch.setattr("dmarc_milter.ledger.stopped.fetch", backwards)
    found = treated_mail(store.database, 0, limit=2)
    assert (found.authors, found.messages) == (ordered.authors, ordered.messages)
    assert found.totals == ordered.totals


def test_the_pages_rank_author_domains_by_the_same_sums(store: Store) -> None:
    mail = some_mail(200)
    store.apply(batch(*mail))
    since = (NOW // DAY - 1) * DAY
    recent = [each for each in mail if each.at.timestamp() >= since]
    names = Counter(each.author.domain.name for each in recent if each.author.domain)
    rows = queries.authors(store.database, since)
    assert {row.domain: row.messages for row in rows} == dict(names)
    assert [row.messages for row in rows] == sorted(names.values(), reverse=True)
    failing = queries.authors(store.database, since, failing=True)
    assert [row.failed for row in failing] == sorted((row.failed for row in failing), reverse=True)
    assert all(row.failed for row in failing)


def test_everything_says_the_same_of_a_period(store: Store) -> None:
    """The overview's, stats' and summary's totals, the ranking by messages and by failures, one
    domain's page, impact and whose mail began to fail: of the same days the same numbers."""
    store.apply(batch(*some_mail(150)))
    store.apply(batch(*some_mail(150, seed=6), identity="b"))
    expire(store.database, Retention(), now=NOW)
    began_to_fail = [says_the_same(store, (NOW // DAY - days + 1) * DAY) for days in (1, 2, 3, 5)]
    assert all(began_to_fail[:3])
    assert not began_to_fail[3], "no mail is older than that"


def shares(store: Store, since: int, until: int) -> dict[str, tuple[int, int]]:
    """Messages of each author domain that failed, and that passed or failed, by the log."""
    failed, number = Counter[str](), Counter[str]()
    for each in groups(store.database, Filter(since=since, until=until)):
        if each.status in ("pass", "fail"):
            number[each.author_domain] += each.messages
            failed[each.author_domain] += each.messages if each.status == "fail" else 0
    return {name: (failed[name], messages) for name, messages in number.items()}


def says_the_same(store: Store, since: int) -> set[str]:
    """What every reader says of the days since then, against the log; whose mail began to fail."""
    log = groups(store.database, Filter(since=since))
    totals = store.decisions.totals(since)
    rows = queries.authors(store.database, since)
    failing = queries.authors(store.database, since, failing=True)
    number = sum(each.messages for each in log)
    assert number == sum(total.messages for total in totals)
    assert number == sum(row.messages for row in rows) == store.decisions.messages(since)
    for status, of_rows in (
        ("pass", [row.passed for row in rows]),
        ("fail", [row[3] for row in rows]),
    ):
        of_totals = sum(total.messages for total in totals if total.status == status)
        assert sum(of_rows) == of_totals == sum(e.messages for e in log if e.status == status)
    assert sorted(failing) == sorted(row for row in rows if row.failed)
    assert rows == sorted(
        (queries.outcomes(store.database, row.domain, since) for row in rows),
        key=lambda row: (-row.messages, row.domain[::-1]),
    )
    end = NOW // DAY * DAY + DAY
    threshold = rollups.Threshold(few=0.6, many=0.4, fewest=2)
    sudden = rollups.began_to_fail(
        store.database, (2 * since - end, since, end), threshold, most=100
    )
    before = shares(store, 2 * since - end, since)
    assert sorted(sudden) == sorted(
        (name, failed, number)
        for name, (failed, number) in shares(store, since, end).items()
        if failed >= 2 and failed >= 0.4 * number
        if name in before and before[name][0] <= 0.6 * before[name][1]
    )
    marked = sum(part.messages for part in store.decisions.treated(since))
    assert marked == StoppedMail(store.database, Filter(since=since, affected=True)).messages
    assert marked == sum(
        total.messages
        for total in totals
        if {total.disposition, total.would_be} & {"quarantine", "reject", "tempfail"}
    )
    return {one.author_domain for one in sudden}


def test_the_summary_of_a_period_is_that_of_the_log(store: Store) -> None:
    """Nothing that came after its end: its numbers, what waits, and those whose mail fails."""
    waits = [
        replace(
            evaluation("slow.example", verdict=DEFERRED),
            at=NOON - timedelta(days=days),
            id=f"w{days}",
        )
        for days in range(4)
    ]
    store.apply(batch(*some_mail(300), *waits))
    today = NOW // DAY * DAY
    for days, ago in itertools.product((1, 2), (0, 1)):
        until = today - ago * DAY
        since = until - days * DAY
        told = digest(store, since=since, until=until, enforce=True)
        log = groups(store.database, Filter(since=since, until=until))
        assert told.messages == sum(each.messages for each in log) > 0
        for status in ("pass", "fail"):
            assert told.by_status[status] == sum(e.messages for e in log if e.status == status)
        assert told.became["deferred"] == sum(one.attempts for one in told.waiting) == days
        assert told.looked == (told.looked.messages,) * 2
        assert told.looked.messages == store.decisions.count(
            Filter(since=since, until=until, affected=True)
        )


def test_a_domain_with_failures_keeps_its_days_without(store: Store) -> None:
    """Days are rows: those that have no failure belong to the domain all the same."""
    good = [replace(evaluation("d.example", passed=True), at=NOON - timedelta(days=1))] * 9
    good = [replace(each, id=f"good{number}") for number, each in enumerate(good)]
    fine = evaluation("fine.example", passed=True)
    store.apply(batch(*good, evaluation("d.example"), evaluation("d.example"), fine))
    since = (NOW // DAY - 1) * DAY
    [row] = queries.authors(store.database, since, failing=True)
    assert tuple(row[:4]) == ("d.example", 11, 9, 2)
    assert row in queries.authors(store.database, since)


def test_hosts_count_in_rows_of_their_own(store: Store) -> None:
    """So that none waits for another's transaction, also where two have the same name; they are
    added up on reading."""
    store.apply(batch(evaluation()))
    store.apply(batch(evaluation(), identity="b"))
    rows = fetch(store.database, "SELECT host, messages FROM outcome_sum WHERE span = 3600")
    assert sorted(rows) == [("1", 1), ("2", 1)]
    assert store.decisions.messages() == 2


def rows_of_days(store: Store) -> dict[int, list[str]]:
    """Day (from today backwards) -> the hosts that have rows for the ranking."""
    rows = fetch(store.database, "SELECT DISTINCT day, host FROM author_day ORDER BY day, host")
    found: dict[int, list[str]] = {}
    for day, host in rows:
        found.setdefault(NOW // DAY - int(day) // DAY, []).append(host)
    return found


def ranked(store: Store) -> dict[str, tuple[int, ...]]:
    """Messages, passed, failed and treated of each author domain, by the pages and by the log."""
    rows = queries.authors(store.database, 0)
    log: dict[str, list[int]] = {}
    for each in groups(store.database, Filter()):
        counts = log.setdefault(each.author_domain, [0, 0, 0, 0])
        treated = {each.disposition, each.would_be} & {"quarantine", "reject"}
        for number, counted in enumerate(
            (True, each.status == "pass", each.status == "fail", bool(treated))
        ):
            counts[number] += each.messages * counted
    found = {row.domain: tuple(row[1:]) for row in rows}
    assert found == {name: tuple(counts) for name, counts in log.items()}
    return found


def test_the_days_of_several_hosts_are_merged_and_stay_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days that are over have one row of all hosts for each author domain; what comes late stands
    beside it, and every sum is that of the log throughout."""
    monkeypatch.setattr(merge_hosts, "AT_ONCE", 3)
    store.apply(batch(*some_mail(150)))
    store.apply(batch(*some_mail(150, seed=6), identity="b"))
    before = ranked(store)
    expire(store.database, Retention(), now=NOW)
    days = rows_of_days(store)
    assert {number: hosts for number, hosts in days.items() if number > 2} == {3: [""], 4: [""]}
    assert days[0] == days[1] == ["1", "2"]
    assert ranked(store) == before
    late = [replace(each, id=f"late{n}") for n, each in enumerate(some_mail(40, seed=7))]
    store.apply(batch(*late, first=200))
    assert sum(row[0] for row in ranked(store).values()) == 340
    assert rows_of_days(store)[3] == ["", "1"]
    expire(store.database, Retention(), now=NOW)
    assert sum(row[0] for row in ranked(store).values()) == 340


def test_the_size_of_the_log_is_known_without_counting_it(store: Store) -> None:
    """After late mail, when it was full, when days were forgotten, and when some was erased."""

    def known() -> int:
        [(counted,)] = fetch(store.database, "SELECT count(*) FROM decision")
        assert log_size.rows(store.database) == counted
        return int(counted)

    store.apply(batch(*some_mail(200)))
    store.apply(batch(*some_mail(100, seed=6), identity="b"))
    assert known() == 300
    expire(store.database, Retention(decision_rows=250), now=NOW)
    assert 200 <= known() <= 250
    expire(store.database, Retention(decision_days=2), now=NOW)
    assert 0 < known() < 200
    with store.database.transaction() as transaction:
        transaction.run("DELETE FROM decision WHERE author_domain = 'a.example'")
    log_size.recount(store.database)
    assert known() > 0
    expire(store.database, Retention(), now=NOW + 30 * DAY)
    assert known() == 0


@pytest.mark.parametrize("domain", ["", "a.example"])
def test_clients_of_very_much_mail_are_those_of_the_newest_of_each_day(
    store: Store, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of less all are looked at, and the answers are those of the log. What was left out is said;
    no day is left out."""
    store.apply(batch(*some_mail(200)))
    wanted = Filter(since=rollups.since_hour(NOW - 4 * DAY), author_domain=domain, affected=True)
    whole = StoppedMail(store.database, wanted)
    assert whole.looked_at == whole.messages == store.decisions.count(wanted)
    assert whole.clients() == store.decisions.clients(wanted)
    by_pair: dict[tuple[str, str], list[int]] = {}
    for each in groups(store.database, wanted):
        by_pair.setdefault((each.author_domain, each.source_ip), []).append(each.messages)
    found = {(pair.author_domain, pair.source_ip): pair.messages for pair in whole.pairs()}
    assert found == {pair: sum(numbers) for pair, numbers in by_pair.items()}
    monkeypatch.setattr(stopped, "LOOKED_AT", 20)
    monkeypatch.setattr(stopped, "OF_A_DOMAIN", 20)
    part = StoppedMail(store.database, wanted)
    assert part.messages == whole.messages
    assert 10 <= part.looked_at <= 20
    assert sum(pair.messages for pair in part.pairs()) == part.looked_at
    first = min(pair.first_at for pair in part.pairs())
    assert max(pair.last_at for pair in part.pairs()) // DAY - first // DAY >= 2
    assert set(part.clients()) <= set(whole.clients())
    assert impact.samples(store.decisions, part.pairs(5))


@pytest.mark.parametrize("domain", ["", "a.example"])
def test_clients_of_a_period_are_those_until_its_end(
    store: Store, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came later neither counts nor takes a part of what is looked at: the days before are
    looked at as well as if nothing had come since."""
    store.apply(batch(*some_mail(300)))
    for before, hours in itertools.product((0, 1, 12, 13, 36), (1, 12, 24, 30, 48)):
        until = rollups.since_hour(NOW) - before * HOUR
        wanted = Filter(
            since=until - hours * HOUR, until=until, author_domain=domain, affected=True
        )
        whole = StoppedMail(store.database, wanted)
        assert whole.messages == whole.looked_at == store.decisions.count(wanted)
        assert whole.clients() == store.decisions.clients(wanted)
        with monkeypatch.context() as patch:
            patch.setattr(stopped, "LOOKED_AT", most := max(1, whole.messages // 2))
            patch.setattr(stopped, "OF_A_DOMAIN", most)
            part = StoppedMail(store.database, wanted)
            assert part.messages == whole.messages
            assert part.looked_at <= most
            assert all(pair.last_at < until for pair in part.pairs())


def test_evidence_is_looked_for_in_the_pairs_with_most_and_the_others_are_not_judged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each pair of author domain and client at most ten messages are read; a pair beyond the
    bound is no sender that proves nothing."""
    mail = [
        replace(
            evaluation(author),
            at=NOON - timedelta(minutes=number),
            envelope=replace(evaluation().envelope, source_ip=ip_address(f"192.0.2.{client}")),
        )
        for author, client, messages in (
            ("a.example", 1, 12),
            ("b.example", 2, 3),
            ("c.example", 3, 1),
        )
        for number in range(messages)
    ]
    store.apply(batch(*mail))
    monkeypatch.setattr(stopped, "PAIRS", 2)
    found = StoppedMail(store.database, Filter(since=NOW - DAY, affected=True))
    assert found.clients() == {"a.example": 1, "b.example": 1, "c.example": 1}
    assert (found.messages, found.looked_at, found.looked_into) == (16, 16, 15)
    groups = impact.samples(store.decisions, found.pairs())
    assert [(each.author_domain, each.messages, len(each.facts)) for each in groups] == [
        ("a.example", 12, 10),
        ("b.example", 3, 3),
    ]
    assert sum(source.messages for source in sources(groups)) == 15


def test_a_domain_that_ends_like_another_is_not_below_it(store: Store) -> None:
    """ample.example is a suffix of example.example's letters and not above it; nor is a name with
    the same beginning. Every question about "this domain and below" says so."""
    long = ".".join(["x" * 63, "y" * 63, "z" * 60, "ample.example"])
    names = ("ample.example", "sub.ample.example", "example.example", "xample.example", long)
    store.apply(batch(*(replace(evaluation(name), at=NOON) for name in names)))
    for asked, expected in (("ample.example", 3), ("example.example", 1), ("example", 5)):
        wanted = Filter(since=NOW - DAY, author_domain=asked, affected=True)
        treated = store.decisions.treated(NOW - DAY, author_domain=asked)
        assert sum(each.messages for each in treated) == expected
        assert store.decisions.messages(NOW - DAY, author_domain=asked) == expected
        assert StoppedMail(store.database, wanted).looked_at == expected
        assert len(store.decisions.recent(wanted)) == store.decisions.count(wanted) == expected


def test_the_days_of_a_period_share_what_is_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten messages a day on three days; of the first two days ten are looked at, five of each."""
    mail = [
        replace(evaluation(), at=NOON - timedelta(days=days, minutes=number))
        for days in range(3)
        for number in range(10)
    ]
    store.apply(batch(*mail))
    monkeypatch.setattr(stopped, "LOOKED_AT", 10)
    today = NOW // DAY * DAY
    wanted = Filter(since=today - 2 * DAY, until=today, affected=True)
    part = StoppedMail(store.database, wanted)
    assert (part.messages, part.looked_at) == (20, 10)
    yesterday = StoppedMail(store.database, replace(wanted, since=today - DAY))
    assert (yesterday.messages, yesterday.looked_at) == (10, 10)


def test_a_program_that_does_not_know_the_schema_any_more_adds_nothing(store: Store) -> None:
    """An upgrade while it runs: the version is looked at within the transaction, whatever was seen
    before, so that no message is missing in sums that the new step has made."""
    store.apply(batch(evaluation()))
    with store.database.transaction() as transaction:
        transaction.run(schema.NOTE, (len(schema.STEPS) + 1, "a later one", 0))
    with pytest.raises(StoreError, match="run the newer program"):
        store.apply(batch(evaluation(), first=2))
    assert fetch(store.database, "SELECT count(*) FROM decision") == [(1,)]
    assert store.decisions.messages() == 1


def test_a_batch_handed_over_again_is_counted_once(store: Store) -> None:
    messages = some_mail(20)
    store.apply(batch(*messages))
    store.apply(batch(*messages))
    store.apply(batch(*messages, identity="a-copy"))
    assert store.decisions.messages() == 20


def test_the_kind_of_a_source_is_noted(store: Store) -> None:
    """senders.Kind, of what did not pass: by its best proof, and a list by its List-Id too."""
    signed = DkimResult(DkimStatus.PASS, domain=Domain("list.test"))
    post = evaluation(dkim=(signed,), facts=MessageFacts(message_id="m", list_id="l.list.test"))
    store.apply(batch(post, evaluation(dkim=(signed,)), evaluation(passed=True)))
    assert {each.kind: each.messages for each in store.decisions.treated()} == {
        "another domain": 1,
        "mailing list": 1,
    }


def test_invented_author_domains_are_bounded_and_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RPT-12's attacker against the sums: beyond the bound of a day and host there is one row for
    all. Half of the room is for mail that passes; what was seen before keeps its row."""
    monkeypatch.setattr(rollups, "NEW_NAMES", 10)
    store.apply(batch(evaluation("known.example")))
    store.apply(batch(*(evaluation(f"x{n}.attack.example") for n in range(30)), first=2))
    store.apply(
        batch(evaluation("good.example", passed=True), evaluation("known.example"), first=40)
    )
    names = {each.author_domain: each.messages for each in store.decisions.treated()}
    assert names[rollups.OTHERS] == 26
    assert len(names) == 6
    assert names["known.example"] == 2
    assert store.decisions.messages() == 33
    assert store.decisions.messages(author_domain="good.example") == 1


def test_sums_are_kept_as_long_as_decisions(store: Store) -> None:
    """Author domains are not remembered for longer than the log is."""
    store.apply(
        batch(evaluation("old.example"), replace(evaluation(), at=NOON + timedelta(days=3)))
    )
    expire(store.database, Retention(), now=NOW + 15 * DAY)
    assert store.decisions.messages() == 1
    assert fetch(store.database, "SELECT name FROM author_name") == [("legit.example",)]


@pytest.mark.parametrize("name", ["a.example", "A%", "a_example", "/", ".", "", "*", "x" * 300])
def test_a_name_finds_itself_and_what_is_below_and_nothing_else(store: Store, name: str) -> None:
    """No wildcard means anything, whatever is typed."""
    store.apply(batch(*some_mail(50)))
    found = {
        each.facts.author_domain
        for each in store.decisions.recent(Filter(author_domain=name), limit=100)
    }
    everything = {each.facts.author_domain for each in store.decisions.recent(limit=100)}
    assert found == {
        each for each in everything if not name or each == name or each.endswith(f".{name}")
    }
