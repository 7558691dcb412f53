"""From a batch of facts to the store: decisions, totals and report rows, all in the transaction that notes the batch as applied.

A batch carries the spool's identity and sequence numbers; what the store has counted of that spool is refused a second time. An id that
stands in the decision log is refused too, which covers a spool file restored from a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import NamedTuple, TypeVar
from uuid import uuid4

from dmarc_milter.edge.ledger.database import Transaction
from dmarc_milter.edge.ledger.spoolfile import SpoolRow
from dmarc_milter.report.facts import Facts, Published, UnreadableFacts, decode, encode, is_pass
from dmarc_milter.report.rows import DAY, Period, configuration, encode_published, encode_row, is_quiet, period, published_of, row_of

T = TypeVar("T")
CHUNK = 300
"""Values in one IN list."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How many distinct things one period may hold. What comes after is folded: counted, without a row of its own."""

    rows: int = 10_000
    """Of one policy domain."""
    reports: int = 1_000
    """Of one organizational domain: policy domains and configurations, which a wildcard record makes without end."""
    all_rows: int = 2_000_000
    """Of the store."""
    failures: int = 5_000
    """Messages kept for failure reports."""


class Batch(NamedTuple):
    """What one spool hands over: its identity, the host it stands on, and rows in the order of their sequence numbers."""

    identity: str
    host: str
    rows: Sequence[tuple[int, SpoolRow]]


class ReportKey(NamedTuple):
    """What makes a report."""

    policy_domain: str
    configuration: str
    begin: int
    end: int


@dataclass(slots=True)
class _Share:
    """What a batch adds to one report."""

    published: Published
    organizational_domain: str
    rows: Counter[bytes] = field(default_factory=Counter)
    loud: int = 0


