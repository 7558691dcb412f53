"""Memory that the supervisor shares with its workers: heartbeats, the running evaluation, counters,
and messages that are blocked because they killed workers.

It is mapped before the workers are forked, so every process sees the same bytes, and it outlives
any worker. A worker writes its own slot alone; the supervisor alone writes the list of blocked
messages. Words of eight bytes, aligned, are written in one piece; processes share no locks.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

FINGERPRINT: Final = 16
"""Bytes of a message's fingerprint."""
COUNTERS: Final = 256
"""Counters of each worker: telemetry/counters.py names them."""
MAX_BLOCKED: Final = 1024
_HEAD: Final = 5
"""Words: heartbeat, sessions, silent connections, since when something is running, whether it
accepts."""
AWAKE: Final = 1.0
"""Seconds since its last heartbeat after which a worker is not counted on."""
_SLOT: Final = 8 * (_HEAD + COUNTERS) + FINGERPRINT
_BLOCKED: Final = struct.Struct("=d16s")  # expiry, fingerprint
_BLOCKED_ENTRY: Final = _BLOCKED.size


class RunningEvaluation(NamedTuple):
    """The message that is being evaluated at this moment."""

    since: float
    """When it began to run without giving way, time.monotonic()."""
    fingerprint: bytes


class SharedMemory:
    """The whole mapping; made once by the supervisor."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, 8 + MAX_BLOCKED * _BLOCKED_ENTRY + (slots + 1) * _SLOT)
        self._view = memoryview(self._memory)
        self._count = self._view[:8].cast("Q")
        self._slots = [self._mapped(number) for number in range(slots + 1)]
        self.own = self._slots[slots]
        """The supervisor's."""

    def slot(self, number: int) -> WorkerSlot:
        """The part of worker `number`, for that worker to write and for anyone to read."""
        return self._slots[number]

    def _mapped(self, number: int) -> WorkerSlot:
        start = 8 + MAX_BLOCKED * _BLOCKED_ENTRY + number * _SLOT
        return WorkerSlot(self._view[start : start + _SLOT])

    def totals(self) -> list[int]:
        """Each counter, summed over all workers that ever lived and the supervisor."""
        slots = [slot.counters for slot in self._slots]
        return [sum(column) for column in zip(*slots, strict=True)]

    def sessions(self) -> int:
        """Open MTA connections of all workers, silent ones too."""
        return sum(slot.connections for slot in self._slots[: self.slots])

    def takes_next(self, number: int, now: float, limit: int) -> bool:
        """Whether the next connection is for worker `number`, of those that take some and have
        fewer than `limit`; if none has, of all that take some. `now` is time.monotonic().

        It is the one with the fewest connections, of these one that evaluates nothing at this
        moment, of these the first. One connection counts as none: while there is little to do one
        worker does it all, who knows most of the DNS by then.
        """
        own, since = self._slots[number], now - AWAKE
        accepting = [slot for slot in self._slots if slot._words[4]]  # of many slots the few in use
        able = [slot for slot in accepting if slot.heartbeat > since or slot is own]
        if own not in able:
            return True
        able = [slot for slot in able if slot.connections < limit] or able
        return own is min(able, key=lambda slot: (max(1, slot.connections), slot.is_running))

    def is_blocked(self, fingerprint: bytes, *, now: float) -> bool:
        """Whether a message has killed too often. `now` is time.monotonic()."""
        used = self._count[0]
        if not used:
            return False
        for index in range(min(used, MAX_BLOCKED)):
            expiry, blocked = _BLOCKED.unpack_from(self._memory, 8 + index * _BLOCKED_ENTRY)
            if blocked == fingerprint and expiry > now:
                return True
        return False

    def publish_blocked(self, blocked: dict[bytes, float]) -> None:
        """Replace the list: fingerprint -> expiry, at most POISON of them. The supervisor's
        alone."""
        entries = list(blocked.items())[-MAX_BLOCKED:]
        for index, (fingerprint, expiry) in enumerate(entries):
            _BLOCKED.pack_into(self._memory, 8 + index * _BLOCKED_ENTRY, expiry, fingerprint)
        self._count[0] = len(entries)


class WorkerSlot:
    """One worker's part."""

    def __init__(self, view: memoryview) -> None:
        self._times = view[: 8 * _HEAD].cast("d")
        self._words = view[: 8 * _HEAD].cast("Q")
        self.counters = view[8 * _HEAD : 8 * (_HEAD + COUNTERS)].cast("Q")
        self._fingerprint = view[8 * (_HEAD + COUNTERS) :]

    def reset(self) -> None:
        """For a new worker: alive now, nothing in evaluation. Counters stay."""
        self._words[1] = self._words[2] = self._words[3] = self._words[4] = 0
        self.beat()

    def beat(self) -> None:
        self._times[0] = time.monotonic()

    @property
    def heartbeat(self) -> float:
        """When the worker last ran Python code, time.monotonic()."""
        return self._times[0]

    @property
    def sessions(self) -> int:
        """Open MTA connections."""
        return self._words[1]

    @sessions.setter
    def sessions(self, count: int) -> None:
        self._words[1] = count

    @property
    def silent(self) -> int:
        """Connections that have sent nothing, not even negotiated: nobody waits for those."""
        return self._words[2]

    @silent.setter
    def silent(self, count: int) -> None:
        self._words[2] = count

    @property
    def connections(self) -> int:
        """Open MTA connections, silent ones too."""
        return self._words[1] + self._words[2]

    @property
    def accepting(self) -> bool:
        """Whether it takes connections, and leaves them to workers that have fewer."""
        return bool(self._words[4])

    @accepting.setter
    def accepting(self, accepts: bool) -> None:
        self._words[4] = accepts

    def add(self, amounts: Iterable[tuple[int, int]]) -> None:
        """Add to counters: (index, amount)."""
        counters = self.counters
        for counter, amount in amounts:
            counters[counter] += amount

    def show(self, fingerprint: bytes | None) -> None:
        """This message runs from now on; None: no message does. A death meanwhile is its doing."""
        # Times not by struct, which writes byte by byte: half a time looks like an evaluation that
        # takes forever.
        self._times[3] = 0.0
        if fingerprint is not None:
            self._fingerprint[:] = fingerprint
            self._times[3] = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether a message runs."""
        return self._times[3] != 0.0

    @property
    def running(self) -> RunningEvaluation | None:
        """The message that runs, if any."""
        since = self._times[3]
        return RunningEvaluation(since, bytes(self._fingerprint)) if since else None
