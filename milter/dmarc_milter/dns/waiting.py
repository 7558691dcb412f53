"""What the resolver needs of a loop (process/loop.py): descriptors, timers, and a way to wait.

One thread for all of it: what an answer changes never changes under somebody who looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class LoopWaker(Protocol):
    """Whoever waits."""

    def wake(self) -> None:
        """End its wait, if it waits."""
        ...


class LoopTimer(Protocol):
    """A call that is due at a moment."""

    def cancel(self) -> None:
        """It will not come."""
        ...


class EventLoop(Protocol):
    """See process.loop.Loop."""

    @property
    def current(self) -> LoopWaker:
        """Who would wait."""
        ...

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back while the descriptor has these events. Raises OSError."""
        ...

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        ...

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> LoopTimer:
        """After so many seconds."""
        ...

    def spawn(self, function: Callable[[], None]) -> object:
        """Have it run beside the others."""
        ...

    def park(self, seconds: float | None = None) -> bool:
        """Wait until woken, or for so long."""
        ...

    def pause(self) -> None:
        """Let others go on if this has taken long."""
        ...
