"""What wakes a thread that waits for an answer: the answer, or that its message has ended."""

from __future__ import annotations

import os
import select
import threading
from typing import NamedTuple


class Alarm:
    """Belongs to one thread, which alone waits for it; any other may ring."""

    __slots__ = ("_handle", "_poll", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._handle)

    def ring(self) -> None:
        """End the wait that is going on, or the next one."""
        os.eventfd_write(self._handle, 1)

    def wait(self, seconds: float, handle: int = -1) -> bool:
        """Until it rings, the time is up, or there is something to read from `handle`: whether
        there is."""
        if handle < 0:
            found = self._poll.poll(max(0.0, seconds) * 1000)
        else:
            self._poll.register(handle, select.POLLIN)
            try:
                found = self._poll.poll(max(0.0, seconds) * 1000)
            finally:
                self._poll.unregister(handle)
        numbers = [number for number, _ in found]
        if self._handle in numbers:
            os.eventfd_read(self._handle)
        return handle in numbers


class Stay(NamedTuple):
    """A thread that would wait for an answer itself: woken by its alarm, or after so many
    seconds."""

    alarm: Alarm
    seconds: float


_own = threading.local()


def alarm() -> Alarm:
    """This thread's. Raises OSError when there is no descriptor left for it."""
    found: Alarm | None = getattr(_own, "alarm", None)
    if found is None or found.pid != os.getpid():  # a forked child shares its parent's eventfd
        found = _own.alarm = Alarm()
    return found
