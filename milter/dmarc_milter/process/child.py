"""Child processes that the supervisor forks: fork, reap, kill. The one place that does it.

The supervisor waits for each child by its process id, so a child that somebody else started is
never reaped by mistake. process/pid_one.py, which reaps what a container leaves behind, is the
exception, and a process of its own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

POLL = 0.01
"""Seconds between looks whether a child has ended."""


class Child:
    """A forked process. `poll` reaps it; its process id is its own until then."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._reap(os.WNOHANG)

    def signal(self, number: signal.Signals) -> None:
        """Send it this signal. Nothing where it was reaped already."""
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL. Nothing where it was reaped already."""
        self.signal(signal.SIGKILL)

    def ended_before(self, deadline: float) -> bool:
        """Wait for its end until `deadline` (monotonic); whether it came."""
        while self.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)
        return True

    def wait(self) -> int:
        """Wait for its end; the exit code, or minus the signal."""
        code = self._reap(0)
        assert code is not None
        return code

    def end(self) -> None:
        """Kill it and wait for its end. For what holds nothing that could be lost."""
        self.kill()
        self.wait()

    def _reap(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def fork(run: Callable[[], int | None]) -> Child:
    """A child that calls `run` and ends with the code that this returns, None being 0; with 1 when
    it raises.

    Raises OSError in the parent where no process can be had.
    """
    pid = os.fork()
    if pid:
        return Child(pid)
    code = 1
    try:
        code = run() or 0
    finally:
        os._exit(code)


def detach_from_supervisor(name: str, keep: int = 2) -> None:
    """In a child that is no worker: drop the supervisor's signals, and its descriptors but the
    standard ones and `keep`.

    `name` is shown by ps.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # A terminal sends SIGINT to all of us: the supervisor ends its children itself.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
        if descriptor > 2 and descriptor != keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    gc.unfreeze()
