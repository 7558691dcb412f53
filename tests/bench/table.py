"""The figures of a run, line by line."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

CPU, RATE = "CPU ms/message, ", "messages/s, "
COLD, WARM = "DNS cold, connections: ", "DNS warm, connections: "
QUERIES = "DNS queries/message, cold"
LATENCY = "ms, 30 ms DNS, "
STEADY, BUSY = "100/s, ", "8 connections, "
"""The loads under which that is measured."""
WAITED = "% of messages that took 30 ms, 100/s, "
NEW = "% of messages with a name that is new, "
TCP = "ms over TCP as Postfix writes, "
POSTFIX = "messages/s through Postfix, 16 sessions"
POSTFIX_TCP = "ms/message through Postfix over TCP, 1 session"
START = "CPU s of a start"
MEMORY = "MB, all processes"
IDLE = "MB more, 200 idle connections"
LARGE = "MB more, 16 x 20 MB in flight"
LARGE_SECONDS = "s for 16 x 20 MB"
WIDTH = 15


@dataclass
class Table:
    """Numbers by line and contender, each measured several times. Other work on the machine only
    ever adds processor time and takes speed, so of those the best round is shown; of everything
    else the median."""

    lines: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, line: str, who: str, value: float) -> None:
        self.lines[line][who].append(value)

    def value(self, line: str, who: str) -> float | None:
        """What is shown there; None where nothing was measured."""
        best = statistics.median
        if line.startswith("CPU"):
            best = min
        elif line.startswith("messages/s"):
            best = max
        found = self.lines.get(line, {}).get(who)
        return best(found) if found else None

    def show(self, names: list[str]) -> None:
        """One line each."""
        print(f"\n{'':<46}" + "".join(f"{name:>{WIDTH}}" for name in names))
        for line in self.lines:
            print(f"{line:<46}" + "".join(_cell(self.value(line, name)) for name in names))

    def show_ratios(self, ours: list[str], peers: list[str]) -> None:
        """Ours to each of the peers, of the lines where less or more is better by a factor."""
        pairs = [(one, peer) for one in ours for peer in peers]
        print(f"\n{'ratio to':<46}" + "".join(f"{peer:>{WIDTH}}" for _, peer in pairs))
        print(f"{'of':<46}" + "".join(f"{one:>{WIDTH}}" for one, _ in pairs))
        for line in self.lines:
            cells = [self._ratio(line, one, peer) for one, peer in pairs]
            if any(cell is not None for cell in cells):
                print(f"{line:<46}" + "".join(map(_cell, cells)))

    def _ratio(self, line: str, one: str, peer: str) -> float | None:
        ours, theirs = self.value(line, one), self.value(line, peer)
        return ours / theirs if ours is not None and theirs else None


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.2f}':>{WIDTH}}"
