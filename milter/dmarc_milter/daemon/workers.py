"""The worker processes as the supervisor sees them: fork, readiness, health checks, drain, reap.

supervisor.py decides how many there are and when one is replaced.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dmarc_milter.config import Config
from dmarc_milter.daemon import worker
from dmarc_milter.process.child import Child, fork
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot

HUNG = 15.0
"""Seconds without a heartbeat after which a worker is killed; the deadline of an evaluation where
that is shorter."""
MIN_HUNG = 2.0
STARTING = 30.0
"""Seconds that a worker has to become ready."""


class NoProcess(Exception):
    """A worker could not be forked; `str()` is one line."""


@dataclass(slots=True)
class Worker:
    """A worker process. `number` is that of its slot, `started` in seconds (monotonic)."""

    process: Child
    number: int
    slot: WorkerSlot
    control: socket.socket
    generation: int
    started: float
    ready: bool = False
    draining: bool = False
    failure: str = ""
    """Why it could not start, in its own words."""
    killed_for: str = ""
    blamed: tuple[bytes, ...] | None = None
    """The messages that it was killed for; None: whatever was running."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def in_progress(self) -> tuple[bytes, ...]:
        """The fingerprints of the messages that its death is blamed on."""
        if self.blamed is not None:
            return self.blamed
        running = self.slot.running
        return () if running is None else (running.fingerprint,)

    def drain(self, seconds: float) -> None:
        """Order it to take no more connections, and to end when it has none or after this time."""
        self.draining = True
        with contextlib.suppress(OSError):
            self.control.send(worker.DRAIN + f"{seconds:g}\n".encode())

    def kill(self, why: str) -> None:
        """SIGKILL; `why` will be logged when it is reaped."""
        self.killed_for = why
        self.process.kill()

    def read_start_report(self) -> None:
        """Read from it whether it is ready, or why it cannot start, or serves no more."""
        with contextlib.suppress(OSError):
            report = self.control.recv(1024)
            if report.startswith(worker.READY):
                self.ready, report = True, report[1:]
            if report.startswith(worker.FAILED):
                self.failure = report[1:].decode("utf-8", "replace")


@dataclass(slots=True)
class Workers:
    """All worker processes, of the current generation and of older ones. `leave` closes in a child
    what is the supervisor's alone."""

    build: worker.Build
    shared_memory: SharedMemory
    leave: Callable[[], None]
    _members: dict[int, Worker] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def serving(self, generation: int) -> list[Worker]:
        """Those of this generation that take connections, or will."""
        return [one for one in self if one.generation == generation and not one.draining]

    def outdated(self, generation: int) -> list[Worker]:
        """Those of any other generation that still take connections, oldest first."""
        others = (one for one in self if one.generation != generation and not one.draining)
        return sorted(others, key=lambda one: one.started)

    def start(self, config: Config, sock: socket.socket, generation: int) -> None:
        """Fork one more. Raises NoProcess."""
        number = self._free_slot()
        slot = self.shared_memory.slot(number)
        slot.reset()
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise NoProcess(error.strerror or str(error)) from None
        try:
            child = fork(lambda: self._run_worker(config, sock, (ours, theirs), number))
        except OSError as error:
            ours.close()
            raise NoProcess(error.strerror or str(error)) from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self._members[child.pid] = Worker(child, number, slot, ours, generation, time.monotonic())

    def _run_worker(
        self,
        config: Config,
        sock: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        number: int,
    ) -> None:
        """In the child. Nothing of the supervisor's stays open, so that its end is noticed."""
        ours, control = pair
        for sibling in (ours, *(member.control for member in self._members.values())):
            sibling.close()
        self.leave()
        worker.run(config, self.build, sock, control, self.shared_memory, number)

    def _free_slot(self) -> int:
        """Raises NoProcess. Many reloads may leave workers whose connections stay open: the oldest
        is told to end."""
        used = {one.number for one in self}
        free = next(
            (number for number in range(self.shared_memory.slots) if number not in used), None
        )
        if free is None:
            draining = sorted((one for one in self if one.draining), key=lambda one: one.started)
            for one in draining[:1]:
                one.drain(0)
            raise NoProcess("too many workers are still draining")
        return free

    def reap(self) -> Iterator[tuple[Worker, int]]:
        """Those that have ended, and their exit code (minus the signal)."""
        for one in self:
            code = one.process.poll()
            if code is not None:
                del self._members[one.pid]
                one.read_start_report()
                one.control.close()
                one.slot.sessions = 0
                yield one, code

    def check_health(self, now: float, deadline: float) -> None:
        """Notice a worker that says it is worn out. Kill one that has no heartbeat, has passed the
        deadline of an evaluation, or does not become ready."""
        hung = max(MIN_HUNG, min(HUNG, deadline))
        for one in self:
            if one.killed_for:
                continue
            if one.ready and not one.draining:
                one.read_start_report()
                one.draining = bool(one.failure)  # it drains by itself: another is to be started
            running = one.slot.running
            if running is not None and now - running.since > deadline:
                one.blamed = (running.fingerprint,)
                one.kill(f"an evaluation took more than {deadline:g} s")
            elif one.ready and now - one.slot.heartbeat > hung:
                one.kill(f"no sign of life for {hung:g} s")
            elif not one.ready and now - one.started > STARTING:
                one.kill(f"not ready after {STARTING:g} s")

    def drain(self, seconds: float) -> None:
        for one in self:
            one.drain(seconds)

    def end(self) -> None:
        """Kill all that are left and wait for them."""
        for one in self:
            one.kill("the end")
        for one in self:
            one.process.wait()
        self._members.clear()
