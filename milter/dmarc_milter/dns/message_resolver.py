"""One message's view of the resolver: the same answer whenever it asks, and a limit on how much it
asks."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, Literal

from dmarc_milter.core.resolver import (
    Abandoned,
    LimitExceeded,
    LookupFailed,
    NoAnswer,
    Question,
    Remembers,
    Shortage,
    StaleAnswer,
    TimeExceeded,
    Work,
)
from dmarc_milter.dns.answer import UNASKABLE, Answer, Key, failed
from dmarc_milter.dns.cache import Derived
from dmarc_milter.dns.inquiry import Inquiry
from dmarc_milter.dns.progress import AnswerSource, Progress
from dmarc_milter.dns.wire import HOP_LIMIT

GRACE = 1.0  # seconds past a look-up's own end before its answer is given up
ROUNDING = 0.001
"""Seconds that are no time left: sums of times that a clock was read for are no more exact."""


class MessageResolver(Remembers):
    """Implements core.resolver.Resolver for one message, or for a share of it.

    `asked` counts different questions, remembered ones too, so that a verdict does not depend on
    what others asked before. `expires` (seconds, monotonic) is the earliest moment at which one of
    the answers given here loses its validity: what was derived from them may be kept that long. It
    is infinite before the first answer and past after one with TTL 0.
    """

    __slots__ = (
        "_asked",
        "_deadline",
        "_limit",
        "_listener",
        "_outer",
        "_policy",
        "_progress",
        "_source",
        "expires",
    )

    def __init__(
        self,
        source: AnswerSource,
        progress: Progress,
        *,
        queries: int,
        deadline: float = math.inf,
        outer: MessageResolver | None = None,
    ) -> None:
        self._source, self._progress = source, progress
        self._limit, self._deadline, self._outer = queries, deadline, outer
        self._policy: bool = outer is not None and outer._policy
        self._listener: Callable[[], None] | None = None
        self._asked: set[Key] = set()
        self.expires = math.inf

    @property
    def asked(self) -> int:
        """How many different questions went this way, prefetched ones and followed aliases
        included."""
        return len(self._asked)

    def txt(self, name: str) -> tuple[bytes, ...]:
        """See core.resolver.Resolver."""
        return self._ask(name, "TXT")

    def addresses(self, name: str, rdtype: Literal["A", "AAAA"]) -> tuple[str, ...]:
        """See core.resolver.Resolver."""
        return self._ask(name, rdtype)

    def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        """See core.resolver.Resolver."""
        return self._ask(name, "MX")

    def ptr(self, name: str) -> tuple[str, ...]:
        """See core.resolver.Resolver."""
        return self._ask(name, "PTR")

    def ns(self, name: str) -> tuple[str, ...]:
        """Name servers of a zone, without trailing dot. Not for messages: whether a resolver knows
        what exists (dns_probe.py)."""
        return self._ask(name, "NS")

    def aliases(self, name: str, rdtype: Literal["A", "AAAA", "MX"]) -> tuple[str, ...]:
        """See core.resolver.Resolver."""
        with contextlib.suppress(NoAnswer):
            self._ask(name, rdtype)
        answer = self._progress.given.get(canonical(name, rdtype))
        return answer.via if answer is not None else ()

    def prefetch(self, questions: Iterable[Question]) -> None:
        """See core.resolver.Resolver. Questions beyond a limit are left out."""
        with contextlib.suppress(Exception):
            for question in questions:
                self._start_early(canonical(question.name, question.rdtype))

    def share(self, *, queries: int, seconds: float) -> MessageResolver:
        """See core.resolver.Resolver."""
        deadline = min(self._deadline, time.monotonic() + seconds)
        return MessageResolver(
            self._source, self._progress, queries=queries, deadline=deadline, outer=self
        )

    def policy(self) -> MessageResolver:
        """See core.resolver.Remembers."""
        scope = MessageResolver(
            self._source, self._progress, queries=sys.maxsize, deadline=self._deadline, outer=self
        )
        scope._policy = True
        return scope

    def abandon(self) -> None:
        """See core.resolver.Remembers."""
        self._source.leave(self._progress.caller)

    def delay(self, seconds: float) -> None:
        """See core.resolver.Remembers."""
        self._progress.patience -= seconds
        self._progress.delayed += seconds

    def recall(self, key: Hashable) -> Any:
        """See core.resolver.Remembers."""
        known = self._progress.derived.get(key) or self._source.derived(key)
        if known is None or not self._charge_all(known.asked):
            return None
        self._rests_on(known.expires)
        return known.value

    def derive(self, key: Hashable, work: Work) -> Any:
        """See core.resolver.Remembers."""
        known = self.recall(key)
        if known is not None:
            return known
        scope = MessageResolver(
            self._source, self._progress, queries=sys.maxsize, deadline=self._deadline, outer=self
        )
        found = work(scope)
        if found.keep and scope.expires > -math.inf:
            derived = Derived(found.value, frozenset(scope._asked), scope.expires, found.size)
            self._progress.derived[key] = derived
            self._source.keep_derived(key, derived)
        return found.value

    def arrived(self, name: str, rdtype: Literal["TXT", "MX"] = "TXT") -> tuple[Any, ...]:
        """See core.resolver.Remembers."""
        found = self._progress.started.get(canonical(name, rdtype))
        answer = found.answer if isinstance(found, Inquiry) else found
        return answer.records if answer is not None else ()

    def telling(self, call: Callable[[], None], queries: int) -> MessageResolver:
        """See core.resolver.Remembers."""
        scope = MessageResolver(
            self._source, self._progress, queries=queries, deadline=self._deadline, outer=self
        )
        scope._listener = call
        return scope

    def knows(self, key: Hashable) -> bool:
        """See core.resolver.Remembers."""
        return self._source.derived(key) is not None

    def pause(self) -> None:
        """See core.resolver.Remembers."""
        self._source.loop.pause()

    def stale_answers(self) -> tuple[StaleAnswer, ...]:
        """See core.resolver.Remembers."""
        return tuple(StaleAnswer(name, seconds) for name, seconds in self._progress.stale.items())

    def _rests_on(self, expires: float) -> None:
        """Note in every scope around that something good until then was used."""
        scope: MessageResolver | None = self
        while scope is not None and expires < scope.expires:
            scope.expires = expires
            scope = scope._outer

    def _ask(self, name: str, rdtype: str) -> tuple[Any, ...]:
        self._source.loop.pause()
        key = canonical(name, rdtype)
        try:
            answer = self._progress.given.get(key) or self._resolve(key)
        except (LimitExceeded, Shortage):
            self._rests_on(-math.inf)  # what comes of it is this message's own affair
            raise
        self._rests_on(answer.expires)
        if answer.failure is not None:
            raise answer.error(key)
        return answer.records

    def _resolve(self, key: Key) -> Answer:
        """The answer with its aliases followed, remembered for this message."""
        self._check()
        answer = self._fetch(key)
        via, expires = answer.via, answer.expires
        while answer.alias and len(via) <= HOP_LIMIT:
            target = (answer.alias, key[1])
            answer = self._progress.given.get(target) or self._fetch(target)
            via, expires = via + answer.via, min(expires, answer.expires)
        if len(via) > HOP_LIMIT:
            answer = failed("too many aliases")
        if (answer.via, answer.expires) != (via, expires):
            answer = answer.until(expires, via)
        if answer.failure is LookupFailed:
            answer = self._instead(key) or answer
        elif answer.failure is None or issubclass(answer.failure, NoAnswer):
            self._source.hold(key, answer)
        return self._progress.given.setdefault(key, answer)

    def _instead(self, key: Key) -> Answer | None:
        """What the name said before its DNS failed (RFC 8767 4). It serves this message alone: the
        next one asks again."""
        found = self._source.stale(key)
        if found is None:
            return None
        if found.past > 0:
            self._progress.stale[key[0]] = found.seconds
        return found.answer.until(-math.inf, found.answer.via)

    def _fetch(self, key: Key) -> Answer:
        started = self._progress.started.get(key)
        found = started or self._source.cached(key)
        question = b""
        if found is None:
            encoded = self._source.encode(key)
            if encoded is None:
                return UNASKABLE
            question = encoded
        if not self._charge(key):
            raise LimitExceeded(f"{key[1]} {key[0]}: too many questions", name=key[0])
        if found is None:
            found = self._start(key, question)
        else:
            self._hurry(found)
        return found if isinstance(found, Answer) else self._wait(key, found)

    def _start(self, key: Key, question: bytes) -> Inquiry | Answer:
        left = self._seconds_left()
        if left <= 0:
            raise self._out_of_time(key, left)
        return self._source.start(key, question, self._progress.caller, policy=self._policy)

    def _hurry(self, found: Inquiry | Answer | None) -> None:
        """What the message has asked for other ends, and not sent, is asked for the policy now."""
        if not self._policy or not isinstance(found, Inquiry):
            return
        if found.flight is None and found.answer is None:
            self._source.start(found.key, found.question, self._progress.caller, policy=True)

    def _wait(self, key: Key, inquiry: Inquiry) -> Answer:
        """For an answer, or for a place and then an answer."""
        if inquiry.answer is not None:
            return inquiry.answer
        caller, own = self._progress.caller, self._source.loop.current
        caller.waiting.append(own)
        inquiry.waiters.append(own)
        try:
            while inquiry.answer is None:
                self._check()
                if not self._wait_once(inquiry):
                    break
        finally:
            inquiry.waiters.remove(own)
            caller.waiting.remove(own)
        self._check()
        return inquiry.answer or self._unanswered(key, inquiry)

    def _wait_once(self, inquiry: Inquiry) -> bool:
        """Until something has changed, or the time is up; False when it was up before.

        What passes between the answer and this message's turn is our doing, as waiting for a place
        is.
        """
        progress, flight, now = self._progress, inquiry.flight, time.monotonic()
        its = math.inf if flight is None else flight.give_up + GRACE - now
        longest = min(self._seconds_left(), its)
        if longest <= 0:
            return False
        self._source.loop.park(longest)
        over = time.monotonic()
        spent, due = over - now, inquiry.answered or now + longest
        progress.patience -= spent
        progress.delayed += spent if flight is None else max(0.0, over - due)
        return True

    def _unanswered(self, key: Key, inquiry: Inquiry) -> Answer:
        """Unsent: a shortage. Sent too late for an answer: the message's own doing, or ours. Else
        it is the DNS's failure."""
        left, flight = self._seconds_left(), inquiry.flight
        if flight is None:
            raise self._shortage(key, "could not be sent")
        if left <= 0 and time.monotonic() - flight.begun < self._progress.fair:
            raise self._out_of_time(key, left)
        return failed("no answer in time")

    def _out_of_time(self, key: Key, left: float) -> Exception:
        """Whose doing that is: without our delays there might be time left."""
        if left + self._progress.delayed > ROUNDING:
            return self._shortage(key, "no time left after waiting for room")
        return TimeExceeded(f"{key[1]} {key[0]}: no time left", name=key[0])

    def _shortage(self, key: Key, reason: str) -> Shortage:
        self._source.count_shortage()
        return Shortage(f"{key[1]} {key[0]}: {reason}", name=key[0])

    def _check(self) -> None:
        if self._progress.caller.gone:
            raise Abandoned

    def _seconds_left(self) -> float:
        return min(self._progress.patience, self._deadline - time.monotonic())

    def _charge(self, key: Key) -> bool:
        """Count the question here and in every scope around; False, and nothing counted, where one
        has no room."""
        if key in self._asked:  # then it counts in every scope around
            return True
        fresh = []
        scope: MessageResolver | None = self
        while scope is not None:
            if key not in scope._asked:
                if len(scope._asked) >= scope._limit:
                    return False
                fresh.append(scope)
            scope = scope._outer
        for scope in fresh:
            scope._asked.add(key)
        return True

    def _charge_all(self, keys: frozenset[Key]) -> bool:
        """Count questions that were asked for another message; False, and nothing counted, where
        there is no room for all."""
        scope: MessageResolver | None = self
        while scope is not None:
            if (
                len(scope._asked) + len(keys) > scope._limit
                and len(scope._asked | keys) > scope._limit
            ):
                return False
            scope = scope._outer
        scope = self
        while scope is not None:
            scope._asked |= keys
            scope = scope._outer
        return True

    def _start_early(self, key: Key) -> None:
        progress = self._progress
        if key in progress.given or key in progress.started:
            self._charge(key)  # a hint counts wherever it is given, so what rests on it does
            self._hurry(progress.started.get(key))
            return
        found: Inquiry | Answer | None = self._source.cached(key)
        question = self._source.encode(key) if found is None else b""
        if question is None or not self._charge(key):
            return
        started = progress.started[key] = found or self._source.start(
            key, question, progress.caller, policy=self._policy
        )
        if self._listener is not None and isinstance(started, Inquiry):
            started.listeners.append(self._listener)


@lru_cache(maxsize=2048)
def canonical(name: str, rdtype: str) -> Key:
    """The key of a question: lower case, and a final dot makes no difference. (Lower case of other
    text may turn into ASCII.)"""
    if name.endswith("."):
        name = name[:-1]
    return name.lower() if name.isascii() else name, rdtype
