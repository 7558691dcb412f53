"""The process's resolver: one cache, one client in the loop, and a budget for every message
(implements core.resolver.Resolver).

admission.py decides what may be asked at once, and who must wait.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from pathlib import Path

from dmarc_milter.core import budget
from dmarc_milter.core.fair_sharing import Asker
from dmarc_milter.core.resolver import Abandoned
from dmarc_milter.dns.admission import NOTHING, Admission, Moves
from dmarc_milter.dns.answer import Answer, Key, failed, short
from dmarc_milter.dns.attempt import Pending
from dmarc_milter.dns.cache import BoundedStore, Cache, Derived
from dmarc_milter.dns.client import Client
from dmarc_milter.dns.counters import Counters, in_flight_limit
from dmarc_milter.dns.inquiry import Caller, Inquiry
from dmarc_milter.dns.message_resolver import MessageResolver
from dmarc_milter.dns.nameservers import Nameservers
from dmarc_milter.dns.progress import Progress
from dmarc_milter.dns.stale_cache import CacheLimits, Stale, StaleCache
from dmarc_milter.dns.waiting import EventLoop, LoopTimer
from dmarc_milter.dns.wire import encode_question

__all__ = ["CacheLimits", "DnsResolver", "MessageResolver"]

log = logging.getLogger("dmarc_milter.resolver")  # as the client: the same to whoever reads the log
RESOLV_CONF = Path("/etc/resolv.conf")
RELIEF = 0.1  # seconds between two looks for somebody who should give way while questions wait


class DnsResolver:
    """Asks `nameservers` ("ADDRESS", "ADDRESS:PORT", "[ADDRESS]:PORT"; none: those of resolv.conf,
    read again when it changes).

    `timeout` is seconds for one look-up, retries and other servers included. Absolute names only;
    no search list. Belongs to the loop's thread; whoever waits for an answer there runs the loop or
    is a task of it. Raises ValueError for a name server that is not an address.
    """

    def __init__(
        self,
        loop: EventLoop,
        nameservers: Sequence[str] = (),
        *,
        timeout: float = 5.0,
        memory: CacheLimits = CacheLimits(),
        resolv_conf: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        self.counters = Counters()
        self.cache = Cache(entries=memory.entries, octets=memory.octets)
        self.derived_cache: BoundedStore[Hashable, Derived] = BoundedStore(
            entries=memory.entries, octets=memory.octets // 2
        )
        self.reserve = StaleCache(memory)
        self._servers = Nameservers(nameservers, resolv_conf)
        self._timeout, self._clock = timeout, clock
        self._client = Client(loop, self._servers, timeout, self, self.counters)
        self._admission = Admission(in_flight_limit())
        self._messages = count()
        self._relief: LoopTimer | None = None
        self._closed = False

    def for_message(
        self,
        seconds: float = budget.MESSAGE_SECONDS,
        max_queries: int = budget.MESSAGE_QUERIES,
        network: Hashable = None,
    ) -> MessageResolver:
        """A resolver for one message: `seconds` spent waiting for answers in all, at most
        `max_queries` different questions.

        `network`: whose share of the questions in flight it uses (core.fair.client_network).
        """
        return MessageResolver(
            self,
            Progress(seconds, Caller(Asker(network, next(self._messages)))),
            queries=max_queries,
        )

    def close(self) -> None:
        """Settle what is in flight as failed; later questions fail at once."""
        self._closed = True
        if self._relief is not None:
            self._relief.cancel()
        self._client.close()

    # What a message's resolver uses (progress.AnswerSource).

    def cached(self, key: Key) -> Answer | None:
        """The remembered answer, if it is still good."""
        answer = self.cache.get(key, self._clock())
        if answer is not None:
            self.counters.hits += 1
        return answer

    def derived(self, key: Hashable) -> Derived | None:
        """What was derived under this key, if all of its answers are still good."""
        return self.derived_cache.get(key, self._clock())

    def keep_derived(self, key: Hashable, derived: Derived) -> None:
        """Let other messages have it, as long as its answers are good."""
        self.derived_cache.keep(key, derived, self._clock())

    def hold(self, key: Key, answer: Answer) -> None:
        """Let the reserve learn what the DNS said, aliases followed."""
        self.reserve.hold(key, answer, self._clock())

    def stale(self, key: Key) -> Stale | None:
        """What may be used instead, now that the DNS has failed."""
        found = self.reserve.find(key, self._clock())
        if found is not None:
            self.counters.stale += 1
        return found

    def encode(self, key: Key) -> bytes | None:
        """The question section, None for a name that cannot be asked."""
        return encode_question(key)

    def start(self, key: Key, question: bytes, caller: Caller, *, policy: bool) -> Inquiry | Answer:
        """Have it asked, or join those who ask it already. A question without a place waits for
        one."""
        if caller.gone:
            raise Abandoned
        entry = self._admission.find(key)
        inquiry: Inquiry = Inquiry(key, question) if entry is None else entry.item
        self._obey(
            self._admission.ask(key, inquiry, caller.asker, policy=policy, now=time.monotonic())
        )
        if inquiry.flight is None and inquiry.answer is None:
            self.counters.waits += 1
            if self._relief is None:
                self._relief = self.loop.call_later(RELIEF, self._relieve)
        return inquiry.answer or inquiry

    def leave(self, caller: Caller) -> None:
        """The message has ended. What only it has asked is given up, sent or not; its tasks are
        woken."""
        caller.leave()
        self._obey(self._admission.leave(caller.asker, time.monotonic()))

    def count_shortage(self) -> None:
        """A question was unsent when its message's time ended."""
        self.counters.shortages += 1

    def _obey(self, moves: Moves) -> None:
        """Do what the admission says, and what follows from that."""
        if moves is NOTHING:
            return
        todo = deque([moves])
        while todo:
            moves = todo.popleft()
            for entry in moves.recall:
                pending, entry.item.flight = entry.item.flight, None
                if pending is not None:
                    self._client.abandon(pending)
            for entry in moves.send:
                inquiry: Inquiry = entry.item
                inquiry.flight = Pending(
                    inquiry.key, inquiry.question, time.monotonic(), self._timeout, inquiry
                )
                inquiry.wake()
                answer = self._send(inquiry.flight)
                if answer is not None:
                    todo.append(self._publish(inquiry, answer))

    def _send(self, pending: Pending) -> Answer | None:
        try:
            return failed("closed") if self._closed else self._client.start(pending)
        except (MemoryError, OSError):
            return short("no room to ask")
        except Exception:
            log.exception("dns: a question could not be sent")
            return failed("internal error")

    def _publish(self, inquiry: Inquiry, answer: Answer) -> Moves:
        """Remember the answer and wake who waits; what may go in its place."""
        self.cache.put(inquiry.key, answer, self._clock())
        entry = self._admission.find(inquiry.key)
        held = entry is not None and entry.item is inquiry
        moves = self._admission.done(entry, time.monotonic()) if entry and held else NOTHING
        inquiry.settle(answer)
        return moves

    def done(self, pending: Pending, answer: Answer) -> None:
        """See ClientObserver."""
        inquiry: Inquiry | None = pending.inquiry
        if inquiry is not None and inquiry.flight is pending:
            self._obey(self._publish(inquiry, answer))

    def _relieve(self) -> None:
        """While questions wait: who has had much for long gives way."""
        self._relief = None
        if self._admission.waiting and not self._closed:
            self._relief = self.loop.call_later(RELIEF, self._relieve)
            self._obey(self._admission.relieve(time.monotonic()))
