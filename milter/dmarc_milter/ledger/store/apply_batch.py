"""From a batch of facts to the store: decisions, totals and report rows, all in the transaction
that notes the batch as applied.

A batch carries the spool's identity and sequence numbers; what the store has counted of that spool
is refused a second time. An id that stands in the decision log is refused too, which covers a spool
file restored from a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from dmarc_milter.core.report.failure_sample import alike
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts, UnreadableFacts, decode, is_pass
from dmarc_milter.ledger import tombstones
from dmarc_milter.ledger.clock import FAR
from dmarc_milter.ledger.origins import enrol
from dmarc_milter.ledger.spool.file import SpoolRow
from dmarc_milter.ledger.store import report_id, report_rows, rollups
from dmarc_milter.ledger.store.daily_caps import Caps, Quota, StoreOptions
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, chunks, with_list
from dmarc_milter.ledger.store.report_rows import PreparedRows


class Batch(NamedTuple):
    """What one spool hands over: its identity, the host it stands on, and rows in the order of
    their sequence numbers. `after`: the last number that the store has counted, as the spool knows
    it; None: whatever that is."""

    identity: str
    host: str
    rows: Sequence[tuple[int, SpoolRow]]
    after: int | None = None


class _NewMessage(NamedTuple):
    """A row of the spool that the store does not hold yet. `stored` is the encoded form of the
    facts, `sample` what a failure report would show, None where there will be none."""

    facts: Facts
    stored: bytes
    sample: bytes | None


class _Unreadable(NamedTuple):
    """A row whose facts cannot be decoded, and why."""

    id: str
    reason: str
    data: bytes


class Decoded(NamedTuple):
    """A batch whose rows have been read. `logged`: whether a decision of that time gets a row in
    the decision log. `erased`: tombstones.mark when the rows were judged."""

    batch: Batch
    rows: Sequence[tuple[int, _NewMessage | _Unreadable]]
    logged: Callable[[float], bool] = lambda _: True
    erased: int = 0

    def times(self) -> list[float]:
        """When the messages came."""
        return [row.facts.at for _, row in self.rows if isinstance(row, _NewMessage)]


def read(batch: Batch) -> Decoded:
    """Decode the rows: once, however often the transaction has to be tried."""
    return Decoded(batch, [(seq, _read(row)) for seq, row in batch.rows])


def _read(row: SpoolRow) -> _NewMessage | _Unreadable:
    try:
        return _NewMessage(decode(row.facts), row.facts, row.sample or None)
    except UnreadableFacts as error:
        return _Unreadable(row.id, str(error), row.facts)


class Moved(Exception):
    """The store has counted further under this identity than the batch says: another drain, or
    another spool of the same name."""


class Erased(Exception):
    """Something was erased since the rows were judged: judge them again."""


def without_erased(database: Database, decoded: Decoded) -> Decoded:
    """Without messages that name what was erased after they were recorded, and without the headers
    that do. What that costs is a stranger's choice: no transaction waits for it. Raises
    StoreError."""
    with database.transaction(write=False) as transaction:
        erased = tombstones.mark(transaction)
        stones = tombstones.load(transaction)
    if not stones:
        return decoded._replace(erased=erased)
    rows: list[tuple[int, _NewMessage | _Unreadable]] = []
    for seq, row in decoded.rows:
        if isinstance(row, _Unreadable):
            rows.append((seq, row))
        elif not stones.hides_facts(row.facts):
            hidden = row.sample and stones.hides_sample(row.sample, row.facts.at)
            rows.append((seq, row._replace(sample=None) if hidden else row))
    return decoded._replace(rows=rows, erased=erased)


def prepare(database: Database, decoded: Decoded, options: StoreOptions, now: int) -> PreparedRows:
    """What hosts share is made in small transactions before the batch, which then writes nothing
    that another host might wait for. Raises StoreError."""
    number, last = attempt(database, partial(_enrol, batch=decoded.batch, now=now))
    fresh = [row for seq, row in decoded.rows if seq > last and isinstance(row, _NewMessage)]
    with database.transaction(write=False) as transaction:
        facts = [message.facts for message in _unknown(transaction, fresh)]
    _remember_passes(database, facts)
    return PreparedRows(number, report_rows.begin(database, facts, number, options))


def _enrol(transaction: Transaction, batch: Batch, now: int) -> tuple[int, int]:
    """The spool's number and the last of its rows that is counted."""
    transaction.run(
        "INSERT INTO clock (only_row, seen_at, doubted_from, doubted_at) VALUES (1, ?, 0, 0) ON"
        " CONFLICT (only_row) DO NOTHING",
        (now,),
    )
    report_id.found(transaction, batch.identity)
    return enrol(transaction, batch.identity, batch.host)


