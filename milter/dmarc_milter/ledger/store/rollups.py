"""Messages by hour and by day, author domain, outcome and kind of source: counted by the drain, so
that no question about many messages has to read the decision log. What all author domains are
ranked by stands once more in one row for each day, and all messages in one for each hour.

Every host counts in rows of its own, which are added up when they are read: no host waits for
another. Domains are stored with their letters reversed: a domain and all below it stand together.
An attacker who invents author domains gets at most NEW_NAMES of them a day and host into rows of
their own; the rest is counted under OTHERS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dmarc_milter.core.explain.senders import kind_of
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts
from dmarc_milter.ledger.store.database import (
    Database,
    Transaction,
    chunks,
    fetch,
    with_list,
)

HOUR = 3600
NEW_NAMES = 50_000
"""Author domains of a day that one host has not seen before; half of them are for mail that passes
DMARC."""
OTHERS = "*"
"""Stands for the author domains beyond that number."""


STOPPED = ("quarantine", "reject")
ADD = (
    "INSERT INTO outcome_sum (span, author_reversed, begin_at, status, disposition, would_be, kind,"
    " host, messages) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (span, author_reversed,"
    " begin_at, status, disposition, would_be, kind, host) DO UPDATE SET messages ="
    " outcome_sum.messages + excluded.messages"
)
ADD_DAYS = (
    "INSERT INTO author_day (day, author_reversed, host, messages, passed, failed, treated) VALUES"
    " (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, author_reversed, host) DO UPDATE SET messages ="
    " author_day.messages + excluded.messages, passed = author_day.passed + excluded.passed,"
    " failed = author_day.failed + excluded.failed, treated = author_day.treated +"
    " excluded.treated"
)


class Counted(NamedTuple):
    """A message that stands in the log; `disposition` is "tempfail" where the answer was 4xx."""

    facts: Facts
    disposition: str


def reversed_name(name: str) -> str:
    """As it is stored; the same the other way round."""
    return name[::-1]


def below(name: str) -> tuple[str, str]:
    """The names below `name`, as they are stored: not before the first, before the second."""
    return reversed_name(f".{name}"), reversed_name(f"/{name}")


def write(transaction: Transaction, messages: Sequence[Counted], host: str, identity: str) -> None:
    """Count messages of `host`, from the spool of this identity. Raises StoreError."""
    known = _names(transaction, [message.facts for message in messages], host, identity)
    totals: Counter[tuple[int, str, int, str, str, str, str]] = Counter()
    for one, disposition in messages:
        name = reversed_name(one.author_domain)
        kind = "" if one.status == "pass" else kind_of(one).value
        outcome = (one.status, disposition, one.would_be, kind)
        for span in (HOUR, DAY):
            begin = int(one.at // span) * span
            totals[span, name if name in known else OTHERS, begin, *outcome] += 1
    transaction.many(ADD, [(*key, host, number) for key, number in sorted(totals.items())])
    days: dict[tuple[int, str], list[int]] = {}
    hours = Counter[int]()
    for (span, name, begin, status, disposition, would_be, _), number in totals.items():
        if span == HOUR:
            hours[begin] += number
            continue
        counts = days.setdefault((begin, name), [0, 0, 0, 0])
        counts[0] += number
        counts[1] += number * (status == "pass")
        counts[2] += number * (status == "fail")
        counts[3] += number * (disposition in STOPPED or would_be in STOPPED)
    transaction.many(ADD_DAYS, [(*key, host, *counts) for key, counts in sorted(days.items())])
    transaction.many(
        "INSERT INTO hour_total (hour, host, messages) VALUES (?, ?, ?) ON CONFLICT (hour, host)"
        " DO UPDATE SET messages = hour_total.messages + excluded.messages",
        [(hour, host, number) for hour, number in sorted(hours.items())],
    )


def _names(transaction: Transaction, facts: Sequence[Facts], host: str, identity: str) -> set[str]:
    """The author domains that have rows of their own, reversed; new ones within the bound."""
    latest: dict[str, int] = {}
    passed = set[str]()
    for one in facts:
        name = reversed_name(one.author_domain)
        latest[name] = max(int(one.at), latest.get(name, 0))
        if one.status == "pass":
            passed.add(name)
    seen = _seen(transaction, latest, host)
    new = sorted(latest.keys() - seen.keys(), key=lambda name: (name not in passed, name))
    day = max(latest.values(), default=0) // DAY * DAY
    admitted = _admit(transaction, new, passed, identity, day)
    stale = {name: at for name, at in latest.items() if at > seen.get(name, at) + DAY}
    transaction.many(
        "INSERT INTO author_name (reversed, host, name, last_at) VALUES (?, ?, ?, ?) ON CONFLICT"
        " (reversed, host) DO UPDATE SET last_at = excluded.last_at",
        [
            (name, host, reversed_name(name), latest[name])
            for name in sorted(admitted | stale.keys())
        ],
    )
    return admitted | seen.keys()


def _seen(transaction: Transaction, names: Iterable[str], host: str) -> dict[str, int]:
    """Those that this host has seen before, and when last."""
    sql = "SELECT reversed, last_at FROM author_name WHERE reversed IN [] AND host = ?"
    return {
        name: int(at)
        for chunk in chunks(sorted(names))
        for name, at in transaction.all(with_list(sql, chunk), (*chunk, host))
    }


def _admit(
    transaction: Transaction, new: Sequence[str], passed: set[str], identity: str, day: int
) -> set[str]:
    """Of the new names, those that there is room for today."""
    if not new:
        return set()
    row = transaction.one(
        "SELECT names_used FROM origin WHERE identity = ? AND names_day = ?", (identity, day)
    )
    used = int(row[0]) if row else 0
    admitted = set[str]()
    for name in new:
        if used + len(admitted) < (NEW_NAMES if name in passed else NEW_NAMES // 2):
            admitted.add(name)
    transaction.run(
        "UPDATE origin SET names_day = ?, names_used = ? WHERE identity = ?",
        (day, used + len(admitted), identity),
    )
    return admitted


# --- reading --------------------------------------------------------------------------------------


class Where(NamedTuple):
    """Rows of the rollup as a table expression `FROM (...) AS counted`, and its values."""

    sql: str
    values: tuple[object, ...]


def since_hour(at: int) -> int:
    """The beginning of the hour: as exact as the rollup is."""
    return at // HOUR * HOUR


def counted(
    since: int,
    *,
    until: int | None = None,
    author_domain: str = "",
    exactly: bool = False,
    only: str = "",
) -> Where:
    """Whole days by their daily rows, and the hours before the first and after the last of them;
    `until` (not included) is rounded up to its hour. `author_domain` is this domain and what is
    below it, or with `exactly` this one alone; `only` is a further condition, for which there is an
    index by time."""
    midnight = -(-since // DAY) * DAY
    condition, names = f" AND ({only})" if only else "", tuple[str, ...]()
    if author_domain:
        first, end = below(author_domain)
        names = (reversed_name(author_domain), first, end)[: 1 if exactly else 3]
        condition += (
            " AND author_reversed = ?"
            if exactly
            else " AND (author_reversed = ? OR (author_reversed >= ? AND author_reversed < ?))"
        )
    # Days are read in the order of their key, a few hours by their time: SQLite would mix that up.
    by_time = "" if only and not author_domain else "{plus}"
    sql = f"SELECT * FROM outcome_sum WHERE span = {DAY}{condition} AND {by_time}begin_at >= ?"
    values: tuple[object, ...] = (*names, midnight)
    hours = [(since_hour(since), midnight)]
    if until is not None:
        last_hour = -(-until // HOUR) * HOUR
        last_day = max(midnight, last_hour // DAY * DAY)
        sql += f" AND {by_time}begin_at < ?"
        values = (*values, last_day)
        hours = [(since_hour(since), min(midnight, last_hour)), (last_day, last_hour)]
    by_name = "" if author_domain or only else "{plus}"
    for begin, stop in hours:
        if begin < stop:
            sql += (
                f" UNION ALL SELECT * FROM outcome_sum WHERE {by_name}span = ?{condition} AND"
                " begin_at >= ? AND begin_at < ?"
            )
            values = (*values, HOUR, *names, begin, stop)
    return Where(f"({sql}) AS counted", values)


class Failing(NamedTuple):
    """An author domain's messages in a period that failed, and all that passed or failed."""

    author_domain: str
    failed: int
    messages: int


