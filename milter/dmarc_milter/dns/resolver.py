"""The process's resolver: one cache, one client thread, and a budget for every message (implements
core.resolver.Resolver).

admission.py decides what may be asked at once, and who must wait.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.core import budget
from dmarc_milter.core.fair_sharing import Asker
from dmarc_milter.core.resolver import Abandoned, Question
from dmarc_milter.dns.admission import NOTHING, Admission, Moves
from dmarc_milter.dns.alarm import Stay
from dmarc_milter.dns.answer import Answer, Key, failed, short
from dmarc_milter.dns.attempt import Pending
from dmarc_milter.dns.cache import BoundedStore, Cache, Derived
from dmarc_milter.dns.client import Client
from dmarc_milter.dns.counters import Counters, in_flight_limit
from dmarc_milter.dns.inquiry import Caller, Inquiry
from dmarc_milter.dns.message_resolver import MessageResolver, canonical
from dmarc_milter.dns.nameservers import Nameservers
from dmarc_milter.dns.progress import Progress
from dmarc_milter.dns.stale_cache import CacheLimits, Stale, StaleCache
from dmarc_milter.dns.wire import encode_question

__all__ = ["CacheLimits", "DnsResolver", "MessageResolver"]

log = logging.getLogger("dmarc_milter.resolver")  # as the client: the same to whoever reads the log
RESOLV_CONF = Path("/etc/resolv.conf")
RELIEF = 0.1  # seconds between two looks for somebody who should give way while questions wait


class _Orders(NamedTuple):
    """What an admission's Moves come to: flights to end, and flights to begin."""

    recall: list[Pending]
    send: list[Pending]


NO_ORDERS = _Orders([], [])
"""Never changed."""


