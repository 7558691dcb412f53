"""Whether name servers can be used: asked soon after the start, again where look-ups fail, and once
an hour.

The question runs in a process of its own, so it never delays mail. Mail itself cannot show it: a
resolver that denies every name makes no look-up fail.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Protocol

from dmarc_milter.config import Config
from dmarc_milter.dns.probe import Health, probe
from dmarc_milter.dns.probe import servers as servers_of
from dmarc_milter.dns.resolver import RESOLV_CONF
from dmarc_milter.process.child import detach_from_supervisor, fork
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.counters import INDEX, Meter
from dmarc_milter.telemetry.log import Log

FIRST_AFTER = 5.0
"""Seconds after the start before the question is asked: a host that starts may have no network
yet."""
FAILING_EVERY = 60.0
"""Seconds between questions while they find fault, and between looks at how the workers' own
look-ups fare."""
WORKING_EVERY = 3600.0
"""Seconds between questions where all is well."""
MAX_REPORT = 2000
"""Bytes that the process may write about what it found."""
EXTRA = 5.0
"""Seconds beyond [dns] timeout after which the process is killed."""

ProbeFunction = Callable[[Config], Health]
"""Asks once. May take [dns] timeout seconds and one more."""


class RunningProbe(Protocol):
    """A probe under way in a process of its own: the supervisor never waits, and has no threads."""

    def poll(self, now: float) -> Health | None:
        """What it found out; None while it has not ended. `now` is time.monotonic()."""
        ...

    def stop(self) -> None:
        """Kill it."""
        ...

    def disown(self) -> None:
        """In a forked child: close what is the supervisor's."""
        ...


class DnsProbe:
    """The supervisor's side; never waits. Logs once when no server can be used, and once when
    one can be used again."""

    def __init__(
        self, start: Callable[[Config], RunningProbe], shared_memory: SharedMemory
    ) -> None:
        self._start, self._shared_memory = start, shared_memory
        self._meter = Meter(shared_memory.own)
        self._config: Config | None = None
        self._running: RunningProbe | None = None
        self._next = self._started = 0.0
        self._new = False
        """A configuration for which the question was not asked yet."""
        self._failures = 0
        self._down = False
        self._reported = Health()

    def configure(self, config: Config) -> None:
        """The daemon serves with this configuration from now on. What is still wrong is logged
        again."""
        if config is self._config:
            return
        self.stop()
        self._config, self._new, self._reported = config, True, Health()
        self._next = 0.0

    def tend(self, now: float, log: Log) -> None:
        """Start a probe when it is time, and log what it found when it has ended."""
        if self._config is None:
            return
        if self._running is not None:
            health = self._running.poll(now)
            if health is not None:
                self._running = None
                self._report(health, self._config, log)
        elif self._next == 0.0 and not self._down:
            self._next, self._failures = now + FIRST_AFTER, self._failed()
        elif now >= self._next:
            failures = self._failed()
            wanted = (
                self._down
                or self._new
                or failures > self._failures
                or now >= self._started + WORKING_EVERY
            )
            self._next, self._new, self._failures = now + FAILING_EVERY, False, failures
            if wanted:
                self._started = now
                with contextlib.suppress(OSError):  # no process to be had: the next time
                    self._running = self._start(self._config)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
        self._running = None

    def disown(self) -> None:
        """In a forked worker."""
        if self._running is not None:
            self._running.disown()

    def _failed(self) -> int:
        """Questions without an answer, of all workers that ever lived."""
        return sum(
            self._shared_memory.slot(number).counters[INDEX["dns_failures"]]
            for number in range(self._shared_memory.slots)
        )

    def _report(self, health: Health, config: Config, log: Log) -> None:
        if health.problem and not self._reported.problem:
            log.warning(
                "dns", servers=servers(config), failure=health.problem, text=_advice(config)
            )
        elif not health.problem and self._down:
            log.info("dns", servers=servers(config), text="name servers can be used again")
        if health.doubt and not self._reported.doubt:
            log.warning("dns", servers=servers(config), failure=health.doubt, text=_doubts(config))
        self._reported = Health(health.problem, health.doubt or self._reported.doubt)
        self._down = bool(health.problem)
        self._meter.set("dns_down", self._down)


def servers(config: Config) -> str:
    """The name servers that are asked, for people."""
    if config.dns.nameservers:
        return ", ".join(config.dns.nameservers)
    return f"{', '.join(servers_of(config)) or 'none'} ({RESOLV_CONF})"


def _advice(config: Config) -> str:
    meanwhile = {
        "accept": "delivered with dmarc=temperror, unchecked",
        "enforced": (
            "delivered with dmarc=temperror, unchecked, and answered 451 where an enforcing policy"
            " is known"
        ),
        "tempfail": "answered 451 where a policy may apply",
    }[config.dmarc.on_temperror]
    return (
        f"no name server can be used; meanwhile mail is {meanwhile}. Check {_where(config)} and the"
        f" firewall; asked again every {FAILING_EVERY:g} s"
    )


def _doubts(config: Config) -> str:
    return (
        "[dmarc] np and SPF's limit of void look-ups are misjudged by such answers. Put an honest"
        f" resolver into {_where(config)}"
    )


def _where(config: Config) -> str:
    return (
        "[dns] nameservers"
        if config.dns.nameservers
        else f"{RESOLV_CONF} (or set [dns] nameservers)"
    )


def ask(config: Config) -> Health:
    """The ProbeFunction of the daemon."""
    return probe(config, Loop())


class ProbeProcess:
    """`ask` in a forked child, whose findings come through a pipe. Raises OSError where no process
    can be had."""

    def __init__(self, ask: ProbeFunction, config: Config) -> None:
        self._reading, writing = os.pipe()
        try:
            self._child = fork(lambda: _run_child(ask, config, writing))
        except OSError:
            os.close(self._reading)
            raise
        finally:
            os.close(writing)
        self._give_up = time.monotonic() + config.dns.timeout + EXTRA

    def poll(self, now: float) -> Health | None:
        if self._child.poll() is None:
            if now < self._give_up:
                return None
            self.stop()
            return Health("timed out")
        os.set_blocking(self._reading, False)
        try:
            report = os.read(self._reading, MAX_REPORT)
        except OSError:
            report = b""
        os.close(self._reading)
        # There is a line end even where nothing is wrong: a child that died has written none.
        problem, end, doubt = report.decode("utf-8", "replace").partition("\n")
        return Health(problem, doubt) if end else Health("the question could not be asked")

    def stop(self) -> None:
        self._child.end()
        os.close(self._reading)

    def disown(self) -> None:
        os.close(self._reading)


def _run_child(ask: ProbeFunction, config: Config, writing: int) -> None:
    """In the child. A line end is written even where there is nothing to complain of."""
    detach_from_supervisor("dmarc-dns", writing)
    lines = (
        line.replace("\n", " ").encode("utf-8", "replace")[: MAX_REPORT // 2 - 1]
        for line in ask(config)
    )
    os.write(writing, b"\n".join(lines))
