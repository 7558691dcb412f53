"""Asks name servers. All questions in flight share one thread, which alone receives, retries and
gives up."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from dmarc_milter.core.resolver import SCARCE, LookupFailed
from dmarc_milter.dns.alarm import Stay
from dmarc_milter.dns.answer import Answer, failed, short
from dmarc_milter.dns.attempt import Attempt, Broken, Pending, TcpAttempt, UdpAttempt
from dmarc_milter.dns.counters import Counters
from dmarc_milter.dns.nameservers import Nameservers
from dmarc_milter.dns.rdata import MalformedAnswer
from dmarc_milter.dns.wire import (
    ServerRefused,
    denies_opt,
    is_truncated,
    read_answer,
)

FIRST_RETRY = 2.0  # seconds; sooner when the time-out is short
NOT_SENT = "nothing could be sent"
ABANDONED = failed("abandoned")

log = logging.getLogger("dmarc_milter.resolver")


class ClientObserver(Protocol):
    """Whom the client reports to, on its own thread."""

    def done(self, pending: Pending, answer: Answer) -> None:
        """The question is settled."""
        ...

    def tend(self, now: float) -> float | None:
        """After each turn; within how many seconds there should be another (None: whenever)."""
        ...


class Client:
    """Sends questions and settles them within `timeout` seconds. Belongs to the process that made
    it."""

    def __init__(
        self, servers: Nameservers, timeout: float, report: ClientObserver, counters: Counters
    ) -> None:
        self._servers, self._timeout = servers, timeout
        self._report, self._counters = report, counters
        self._retry = min(FIRST_RETRY, timeout * 0.4)
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._attempts: dict[int, Attempt] = {}
        self._new: deque[tuple[float, Pending]] = deque()
        self._given_up: deque[Pending] = deque()
        self._wish: float | None = None
        self._handing_over = threading.Lock()
        """Held while a socket passes from the thread that asked to the client's, or is closed
        because nobody waits any more."""
        self._timers: list[tuple[float, int, Pending]] = []
        self._order = itertools.count()
        self._asleep = False
        self._lingered = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
        self._thread.start()

    def start(self, pending: Pending, stay: Stay | None = None) -> Answer | None:
        """Send the question. With `stay`, wait here for the first packet: two changes of thread
        less.

        An Answer where there is one at once; None: the client's thread will settle it.
        """
        now = time.monotonic()
        pending.servers = self._servers.current(now)
        if not pending.servers or self._closing:
            return failed("closed" if self._closing else "no name server is known")
        if pending.is_over():
            return None  # abandoned already
        pending.staying = True
        attempt = self._ask_next(pending)
        if attempt is not None and stay is not None:
            answer = self._stay(attempt, stay)
            if answer is not None:
                return answer
        watched = attempt is not None and self._watch(attempt)
        pending.staying = False
        if pending.is_over():
            self._given_up.append(pending)
        else:
            self._new.append((now + self._retry if watched else now, pending))
        # The thread sleeps no longer than a first retry takes, so a question sent just now need not
        # wake it.
        if self._asleep or stay is not None or not watched:
            self.rouse()
        return failed("closed") if self._closing else None

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for it, or it must wait again: its sockets are closed soon, and what they
        still bring is not waited for."""
        if pending.answer is None:
            pending.answer = ABANDONED
            self._given_up.append(pending)
            self.rouse()

    def close(self) -> None:
        """Settle everything in flight as failed and end the thread."""
        self._closing = True
        self.rouse()
        self._thread.join()

    def disown(self) -> None:
        """In a forked child: close what is the parent's, without a word to anyone."""
        for attempt in self._attempts.values():
            attempt.close()
        self._poll.close()
        os.close(self._wake)

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

    def _stay(self, attempt: UdpAttempt, stay: Stay) -> Answer | None:
        """The answer, if the first packet is all there is to it; everything else is left to the
        client's thread."""
        attempt.await_packet(stay.alarm, min(stay.seconds, self._retry))
        packet, pending = attempt.kept, attempt.pending
        if (
            not isinstance(packet, bytes)
            or not attempt.is_answered_by(packet)
            or is_truncated(packet)
        ):
            return None
        try:
            answer = read_answer(packet, pending.question, pending.key[1])
        except Exception:  # the client's thread will read it again, and knows what to do then
            return None
        attempt.server.answered(packet, time.monotonic(), edns=attempt.edns, instead=False)
        self._forget(attempt)
        return answer

    def _watch(self, attempt: Attempt) -> bool:
        """Let the client's thread receive what comes; False when that is impossible."""
        with self._handing_over:
            if attempt.pending.answer is not None:
                self._forget(attempt)
                return False
            self._attempts[attempt.handle] = attempt
            try:
                self._poll.register(attempt.handle, attempt.events)
            except (OSError, ValueError) as error:  # no room in the kernel, or closed meanwhile
                attempt.pending.short |= isinstance(error, OSError) and error.errno in SCARCE
                self._forget(attempt)
                return False
        return True

    def rouse(self) -> None:
        """Let the client's thread have a turn."""
        with contextlib.suppress(OSError):  # closed meanwhile
            os.eventfd_write(self._wake, 1)

    # From here on everything runs in the client's own thread.

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:
                log.exception("dns: a turn of the client's thread failed")
                time.sleep(0.1)  # whatever it is, not as fast as the processor can
        self._shut_down()

    def _turn(self) -> None:
        events = self._poll.poll(self._patience())
        self._asleep = False
        self._lingered = not events
        for handle, _ in events:
            if handle == self._wake:
                os.eventfd_read(handle)
            elif (attempt := self._attempts.get(handle)) is not None:
                self._guarded(attempt)
        now = time.monotonic()
        self._close_given_up()
        self._expire(now)
        self._wish = self._report.tend(now)

    def _patience(self) -> float | None:
        """Seconds to sleep. A new question needs no waking up as long as its first retry lies
        behind the end of the sleep."""
        if self._timers:
            longest = self._retry if self._wish is None else min(self._retry, self._wish)
            return min(longest, max(0.0, self._timers[0][0] - time.monotonic()))
        if not self._lingered:
            return self._retry
        self._asleep = True
        if self._new or self._given_up:
            return 0.0
        return None

    def _guarded(self, attempt: Attempt) -> None:
        if attempt.pending.answer is not None:  # abandoned a moment ago
            self._forget(attempt)
            return
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
                    self._poll.modify(attempt.handle, attempt.events)
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

    def _expire(self, now: float) -> None:
        """Take over what is new, retry what got no answer, give up what is too old."""
        while self._new:
            due, pending = self._new.popleft()
            for attempt in tuple(pending.attempts):
                if attempt.kept is not None:
                    self._guarded(attempt)
            if pending.answer is None:
                heapq.heappush(self._timers, (due, next(self._order), pending))
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].answer is not None):
            _, _, pending = heapq.heappop(self._timers)
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
        heapq.heappush(
            self._timers, (min(pending.give_up, now + self._retry), next(self._order), pending)
        )

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
        if pending.answer is not None:
            return
        for attempt in tuple(pending.attempts):
            self._forget(attempt)
        if answer.failure is LookupFailed:
            self._counters.failures += 1
        pending.answer = answer
        self._report.done(pending, answer)

    def _close_given_up(self) -> None:
        while self._given_up:
            pending = self._given_up.popleft()
            with (
                self._handing_over
            ):  # a thread that stays on the socket comes back here when it has handed it over
                for attempt in () if pending.staying else tuple(pending.attempts):
                    self._forget(attempt)

    def _forget(self, attempt: Attempt) -> None:
        # Out of the table first: once closed, another thread may be given the same number.
        self._attempts.pop(attempt.handle, None)
        with contextlib.suppress(ValueError):
            attempt.pending.attempts.remove(attempt)
        attempt.close()

    def _shut_down(self) -> None:
        self._close_given_up()
        self._expire(time.monotonic())
        waiting = {
            id(attempt.pending): attempt.pending for attempt in tuple(self._attempts.values())
        }
        waiting.update((id(pending), pending) for _, _, pending in self._timers)
        for pending in waiting.values():
            self._settle(pending, failed("closed"))
        self._poll.close()
        os.close(self._wake)
