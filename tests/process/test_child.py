"""Forking, reaping and killing, which is done in one place."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dmarc_milter.process.child import Child, fork


def ended(child: Child, seconds: float = 5.0) -> int | None:
    """What `poll` says in the end."""
    until = time.monotonic() + seconds
    while (code := child.poll()) is None and time.monotonic() < until:
        time.sleep(0.01)
    return code


def test_a_child_ends_with_0_when_its_work_is_done() -> None:
    """And the code is still known after it was reaped."""
    child = fork(lambda: None)
    assert ended(child) == 0
    assert child.poll() == child.wait() == 0


def test_a_child_that_raises_ends_with_1_and_runs_nothing_of_its_parent() -> None:
    """No clean-up, no test runner goes on in the child, whatever it raised."""
    before = os.getpid()

    def fails() -> None:
        raise KeyboardInterrupt

    child = fork(fails)
    assert os.getpid() == before
    assert ended(child) == 1


def test_a_child_runs_until_it_is_killed() -> None:
    """The code is minus the signal; one that is reaped is not killed again."""
    child = fork(signal.pause)
    assert child.poll() is None
    child.end()
    assert child.poll() == -signal.SIGKILL
    child.kill()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_a_child_reaps_nobody_else() -> None:
    """Jobs are another program's children: only the process id that was forked is waited for."""
    first, second = fork(lambda: None), fork(lambda: os._exit(7))
    assert ended(second) == 7
    assert ended(first) == 0
