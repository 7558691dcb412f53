"""Whether name servers answer at all: asked where no mail has shown it soon after the start, and again where look-ups fail.

Never in mail's way: the question is a process of its own, and a daemon whose mail gets answers asks nothing beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Protocol

from dmarc_milter.edge.board import Board
from dmarc_milter.edge.config import Config
from dmarc_milter.edge.log import Log
from dmarc_milter.edge.metrics import INDEX, Meter
from dmarc_milter.edge.offshoot import leave_supervisor
from dmarc_milter.edge.resolver import RESOLV_CONF, DnsResolver
from dmarc_milter.edge.resolver.servers import read_resolv_conf
from dmarc_milter.lookup import LookupFailed, NoAnswer

PROBE = "example.org"
"""A name that is there for such uses (RFC 2606); any answer will do, "there is no such name" too."""
FIRST = 10.0
"""Seconds after the start or a reload before the question is asked, unless look-ups of messages have been answered by then."""
EVERY = 60.0
"""Seconds between questions while there is no answer, and between looks at how the workers' own look-ups fare."""
SLACK = 5.0
"""Seconds beyond [dns] timeout after which the asking process is given up."""

Ask = Callable[[Config], str]
"""Asks once: why no name server answers, one line, or "". May take [dns] timeout seconds."""


class Asking(Protocol):
    """A question under way in a process of its own: the supervisor never waits, and has no threads."""

    def poll(self, now: float) -> str | None:
        """What `Ask` found out; None while it has not ended. `now` is time.monotonic()."""
        ...

    def stop(self) -> None:
        """Give it up."""
        ...

    def disown(self) -> None:
        """In a forked child: close what is the supervisor's."""
        ...


class DnsWatch:
    """The supervisor's side; never waits. Says once when there is no answer and once when there is one again."""

    def __init__(self, start: Callable[[Config], Asking], board: Board) -> None:
        self._start, self._board = start, board
        self._meter = Meter(board.own)
        self._config: Config | None = None
        self._asking: Asking | None = None
        self._next = 0.0
        self._new = False
        """A configuration that has been served with for less than FIRST seconds."""
        self._failures = self._answers = 0
        self._down = False
        self._told = False

    def look(self, config: Config) -> None:
        """The daemon serves with this configuration from now on; what is still wrong with it will be said again."""
        if config is self._config:
            return
        self.stop()
        self._config, self._new, self._told = config, True, False
        self._next = 0.0

    def tend(self, now: float, log: Log) -> None:
        """Ask when it is time, hear the answer when it is there."""
        if self._config is None:
            return
        if self._asking is not None:
            problem = self._asking.poll(now)
            if problem is not None:
                self._asking = None
                self._heard(problem, self._config, log)
        elif self._next == 0.0 and not self._down:
            self._next, (self._failures, self._answers) = now + FIRST, self._counts()
        elif now >= self._next:
            failures, answers = self._counts()
            unknown = self._new and answers == self._answers
            wanted = self._down or unknown or failures > self._failures
            self._next, self._new, self._failures = now + EVERY, False, failures
            if wanted:
                with contextlib.suppress(OSError):  # no process to be had: the next time
                    self._asking = self._start(self._config)

    def stop(self) -> None:
        if self._asking is not None:
            self._asking.stop()
        self._asking = None

    def disown(self) -> None:
        """In a forked worker."""
        if self._asking is not None:
            self._asking.disown()

    def _counts(self) -> tuple[int, int]:
        """Questions without and with an answer, of all workers that ever lived."""
        slots = [self._board.slot(number).counters for number in range(self._board.slots)]
        asked, failed = (sum(counters[INDEX[name]] for counters in slots) for name in ("dns_queries", "dns_failures"))
        return failed, max(0, asked - failed)

    def _heard(self, problem: str, config: Config, log: Log) -> None:
        if problem and not self._told:
            log.warning("dns", servers=servers(config), failure=problem, text=_advice(config))
            self._told = True
        elif not problem and self._down:
            log.info("dns", servers=servers(config), text="name servers answer again")
            self._told = False
        self._down = bool(problem)
        self._meter.set("dns_down", self._down)


def servers(config: Config) -> str:
    """The name servers that are asked, for people."""
    if config.dns.nameservers:
        return ", ".join(config.dns.nameservers)
    found = ", ".join(each.text for each in read_resolv_conf(RESOLV_CONF))
    return f"{found or 'none'} ({RESOLV_CONF})"


def _advice(config: Config) -> str:
    meanwhile = (
        "delivered with dmarc=temperror, unchecked" if config.dmarc.on_temperror == "accept" else "answered 451 where a policy may apply"
    )
    where = "[dns] nameservers" if config.dns.nameservers else f"{RESOLV_CONF} (or set [dns] nameservers)"
    return f"no name server answers; meanwhile mail is {meanwhile}. Check {where} and the firewall; asked again every {EVERY:g} s"


def ask(config: Config) -> str:
    """One small question to the configured name servers, as messages ask theirs."""
    dns = DnsResolver(config.dns.nameservers, timeout=config.dns.timeout)
    try:
        dns.for_message(config.dns.timeout + 1).addresses(PROBE, "A")
    except NoAnswer:
        return ""
    except LookupFailed as error:
        return str(error) or "no answer"
    finally:
        dns.close()
    return ""


class AskingProcess:
    """`ask` in a forked child; what it finds out comes through a pipe. Raises OSError where there is no process to be had."""

    def __init__(self, ask: Ask, config: Config) -> None:
        self._reading, writing = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._reading)
            os.close(writing)
            raise
        if self._pid == 0:
            _become(ask, config, writing)
        os.close(writing)
        self._give_up = time.monotonic() + config.dns.timeout + SLACK

    def poll(self, now: float) -> str | None:
        if not os.waitpid(self._pid, os.WNOHANG)[0]:
            if now < self._give_up:
                return None
            self.stop()
            return "timed out"
        os.set_blocking(self._reading, False)
        try:
            said = os.read(self._reading, 1000)
        except OSError:
            said = b""
        os.close(self._reading)
        # A first octet even where there is nothing to complain of: a child that died has said nothing.
        return said[1:].decode("utf-8", "replace") if said else "the question could not be asked"

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reading)

    def disown(self) -> None:
        os.close(self._reading)


def _become(ask: Ask, config: Config, writing: int) -> None:
    """In the child."""
    try:
        leave_supervisor("dmarc-dns", writing)
        os.write(writing, b"." + ask(config).encode("utf-8", "replace")[:900])
    finally:
        os._exit(0)
