"""Messages that killed workers: counted, and after the second time kept from being evaluated again.
Bounded, and forgotten in hours."""

from __future__ import annotations

from collections.abc import Iterable

from dmarc_milter.process.shared_memory import POISON, Board

TWICE = 2
REMEMBERED = 6 * 3600.0
"""Seconds; senders try again for days, but a fixed daemon should not be suspicious for that
long."""
MAX_STRIKES = 4096


class Poison:
    """The supervisor's memory; what is poisonous is published on the Board for all workers, present
    and future."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._strikes: dict[bytes, tuple[int, float]] = {}

    def killed_by(self, fingerprints: Iterable[bytes], now: float) -> int:
        """A worker died with these in evaluation. How many of them have become poison."""
        before = len(self._poisonous())
        for each in dict.fromkeys(each for each in fingerprints if any(each)):
            count, _ = self._strikes.pop(each, (0, 0.0))
            self._strikes[each] = (count + 1, now + REMEMBERED)
        while len(self._strikes) > MAX_STRIKES:
            del self._strikes[next(iter(self._strikes))]
        after = self._poisonous()
        if len(after) != before or after:
            self._board.publish_poison(after)
        return max(0, len(after) - before)

    def expire(self, now: float) -> None:
        """Forget what is old."""
        old = [each for each, (_, until) in self._strikes.items() if until < now]
        for each in old:
            del self._strikes[each]
        if old:
            self._board.publish_poison(self._poisonous())

    def _poisonous(self) -> dict[bytes, float]:
        found = {each: until for each, (count, until) in self._strikes.items() if count >= TWICE}
        return dict(list(found.items())[-POISON:])
