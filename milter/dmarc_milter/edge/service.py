"""The supervisor: it owns the socket and the signals, and keeps the right number of workers alive, lively and up to date."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dmarc_milter.edge import libmilter, listen, worker
from dmarc_milter.edge.background import Background, Job
from dmarc_milter.edge.board import Board, Slot
from dmarc_milter.edge.config import Config, ConfigError, load
from dmarc_milter.edge.config.values import SocketAddress, socket_address
from dmarc_milter.edge.log import Log
from dmarc_milter.edge.metrics import Meter
from dmarc_milter.edge.notify import Notifier
from dmarc_milter.edge.poison import Poison
from dmarc_milter.edge.watch import Watch

TICK = 0.2
"""Seconds between looks at the workers when nothing else happens."""
HUNG = 15.0
"""Seconds without a sign of life after which a worker is killed; the deadline of an evaluation where that is shorter."""
MIN_HUNG = 2.0
RELOAD_DRAIN = 600.0
"""Seconds that sessions of a replaced worker get to end by themselves."""
STARTING = 30.0
"""Seconds that a worker has to become ready."""
MAX_BACK_OFF = 30.0
NOFILE = 65536


class CannotStart(Exception):
    """`str()` is one line."""


@dataclass(slots=True)
class Worker:
    """A worker process as the supervisor sees it."""

    pid: int
    number: int
    slot: Slot
    control: socket.socket
    generation: int
    started: float
    ready: bool = False
    draining: bool = False
    failure: str = ""
    killed_for: str = ""
    guilty: tuple[bytes, ...] | None = None
    """The messages that it was killed for; None: whatever was in evaluation."""


@dataclass(slots=True)
class Listening:
    """The socket and what it was opened for."""

    sock: socket.socket
    text: str
    address: SocketAddress


Jobs = Callable[[Config], Sequence[Job]]
"""The jobs that a configuration asks for."""


class Supervisor:
    """Starts, watches, replaces and stops the workers."""

    def __init__(self, path: Path, config: Config, build: worker.Build, jobs: Jobs) -> None:
        self._path = path
        self._config = config
        self._build = build
        self._log = Log(form=config.log.format, level=config.log.level)
        self._notify = Notifier()
        self._generation = 1
        self._workers: dict[int, Worker] = {}
        self._count = worker_count(config)
        self._board = Board(max(32, 4 * self._count))
        self._poison = Poison(self._board)
        self._meter = Meter(self._board.own)
        self._watch = Watch(self._board)
        self._jobs = jobs
        self._background = Background(jobs(config), self._log)
        self._signals: list[int] = []
        self._failed_starts = 0
        self._start_after = 0.0
        self._fallback: Config | None = None
        """What to return to when the workers of a reload do not start."""
        self._looked = time.monotonic()
        self._patient_until = 0.0
        self._wake, self._waker = socket.socketpair()
        self._listening = open_socket(config)
        self._watch.prepare(config)(self._log)
        self._was_ready = False

    def run(self) -> int:
        """Until told to stop; the exit code."""
        self._take_signals()
        gc.collect()
        gc.freeze()
        try:
            while True:
                self._supervise()
                stop = self._handle_signals()
                if stop:
                    return self._stop()
                self._wait(TICK)
        except CannotStart as error:
            print(f"dmarc-milter: {error}", file=sys.stderr)
            self._kill(self._workers.values())
            self._background.stop(1.0)
            return 1
        finally:
            listen.close(self._listening.sock, self._listening.address)
            self._watch.stop()

    # -- signals -----------------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(each, note)

    def _handle_signals(self) -> bool:
        """True when it is time to stop."""
        numbers, self._signals = self._signals, []
        if signal.SIGHUP in numbers:
            self._reload()
        return signal.SIGTERM in numbers or signal.SIGINT in numbers

    def _wait(self, seconds: float) -> None:
        """Sleep until a signal, a worker's word, or the time is up."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        speakers = {each.control.fileno(): each for each in self._workers.values() if not each.ready}
        for number in speakers:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(seconds * 1000):
            if number in speakers:
                self._listen_to(speakers[number])
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)

    # -- workers -----------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        now = time.monotonic()
        if now - self._looked > 5 * TICK + 1:
            self._patient_until = now + MIN_HUNG  # the whole machine paused: workers get a moment to show that they live
        self._looked = now
        self._reap()
        if now >= self._patient_until:
            self._check_life(now)
        self._poison.expire(now)
        self._fill(now)
        self._replace_outdated()
        if self._was_ready:
            self._background.tend(now)
        self._show(now)
        self._notify.alive()

    def _show(self, now: float) -> None:
        """Signs of life and numbers for those who watch."""
        self._board.own.beat()
        self._meter.set("workers_ready", sum(each.ready and not each.draining for each in self._workers.values()))
        self._meter.set("workers_wanted", self._count)
        self._watch.tend(now, self._log)

    def _current(self) -> list[Worker]:
        return [each for each in self._workers.values() if each.generation == self._generation and not each.draining]

    def _outdated(self) -> list[Worker]:
        return [each for each in self._workers.values() if each.generation != self._generation and not each.draining]

    def _fill(self, now: float) -> None:
        """Start workers that are missing: all of them at the start, one at a time while others of an older generation still serve."""
        missing = self._count - len(self._current())
        if self._outdated() and any(not each.ready for each in self._current()):
            return
        for _ in range(min(missing, 1) if self._outdated() else missing):
            if now >= self._start_after:
                self._start()

    def _start(self) -> None:
        number = self._free_slot()
        if number is None:
            # Many reloads while connections of old workers stay open: the longest-standing make room.
            self._drain(min((each for each in self._workers.values() if each.draining), key=lambda each: each.started), 0)
            return
        slot = self._board.slot(number)
        slot.reset()
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._log.error("no_process", failure=error.strerror or "")
            self._start_after = time.monotonic() + 1.0
            return
        if pid == 0:
            self._become_worker(ours, theirs, number)
        theirs.close()
        ours.setblocking(False)
        self._workers[pid] = Worker(pid, number, slot, ours, self._generation, time.monotonic())

    def _become_worker(self, ours: socket.socket, control: socket.socket, number: int) -> None:
        """In the child: nothing of the supervisor's stays open, so that its end is seen."""
        try:
            ours.close()
            for each in self._workers.values():
                each.control.close()
            self._wake.close()
            signal.set_wakeup_fd(-1)
            self._waker.close()
            self._watch.disown()
            worker.run(self._config, self._build, self._listening.sock, control, self._board, number)
        finally:
            os._exit(1)

    def _free_slot(self) -> int | None:
        used = {each.number for each in self._workers.values()}
        return next((number for number in range(self._board.slots) if number not in used), None)

    def _listen_to(self, one: Worker) -> None:
        with contextlib.suppress(OSError):
            said = one.control.recv(1024)
            if said.startswith(worker.READY):
                one.ready = True
                self._failed_starts = 0
                self._on_ready()
            elif said.startswith(worker.FAILED):
                one.failure = said[1:].decode("utf-8", "replace")

    def _on_ready(self) -> None:
        ready = [each for each in self._current() if each.ready]
        if len(ready) < self._count:
            return
        status = f"serving on {self._listening.text} with {len(ready)} workers"
        if not self._outdated():
            self._fallback = None
            self._notify.ready(status)
            self._log.info("ready", socket=self._listening.text, workers=len(ready), generation=self._generation, pid=os.getpid())
            self._was_ready = True

    def _reap(self) -> None:
        for pid in list(self._workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._buried(self._workers.pop(pid), os.waitstatus_to_exitcode(status))

    def _buried(self, one: Worker, code: int) -> None:
        """Take note of a worker's end: expected, a failure to start, or a death with messages in its hands."""
        if not one.ready:
            self._listen_to(one)
        one.control.close()
        one.slot.sessions = 0
        if one.draining and code == 0:
            self._log.info("worker_done", pid=one.pid)
            return
        self._meter.count("workers_killed" if one.killed_for else "workers_died")
        fingerprints = one.guilty if one.guilty is not None else tuple(job.fingerprint for job in one.slot.jobs())
        poisoned = self._poison.killed_by(fingerprints, time.monotonic())
        why = one.killed_for or (f"signal {-code}" if code < 0 else f"exit {code}")
        self._log.error(
            "worker_died", pid=one.pid, why=why, failure=one.failure, in_evaluation=len(fingerprints), poisoned=poisoned, ready=one.ready
        )
        if not one.ready and not one.draining:
            self._failed_start(one, why)

    def _failed_start(self, one: Worker, why: str) -> None:
        if not self._was_ready:
            raise CannotStart(one.failure or f"a worker ended before it was ready ({why})")
        if self._fallback is not None and one.generation == self._generation:
            self._meter.count("reloads_failed")
            self._log.error("reload_failed", failure=one.failure or why, text="the running configuration is kept")
            self._return_to(self._fallback)
            return
        self._failed_starts += 1
        self._start_after = time.monotonic() + min(MAX_BACK_OFF, 0.1 * 2**self._failed_starts)

    def _check_life(self, now: float) -> None:
        """Kill what shows no sign of life or has passed the deadline of an evaluation."""
        deadline = self._config.milter.deadline
        hung = max(MIN_HUNG, min(HUNG, deadline))
        for one in self._workers.values():
            if one.killed_for:
                continue
            overdue = tuple(job.fingerprint for job in one.slot.jobs() if now - job.since > deadline)
            if overdue:
                one.guilty = overdue
                self._end(one, f"an evaluation took more than {deadline:g} s")
            elif now - one.slot.heartbeat > hung:
                self._end(one, f"no sign of life for {hung:g} s")
            elif not one.ready and now - one.started > STARTING:
                self._end(one, f"not ready after {STARTING:g} s")

    @staticmethod
    def _end(one: Worker, why: str) -> None:
        one.killed_for = why
        os.kill(one.pid, signal.SIGKILL)

    def _replace_outdated(self) -> None:
        """One old worker goes for each new one that serves; the connections that it has are left to it."""
        outdated = self._outdated()
        ready = [each for each in self._current() if each.ready]
        surplus = len(outdated) + len(ready) - self._count
        for one in sorted(outdated, key=lambda each: each.started)[: max(0, surplus)]:
            self._drain(one, RELOAD_DRAIN)
        if outdated and not self._outdated():
            self._on_ready()

    def _drain(self, one: Worker, seconds: float) -> None:
        one.draining = True
        with contextlib.suppress(OSError):
            one.control.send(worker.DRAIN + f"{seconds:g}\n".encode())

    # -- reload and stop ---------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the file again and replace the workers one by one; on any error everything stays as it is."""
        self._notify.reloading()
        try:
            config = load(self._path)
            watch = self._watch.prepare(config)
            listening = self._listening if config.milter.socket == self._config.milter.socket else open_socket(config)
        except (ConfigError, listen.CannotListen) as error:
            self._meter.count("reloads_failed")
            self._log.error("reload_failed", failure=str(error), text="the running configuration is kept")
            self._notify.ready(f"reload failed: {error}")
            return
        self._fallback = self._config
        if listening is not self._listening:
            listen.close(self._listening.sock, self._listening.address)
            self._listening = listening
        self._adopt(config)
        watch(self._log)
        self._meter.count("reloads")
        self._log.info("reload", generation=self._generation)

    def _return_to(self, config: Config) -> None:
        """Give a reload up: the workers of the old configuration that are left stay, new ones take it again."""
        self._fallback = None
        abandoned = self._current()
        self._adopt(config)
        with contextlib.suppress(listen.CannotListen):
            self._watch.prepare(config)(self._log)
        for one in self._workers.values():
            if one not in abandoned and not one.draining:
                one.generation = self._generation
        for one in abandoned:
            self._drain(one, RELOAD_DRAIN)
        self._notify.ready("reload failed; serving with the configuration as it was")

    def _adopt(self, config: Config) -> None:
        self._config = config
        self._generation += 1
        self._count = min(worker_count(config), self._board.slots // 2)
        self._log = Log(form=config.log.format, level=config.log.level)
        self._background.restart(self._jobs(config))
        self._start_after = 0.0

    def _stop(self) -> int:
        """Take no more connections, give sessions in flight the configured time; a second signal ends that at once."""
        self._notify.stopping()
        self._log.info("stopping", workers=len(self._workers), seconds=self._config.milter.drain)
        self._meter.set("workers_ready", 0)
        self._listening.sock.close()
        deadline = time.monotonic() + self._config.milter.drain + 2
        for one in self._workers.values():
            self._drain(one, self._config.milter.drain)
        while self._workers and time.monotonic() < deadline:
            self._wait(TICK)
            self._board.own.beat()
            self._reap()
            if signal.SIGTERM in self._signals or signal.SIGINT in self._signals:
                deadline = 0.0
            self._signals.clear()
        self._kill(self._workers.values())
        self._background.stop(5.0 if deadline else 0.0)
        self._log.info("stopped")
        return 0

    @staticmethod
    def _kill(workers: Iterable[Worker]) -> None:
        for one in workers:
            os.kill(one.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        for one in workers:
            os.waitpid(one.pid, 0)


def worker_count(config: Config) -> int:
    """As configured; 0 is one for each CPU that we may use."""
    return config.milter.workers or max(1, len(os.sched_getaffinity(0)))


def open_socket(config: Config) -> Listening:
    """Raises CannotListen."""
    address = socket_address(config.milter.socket)
    sock = listen.listen(address, mode=int(config.milter.socket_mode, 8), group=config.milter.socket_group)
    return Listening(sock, listen.describe(address), address)


def raise_file_limit() -> None:
    """libmilter's listener spins without a pause where descriptors run out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(path: Path, *, with_jobs: bool = True) -> int:
    """`dmarc-milter serve`: until SIGTERM. Raises ConfigError; says in one line what else prevents the start (exit code 1)."""
    from dmarc_milter.edge.assemble import build, jobs, prepare

    config = load(path)
    return supervise(path, config, build, lambda: prepare(config), (lambda config: jobs(path, config)) if with_jobs else no_jobs)


def no_jobs(_config: Config) -> tuple[Job, ...]:
    """Timers of systemd run the jobs, or nobody does."""
    return ()


def supervise(path: Path, config: Config, build: worker.Build, prepare: worker.Prepare = lambda: (), jobs: Jobs = no_jobs) -> int:
    """Run the daemon with whatever `build` makes, and `jobs` beside it; `prepare` is tried first and gives lines to print."""
    try:
        libmilter.check_platform()
        raise_file_limit()
        lines = prepare()
        supervisor = Supervisor(path, config, build, jobs)
    except (listen.CannotListen, libmilter.CannotServe, worker.CannotBuild) as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        return 1
    for line in lines:
        print(line, flush=True)
    return supervisor.run()
