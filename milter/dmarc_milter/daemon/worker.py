"""One worker process: one loop for the supervisor's orders, the MTA's connections, the messages and
their look-ups. libmilter, if it serves, has threads of its own, which hand over what they
collect."""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from dmarc_milter.checks.limits import connections_for
from dmarc_milter.config import Config
from dmarc_milter.process.descriptor_limit import DescriptorLimit
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot
from dmarc_milter.session.choose_library import ConnectionLimits, MilterServer, Serving, serve
from dmarc_milter.session.handler import MessageHandler, SessionOptions
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import Log, open_log

BEAT = 0.25
"""Seconds between heartbeats."""
SETTLE = 0.5
"""Seconds after the last connection was taken before a drained worker believes that it has no
more."""
READY, FAILED = b"R", b"F"
"""What a worker tells the supervisor, FAILED followed by one line."""
COLLECT = 10_000
"""Objects by which a worker's memory grows before Python looks for cycles among them: messages at
work hold some thousands, and leave next to none."""
DRAIN = b"D"
"""The supervisor's order, followed by seconds in decimal and a line end."""


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """What a worker serves with, built in its own process.

    `tick` is called several times a second; `close` flushes what must outlive the process.
    """

    handler: MessageHandler
    options: SessionOptions
    tick: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


Build = Callable[[Config, Loop, WorkerSlot, SharedMemory, Log], WorkerServices]
"""Builds what the worker serves with. Raises for what makes serving impossible; `str()` of the
exception is one line."""
Prepare = Callable[[], tuple[str, ...]]
"""Checks what can be checked before the first fork and returns lines to print. Raises ConfigError,
CannotBuild."""


MORE_THREADS = "raise TasksMax= of the unit, the container's pids limit, or `ulimit -u`"
MORE_MEMORY = "raise MemoryMax= of the unit, the container's memory, or `ulimit -v`"
T = TypeVar("T")


class ServesNoMore(Exception):
    """The worker serves no more and is to be replaced. `str()` is one line."""


class WornOut(Exception):
    """The same, and the supervisor has been told already: it has drained."""


class CannotBuild(Exception):
    """Something that a worker needs is missing. `str()` is one line."""


def run(
    config: Config,
    build: Build,
    sock: socket.socket,
    control: socket.socket,
    shared_memory: SharedMemory,
    number: int,
) -> NoReturn:
    """The whole life of the process after fork. Never returns."""
    code = 1
    log = Log(form=config.log.format)
    try:
        _own_signals()
        _schedule_as_batch()
        gc.set_threshold(COLLECT, *gc.get_threshold()[1:])
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text("dmarc-worker", encoding="ascii")
        log = open_log(config)
        loop, slot = _started(control, lambda: (Loop(), shared_memory.slot(number)))
        service, server = _started(
            control, lambda: _start(config, loop, build, sock, (shared_memory, number, log))
        )
        slot.beat()
        control.sendall(READY)
        pulse = _Pulse(slot, service, server, log)
        orders = Orders(slot, control, server, config.milter.drain)
        _every(loop, BEAT, pulse.beat)
        loop.watch(control.fileno(), select.EPOLLIN, lambda _: orders.read(loop))
        try:
            loop.run(orders.are_obeyed)
            code = 0
        except ServesNoMore as error:
            control.sendall(FAILED + str(error).encode("utf-8", "replace")[:500])
        except WornOut:
            pass
        service.close()
        pulse.beat()
        log.stop()
    except Exception as error:
        log.error("worker", error=type(error).__name__)
        log.stop()
    finally:
        # Never a normal exit: libmilter's threads may be inside Python at this moment.
        os._exit(code)


Started = tuple[WorkerServices, MilterServer]


def _start(
    config: Config,
    loop: Loop,
    build: Build,
    sock: socket.socket,
    around: tuple[SharedMemory, int, Log],
) -> Started:
    shared_memory, number, log = around
    slot = shared_memory.slot(number)
    log.start()
    service = build(config, loop, slot, shared_memory, log)
    meter = Meter(slot)

    def make_session(name: str) -> Session:
        meter.count("connections")
        return Session(service.handler, service.options, name=name)

    limits = ConnectionLimits(_most_connections(config), config.milter.idle_timeout)

    def takes_next() -> bool:
        return shared_memory.takes_next(number, time.monotonic(), limits.connections)

    serving = Serving(loop, sock, make_session, slot, log, limits, takes_next)
    return service, serve(config.milter.library, serving)