def apply(transaction: Transaction, batch: Batch, *, caps: Caps, honor_ri: bool, now: int) -> int:
    """Count what is new in `batch`; how many messages that were. Call it in one transaction, whole or not at all."""
    transaction.run(
        "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES (?, ?, 0, 0) ON CONFLICT (identity) DO NOTHING",
        (batch.identity, batch.host),
    )
    found = transaction.one("SELECT last_seq FROM origin WHERE identity = ? {for_update}", (batch.identity,))
    last = int(found[0]) if found else 0
    fresh = [row for seq, row in batch.rows if seq > last]
    facts, samples = _unknown(transaction, fresh, now)
    _log(transaction, facts, batch.host)
    _total(transaction, facts)
    _known(transaction, facts)
    _count(transaction, facts, caps, honor_ri=honor_ri)
    _failures(transaction, [each for each in facts if each.id in samples], samples, caps)
    if fresh:
        transaction.run(
            "UPDATE origin SET last_seq = ?, drained_at = ?, host = ? WHERE identity = ?",
            (batch.rows[-1][0], now, batch.host, batch.identity),
        )
    return len(facts)


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """`values` in lists of at most `size`."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def with_list(sql: str, values: Sequence[object]) -> str:
    """`sql` with as many parameters in its `IN []` as there are values."""
    return sql.replace("[]", f"({', '.join('?' * len(values))})")


def _unknown(transaction: Transaction, rows: Sequence[SpoolRow], now: int) -> tuple[list[Facts], dict[str, bytes]]:
    """The facts of rows whose id the log does not hold, and their samples; rows that cannot be read are parked."""
    known: set[str] = set()
    for chunk in chunks(row.id for row in rows):
        known.update(each[0] for each in transaction.all(with_list("SELECT id FROM decision WHERE id IN []", chunk), chunk))
    facts, samples, parked = [], {}, []
    for row in rows:
        if row.id in known:
            continue
        try:
            facts.append(decode(row.facts))
        except UnreadableFacts as error:
            parked.append((row.id, now, str(error), row.facts))
            continue
        if row.sample:
            samples[row.id] = row.sample
    transaction.many("INSERT INTO parked (id, at, reason, facts) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", parked)
    return facts, samples


def _log(transaction: Transaction, facts: Sequence[Facts], host: str) -> None:
    transaction.many(
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain, source_ip, status, disposition, would_be,"
        " facts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [
            (
                each.id, int(each.at), host, each.queue_id, each.message_id, each.author_domain, each.policy_domain, each.source_ip,
                each.status, each.disposition if each.counted else "tempfail", each.would_be, encode(each),
            )
            for each in facts
        ],
    )  # fmt: skip


def _total(transaction: Transaction, facts: Sequence[Facts]) -> None:
    totals = Counter(
        (int(each.at // DAY) * DAY, each.status, each.disposition if each.counted else "tempfail", each.would_be) for each in facts
    )
    transaction.many(
        "INSERT INTO daily (day, status, disposition, would_be, messages) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (day, status, disposition, would_be) DO UPDATE SET messages = daily.messages + excluded.messages",
        [(*key, count) for key, count in sorted(totals.items())],
    )


def _known(transaction: Transaction, facts: Sequence[Facts]) -> None:
    """Organizational domains that passed; written again once a day at most."""
    passed: dict[str, int] = {}
    for each in facts:
        if is_pass(each) and each.outcome is not None:
            domain = each.outcome.organizational_domain or each.outcome.author_domain
            passed[domain] = max(int(each.at), passed.get(domain, 0))
    transaction.many(
        "INSERT INTO known_domain (domain, last_at) VALUES (?, ?) ON CONFLICT (domain)"
        " DO UPDATE SET last_at = excluded.last_at WHERE known_domain.last_at < ?",
        [(domain, at, at - DAY) for domain, at in sorted(passed.items())],
    )


def _count(transaction: Transaction, facts: Sequence[Facts], caps: Caps, *, honor_ri: bool) -> None:
    shares = _shares(facts, honor_ri=honor_ri)
    open_reports = _open_reports(transaction, shares)
    quota = _Quota(transaction)
    for key, share in sorted(shares.items(), key=lambda item: item[0]):
        report = open_reports.get(key) or _new_report(transaction, key, share, quota, caps)
        if report is None:
            quota.fold(f"org:{share.organizational_domain}", key.begin, share.rows.total())
            continue
        _add_rows(transaction, report, key, share, quota, caps)
    quota.write()


def _shares(facts: Sequence[Facts], *, honor_ri: bool) -> dict[ReportKey, _Share]:
    shares: dict[ReportKey, _Share] = {}
    for each in facts:
        published = published_of(each)
        if published is None or each.outcome is None:
            continue
        when: Period = period(each.at, published.ri, honor_ri=honor_ri)
        key = ReportKey(published.policy_domain, configuration(published), when.begin, when.end)
        share = shares.get(key)
        if share is None:
            share = shares[key] = _Share(published, each.outcome.organizational_domain or published.policy_domain)
        share.rows[encode_row(row_of(each, each.outcome))] += 1
        share.loud += not is_quiet(each)
    return shares


def _open_reports(transaction: Transaction, shares: dict[ReportKey, _Share]) -> dict[ReportKey, str]:
    """The reports that still take rows, locked so that none is closed while rows are added."""
    found: dict[ReportKey, str] = {}
    for chunk in chunks(sorted({key.policy_domain for key in shares})):
        begins = sorted({key.begin for key in shares})
        sql = (
            "SELECT policy_domain, configuration, begin_at, end_at, id FROM report WHERE closed_at = 0"
            " AND policy_domain IN [] AND begin_at >= ? AND begin_at <= ? ORDER BY id {for_update}"
        )
        rows = transaction.all(with_list(sql, chunk), (*chunk, begins[0], begins[-1]))
        found.update((ReportKey(*row[:4]), row[4]) for row in rows)
    return found


def _new_report(transaction: Transaction, key: ReportKey, share: _Share, quota: _Quota, caps: Caps) -> str | None:
    """The identity of a new report, fixed for ever; None when the organizational domain has too many."""
    scope = f"org:{share.organizational_domain}"
    if quota.left(scope, key.begin, caps.reports) == 0:
        return None
    quota.use(scope, key.begin, 1)
    earlier = transaction.one(
        "SELECT coalesce(max(part), 0) FROM report WHERE policy_domain = ? AND configuration = ? AND begin_at = ? AND end_at = ?", key
    )
    identity = uuid4().hex
    transaction.run(
        "INSERT INTO report (id, policy_domain, configuration, begin_at, end_at, part, organizational_domain, published, state, messages,"
        " loud, rows_count, folded, note, next_at, attempts, lease_owner, lease_until, closed_at, done_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'due', 0, 0, 0, 0, '', ?, 0, '', 0, 0, 0)",
        (
            identity,
            *key,
            int(earlier[0]) + 1 if earlier else 1,
            share.organizational_domain,
            encode_published(share.published),
            key.end,
        ),
    )
    return identity


def _add_rows(transaction: Transaction, report: str, key: ReportKey, share: _Share, quota: _Quota, caps: Caps) -> None:
    """Greater counts for the rows that are there, new rows within the caps; the rest is folded."""
    rows = {sha256(data).digest()[:16]: data for data in share.rows}
    there: set[bytes] = set()
    for chunk in chunks(rows):
        sql = with_list("SELECT row_key FROM report_row WHERE report_id = ? AND row_key IN []", chunk)
        there.update(bytes(each[0]) for each in transaction.all(sql, (report, *chunk)))
    fresh = [each for each in rows if each not in there]
    room = quota.take(key, caps, len(fresh))
    folded = sum(share.rows[rows[each]] for each in fresh[room:])
    kept = sorted([*there, *fresh[:room]])
    transaction.many(
        "INSERT INTO report_row (report_id, row_key, messages, facts) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (report_id, row_key) DO UPDATE SET messages = report_row.messages + excluded.messages",
        [(report, each, share.rows[rows[each]], rows[each]) for each in kept],
    )
    transaction.run(
        "UPDATE report SET messages = messages + ?, loud = loud + ?, rows_count = rows_count + ?, folded = folded + ? WHERE id = ?",
        (share.rows.total() - folded, share.loud, min(room, len(fresh)), folded, report),
    )
    if folded:
        quota.fold(f"domain:{key.policy_domain}", key.begin, folded)


class _Quota:
    """The counters of distinct things, each locked when first looked at and written once."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._counters: dict[tuple[str, int], list[int]] = {}

    def _counter(self, scope: str, begin: int) -> list[int]:
        counter = self._counters.get((scope, begin))
        if counter is None:
            self._transaction.run(
                "INSERT INTO quota (scope, begin_at, used, folded) VALUES (?, ?, 0, 0) ON CONFLICT (scope, begin_at) DO NOTHING",
                (scope, begin),
            )
            row = self._transaction.one("SELECT used, folded FROM quota WHERE scope = ? AND begin_at = ? {for_update}", (scope, begin))
            counter = self._counters[scope, begin] = [int(row[0]), int(row[1])] if row else [0, 0]
        return counter

    def left(self, scope: str, begin: int, cap: int) -> int:
        return max(cap - self._counter(scope, begin)[0], 0)

    def use(self, scope: str, begin: int, number: int) -> None:
        self._counter(scope, begin)[0] += number

    def fold(self, scope: str, begin: int, messages: int) -> None:
        self._counter(scope, begin)[1] += messages

    def take(self, key: ReportKey, caps: Caps, wanted: int) -> int:
        """How many of `wanted` new rows there is room for; they are used up."""
        if wanted == 0:
            return 0
        domain, day = f"domain:{key.policy_domain}", key.begin // DAY * DAY
        number = min(wanted, self.left(domain, key.begin, caps.rows), self.left("all", day, caps.all_rows))
        self.use(domain, key.begin, number)
        self.use("all", day, number)
        return number

    def write(self) -> None:
        self._transaction.many(
            "UPDATE quota SET used = ?, folded = ? WHERE scope = ? AND begin_at = ?",
            [(*counter, *key) for key, counter in sorted(self._counters.items())],
        )