class DnsResolver:
    """Asks `nameservers` ("ADDRESS", "ADDRESS:PORT", "[ADDRESS]:PORT"; none: those of resolv.conf,
    read again when it changes).

    `timeout` is seconds for one look-up, retries and other servers included. Absolute names only;
    no search list. Nothing is opened before the first question, so it may be made before a fork; a
    child inherits what is remembered. Raises ValueError for a name server that is not an address.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout: float = 5.0,
        memory: CacheLimits = CacheLimits(),
        resolv_conf: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = Counters()
        self.cache = Cache(entries=memory.entries, octets=memory.octets)
        self.derived_cache: BoundedStore[Hashable, Derived] = BoundedStore(
            entries=memory.entries, octets=memory.octets // 2
        )
        self.reserve = StaleCache(memory)
        self._servers = Nameservers(nameservers, resolv_conf)
        self._timeout, self._clock = timeout, clock
        self._client: Client | None = None
        self._admission = Admission(in_flight_limit())
        self._messages = count()
        self._lock = threading.Lock()
        """Held around every call of the admission, and never while waiting for anything."""
        self._closed = False
        os.register_at_fork(after_in_child=partial(_renew, weakref.ref(self)))

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
        """Settle what is in flight as failed, end the thread; later questions fail at once."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def remembers(self, question: Question) -> bool:
        """Whether the answer is at hand, so that asking early would gain nothing."""
        return self.cache.get(canonical(question.name, question.rdtype), self._clock()) is not None

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

    def start(
        self, key: Key, question: bytes, caller: Caller, *, policy: bool, stay: Stay | None = None
    ) -> Inquiry | Answer:
        """Have it asked, or join those who ask it already. A question without a place waits for
        one.

        With `stay` this thread waits for the answer where it does the sending itself, which is
        quicker.
        """
        with self._lock:
            if caller.gone:
                raise Abandoned
            entry = self._admission.find(key)
            if entry is None:  # another thread's answer may have come since the look into the cache
                answer = self.cache.get(key, self._clock())
                if answer is not None:
                    return answer
            inquiry: Inquiry = Inquiry(key, question) if entry is None else entry.item
            orders = self._orders(
                self._admission.ask(key, inquiry, caller.asker, policy=policy, now=time.monotonic())
            )
        if inquiry.flight is None and inquiry.answer is None:
            self.counters.waits += 1
            if self._client is not None:
                self._client.rouse()  # its thread looks after those who wait
        self._obey(orders, inquiry, stay)
        return inquiry.answer or inquiry

    def leave(self, caller: Caller) -> None:
        """The message has ended. What only it has asked is given up, sent or not; its threads are
        woken."""
        caller.leave()
        with self._lock:
            orders = self._orders(self._admission.leave(caller.asker, time.monotonic()))
        self._obey(orders)

    def count_shortage(self) -> None:
        """A question was unsent when its message's time ended."""
        self.counters.shortages += 1

    def _orders(self, moves: Moves) -> _Orders:
        """Under the lock, so that a question is in flight exactly when the admission says so: what
        is then to be done."""
        if moves is NOTHING:
            return NO_ORDERS
        recall, send = [], []
        for entry in moves.recall:
            if entry.item.flight is not None:
                recall.append(entry.item.flight)
                entry.item.flight = None
        for entry in moves.send:
            inquiry: Inquiry = entry.item
            inquiry.flight = Pending(
                inquiry.key, inquiry.question, time.monotonic(), self._timeout, inquiry
            )
            send.append(inquiry.flight)
        return _Orders(recall, send)

    def _obey(self, orders: _Orders, own: Inquiry | None = None, stay: Stay | None = None) -> None:
        """Do it, and what follows from that. The thread that asks `own` may stay for its answer,
        when all others are sent."""
        if orders is NO_ORDERS:
            return
        todo = deque([orders])
        while todo:
            orders = todo.popleft()
            for pending in orders.recall:
                if self._client is not None:
                    self._client.abandon(pending)
            send = (
                orders.send
                if len(orders.send) == 1
                else sorted(orders.send, key=lambda pending: pending.inquiry is own)
            )
            for pending in send:
                answer = self._send(pending, stay if pending.inquiry is own else None)
                if answer is not None:
                    after = self._publish(pending.inquiry, answer)
                    todo += () if after is NO_ORDERS else (after,)

    def _send(self, pending: Pending, stay: Stay | None) -> Answer | None:
        try:
            client = self._client or self._new_client()
            return failed("closed") if client is None else client.start(pending, stay)
        except (
            RuntimeError,
            MemoryError,
            OSError,
        ):  # no thread, memory or descriptor for the client itself
            return short("no room to ask")
        except Exception:
            log.exception("dns: a question could not be sent")
            return failed("internal error")

    def _new_client(self) -> Client | None:
        with self._lock:
            if self._client is None and not self._closed:
                self._client = Client(self._servers, self._timeout, self, self.counters)
            return self._client

    def _publish(self, inquiry: Inquiry, answer: Answer) -> _Orders:
        """Remember the answer and wake who waits; what may go in its place."""
        self.cache.put(inquiry.key, answer, self._clock())
        with self._lock:
            entry = self._admission.find(inquiry.key)
            held = entry is not None and entry.item is inquiry
            orders = (
                self._orders(self._admission.done(entry, time.monotonic()))
                if entry and held
                else NO_ORDERS
            )
        inquiry.settle(answer)
        return orders

    # What the client reports, on its own thread (client.ClientObserver).

    def done(self, pending: Pending, answer: Answer) -> None:
        """See ClientObserver."""
        inquiry: Inquiry = pending.inquiry
        if inquiry.flight is pending:
            self._obey(self._publish(inquiry, answer))

    def tend(self, now: float) -> float | None:
        """See ClientObserver."""
        if not self._admission.waiting:
            return None
        with self._lock:
            orders = self._orders(self._admission.relieve(now))
        self._obey(orders)
        return RELIEF

    def _start_afresh(self) -> None:
        """In a forked child: the thread is not there, and the descriptors are the parent's."""
        client, self._client = self._client, None
        self._lock = threading.Lock()
        self._admission = Admission(in_flight_limit())
        self.cache.unlock()
        self.derived_cache.unlock()
        self.reserve.unlock()
        if client is not None:
            client.disown()


def _renew(reference: weakref.ref[DnsResolver]) -> None:
    resolver = reference()
    if resolver is not None:
        resolver._start_afresh()
