"""The answers that a process remembers: as long as the DNS allows, bounded in number and in
memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

from dmarc_milter.core.resolver import LookupFailed
from dmarc_milter.dns.answer import OVERHEAD, Answer, Key

POSITIVE_LIMIT = 3600  # seconds; a longer TTL would outlive a repaired record
NEGATIVE_LIMIT = 300


class CacheEntry(Protocol):
    """What a Store holds. `expires` in seconds, monotonic; `size` in octets; `used` belongs to the
    Store."""

    expires: float
    size: int
    used: bool


class Derived:
    """What was computed from answers: good until the first of them is not. `asked` are the
    questions that it took."""

    __slots__ = ("asked", "expires", "size", "used", "value")

    def __init__(self, value: Any, asked: frozenset[Key], expires: float, size: int) -> None:
        self.value, self.asked, self.expires = value, asked, expires
        self.size = OVERHEAD + size + 150 * len(asked)
        self.used = False


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=CacheEntry)


class BoundedStore(Generic[K, E]):
    """Key -> entry. What was not read since it was last looked at leaves first.

    That is the clock form of least-recently-used: `get` only marks, `keep` makes room.
    """

    def __init__(self, *, entries: int, octets: int) -> None:
        self._entries, self._octets = entries, octets
        self._answers: OrderedDict[K, E] = (
            OrderedDict()
        )  # a plain dict finds its first key ever more slowly
        self._size = 0

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def size(self) -> int:
        """Octets held, as Answer.size estimates them."""
        return self._size

    def get(self, key: K, now: float) -> E | None:
        """The entry, if there is one that is still good at `now` (seconds, monotonic)."""
        answer = self._answers.get(key)
        if answer is None or answer.expires <= now:
            return None
        answer.used = True
        return answer

    def keep(self, key: K, answer: E, now: float) -> None:
        """Hold the entry in the place of an older one, unless it has expired already (TTL 0)."""
        old = self._answers.pop(key, None)
        if old is not None:
            self._size -= old.size
        if answer.expires <= now or answer.size > self._octets:
            return
        self._answers[key] = answer
        self._size += answer.size
        while len(self._answers) > self._entries or self._size > self._octets:
            self._drop_one(now)

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._size = 0

    def _drop_one(self, now: float) -> None:
        # Each round either drops an answer or takes its mark away, so a full turn of the dictionary
        # ends it.
        while True:
            key, answer = self._answers.popitem(last=False)
            if not answer.used or answer.expires <= now:
                self._size -= answer.size
                return
            answer.used = False
            self._answers[key] = answer


class Cache(BoundedStore[Key, Answer]):
    """(name, type) -> Answer."""

    def put(self, key: Key, answer: Answer, now: float) -> None:
        """Give the answer its expiry, and keep it unless that is at once (TTL 0)."""
        answer.expires = now + life(answer)
        self.keep(key, answer, now)


def life(answer: Answer) -> float:
    """Seconds for which an answer may be used for other messages: a failure not at all, or mail
    sent right after a repair would suffer from it. Messages that ask while a question is in flight
    share its failure, which spares a struggling server a stampede."""
    if answer.failure is None:
        return min(answer.ttl, POSITIVE_LIMIT)
    if issubclass(answer.failure, LookupFailed):
        return 0
    return min(answer.ttl, NEGATIVE_LIMIT)
