"""What the measurements are meant to reach with each way in, and what was found
(docs/performance.md says what the limit of a missed one is)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.contenders import FLOOR, NATIVE, PYMILTER
from bench.peers import CHAIN, RSPAMD
from bench.table import (
    BUSY,
    COLD,
    CPU,
    IDLE,
    LARGE,
    LATENCY,
    MEMORY,
    POSTFIX,
    RATE,
    START,
    STEADY,
    TCP,
    WARM,
    Table,
)

Measure = Callable[[Table, str], float | None]
"""The figure of one of ours, None where it was not measured."""


class Target(NamedTuple):
    """What is measured, and its bound with `native` and with pymilter: at most, or with `least` at
    least."""

    what: str
    measure: Measure
    native: float
    pymilter: float | None
    least: bool = False

    def bound(self, name: str) -> float | None:
        return self.native if name == NATIVE else self.pymilter

    def met(self, found: float, name: str) -> bool:
        bound = self.bound(name)
        return bound is None or (found >= bound if self.least else found <= bound)


def _own(line: str) -> Measure:
    return lambda table, name: table.value(line, name)


def _ratio(line: str, other: str) -> Measure:
    def found(table: Table, name: str) -> float | None:
        ours, theirs = table.value(line, name), table.value(line, other)
        return ours / theirs if ours is not None and theirs else None

    return found


WARM_CPU, COLD_CPU = CPU + WARM, CPU + COLD
TARGETS = (
    Target(f"CPU, DNS warm, 16 connections, x {CHAIN}", _ratio(WARM_CPU + "16", CHAIN), 0.5, 0.7),
    Target(f"CPU, DNS warm, 1 connection, x {CHAIN}", _ratio(WARM_CPU + "1", CHAIN), 0.7, 0.8),
    Target(f"CPU, DNS cold, 16 connections, x {CHAIN}", _ratio(COLD_CPU + "16", CHAIN), 0.65, 0.9),
    Target(f"CPU, DNS cold, 1 connection, x {CHAIN}", _ratio(COLD_CPU + "1", CHAIN), 0.9, 1.1),
    Target("CPU of a start, s", _own(START), 1.0, 1.0),
    Target(
        f"messages/s, 16 connections, x {CHAIN}", _ratio(RATE + WARM + "16", CHAIN), 2.0, 1.3, True
    ),
    Target(f"messages/s through Postfix, x {RSPAMD}", _ratio(POSTFIX, RSPAMD), 1.2, 1.0, True),
    Target(f"messages/s through Postfix, x {FLOOR}", _ratio(POSTFIX, FLOOR), 0.85, None, True),
    Target("ms over TCP as Postfix writes, median", _own(TCP + "p50"), 3.0, 5.0),
    *(
        Target(LATENCY + load + what, _own(LATENCY + load + what), native, pymilter)
        for load in (STEADY, BUSY)
        for what, native, pymilter in (
            ("cold, p50", 10.0, 15.0),
            ("cold, p99", 100.0, 110.0),
            ("warm, p50", 5.0, 10.0),
        )
    ),
    Target("MB, two workers", _own(MEMORY), 80.0, 90.0),
    Target("MB more, 200 idle connections", _own(IDLE), 2.0, 5.0),
    Target("MB more, 16 x 20 MB in flight", _own(LARGE), 16.0, 32.0),
)


def show(table: Table, names: list[str]) -> None:
    """A line for each target, and for each way in what was found and whether that meets it."""
    ours = [name for name in (NATIVE, PYMILTER) if name in names]
    print("\n" + f"{'target':<46}" + "".join(f"{name:>30}" for name in ours))
    for target in TARGETS:
        cells = [_cell(target, table, name) for name in ours]
        if any(cells):
            print(f"{target.what:<46}" + "".join(f"{cell:>30}" for cell in cells))


def _cell(target: Target, table: Table, name: str) -> str:
    """Such as `0.45 (<= 0.5) met`."""
    found, bound = target.measure(table, name), target.bound(name)
    if found is None:
        return ""
    if bound is None:
        return f"{found:.2f}"
    sign = ">=" if target.least else "<="
    return f"{found:.2f} ({sign} {bound:g}) {'met' if target.met(found, name) else 'MISSED'}"
