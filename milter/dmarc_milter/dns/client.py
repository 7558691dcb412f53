"""Asks name servers. All questions in flight share one loop, which receives, retries and gives
up."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from dmarc_milter.core.resolver import SCARCE, LookupFailed
from dmarc_milter.dns.answer import Answer, failed, short
from dmarc_milter.dns.attempt import Attempt, Broken, Pending, TcpAttempt, UdpAttempt
from dmarc_milter.dns.counters import Counters
from dmarc_milter.dns.nameservers import Nameservers
from dmarc_milter.dns.rdata import MalformedAnswer
from dmarc_milter.dns.waiting import EventLoop
from dmarc_milter.dns.wire import ServerRefused, denies_opt, is_truncated, read_answer

FIRST_RETRY = 2.0  # seconds; sooner when the time-out is short
NOT_SENT = "nothing could be sent"
ABANDONED = failed("abandoned")

log = logging.getLogger("dmarc_milter.resolver")


class ClientObserver(Protocol):
    """Whom the client reports to."""

    def done(self, pending: Pending, answer: Answer) -> None:
        """The question is settled. Never called before `start` of it has returned."""
        ...


class Client:
    """Sends questions and settles them within `timeout` seconds."""

    def __init__(
        self,
        loop: EventLoop,
        servers: Nameservers,
        timeout: float,
        report: ClientObserver,
        counters: Counters,
    ) -> None:
        self._loop, self._servers = loop, servers
        self._report, self._counters = report, counters
        self._retry = min(FIRST_RETRY, timeout * 0.4)
        self._in_flight: dict[Pending, None] = {}

    def start(self, pending: Pending) -> Answer | None:
        """Send the question. An Answer where there is one at once; None: it will be settled."""
        pending.servers = self._servers.current(pending.begun)
        if not pending.servers:
            return failed("no name server is known")
        self._in_flight[pending] = None
        sent = self._send_next(pending)
        self._wait(pending, self._retry if sent else 0.0)
        return None

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for it, or it must wait again: what its sockets still bring is not waited
        for."""
        if pending.answer is None:
            self._end(pending, ABANDONED)

    def close(self) -> None:
        """Settle everything in flight as failed."""
        for pending in tuple(self._in_flight):
            self._settle(pending, failed("closed"))

    def _wait(self, pending: Pending, seconds: float) -> None:
        pending.timer = self._loop.call_later(seconds, partial(self._overdue, pending))

    def _ask_next(self, pending: Pending) -> UdpAttempt | None:
        """Ask the next server that was not asked yet; None when there is none or nothing could be
        sent to it."""
        while pending.tried < len(pending.servers):
            server = pending.servers[pending.tried]
            pending.tried += 1
            try:
                attempt = UdpAttempt(
                    pending, server, edns=not server.is_asked_plainly(time.monotonic())
                )
            except OSError as error:
                pending.short |= error.errno in SCARCE
                continue
            self._counters.queries += 1
            return attempt
        return None

    def _watch(self, attempt: Attempt) -> bool:
        """Have the loop receive what comes; False when that is impossible."""
        try:
            self._loop.watch(attempt.handle, attempt.events, partial(self._guarded, attempt))
        except OSError as error:  # no room in the kernel
            attempt.pending.short |= error.errno in SCARCE
            self._forget(attempt)
            return False
        return True

    def _guarded(self, attempt: Attempt, _events: int) -> None:
        try:
            self._receive(attempt)
        except Exception:
            # A bug here must not fail every other look-up of the process.
            log.exception("dns: answer could not be handled")
            self._settle(attempt.pending, failed("internal error"))

    def _receive(self, attempt: Attempt) -> None:
        pending, packet = attempt.pending, None
        try:
            packet = attempt.receive()
            if packet is None:
                self._counters.ignored += attempt.ignored
                attempt.ignored = 0
                if attempt.events_changed:
                    self._loop.change(attempt.handle, attempt.events)
                return
            attempt.server.heard(time.monotonic())
            if is_truncated(packet):
                self._fall_back(attempt)
                return
            answer = read_answer(packet, pending.question, pending.key[1])
            attempt.server.answered(
                packet, time.monotonic(), edns=attempt.edns, instead=attempt.instead
            )
            self._settle(pending, answer)
        except (OSError, Broken, MalformedAnswer, ServerRefused) as error:
            if packet is not None and self._ask_plainly(attempt, packet, error):
                return
            pending.short |= isinstance(error, OSError) and error.errno in SCARCE
            known = isinstance(error, MalformedAnswer | ServerRefused)
            self._fail(attempt, str(error) if known else "connection failed")

    def _ask_plainly(self, attempt: Attempt, packet: bytes, error: Exception) -> bool:
        """Ask this server again without OPT where its error may mean that it does not know it;
        whether that was done.

        A garbled answer may mean that too (something on the way cuts what is over 512 octets),
        unless the server has shown OPT.
        """
        known = attempt.server.knows_opt(time.monotonic())
        garbled = isinstance(error, MalformedAnswer) and not known
        if not attempt.edns or not (
            garbled or (isinstance(error, ServerRefused) and denies_opt(packet, known=known))
        ):
            return False
        asked = attempt.pending.is_asked_plainly(attempt.server) or self._send_plain(attempt)
        if asked:
            self._forget(attempt)
        return asked

    def _send_plain(self, attempt: Attempt) -> bool:
        """The same question without OPT, to the same server in the same way."""
        with contextlib.suppress(OSError):
            plain = type(attempt)(attempt.pending, attempt.server, edns=False, instead=True)
            self._counters.queries += 1
            return self._watch(plain)
        return False

    def _fall_back(self, attempt: Attempt) -> None:
        """Ask again over TCP (RFC 7766)."""
        if isinstance(attempt, TcpAttempt):
            raise MalformedAnswer("truncated over TCP")
        self._counters.tcp += 1
        self._counters.queries += 1
        self._forget(attempt)
        if not self._watch(
            TcpAttempt(attempt.pending, attempt.server, edns=attempt.edns, instead=attempt.instead)
        ):
            self._go_on(attempt.pending, "connection failed")

    def _fail(self, attempt: Attempt, reason: str) -> None:
        self._forget(attempt)
        self._go_on(attempt.pending, reason)

    def _go_on(self, pending: Pending, reason: str) -> None:
        """One server has failed: the next one; or whatever is still under way; or nothing."""
        if not self._send_next(pending) and not pending.attempts:
            self._settle(pending, short(NOT_SENT) if pending.short else failed(reason))

    def _send_next(self, pending: Pending) -> bool:
        attempt = self._ask_next(pending)
        return attempt is not None and (self._watch(attempt) or self._send_next(pending))

    def _overdue(self, pending: Pending) -> None:
        """Its time for an answer, or for a first query, is over."""
        now = time.monotonic()
        if pending.answer is None:
            self._retry_or_give_up(pending, now)

    def _retry_or_give_up(self, pending: Pending, now: float) -> None:
        if now >= pending.give_up:
            self._counters.timeouts += 1
            self._settle(pending, failed("timed out"))
            return
        silent = tuple(pending.attempts)
        for attempt in silent:
            attempt.server.missed(attempt.begun, now)
        self._counters.retries += 1
        several = pending.tried > 1
        if self._send_next(pending):
            silent = silent if several else ()
        elif not pending.attempts:
            self._settle(pending, short(NOT_SENT) if pending.short else failed(NOT_SENT))
            return
        self._repeat(silent, now)
        self._wait(pending, min(pending.give_up - now, self._retry))

    def _repeat(self, silent: Iterable[Attempt], now: float) -> None:
        """Ask silent servers again: without OPT those that may not know it, for some things drop a
        query that has it."""
        for attempt in silent:
            if not attempt.edns or attempt.server.knows_opt(now):
                self._counters.queries += attempt.send_again()
            elif isinstance(attempt, UdpAttempt) and not attempt.pending.is_asked_plainly(
                attempt.server
            ):
                self._send_plain(attempt)

    def _settle(self, pending: Pending, answer: Answer) -> None:
        if pending.answer is None:
            if answer.failure is LookupFailed:
                self._counters.failures += 1
            self._end(pending, answer)
            self._report.done(pending, answer)

    def _end(self, pending: Pending, answer: Answer) -> None:
        """Nothing more is sent or received for it."""
        pending.answer = answer
        self._in_flight.pop(pending, None)
        if pending.timer is not None:
            pending.timer.cancel()
        for attempt in tuple(pending.attempts):
            self._forget(attempt)

    def _forget(self, attempt: Attempt) -> None:
        if attempt in attempt.pending.attempts:  # its descriptor is its own only as long as it is
            attempt.pending.attempts.remove(attempt)
            self._loop.forget(attempt.handle)
            attempt.close()