def apply(
    transaction: Transaction,
    decoded: Decoded,
    prepared: PreparedRows,
    options: StoreOptions,
    now: int,
) -> int:
    """Count what is new in a batch; how many messages that were. Call it in one transaction, whole
    or not at all. Raises Erased: judge and prepare once more; report_rows.Closed: prepare; Moved:
    look whose messages were counted."""
    batch = decoded.batch
    origin = transaction.one(
        "SELECT last_seq FROM origin WHERE identity = ? {for_update}", (batch.identity,)
    )
    last = int(origin[0]) if origin else 0
    if batch.after not in (None, last):
        raise Moved
    fresh = [row for seq, row in decoded.rows if seq > last]
    _park(transaction, fresh, now)
    readable = [row for row in fresh if isinstance(row, _NewMessage)]
    messages = _unknown(transaction, readable)
    facts = [message.facts for message in messages]
    logged = [message for message in messages if decoded.logged(message.facts.at)]
    _log(transaction, logged, batch.host)
    _total(transaction, facts, prepared.origin)
    rollups.write(
        transaction,
        [rollups.Counted(one.facts, _disposition(one.facts)) for one in logged],
        str(prepared.origin),  # a host's name may be the same on two
        batch.identity,
    )
    report_rows.count(transaction, facts, prepared, options)
    _failures(transaction, messages, prepared.origin, options.caps)
    if batch.rows and batch.rows[-1][0] > last:
        transaction.run(
            "UPDATE origin SET last_seq = ?, last_id = ?, drained_at = ?, host = ?, unlogged ="
            " unlogged + ? WHERE identity = ?",
            (
                batch.rows[-1][0],
                batch.rows[-1][1].id,
                now,
                batch.host,
                len(messages) - len(logged),
                batch.identity,
            ),
        )
    if tombstones.mark(transaction) != decoded.erased:  # who erases waits for the row of origin
        raise Erased
    return len(messages)


def _park(transaction: Transaction, rows: Sequence[_NewMessage | _Unreadable], now: int) -> None:
    """Keep what cannot be read, for a person to look at."""
    transaction.many(
        "INSERT INTO parked (id, at, reason, facts) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO"
        " NOTHING",
        [(row.id, now, row.reason, row.data) for row in rows if isinstance(row, _Unreadable)],
    )


def _unknown(transaction: Transaction, messages: Sequence[_NewMessage]) -> list[_NewMessage]:
    """Those whose id the decision log does not hold."""
    known = set[str]()
    # The same message has the same time: the log's other days are not looked into.
    sql = "SELECT id FROM decision WHERE id IN [] AND {plus}at >= ? AND {plus}at <= ?"
    for chunk in chunks(messages):
        ids, times = [each.facts.id for each in chunk], [int(each.facts.at) for each in chunk]
        rows = transaction.all(with_list(sql, ids), (*ids, min(times), max(times)))
        known.update(identity for (identity,) in rows)
    return [message for message in messages if message.facts.id not in known]


def _log(transaction: Transaction, messages: Sequence[_NewMessage], host: str) -> None:
    transaction.many(
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain,"
        " source_ip, status, disposition, would_be, deferral, failing_name, facts) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (
                facts.id, int(facts.at), host, facts.queue_id, facts.message_id,
                facts.author_domain, facts.policy_domain, facts.source_ip, facts.status,
                _disposition(facts), facts.would_be, facts.deferral, facts.failing_name, stored,
            )
            for facts, stored, _ in messages
        ],
    )  # fmt: skip


