"""The rollups of a decision log that an older version has filled, for the schema step."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Transaction
from dmarc_milter.ledger.store.rollups import HOUR, reversed_name

INSERT = (
    "INSERT INTO rollup (span, author_reversed, begin_at, status, disposition, would_be, kind,"
    " host, messages) VALUES (?, ?, ?, ?, ?, ?, '', ?, ?) ON CONFLICT (span, author_reversed,"
    " begin_at, status, disposition, would_be, kind, host) DO UPDATE SET messages ="
    " excluded.messages"
)
"""It sets and does not add: it may run again."""


def roll_up(transaction: Transaction) -> None:
    """Count what is in the log, a day at a time: a log of years fits no memory."""
    begin = 0
    while (first := transaction.one("SELECT min(at) FROM decision WHERE at >= ?", (begin,))) and (
        first[0] is not None
    ):
        day = int(first[0]) // DAY * DAY
        begin = day + DAY
        hours = transaction.all(
            "SELECT author_domain, at / 3600 * 3600 AS hour, status, disposition, would_be, host,"
            " count(*), max(at) FROM decision WHERE at >= ? AND at < ? GROUP BY author_domain,"
            " hour, status, disposition, would_be, host",
            (day, begin),
        )
        _write(transaction, day, hours)


def _write(transaction: Transaction, day: int, hours: list[tuple[Any, ...]]) -> None:
    days: Counter[tuple[str, ...]] = Counter()
    latest: dict[tuple[str, str], int] = {}
    rows: list[tuple[Any, ...]] = []
    for name, hour, status, disposition, would_be, host, number, last_at in hours:
        author = reversed_name(name)
        rows.append((HOUR, author, hour, status, disposition, would_be, host, number))
        days[author, status, disposition, would_be, host] += int(number)
        latest[author, host] = max(int(last_at), latest.get((author, host), 0))
    rows += [(DAY, key[0], day, *key[1:], number) for key, number in days.items()]
    transaction.many(INSERT, rows)
    transaction.many(
        "INSERT INTO author_name (reversed, host, name, last_at) VALUES (?, ?, ?, ?) ON CONFLICT"
        " (reversed, host) DO UPDATE SET last_at = excluded.last_at",
        [(*key, reversed_name(key[0]), at) for key, at in sorted(latest.items())],
    )
