"""The DNS at the edge: one cache and one asking thread per process, a budget per message (implements lookup.Resolver)."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

from dmarc_milter.edge.resolver.answer import Answer, Key, failed
from dmarc_milter.edge.resolver.cache import Cache, Derived, Store
from dmarc_milter.edge.resolver.client import Client, Counters
from dmarc_milter.edge.resolver.exchange import Pending
from dmarc_milter.edge.resolver.message import MessageResolver, Progress, canonical
from dmarc_milter.edge.resolver.reserve import Memory, Reserve, Stale
from dmarc_milter.edge.resolver.servers import Nameservers
from dmarc_milter.edge.resolver.wire import encode_question
from dmarc_milter.lookup import Question

__all__ = ["DnsResolver", "Memory", "MessageResolver"]

RESOLV_CONF = Path("/etc/resolv.conf")


class DnsResolver:
    """Asks `nameservers` ("ADDRESS", "ADDRESS:PORT", "[ADDRESS]:PORT"; none: those of resolv.conf, read again when it changes).

    `timeout` is seconds for one look-up, retries and other servers included. Absolute names only; no search list.
    Nothing is opened before the first question, so it may be made before a fork; a child inherits what is remembered.
    Raises ValueError for a name server that is not an address.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout: float = 5.0,
        memory: Memory = Memory(),
        resolv_conf: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = Counters()
        self.cache = Cache(entries=memory.entries, octets=memory.octets)
        self.conclusions: Store[Hashable, Derived] = Store(entries=memory.entries, octets=memory.octets // 2)
        self.reserve = Reserve(memory)
        self._servers = Nameservers(nameservers, resolv_conf)
        self._timeout, self._clock = timeout, clock
        self._client: Client | None = None
        self._in_flight: dict[Key, Pending] = {}
        self._lock = threading.Lock()
        self._closed = False
        os.register_at_fork(after_in_child=partial(_renew, weakref.ref(self)))

    def for_message(self, seconds: float = 25.0, max_queries: int = 160) -> MessageResolver:
        """A resolver for one message: `seconds` spent waiting for answers in all, at most `max_queries` different questions."""
        return MessageResolver(self, Progress(seconds), queries=max_queries)

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

    # What a message's resolver uses (message.Source).

    def cached(self, key: Key) -> Answer | None:
        """The remembered answer, if it is still good."""
        answer = self.cache.get(key, self._clock())
        if answer is not None:
            self.counters.hits += 1
        return answer

    def concluded(self, key: Hashable) -> Derived | None:
        """What was derived under this key, if all of its answers are still good."""
        return self.conclusions.get(key, self._clock())

    def conclude(self, key: Hashable, derived: Derived) -> None:
        """Let other messages have it, as long as its answers are good."""
        self.conclusions.keep(key, derived, self._clock())

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

    def start(self, key: Key, question: bytes, stay: float) -> Pending | Answer:
        """Put the question in flight, unless it is: then join it. Waits up to `stay` seconds if that is quicker."""
        pending = Pending(key, question, time.monotonic(), self._timeout)
        current = self._in_flight.setdefault(key, pending)
        if current is not pending:
            return current
        # Another thread's answer may have come between the look into the cache and the line above.
        answer = self.cache.get(key, self._clock())
        if answer is None:
            try:
                answer = self._send(pending, stay)
            except BaseException:
                self._settle_here(pending, failed("internal error"))
                raise
        if answer is None:
            return pending
        self._settle_here(pending, answer)
        return answer

    def _send(self, pending: Pending, stay: float) -> Answer | None:
        client = self._client
        if client is None:
            with self._lock:
                if self._closed:
                    return failed("closed")
                client = self._client = self._client or Client(self._servers, self._timeout, self._arrived, self.counters)
        return client.start(pending, stay)

    def _settle_here(self, pending: Pending, answer: Answer) -> None:
        self._in_flight.pop(pending.key, None)
        pending.settle(answer)

    def _arrived(self, key: Key, answer: Answer) -> None:
        """Called by the client's thread before it wakes those who wait."""
        self.cache.put(key, answer, self._clock())
        self._in_flight.pop(key, None)

    def _start_afresh(self) -> None:
        """In a forked child: the thread is not there, and the descriptors are the parent's."""
        client, self._client = self._client, None
        self._lock = threading.Lock()
        self._in_flight = {}
        self.cache.unlock()
        self.conclusions.unlock()
        self.reserve.unlock()
        if client is not None:
            client.disown()


def _renew(reference: weakref.ref[DnsResolver]) -> None:
    resolver = reference()
    if resolver is not None:
        resolver._start_afresh()