class Threshold(NamedTuple):
    """Who begins to fail: in the period before at most a share of `few`, now at least one of `many`
    and so many messages as `fewest`."""

    few: float
    many: float
    fewest: int


_SHARES = (
    "SELECT author_reversed, sum(failed) AS failed, sum(failed + passed) AS messages FROM"
    " author_day WHERE day >= ? AND day < ? AND author_reversed NOT IN ('', ?) GROUP BY"
    " author_reversed HAVING sum(failed + passed) > 0 AND"
)
BEGAN_TO_FAIL = (
    "SELECT now.author_reversed, now.failed, now.messages FROM"
    f" ({_SHARES} sum(failed) >= ? AND sum(failed) >= ? * sum(failed + passed)) AS now JOIN"
    f" ({_SHARES} sum(failed) <= ? * sum(failed + passed)) AS earlier"
    " ON earlier.author_reversed = now.author_reversed"
    " ORDER BY now.failed DESC, now.author_reversed LIMIT ?"
)


def began_to_fail(
    database: Database, periods: tuple[int, int, int], threshold: Threshold, *, most: int
) -> list[Failing]:
    """Author domains that failed seldom in the first period and often in the second, most failures
    first. `periods`: where the first begins, where the second does, and where that ends; whole
    days, seconds since 1970. Raises StoreError."""
    first, second, end = periods
    values = (second, end, OTHERS, threshold.fewest, threshold.many)
    rows = fetch(database, BEGAN_TO_FAIL, (*values, first, second, OTHERS, threshold.few, most))
    return [Failing(reversed_name(name), int(failed), int(all_)) for name, failed, all_ in rows]