def _started(control: socket.socket, start: Callable[[], T]) -> T:
    """Start; what prevents it is reported to the supervisor in one line."""
    try:
        return start()
    except Exception as error:
        line = _in_one_line(error)
        control.sendall(FAILED + line.encode("utf-8", "replace")[:500])
        raise


def _in_one_line(error: Exception) -> str:
    """Why a worker cannot start, with the remedy where the host's limits are in the way."""
    line = f"{error or type(error).__name__}".replace("\n", " ")
    if isinstance(error, RuntimeError) and "thread" in line:
        return f"{line}: {MORE_THREADS}"
    if isinstance(error, MemoryError):
        return f"out of memory: {MORE_MEMORY}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{line}: raise LimitNOFILE= of the unit, or `ulimit -n`"
    return line


class _Pulse:
    """What is done several times a second: the heartbeat, and counts that are kept elsewhere."""

    def __init__(
        self, slot: WorkerSlot, service: WorkerServices, server: MilterServer, log: Log
    ) -> None:
        self._slot, self._service, self._server, self._log = slot, service, server, log
        self._meter = Meter(slot)
        self._reported = False

    def beat(self) -> None:
        self._slot.beat()
        try:
            self._meter.follow("log_lines_dropped", self._log.dropped)
            self._service.tick()
            self._server.tend()
        except Exception as error:
            if not self._reported:
                self._reported = True
                self._log.error("failure", where="tick", error=f"{type(error).__name__}: {error}")


def _schedule_as_batch() -> None:
    """SCHED_BATCH: a woken thread does not displace the running one, which holds the interpreter
    lock that it would only wait for.

    Saves a tenth of the processor time of a message. Where it is not allowed nothing changes; the
    systemd unit asks for it.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _own_signals() -> None:
    """The supervisor owns the signals; a terminal's Ctrl-C reaches workers too and is not for
    them."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _every(loop: Loop, seconds: float, callback: Callable[[], None]) -> None:
    """Call it now and then always again."""
    loop.call_later(seconds, lambda: _every(loop, seconds, callback))
    callback()


def _most_connections(config: Config) -> int:
    """As configured, and never so many that descriptors run out: libmilter's listener would spin
    without a pause, and look-ups need some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        config.milter.max_connections
        if soft == resource.RLIM_INFINITY
        else min(config.milter.max_connections, connections_for(soft))
    )


class Orders:
    """What the supervisor wants: serve until told to drain, then until the last session has ended
    or time is up. A worker that finds itself worn out drains by itself."""

    def __init__(
        self,
        slot: WorkerSlot,
        control: socket.socket,
        server: MilterServer,
        drain: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`drain`: seconds that one that is worn out takes for what is under way."""
        self._slot, self._control, self._server = slot, control, server
        self._drain, self._clock = drain, clock
        self._descriptors = DescriptorLimit(clock)
        self._worn_out = False
        self._deadline = math.inf
        self._quiet_since = math.inf
        """When there were no sessions any more; only while draining."""

    def read(self, loop: Loop) -> None:
        order = self._control.recv(256)
        if not order:
            loop.forget(self._control.fileno())
        self._drain_for(_seconds(order))

    def _drain_for(self, seconds: float) -> None:
        now = self._clock()
        if self._deadline == math.inf:
            self._server.drain()
            self._quiet_since = now
        self._deadline = min(self._deadline, now + seconds)

    def are_obeyed(self) -> bool:
        """Raises ServesNoMore where the worker serves no more although it should, WornOut at the
        end of a drain of its own."""
        if self._deadline == math.inf:
            if self._server.failure:
                raise ServesNoMore(self._server.failure)
            why = self._server.worn_out or self._descriptors.lowered()
            if not why:
                return False
            self._worn_out = True
            self._control.sendall(FAILED + why.encode("utf-8", "replace")[:500])
            self._drain_for(self._drain)
        now = self._clock()
        if self._slot.sessions > self._server.forgotten:
            self._quiet_since = now
        if now < self._deadline and now - self._quiet_since <= SETTLE:
            return False
        if self._worn_out:
            raise WornOut
        return True


def _seconds(order: bytes) -> float:
    """How long a drain may take. An empty order means that the supervisor is gone: 30 s."""
    return min(map(float, order.decode().replace("D", "").split()), default=30.0)
