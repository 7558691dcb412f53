"""The workers as the supervisor sees them: forked, heard, watched, drained, buried. What to do with
them is service.py's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dmarc_milter.config import Config
from dmarc_milter.daemon import worker
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot

HUNG = 15.0
"""Seconds without a sign of life after which a worker is killed; the deadline of an evaluation
where that is shorter."""
MIN_HUNG = 2.0
STARTING = 30.0
"""Seconds that a worker has to become ready."""


class NoProcess(Exception):
    """A worker could not be forked; `str()` is one line."""


@dataclass(slots=True)
class Worker:
    """A worker process."""

    pid: int
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
    """The messages that it was killed for; None: whatever was in evaluation."""

    @property
    def in_progress(self) -> tuple[bytes, ...]:
        """The fingerprints of the messages that its death is blamed on."""
        return (
            self.blamed
            if self.blamed is not None
            else tuple(job.fingerprint for job in self.slot.evaluations())
        )

    def drain(self, seconds: float) -> None:
        """Have it take no more connections and end when it has none, or after this time."""
        self.draining = True
        with contextlib.suppress(OSError):
            self.control.send(worker.DRAIN + f"{seconds:g}\n".encode())

    def kill(self, why: str) -> None:
        """It is not reaped yet, so the process id is still its own."""
        self.killed_for = why
        os.kill(self.pid, signal.SIGKILL)

    def read_start_report(self) -> None:
        """Take in what it says of its start."""
        with contextlib.suppress(OSError):
            said = self.control.recv(1024)
            if said.startswith(worker.READY):
                self.ready = True
            elif said.startswith(worker.FAILED):
                self.failure = said[1:].decode("utf-8", "replace")


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
        return [each for each in self if each.generation == generation and not each.draining]

    def outdated(self, generation: int) -> list[Worker]:
        """Those of any other generation that still take connections, oldest first."""
        others = (each for each in self if each.generation != generation and not each.draining)
        return sorted(others, key=lambda each: each.started)

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
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            raise NoProcess(error.strerror or str(error)) from None
        if pid == 0:
            self._become_worker(config, sock, (ours, theirs), number)
        theirs.close()
        ours.setblocking(False)
        self._members[pid] = Worker(pid, number, slot, ours, generation, time.monotonic())

    def _become_worker(
        self,
        config: Config,
        sock: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        number: int,
    ) -> None:
        """In the child: nothing of the supervisor's stays open, so that its end is seen."""
        try:
            ours, control = pair
            for each in (ours, *(each.control for each in self._members.values())):
                each.close()
            self.leave()
            worker.run(config, self.build, sock, control, self.shared_memory, number)
        finally:
            os._exit(1)

    def _free_slot(self) -> int:
        """Raises NoProcess. Many reloads may leave workers whose connections stay open: the
        longest-standing make room."""
        used = {each.number for each in self}
        free = next(
            (number for number in range(self.shared_memory.slots) if number not in used), None
        )
        if free is None:
            draining = sorted(
                (each for each in self if each.draining), key=lambda each: each.started
            )
            for each in draining[:1]:
                each.drain(0)
            raise NoProcess("too many workers are still draining")
        return free

    def reap(self) -> Iterator[tuple[Worker, int]]:
        """Those that have ended, and their exit code (minus the signal)."""
        for one in self:
            done, status = os.waitpid(one.pid, os.WNOHANG)
            if done:
                del self._members[one.pid]
                if not one.ready:
                    one.read_start_report()
                one.control.close()
                one.slot.sessions = 0
                yield one, os.waitstatus_to_exitcode(status)

    def check_health(self, now: float, deadline: float) -> None:
        """Kill what shows no sign of life, has passed the deadline of an evaluation, or does not
        become ready."""
        hung = max(MIN_HUNG, min(HUNG, deadline))
        for one in self:
            if one.killed_for:
                continue
            overdue = tuple(
                job.fingerprint for job in one.slot.evaluations() if now - job.since > deadline
            )
            if overdue:
                one.blamed = overdue
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
            os.waitpid(one.pid, 0)
        self._members.clear()