def _disposition(facts: Facts) -> str:
    """What became of the message; one that got 451 comes again and counts then."""
    return facts.disposition if facts.counted else "tempfail"


def _total(transaction: Transaction, facts: Sequence[Facts], origin: int) -> None:
    totals = Counter(
        (int(one.at // DAY) * DAY, origin, one.status, _disposition(one), one.would_be)
        for one in facts
    )
    transaction.many(
        "INSERT INTO daily (day, origin, status, disposition, would_be, messages) VALUES (?,"
        " ?, ?, ?, ?, ?) ON CONFLICT (day, origin, status, disposition, would_be) DO UPDATE SET"
        " messages = daily.messages + excluded.messages",
        [(*key, count) for key, count in sorted(totals.items())],
    )


def _remember_passes(database: Database, facts: Sequence[Facts]) -> None:
    """Organizational domains that passed; written again once a day at most."""
    passed: dict[str, int] = {}
    for one in facts:
        if is_pass(one) and one.outcome is not None:
            domain = one.outcome.organizational_domain or one.outcome.author_domain
            passed[domain] = max(int(one.at), passed.get(domain, 0))
    sql = "SELECT domain, last_at FROM known_domain WHERE domain IN []"
    with database.transaction(write=False) as transaction:
        for chunk in chunks(sorted(passed)):
            for domain, last_at in transaction.all(with_list(sql, chunk), chunk):
                if passed[domain] - DAY <= last_at <= passed[domain] + FAR:
                    del passed[domain]
    for some in chunks(sorted(passed.items()), report_rows.AT_ONCE):
        attempt(database, partial(_write_passes, passed=some))


def _write_passes(transaction: Transaction, passed: Sequence[tuple[str, int]]) -> None:
    transaction.many(
        "INSERT INTO known_domain (domain, last_at) VALUES (?, ?) ON CONFLICT (domain) DO UPDATE"
        " SET last_at = excluded.last_at WHERE known_domain.last_at < excluded.last_at OR"
        f" known_domain.last_at > excluded.last_at + {FAR}",
        passed,
    )


def _failures(
    transaction: Transaction, messages: Sequence[_NewMessage], origin: int, caps: Caps
) -> None:
    """Messages kept for a failure report: one waits for each way of failing of a policy domain, and
    further messages that failed in that way add to its incidents (RFC 9991)."""
    quota = Quota(transaction, origin)
    for facts, stored, sample in messages:
        if sample is None:
            continue
        at, day = int(facts.at), int(facts.at // DAY) * DAY
        way = alike(facts, sample)
        waiting = transaction.one(
            "SELECT id FROM failure WHERE policy_domain = ? AND alike = ? AND state = 'due' AND"
            " at > ? AND at < ? ORDER BY at LIMIT 1 {for_share}",
            (facts.policy_domain, way, at - DAY, at + DAY),  # none from a clock that was ahead
        )
        scopes = (
            (f"failures:{facts.policy_domain}", day, caps.domain_failures),
            ("failures", day, caps.failures),
        )
        if waiting:
            transaction.run(
                "INSERT INTO incident_count (failure_id, origin, incidents) VALUES (?, ?, 1) ON"
                " CONFLICT (failure_id, origin) DO UPDATE SET incidents = incident_count.incidents"
                " + 1",
                (*waiting, origin),
            )
        elif quota.take(scopes, 1):
            transaction.run(
                "INSERT INTO failure (id, at, policy_domain, alike, state, incidents, facts,"
                " sample, attempts, next_at, last_reply, lease_owner, lease_until)"
                " VALUES (?, ?, ?, ?, 'due', 1, ?, ?, 0, ?, '', '', 0) ON CONFLICT (id) DO NOTHING",
                (facts.id, at, facts.policy_domain, way, stored, sample, at),
            )
        else:
            quota.fold("failures", day, 1)
    quota.write()