def forget(transaction: Transaction, reversed_name: str) -> None:
    """Count what stands under an author domain under OTHERS, and forget its name. Raises
    StoreError."""
    keys = "span", "begin_at", "status", "disposition", "would_be", "kind", "host"
    rows = _take(transaction, "outcome_sum", reversed_name, keys, "messages")
    transaction.many(ADD, [(row[0], OTHERS, *row[1:]) for row in rows])
    numbers = "messages, passed, failed, treated"
    days = _take(transaction, "author_day", reversed_name, ("day", "host"), numbers)
    transaction.many(ADD_DAYS, [(row[0], OTHERS, *row[1:]) for row in days])
    transaction.run("DELETE FROM author_name WHERE reversed = ?", (reversed_name,))


def _take(
    transaction: Transaction, table: str, name: str, keys: Sequence[str], numbers: str
) -> list[tuple[Any, ...]]:
    """Delete what stands under a name; the rows. Exactly those that were read, as they are once a
    drain that was counting into them has ended: nothing that comes meanwhile is lost."""
    columns = ", ".join(keys)
    rows = transaction.all(
        f"SELECT {columns}, {numbers} FROM {table} WHERE author_reversed = ? ORDER BY {columns}"
        " {for_update}",
        (name,),
    )
    same = " AND ".join(f"{key} = ?" for key in keys)
    transaction.many(
        f"DELETE FROM {table} WHERE author_reversed = ? AND {same}",
        [(name, *row[: len(keys)]) for row in rows],
    )
    return rows
