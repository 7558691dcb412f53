"""Jobs beside the workers where no timers of systemd run them: processes that are started again
when they end.

They are programs, started afresh by `subprocess` so that they hold nothing of the supervisor's;
children that are forked are process/child.py's.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dmarc_milter.telemetry.log import Log


@dataclass(frozen=True, slots=True)
class Job:
    """A command of this program; `pause` are the seconds from its end to its next start."""

    name: str
    arguments: tuple[str, ...]
    pause: float


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes] | None = None
    next_start: float = 0.0
    failed: int = 0
    """The exit code that was logged last."""


class JobRunner:
    """The supervisor calls `tend` a few times a second. Only `stop` waits."""

    def __init__(self, jobs: Sequence[Job], log: Log) -> None:
        self._jobs = [_Running(job) for job in jobs]
        self._leaving: list[subprocess.Popen[bytes]] = []
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
        try:
            command = [sys.executable, "-m", "dmarc_milter", *one.job.arguments]
            one.process = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except OSError as error:
            self._log.error("job_failed", job=one.job.name, failure=str(error))
            one.next_start = now + one.job.pause

    def restart(self, jobs: Sequence[Job], log: Log) -> None:
        """After a reload: run these jobs instead, once the former ones have ended; log there."""
        self._log = log
        for one in self._jobs:
            if one.process is not None:
                one.process.terminate()
                self._leaving.append(one.process)
        self._jobs = [_Running(job) for job in jobs]

    def stop(self, seconds: float) -> None:
        """End all, by SIGKILL those that take longer than `seconds`: every job may die at any
        moment without loss."""
        running = [*self._leaving, *(one.process for one in self._jobs if one.process is not None)]
        deadline = time.monotonic() + seconds
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
        for one in self._jobs:
            one.process = None
