"""From a batch of facts to the store: decisions, totals and report rows, all in the transaction
that notes the batch as applied.

A batch carries the spool's identity and sequence numbers; what the store has counted of that spool
is refused a second time. An id that stands in the decision log is refused too, which covers a spool
file restored from a copy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple
from uuid import uuid4

from dmarc_milter.core.report.rows import (
    DAY,
    Period,
    configuration,
    decode_published,
    encode_published,
    encode_row,
    is_quiet,
    period,
    published_of,
    row_of,
    with_errors,
)
from dmarc_milter.core.stored import Facts, Published, UnreadableFacts, decode, encode, is_pass
from dmarc_milter.ledger.spool.file import SpoolRow
from dmarc_milter.ledger.store.caps import Caps, Quota, Scope
from dmarc_milter.ledger.store.database import CHUNK, Transaction, chunks, with_list


class Batch(NamedTuple):
    """What one spool hands over: its identity, the host it stands on, and rows in the order of
    their sequence numbers."""

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
    """Count what is new in `batch`; how many messages that were. Call it in one transaction, whole
    or not at all."""
    transaction.run(
        "INSERT INTO origin (identity, host, last_seq, drained_at) VALUES (?, ?, 0, 0) ON CONFLICT"
        " (identity) DO NOTHING",
        (batch.identity, batch.host),
    )
    found = transaction.one(
        "SELECT last_seq FROM origin WHERE identity = ? {for_update}", (batch.identity,)
    )
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


def _unknown(
    transaction: Transaction, rows: Sequence[SpoolRow], now: int
) -> tuple[list[Facts], dict[str, bytes]]:
    """The facts of rows whose id the log does not hold, and their samples; rows that cannot be read
    are parked."""
    known: set[str] = set()
    for chunk in chunks(row.id for row in rows):
        known.update(
            each[0]
            for each in transaction.all(
                with_list("SELECT id FROM decision WHERE id IN []", chunk), chunk
            )
        )
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
    transaction.many(
        "INSERT INTO parked (id, at, reason, facts) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO"
        " NOTHING",
        parked,
    )
    return facts, samples


def _log(transaction: Transaction, facts: Sequence[Facts], host: str) -> None:
    transaction.many(
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain,"
        " source_ip, status, disposition, would_be, deferral, failing_name, facts) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        [
            (
                each.id, int(each.at), host, each.queue_id, each.message_id, each.author_domain,
                each.policy_domain, each.source_ip,
                each.status, each.disposition if each.counted else "tempfail", each.would_be,
                each.deferral,
                each.failing_name, encode(each),
            )
            for each in facts
        ],
    )  # fmt: skip


def _total(transaction: Transaction, facts: Sequence[Facts]) -> None:
    totals = Counter(
        (
            int(each.at // DAY) * DAY,
            each.status,
            each.disposition if each.counted else "tempfail",
            each.would_be,
        )
        for each in facts
    )
    transaction.many(
        "INSERT INTO daily (day, status, disposition, would_be, messages) VALUES (?, ?, ?, ?, ?) ON"
        " CONFLICT (day, status, disposition, would_be) DO UPDATE SET messages = daily.messages +"
        " excluded.messages",
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
    """Report rows: a few statements for the whole batch, whatever number of reports it touches."""
    shares = _shares(facts, honor_ri=honor_ri)
    if not shares:
        return
    open_reports, parts = _reports(transaction, shares)
    _tell(
        transaction,
        {
            open_reports[key]: share.published.errors
            for key, share in shares.items()
            if key in open_reports
        },
    )
    quota = Quota(transaction)
    missing = [key for key in sorted(shares) if key not in open_reports]
    quota.look([(_org(shares[key]), key.begin) for key in missing])
    made: list[tuple[object, ...]] = []
    for key in missing:
        share = shares[key]
        if quota.take(
            (
                (_org(share), key.begin, caps.reports),
                ("reports", key.begin // DAY * DAY, caps.all_reports),
            ),
            1,
        ):
            open_reports[key] = identity = uuid4().hex
            made.append(
                (
                    identity,
                    *key,
                    parts.get(key, 0) + 1,
                    share.organizational_domain,
                    encode_published(share.published),
                    key.end,
                )
            )
        else:
            quota.fold(_org(share), key.begin, share.rows.total())
    transaction.many(
        "INSERT INTO report (id, policy_domain, configuration, begin_at, end_at, part,"
        " organizational_domain, published, next_at, state, messages, loud, rows_count, folded,"
        " note, attempts, lease_owner, lease_until, closed_at, done_at) VALUES (?, ?, ?, ?, ?, ?,"
        " ?, ?, ?, 'due', 0, 0, 0, 0, '', 0, '', 0, 0, 0)",
        made,
    )
    _add_rows(
        transaction,
        [(open_reports[key], key, shares[key]) for key in sorted(shares) if key in open_reports],
        quota,
        caps,
    )
    quota.write()


def _tell(transaction: Transaction, errors: dict[str, tuple[str, ...]]) -> None:
    """Errors that the open reports of these ids do not tell yet."""
    for chunk in chunks(sorted(identity for identity, each in errors.items() if each)):
        rows = transaction.all(
            with_list("SELECT id, published FROM report WHERE id IN []", chunk), chunk
        )
        found = [(identity, decode_published(bytes(data))) for identity, data in rows]
        more = [
            (identity, before, with_errors(before, errors[identity])) for identity, before in found
        ]
        transaction.many(
            "UPDATE report SET published = ? WHERE id = ?",
            [
                (encode_published(after), identity)
                for identity, before, after in more
                if after is not before
            ],
        )


def _org(share: _Share) -> str:
    return f"org:{share.organizational_domain}"


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
            share = shares[key] = _Share(
                published, each.outcome.organizational_domain or published.policy_domain
            )
        share.published = with_errors(share.published, published.errors)
        share.rows[encode_row(row_of(each, each.outcome))] += 1
        share.loud += not is_quiet(each)
    return shares


def _reports(
    transaction: Transaction, shares: dict[ReportKey, _Share]
) -> tuple[dict[ReportKey, str], dict[ReportKey, int]]:
    """The reports that still take rows, locked so that none is closed meanwhile; and the last part
    of each that there is."""
    found: dict[ReportKey, str] = {}
    parts: dict[ReportKey, int] = {}
    begins = sorted({key.begin for key in shares})
    sql = (
        "SELECT policy_domain, configuration, begin_at, end_at, part, closed_at, id FROM report"
        " WHERE policy_domain IN [] AND begin_at >= ? AND begin_at <= ? ORDER BY policy_domain, id"
        " {for_update}"
    )
    for chunk in chunks(sorted({key.policy_domain for key in shares})):
        for *key, part, closed_at, identity in transaction.all(
            with_list(sql, chunk), (*chunk, begins[0], begins[-1])
        ):
            report = ReportKey(*key)
            parts[report] = max(int(part), parts.get(report, 0))
            if not closed_at:
                found[report] = identity
    return found, parts


def _add_rows(
    transaction: Transaction,
    reports: Sequence[tuple[str, ReportKey, _Share]],
    quota: Quota,
    caps: Caps,
) -> None:
    """Greater counts for the rows that are there, new rows within the caps; the rest is folded."""
    keyed = {
        identity: {sha256(data).digest()[:16]: data for data in share.rows}
        for identity, _, share in reports
    }
    there = _there(
        transaction, [(identity, key) for identity, rows in keyed.items() for key in rows]
    )
    quota.look(
        [
            scope[:2]
            for identity, key, _ in reports
            if not keyed[identity].keys() <= there[identity]
            for scope in _scopes(key, caps)
        ]
    )
    upserts: list[tuple[object, ...]] = []
    updates: list[tuple[object, ...]] = []
    for identity, key, share in reports:
        rows = keyed[identity]
        fresh = [each for each in rows if each not in there[identity]]
        room = quota.take(_scopes(key, caps), len(fresh)) if fresh else 0
        folded = sum(share.rows[rows[each]] for each in fresh[room:])
        upserts += [
            (identity, each, share.rows[rows[each]], rows[each])
            for each in sorted(there[identity] | set(fresh[:room]))
        ]
        updates.append((share.rows.total() - folded, share.loud, room, folded, identity))
        if folded:
            quota.fold(f"domain:{key.policy_domain}", key.begin, folded)
    transaction.many(
        "INSERT INTO report_row (report_id, row_key, messages, facts) VALUES (?, ?, ?, ?) ON"
        " CONFLICT (report_id, row_key) DO UPDATE SET messages = report_row.messages +"
        " excluded.messages",
        upserts,
    )
    transaction.many(
        "UPDATE report SET messages = messages + ?, loud = loud + ?, rows_count = rows_count + ?,"
        " folded = folded + ? WHERE id = ?",
        updates,
    )


def _there(
    transaction: Transaction, pairs: Sequence[tuple[str, bytes]]
) -> defaultdict[str, set[bytes]]:
    """Which of the rows exist, by report."""
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    for chunk in chunks(pairs, CHUNK // 2):
        # Not `(report_id, row_key) IN (VALUES ...)`: SQLite reads the whole table for that.
        sql = (
            f"WITH wanted (report_id, row_key) AS (VALUES {', '.join(['(?, ?)'] * len(chunk))})"
            " SELECT report_row.report_id, report_row.row_key FROM wanted CROSS JOIN report_row"
            " WHERE report_row.report_id = wanted.report_id AND report_row.row_key = wanted.row_key"
        )
        for identity, key in transaction.all(sql, [value for pair in chunk for value in pair]):
            found[identity].add(bytes(key))
    return found


def _scopes(key: ReportKey, caps: Caps) -> tuple[Scope, ...]:
    """What a new row of this report is counted against."""
    return (
        (f"domain:{key.policy_domain}", key.begin, caps.rows),
        ("all", key.begin // DAY * DAY, caps.all_rows),
    )


def _failures(
    transaction: Transaction, facts: Sequence[Facts], samples: dict[str, bytes], caps: Caps
) -> None:
    """Messages kept for a failure report: one waits for each policy domain, further ones add to its
    incidents (RFC 9991)."""
    quota = Quota(transaction)
    for each in facts:
        day = int(each.at // DAY) * DAY
        waiting = transaction.one(
            "SELECT id FROM failure WHERE policy_domain = ? AND state = 'due' AND at > ? ORDER BY"
            " at LIMIT 1 {for_update}",
            (each.policy_domain, int(each.at) - DAY),
        )
        if waiting:
            transaction.run("UPDATE failure SET incidents = incidents + 1 WHERE id = ?", waiting)
            continue
        if not quota.take((("failures", day, caps.failures),), 1):
            quota.fold("failures", day, 1)
            continue
        transaction.run(
            "INSERT INTO failure (id, at, policy_domain, state, incidents, facts, sample, attempts,"
            " next_at, last_reply, lease_owner, lease_until) VALUES (?, ?, ?, 'due', 1, ?, ?, 0, ?,"
            " '', '', 0) ON CONFLICT (id) DO NOTHING",
            (
                each.id,
                int(each.at),
                each.policy_domain,
                encode(each),
                samples[each.id],
                int(each.at),
            ),
        )
    quota.write()
