"""What the measurements are meant to reach, what was found, and for what was missed the limit
(docs/performance.md has the long form)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

OURS, FLOOR, RSPAMD, CHAIN = "dmarc-milter", "empty pymilter", "rspamd", "OpenDKIM + OpenDMARC"
Value = Callable[[str, str], float | None]
"""The figure of a line for a contender, None where it was not measured."""
LOCK = (
    "the interpreter lock: a message's own Python takes a third to a half of it (`make profile`),"
    " the rest are changes of thread, each a wait for the lock in a callback or behind one, and two"
    " interpreters in the caches of as many processors as all share"
)
ASKING = (
    "a sender nobody knows yet costs two to three queries, SPF by pyspf and the policy walk in"
    " Python, and four changes of thread each"
)
DEPTH = "records that need three answers one after the other wait 90 ms for them"
SHARED = (
    "Postfix, its client and the milter share the processors: what the milter takes is missing"
    " there; see processor time"
)


class Aim(NamedTuple):
    """`found` is to be at most `most`, or at least `least`. `limit`: what keeps it away where it is
    missed."""

    what: str
    found: Callable[[Value], float | None]
    most: float | None = None
    least: float | None = None
    limit: str = ""

    def reached(self, found: float) -> bool:
        return (self.most is None or found <= self.most) and (
            self.least is None or found >= self.least
        )


def _ours(line: str) -> Callable[[Value], float | None]:
    return lambda value: value(line, OURS)


def _ratio(line: str, other: str) -> Callable[[Value], float | None]:
    def found(value: Value) -> float | None:
        ours, theirs = value(line, OURS), value(line, other)
        return ours / theirs if ours is not None and theirs else None

    return found


def _above_floor(line: str) -> Callable[[Value], float | None]:
    def found(value: Value) -> float | None:
        ours, floor = value(line, OURS), value(line, FLOOR)
        return ours - floor if ours is not None and floor is not None else None

    return found


AIMS = (
    Aim(
        f"processor time, DNS warm, 1 connection, x {CHAIN}",
        _ratio("CPU ms/message, DNS warm, 1 connections", CHAIN),
        0.5,
        limit=LOCK,
    ),
    Aim(
        f"processor time, DNS warm, 16 connections, x {CHAIN}",
        _ratio("CPU ms/message, DNS warm, 16 connections", CHAIN),
        0.5,
        limit=LOCK,
    ),
    Aim(
        f"processor time, DNS cold, x {CHAIN}",
        _ratio("CPU ms/message, DNS cold, 1 connection", CHAIN),
        0.8,
        limit=ASKING,
    ),
    Aim(
        f"messages a second, 16 connections, x {CHAIN}",
        _ratio("messages/s, DNS warm, 16 connections", CHAIN),
        least=1.5,
        limit=LOCK,
    ),
    Aim(
        "ms, DNS cold, median, above the floor",
        _above_floor("latency ms, 30 ms DNS, cold, p50"),
        40,
        limit=DEPTH,
    ),
    Aim("ms, DNS cold, p99", _ours("latency ms, 30 ms DNS, cold, p99"), 100, limit=DEPTH),
    Aim("ms, DNS warm, median", _ours("latency ms, 30 ms DNS, warm, p50"), 10, limit=LOCK),
    Aim("MB, two workers", _ours("memory MB, all processes"), 90),
    Aim("MB more, 200 idle connections", _ours("memory MB more, 200 idle connections"), 5),
    Aim("MB more, 16 x 20 MB in flight", _ours("memory MB more, 16 x 20 MB in flight"), 32),
    Aim(f"time of 16 x 20 MB, x {CHAIN}", _ratio("seconds, 16 x 20 MB", CHAIN), 2),
    Aim(
        f"rate through Postfix, x {RSPAMD}",
        _ratio("messages/s through Postfix", RSPAMD),
        least=1.2,
        limit=SHARED,
    ),
    Aim(
        f"rate through Postfix, x {FLOOR}",
        _ratio("messages/s through Postfix", FLOOR),
        least=0.9,
        limit=SHARED,
    ),
)


def show(value: Value) -> None:
    """A line for each aim that could be measured: found, aim, and for a missed one its limit."""
    print(f"\n{'aim':<62}{'found':>10}{'aim':>12}")
    for each in AIMS:
        found = each.found(value)
        if found is None:
            continue
        bound = f"<= {each.most:g}" if each.most is not None else f">= {each.least:g}"
        reached = each.reached(found)
        print(
            f"{each.what:<62}{found:>10.2f}{bound:>12} "
            f" {'reached' if reached else f'missed: {each.limit}'}"
        )
