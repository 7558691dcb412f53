"""What a batch adds to aggregate reports: rows with their counts, within the caps.

Every spool writes counts of its own, under its number in `origin`; who reads sums them. So hosts
that count into the same report never wait for each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from dmarc_milter.core.report.rows import (
    DAY,
    Period,
    configuration,
    decode_published,
    encode_published,
    encode_row,
    is_reportable,
    period,
    published_of,
    row_of,
    with_errors,
)
from dmarc_milter.core.stored import Facts, StoredPolicy
from dmarc_milter.ledger.store.daily_caps import Caps, Quota, Scope, StoreOptions
from dmarc_milter.ledger.store.database import (
    CHUNK,
    Database,
    Transaction,
    attempt,
    chunks,
    with_list,
)
from dmarc_milter.ledger.store.report_id import report_id, secret_of

AT_ONCE = 50
"""Reports made in one transaction: other hosts wait for it that want the same ones."""


class ReportKey(NamedTuple):
    """What makes a report."""

    policy_domain: str
    configuration: str
    begin: int
    end: int


class PreparedRows(NamedTuple):
    """What goes before a batch: the number of the spool, and the reports that have no room."""

    origin: int
    no_room: set[ReportKey]


@dataclass(slots=True)
class _Share:
    """What a batch adds to one report. `reportable`: messages that alone are a reason to send
    it."""

    published: StoredPolicy
    organizational_domain: str
    identity: str = ""
    rows: Counter[bytes] = field(default_factory=Counter)
    reportable: int = 0

    @property
    def scope(self) -> str:
        """What its reports are counted against."""
        return f"org:{self.organizational_domain}"


class Closed(Exception):
    """A report that was to take rows has been claimed meanwhile: what comes now needs another."""


def begin(
    database: Database, facts: Sequence[Facts], origin: int, options: StoreOptions
) -> set[ReportKey]:
    """Make the reports that these facts need; those for which there is no room.

    This goes before the batch, in small transactions: whoever makes a report makes others wait who
    want the same one, and the batch is long.
    """
    shares = _shares(facts, options)
    if not shares:
        return set()
    with database.transaction(write=False) as transaction:
        reports, parts = _reports(transaction, shares)
    missing = [(key, share) for key, share in sorted(shares.items()) if key not in reports]
    no_room: set[ReportKey] = set()
    for chunk in chunks(missing, AT_ONCE):
        make = partial(_begin_reports, missing=chunk, parts=parts, origin=origin, caps=options.caps)
        no_room |= attempt(database, make)
    errors = {
        reports[key]: share.published.errors
        for key, share in shares.items()
        if key in reports and share.published.errors
    }
    if errors:
        attempt(database, partial(_add_errors, errors=errors))
    return no_room


def count(
    transaction: Transaction,
    facts: Sequence[Facts],
    prepared: PreparedRows,
    options: StoreOptions,
) -> None:
    """Report rows: a few statements for the whole batch, whatever number of reports it touches.
    Raises Closed."""
    shares = _shares(facts, options)
    if not shares:
        return
    found, _ = _reports(transaction, shares)
    still_open = _held_open(transaction, found.values())
    quota = Quota(transaction, prepared.origin)
    additions = []
    for key, share in sorted(shares.items()):
        identity = found.get(key, "")
        if identity in still_open:
            additions.append(_Addition(identity, key, share))
        elif key in prepared.no_room:
            quota.fold(share.scope, key.begin, share.rows.total())
        else:
            raise Closed
    _add_rows(transaction, additions, quota, options.caps, prepared.origin)
    quota.write()


def _begin_reports(
    transaction: Transaction,
    missing: Sequence[tuple[ReportKey, _Share]],
    parts: dict[ReportKey, int],
    origin: int,
    caps: Caps,
) -> set[ReportKey]:
    """Make reports, within the caps; those that have no room. `parts`: the last part that there is
    of each."""
    quota = Quota(transaction, origin)
    quota.look([(share.scope, key.begin) for key, share in missing])
    secret = secret_of(transaction)
    no_room, begun = set(), []
    for key, share in missing:
        scopes = (
            (share.scope, key.begin, caps.reports),
            ("reports", key.begin // DAY * DAY, caps.all_reports),
        )
        if quota.take(scopes, 1):
            begun.append((key, share))
        else:
            no_room.add(key)
    # Another host may have made the same one just now: then both count into it.
    transaction.many(
        "INSERT INTO report (id, policy_domain, configuration, begin_at, end_at, part,"
        " organizational_domain, published, identity, next_at, state, messages, loud, rows_count,"
        " folded, note, attempts, lease_owner, lease_until, closed_at, done_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'due', 0, 0, 0, 0, '', 0, '', 0, 0, 0) ON"
        " CONFLICT DO NOTHING",
        [
            (
                report_id(secret, (*key, parts.get(key, 0) + 1)),
                *key,
                parts.get(key, 0) + 1,
                share.organizational_domain,
                encode_published(share.published),
                share.identity,
                key.end,
            )
            for key, share in begun
        ],
    )
    quota.write()
    return no_room


def _held_open(transaction: Transaction, ids: Iterable[str]) -> set[str]:
    """Those of the reports that still take rows. None is closed before this transaction ends;
    hosts that count do not wait for each other."""
    held: set[str] = set()
    sql = "SELECT id FROM report WHERE id IN [] AND closed_at = 0 ORDER BY id {for_share}"
    for chunk in chunks(sorted(ids)):
        held.update(identity for (identity,) in transaction.all(with_list(sql, chunk), chunk))
    return held


def _add_errors(transaction: Transaction, errors: dict[str, tuple[str, ...]]) -> None:
    """Add to open reports, by their id, the errors in the record that they do not have yet."""
    for chunk in chunks(sorted(errors)):
        rows = transaction.all(
            with_list("SELECT id, published FROM report WHERE id IN [] ORDER BY id", chunk), chunk
        )
        changed = []
        for identity, data in rows:
            before = decode_published(bytes(data))
            after = with_errors(before, errors[identity])
            if after is not before:
                changed.append((encode_published(after), identity))
        transaction.many("UPDATE report SET published = ? WHERE id = ?", changed)


def _shares(facts: Sequence[Facts], options: StoreOptions) -> dict[ReportKey, _Share]:
    shares: dict[ReportKey, _Share] = {}
    for one in facts:
        published = published_of(one)
        if published is None or one.outcome is None:
            continue
        when: Period = period(one.at, published.ri, honor_ri=options.honor_ri)
        identity = options.identify(one.envelope_to)
        name = configuration(published, identity)
        key = ReportKey(published.policy_domain, name, when.begin, when.end)
        share = shares.get(key)
        if share is None:
            share = shares[key] = _Share(
                published,
                one.outcome.organizational_domain or published.policy_domain,
                identity,
            )
        share.published = with_errors(share.published, published.errors)
        share.rows[encode_row(row_of(one, one.outcome))] += 1
        share.reportable += is_reportable(one)
    return shares


def _reports(
    transaction: Transaction, shares: dict[ReportKey, _Share]
) -> tuple[dict[ReportKey, str], dict[ReportKey, int]]:
    """The reports that still took rows just now; and the last part of each that there is."""
    found: dict[ReportKey, str] = {}
    parts: dict[ReportKey, int] = {}
    begins = sorted({key.begin for key in shares})
    sql = (
        "SELECT policy_domain, configuration, begin_at, end_at, part, closed_at, id FROM report"
        " WHERE policy_domain IN [] AND begin_at >= ? AND begin_at <= ?"
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


class _Addition:
    """What is added to one report: `share`, whose rows have keys of 16 bytes."""

    def __init__(self, identity: str, key: ReportKey, share: _Share) -> None:
        self.identity = identity
        self.key = key
        self.share = share
        self.rows = {sha256(data).digest()[:16]: data for data in share.rows}

    def messages(self, row_key: bytes) -> int:
        return self.share.rows[self.rows[row_key]]


def _add_rows(
    transaction: Transaction,
    additions: Sequence[_Addition],
    quota: Quota,
    caps: Caps,
    origin: int,
) -> None:
    """Greater counts for the rows that are there, new rows within the caps; the rest is folded."""
    there = _there(transaction, [(one.identity, key) for one in additions for key in one.rows])
    growing = [one for one in additions if not one.rows.keys() <= there[one.identity]]
    quota.look([scope[:2] for one in growing for scope in _scopes(one.key, caps)])
    rows: list[tuple[object, ...]] = []
    counts: list[tuple[object, ...]] = []
    for one in additions:
        old = there[one.identity]
        fresh = [key for key in one.rows if key not in old]
        room = quota.take(_scopes(one.key, caps), len(fresh)) if fresh else 0
        folded = sum(one.messages(key) for key in fresh[room:])
        if folded:
            quota.fold(f"domain:{one.key.policy_domain}", one.key.begin, folded)
        rows += [
            (one.identity, key, origin, one.messages(key), one.rows[key])
            for key in sorted(old | set(fresh[:room]))
        ]
        counted = one.share.rows.total() - folded
        counts.append((one.identity, origin, counted, one.share.reportable, room, folded))
    _write_rows(transaction, rows, counts)


def _write_rows(
    transaction: Transaction,
    rows: Sequence[tuple[object, ...]],
    counts: Sequence[tuple[object, ...]],
) -> None:
    transaction.many(
        "INSERT INTO report_row (report_id, row_key, origin, messages, facts) VALUES (?, ?, ?, ?,"
        " ?) ON CONFLICT (report_id, row_key, origin) DO UPDATE SET messages ="
        " report_row.messages + excluded.messages",
        rows,
    )
    transaction.many(
        "INSERT INTO report_count (report_id, origin, messages, loud, rows_count, folded) VALUES"
        " (?, ?, ?, ?, ?, ?) ON CONFLICT (report_id, origin) DO UPDATE SET messages ="
        " report_count.messages + excluded.messages, loud = report_count.loud + excluded.loud,"
        " rows_count = report_count.rows_count + excluded.rows_count, folded ="
        " report_count.folded + excluded.folded",
        counts,
    )


def _there(
    transaction: Transaction, pairs: Sequence[tuple[str, bytes]]
) -> defaultdict[str, set[bytes]]:
    """Which of the rows exist, by report, whichever spool counted them."""
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
