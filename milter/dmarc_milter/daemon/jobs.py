"""Jobs beside the workers where no timers of systemd run them: processes that are started again
when they end.

They are forked from the supervisor, which has imported what they need already: an interpreter of
their own would cost more than most of their runs. What they hold of the supervisor's is dropped
first (process/child.py).
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dmarc_milter.process.child import Child, detach_from_supervisor, fork
from dmarc_milter.telemetry.log import Log, complain, events_only


@dataclass(frozen=True, slots=True)
class Job:
    """A command of this program: `run` gives its exit code, in a process of its own.

    `pause` are the seconds from its end to its next start. `load` imports what it needs, before the
    first fork, so that no run has to. Raises ImportError.
    """

    name: str
    run: Callable[[], int]
    pause: float
    load: Callable[[], object] = lambda: None


@dataclass(slots=True)
class _Running:
    job: Job
    process: Child | None = None
    next_start: float = 0.0
    failed: int = 0
    """The exit code that was logged last."""


class JobRunner:
    """The supervisor calls `tend` a few times a second. Only `stop` waits."""

    def __init__(self, jobs: Sequence[Job], log: Log) -> None:
        self._jobs = [_Running(job) for job in jobs]
        self._leaving: list[Child] = []
        self._log = log

    def tend(self, now: float) -> None:
        """Start the jobs that are due, log those that have ended."""
        self._leaving = [process for process in self._leaving if process.poll() is None]
        if self._leaving:
            return
        for one in self._jobs:
            if one.process is not None and (code := one.process.poll()) is not None:
                self._ended(one, code, now)
            if one.process is None and now >= one.next_start:
                self._start(one, now)

    def running(self) -> list[int]:
        """The process ids of the jobs that have not been reaped."""
        return [one.process.pid for one in self._jobs if one.process is not None]

    def _ended(self, one: _Running, code: int, now: float) -> None:
        if code != one.failed:
            self._log.write(
                "error" if code else "info",
                "job_failed" if code else "job_works_again",
                {"job": one.job.name, "exit": code},
            )
        one.failed = code
        one.process = None
        one.next_start = now + one.job.pause

    def _start(self, one: _Running, now: float) -> None:
        job = one.job
        try:
            job.load()
            one.process = fork(lambda: _run(job))
        except (OSError, ImportError) as error:
            self._log.error("job_failed", job=job.name, failure=str(error))
            one.next_start = now + job.pause

    def restart(self, jobs: Sequence[Job], log: Log) -> None:
        """After a reload: run these jobs instead, once the former ones have ended; log there."""
        self._log = log
        for one in self._jobs:
            if one.process is not None:
                one.process.signal(signal.SIGTERM)
                self._leaving.append(one.process)
        self._jobs = [_Running(job) for job in jobs]

    def stop(self, seconds: float) -> None:
        """End all, by SIGKILL those that take longer than `seconds`: every job may die at any
        moment without loss."""
        running = [*self._leaving, *(one.process for one in self._jobs if one.process is not None)]
        deadline = time.monotonic() + seconds
        for process in running:
            process.signal(signal.SIGTERM)
        for process in running:
            if not process.ended_before(deadline):
                process.end()
        for one in self._jobs:
            one.process = None


def _run(job: Job) -> int:
    """In the child. What it prints goes nowhere; what went wrong goes to standard error, or to the
    log where that takes nothing else."""
    detach_from_supervisor(f"dmarc-{job.name}")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        return job.run()
    except Exception as error:
        if events_only():
            complain(f"{job.name}: {type(error).__name__}: {error}")
        else:
            traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
