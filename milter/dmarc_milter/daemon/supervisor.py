"""The supervisor: it owns the sockets and the signals, and keeps the right number of workers
alive, responsive and up to date."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dmarc_milter.checks.limits import workers_of
from dmarc_milter.config import Config, ConfigError, load
from dmarc_milter.daemon import worker
from dmarc_milter.daemon.crash_guard import CrashGuard
from dmarc_milter.daemon.dns_probe import DnsProbe, ProbeFunction, ProbeProcess
from dmarc_milter.daemon.jobs import Job, JobRunner
from dmarc_milter.daemon.listening import Listening, ListeningSockets, open_socket
from dmarc_milter.daemon.metrics_server import MetricsServer
from dmarc_milter.daemon.restart_only_keys import restart_only_keys
from dmarc_milter.daemon.workers import MIN_HUNG, NoProcess, Worker, Workers
from dmarc_milter.dns.probe import Health
from dmarc_milter.process import sockets
from dmarc_milter.process.back_off import BackOff
from dmarc_milter.process.sd_notify import Notifier
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import complain, open_log

TICK = 0.2
"""Seconds between checks of the workers when nothing else happens."""
RELOAD_DRAIN = 600.0
"""Seconds that sessions of a replaced worker get to end by themselves."""
FIRST_BACK_OFF, MAX_BACK_OFF = 0.2, 5.0
"""Seconds before the next start of a worker when one has failed: where none serves, mail waits."""
NO_PROCESS = 1.0
"""Seconds before the system is asked again for a process that it did not give."""
COMPLAIN_EVERY = 60.0
"""Seconds between lines about processes that the system does not give."""


class CannotStart(Exception):
    """`str()` is one line."""


Jobs = Callable[[Config], Sequence[Job]]
"""The jobs that a configuration asks for."""


def no_jobs(_config: Config) -> tuple[Job, ...]:
    """Timers of systemd run the jobs, or nobody does."""
    return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the supervisor runs: how a worker is built, the jobs beside the workers, the check of
    the DNS, the preparation of spool and store."""

    build: worker.Build
    jobs: Jobs = no_jobs
    ask: ProbeFunction = lambda _config: Health()
    prepare_storage: Callable[[Config], tuple[str, ...]] = lambda _config: ()
    """Makes the spool and returns warnings about the store. Raises CannotBuild."""


