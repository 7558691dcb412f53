"""Callbacks that are due at a moment. Policy alone: the owner says what time it is."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

MANY: Final = 1000
"""Cancelled ones that are kept: from here on they are looked through."""

Callback = Callable[[], None]


class Timer:
    """A callback that is due at a moment, unless it is cancelled before."""

    __slots__ = ("_timers", "callback")

    def __init__(self, timers: Timers, callback: Callback) -> None:
        self._timers = timers
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """It will not be called. Safe to repeat, and after it was called."""
        if self.callback is not None:
            self.callback = None
            self._timers.cancelled += 1


class Timers:
    """All that are due at some time, the next one first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()
        self.cancelled = 0
        """How many of them were, about."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: float, callback: Callback) -> Timer:
        """One more."""
        if self.cancelled > MANY and self.cancelled * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self.cancelled = 0
        timer = Timer(self, callback)
        heapq.heappush(self._heap, (at, next(self._number), timer))
        return timer

    def next_at(self) -> float | None:
        """When the next one is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> Callback | None:
        """The next one that is due by now, which is not kept; None if there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            callback = heapq.heappop(heap)[2].callback
            if callback is not None:
                return callback
        return None
