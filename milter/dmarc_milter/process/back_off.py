"""How long to wait before a process that ended badly is started again."""

from __future__ import annotations


class BackOff:
    """Doubles with each failure in a row, from `first` up to `longest` seconds: the processor is
    not spent on what cannot start, and once the cause is gone nobody waits longer than that."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self.reset()

    def reset(self) -> None:
        """It runs well, or something has changed: the next start may be at once."""
        self._pause = self._until = 0.0

    def failed(self, now: float) -> None:
        """One more failure in a row. `now` is time.monotonic()."""
        self._pause = min(max(self._first, 2 * self._pause), self._longest)
        self._until = now + self._pause

    def is_over(self, now: float) -> bool:
        """Whether the next start may be made."""
        return now >= self._until
