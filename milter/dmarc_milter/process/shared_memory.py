"""Memory that the supervisor shares with its workers: heartbeats, messages in evaluation, counters,
and messages that are blocked because they killed workers.

It is mapped before the workers are forked, so every process sees the same bytes, and it outlives
any worker. A worker writes its own slot alone; the supervisor alone writes the list of blocked
messages. Words of eight bytes, aligned, are written in one piece; processes share no locks.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

FINGERPRINT: Final = 16
"""Bytes of a message's fingerprint."""
MAX_SHOWN: Final = 512
"""Messages in evaluation that one worker can show at once. More are evaluated unseen."""
COUNTERS: Final = 256
"""Counters of each worker: telemetry/counters.py names them."""
MAX_BLOCKED: Final = 1024
_IDLE: Final = bytes(8 * MAX_SHOWN)
_HEAD: Final = 4  # words: heartbeat, sessions, silent connections, reserved
_SLOT: Final = 8 * (_HEAD + COUNTERS) + MAX_SHOWN * (
    8 + FINGERPRINT
)  # begins of jobs, then their fingerprints
_BLOCKED: Final = struct.Struct("=d16s")  # expiry, fingerprint
_BLOCKED_ENTRY: Final = _BLOCKED.size


class RunningEvaluation(NamedTuple):
    """One message in evaluation."""

    since: float
    """time.monotonic()"""
    fingerprint: bytes


class SharedMemory:
    """The whole mapping; made once by the supervisor."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._memory = mmap.mmap(-1, 8 + MAX_BLOCKED * _BLOCKED_ENTRY + (slots + 1) * _SLOT)
        self._view = memoryview(self._memory)
        self._count = self._view[:8].cast("Q")
        self.own = self.slot(slots)
        """The supervisor's."""

    def slot(self, number: int) -> WorkerSlot:
        """The part of worker `number`, for that worker to write and for anyone to read."""
        start = 8 + MAX_BLOCKED * _BLOCKED_ENTRY + number * _SLOT
        return WorkerSlot(self._view[start : start + _SLOT])

    def totals(self) -> list[int]:
        """Each counter, summed over all workers that ever lived and the supervisor."""
        slots = [self.slot(number).counters for number in range(self.slots + 1)]
        return [sum(column) for column in zip(*slots, strict=True)]

    def sessions(self) -> int:
        """Open MTA connections of all workers, silent ones too."""
        slots = [self.slot(number) for number in range(self.slots)]
        return sum(slot.sessions + slot.silent for slot in slots)

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
        self._jobs = view[8 * (_HEAD + COUNTERS) :]
        # Not by struct, which writes byte by byte: half a time looks like an evaluation that takes
        # forever.
        self._since = self._jobs[: 8 * MAX_SHOWN].cast("d")
        self._fingerprints = self._jobs[8 * MAX_SHOWN :]
        self._free = list(range(MAX_SHOWN - 1, -1, -1))
        self._lock = threading.Lock()

    def reset(self) -> None:
        """For a new worker: alive now, nothing in evaluation. Counters stay."""
        self._jobs[:] = bytes(len(self._jobs))
        self._words[1] = self._words[2] = 0
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

    def add(self, amounts: Iterable[tuple[int, int]]) -> None:
        """Add to counters: (index, amount). Safe between the threads of this worker."""
        with self._lock:
            for counter, amount in amounts:
                self.counters[counter] += amount

    @contextmanager
    def evaluating(self, fingerprint: bytes) -> Iterator[None]:
        """While inside, the message is shown as being in evaluation."""
        with self._lock:
            index = self._free.pop() if self._free else -1
        if index >= 0:
            self._fingerprints[index * FINGERPRINT : (index + 1) * FINGERPRINT] = fingerprint
            self._since[index] = time.monotonic()
        try:
            yield
        finally:
            if index >= 0:
                self._since[index] = 0.0
                with self._lock:
                    self._free.append(index)

    def evaluations(self) -> tuple[RunningEvaluation, ...]:
        """What is in evaluation."""
        if bytes(self._since) == _IDLE:
            return ()
        begun = [
            (index * FINGERPRINT, since)
            for index, since in enumerate(self._since.tolist())
            if since
        ]
        return tuple(
            RunningEvaluation(since, bytes(self._fingerprints[start : start + FINGERPRINT]))
            for start, since in begun
        )
