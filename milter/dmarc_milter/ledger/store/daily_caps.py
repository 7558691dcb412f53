"""Bounds on what an attacker can make the store keep: distinct things are counted, and beyond the
caps folded (RPT-12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """`caps` bound distinct rows; `honor_ri`: periods shorter than a day where the record asks for
    them.

    `decision_days`: of whole days the decision log takes no older ones; None takes all.
    """

    caps: Caps = Caps()
    honor_ri: bool = False
    decision_days: int | None = None
    identify: Callable[[Sequence[str]], str] = lambda _: ""
    """Who reports on a message to these recipients' domains: a reporting address, "" for the
    organization's own."""


@dataclass(slots=True)
class _Counter:
    """`before`: what all hosts have used so far; `used` and `folded` are added now."""

    before: int = 0
    used: int = 0
    folded: int = 0


class Quota:
    """The counters of distinct things. Each spool writes its own, `origin`, and the sum of all
    counts: hosts that count at the same time may go beyond a cap by what they count just then, and
    none waits for another."""

    def __init__(self, transaction: Transaction, origin: int) -> None:
        self._transaction, self._origin = transaction, origin
        self._counters: dict[tuple[str, int], _Counter] = {}

    def look(self, scopes: Iterable[tuple[str, int]]) -> None:
        """Fetch counters; those that `take` and `fold` need and did not find are fetched one by
        one."""
        wanted = sorted(set(scopes) - self._counters.keys())
        self._counters.update({key: _Counter() for key in wanted})
        sql = (
            "SELECT scope, begin_at, sum(used) FROM quota WHERE scope IN [] AND begin_at >= ?"
            " GROUP BY scope, begin_at"
        )
        for chunk in chunks(wanted):
            names, there = sorted({scope for scope, _ in chunk}), set(chunk)
            for scope, begin, used in self._transaction.all(
                with_list(sql, names), (*names, min(begin for _, begin in chunk))
            ):
                if (scope, int(begin)) in there:
                    self._counters[scope, int(begin)].before = int(used)

    def _counter(self, scope: str, begin: int) -> _Counter:
        if (scope, begin) not in self._counters:
            self.look([(scope, begin)])
        return self._counters[scope, begin]

    def take(self, scopes: Sequence[Scope], wanted: int) -> int:
        """How many of `wanted` there is room for in all scopes; they are used up."""
        counters = [(self._counter(scope, begin), cap) for scope, begin, cap in scopes]
        room = min(wanted, *(max(cap - one.before - one.used, 0) for one, cap in counters))
        for one, _ in counters:
            one.used += room
        return room

    def fold(self, scope: str, begin: int, messages: int) -> None:
        """Messages that had no room."""
        self._counter(scope, begin).folded += messages

    def write(self) -> None:
        self._transaction.many(
            "INSERT INTO quota (scope, begin_at, origin, used, folded) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (scope, begin_at, origin) DO UPDATE SET used = quota.used +"
            " excluded.used, folded = quota.folded + excluded.folded",
            [
                (*key, self._origin, one.used, one.folded)
                for key, one in sorted(self._counters.items())
                if one.used or one.folded
            ],
        )
        self._counters.clear()
