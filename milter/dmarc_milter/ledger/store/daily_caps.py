"""Bounds on what an attacker can make the store keep: distinct things are counted, and beyond the
caps folded (RPT-12)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dmarc_milter.ledger.store.database import Transaction, chunks, with_list

Scope = tuple[str, int, int]
"""(what is counted, the period's begin, the cap)."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How many distinct things one period may hold. What comes after is folded: counted, without a
    row of its own."""

    rows: int = 10_000
    """Of one policy domain."""
    reports: int = 1_000
    """Of one organizational domain: policy domains and configurations, which a wildcard record
    makes without end."""
    all_reports: int = 200_000
    """Of the store: whoever says psd=n at every name makes organizational domains without end."""
    all_rows: int = 2_000_000
    """Of the store."""
    failures: int = 5_000
    """Failure reports begun in a day."""
    domain_failures: int = 50
    """Of one policy domain: whoever sends from many addresses fails in many ways."""


class Quota:
    """The counters of distinct things: locked when looked at, in one order everywhere, and written
    once."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._counters: dict[tuple[str, int], list[int]] = {}

    def look(self, scopes: Iterable[tuple[str, int]]) -> None:
        """Fetch and lock counters; those that `take` and `fold` need and did not find are fetched
        one by one."""
        wanted = sorted(set(scopes) - self._counters.keys())
        self._transaction.many(
            "INSERT INTO quota (scope, begin_at, used, folded) VALUES (?, ?, 0, 0) ON CONFLICT"
            " (scope, begin_at) DO NOTHING",
            wanted,
        )
        sql = (
            "SELECT scope, begin_at, used, folded FROM quota WHERE scope IN [] AND begin_at >= ?"
            " ORDER BY scope, begin_at {for_update}"
        )
        for chunk in chunks(wanted):
            names = sorted({scope for scope, _ in chunk})
            for scope, begin, used, folded in self._transaction.all(
                with_list(sql, names), (*names, min(begin for _, begin in chunk))
            ):
                self._counters.setdefault((scope, begin), [int(used), int(folded)])

    def _counter(self, scope: str, begin: int) -> list[int]:
        if (scope, begin) not in self._counters:
            self.look([(scope, begin)])
        return self._counters[scope, begin]

    def take(self, scopes: Sequence[Scope], wanted: int) -> int:
        """How many of `wanted` there is room for in all scopes; they are used up."""
        room = min(
            wanted, *(max(cap - self._counter(scope, begin)[0], 0) for scope, begin, cap in scopes)
        )
        for scope, begin, _ in scopes:
            self._counter(scope, begin)[0] += room
        return room

    def fold(self, scope: str, begin: int, messages: int) -> None:
        """Messages that had no room."""
        self._counter(scope, begin)[1] += messages

    def write(self) -> None:
        self._transaction.many(
            "UPDATE quota SET used = ?, folded = ? WHERE scope = ? AND begin_at = ?",
            [(*counter, *key) for key, counter in sorted(self._counters.items())],
        )