class Supervisor:
    """Starts, watches, replaces and stops the workers."""

    def __init__(self, path: Path, config: Config, parts: Parts) -> None:
        self._path, self._parts = path, parts
        self._config = self._started = config
        self._log = open_log(config)
        self._notify = Notifier()
        self._generation = 1
        self._count = workers_of(config)
        self._start_parts(config)
        self._signals: list[int] = []
        self._back_off = BackOff(FIRST_BACK_OFF, MAX_BACK_OFF)
        self._fork_after = self._complain_after = 0.0
        self._fallback: tuple[Config, Listening, int] | None = None
        """What to return to when the workers of a reload do not start, and its generation: the last
        one that served."""
        self._last_tick = time.monotonic()
        self._health_checks_after = 0.0
        self._was_ready = False
        self._warn(parts.prepare_storage(config))
        self._sockets = ListeningSockets(open_socket(config))
        self._metrics.prepare(config)(self._log)
        # At last: whatever refuses the start above leaves nothing open.
        self._wake, self._waker = socket.socketpair()

    def _start_parts(self, config: Config) -> None:
        """What is kept beside the workers, and the memory that all of it shares."""
        self._shared_memory = SharedMemory(max(32, 4 * self._count))
        self._most_workers = self._shared_memory.slots // 2
        self._workers = Workers(self._parts.build, self._shared_memory, self._leave)
        self._crash_guard = CrashGuard(self._shared_memory)
        self._meter = Meter(self._shared_memory.own)
        self._metrics = MetricsServer(self._shared_memory)
        self._dns = DnsProbe(
            lambda config: ProbeProcess(self._parts.ask, config), self._shared_memory
        )
        self._job_runner = JobRunner(self._parts.jobs(config), self._log)

    def run(self) -> int:
        """Until told to stop; the exit code."""
        self._take_signals()
        gc.collect()
        gc.freeze()
        try:
            while True:
                # Signals first: what ends with us, because all were told to, has not failed.
                if self._handle_signals():
                    return self._stop()
                self._supervise()
                self._wait(TICK)
        except CannotStart as error:
            complain(str(error))
            self._workers.end()
            self._job_runner.stop(1.0)
            return 1
        finally:
            self._sockets.close()
            self._metrics.stop()
            self._dns.stop()

    # -- signals -----------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        ours = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        for number in ours:
            signal.signal(number, note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    def _handle_signals(self) -> bool:
        """True when it is time to stop."""
        numbers, self._signals = self._signals, []
        if signal.SIGHUP in numbers:
            self._reload()
        return signal.SIGTERM in numbers or signal.SIGINT in numbers

    def _wait(self, seconds: float) -> None:
        """Sleep until a signal comes, a worker reports, or the time is up."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        starting = {one.control.fileno(): one for one in self._workers if not one.ready}
        for number in starting:
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(seconds * 1000):
            if number in starting:
                starting[number].read_start_report()
                if starting[number].ready:
                    self._back_off.reset()
                    self._on_ready()
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)

    # -- workers -----------------------------------------------------------------------------------

    def _supervise(self) -> None:
        now = time.monotonic()
        if now - self._last_tick > 5 * TICK + 1:
            # The whole machine paused: workers get a moment to show that they live.
            self._health_checks_after = now + MIN_HUNG
        self._last_tick = now
        for one, code in self._workers.reap():
            self._reaped(one, code)
        if now >= self._health_checks_after:
            self._workers.check_health(now, self._config.milter.deadline)
        self._crash_guard.expire(now)
        self._fill(now)
        self._replace_outdated(now)
        if self._was_ready:
            self._job_runner.tend(now)
            self._dns.tend(now, self._log)
        self._publish_health(now)
        self._notify.alive()

    def _publish_health(self, now: float) -> None:
        """The heartbeat and the numbers that the metrics page shows."""
        self._shared_memory.own.beat()
        self._meter.set(
            "workers_ready", sum(one.ready and not one.draining for one in self._workers)
        )
        self._meter.set("workers_wanted", self._count)
        self._metrics.tend(now, self._log)

    def _fill(self, now: float) -> None:
        """Start workers that are missing: all of them at the start, one at a time while others of
        an older generation still serve."""
        current, outdated = (
            self._workers.serving(self._generation),
            self._workers.outdated(self._generation),
        )
        if now < self._fork_after or not self._back_off.is_over(now):
            return
        if outdated and any(not one.ready for one in current):
            return
        missing = self._count - len(current)
        for _ in range(min(missing, 1) if outdated else missing):
            try:
                self._workers.start(self._config, self._sockets.current.sock, self._generation)
            except NoProcess as error:
                if now >= self._complain_after:
                    self._complain_after = now + COMPLAIN_EVERY
                    self._log.error("no_process", failure=str(error))
                self._fork_after = now + NO_PROCESS
                return

    def _leave(self) -> None:
        """In a child: close what is ours alone."""
        signal.set_wakeup_fd(-1)
        for sock in (self._wake, self._waker, *(old.sock for old in self._sockets.retired())):
            sock.close()
        self._metrics.disown()
        self._dns.disown()

    def _on_ready(self) -> None:
        ready = [one for one in self._workers.serving(self._generation) if one.ready]
        if len(ready) < self._count or self._workers.outdated(self._generation):
            return
        self._fallback = None
        self._notify.ready(f"serving on {self._sockets.current.text} with {len(ready)} workers")
        self._log.info(
            "ready",
            socket=self._sockets.current.text,
            workers=len(ready),
            generation=self._generation,
            pid=os.getpid(),
        )
        self._dns.configure(self._config)
        self._was_ready = True

    def _reaped(self, one: Worker, code: int) -> None:
        """A worker has ended: as it was told to, before it was ready, or with messages in
        evaluation."""
        if one.draining and code == 0:
            self._log.info("worker_done", pid=one.pid)
            return
        self._meter.count("workers_killed" if one.killed_for else "workers_died")
        fingerprints = one.in_progress
        poisoned = self._crash_guard.blame(fingerprints, time.monotonic())
        why = one.killed_for or (f"signal {-code}" if code < 0 else f"exit {code}")
        self._log.error(
            "worker_died",
            pid=one.pid,
            why=why,
            failure=one.failure,
            in_evaluation=len(fingerprints),
            poisoned=poisoned,
            ready=one.ready,
        )
        if not one.ready and not one.draining:
            self._failed_start(one, why)
        elif one.failure:  # it found out by itself that it cannot go on
            self._back_off.failed(time.monotonic())

    def _failed_start(self, one: Worker, why: str) -> None:
        if not self._was_ready:
            raise CannotStart(one.failure or f"a worker ended before it was ready ({why})")
        if self._fallback is not None and one.generation == self._generation:
            self._reload_failed(one.failure or why)
            self._return_to(*self._fallback)
            return
        self._back_off.failed(time.monotonic())

    def _replace_outdated(self, now: float) -> None:
        """Drain one old worker for each new one that serves; it keeps the connections that it
        has."""
        outdated = self._workers.outdated(self._generation)
        ready = [one for one in self._workers.serving(self._generation) if one.ready]
        surplus = max(0, len(outdated) + len(ready) - self._count)
        for one in outdated[:surplus]:
            one.drain(RELOAD_DRAIN)
        if outdated and surplus >= len(outdated):
            self._on_ready()
        if outdated:
            self._sockets.still_in_use(now)
        elif self._fallback is None:
            self._sockets.close_retired(now)

    # -- reload and stop ---------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the file again and replace the workers one by one; on any error everything stays as
        it is."""
        self._notify.reloading()
        try:
            config = load(self._path)
            warnings = self._prepare_storage(config)
            apply_metrics = self._metrics.prepare(config)
            listening = self._sockets.wanted_by(config)
        except (ConfigError, sockets.CannotListen, worker.CannotBuild) as error:
            self._reload_failed(str(error))
            self._notify.ready(f"reload failed: {error}")
            return
        self._fallback = self._fallback or (self._config, self._sockets.current, self._generation)
        self._adopt(config, listening)
        apply_metrics(self._log)
        self._warn(warnings)
        self._meter.count("reloads")
        self._log.info("reload", generation=self._generation)
        self._warn_of_restart_only(config)

    def _prepare_storage(self, config: Config) -> tuple[str, ...]:
        """Warnings about the store; nothing is done where [store] stays as it is."""
        return self._parts.prepare_storage(config) if config.store != self._config.store else ()

    def _reload_failed(self, why: str) -> None:
        self._meter.count("reloads_failed")
        self._log.error("reload_failed", failure=why, text="the running configuration is kept")

    def _warn_of_restart_only(self, config: Config) -> None:
        keys = restart_only_keys(
            config,
            started=self._started,
            opened=self._sockets.current.config,
            enough_workers=workers_of(config) <= self._most_workers,
        )
        if keys:
            self._log.warning(
                "restart_needed",
                keys=", ".join(keys),
                text="changed in the file, in force only after a restart",
            )

    def _warn(self, about_store: tuple[str, ...]) -> None:
        for text in about_store:
            self._log.warning("store", text=text)

    def _return_to(self, config: Config, listening: Listening, generation: int) -> None:
        """Give a reload up: the workers of the old configuration that are left stay, new ones take
        it again."""
        self._fallback = None
        abandoned = [
            one for one in self._workers if one.generation > generation and not one.draining
        ]
        self._adopt(config, listening)
        with contextlib.suppress(sockets.CannotListen):
            self._metrics.prepare(config)(self._log)
        for one in self._workers:
            if one not in abandoned and not one.draining:
                one.generation = self._generation
        for one in abandoned:
            one.drain(RELOAD_DRAIN)
        self._notify.ready("reload failed; serving with the configuration as it was")

    def _adopt(self, config: Config, listening: Listening) -> None:
        self._sockets.use(listening)
        self._config = config
        self._generation += 1
        self._count = min(workers_of(config), self._most_workers)
        self._log = open_log(config)
        self._job_runner.restart(self._parts.jobs(config), self._log)
        self._back_off.reset()
        self._fork_after = 0.0

    def _stop(self) -> int:
        """Take no more connections, give sessions in flight the configured time; a second signal
        ends that at once."""
        self._notify.stopping()
        self._log.info("stopping", workers=len(self._workers), seconds=self._config.milter.drain)
        self._meter.set("workers_ready", 0)
        self._sockets.current.sock.close()
        deadline = time.monotonic() + self._config.milter.drain + 2
        self._workers.drain(self._config.milter.drain)
        while self._workers and time.monotonic() < deadline:
            self._wait(TICK)
            self._shared_memory.own.beat()
            for one, code in self._workers.reap():
                self._reaped(one, code)
            if signal.SIGTERM in self._signals or signal.SIGINT in self._signals:
                deadline = 0.0
            self._signals.clear()
        self._workers.end()
        self._job_runner.stop(5.0 if deadline else 0.0)
        self._log.info("stopped")
        return 0