def _failures(transaction: Transaction, facts: Sequence[Facts], samples: dict[str, bytes], caps: Caps) -> None:
    """Messages kept for a failure report: one waits for each policy domain, further ones add to its incidents (RFC 9991)."""
    quota = _Quota(transaction)
    for each in facts:
        day = int(each.at // DAY) * DAY
        waiting = transaction.one(
            "SELECT id FROM failure WHERE policy_domain = ? AND state = 'due' AND at > ? ORDER BY at LIMIT 1 {for_update}",
            (each.policy_domain, int(each.at) - DAY),
        )
        if waiting:
            transaction.run("UPDATE failure SET incidents = incidents + 1 WHERE id = ?", waiting)
            continue
        if quota.left("failures", day, caps.failures) == 0:
            quota.fold("failures", day, 1)
            continue
        quota.use("failures", day, 1)
        transaction.run(
            "INSERT INTO failure (id, at, policy_domain, state, incidents, facts, sample, attempts, next_at, last_reply, lease_owner,"
            " lease_until) VALUES (?, ?, ?, 'due', 1, ?, ?, 0, ?, '', '', 0) ON CONFLICT (id) DO NOTHING",
            (each.id, int(each.at), each.policy_domain, encode(each), samples[each.id], int(each.at)),
        )
    quota.write()
