"""Messages that killed workers: counted, and blocked from evaluation after the second time.
Bounded, and forgotten after hours."""

from __future__ import annotations

from collections.abc import Iterable

from dmarc_milter.process.shared_memory import MAX_BLOCKED, SharedMemory

DEATHS_TO_BLOCK = 2
REMEMBERED = 6 * 3600.0
"""Seconds. Senders try again for days, but a daemon that was fixed should not stay suspicious for
that long."""
MAX_REMEMBERED = 4096


class CrashGuard:
    """The supervisor's memory of deaths. What is blocked is published in the shared memory, for the
    workers of now and those to come."""

    def __init__(self, shared_memory: SharedMemory) -> None:
        self._shared_memory = shared_memory
        self._deaths: dict[bytes, tuple[int, float]] = {}

    def blame(self, fingerprints: Iterable[bytes], now: float) -> int:
        """A worker died with these in evaluation. How many of them are blocked from now on."""
        before = len(self._blocked())
        for fingerprint in dict.fromkeys(filter(any, fingerprints)):
            count, _ = self._deaths.pop(fingerprint, (0, 0.0))
            self._deaths[fingerprint] = (count + 1, now + REMEMBERED)
        while len(self._deaths) > MAX_REMEMBERED:
            del self._deaths[next(iter(self._deaths))]
        after = self._blocked()
        if len(after) != before or after:
            self._shared_memory.publish_blocked(after)
        return max(0, len(after) - before)

    def expire(self, now: float) -> None:
        """Forget what is old."""
        old = [fingerprint for fingerprint, (_, until) in self._deaths.items() if until < now]
        for fingerprint in old:
            del self._deaths[fingerprint]
        if old:
            self._shared_memory.publish_blocked(self._blocked())

    def _blocked(self) -> dict[bytes, float]:
        blocked = {
            fingerprint: until
            for fingerprint, (deaths, until) in self._deaths.items()
            if deaths >= DEATHS_TO_BLOCK
        }
        return dict(list(blocked.items())[-MAX_BLOCKED:])
